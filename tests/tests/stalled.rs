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
    Clients, Form, Gateway, Options, PATIENCE, Role, alone, clients::everything,
    process::resident_bytes,
};
use tonic::Streaming;

/// Streams that nobody reads.
const STALLED: usize = 2_000;
/// Of one connection.
const SHARED: usize = 100;
/// Events of the log, and bytes of each: each stream alone could hold some megabytes of it.
const EVENTS: u16 = 4_000;
const BYTES: usize = 4_000;
/// Large events, and bytes of each.
const LARGE_EVENTS: u16 = 32;
const LARGE_BYTES: usize = 1_000_000;
/// Streams that nobody reads, over those.
const LARGE_STALLED: usize = 400;
/// Of one connection, so that each has some hundred kilobytes of the connection's window.
const LARGE_SHARED: usize = 10;
/// What all that catch up may hold together.
const BUDGET: u64 = 16 << 20;
/// What a stream may cost beside it, in an unoptimised build: what is on its way into its connection, its
/// task, and the buffers of HTTP/2.
const EACH: u64 = 160 << 10;

/// Writes so many events of so many bytes each, by several writers.
async fn fill(clients: &Clients, events: u16, bytes: usize) {
    const WRITERS: u16 = 8;
    assert_eq!(events % WRITERS, 0);
    let values = Object::from([("a".to_owned(), Value::from("x".repeat(bytes).as_str()))]);
    let values = Struct::from_object(&values);
    let write = |writer: u16| {
        let mut commands = clients.commands.clone();
        let values = values.clone();
        async move {
            for n in 0..events / WRITERS {
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
    join_all((0..WRITERS).map(write)).await;
}

fn from_the_beginning() -> pb::StreamOpts {
    everything(Some(Start::FromBeginning(true)))
}

/// Reads everything there is; answers how long that took.
async fn read(clients: &Clients, events: u16) -> Duration {
    let begun = Instant::now();
    let (_, mut stream) = clients.stream(from_the_beginning()).await.unwrap();
    take(&mut stream, 1, events).await;
    begun.elapsed()
}

/// Takes the events from one position to another.
async fn take(stream: &mut Streaming<pb::Event>, first: u16, last: u16) {
    for position in i64::from(first)..=i64::from(last) {
        let event = tokio::time::timeout(PATIENCE, stream.message()).await;
        let event = event.expect("a reader waits for ever").unwrap().unwrap();
        assert_eq!(event.position, position);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_that_never_read_hold_little_and_hold_up_nobody() {
    let _alone = alone().await;
    let options = Options::new(Form::One).env("STATEGATE_CATCHUP_BYTES", BUDGET.to_string());
    let mut gateway = Gateway::start(options).await;
    fill(&gateway.clients(), EVENTS, BYTES).await;
    let alone = read(&gateway.clients(), EVENTS)
        .await
        .min(read(&gateway.clients(), EVENTS).await);
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
    let beside = read(&gateway.clients(), EVENTS).await;
    let again = read(&gateway.clients(), EVENTS).await;
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
    take(&mut stream, 1, EVENTS).await;
    gateway.assert_no_errors();
}

/// A stream holds a piece of a large event and not the event, be it read of the storage or come live.
#[tokio::test(flavor = "multi_thread")]
async fn large_events_that_nobody_reads_are_held_in_pieces() {
    let _alone = alone().await;
    let options = Options::new(Form::One)
        .env("STATEGATE_CATCHUP_BYTES", BUDGET.to_string())
        .env("STATEGATE_TAIL_BYTES", BUDGET.to_string());
    let mut gateway = Gateway::start(options).await;
    let half = LARGE_EVENTS / 2;
    fill(&gateway.clients(), half, LARGE_BYTES).await;
    // What the process keeps of one that reads is there before, too.
    read(&gateway.clients(), half).await;
    let pid = gateway.process(Role::Stream).pid();
    let before = resident_bytes(pid);

    let connections: Vec<_> = (0..LARGE_STALLED / LARGE_SHARED)
        .map(|_| gateway.clients())
        .collect();
    let (mut past, mut live) = (Vec::new(), Vec::new());
    for clients in &connections {
        let past_ones = (0..LARGE_SHARED / 2).map(|_| clients.stream(from_the_beginning()));
        past.extend(try_join_all(past_ones).await.unwrap());
        let live_ones = (0..LARGE_SHARED / 2).map(|_| clients.stream(everything(None)));
        live.extend(try_join_all(live_ones).await.unwrap());
    }
    assert_eq!(past.len() + live.len(), LARGE_STALLED);
    fill(&gateway.clients(), half, LARGE_BYTES).await;
    // Those beside them get everything, and so all of them have come as far as they do.
    read(&gateway.clients(), LARGE_EVENTS).await;
    read(&gateway.clients(), LARGE_EVENTS).await;

    let process = gateway.process(Role::Stream);
    let held = process.metric("stategate_catchup_bytes").await;
    let grown = resident_bytes(pid).saturating_sub(before);
    println!(
        "{LARGE_STALLED} streams that never read events of {LARGE_BYTES} bytes: {} MiB more than before, {} KiB \
         each, {} KiB of pages",
        grown >> 20,
        (grown >> 10) / LARGE_STALLED as u64,
        held / 1024.0
    );
    assert!(held <= BUDGET as f64, "{held} bytes of pages");
    // Pages, the tail, and what both are made of meanwhile.
    let shared = 6 * BUDGET;
    let bound = shared + EACH * LARGE_STALLED as u64;
    assert!(
        bound < (LARGE_BYTES * LARGE_STALLED / 2) as u64,
        "as if each held its event"
    );
    assert!(grown <= bound, "{grown} bytes");

    let ((_, mut one), (_, mut other)) = (past.pop().unwrap(), live.pop().unwrap());
    drop((past, live));
    tokio::join!(
        take(&mut one, 1, LARGE_EVENTS),
        take(&mut other, half + 1, LARGE_EVENTS)
    );
    gateway.assert_no_errors();
}
