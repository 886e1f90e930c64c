//! One public key, and the algorithms it is for.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use sha2::{Digest as _, Sha256};
use stategate_model::json::Json;

const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
/// Sizes of an RSA modulus, in bytes: 2,048 to 8,192 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1_024;
/// Largest public exponent, in bytes: a larger one only makes verifying slow.
const EXPONENT_BYTES: usize = 8;

/// A key that verifies signatures, pinned to the algorithms of its family or to the one it names.
pub(crate) struct Key {
    id: Option<Box<str>>,
    algorithms: &'static [Algorithm],
    decoding: DecodingKey,
    fingerprint: [u8; 32],
}

/// Why a published key is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("it is not an object with a `kty`")]
    NoKey,
    #[error("its `kid` is not a text of 1 to 256 bytes")]
    Id,
    #[error("it is a shared secret")]
    Symmetric,
    #[error("its private half is published with it: it can be forged by anybody")]
    Private,
    #[error("it is not for signatures (`use`, `key_ops`)")]
    Purpose,
    #[error("its `kty` or curve is not supported")]
    Kind,
    #[error("its `alg` is not supported, or not one of its kind")]
    Algorithm,
    #[error(
        "its numbers are missing, malformed or of a size that is not accepted (RSA: 2048 to 8192 bits)"
    )]
    Numbers,
}

impl Key {
    pub(crate) fn parse(json: &Json) -> Result<Self, Unusable> {
        let Json::Object(members) = json else {
            return Err(Unusable::NoKey);
        };
        let member = |name: &str| {
            let found = members.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value)
        };
        let text = |name: &str| match member(name) {
            Some(Json::String(text)) => Some(text.as_str()),
            _ => None,
        };
        let number = |name: &str| text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let id = match member("kid") {
            None => None,
            Some(Json::String(id)) if (1..=256).contains(&id.len()) => Some(Box::from(id.as_str())),
            Some(_) => return Err(Unusable::Id),
        };
        let kind = text("kty").ok_or(Unusable::NoKey)?;
        if kind == "oct" {
            return Err(Unusable::Symmetric);
        }
        if member("d").is_some() {
            return Err(Unusable::Private);
        }
        let for_signatures = match (member("use"), member("key_ops")) {
            (Some(purpose), _) if *purpose != Json::String("sig".to_owned()) => false,
            (_, Some(Json::Array(operations))) => {
                operations.contains(&Json::String("verify".to_owned()))
            }
            (_, None) => true,
            (_, Some(_)) => false,
        };
        if !for_signatures {
            return Err(Unusable::Purpose);
        }
        let (family, decoding, material) = match (kind, text("crv")) {
            ("RSA", _) => {
                let (modulus, exponent) = (number("n"), number("e"));
                let (modulus, exponent) = modulus.zip(exponent).ok_or(Unusable::Numbers)?;
                let leading = modulus.iter().take_while(|byte| **byte == 0).count();
                let modulus = modulus[leading..].to_vec();
                if !RSA_BYTES.contains(&modulus.len()) || exponent.len() > EXPONENT_BYTES {
                    return Err(Unusable::Numbers);
                }
                let decoding = DecodingKey::from_rsa_raw_components(&modulus, &exponent);
                (RSA, decoding, [modulus, exponent].concat())
            }
            ("EC", Some(curve @ ("P-256" | "P-384"))) => {
                let (family, bytes): (&'static [Algorithm], _) = match curve {
                    "P-256" => (&[Algorithm::ES256], 32),
                    _ => (&[Algorithm::ES384], 48),
                };
                let (x, y) = number("x").zip(number("y")).ok_or(Unusable::Numbers)?;
                if x.len() != bytes || y.len() != bytes {
                    return Err(Unusable::Numbers);
                }
                // An uncompressed point, as SEC 1 has it.
                let point = [vec![4], x, y].concat();
                (family, DecodingKey::from_ec_der(&point), point)
            }
            ("OKP", Some("Ed25519")) => {
                let point = number("x").ok_or(Unusable::Numbers)?;
                if point.len() != 32 {
                    return Err(Unusable::Numbers);
                }
                let family: &'static [Algorithm] = &[Algorithm::EdDSA];
                (family, DecodingKey::from_ed_der(&point), point)
            }
            _ => return Err(Unusable::Kind),
        };
        let algorithms = match member("alg") {
            None => family,
            Some(Json::String(name)) => pinned(family, name).ok_or(Unusable::Algorithm)?,
            Some(_) => return Err(Unusable::Algorithm),
        };
        let fingerprint = fingerprint(id.as_deref(), algorithms, &material);
        Ok(Self {
            id,
            algorithms,
            decoding,
            fingerprint,
        })
    }

    /// Its name in the set.
    pub(crate) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether it may verify this algorithm's signatures.
    pub(crate) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether the signature, in base64url, is this key's.
    pub(crate) fn verifies(&self, signed: &str, signature: &str, algorithm: Algorithm) -> bool {
        self.is_for(algorithm)
            && jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &self.decoding, algorithm)
                .unwrap_or(false)
    }

    /// What tells it from every other key, its name and algorithms included.
    pub(crate) fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

/// The one algorithm of the family that a key says it is for.
fn pinned(family: &'static [Algorithm], name: &str) -> Option<&'static [Algorithm]> {
    let name = if name == "Ed25519" { "EdDSA" } else { name };
    let index = family
        .iter()
        .position(|algorithm| format!("{algorithm:?}") == name)?;
    family.get(index..=index)
}

fn fingerprint(id: Option<&str>, algorithms: &[Algorithm], material: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    // A length before each part that may have any: no two keys can be written alike.
    for part in [
        id.unwrap_or_default().as_bytes(),
        format!("{algorithms:?}").as_bytes(),
        material,
    ] {
        digest.update(part.len().to_le_bytes());
        digest.update(part);
    }
    digest.update([u8::from(id.is_some())]);
    digest.finalize().into()
}
