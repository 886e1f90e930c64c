//! An issuer of tokens whose keys are in a file.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Whom its tokens are of.
pub const ISSUER: &str = "https://issuer.example/";

/// Signs tokens. Its files are gone when it is dropped.
pub struct Issuer {
    folder: TempDir,
    key: Ed25519KeyPair,
    key_id: String,
}

impl Default for Issuer {
    fn default() -> Self {
        Self::new()
    }
}

impl Issuer {
    /// An issuer with one key, which is published.
    pub fn new() -> Self {
        let issuer = Self {
            folder: TempDir::with_prefix("stategate-issuer-").expect("a folder"),
            key: Ed25519KeyPair::generate().expect("a key"),
            key_id: "first".to_owned(),
        };
        issuer.publish(&[issuer.jwk()]);
        issuer
    }

    /// Signs with a new key from now on; what is published stays as it is.
    pub fn rotate(&mut self, key_id: &str) {
        self.key = Ed25519KeyPair::generate().expect("a key");
        key_id.clone_into(&mut self.key_id);
    }

    /// The public half of the key it signs with.
    pub fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.key.public_key().as_ref());
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.key_id, "x": x})
    }

    /// Publishes these keys and no others.
    pub fn publish(&self, keys: &[Value]) {
        // Whole at once, as a reader of a mounted file sees it.
        let path = self.folder.path().join("next.json");
        fs::write(&path, json!({ "keys": keys }).to_string()).expect("write keys");
        fs::rename(path, self.jwks()).expect("publish keys");
    }

    /// The file with the keys.
    pub fn jwks(&self) -> PathBuf {
        self.folder.path().join("jwks.json")
    }

    /// A file of policies or data beside the keys, replaced whole.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let (next, path) = (
            self.folder.path().join("next"),
            self.folder.path().join(name),
        );
        fs::write(&next, text).expect("write a file");
        fs::rename(next, &path).expect("put a file in place");
        path
    }

    /// A token of these claims beside the usual ones, which they replace.
    pub fn token(&self, claims: &Value) -> String {
        let mut all =
            json!({"iss": ISSUER, "aud": "stategate", "exp": now() + 3_600, "iat": now()});
        for (name, value) in claims.as_object().expect("an object") {
            all[name] = value.clone();
        }
        self.token_of(
            &json!({"alg": "EdDSA", "typ": "JWT", "kid": self.key_id}),
            &all,
        )
    }

    /// A token of this header and these claims, as they stand.
    pub fn token_of(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    /// The variables of a gateway that accepts its tokens and judges calls by these rules, which it reads from files.
    pub fn variables(&self, request: &str, response: &str) -> Vec<(&'static str, String)> {
        let policy = |name: &str, rules: &str| {
            let path = self.file(name, &format!("package stategate.authz\n{rules}\n"));
            text_of(&path)
        };
        vec![
            ("STATEGATE_AUTH_DISABLED", "false".to_owned()),
            (
                "STATEGATE_JWKS_URI",
                format!("file:{}", text_of(&self.jwks())),
            ),
            ("STATEGATE_JWT_ISSUER", ISSUER.to_owned()),
            ("STATEGATE_JWT_AUDIENCE", "stategate".to_owned()),
            (
                "STATEGATE_REQUEST_POLICY_FILE",
                policy("request.rego", request),
            ),
            (
                "STATEGATE_RESPONSE_POLICY_FILE",
                policy("response.rego", response),
            ),
        ]
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock");
    now.as_secs()
}

fn text_of(path: &Path) -> String {
    path.to_str().expect("a path that is text").to_owned()
}
