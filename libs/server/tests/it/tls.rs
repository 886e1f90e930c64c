//! gRPC over TLS.

use stategate_protocol::pb::{self, entity_service_client::EntityServiceClient};
use stategate_server::{Config, Drain, Env, Server, Services, Telemetry};
use tonic::transport::{Certificate, Channel, ClientTlsConfig};

use crate::support::start;

#[tokio::test]
async fn a_certificate_and_its_key_are_all_it_takes() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (cert, key) = (
        directory.path().join("cert.pem"),
        directory.path().join("key.pem"),
    );
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let started = start(&[
        ("STATEGATE_TLS_CERT_FILE", cert.to_str().unwrap()),
        ("STATEGATE_TLS_KEY_FILE", key.to_str().unwrap()),
    ])
    .await;

    let port = started.running.addresses().grpc.port();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(made.cert.pem()))
        .domain_name("localhost");
    let channel = Channel::from_shared(format!("https://127.0.0.1:{port}"))
        .unwrap()
        .tls_config(tls)
        .unwrap()
        .connect()
        .await
        .unwrap();
    EntityServiceClient::new(channel)
        .del(pb::EntityRef::default())
        .await
        .unwrap();
    assert!(
        started.http("/readyz").await.starts_with("HTTP/1.1 503"),
        "health is in the clear"
    );
}

#[tokio::test]
async fn files_that_cannot_be_used_and_ports_that_are_taken_are_named() {
    let open = ("STATEGATE_AUTH_DISABLED", "true".to_owned());
    let host = ("STATEGATE_HOST", "127.0.0.1".to_owned());
    let free = ("STATEGATE_PORT", "0".to_owned());
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().port().to_string();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").to_owned();
    let cert = |path: &str| ("STATEGATE_TLS_CERT_FILE", path.to_owned());
    let key = |path: &str| ("STATEGATE_TLS_KEY_FILE", path.to_owned());

    for (variables, named) in [
        (vec![("STATEGATE_PORT", taken)], "STATEGATE_PORT"),
        (
            vec![free.clone(), cert("/nowhere.pem"), key(&file)],
            "STATEGATE_TLS_CERT_FILE",
        ),
        (
            vec![free.clone(), cert(&file), key("/nowhere.pem")],
            "STATEGATE_TLS_KEY_FILE",
        ),
    ] {
        let variables = variables.into_iter().chain([open.clone(), host.clone()]);
        let config = Config::read(&Env::of(variables), &[]).unwrap();
        let refused = Server::bind(&config).await.unwrap_err().to_string();
        assert!(refused.starts_with(named), "{refused}");
    }

    let no_pem = [free, cert(&file), key(&file), open, host];
    let config = Config::read(&Env::of(no_pem), &[]).unwrap();
    let server = Server::bind(&config).await.unwrap();
    let (telemetry, drain) = (Telemetry::detached(), Drain::new());
    let refused = server.start(Services::default(), &telemetry, &drain).await;
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.starts_with("STATEGATE_TLS_CERT_FILE, STATEGATE_TLS_KEY_FILE"),
        "{refused}"
    );
}
