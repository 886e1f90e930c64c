//! Which tokens let a caller in.

use std::time::Duration;

use serde_json::{Value, json};
use stategate_tests::{Ask, Form, Gateway, Issuer, Options, PATIENCE, Role, issuer::now};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{ALL, every_call, gateway, of};

#[tokio::test]
async fn no_call_gets_in_without_a_token_that_is_accepted() {
    let issuer = Issuer::new();
    for form in [Form::One, Form::Three] {
        let mut gateway = gateway(&issuer, form).await;
        let ask = Ask::new(&mut gateway);
        let forger = Issuer::new();
        let header = |members: Value| {
            let mut header = json!({"alg": "EdDSA", "typ": "JWT", "kid": "first"});
            for (name, value) in members.as_object().unwrap() {
                header[name] = value.clone();
            }
            header
        };
        let claims =
            json!({"iss": stategate_tests::issuer::ISSUER, "aud": "stategate", "exp": now() + 60});
        let good = of(&issuer, "acme", "ada");
        let nobody: Vec<(&str, Ask)> = vec![
            ("no token", ask.clone()),
            ("two headers", ask.bearing(&good).bearing(&good)),
            (
                "another scheme",
                ask.with("authorization", format!("Basic {good}")),
            ),
            ("nothing", ask.with("authorization", "Bearer ")),
            (
                "another's signature",
                ask.bearing(&forger.token(&json!({"sub": "ada"}))),
            ),
            (
                "no signature",
                ask.bearing(&issuer.token_of(&header(json!({"alg": "none"})), &claims)),
            ),
            (
                "a shared secret",
                ask.bearing(&issuer.token_of(&header(json!({"alg": "HS256"})), &claims)),
            ),
            (
                "another family",
                ask.bearing(&issuer.token_of(&header(json!({"alg": "ES256"})), &claims)),
            ),
            (
                "an unknown key",
                ask.bearing(&issuer.token_of(&header(json!({"kid": "x"})), &claims)),
            ),
            (
                "a critical extension",
                ask.bearing(&issuer.token_of(&header(json!({"crit": ["x"], "x": 1})), &claims)),
            ),
            (
                "no expiry",
                ask.bearing(&issuer.token(&json!({"exp": null}))),
            ),
            (
                "expired",
                ask.bearing(&issuer.token(&json!({"exp": now() - 31}))),
            ),
            (
                "not yet",
                ask.bearing(&issuer.token(&json!({"nbf": now() + 600}))),
            ),
            (
                "another issuer",
                ask.bearing(&issuer.token(&json!({"iss": "https://issuer.example"}))),
            ),
            (
                "another audience",
                ask.bearing(&issuer.token(&json!({"aud": ["stategate2"]}))),
            ),
            ("cut", ask.bearing(&good[..good.len() - 1])),
        ];
        for (what, ask) in &nobody {
            for (call, answer) in every_call(ask).await {
                let status = answer
                    .err()
                    .unwrap_or_else(|| panic!("{what}: {call} was let in"));
                assert_eq!(
                    status.code(),
                    Code::Unauthenticated,
                    "{what}: {call}: {status:?}"
                );
                let reason = status.get_details_error_info().unwrap().reason;
                assert_eq!(reason, "UNAUTHENTICATED");
                assert_eq!(status.metadata().get("www-authenticate").unwrap(), "Bearer");
            }
        }
        // Nothing was done, and the one that is good is let in everywhere.
        let ask = ask.with("authorization", format!("bearer {good}"));
        for (call, answer) in every_call(&ask).await {
            let status = answer.err().unwrap_or_else(|| tonic::Status::ok(""));
            let expected = match call {
                // The event does not exist, and by then the entity does not either.
                "Revert" | "Events/Get" | "Transact" | "Get" => Code::NotFound,
                _ => Code::Ok,
            };
            assert_eq!(status.code(), expected, "{call}: {status:?}");
        }
        let history = ask.history_of("acme/user/k").await;
        assert_eq!(history.len(), 3, "{history:?}");
        gateway.assert_no_errors();
    }
}

#[tokio::test]
async fn events_keep_who_made_them() {
    let issuer = Issuer::new();
    let options = issuer.protects(Options::new(Form::Three), ALL, ALL);
    let mut gateway = Gateway::start(options.env("STATEGATE_EVENT_CLAIMS", "sub,email")).await;
    let ask = Ask::new(&mut gateway);
    let claims = json!({"sub": "ada", "email": "ada@acme.example", "secret": "canary"});
    let ask = ask.bearing(&issuer.token(&claims));
    ask.set("acme/user/k", "{}").await.unwrap();
    let history = ask.history_of("acme/user/k").await;
    let kept = history[0].claims.clone().unwrap().into_object();
    let kept: Vec<&str> = kept.keys().map(String::as_str).collect();
    assert_eq!(kept, ["email", "sub"]);
}

