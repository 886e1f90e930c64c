//! TLS of the API: the certificate and key of the server, the authorities of its clients' certificates, and their
//! replacement when files change.
//!
//! Files are read again every second and compared by content, so that a mounted directory whose links are switched is
//! noticed as well as a file that is written in place. What was read is put in force only once it was read twice alike
//! and belongs together: a file that is being written, or a certificate whose key is not there yet, changes nothing.
//! Connections that are open stay as they are; new ones see what is in force.

use std::{fmt, io, path::Path, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig, crypto::aws_lc_rs, pki_types::CertificateDer,
    server::WebPkiClientVerifier,
};
use tokio::time::sleep;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use x509_cert::{Certificate, der::Decode as _};

use crate::{
    config::{ClientCertificates, Tls},
    connection::Socket,
    failure::Error,
    pem,
    variables::{self, Variable},
};

/// How often files are read again.
const RELOAD: Duration = Duration::from_secs(1);
/// What is spoken over TLS, the best first (ALPN).
const PROTOCOLS: &[&[u8]] = &[b"h2"];

/// What new connections are accepted with.
#[derive(Debug, Clone)]
pub(crate) struct Identity(Arc<ArcSwap<ServerConfig>>);

impl Identity {
    /// Reads and judges the files of `tls`. The task that loads them again has to be run.
    pub(crate) fn load(tls: Tls) -> Result<(Self, Reloader), Error> {
        let contents = Contents::read(&tls)?;
        let (config, expires) = contents.judge(&tls)?;
        let identity = Self(Arc::new(ArcSwap::from_pointee(config)));
        told_expiry(expires);
        let reloader = Reloader {
            tls,
            identity: identity.clone(),
            judged: contents,
        };
        Ok((identity, reloader))
    }

    /// Does the handshake; answers also the subject of the client's certificate, if it showed one.
    pub(crate) async fn accept(
        &self,
        socket: Socket,
    ) -> io::Result<(TlsStream<Socket>, Option<Arc<str>>)> {
        let config = self.0.load_full();
        let stream = TlsAcceptor::from(config).accept(socket).await?;
        let (_, session) = stream.get_ref();
        let subject = match session.peer_certificates() {
            None | Some([]) => None,
            Some([leaf, ..]) => Some(subject(leaf)?),
        };
        Ok((stream, subject))
    }
}

/// The subject of a certificate that was verified, as RFC 4514 writes it.
fn subject(certificate: &CertificateDer<'_>) -> io::Result<Arc<str>> {
    let certificate = Certificate::from_der(certificate).map_err(|error| {
        // A policy must not take it for a client without a certificate.
        let problem = format!("a client certificate whose subject cannot be read: {error}");
        io::Error::new(io::ErrorKind::InvalidData, problem)
    })?;
    Ok(certificate.tbs_certificate.subject.to_string().into())
}

/// The files as they were read.
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Option<Vec<u8>>,
}

impl fmt::Debug for Contents {
    /// A key is shown nowhere.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contents").finish_non_exhaustive()
    }
}

fn fault(variable: &Variable, path: &Path, problem: String) -> Error {
    Error::File {
        variable: variable.name,
        path: path.to_owned(),
        problem,
    }
}

impl Contents {
    fn read(tls: &Tls) -> Result<Self, Error> {
        let read = |variable: &Variable, path: &Path| {
            pem::read(path).map_err(|problem| fault(variable, path, problem))
        };
        let authorities = |clients: &ClientCertificates| {
            read(&variables::TLS_CLIENT_CA_FILE, &clients.authorities)
        };
        Ok(Self {
            certificate: read(&variables::TLS_CERT_FILE, &tls.certificate)?,
            key: read(&variables::TLS_KEY_FILE, &tls.key)?,
            authorities: tls.clients.as_ref().map(authorities).transpose()?,
        })
    }

