//! Keys, tokens and a server of keys for the tests of this crate.

#![allow(dead_code, reason = "each test uses a part")]

pub(crate) mod server;

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair as _, RsaKeyPair,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use stategate_auth::{
    Authenticator, EventClaims, KeyRefresher, KeySettings, TokenRules,
    authentication::AuthenticatorSettings,
};
use tokio::task::JoinHandle;

pub(crate) const ISSUER: &str = "https://issuer.example/";
pub(crate) const AUDIENCE: &str = "stategate";

/// A private key, and the name it is published under.
pub(crate) struct Signer {
    pub(crate) id: &'static str,
    key: Private,
}

enum Private {
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// Keys that are made once: making RSA keys takes a while.
pub(crate) struct Keys {
    pub(crate) rsa: Signer,
    pub(crate) other_rsa: Signer,
    pub(crate) p256: Signer,
    pub(crate) other_p256: Signer,
    pub(crate) p384: Signer,
    pub(crate) ed: Signer,
    pub(crate) other_ed: Signer,
}

pub(crate) fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| Keys {
        rsa: Signer::rsa("rsa"),
        other_rsa: Signer::rsa("other-rsa"),
        p256: Signer::p256("p256"),
        other_p256: Signer::p256("other-p256"),
        p384: Signer {
            id: "p384",
            key: Private::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap()),
        },
        ed: Signer::ed("ed"),
        other_ed: Signer::ed("other-ed"),
    })
}

impl Signer {
    pub(crate) fn rsa(id: &'static str) -> Self {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        Self {
            id,
            key: Private::Rsa(Box::new(key)),
        }
    }

    pub(crate) fn p256(id: &'static str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self {
            id,
            key: Private::P256(key),
        }
    }

    pub(crate) fn ed(id: &'static str) -> Self {
        Self {
            id,
            key: Private::Ed25519(Ed25519KeyPair::generate().unwrap()),
        }
    }

    /// The public half, as it is published.
    pub(crate) fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let point = |key: &EcdsaKeyPair, curve: &str| {
            let point = &key.public_key().as_ref()[1..];
            let (x, y) = point.split_at(point.len() / 2);
            json!({"kty": "EC", "crv": curve, "x": text(x), "y": text(y)})
        };
        let mut jwk = match &self.key {
            Private::Rsa(key) => json!({
                "kty": "RSA",
                "n": text(key.public_key().modulus().big_endian_without_leading_zero()),
                "e": text(key.public_key().exponent().big_endian_without_leading_zero()),
            }),
            Private::P256(key) => point(key, "P-256"),
            Private::P384(key) => point(key, "P-384"),
            Private::Ed25519(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": text(key.public_key().as_ref())})
            }
        };
        jwk["kid"] = json!(self.id);
        jwk
    }

    /// The public half with other or further members.
    pub(crate) fn jwk_with(&self, members: &Value) -> Value {
        let mut jwk = self.jwk();
        merge(&mut jwk, members);
        jwk
    }

    /// The algorithm it signs with where a test does not say.
    pub(crate) fn algorithm(&self) -> &'static str {
        match self.key {
            Private::Rsa(_) => "RS256",
            Private::P256(_) => "ES256",
            Private::P384(_) => "ES384",
            Private::Ed25519(_) => "EdDSA",
        }
    }

    pub(crate) fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            Private::Rsa(key) => {
                let encoding: &'static dyn signature::RsaEncoding = match algorithm {
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut out = vec![0; key.public_modulus_len()];
                key.sign(encoding, &random, message, &mut out).unwrap();
                out
            }
            Private::P256(key) | Private::P384(key) => {
                key.sign(&random, message).unwrap().as_ref().to_vec()
            }
            Private::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    /// A token of these claims.
    pub(crate) fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm(), "typ": "JWT", "kid": self.id});
        self.token_of(header.to_string(), claims.to_string())
    }

    /// A token of a header with other or further members.
    pub(crate) fn token_with(&self, members: &Value, claims: &Value) -> String {
        let mut header = json!({"alg": self.algorithm(), "typ": "JWT", "kid": self.id});
        merge(&mut header, members);
        self.token_of(header.to_string(), claims.to_string())
    }

    /// A signed token of a header and claims as they stand.
    pub(crate) fn token_of(&self, header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
        let algorithm = serde_json::from_slice::<Value>(header.as_ref())
            .ok()
            .and_then(|header| header["alg"].as_str().map(str::to_owned))
            .unwrap_or_default();
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = self.sign(&algorithm, signed.as_bytes());
        format!("{signed}.{}", encode(signature))
    }
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Sets members; `null` removes one.
pub(crate) fn merge(object: &mut Value, members: &Value) {
    for (name, value) in members.as_object().unwrap() {
        match value {
            Value::Null => drop(object.as_object_mut().unwrap().remove(name)),
            value => object[name] = value.clone(),
        }
    }
}

pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs()
}

/// Claims that are accepted by [`rules`], with other or further members.
pub(crate) fn claims_with(members: &Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice",
        "exp": now() + 3_600,
        "iat": now(),
        "nbf": now(),
        "tenant": "acme",
    });
    merge(&mut claims, members);
    claims
}

pub(crate) fn claims() -> Value {
    claims_with(&json!({}))
}

pub(crate) fn rules() -> TokenRules {
    TokenRules {
        issuers: vec![ISSUER.to_owned()],
        audiences: vec![AUDIENCE.to_owned()],
        ..TokenRules::default()
    }
}

pub(crate) fn jwks(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

pub(crate) fn authenticator(keys: KeySettings) -> (Authenticator, KeyRefresher) {
    authenticator_of(keys, rules(), EventClaims::All)
}

pub(crate) fn authenticator_of(
    keys: KeySettings,
    rules: TokenRules,
    event_claims: EventClaims,
) -> (Authenticator, KeyRefresher) {
    let settings = AuthenticatorSettings {
        keys,
        rules,
        event_claims,
    };
    Authenticator::new(settings).unwrap()
}

/// A refresher that runs until it is dropped.
pub(crate) struct Running(JoinHandle<()>);

impl Running {
    pub(crate) fn start(refresher: KeyRefresher) -> Self {
        Self(tokio::spawn(refresher.run()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits for a condition, and fails if it does not come about.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
