//! What policies and tokens mean for streams that are open.

use serde_json::json;
use stategate_protocol::pb;
use stategate_tests::{Ask, Form, Gateway, Issuer, Options, Role, issuer::now};
use tonic::Code;

use super::{ALL, of};

fn everything() -> pb::StreamOpts {
    pb::StreamOpts {
        domain: "*".to_owned(),
        r#type: "*".to_owned(),
        ..pb::StreamOpts::default()
    }
}

/// The key of the next event of a stream.
async fn next(stream: &mut stategate_tests::ask::Subscription) -> String {
    stream.next().await.entity.unwrap().key
}

#[tokio::test]
async fn subscribers_see_their_own_events_live_and_from_the_past() {
    for form in [Form::One, Form::Three] {
        let issuer = Issuer::new();
        let own = "allow if input.method != \"/stategate.EventService/Stream\"\n\
                   allow if input.body.entity.domain == input.claims.tenant";
        let mut gateway = Gateway::start(Options::new(form).protected(&issuer, ALL, own)).await;
        let ask = Ask::new(&mut gateway);
        let acme = ask.bearing(&of(&issuer, "acme", "ada"));
        let globex = ask.bearing(&of(&issuer, "globex", "bob"));
        let mut live = [
            acme.stream(everything()).await.unwrap(),
            globex.stream(everything()).await.unwrap(),
        ];
        for n in 0..20 {
            acme.set(&format!("acme/user/a{n}"), "{}").await.unwrap();
            acme.set(&format!("globex/user/g{n}"), "{}").await.unwrap();
        }
        let past = || pb::StreamOpts {
            start: Some(pb::stream_opts::Start::FromBeginning(true)),
            ..everything()
        };
        let mut replayed = [
            acme.stream(past()).await.unwrap(),
            globex.stream(past()).await.unwrap(),
        ];
        for streams in [&mut live, &mut replayed] {
            let [of_acme, of_globex] = streams;
            for n in 0..20 {
                assert_eq!(next(of_acme).await, format!("a{n}"));
                assert_eq!(next(of_globex).await, format!("g{n}"));
            }
        }
        let metrics = gateway
            .process(Role::Stream)
            .http("/metrics")
            .await
            .unwrap();
        let denied = metrics
            .lines()
            .find_map(|line| line.strip_prefix("stategate_events_denied_total "));
        assert_eq!(
            denied,
            Some("80"),
            "two subscribers twice, twenty events each"
        );
        gateway.assert_no_errors();
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let issuer = Issuer::new();
    let mut gateway = Gateway::start(Options::new(Form::Three).protected(&issuer, ALL, ALL)).await;
    let ask = Ask::new(&mut gateway);
    // The leeway is 30 s.
    let token = issuer.token(&json!({"sub": "ada", "exp": now() - 27}));
    let ask = ask.bearing(&token);
    let mut stream = ask.stream(everything()).await.unwrap();
    let ended = stream.message().await.unwrap_err();
    assert_eq!(ended.code(), Code::Unauthenticated);
    assert_eq!(
        ask.get("d/t/k").await.unwrap_err().code(),
        Code::Unauthenticated
    );
}

#[tokio::test]
async fn replaced_policies_apply_to_open_streams() {
    let issuer = Issuer::new();
    let mut gateway = Gateway::start(Options::new(Form::Three).protected(&issuer, ALL, ALL)).await;
    let ask = Ask::new(&mut gateway).bearing(&of(&issuer, "acme", "ada"));
    let guest = ask.with("x-role", "guest");
    let mut stream = guest.stream(everything()).await.unwrap();
    ask.set("acme/user/first", "{}").await.unwrap();
    assert_eq!(next(&mut stream).await, "first");
    // Half of a file changes nothing.
    issuer.file("response.rego", "package stategate.authz\nallow if {");
    let process = gateway.process(Role::Stream);
    process
        .line(0, "refuses it", |line| line.contains("not accepted"))
        .await;
    ask.set("acme/user/second", "{}").await.unwrap();
    assert_eq!(next(&mut stream).await, "second");
    let from = process.written();
    issuer.file("response.rego", "package stategate.authz\nallow if input.body.entity.key != \"third\"\nallow if input.method == \"/stategate.EntityService/Set\"");
    process
        .line(from, "puts it in force", |line| line.contains("in force"))
        .await;
    ask.set("acme/user/third", "{}").await.ok();
    ask.set("acme/user/fourth", "{}").await.ok();
    assert_eq!(next(&mut stream).await, "fourth");
    // Nor may a stream go on that would not be permitted any more, though nothing happens on it. This policy looks at a
    // header, which the one before did not.
    issuer.file(
        "request.rego",
        "package stategate.authz\nguest if input.metadata[\"x-role\"] == \"guest\"\nallow if not guest",
    );
    let ended = stream.message().await.unwrap_err();
    assert_eq!(ended.code(), Code::PermissionDenied);
}
