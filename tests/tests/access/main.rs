//! Who may do and see what, end to end: real processes, tokens and policies, as one process and as three.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

mod limits;
mod policies;
mod streams;
mod tokens;

use serde_json::json;
use stategate_protocol::pb;
use stategate_tests::{Ask, Form, Gateway, Issuer, Options};
use tonic::{Response, Status};

/// Everything is allowed.
const ALL: &str = "allow := true";

/// A gateway that lets the callers of an issuer do everything.
async fn gateway(issuer: &Issuer, form: Form) -> Gateway {
    Gateway::start(issuer.protects(Options::new(form), ALL, ALL)).await
}

/// A token of a tenant's user.
fn of(issuer: &Issuer, tenant: &str, subject: &str) -> String {
    issuer.token(&json!({"tenant": tenant, "sub": subject}))
}

/// Every call that there is, each with what it is answered.
async fn every_call(ask: &Ask) -> Vec<(&'static str, Result<(), Status>)> {
    fn done<T>(answer: Result<Response<T>, Status>) -> Result<(), Status> {
        answer.map(|_| ())
    }
    let id = "1b4e28ba-2fa1-4d2b-883f-0016d3cca427";
    let kind = ("acme".to_owned(), "user".to_owned());
    let operation = pb::Operation {
        operation: Some(pb::operation::Operation::Del(pb::EntityRef {
            r#type: "user".to_owned(),
            key: "k".to_owned(),
            ..pb::EntityRef::default()
        })),
        ..pb::Operation::default()
    };
    vec![
        ("Set", done(ask.set("acme/user/k", r#"{"a":1}"#).await)),
        ("Edit", done(ask.edit("acme/user/k", r#"{"a":2}"#).await)),
        ("Revert", done(ask.revert("acme/user/k", id).await)),
        ("Del", done(ask.del("acme/user/k").await)),
        (
            "Transact",
            done(ask.transact("acme", vec![operation]).await),
        ),
        ("Get", done(ask.get("acme/user/k").await)),
        (
            "Search",
            done(
                ask.search(pb::SearchEntityOpts {
                    domain: kind.0.clone(),
                    r#type: kind.1.clone(),
                    ..pb::SearchEntityOpts::default()
                })
                .await,
            ),
        ),
        (
            "Events/Search",
            done(
                ask.history(pb::SearchEventOpts {
                    domain: kind.0.clone(),
                    r#type: kind.1.clone(),
                    ..pb::SearchEventOpts::default()
                })
                .await,
            ),
        ),
        ("Events/Get", done(ask.event("acme/user/k", id).await)),
        (
            "Events/Stream",
            ask.stream(pb::StreamOpts {
                domain: kind.0,
                r#type: kind.1,
                ..pb::StreamOpts::default()
            })
            .await
            .map(|_| ()),
        ),
    ]
}