#[tokio::test]
async fn an_idempotency_key_is_one_of_its_caller() {
    let issuer = Issuer::new();
    let options = issuer.protects(Options::new(Form::One), ALL, ALL);
    // What events keep does not say who calls.
    let mut gateway = Gateway::start(options.env("STATEGATE_EVENT_CLAIMS", "email")).await;
    let ask = Ask::new(&mut gateway).with("idempotency-key", "same");
    for (subject, version) in [("ada", 1), ("bob", 2), ("ada", 1)] {
        // A renewed token is the same caller's.
        let token =
            issuer.token(&json!({"sub": subject, "jti": version, "exp": now() + 500 + version}));
        let answer = ask.bearing(&token).set("acme/user/k", "{}").await.unwrap();
        let etag = answer.metadata().get("etag").unwrap().to_str().unwrap();
        assert_eq!(etag, format!("\"{version}\""), "{subject}");
    }
    assert_eq!(
        ask.bearing(&of(&issuer, "acme", "x"))
            .history_of("acme/user/k")
            .await
            .len(),
        2
    );
}

#[tokio::test]
async fn keys_are_rotated_under_load_without_a_refusal_and_a_withdrawn_key_is_refused() {
    let mut issuer = Issuer::new();
    let mut gateway = gateway(&issuer, Form::Three).await;
    let ask = Ask::new(&mut gateway);
    let old = of(&issuer, "acme", "ada");
    let old_key = issuer.jwk();
    ask.bearing(&old).set("acme/user/k", "{}").await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let load = tokio::spawn({
        let ask = ask.bearing(&old);
        async move {
            let mut calls = 0;
            while !*stopped.borrow() {
                ask.get("acme/user/k").await.unwrap();
                calls += 1;
            }
            calls
        }
    });
    issuer.rotate("second");
    issuer.publish(&[old_key, issuer.jwk()]);
    // A key that was not known a moment ago is looked for at once.
    let new = of(&issuer, "acme", "ada");
    ask.bearing(&new).get("acme/user/k").await.unwrap();
    stop.send(true).unwrap();
    assert!(load.await.unwrap() > 0);
    // The file is read every ten seconds.
    issuer.publish(&[issuer.jwk()]);
    let begun = std::time::Instant::now();
    while ask.bearing(&old).get("acme/user/k").await.is_ok() {
        assert!(
            begun.elapsed() < PATIENCE,
            "a withdrawn key is still believed"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ask.bearing(&new).get("acme/user/k").await.unwrap();
}

#[tokio::test]
async fn without_keys_it_is_not_ready_and_calls_may_be_tried_again() {
    let issuer = Issuer::new();
    let token = of(&issuer, "acme", "ada");
    let mut gateway = gateway(&issuer, Form::One).await;
    // A second process that is told of keys that are not there yet.
    let missing = issuer.jwks().with_file_name("missing.json");
    let uri = format!("file:{}", missing.display());
    let process = gateway
        .spawn_unready(Role::Query, &[("STATEGATE_JWKS_URI", uri)])
        .await;
    let ask = Ask::to(process.grpc());
    let refused = ask.bearing(&token).get("acme/user/k").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    let info = refused.get_details_error_info().unwrap();
    assert_eq!(info.reason, "KEYS_UNAVAILABLE");
    assert!(refused.get_details_retry_info().is_some());
    assert!(
        process.http("/readyz").await.is_none(),
        "it says that it is ready"
    );
    std::fs::copy(issuer.jwks(), &missing).unwrap();
    let begun = std::time::Instant::now();
    while process.http("/readyz").await.is_none() {
        assert!(begun.elapsed() < PATIENCE, "it never is ready");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answer = ask.bearing(&token).get("acme/user/k").await;
    assert_eq!(answer.unwrap_err().code(), Code::NotFound);
    drop(process);
    gateway.process(Role::Everything);
}

#[tokio::test]
async fn nothing_of_a_token_or_a_value_is_in_a_log_a_metric_or_an_error() {
    let issuer = Issuer::new();
    let none = "allow if input.claims.sub == \"nobody\"";
    let options = issuer.protects(Options::new(Form::One), none, none);
    let mut gateway = Gateway::start(options.env("STATEGATE_DEBUG", "true")).await;
    let ask = Ask::new(&mut gateway);
    let token = issuer.token(&json!({"sub": "ada", "pin": "canary-claim"}));
    let forged = Issuer::new().token(&json!({"sub": "ada", "pin": "canary-claim"}));
    let mut told = String::new();
    for token in [&token, &forged] {
        let ask = ask.bearing(token).with("x-secret", "canary-header");
        let refused = ask
            .set("acme/user/k", r#"{"a":"canary-value"}"#)
            .await
            .unwrap_err();
        told.push_str(&format!("{refused:?}"));
    }
    let process = gateway.process(Role::Everything);
    process
        .line(0, "writes down that it was denied", |line| {
            line.contains("\"denied\"")
        })
        .await;
    process
        .line(0, "writes down that it was refused", |line| {
            line.contains("not authenticated")
        })
        .await;
    told.push_str(&process.said("").join("\n"));
    let metrics = process.http("/metrics").await.unwrap();
    assert!(
        metrics.contains(
            "stategate_policy_denials_total{policy=\"request\",reason=\"not_allowed\"} 1"
        )
    );
    assert!(
        metrics.contains("stategate_authentication_refusals_total{reason=\"signature_invalid\"} 1")
    );
    told.push_str(&metrics);
    let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    for secret in ["canary", &signature(&token), &signature(&forged)] {
        assert!(!told.contains(secret), "{secret} in {told}");
    }
}
