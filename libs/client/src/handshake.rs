//! Why TLS was not agreed on, in words for whoever set the connection up.

use std::{error::Error, io};

use rustls::{AlertDescription, CertificateError, Error as Tls};

/// What is wrong, if it is TLS; what follows it in a sentence says what to do.
pub(crate) fn in_words(error: &(dyn Error + 'static)) -> Option<String> {
    let tls = match error.downcast_ref::<io::Error>() {
        // An error of the system's kind hides the one within from `source`.
        Some(io) => io.get_ref()?.downcast_ref::<Tls>()?,
        None => error.downcast_ref::<Tls>()?,
    };
    Some(match tls {
        Tls::InvalidCertificate(problem) => certificate(problem),
        Tls::InvalidMessage(_) => {
            "it does not speak TLS; an address that begins with http:// is without".to_owned()
        }
        Tls::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateExpired
            | AlertDescription::AccessDenied => {
                "it does not accept the certificate of this client, or wants one; show another"
                    .to_owned()
            }
            other => format!("it ended the agreement on TLS ({other:?})"),
        },
        other => other.to_string(),
    })
}

fn certificate(problem: &CertificateError) -> String {
    match problem {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired; renew it".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet; a clock may be wrong".to_owned()
        }
        CertificateError::UnknownIssuer => {
            "its certificate is signed by no authority that is trusted here; trust the one that signed it"
                .to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another name; use that name, or say which is expected".to_owned()
        }
        CertificateError::BadSignature => {
            "its certificate is not signed by the authority that it names; trust the one that signed it"
                .to_owned()
        }
        other if other.to_string().contains("CaUsedAsEndEntity") => {
            "its certificate is that of an authority, which no server may show; give it one that the \
             authority signed"
                .to_owned()
        }
        other => format!("its certificate is not accepted ({other})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_certificate_is_said_in_words() {
        for (problem, words) in [
            (CertificateError::Expired, "expired"),
            (CertificateError::UnknownIssuer, "no authority"),
            (CertificateError::NotValidForName, "another name"),
        ] {
            let tls = Tls::InvalidCertificate(problem);
            let wrapped = io::Error::new(io::ErrorKind::InvalidData, tls.clone());
            assert!(in_words(&tls).unwrap().contains(words));
            assert!(in_words(&wrapped).unwrap().contains(words));
        }
        assert_eq!(in_words(&io::Error::from(io::ErrorKind::TimedOut)), None);
    }
}
