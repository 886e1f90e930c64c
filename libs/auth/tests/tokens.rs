//! Every way in which a token may be wrong, each refused for its own reason; and those that are right.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

mod support;

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use stategate_api::Caller;
use stategate_auth::{Authenticator, EventClaims, Refused, TokenRules};
use stategate_model::json as model_json;
use stategate_policy::Document;
use support::{
    Running, Signer, authenticator_of, claims, claims_with, encode, jwks, keys, now, rules,
    server::{Answer, KeyServer},
};

struct Setting {
    authenticator: Authenticator,
    _running: Running,
    _server: KeyServer,
}

impl Setting {
    async fn of(keys: &[Value], rules: TokenRules, event_claims: EventClaims) -> Self {
        let server = KeyServer::start(Answer::Body(jwks(keys))).await;
        let (authenticator, refresher) = authenticator_of(server.settings(), rules, event_claims);
        let running = Running::start(refresher);
        authenticator.until_ready().await;
        Self {
            authenticator,
            _running: running,
            _server: server,
        }
    }

    /// The keys of all families, those that must not be used, and one that is pinned to RS256.
    async fn usual() -> Self {
        let keys = keys();
        let published = [
            keys.rsa.jwk(),
            keys.other_rsa
                .jwk_with(&json!({"kid": "pinned", "alg": "RS256", "use": "sig"})),
            keys.p256.jwk_with(&json!({"key_ops": ["verify"]})),
            keys.p384.jwk(),
            keys.ed.jwk(),
            keys.other_ed
                .jwk_with(&json!({"kid": "for-encryption", "use": "enc"})),
            keys.other_ed
                .jwk_with(&json!({"kid": "for-signing", "key_ops": ["sign"]})),
            keys.other_ed
                .jwk_with(&json!({"kid": "given-away", "d": encode([7; 32])})),
            keys.rsa
                .jwk_with(&json!({"kid": "weak", "n": encode([0xff; 128]), "e": "AQAB"})),
            keys.p256
                .jwk_with(&json!({"kid": "wrong-curve", "crv": "P-384"})),
            json!({"kty": "oct", "kid": "secret", "k": encode("secret"), "alg": "HS256"}),
        ];
        Self::of(&published, rules(), EventClaims::All).await
    }

    async fn verify(&self, token: &str) -> Result<std::sync::Arc<Caller>, Refused> {
        self.authenticator.verify(token).await
    }
}

/// A token with another third part.
fn with_signature(token: &str, signature: &str) -> String {
    format!("{}.{signature}", token.rsplit_once('.').unwrap().0)
}

/// A token with another second part, signed as the first was.
fn with_claims(token: &str, claims: &Value) -> String {
    let parts: Vec<_> = token.split('.').collect();
    format!("{}.{}.{}", parts[0], encode(claims.to_string()), parts[2])
}

fn with_header(token: &str, header: &Value) -> String {
    let (_, rest) = token.split_once('.').unwrap();
    format!("{}.{rest}", encode(header.to_string()))
}

/// Signed with HMAC, the secret being something that everybody knows.
fn with_hmac(secret: &[u8], algorithm: &str) -> String {
    use aws_lc_rs::hmac;
    let header = json!({"alg": algorithm, "typ": "JWT", "kid": "rsa"});
    let signed = format!(
        "{}.{}",
        encode(header.to_string()),
        encode(claims().to_string())
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", encode(tag.as_ref()))
}

/// An ECDSA signature as ASN.1 has it, where a token has two numbers of fixed size.
fn as_der(fixed: &[u8]) -> Vec<u8> {
    let integer = |number: &[u8]| {
        let number = [&[0], number].concat();
        [&[2, u8::try_from(number.len()).unwrap()], &*number].concat()
    };
    let (r, s) = fixed.split_at(fixed.len() / 2);
    let body = [integer(r), integer(s)].concat();
    [&[0x30, u8::try_from(body.len()).unwrap()], &*body].concat()
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!([inner]))
}