    /// What connections are accepted with, and when the certificate expires (in seconds of Unix time), if all of it can
    /// be used and belongs together.
    fn judge(&self, tls: &Tls) -> Result<(ServerConfig, Option<Duration>), Error> {
        let of_certificate = |problem| fault(&variables::TLS_CERT_FILE, &tls.certificate, problem);
        let of_key = |problem| fault(&variables::TLS_KEY_FILE, &tls.key, problem);
        let unusable = |cause: rustls::Error| Error::Tls {
            cause: cause.to_string(),
        };
        let certificates = pem::certificates(&self.certificate).map_err(of_certificate)?;
        let key = pem::key(&self.key).map_err(of_key)?;
        if !pem::is_pair(certificates.clone(), key.clone_key()) {
            return Err(of_key(format!(
                "is not the key of the first certificate in {}; name the two that belong together",
                tls.certificate.display()
            )));
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let builder = match (&tls.clients, &self.authorities) {
            (Some(clients), Some(authorities)) => {
                let of_authorities = |problem| {
                    fault(
                        &variables::TLS_CLIENT_CA_FILE,
                        &clients.authorities,
                        problem,
                    )
                };
                let mut roots = RootCertStore::empty();
                for authority in pem::certificates(authorities).map_err(of_authorities)? {
                    roots.add(authority).map_err(unusable)?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                let verifier = match clients.are_required {
                    true => verifier,
                    false => verifier.allow_unauthenticated(),
                };
                let verifier = verifier
                    .build()
                    .map_err(|error| of_authorities(format!("cannot be used: {error}")))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let expires = certificates.first().and_then(|leaf| {
            let certificate = Certificate::from_der(leaf).ok()?;
            Some(
                certificate
                    .tbs_certificate
                    .validity
                    .not_after
                    .to_unix_duration(),
            )
        });
        // Sessions are resumed within one of these only: no client comes back past authorities that have changed.
        let mut config = builder
            .with_single_cert(certificates, key)
            .map_err(unusable)?;
        config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
        Ok((config, expires))
    }
}

fn told_expiry(expires: Option<Duration>) {
    if let Some(expires) = expires {
        stategate_metrics::TLS_CERTIFICATE_EXPIRES
            .get()
            .set(expires.as_secs_f64());
    }
}

/// Puts changed files in force. [`Reloader::run`] never ends by itself.
#[derive(Debug, Clone)]
#[must_use = "without it changed files are not noticed"]
pub(crate) struct Reloader {
    tls: Tls,
    identity: Identity,
    /// What was read when files were accepted or refused last.
    judged: Contents,
}

impl Reloader {
    /// Reads the files again and again, and puts in force what changed.
    pub(crate) async fn run(mut self) {
        let mut last: Option<Result<Contents, String>> = None;
        loop {
            sleep(RELOAD).await;
            let tls = self.tls.clone();
            let read = tokio::task::spawn_blocking(move || Contents::read(&tls));
            let Ok(read) = read.await else {
                continue;
            };
            let read = read.map_err(|error| error.to_string());
            if last.as_ref() != Some(&read) {
                if let Err(error) = &read {
                    failed(error);
                }
                last = Some(read);
            } else if let Ok(contents) = read {
                self.judge(contents);
            }
        }
    }

    /// Puts in force what was read, if it is something else than the last time and can be used.
    fn judge(&mut self, contents: Contents) {
        if contents == self.judged {
            return;
        }
        match contents.judge(&self.tls) {
            Ok((config, expires)) => {
                self.identity.0.store(Arc::new(config));
                told_expiry(expires);
                stategate_metrics::TLS_RELOADS.with(["done"]).increment(1);
                tracing::info!("changed TLS files are in force for new connections");
            }
            Err(error) => failed(&error.to_string()),
        }
        self.judged = contents;
    }
}

fn failed(error: &str) {
    stategate_metrics::TLS_RELOADS.with(["failed"]).increment(1);
    tracing::error!(
        error,
        "changed TLS files cannot be used; the last ones stay in force"
    );
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, Issuer, KeyPair};

    use super::*;

    /// An authority, to issue certificates and to be trusted.
    fn authority() -> (String, Issuer<'static, KeyPair>) {
        let key = KeyPair::generate().unwrap();
        let mut about = CertificateParams::new(Vec::new()).unwrap();
        about.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = about.self_signed(&key).unwrap();
        (certificate.pem(), Issuer::new(about, key))
    }

    fn issued(issuer: &Issuer<'static, KeyPair>, about: &CertificateParams) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = about.signed_by(&key, issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn subjects_are_written_as_rfc_4514_has_them() {
        let of = |names: &[(DnType, &str)]| {
            let mut about = CertificateParams::new(Vec::new()).unwrap();
            about.distinguished_name = rcgen::DistinguishedName::new();
            for (kind, value) in names {
                let value = DnValue::Utf8String((*value).to_owned());
                about.distinguished_name.push(kind.clone(), value);
            }
            let key = KeyPair::generate().unwrap();
            let certificate = about.self_signed(&key).unwrap();
            subject(certificate.der()).unwrap().to_string()
        };
        let common = DnType::CommonName;
        // The most significant part is written last.
        let parts = [
            (DnType::CountryName, "DE"),
            (DnType::OrganizationName, "Example, Inc."),
            (common.clone(), "billing"),
        ];
        assert_eq!(of(&parts), r"CN=billing,O=Example\, Inc.,C=DE");
        // Nobody's name can pretend to be more than one part.
        let pretender = of(&[(common.clone(), r"x,O=admins+OU=root\")]);
        assert_eq!(pretender, r"CN=x\,O=admins\+OU=root\\");
        assert_eq!(of(&[(common.clone(), " #a")]), r"CN=\ #a");
        assert_eq!(of(&[(common, "a\0b")]), r"CN=a\00b");
        assert_eq!(of(&[]), "");
        let nonsense = CertificateDer::from(vec![0x30, 0x03, 1, 1, 1]);
        subject(&nonsense).unwrap_err();
    }

    /// Files of a server with client certificates, and a reloader that has not run.
    struct Files {
        folder: tempfile::TempDir,
        tls: Tls,
    }

    impl Files {
        fn new(pair: &(String, String), authorities: Option<&str>) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name);
            let files = Self {
                tls: Tls {
                    certificate: path("cert.pem"),
                    key: path("key.pem"),
                    clients: authorities.map(|_| ClientCertificates {
                        authorities: path("ca.pem"),
                        are_required: true,
                    }),
                },
                folder,
            };
            files.write("cert.pem", &pair.0);
            files.write("key.pem", &pair.1);
            files.write("ca.pem", authorities.unwrap_or_default());
            files
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.folder.path().join(name), text).unwrap();
        }
    }

    #[tokio::test]
    async fn what_cannot_be_used_leaves_what_is_in_force() {
        let (authority_pem, issuer) = authority();
        let about = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let [first, second] = [(); 2].map(|()| issued(&issuer, &about));
        let files = Files::new(&first, Some(&authority_pem));
        let (identity, mut reloader) = Identity::load(files.tls.clone()).unwrap();
        let in_force = || Arc::as_ptr(&identity.0.load_full());
        let mut now = in_force();
        let mut changes = |reloader: &mut Reloader| {
            reloader.judge(Contents::read(&files.tls).unwrap());
            let before = std::mem::replace(&mut now, in_force());
            before != now
        };
        assert!(!changes(&mut reloader), "nothing has changed");
        // The certificate comes before its key.
        files.write("cert.pem", &second.0);
        assert!(
            !changes(&mut reloader),
            "the key is not that of the certificate"
        );
        files.write("key.pem", &second.1);
        assert!(changes(&mut reloader), "they belong together");
        for (name, text) in [
            ("cert.pem", &second.0[..second.0.len() / 2]),
            ("cert.pem", ""),
            ("key.pem", "x"),
            ("ca.pem", &authority_pem[..authority_pem.len() / 2]),
            ("ca.pem", &second.1),
        ] {
            let path = files.folder.path().join(name);
            let good = std::fs::read_to_string(&path).unwrap();
            files.write(name, text);
            assert!(!changes(&mut reloader), "{name}: {text}");
            files.write(name, &good);
            assert!(changes(&mut reloader), "{name} is good again");
        }
        let (other_authority, _) = authority();
        files.write("ca.pem", &other_authority);
        assert!(changes(&mut reloader), "another authority");
    }

    /// The task that reads files: what is read once is not put in force, and a failure is told once.
    #[tokio::test]
    async fn files_are_put_in_force_once_they_were_read_twice_alike() {
        let (_, issuer) = authority();
        let about = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let [first, second] = [(); 2].map(|()| issued(&issuer, &about));
        let files = Files::new(&first, None);
        let (identity, reloader) = Identity::load(files.tls.clone()).unwrap();
        let before = identity.0.load_full();
        let running = tokio::spawn(reloader.run());
        files.write("cert.pem", &second.0);
        files.write("key.pem", &second.1);
        let begun = std::time::Instant::now();
        while Arc::ptr_eq(&before, &identity.0.load_full()) {
            assert!(begun.elapsed() < 20 * RELOAD);
            sleep(RELOAD / 20).await;
        }
        assert!(begun.elapsed() > RELOAD * 3 / 2, "read once");
        running.abort();
    }
}
