//! Certificates and keys as people give them: what is wrong with a file, in words that say what to do.
//!
//! The libraries behind TLS say of most files only that there is nothing in them that they know. What a
//! file is instead is seen from its bytes, and says what happened: keys and certificates were swapped, a
//! key is encrypted, a file is in DER. Both the services and the client commands ask here.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    sign::CertifiedKey,
};

/// Largest file that is read: the authorities that a machine trusts are some 300 KiB.
const MOST: u64 = 4 << 20;

/// Reads a file that a person named. What is wrong follows the file's name in a sentence.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MOST + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.len() as u64 > MOST => Err(format!(
            "is larger than {} MiB, which no such file is; name another",
            MOST >> 20
        )),
        Ok(_) => Ok(bytes),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::NotFound => "does not exist; correct the path".to_owned(),
            io::ErrorKind::IsADirectory => "is a directory; name a file in it".to_owned(),
            io::ErrorKind::NotADirectory => {
                "stands below something that is no directory; correct the path".to_owned()
            }
            io::ErrorKind::PermissionDenied => {
                "may not be read by this user; change its owner or permissions".to_owned()
            }
            _ => format!("cannot be read: {error}"),
        }),
    }
}

/// The certificates of a file, at least one. What is wrong follows the file's name in a sentence.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let labels = labels(pem, "CERTIFICATE", "x509")?;
    let has = |ending: &str| labels.iter().any(|label| label.ends_with(ending));
    if !labels.iter().any(|label| label == "CERTIFICATE") {
        return Err(if has("PRIVATE KEY") {
            "holds a private key where the certificate belongs; the two files may be swapped"
                .to_owned()
        } else if has("CERTIFICATE REQUEST") {
            "holds a request for a certificate; name the certificate that was made from it"
                .to_owned()
        } else {
            format!("holds no certificate, but: {}", labels.join(", "))
        });
    }
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|_| damaged("a certificate"))?;
    let mut readable = RootCertStore::empty();
    for certificate in &certificates {
        readable
            .add(certificate.clone())
            .map_err(|_| damaged("a certificate"))?;
    }
    match certificates.is_empty() {
        true => Err(damaged("a certificate")),
        false => Ok(certificates),
    }
}

/// The private key of a file. What is wrong follows the file's name in a sentence.
pub fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let labels = labels(pem, "PRIVATE KEY", "pkey")?;
    let has = |ending: &str| labels.iter().any(|label| label.ends_with(ending));
    let is_encrypted = has("ENCRYPTED PRIVATE KEY")
        || String::from_utf8_lossy(pem).contains("Proc-Type: 4,ENCRYPTED");
    if is_encrypted {
        return Err(
            "is encrypted, and nobody is there to be asked for its passphrase; \
             `openssl pkey -in FILE -out NEW` writes it without one"
                .to_owned(),
        );
    }
    if has("OPENSSH PRIVATE KEY") {
        return Err("holds a key of OpenSSH's own format; name one in PKCS #8".to_owned());
    }
    if !has("PRIVATE KEY") {
        return Err(if has("CERTIFICATE") {
            "holds a certificate where the private key belongs; the two files may be swapped"
                .to_owned()
        } else if has("PUBLIC KEY") {
            "holds a public key; name the private one".to_owned()
        } else {
            format!("holds no private key, but: {}", labels.join(", "))
        });
    }
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| damaged("the private key"))?;
    match aws_lc_rs::default_provider()
        .key_provider
        .load_private_key(key.clone_key())
    {
        Ok(_) => Ok(key),
        Err(_) => Err(
            "holds a private key that is damaged, or of a kind that TLS does not use; \
             RSA, ECDSA and Ed25519 are used"
                .to_owned(),
        ),
    }
}

/// Whether a key is that of the first certificate.
pub fn is_pair(certificates: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> bool {
    let pair = CertifiedKey::from_der(certificates, key, &aws_lc_rs::default_provider());
    !matches!(pair, Err(rustls::Error::InconsistentKeys(_)))
}

/// Whether a certificate can be for this name: a host's name or an IP address.
pub fn is_server_name(name: &str) -> bool {
    ServerName::try_from(name).is_ok()
}

fn damaged(what: &str) -> String {
    format!("is damaged: {what} in it cannot be read; write the file anew")
}

/// What a PEM file says it holds. `label` is what is looked for, and `tool` the command of openssl that
/// converts it.
fn labels(bytes: &[u8], label: &str, tool: &str) -> Result<Vec<String>, String> {
    /// How a DER file begins: a sequence whose length takes more than one byte.
    const DER: [u8; 2] = [0x30, 0x80];
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err("is empty; name one that is not".to_owned());
    }
    let text = String::from_utf8_lossy(bytes);
    let labels: Vec<String> = text
        .lines()
        .filter_map(|line| {
            let line = line.trim().strip_prefix("-----BEGIN ")?;
            Some(line.strip_suffix("-----")?.to_owned())
        })
        .collect();
    if !labels.is_empty() {
        return Ok(labels);
    }
    match bytes {
        [first, second, ..] if *first == DER[0] && *second >= DER[1] => Err(format!(
            "is not in PEM; it looks like DER, which `openssl {tool} -inform der -in FILE -out NEW` converts"
        )),
        _ => Err(format!(
            "is not in PEM: it has no line `-----BEGIN {label}-----`; name a file that has"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (String, String, rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let about = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = about.self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem(), certificate, key)
    }

    #[test]
    fn what_is_good_is_taken() {
        let (certificate, key, ..) = made();
        let chain = format!("of a friend\n{certificate}{certificate}");
        assert_eq!(certificates(chain.as_bytes()).unwrap().len(), 2);
        let both = format!("{certificate}{key}");
        let (certificates, key) = (
            certificates(both.as_bytes()).unwrap(),
            super::key(both.as_bytes()).unwrap(),
        );
        assert!(is_pair(certificates.clone(), key));
        let (_, other, ..) = made();
        assert!(!is_pair(
            certificates,
            super::key(other.as_bytes()).unwrap()
        ));
    }

    #[test]
    fn what_is_not_is_named_for_what_it_is() {
        let (certificate, key, der, key_der) = made();
        let encrypted =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        let cut = &certificate[..certificate.len() / 2];
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (bytes, why) in [
            (&b""[..], "is empty"),
            (b" \n\n", "is empty"),
            (b"hello", "no line `-----BEGIN CERTIFICATE-----`"),
            (&[0xff, 0, 1], "is not in PEM"),
            (der.der(), "openssl x509 -inform der"),
            (key.as_bytes(), "swapped"),
            (cut.as_bytes(), "is damaged"),
            (nonsense.as_bytes(), "is damaged"),
        ] {
            let problem = certificates(bytes).unwrap_err();
            assert!(problem.contains(why), "{problem}");
        }
        for (bytes, why) in [
            (&b""[..], "is empty"),
            (b"hello", "no line `-----BEGIN PRIVATE KEY-----`"),
            (key_der.serialized_der(), "openssl pkey -inform der"),
            (certificate.as_bytes(), "swapped"),
            (encrypted.as_bytes(), "is encrypted"),
            (old.as_bytes(), "is encrypted"),
            (&key.as_bytes()[..key.len() / 2], "is damaged"),
        ] {
            let problem = super::key(bytes).unwrap_err();
            assert!(problem.contains(why), "{problem}");
        }
    }
}
