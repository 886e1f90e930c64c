//! Panics planted in every kind of task and thread: what the process cannot do without ends it, as a
//! failure and in good order, with true answers for those who wrote; everything else goes on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what a test is made of may fail it too"
)]

use serde_json::json;
use stategate_model::Token;
use stategate_protocol::pb::{self, stream_opts::Start};
use stategate_servers::{Broker as _, Redis};
use stategate_tests::{
    Ask, Clients, Form, Gateway, Log, Options, PATIENCE, Role, Store, alone,
    clients::{everything, reason},
    postgres,
    subscriber::take,
};
use tokio::{net::TcpStream, time::timeout};
use tonic::{Code, Status, Streaming};

/// Longer than any test waits to see why a process ends.
const GRACE_SECONDS: &str = "20";

/// A gateway in which one place of one process panics.
async fn planted(form: Form, store: Store, role: Role, plant: &str) -> Gateway {
    let options = Options::new(form).store(store);
    let options = options.env("STATEGATE_GRACE_SECONDS", GRACE_SECONDS);
    let mut gateway = Gateway::start(options).await;
    gateway.process(role).terminate();
    gateway.process(role).gone().await;
    let plant = format!("panic:{plant}");
    gateway
        .restart(role, &[("STATEGATE_TEST_PLANT", plant)])
        .await;
    gateway
}

/// A call whose request never comes to its end: as long as it is waited for, the process is there to say
/// why it ends.
struct Held {
    _request: h2::SendStream<bytes::Bytes>,
    _answer: h2::client::ResponseFuture,
}