type Case = (&'static str, String, Refused);

fn malformed() -> Vec<Case> {
    let signer = &keys().rsa;
    let good = signer.token(&claims());
    let parts: Vec<_> = good.split('.').collect();
    let claims_text = claims().to_string();
    let raw = |header: &[u8]| signer.token_of(header, &claims_text);
    let first = |part: &str| format!("{part}.{}.{}", parts[1], parts[2]);
    vec![
        ("empty", String::new(), Refused::NotSigned),
        ("one part", parts[0].to_owned(), Refused::NotSigned),
        (
            "two parts",
            format!("{}.{}", parts[0], parts[1]),
            Refused::NotSigned,
        ),
        (
            "four parts",
            format!("{good}.{}", parts[2]),
            Refused::NotSigned,
        ),
        ("six parts", format!("{good}.{good}"), Refused::NotSigned),
        (
            "five parts, as an encrypted token has",
            format!("{good}.a.b"),
            Refused::Encrypted,
        ),
        ("17 kB", first(&"A".repeat(17_000)), Refused::TooLong),
        (
            "padded header",
            first(&format!("{}=", parts[0])),
            Refused::HeaderEncoding,
        ),
        (
            "header in the other base64",
            first("eyJ+/w"),
            Refused::HeaderEncoding,
        ),
        (
            "header with white space",
            first(&format!("{} ", parts[0])),
            Refused::HeaderEncoding,
        ),
        // `eyJ9` and bits that are no byte.
        (
            "header with bits left over",
            first("e30f"),
            Refused::HeaderJson,
        ),
        (
            "header with loose bits",
            first("e31"),
            Refused::HeaderEncoding,
        ),
        ("empty header", first(""), Refused::HeaderJson),
        (
            "header that is not UTF-8",
            raw(b"{\"alg\":\"RS256\",\"x\":\"\xff\"}"),
            Refused::HeaderJson,
        ),
        (
            "header that is a list",
            raw(b"[\"RS256\"]"),
            Refused::HeaderJson,
        ),
        (
            "header cut short",
            raw(b"{\"alg\":\"RS256\""),
            Refused::HeaderJson,
        ),
        (
            "header and more",
            raw(b"{\"alg\":\"RS256\"}{}"),
            Refused::HeaderJson,
        ),
        (
            "alg twice",
            raw(b"{\"alg\":\"RS256\",\"alg\":\"none\"}"),
            Refused::HeaderJson,
        ),
        (
            "alg twice by an escape",
            raw(br#"{"alg":"RS256","\u0061lg":"none"}"#),
            Refused::HeaderJson,
        ),
        (
            "header nested without end",
            raw(format!("{{\"x\":{}}}", "[".repeat(5_000)).as_bytes()),
            Refused::HeaderJson,
        ),
        (
            "no alg",
            signer.token_with(&json!({"alg": null}), &claims()),
            Refused::AlgorithmMissing,
        ),
        (
            "alg is a number",
            raw(b"{\"alg\":256}"),
            Refused::AlgorithmMissing,
        ),
        (
            "alg is null",
            raw(b"{\"alg\":null}"),
            Refused::AlgorithmMissing,
        ),
        (
            "alg is a list",
            raw(b"{\"alg\":[\"RS256\"]}"),
            Refused::AlgorithmMissing,
        ),
        (
            "critical extension",
            signer.token_with(&json!({"crit": ["exp"]}), &claims()),
            Refused::Critical,
        ),
        (
            "critical and empty",
            signer.token_with(&json!({"crit": []}), &claims()),
            Refused::Critical,
        ),
        (
            "claims that are not encoded",
            signer.token_with(&json!({"b64": false, "crit": ["b64"]}), &claims()),
            Refused::Critical,
        ),
        (
            "a DPoP proof",
            signer.token_with(&json!({"typ": "dpop+jwt"}), &claims()),
            Refused::TypeUnsupported,
        ),
        (
            "a logout token",
            signer.token_with(&json!({"typ": "logout+jwt"}), &claims()),
            Refused::TypeUnsupported,
        ),
        (
            "typ is a number",
            signer.token_with(&json!({"typ": 1}), &claims()),
            Refused::TypeUnsupported,
        ),
        (
            "a token in a token",
            signer.token_with(&json!({"cty": "JWT"}), &claims()),
            Refused::Nested,
        ),
        (
            "encrypted by its header",
            signer.token_with(&json!({"enc": "A256GCM"}), &claims()),
            Refused::Encrypted,
        ),
        (
            "compressed",
            signer.token_with(&json!({"zip": "DEF"}), &claims()),
            Refused::Encrypted,
        ),
        (
            "kid is a number",
            signer.token_with(&json!({"kid": 1}), &claims()),
            Refused::KeyIdMalformed,
        ),
        (
            "kid is empty",
            signer.token_with(&json!({"kid": ""}), &claims()),
            Refused::KeyIdMalformed,
        ),
        (
            "kid is null",
            raw(b"{\"alg\":\"RS256\",\"kid\":null}"),
            Refused::KeyIdMalformed,
        ),
        (
            "kid is long",
            signer.token_with(&json!({"kid": "k".repeat(257)}), &claims()),
            Refused::KeyIdMalformed,
        ),
        (
            "no signature",
            with_signature(&good, ""),
            Refused::SignatureEncoding,
        ),
        (
            "padded signature",
            with_signature(&good, &format!("{}==", parts[2])),
            Refused::SignatureEncoding,
        ),
        (
            "signature in the other base64",
            with_signature(&good, "+/+/"),
            Refused::SignatureEncoding,
        ),
        (
            "signature with a line break",
            with_signature(&good, &format!("{}\n", parts[2])),
            Refused::SignatureEncoding,
        ),
    ]
}

fn forged() -> Vec<Case> {
    let all = keys();
    let good = all.rsa.token(&claims());
    let other_claims = claims_with(&json!({"sub": "root"}));
    let by =
        |signer: &Signer, header: Value| signer.token_of(header.to_string(), claims().to_string());
    let header = |algorithm: &str, id: &str| json!({"alg": algorithm, "kid": id});
    let unsigned = |algorithm: &str| {
        let signed = encode(header(algorithm, "rsa").to_string());
        format!("{signed}.{}.", encode(other_claims.to_string()))
    };
    let ec = all.p256.token(&claims());
    let ec_signature = all
        .p256
        .sign("ES256", ec.rsplit_once('.').unwrap().0.as_bytes());
    let ed = all.ed.token(&claims());
    let jwk_text = all.rsa.jwk().to_string();
    let modulus = all.rsa.jwk()["n"].as_str().unwrap().to_owned();
    let mut own = header("RS256", "rsa");
    own["jwk"] = all.other_rsa.jwk();
    let mut pointing = header("RS256", "evil");
    pointing["jku"] = json!("https://evil.example/keys");
    pointing["x5u"] = json!("https://evil.example/chain");
    vec![
        (
            "alg none, no signature",
            unsigned("none"),
            Refused::AlgorithmNone,
        ),
        ("alg None", unsigned("None"), Refused::AlgorithmNone),
        ("alg NONE", unsigned("NONE"), Refused::AlgorithmNone),
        (
            "alg nOnE, with a signature",
            with_header(&good, &header("nOnE", "rsa")),
            Refused::AlgorithmNone,
        ),
        (
            "HS256 with the public key",
            with_hmac(jwk_text.as_bytes(), "HS256"),
            Refused::AlgorithmSymmetric,
        ),
        (
            "HS256 with the modulus",
            with_hmac(modulus.as_bytes(), "HS256"),
            Refused::AlgorithmSymmetric,
        ),
        (
            "HS384 with the public key",
            with_hmac(jwk_text.as_bytes(), "HS384"),
            Refused::AlgorithmSymmetric,
        ),
        (
            "HS512 with nothing",
            with_hmac(b"", "HS512"),
            Refused::AlgorithmSymmetric,
        ),
        (
            "HS256 with a published secret",
            with_hmac(b"secret", "HS256"),
            Refused::AlgorithmSymmetric,
        ),
        (
            "ES512",
            with_header(&ec, &header("ES512", "p256")),
            Refused::AlgorithmUnsupported,
        ),
        (
            "ES256K",
            with_header(&ec, &header("ES256K", "p256")),
            Refused::AlgorithmUnsupported,
        ),
        (
            "rs256 in small letters",
            by(&all.rsa, header("rs256", "rsa")),
            Refused::AlgorithmUnsupported,
        ),
        (
            "an empty alg",
            by(&all.rsa, header("", "rsa")),
            Refused::AlgorithmUnsupported,
        ),
        (
            "an alg of encryption",
            by(&all.rsa, header("RSA-OAEP", "rsa")),
            Refused::AlgorithmUnsupported,
        ),
        (
            "a key that is not there",
            by(&all.other_rsa, header("RS256", "evil")),
            Refused::KeyUnknown,
        ),
        (
            "a key that is a path",
            by(&all.other_rsa, header("RS256", "../../../dev/null")),
            Refused::KeyUnknown,
        ),
        (
            "a key's name in capitals",
            by(&all.rsa, header("RS256", "RSA")),
            Refused::KeyUnknown,
        ),
        (
            "a key for encryption",
            by(&all.other_ed, header("EdDSA", "for-encryption")),
            Refused::KeyUnknown,
        ),
        (
            "a key that only signs",
            by(&all.other_ed, header("EdDSA", "for-signing")),
            Refused::KeyUnknown,
        ),
        (
            "a key that everybody has",
            by(&all.other_ed, header("EdDSA", "given-away")),
            Refused::KeyUnknown,
        ),
        (
            "a key of 1024 bits",
            by(&all.other_rsa, header("RS256", "weak")),
            Refused::KeyUnknown,
        ),
        (
            "a key on another curve than it says",
            by(&all.p256, header("ES384", "wrong-curve")),
            Refused::KeyUnknown,
        ),
        (
            "a shared secret by name",
            by(&all.rsa, header("RS256", "secret")),
            Refused::KeyUnknown,
        ),
        (
            "no name, several keys",
            by(&all.rsa, json!({"alg": "RS256"})),
            Refused::KeyAmbiguous,
        ),
        (
            "RS256 with an EC key",
            with_header(&ec, &header("RS256", "p256")),
            Refused::AlgorithmNotOfKey,
        ),
        (
            "ES256 with an RSA key",
            with_header(&good, &header("ES256", "rsa")),
            Refused::AlgorithmNotOfKey,
        ),
        (
            "ES384 with a P-256 key",
            with_header(&ec, &header("ES384", "p256")),
            Refused::AlgorithmNotOfKey,
        ),
        (
            "EdDSA with an EC key",
            with_header(&ec, &header("EdDSA", "p256")),
            Refused::AlgorithmNotOfKey,
        ),
        (
            "ES256 with an Ed25519 key",
            with_header(&ed, &header("ES256", "ed")),
            Refused::AlgorithmNotOfKey,
        ),
        (
            "PS256 with a key for RS256",
            by(&all.other_rsa, header("PS256", "pinned")),
            Refused::AlgorithmNotOfKey,
        ),
        (
            "another key's signature",
            by(&all.other_rsa, header("RS256", "rsa")),
            Refused::SignatureInvalid,
        ),
        (
            "the key is in the token",
            by(&all.other_rsa, own),
            Refused::SignatureInvalid,
        ),
        (
            "the key is where the token says",
            by(&all.other_rsa, pointing),
            Refused::KeyUnknown,
        ),
        (
            "other claims",
            with_claims(&good, &other_claims),
            Refused::SignatureInvalid,
        ),
        (
            "another header",
            with_header(&good, &json!({"alg": "RS256", "kid": "rsa", "x": 1})),
            Refused::SignatureInvalid,
        ),
        (
            "PS256 over an RS256 signature",
            with_header(&good, &header("PS256", "rsa")),
            Refused::SignatureInvalid,
        ),
        (
            "RS384 over an RS256 signature",
            with_header(&good, &header("RS384", "rsa")),
            Refused::SignatureInvalid,
        ),
        (
            "signature cut short",
            with_signature(&good, "AAAA"),
            Refused::SignatureInvalid,
        ),
        (
            "signature of zeros",
            with_signature(&good, &encode([0; 256])),
            Refused::SignatureInvalid,
        ),
        (
            "ECDSA of zeros",
            with_signature(&ec, &encode([0; 64])),
            Refused::SignatureInvalid,
        ),
        (
            "ECDSA of nothing but ones",
            with_signature(&ec, &encode([0xff; 64])),
            Refused::SignatureInvalid,
        ),
        (
            "ECDSA in ASN.1",
            with_signature(&ec, &encode(as_der(&ec_signature))),
            Refused::SignatureInvalid,
        ),
        (
            "ECDSA by another key",
            by(&all.other_p256, header("ES256", "p256")),
            Refused::SignatureInvalid,
        ),
        (
            "Ed25519 by another key",
            by(&all.other_ed, header("EdDSA", "ed")),
            Refused::SignatureInvalid,
        ),
        (
            "Ed25519 of zeros",
            with_signature(&ed, &encode([0; 64])),
            Refused::SignatureInvalid,
        ),
        (
            "signature of another token",
            with_claims(&ec, &claims_with(&json!({"exp": now() + 7_200}))),
            Refused::SignatureInvalid,
        ),
    ]
}

fn wrong_claims() -> Vec<Case> {
    let signer = &keys().ed;
    let raw = |claims: &[u8]| signer.token_of(r#"{"alg":"EdDSA","kid":"ed"}"#, claims);
    let of = |members: Value| signer.token(&claims_with(&members));
    let inner = claims().to_string();
    let inner = &inner[1..];
    let signed = format!("{}.{}", encode(r#"{"alg":"EdDSA","kid":"ed"}"#), "e30=");
    let not_encoded = format!(
        "{signed}.{}",
        encode(signer.sign("EdDSA", signed.as_bytes()))
    );
    // 16 bytes of canonical JSON for each 5 that are signed.
    let growing = format!("{{\"x\":[{}1e15],{inner}", "1e15,".repeat(1_500));
    vec![
        ("claims with padding", not_encoded, Refused::ClaimsEncoding),
        ("claims that are a list", raw(b"[]"), Refused::ClaimsJson),
        ("claims that are nothing", raw(b""), Refused::ClaimsJson),
        (
            "claims that are not UTF-8",
            raw(b"{\"sub\":\"\xff\"}"),
            Refused::ClaimsJson,
        ),
        (
            "exp twice",
            raw(format!("{{\"exp\":9999999999,{inner}").as_bytes()),
            Refused::ClaimsJson,
        ),
        (
            "a member twice further in",
            raw(format!("{{\"x\":{{\"a\":1,\"a\":2}},{inner}").as_bytes()),
            Refused::ClaimsJson,
        ),
        (
            "an id that no double holds",
            raw(format!("{{\"x\":9007199254740993,{inner}").as_bytes()),
            Refused::ClaimsJson,
        ),
        (
            "NaN",
            raw(format!("{{\"x\":NaN,{inner}").as_bytes()),
            Refused::ClaimsJson,
        ),
        ("U+0000", of(json!({"tenant": "a\0b"})), Refused::ClaimsJson),
        (
            "nested 25 deep",
            of(json!({"x": nested(24)})),
            Refused::ClaimsJson,
        ),
        (
            "claims that grow over 16 KiB",
            raw(growing.as_bytes()),
            Refused::ClaimsTooLarge,
        ),
        ("no exp", of(json!({"exp": null})), Refused::ExpiryMissing),
        (
            "exp is null",
            raw(b"{\"exp\":null}"),
            Refused::ExpiryMalformed,
        ),
        (
            "exp is a text",
            of(json!({"exp": "9999999999"})),
            Refused::ExpiryMalformed,
        ),
        (
            "exp is true",
            of(json!({"exp": true})),
            Refused::ExpiryMalformed,
        ),
        (
            "exp is a list",
            of(json!({"exp": [now() + 60]})),
            Refused::ExpiryMalformed,
        ),
        (
            "expired beyond the leeway",
            of(json!({"exp": now() - 31})),
            Refused::Expired,
        ),
        ("exp is 0", of(json!({"exp": 0})), Refused::Expired),
        (
            "exp is negative",
            of(json!({"exp": -1e300})),
            Refused::Expired,
        ),
        (
            "nbf is a text",
            of(json!({"nbf": "0"})),
            Refused::NotBeforeMalformed,
        ),
        (
            "nbf is to come",
            of(json!({"nbf": now() + 60})),
            Refused::NotYetValid,
        ),
        (
            "iat is a text",
            of(json!({"iat": "0"})),
            Refused::IssuedAtMalformed,
        ),
        (
            "iat is to come",
            of(json!({"iat": now() + 60})),
            Refused::IssuedInFuture,
        ),
        ("no iss", of(json!({"iss": null})), Refused::IssuerMissing),
        (
            "iss is a number",
            of(json!({"iss": 1})),
            Refused::IssuerMalformed,
        ),
        (
            "iss is a list that holds it",
            of(json!({"iss": [support::ISSUER]})),
            Refused::IssuerMalformed,
        ),
        (
            "iss is empty",
            of(json!({"iss": ""})),
            Refused::IssuerMalformed,
        ),
        (
            "another iss",
            of(json!({"iss": "https://evil.example/"})),
            Refused::IssuerWrong,
        ),
        (
            "iss without its slash",
            of(json!({"iss": "https://issuer.example"})),
            Refused::IssuerWrong,
        ),
        (
            "iss in capitals",
            of(json!({"iss": "https://ISSUER.example/"})),
            Refused::IssuerWrong,
        ),
        (
            "iss and more",
            of(json!({"iss": "https://issuer.example/evil"})),
            Refused::IssuerWrong,
        ),
        ("no aud", of(json!({"aud": null})), Refused::AudienceMissing),
        (
            "aud is an empty list",
            of(json!({"aud": []})),
            Refused::AudienceMissing,
        ),
        (
            "aud is a number",
            of(json!({"aud": 1})),
            Refused::AudienceMalformed,
        ),
        (
            "aud is an object",
            of(json!({"aud": {"stategate": true}})),
            Refused::AudienceMalformed,
        ),
        (
            "aud is a list with a number",
            of(json!({"aud": ["stategate", 1]})),
            Refused::AudienceMalformed,
        ),
        (
            "another aud",
            of(json!({"aud": "elsewhere"})),
            Refused::AudienceWrong,
        ),
        (
            "several other auds",
            of(json!({"aud": ["elsewhere", "stategate2"]})),
            Refused::AudienceWrong,
        ),
        (
            "sub is a number",
            of(json!({"sub": 42})),
            Refused::SubjectMalformed,
        ),
        (
            "sub is empty",
            of(json!({"sub": ""})),
            Refused::SubjectMalformed,
        ),
        (
            "sub is long",
            of(json!({"sub": "s".repeat(513)})),
            Refused::SubjectMalformed,
        ),
    ]
}

#[tokio::test]
async fn every_forged_or_malformed_token_is_refused_for_its_own_reason() {
    let setting = Setting::usual().await;
    let cases = [malformed(), forged(), wrong_claims()].concat();
    let mut names = BTreeSet::new();
    let mut reasons = BTreeSet::new();
    for (name, token, reason) in &cases {
        assert!(names.insert(*name), "{name} stands twice");
        let refused = setting.verify(token).await.err();
        assert_eq!(refused, Some(*reason), "{name}");
        // A refusal is not kept as a success, nor the other way round.
        assert_eq!(
            setting.verify(token).await.err(),
            Some(*reason),
            "{name} again"
        );
        reasons.insert(format!("{reason:?}"));
    }
    println!(
        "{} tokens refused for {} reasons",
        cases.len(),
        reasons.len()
    );
    assert!(cases.len() >= 100, "only {} tokens", cases.len());
    assert!(reasons.len() >= 35, "only {} reasons", reasons.len());
}

#[tokio::test]
async fn tokens_of_every_family_are_accepted() {
    let setting = Setting::usual().await;
    let all = keys();
    let of = |signer: &Signer, algorithm: &str, id: &str| {
        signer.token_with(&json!({"alg": algorithm, "kid": id}), &claims())
    };
    let mut tokens = vec![
        of(&all.p256, "ES256", "p256"),
        of(&all.p384, "ES384", "p384"),
        of(&all.ed, "EdDSA", "ed"),
        of(&all.ed, "Ed25519", "ed"),
        of(&all.other_rsa, "RS256", "pinned"),
        // One key alone is for this algorithm.
        all.ed.token_with(&json!({"kid": null}), &claims()),
        all.ed.token_with(&json!({"typ": null}), &claims()),
        all.ed.token_with(&json!({"typ": "at+jwt"}), &claims()),
        all.ed
            .token_with(&json!({"typ": "application/AT+JWT"}), &claims()),
        all.ed
            .token_with(&json!({"x5t": "abc", "unknown": {"a": 1}}), &claims()),
        all.ed
            .token(&claims_with(&json!({"aud": ["elsewhere", "stategate"]}))),
        all.ed
            .token(&claims_with(&json!({"exp": now() as f64 + 60.5}))),
        all.ed.token(&claims_with(&json!({"exp": 1e300}))),
        all.ed
            .token(&claims_with(&json!({"exp": now() - 20, "nbf": now() + 20}))),
        all.ed.token(&claims_with(
            &json!({"sub": null, "nbf": null, "iat": null}),
        )),
        all.ed.token(&claims_with(&json!({"x": nested(22)}))),
    ];
    for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
        tokens.push(of(&all.rsa, algorithm, "rsa"));
    }
    for token in &tokens {
        let identity = setting.verify(token).await;
        assert!(identity.is_ok(), "{token}: {identity:?}");
    }
}

#[tokio::test]
async fn an_identity_is_the_issuer_and_the_subject_and_keeps_the_claims_named() {
    let named = EventClaims::parse("sub, email ,missing").unwrap();
    let setting = Setting::of(&[keys().ed.jwk()], rules(), named).await;
    let sent = claims_with(&json!({"email": "a@b.c", "secret": "x", "n": 1.0, "at": [1, 2.5]}));
    let token = keys().ed.token(&sent);
    let identity = setting.verify(&token).await.unwrap();
    assert_eq!(identity.name(), (support::ISSUER, "alice"));
    assert_eq!(
        identity.event_claims().values().json(),
        r#"{"email":"a@b.c","sub":"alice"}"#
    );
    let all = model_json::parse_object(&sent.to_string()).unwrap();
    assert!(*identity.claims() == Document::from(&all), "all of them");
    let exp = sent["exp"].as_u64().unwrap();
    let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(exp + 30);
    assert_eq!(identity.expires(), expires);
    let shown = format!("{identity:?} {:?}", setting.authenticator);
    assert!(
        !shown.contains("a@b.c") && !shown.contains("secret"),
        "{shown}"
    );
    assert!(EventClaims::parse("sub,,iss").is_err() && EventClaims::parse("").is_err());
}

#[tokio::test]
async fn without_rules_for_them_issuer_and_audience_may_be_any() {
    let setting = Setting::of(&[keys().ed.jwk()], TokenRules::default(), EventClaims::All).await;
    let of = |members: Value| keys().ed.token(&claims_with(&members));
    assert!(
        setting
            .verify(&of(json!({"iss": null, "aud": null})))
            .await
            .is_ok()
    );
    assert!(
        setting
            .verify(&of(json!({"iss": "x", "aud": "y"})))
            .await
            .is_ok()
    );
    let malformed = setting.verify(&of(json!({"aud": 1}))).await;
    assert_eq!(malformed.err(), Some(Refused::AudienceMalformed));
}

#[tokio::test]
async fn a_cached_token_ends_with_its_expiry_and_before_its_beginning() {
    let setting = Setting::usual().await;
    let token = keys().ed.token(&claims_with(&json!({"exp": now() + 60})));
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(now() + seconds);
    let verify = async |at| setting.authenticator.verify_at(&token, at).await;
    let first = verify(at(0)).await.unwrap();
    let second = verify(at(80)).await.unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &second), "verified twice");
    assert_eq!(verify(at(91)).await.err(), Some(Refused::Expired));
    assert_eq!(verify(at(91)).await.err(), Some(Refused::Expired));
    // A clock that is set back.
    let before = SystemTime::UNIX_EPOCH + Duration::from_secs(now() - 3_600);
    assert!(verify(at(0)).await.is_ok());
    assert_eq!(verify(before).await.err(), Some(Refused::NotYetValid));
    assert_eq!(
        verify(SystemTime::UNIX_EPOCH - Duration::from_secs(1))
            .await
            .err(),
        Some(Refused::NotYetValid)
    );
}

#[tokio::test]
async fn the_cache_is_bounded() {
    let setting = Setting::of(&[keys().ed.jwk()], rules(), EventClaims::All).await;
    // More than fit, each of several kB: what is kept is bounded in bytes, and all stay valid.
    let filler = "x".repeat(8_000);
    let mut first = None;
    for n in 0..3_000 {
        let claims = claims_with(&json!({"sub": format!("user-{n}"), "filler": filler}));
        let token = keys().ed.token(&claims);
        let identity = setting.verify(&token).await.unwrap();
        if n == 0 {
            first = Some((token, identity));
        }
    }
    let (token, identity) = first.unwrap();
    assert_eq!(
        std::sync::Arc::strong_count(&identity),
        1,
        "still in the cache"
    );
    assert!(setting.verify(&token).await.is_ok());
}

#[tokio::test]
async fn no_token_of_random_bytes_is_accepted_or_ends_the_process() {
    let setting = Setting::usual().await;
    let good = keys().ed.token(&claims());
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 32).unwrap()
    };
    let alphabet: Vec<char> = "AZaz09-_.=+/ \n\u{e9}{}[]\":,".chars().collect();
    let mut changed = 0;
    for _ in 0..20_000 {
        let mut token: Vec<char> = good.chars().collect();
        for _ in 0..=random() % 3 {
            let at = random() % token.len();
            match random() % 3 {
                0 => token[at] = alphabet[random() % alphabet.len()],
                1 => drop(token.remove(at)),
                _ => token.insert(at, alphabet[random() % alphabet.len()]),
            }
        }
        let token: String = token.into_iter().collect();
        if token != good {
            changed += 1;
            assert!(setting.verify(&token).await.is_err(), "{token}");
        }
    }
    assert!(changed > 19_000, "only {changed}");
}
