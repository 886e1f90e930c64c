//! Encryption of connections: what is trusted, and how far a server's certificate is checked.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as Broken, RootCertStore,
    SignatureScheme, SupportedProtocolVersion,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::Result;

use super::{
    address::{Trust, Version},
    config::{Check, Tls},
    failure::refused,
};

/// What makes connections encrypted, where the address and the server agree on that.
pub(super) fn connector(tls: &Tls) -> Result<MakeRustlsConnect> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match tls.check {
        Check::None => Arc::new(Lenient {
            chain: None,
            provider: Arc::clone(&provider),
        }),
        Check::Chain | Check::Name => {
            let roots = Arc::new(roots(&tls.trust)?);
            let chain =
                WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
            let chain = chain.map_err(|error| refused(format!("{TRUST}: {error}")))?;
            if tls.check == Check::Name {
                chain
            } else {
                Arc::new(Lenient {
                    chain: Some(chain),
                    provider: Arc::clone(&provider),
                })
            }
        }
    };
    let versions: Vec<&SupportedProtocolVersion> = [
        (Version::Tls12, &rustls::version::TLS12),
        (Version::Tls13, &rustls::version::TLS13),
    ]
    .into_iter()
    .filter(|(version, _)| {
        tls.least.is_none_or(|least| *version >= least)
            && tls.most.is_none_or(|most| *version <= most)
    })
    .map(|(_, supported)| supported)
    .collect();
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(|error| refused(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &tls.identity {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate, "`sslcert`")?;
            let shown = key.display();
            let read = PrivateKeyDer::from_pem_file(key);
            let private = read.map_err(|error| {
                refused(format!(
                    "`sslkey` {shown} has no key in PEM form without a passphrase: {error}"
                ))
            })?;
            let own = config.with_client_auth_cert(chain, private);
            own.map_err(|error| {
                refused(format!(
                    "`sslcert` and `sslkey` do not go together: {error}"
                ))
            })?
        }
    };
    config.enable_sni = tls.sni;
    Ok(MakeRustlsConnect::new(config))
}

/// What names the certificates that the server's is checked against.
const TRUST: &str = "`ca_file` or `sslrootcert`";

/// The certificates of a file.
fn certificates(path: &Path, setting: &str) -> Result<Vec<CertificateDer<'static>>> {
    let shown = path.display();
    let pem =
        fs::read(path).map_err(|error| refused(format!("{setting} {shown}: {}", error.kind())))?;
    let read: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let read = read.map_err(|error| refused(format!("{setting} {shown}: {error}")))?;
    if read.is_empty() {
        return Err(refused(format!(
            "{setting} {shown} has no certificate in PEM form"
        )));
    }
    Ok(read)
}

fn roots(trust: &Trust) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match trust {
        Trust::System => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(refused(
                    "this system has no certificates to check the server's against; name some with `ca_file`",
                ));
            }
        }
        Trust::File(path) => {
            for certificate in certificates(path, TRUST)? {
                let added = roots.add(certificate);
                added.map_err(|error| refused(format!("{TRUST} {}: {error}", path.display())))?;
            }
        }
    }
    Ok(roots)
}

/// Checks less than everything, as `sslmode` asks: the chain without the name, or nothing.
#[derive(Debug)]
struct Lenient {
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, Broken> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        match chain.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            // The name is looked at last, once the chain holds.
            Err(Broken::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            checked => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Broken> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Broken> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
