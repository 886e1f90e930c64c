//! What authentication and a policy cost a call: `cargo run --release -p stategate-auth --example cost`.
//!
//! Prints, per call on one core: the look-up of a verified token, the input's construction from parts,
//! and a policy of ten rules; and the signature check that the cache saves.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "an example prints, and ends where it cannot go on"
)]

use std::{hint::black_box, time::Instant};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use stategate_api::Caller;
use stategate_auth::{
    Authenticator, EventClaims, KeySettings, KeySource, TokenRules,
    authentication::AuthenticatorSettings,
};
use stategate_policy::{Document, Limits, Module, Policy};

const POLICY: &str = r#"
package stategate.authz

reads := {"/stategate.EntityService/Get", "/stategate.EntityService/Search"}

is_admin if "admin" in input.claims.roles
is_support if "support" in input.claims.roles
same_tenant if input.claims.tenant == input.body.domain
internal if startswith(input.body.type, "internal-")
owner if input.body.key == input.claims.sub
in_region if input.metadata["x-region"] in {"eu", "us"}
may_read if { same_tenant; not internal; in_region }
may_read if { is_support; in_region }
may_write if { owner; same_tenant }
may_write if is_admin
allow if { input.method in reads; may_read }
allow if { not input.method in reads; may_write }
"#;

fn input(caller: &Caller) -> Document {
    Document::object([
        ("claims", caller.claims().clone()),
        ("method", Document::from("/stategate.EntityService/Get")),
        (
            "metadata",
            Document::object([("x-region", Document::from("eu"))]),
        ),
        (
            "body",
            Document::object([
                ("domain", Document::from("acme")),
                ("type", Document::from("user")),
                ("key", Document::from("alice")),
            ]),
        ),
        ("client_stream", Document::from(false)),
        ("server_stream", Document::from(false)),
    ])
}

/// Microseconds that a call of `work` takes, the median of several rounds.
fn measure(times: u32, mut work: impl FnMut()) -> f64 {
    let mut rounds: Vec<f64> = (0..7)
        .map(|_| {
            let began = Instant::now();
            for _ in 0..times {
                work();
            }
            began.elapsed().as_secs_f64() * 1e6 / f64::from(times)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (x, y) = key.public_key().as_ref()[1..].split_at(32);
    let keys = format!(
        r#"{{"keys":[{{"kty":"EC","crv":"P-256","kid":"a","x":"{}","y":"{}"}}]}}"#,
        encode(x),
        encode(y)
    );
    let file = std::env::temp_dir().join(format!("stategate-cost-{}.json", std::process::id()));
    std::fs::write(&file, keys).unwrap();
    let token = |n: usize| {
        let claims = format!(
            r#"{{"iss":"https://issuer.example/","sub":"alice","aud":["stategate"],"exp":4102444800,"iat":1700000000,"jti":"{n}","tenant":"acme","roles":["reader","writer"],"email":"alice@example.com","scope":"openid profile email"}}"#
        );
        let signed = format!(
            "{}.{}",
            encode(br#"{"alg":"ES256","kid":"a","typ":"JWT"}"#),
            encode(claims.as_bytes())
        );
        let random = aws_lc_rs::rand::SystemRandom::new();
        let signature = key.sign(&random, signed.as_bytes()).unwrap();
        format!("{signed}.{}", encode(signature.as_ref()))
    };
    let source = KeySource::parse(&format!("file:{}", file.display())).unwrap();
    let (authenticator, refresher) = Authenticator::new(AuthenticatorSettings {
        keys: KeySettings::new(source),
        rules: TokenRules {
            issuers: vec!["https://issuer.example/".to_owned()],
            audiences: vec!["stategate".to_owned()],
            ..TokenRules::default()
        },
        event_claims: EventClaims::All,
    })
    .unwrap();
    let refreshing = runtime.spawn(refresher.run());
    runtime.block_on(authenticator.until_ready());
    let module = Module {
        name: "policy.rego".to_owned(),
        text: POLICY.to_owned(),
    };
    let policy = Policy::compile(&[module], None, Limits::default()).unwrap();

    let first = token(0);
    let identity = runtime.block_on(authenticator.verify(&first)).unwrap();
    assert!(policy.decide(|| input(&identity)).is_allow());

    let tokens: Vec<_> = (1..=7_000).map(token).collect();
    let mut next = tokens.iter();
    let fresh = measure(1_000, || {
        let token = next.next().unwrap();
        black_box(runtime.block_on(authenticator.verify(token)).unwrap());
    });
    let cached = measure(100_000, || {
        black_box(runtime.block_on(authenticator.verify(&first)).unwrap());
    });
    let built = measure(100_000, || {
        black_box(input(&identity));
    });
    let ready = input(&identity);
    let decided = measure(100_000, || {
        black_box(policy.decide(|| ready.clone()));
    });
    println!("verify, first time (ES256)      {fresh:8.2} µs");
    println!("verify, cached                  {cached:8.2} µs");
    println!("input, built                    {built:8.2} µs");
    println!("policy of ten rules             {decided:8.2} µs");
    let total = cached + built + decided;
    println!("each call, with a cached token  {total:8.2} µs");
    refreshing.abort();
    std::fs::remove_file(&file).unwrap();
}
