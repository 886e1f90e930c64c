//! TLS of the API: certificates that change under load, files that cannot be used, certificates of clients, and
//! handshakes that take their time.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use stategate_protocol::pb::{
    entity_service_client::EntityServiceClient, event_service_client::EventServiceClient,
};
use stategate_tests::{Form, Gateway, Options, PATIENCE, Process, Role, ask, clients::everything};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Code, Request,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

const NAME: &str = "gateway.example";
const FAILED: &str = "changed TLS files cannot be used";

/// Somebody who signs certificates.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
struct Pair {
    certificate: String,
    key: String,
}

impl Pair {
    fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut about = CertificateParams::new(Vec::new()).unwrap();
        about.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        about.distinguished_name.push(DnType::CommonName, name);
        let certificate = about.self_signed(&key).unwrap();
        Self {
            pem: certificate.pem(),
            issuer: Issuer::new(about, key),
        }
    }

    fn issue(&self, name: &str) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut about = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        about.distinguished_name.push(DnType::CommonName, name);
        Pair {
            certificate: about.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

/// The files of a gateway, and the gateway.
struct Secured {
    gateway: Gateway,
    folder: TempDir,
}

impl Secured {
    async fn start(pair: &Pair, authorities: Option<&Authority>, more: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        fs::write(path("cert.pem"), &pair.certificate).unwrap();
        fs::write(path("key.pem"), &pair.key).unwrap();
        let mut options = Options::new(Form::One)
            .env("STATEGATE_TLS_CERT_FILE", path("cert.pem"))
            .env("STATEGATE_TLS_KEY_FILE", path("key.pem"));
        if let Some(authorities) = authorities {
            fs::write(path("ca.pem"), &authorities.pem).unwrap();
            options = options.env("STATEGATE_TLS_CLIENT_CA_FILE", path("ca.pem"));
        }
        for (name, value) in more {
            options = options.env(name, *value);
        }
        Self {
            gateway: Gateway::start(options).await,
            folder,
        }
    }

    fn process(&mut self) -> &mut Process {
        self.gateway.process(Role::Everything)
    }

    /// Writes a file as a careful tool does: beside it, and in one step into its place.
    fn write(&self, name: &str, text: &str) {
        let beside = self.folder.path().join("new");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, self.folder.path().join(name)).unwrap();
    }

    /// Waits until changed files were refused for the `nth` time, for a reason that says this.
    async fn refused(&mut self, nth: usize, why: &str) {
        let begun = Instant::now();
        let process = self.process();
        loop {
            let failures: Vec<_> = process
                .errors()
                .into_iter()
                .filter(|line| line.contains(FAILED))
                .collect();
            assert!(failures.len() <= nth, "told too often: {failures:#?}");
            if failures.len() == nth {
                assert!(failures[nth - 1].contains(why), "{failures:#?}");
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "never refused: {why}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What a client trusts, and shows.
#[derive(Clone)]
struct Client {
    authorities: Vec<String>,
    shows: Option<Pair>,
}

impl Client {
    fn new(authorities: &[&Authority], shows: Option<&Pair>) -> Self {
        Self {
            authorities: authorities.iter().map(|one| one.pem.clone()).collect(),
            shows: shows.cloned(),
        }
    }

    async fn channel(&self, address: SocketAddr) -> Result<Channel, tonic::transport::Error> {
        let mut tls = ClientTlsConfig::new().domain_name(NAME);
        for authority in &self.authorities {
            tls = tls.ca_certificate(Certificate::from_pem(authority));
        }
        if let Some(pair) = &self.shows {
            let identity = tonic::transport::Identity::from_pem(&pair.certificate, &pair.key);
            tls = tls.identity(identity);
        }
        let endpoint = Endpoint::from_shared(format!("https://{address}"))?;
        endpoint
            .tls_config(tls)?
            .connect_timeout(PATIENCE)
            .connect()
            .await
    }

    /// Whether a call is answered.
    async fn is_served(&self, address: SocketAddr) -> bool {
        let Ok(channel) = self.channel(address).await else {
            return false;
        };
        let called = EntityServiceClient::new(channel)
            .set(ask::entity("d/t/k", "{}"))
            .await;
        called.is_ok()
    }

    /// A connection after its handshake.
    async fn handshake(&self, address: SocketAddr) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        for authority in &self.authorities {
            let authority = CertificateDer::from_pem_slice(authority.as_bytes()).unwrap();
            roots.add(authority).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &self.shows {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder
                    .with_client_auth_cert(vec![pair.der()], key)
                    .unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let socket = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, socket).await.unwrap()
    }

    /// The certificate that the server shows to a new connection.
    async fn shown(&self, address: SocketAddr) -> CertificateDer<'static> {
        let stream = self.handshake(address).await;
        let (_, session) = stream.get_ref();
        assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
        session.peer_certificates().unwrap()[0].clone().into_owned()
    }

    /// Waits until new connections see this certificate.
    async fn sees(&self, address: SocketAddr, pair: &Pair) {
        let begun = Instant::now();
        while self.shown(address).await != pair.der() {
            assert!(begun.elapsed() < PATIENCE, "never in force");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_changes_under_load_and_no_call_notices() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let first = old.issue("first");
    let mut secured = Secured::start(&first, None, &[]).await;
    let address = secured.process().grpc();
    let client = Client::new(&[&old, &new], None);
    client.sees(address, &first).await;

    let mut subscriber = EventServiceClient::new(client.channel(address).await.unwrap());
    let stream = subscriber.stream(everything(None)).await.unwrap();
    let mut stream = stream.into_inner();
    let (is_over, calls) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut workers = Vec::new();
    for worker in 0..4 {
        let channel = client.channel(address).await.unwrap();
        let (is_over, calls) = (Arc::clone(&is_over), Arc::clone(&calls));
        workers.push(tokio::spawn(async move {
            let mut client = EntityServiceClient::new(channel);
            let name = format!("d/t/k{worker}");
            while !is_over.load(Ordering::Relaxed) {
                client.set(ask::entity(&name, "{}")).await.unwrap();
                calls.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let begun = Instant::now();
    let mut rotations = 0;
    for authority in [&old, &new, &new] {
        let next = authority.issue("next");
        // Not in one step: for a moment the two do not belong together.
        secured.write("key.pem", &next.key);
        secured.write("cert.pem", &next.certificate);
        client.sees(address, &next).await;
        rotations += 1;
        let before = calls.load(Ordering::Relaxed);
        while calls.load(Ordering::Relaxed) < before + 20 {
            assert!(begun.elapsed() < 3 * PATIENCE, "calls do not go on");
            sleep(Duration::from_millis(5)).await;
        }
    }
    is_over.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    // The stream is whole: it was there from the first call on, on the connection that it began on.
    let calls = calls.load(Ordering::Relaxed);
    for _ in 0..calls {
        let event = timeout(PATIENCE, stream.message()).await.unwrap();
        event.unwrap().unwrap();
    }
    println!("{rotations} rotations under {calls} calls and a stream");
    let process = secured.process();
    let done = r#"stategate_tls_reloads_total{outcome="done"}"#;
    assert!(process.metric(done).await >= 3.0);
    let expires = process
        .metric("stategate_tls_certificate_expires_seconds")
        .await;
    assert!(expires > 1.7e9, "{expires}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_used_keep_the_last_ones_and_are_told_once() {
    let authority = Authority::new("authority");
    let first = authority.issue("first");
    let mut secured = Secured::start(&first, None, &[]).await;
    let address = secured.process().grpc();
    let client = Client::new(&[&authority], None);
    let next = authority.issue("next");
    let half = &next.certificate[..next.certificate.len() / 2];
    let cases: [(&str, &str, &str); 4] = [
        ("cert.pem", half, "is damaged"),
        ("cert.pem", "", "is empty"),
        // The key of the certificate is not there yet.
        ("cert.pem", &next.certificate, "is not the key"),
        ("key.pem", "nonsense", "is not in PEM"),
    ];
    for (n, (name, text, why)) in cases.into_iter().enumerate() {
        secured.write(name, text);
        secured.refused(n + 1, why).await;
        assert_eq!(client.shown(address).await, first.der(), "{why}");
        assert!(client.is_served(address).await, "{why}");
    }
    fs::remove_file(secured.folder.path().join("key.pem")).unwrap();
    secured.refused(5, "does not exist").await;
    assert_eq!(client.shown(address).await, first.der());
    secured.write("key.pem", &next.key);
    client.sees(address, &next).await;
    // Each was told once, however often it was read since, and none is told any more.
    secured.refused(5, "does not exist").await;
    let process = secured.process();
    let count = |outcome: &str| format!(r#"stategate_tls_reloads_total{{outcome="{outcome}"}}"#);
    assert_eq!(process.metric(&count("failed")).await, 5.0);
    assert_eq!(process.metric(&count("done")).await, 1.0);
    for line in process.errors() {
        for secret in [&first.key, &next.key] {
            let secret = secret.lines().nth(1).unwrap();
            assert!(!line.contains(secret), "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_shows_a_certificate_of_the_right_authority() {
    let (servers, clients, foreign) = (
        Authority::new("servers"),
        Authority::new("clients"),
        Authority::new("foreign"),
    );
    let pair = servers.issue("server");
    let with = |shows: Option<&Pair>| Client::new(&[&servers], shows);
    let (ours, theirs) = (clients.issue("ours"), foreign.issue("theirs"));
    let own = KeyPair::generate().unwrap();
    let about = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    let itself = Pair {
        certificate: about.self_signed(&own).unwrap().pem(),
        key: own.serialize_pem(),
    };
    let mut late = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    late.not_before = rcgen::date_time_ymd(2001, 1, 1);
    late.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let key = KeyPair::generate().unwrap();
    let expired = Pair {
        certificate: late.signed_by(&key, &clients.issuer).unwrap().pem(),
        key: key.serialize_pem(),
    };
    for (is_required, wanted) in [(true, "required"), (false, "optional")] {
        let more = [("STATEGATE_TLS_CLIENT_CERT", wanted)];
        let mut secured = Secured::start(&pair, Some(&clients), &more).await;
        let address = secured.process().grpc();
        let cases = [
            ("its own authority's", Some(&ours), true),
            ("none", None, !is_required),
            ("a foreign authority's", Some(&theirs), false),
            ("its own", Some(&itself), false),
            ("an expired one", Some(&expired), false),
        ];
        for (what, shows, is_good) in cases {
            let is_served = with(shows).is_served(address).await;
            assert_eq!(is_served, is_good, "{wanted}, shown {what}");
        }
        // The authorities change: who was good is not, and the other way round.
        secured.write("ca.pem", &foreign.pem);
        let begun = Instant::now();
        while !with(Some(&theirs)).is_served(address).await {
            assert!(begun.elapsed() < PATIENCE, "never in force");
            sleep(Duration::from_millis(50)).await;
        }
        assert!(!with(Some(&ours)).is_served(address).await, "{wanted}");
        secured.gateway.assert_no_errors();
        let ended = r#"stategate_connections_ended_total{reason="handshake"}"#;
        assert!(secured.process().metric(ended).await >= 3.0);
    }
}

#[tokio::test]
async fn a_policy_sees_the_subject_of_a_clients_certificate() {
    let issuer = stategate_tests::Issuer::new();
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let pair = servers.issue("server");
    let rule = r#"allow if input.client_certificate.subject == "CN=payroll""#;
    let variables = issuer.variables(rule, "allow := true");
    let optional = ("STATEGATE_TLS_CLIENT_CERT", "optional");
    let variables = variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()));
    let variables: Vec<_> = variables.chain([optional]).collect();
    let mut secured = Secured::start(&pair, Some(&clients), &variables).await;
    let address = secured.process().grpc();
    let token = issuer.token(&serde_json::json!({"sub": "ada"}));
    for (shows, expected) in [
        (Some(clients.issue("payroll")), Code::Ok),
        (
            Some(clients.issue("payroll,CN=other")),
            Code::PermissionDenied,
        ),
        (None, Code::PermissionDenied),
    ] {
        let client = Client::new(&[&servers], shows.as_ref());
        let channel = client.channel(address).await.unwrap();
        let mut request = Request::new(ask::entity("d/t/k", "{}"));
        let bearer = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        let answer = EntityServiceClient::new(channel).set(request).await;
        let code = answer.err().map_or(Code::Ok, |status| status.code());
        assert_eq!(code, expected, "{shows:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_handshakes_hold_up_nobody_and_end() {
    const SLOW: usize = 200;
    let authority = Authority::new("authority");
    let pair = authority.issue("server");
    let most = (SLOW + 20).to_string();
    let more = [("STATEGATE_MAX_CONNECTIONS", most.as_str())];
    let mut secured = Secured::start(&pair, None, &more).await;
    let address = secured.process().grpc();
    let client = Client::new(&[&authority], None);
    assert!(client.is_served(address).await);

    let begun = Instant::now();
    let mut slow = Vec::new();
    for n in 0..SLOW {
        let mut socket = TcpStream::connect(address).await.unwrap();
        // The beginning of a record of a handshake, or nothing at all, or something else than TLS in part.
        let beginning: &[u8] = match n % 3 {
            0 => &[0x16, 3, 1, 2, 0, 1, 0],
            1 => &[],
            _ => &[0x16],
        };
        socket.write_all(beginning).await.unwrap();
        slow.push(socket);
    }
    let open = r#"stategate_connections_open{listener="api"}"#;
    while secured.process().metric(open).await < 200.0 {
        assert!(begun.elapsed() < PATIENCE);
        sleep(Duration::from_millis(10)).await;
    }
    let (mut served, mut slowest) = (0, Duration::ZERO);
    while begun.elapsed() < Duration::from_secs(6) {
        let asked = Instant::now();
        assert!(client.is_served(address).await);
        slowest = slowest.max(asked.elapsed());
        served += 1;
    }
    // They count: there is room for twenty more, and no more.
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let process = secured.process();
    while process.metric("stategate_connections_refused_total").await < 20.0 {
        assert!(begun.elapsed() < PATIENCE);
        sleep(Duration::from_millis(10)).await;
    }
    let ends = slow.into_iter().map(|mut socket| async move {
        let mut buffer = [0; 64];
        while !matches!(socket.read(&mut buffer).await, Ok(0) | Err(_)) {}
    });
    timeout(PATIENCE, futures::future::join_all(ends))
        .await
        .unwrap();
    let lasted = begun.elapsed();
    println!(
        "{served} handshakes and calls beside {SLOW} slow ones, the slowest {slowest:?}; ended after {lasted:?}"
    );
    assert!(lasted >= Duration::from_secs(9), "{lasted:?}");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    let ended = r#"stategate_connections_ended_total{reason="handshake"}"#;
    while process.metric(ended).await < 200.0 {
        assert!(begun.elapsed() < 2 * PATIENCE);
        sleep(Duration::from_millis(10)).await;
    }
    drop(silent);
    // After its handshake a connection has to say something too.
    let mut quiet = client.handshake(address).await;
    let begun = Instant::now();
    let mut buffer = [0; 64];
    let read = async { while !matches!(quiet.read(&mut buffer).await, Ok(0) | Err(_)) {} };
    timeout(PATIENCE, read).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(9));
    let ended = r#"stategate_connections_ended_total{reason="silent"}"#;
    assert!(secured.process().metric(ended).await >= 1.0);
    secured.gateway.assert_no_errors();
}
