//! What policies see and decide, over gRPC.

use serde_json::json;
use stategate_protocol::pb;
use stategate_tests::{Ask, Form, Gateway, Issuer, Options};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{ALL, of};

const OWN: &str = include_str!("../../../examples/policies/tenant-isolation/policy.rego");

fn code<T>(answer: Result<T, Status>) -> Code {
    answer.err().map_or(Code::Ok, |status| status.code())
}

/// A policy file's rules, without its package.
fn rules(text: &str) -> String {
    text.replace("package stategate.authz", "")
}

fn search(domain: &str) -> pb::SearchEntityOpts {
    pb::SearchEntityOpts {
        domain: domain.to_owned(),
        r#type: "user".to_owned(),
        ..pb::SearchEntityOpts::default()
    }
}

#[tokio::test]
async fn tenants_are_kept_apart() {
    for form in [Form::One, Form::Three] {
        let issuer = Issuer::new();
        let options = issuer.protects(Options::new(form), &rules(OWN), ALL);
        let mut gateway = Gateway::start(options).await;
        let ask = Ask::new(&mut gateway);
        let acme = ask.bearing(&of(&issuer, "acme", "ada"));
        let globex = ask.bearing(&of(&issuer, "globex", "bob"));
        acme.set("acme/user/k", r#"{"a":1}"#).await.unwrap();
        let event = acme.history_of("acme/user/k").await.remove(0);
        let stream = |domain: &str| pb::StreamOpts {
            domain: domain.to_owned(),
            r#type: "*".to_owned(),
            ..pb::StreamOpts::default()
        };
        let history = |domain: &str| pb::SearchEventOpts {
            domain: domain.to_owned(),
            r#type: "user".to_owned(),
            ..pb::SearchEventOpts::default()
        };
        let foreign = |domain: &str| pb::Operation {
            operation: Some(pb::operation::Operation::Set(pb::Entity {
                domain: domain.to_owned(),
                r#type: "user".to_owned(),
                key: "k".to_owned(),
                values: Some(stategate_protocol::Struct::default()),
                ..pb::Entity::default()
            })),
            ..pb::Operation::default()
        };
        for (what, answer) in [
            ("Get", code(globex.get("acme/user/k").await)),
            ("Set", code(globex.set("acme/user/k", "{}").await)),
            ("Edit", code(globex.edit("acme/user/k", "{}").await)),
            ("Del", code(globex.del("acme/user/k").await)),
            (
                "Revert",
                code(globex.revert("acme/user/k", &event.id).await),
            ),
            (
                "Transact",
                code(globex.transact("acme", vec![foreign("")]).await),
            ),
            ("Search", code(globex.search(search("acme")).await)),
            ("history", code(globex.history(history("acme")).await)),
            ("event", code(globex.event("acme/user/k", &event.id).await)),
            ("stream", code(globex.stream(stream("acme")).await)),
            ("stream of all", code(globex.stream(stream("*")).await)),
            (
                "stream of some",
                code(globex.stream(stream("{acme,globex}")).await),
            ),
        ] {
            assert_eq!(answer, Code::PermissionDenied, "{what}");
        }
        assert_eq!(
            code(
                globex
                    .transact("globex", vec![foreign("globex"), foreign("")])
                    .await
            ),
            Code::Ok
        );
        assert_eq!(
            acme.history_of("acme/user/k").await.len(),
            1,
            "somebody wrote"
        );
        gateway.assert_no_errors();
    }
}

#[tokio::test]
async fn a_policy_sees_the_call_as_the_contract_says() {
    let issuer = Issuer::new();
    let seen = r#"
expected := {
    "claims": {"sub": "ada", "n": 7},
    "metadata": {"x-a": "1", "idempotency-key": "k"},
    "body": {"domain": "acme", "type": "user", "key": "k", "values": {"a": [1, "x", null], "b": {}}},
    "client_stream": false,
    "server_stream": false,
    "method": "/stategate.EntityService/Set",
}
allow if {
    input.method == "/stategate.EntityService/Set"
    object.remove(input, ["claims"]) == object.remove(expected, ["claims"])
    input.claims.sub == "ada"
    input.claims.n == 7
}
allow if {
    input.method == "/stategate.EntityService/Get"
    input.body == {"domain": "acme", "type": "user", "key": "k", "atVersion": "1"}
}
"#;
    let shown = r#"
allow if input.method == "/stategate.EntityService/Set"
allow if {
    input.method == "/stategate.EntityService/Get"
    input.body == {"domain": "acme", "type": "user", "key": "k", "version": "1", "values": {"a": [1, "x", null], "b": {}}}
}
"#;
    let mut gateway = Gateway::start(issuer.protects(Options::new(Form::Three), seen, shown)).await;
    let ask = Ask::new(&mut gateway).bearing(&issuer.token(&json!({"sub": "ada", "n": 7})));
    let set = ask
        .with("x-a", "1")
        .with("x-a", "2")
        .with("idempotency-key", "k")
        .with("x-forwarded-for", "y");
    set.set("acme/user/k", r#"{"a":[1,"x",null],"b":{}}"#)
        .await
        .unwrap();
    ask.get_at("acme/user/k", pb::entity_ref::At::AtVersion(1))
        .await
        .unwrap();
    assert_eq!(code(ask.get("acme/user/k").await), Code::PermissionDenied);
}

#[tokio::test]
async fn answers_are_judged_and_what_was_written_stays_written() {
    let issuer = Issuer::new();
    // Whatever has a secret is not shown.
    let shown = r#"
secret if input.body.values.secret
secret if { some entity in input.body.entities; entity.values.secret }
secret if { some event in input.body.events; event.entity.values.secret }
secret if input.body.entity.values.secret
allow if not secret
"#;
    let mut gateway = Gateway::start(issuer.protects(Options::new(Form::Three), ALL, shown)).await;
    let ask = Ask::new(&mut gateway).bearing(&of(&issuer, "acme", "ada"));
    ask.set("acme/user/open", r#"{"a":1}"#).await.unwrap();
    ask.set("acme/user/k", r#"{"secret":1}"#).await.unwrap();
    assert_eq!(code(ask.get("acme/user/open").await), Code::Ok);
    for (what, answer) in [
        ("Get", ask.get("acme/user/k").await.map(|_| ())),
        ("Search", ask.search(search("acme")).await.map(|_| ())),
    ] {
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{what}");
        assert_eq!(
            status.get_details_error_info().unwrap().reason,
            "PERMISSION_DENIED",
            "{what}"
        );
    }
    let step = pb::Operation {
        operation: Some(pb::operation::Operation::Edit(pb::Entity {
            r#type: "user".to_owned(),
            key: "k".to_owned(),
            values: Some(stategate_protocol::Struct::default()),
            ..pb::Entity::default()
        })),
        ..pb::Operation::default()
    };
    for (what, answer) in [
        (
            "Edit",
            ask.edit("acme/user/k", r#"{"b":1}"#).await.map(|_| ()),
        ),
        (
            "Transact",
            ask.transact("acme", vec![step]).await.map(|_| ()),
        ),
    ] {
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{what}");
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.reason, "RESPONSE_DENIED", "{what}");
        assert_eq!(info.metadata["committed"], "true", "{what}");
    }
    issuer.file("response.rego", "package stategate.authz\nallow := true");
    let begun = std::time::Instant::now();
    let version = loop {
        match ask.get("acme/user/k").await {
            Ok(answer) => break answer.into_inner().version,
            Err(_) => assert!(
                begun.elapsed() < stategate_tests::PATIENCE,
                "never reloaded"
            ),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert_eq!(version, 3, "both were written");
}
