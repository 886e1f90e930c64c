//! Subscribers that read the log from its beginning and never take what they are sent: their memory is
//! bounded for all of them together, and they keep nobody else from reading (invariant I7).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use stategate_model::{Object, Value};
use stategate_protocol::{
    Struct,
    pb::{self, stream_opts::Start},
};
use stategate_tests::{
    Clients, Form, Gateway, Options, PATIENCE, Role, clients::everything, process::resident_bytes,
};

/// Streams that nobody reads.
const STALLED: usize = 2_000;
/// Of one connection.
const SHARED: usize = 100;
/// Events of the log, and bytes of each: each stream alone could hold some megabytes of it.
const EVENTS: u16 = 4_000;
const BYTES: usize = 4_000;
/// What all that catch up may hold together.
const BUDGET: u64 = 16 << 20;
/// What a stream may cost beside it, in an unoptimised build: what is on its way into its connection, its
/// task, and the buffers of HTTP/2.
const EACH: u64 = 160 << 10;

async fn fill(clients: &Clients) {
    let values = Object::from([("a".to_owned(), Value::from("x".repeat(BYTES).as_str()))]);
    let values = Struct::from_object(&values);
    let write = |writer: usize| {
        let mut commands = clients.commands.clone();
        let values = values.clone();
        async move {
            for n in 0..EVENTS / 32 {
                let entity = pb::Entity {
                    domain: "d".to_owned(),
                    r#type: "t".to_owned(),
                    key: format!("k{writer}-{n}"),
                    values: Some(values.clone()),
                    ..pb::Entity::default()
                };
                commands.set(entity).await.unwrap();
            }
        }
    };
    join_all((0..32).map(write)).await;
}

fn from_the_beginning() -> pb::StreamOpts {
    everything(Some(Start::FromBeginning(true)))
}

/// Reads everything there is; answers how long that took.
async fn read(clients: &Clients) -> Duration {
    let begun = Instant::now();
    let (_, mut stream) = clients.stream(from_the_beginning()).await.unwrap();
    for position in 1..=i64::from(EVENTS) {
        let event = tokio::time::timeout(PATIENCE, stream.message()).await;
        let event = event.expect("a reader waits for ever").unwrap().unwrap();
        assert_eq!(event.position, position);
    }
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_that_never_read_hold_little_and_hold_up_nobody() {
    let options = Options::new(Form::One).env("STATEGATE_CATCHUP_BYTES", BUDGET.to_string());
    let mut gateway = Gateway::start(options).await;
    fill(&gateway.clients()).await;
    let alone = read(&gateway.clients())
        .await
        .min(read(&gateway.clients()).await);
    let pid = gateway.process(Role::Stream).pid();
    let before = resident_bytes(pid);

    let connections: Vec<_> = (0..STALLED / SHARED).map(|_| gateway.clients()).collect();
    let mut streams = Vec::new();
    for clients in &connections {
        // The headers come, and then nobody reads.
        let subscribe = (0..SHARED).map(|_| clients.stream(from_the_beginning()));
        streams.extend(try_join_all(subscribe).await.unwrap());
    }
    assert_eq!(streams.len(), STALLED);
    let process = gateway.process(Role::Stream);
    let begun = Instant::now();
    // Each of them has read what it could: together more than there is room for.
    while process
        .metric("stategate_catchup_pages_dropped_total")
        .await
        == 0.0
    {
        assert!(begun.elapsed() < PATIENCE, "nobody ever needed room");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let beside = read(&gateway.clients()).await;
    let again = read(&gateway.clients()).await;
    let beside = beside.min(again);

    let process = gateway.process(Role::Stream);
    let held = process.metric("stategate_catchup_bytes").await;
    let grown = resident_bytes(pid).saturating_sub(before);
    println!(
        "{STALLED} streams that never read: {} MiB more than before, {} KiB each, {} KiB of pages; \
         a reader took {alone:.1?} alone and {beside:.1?} beside them",
        grown >> 20,
        (grown >> 10) / STALLED as u64,
        held / 1024.0
    );
    assert!(held <= BUDGET as f64, "{held} bytes of pages");
    assert!(grown <= 2 * BUDGET + EACH * STALLED as u64, "{grown} bytes");
    assert!(
        beside < 10 * alone + Duration::from_secs(2),
        "{beside:?} beside them, {alone:?} alone"
    );

    // They were only not read: one goes on where it is. What the others of its connection were sent and did not
    // take would keep the connection's window closed.
    let (_, mut stream) = streams.pop().unwrap();
    drop(streams);
    for position in 1..=i64::from(EVENTS) {
        let event = tokio::time::timeout(PATIENCE, stream.message()).await;
        assert_eq!(event.unwrap().unwrap().unwrap().position, position);
    }
    gateway.assert_no_errors();
}
