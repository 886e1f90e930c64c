//! A signed token in its compact form, decoded strictly (RFC 7515, 7519, 8725).
//!
//! Nothing of the claims is read before the signature is verified, and of the header only what finds
//! the key. Keys that a token brings along or points to (`jwk`, `jku`, `x5c`, `x5u`) are never looked at.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use stategate_model::{
    Object,
    json::{self, Json},
};

use super::Refused;

/// Longest token.
pub const TOKEN_BYTES: usize = 16 << 10;
/// Longest `kid`.
const KEY_ID_BYTES: usize = 256;

/// A token whose form is right. Nothing of it is verified.
#[derive(Debug)]
pub(super) struct Compact<'t> {
    algorithm: Algorithm,
    key_id: Option<String>,
    signed: &'t str,
    claims: &'t str,
    signature: &'t str,
}

impl<'t> Compact<'t> {
    /// Takes a token apart.
    pub(super) fn parse(token: &'t str) -> Result<Self, Refused> {
        let parts: Vec<&str> = token.splitn(6, '.').collect();
        let [header, claims, signature] = *parts else {
            let encrypted = parts.len() == 5;
            return Err(if encrypted {
                Refused::Encrypted
            } else {
                Refused::NotSigned
            });
        };
        let header = decode(header).ok_or(Refused::HeaderEncoding)?;
        let header = String::from_utf8(header).map_err(|_| Refused::HeaderJson)?;
        let Ok(Json::Object(header)) = json::parse(&header) else {
            return Err(Refused::HeaderJson);
        };
        let member = |name: &str| {
            let found = header.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value)
        };
        if member("enc").is_some() || member("zip").is_some() {
            return Err(Refused::Encrypted);
        }
        let algorithm = match member("alg") {
            Some(Json::String(name)) => algorithm(name)?,
            _ => return Err(Refused::AlgorithmMissing),
        };
        if member("crit").is_some() {
            return Err(Refused::Critical);
        }
        match member("typ") {
            None => {}
            Some(Json::String(kind)) if is_token_type(kind) => {}
            Some(_) => return Err(Refused::TypeUnsupported),
        }
        if member("cty").is_some() {
            return Err(Refused::Nested);
        }
        let key_id = match member("kid") {
            None => None,
            Some(Json::String(id)) if !id.is_empty() && id.len() <= KEY_ID_BYTES => {
                Some(id.clone())
            }
            Some(_) => return Err(Refused::KeyIdMalformed),
        };
        if decode(signature).is_none_or(|signature| signature.is_empty()) {
            return Err(Refused::SignatureEncoding);
        }
        let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
        Ok(Self {
            algorithm,
            key_id,
            signed,
            claims,
            signature,
        })
    }

    /// The algorithm the token says it is signed with: never `none`, never a shared secret's.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key the token says it is signed with.
    pub(super) fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// What is signed.
    pub(super) fn signed(&self) -> &'t str {
        self.signed
    }

    /// The signature, in base64url.
    pub(super) fn signature(&self) -> &'t str {
        self.signature
    }

    /// The claims. To be asked for once the signature is verified.
    pub(super) fn claims(&self) -> Result<Object, Refused> {
        let claims = decode(self.claims).ok_or(Refused::ClaimsEncoding)?;
        let claims = String::from_utf8(claims).map_err(|_| Refused::ClaimsJson)?;
        json::parse_object(&claims).map_err(|_| Refused::ClaimsJson)
    }
}

/// Base64url without padding, white space or bits left over.
fn decode(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

fn algorithm(name: &str) -> Result<Algorithm, Refused> {
    Ok(match name {
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "PS384" => Algorithm::PS384,
        "PS512" => Algorithm::PS512,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        // The second name is that of RFC 9864.
        "EdDSA" | "Ed25519" => Algorithm::EdDSA,
        "HS256" | "HS384" | "HS512" => return Err(Refused::AlgorithmSymmetric),
        name if name.eq_ignore_ascii_case("none") => return Err(Refused::AlgorithmNone),
        _ => return Err(Refused::AlgorithmUnsupported),
    })
}

/// Tokens of other kinds (ID token hints, logout tokens, DPoP proofs) may be signed with the same keys.
fn is_token_type(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    let kind = kind.strip_prefix("application/").unwrap_or(&kind);
    matches!(kind, "jwt" | "at+jwt")
}