impl Held {
    async fn at(gateway: &mut Gateway, role: Role) -> Self {
        let method = match role {
            Role::Everything | Role::Command => "EntityService/Set",
            Role::Query => "EntityService/Get",
            Role::Stream => "EventService/Stream",
        };
        let socket = TcpStream::connect(gateway.process(role).grpc())
            .await
            .unwrap();
        let (client, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        let request = http::Request::post(format!("http://stategate/stategate.{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (_answer, _request) = client.send_request(request, false).unwrap();
        Self { _request, _answer }
    }
}

/// Waits until the process has said why it ends, and has ended as a failure.
async fn fails(gateway: &mut Gateway, role: Role, held: Held, why: &str) {
    let process = gateway.process(role);
    process
        .readiness(false, |said| {
            said.starts_with("not ready\nending: ") && said.contains(why)
        })
        .await;
    drop(held);
    let status = process.gone().await;
    assert_eq!(status.code(), Some(1), "{status}");
    // Once, under an id, and as what it is.
    let panics: Vec<String> = process
        .errors()
        .into_iter()
        .filter(|line| line.contains("planted: "))
        .collect();
    assert_eq!(panics.len(), 1, "{panics:#?}");
    let line: serde_json::Value = serde_json::from_str(&panics[0]).unwrap();
    assert!(
        line["error.id"].as_str().is_some_and(|id| id.len() == 36),
        "{line}"
    );
    let last = process.last_words();
    assert!(last.contains(why), "{last}");
}

fn search() -> pb::SearchEntityOpts {
    pb::SearchEntityOpts {
        domain: "d".to_owned(),
        r#type: "t".to_owned(),
        ..pb::SearchEntityOpts::default()
    }
}

/// The end of a stream, after what came before it.
async fn end_of(stream: &mut Streaming<pb::Event>, token: &mut Token) -> Status {
    let mut delivered = Vec::new();
    loop {
        let next = timeout(PATIENCE, stream.message()).await;
        match next.expect("the stream moves") {
            Ok(Some(event)) => take(event, token, &mut delivered),
            Ok(None) => panic!("a stream that is cut says so"),
            Err(status) => return status,
        }
    }
}

fn assert_resumable(status: &Status) {
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(reason(status).as_deref(), Some("SHUTTING_DOWN"), "{status}");
}

async fn resumes(clients: &Clients, token: &Token, key: &str) {
    let opts = everything(Some(Start::After(token.to_string())));
    let (_, mut stream) = clients.stream(opts).await.expect("resume");
    loop {
        let event = timeout(PATIENCE, stream.message()).await.expect("an event");
        let event = event.unwrap().unwrap();
        if event.entity.unwrap().key == key {
            return;
        }
    }
}

async fn a_lane_dies(form: Form, store: Store, step: &str, expected: &str, is_written: bool) {
    let mut gateway = planted(form, store, Role::Command, &format!("lane-{step}:3")).await;
    let ask = Ask::new(&mut gateway);
    let clients = gateway.clients();
    let (mut token, mut stream) = clients.stream(everything(None)).await.unwrap();
    ask.set("d/t/a", "{}").await.unwrap();
    ask.set("d/t/b", "{}").await.unwrap();
    let held = Held::at(&mut gateway, Role::Command).await;
    let cut = ask.set("d/t/c", "{}").await.unwrap_err();
    assert_eq!(reason(&cut).as_deref(), Some(expected), "{cut}");
    fails(&mut gateway, Role::Command, held, "the writer of lane 0").await;
    if gateway.is_one_process() {
        assert_resumable(&end_of(&mut stream, &mut token).await);
    }
    gateway.restart(Role::Command, &[]).await;
    let (clients, ask) = (gateway.clients(), Ask::new(&mut gateway));
    assert_eq!(
        Log::read(&clients).await.len(),
        if is_written { 3 } else { 2 }
    );
    ask.set("d/t/d", "{}").await.unwrap();
    resumes(&clients, &token, "d").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_whose_writer_panics_is_no_permanent_refusal() {
    let _alone = alone().await;
    for form in [Form::One, Form::Three] {
        a_lane_dies(form, Store::Sqlite, "decided", "SHUTTING_DOWN", false).await;
        a_lane_dies(form, Store::Sqlite, "appended", "OUTCOME_UNKNOWN", true).await;
    }
    if let Some(store) = postgres("a lane that dies on PostgreSQL") {
        a_lane_dies(Form::Three, store, "appended", "OUTCOME_UNKNOWN", true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_do_not_freeze_when_the_follower_panics() {
    let _alone = alone().await;
    for form in [Form::One, Form::Three] {
        let mut gateway = planted(form, Store::Sqlite, Role::Stream, "follower-look").await;
        let ask = Ask::new(&mut gateway);
        ask.set("d/t/a", "{}").await.unwrap();
        let held = Held::at(&mut gateway, Role::Stream).await;
        let clients = gateway.clients();
        let (mut token, mut stream) = clients.stream(everything(None)).await.unwrap();
        assert_resumable(&end_of(&mut stream, &mut token).await);
        fails(
            &mut gateway,
            Role::Stream,
            held,
            "the follower of the log panicked",
        )
        .await;
        if form == Form::Three {
            for role in [Role::Command, Role::Query] {
                gateway.process(role).readiness(true, |_| true).await;
            }
        }
        gateway.restart(Role::Stream, &[]).await;
        Ask::new(&mut gateway).set("d/t/b", "{}").await.unwrap();
        resumes(&gateway.clients(), &token, "b").await;
    }
}

/// A thread of the SQLite storage dies outside of any one call: nobody is left waiting, and the process
/// that had it ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_thread_of_the_storage_that_dies_ends_the_process() {
    let _alone = alone().await;
    for (plant, role) in [
        ("sqlite-writer:3", Role::Command),
        ("sqlite-checkpoint", Role::Command),
        ("sqlite-reader:20", Role::Query),
        ("sqlite-search", Role::Query),
        ("sqlite-log", Role::Stream),
    ] {
        for form in [Form::One, Form::Three] {
            let mut gateway = planted(form, Store::Sqlite, role, plant).await;
            let mut ask = Ask::new(&mut gateway);
            let held = Held::at(&mut gateway, role).await;
            let large = json!({ "text": "x".repeat(900_000) }).to_string();
            let mut acknowledged = 0;
            for n in 0..60 {
                let written = match plant {
                    "sqlite-checkpoint" => ask.set(&format!("d/t/k{n}"), &large).await,
                    _ => ask.set(&format!("d/t/k{n}"), "{}").await,
                };
                acknowledged += usize::from(written.is_ok());
                let looked = match plant {
                    "sqlite-search" => ask.search(search()).await.err(),
                    "sqlite-log" => match ask
                        .stream(everything(Some(Start::FromBeginning(true))))
                        .await
                    {
                        Ok(mut stream) => stream.message().await.err(),
                        Err(status) => Some(status),
                    },
                    _ => ask.get("d/t/k0").await.err(),
                };
                let is_over =
                    |status: &Status| reason(status).as_deref() != Some("ENTITY_NOT_FOUND");
                if written.is_err() || looked.is_some_and(|status| is_over(&status)) {
                    break;
                }
            }
            fails(&mut gateway, role, held, "").await;
            gateway.restart(role, &[]).await;
            ask = Ask::new(&mut gateway);
            ask.set("d/t/after", "{}").await.unwrap();
            let log = Log::read(&gateway.clients()).await;
            assert!(
                log.len() > acknowledged,
                "{plant}: {} of {acknowledged}",
                log.len()
            );
        }
    }
}

/// The id that an internal error is told by.
fn id_of(told: &Status) -> &str {
    let id = told.message().split(' ').nth(2).unwrap();
    id.trim_end_matches(';')
}

/// A call that panics within the storage costs its caller the answer, under the id in the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_panics_is_its_callers_problem_alone() {
    let _alone = alone().await;
    let mut stores = vec![(Store::Sqlite, "get")];
    stores
        .extend(postgres("a read that panics on PostgreSQL").map(|store| (store, "postgres-get")));
    for (store, plant) in stores {
        let mut gateway = planted(Form::One, store, Role::Everything, plant).await;
        let ask = Ask::new(&mut gateway);
        ask.set("d/t/k", "{}").await.unwrap();
        let refused = ask.get("d/t/k").await.unwrap_err();
        assert_eq!(refused.code(), Code::Internal, "{refused}");
        let process = gateway.process(Role::Everything);
        let is_the_panic =
            |line: &str| line.contains("planted: ") && line.contains(id_of(&refused));
        process.line(0, "logs the panic", is_the_panic).await;
        assert_eq!(process.errors().len(), 1, "{:#?}", process.errors());
        ask.get("d/t/k").await.unwrap();
        ask.set("d/t/k", "{}").await.unwrap();
        let process = gateway.process(Role::Everything);
        process.readiness(true, |said| said == "ready\n").await;
    }
}

/// A task of a stream that panics costs the stream its end, under the id that the panic has in the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_catch_up_that_panics_is_told_by_the_id_of_the_panic() {
    let _alone = alone().await;
    let mut gateway = planted(Form::One, Store::Sqlite, Role::Everything, "catch-up").await;
    let ask = Ask::new(&mut gateway);
    ask.set("d/t/k", "{}").await.unwrap();
    let clients = gateway.clients();
    let beginning = || everything(Some(Start::FromBeginning(true)));
    let (mut token, mut stream) = clients.stream(beginning()).await.unwrap();
    let end = end_of(&mut stream, &mut token).await;
    assert_eq!(end.code(), Code::Internal, "{end}");
    let process = gateway.process(Role::Everything);
    let is_the_panic = |line: &str| line.contains("planted: ") && line.contains(id_of(&end));
    process.line(0, "logs the panic", is_the_panic).await;
    assert_eq!(process.errors().len(), 1, "{:#?}", process.errors());
    let (_, mut stream) = clients.stream(beginning()).await.unwrap();
    assert!(stream.message().await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_point_reads_that_dies_ends_the_process() {
    let _alone = alone().await;
    let Some(store) = postgres("a worker that dies on PostgreSQL") else {
        return;
    };
    for form in [Form::One, Form::Three] {
        let mut gateway = planted(form, store.clone(), Role::Query, "postgres-gets").await;
        let ask = Ask::new(&mut gateway);
        ask.set("d/t/k", "{}").await.unwrap();
        let held = Held::at(&mut gateway, Role::Query).await;
        let refused = ask.get("d/t/k").await.unwrap_err();
        assert_eq!(refused.code(), Code::Internal, "{refused}");
        fails(
            &mut gateway,
            Role::Query,
            held,
            "storage: has ended a part of itself",
        )
        .await;
    }
}

/// Settings that weaken an acknowledgement are looked at for as long as there are acknowledgements.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_settings_that_dies_ends_the_process() {
    let _alone = alone().await;
    let Some(store) = postgres("a watch of settings that dies on PostgreSQL") else {
        return;
    };
    let role = Role::Everything;
    let mut gateway = planted(Form::One, store, role, "postgres-watch").await;
    let held = Held::at(&mut gateway, role).await;
    fails(
        &mut gateway,
        role,
        held,
        "storage: has ended a part of itself",
    )
    .await;
}

/// What carries hints is started again, and streams miss nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_carries_hints_goes_on_after_a_panic() {
    let _alone = alone().await;
    let mut cases = vec![("publisher:2", None)];
    let redis = Redis::start();
    match &redis {
        Ok(redis) => {
            let channel = json!({"name": "redis", "addr": redis.url()});
            cases.push(("channel-sending:2", Some(channel.clone())));
            cases.push(("channel-listening:2", Some(channel)));
        }
        Err(missing) => missing.report("a channel that panics"),
    }
    for (plant, channel) in cases {
        let mut options =
            Options::new(Form::One).env("STATEGATE_TEST_PLANT", format!("panic:{plant}"));
        if let Some(channel) = channel {
            options = Options {
                form: Form::Three,
                ..options.env("STATEGATE_CHANNEL_PROVIDER", channel.to_string())
            };
        }
        let mut gateway = Gateway::start(options).await;
        let ask = Ask::new(&mut gateway);
        let (_, mut stream) = gateway.clients().stream(everything(None)).await.unwrap();
        for n in 0..8 {
            ask.set(&format!("d/t/k{n}"), "{}").await.unwrap();
            let event = timeout(PATIENCE, stream.message()).await.expect("an event");
            assert_eq!(event.unwrap().unwrap().entity.unwrap().key, format!("k{n}"));
        }
        for role in [Role::Command, Role::Stream] {
            let process = gateway.process(role);
            assert!(process.is_running());
            process.readiness(true, |said| said == "ready\n").await;
        }
        let planted = [Role::Command, Role::Stream]
            .iter()
            .any(|role| !gateway.process(*role).errors().is_empty());
        assert!(planted, "{plant} was never passed");
    }
}
