//! Streams under writers: replay and live are one stream, and a slow subscriber is nobody else's
//! problem (invariants I4, I5 and I7).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what a test is made of may fail it too"
)]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use stategate_model::{EntityRef, Method, Object, Position, Token, Value};
use stategate_protocol::{
    Struct,
    event::PROGRESS,
    pb::{self, stream_opts::Start},
};
use stategate_tests::{
    Clients, Cut, Event, Form, Gateway, Log, Mix, Options, PATIENCE, Role, Selection, Subscriber,
    Tail, Writers, alone,
    check::{self, Delivered, Due},
    clients::{everything, request},
    process::resident_bytes,
    scale,
    subscriber::take,
    workload::Recent,
};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tonic::Streaming;

const WRITERS: usize = 16;
/// How long a subscriber stays before it leaves and comes back.
const STAY: std::ops::Range<Duration> = Duration::from_millis(50)..Duration::from_millis(400);

fn opts(domain: &str, kind: &str, key: &str) -> pb::StreamOpts {
    pb::StreamOpts {
        domain: domain.to_owned(),
        r#type: kind.to_owned(),
        key: key.to_owned(),
        ..pb::StreamOpts::default()
    }
}

/// Subscriptions of all kinds, each with what it means.
fn selections() -> Vec<Selection> {
    let mut selections = vec![
        Selection::new(opts("*", "*", ""), |_| true),
        Selection::new(opts("domain-3", "*", "*"), |event| {
            event.entity.domain() == "domain-3"
        }),
        Selection::new(opts("domain-[02]", "thing", ""), |event| {
            ["domain-0", "domain-2"].contains(&event.entity.domain())
        }),
        Selection::new(opts("*", "th?ng", "shared-{1,4}"), |event| {
            ["shared-1", "shared-4"].contains(&event.entity.key())
        }),
        Selection::new(opts("domain-1", "thing", "shared-0"), |event| {
            event.entity.domain() == "domain-1" && event.entity.key() == "shared-0"
        }),
        Selection::new(opts("domain-5", "thing", "own-2-*"), |event| {
            event.entity.domain() == "domain-5" && event.entity.key().starts_with("own-2-")
        }),
        Selection::new(opts("*", "nothing", ""), |_| false),
    ];
    let positive = r#"{"entity.values.number": {"$gt": 0}}"#;
    selections.push(Selection::new(
        pb::StreamOpts {
            query_string: positive.to_owned(),
            ..opts("*", "*", "")
        },
        |event| matches!(event.values.get("number"), Some(Value::Number(number)) if *number > 0.0),
    ));
    selections.push(Selection::new(
        pb::StreamOpts {
            methods: vec![
                Method::Del.as_str().to_owned(),
                Method::Revert.as_str().to_owned(),
            ],
            progress: true,
            ..opts("*", "*", "")
        },
        |event| matches!(event.method, Method::Del | Method::Revert),
    ));
    selections
}

async fn reconnecting(form: Form, lanes: u8, reconnects: usize) -> usize {
    let begun = Instant::now();
    let gateway = Arc::new(Gateway::start(Options::new(form).lanes(lanes)).await);
    let recent = Arc::<Recent>::default();
    let tail = Tail::start(&gateway.clients(), &recent).await;
    let mut subscribers = Vec::new();
    for (seed, selection) in (0..).zip([selections(), selections()].concat()) {
        let gateway = Arc::clone(&gateway);
        let clients = move || gateway.clients();
        subscribers.push(Subscriber::start(clients, selection, STAY, Cut::Fails, seed).await);
    }
    let writers = Writers::start(|| gateway.clients(), WRITERS, &Mix::small(), &recent, 7);
    let count = |subscribers: &[Subscriber]| -> usize {
        subscribers.iter().map(Subscriber::reconnects).sum()
    };
    while count(&subscribers) < reconnects {
        writers.reach(writers.acknowledged() + 100).await;
    }
    let came_back = count(&subscribers);
    let writes = writers.finish().await;

    let clients = gateway.clients();
    let log = Log::read(&clients).await;
    let mut findings = check::history(&writes, &log);
    findings.extend(tail.finish(&log).await.check(&log, Due::All));
    let mut delivered = 0;
    for subscriber in subscribers {
        let (count, found) = subscriber.finish(&log).await;
        delivered += count;
        findings.extend(found);
    }
    check::assert_none(&findings);
    gateway.assert_no_errors();
    println!(
        "{form}, {lanes} lanes: {came_back} reconnects, {delivered} events delivered of a log of {}, {:.1?}",
        log.len(),
        begun.elapsed()
    );
    assert!(
        log.len() >= reconnects,
        "{} events prove too little",
        log.len()
    );
    came_back
}

#[tokio::test(flavor = "multi_thread")]
async fn reconnecting_subscribers_miss_and_repeat_nothing() {
    let _alone = alone().await;
    let mut reconnects = 0;
    for (form, lanes) in [
        (Form::One, 1),
        (Form::One, 8),
        (Form::Three, 1),
        (Form::Three, 8),
    ] {
        reconnects += reconnecting(form, lanes, scale(200, 2_500)).await;
    }
    println!("in all: {reconnects} reconnects");
    assert!(
        reconnects >= scale(500, 10_000),
        "{reconnects} reconnects prove too little"
    );
}

/// Now, in nanoseconds, as a number that values hold to a fraction of a microsecond.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

/// Sets that say when they were sent.
async fn timed_sets(gateway: &Gateway, writers: usize, sets: usize, bytes: usize) {
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let mut commands = gateway.clients().commands;
        tasks.spawn(async move {
            let text = "x".repeat(bytes);
            for set in (writer..sets).step_by(writers) {
                let values = Object::from([
                    ("sent".to_owned(), Value::Number(now())),
                    ("text".to_owned(), Value::String(text.clone())),
                ]);
                let entity = pb::Entity {
                    domain: "large".to_owned(),
                    r#type: "thing".to_owned(),
                    key: format!("key-{}", set % 64),
                    values: Some(Struct::Tree(values)),
                    ..pb::Entity::default()
                };
                commands.set(request(entity)).await.expect("a set");
            }
        });
    }
    tasks.join_all().await;
}

/// A subscriber that keeps up and notes how old each event is when it comes.
struct Watcher {
    ages: Arc<Mutex<Vec<Duration>>>,
    task: JoinHandle<()>,
}

impl Watcher {
    async fn start(clients: &Clients) -> Self {
        let (_, mut stream) = clients.stream(everything(None)).await.expect("subscribe");
        let ages = Arc::<Mutex<Vec<Duration>>>::default();
        let noted = Arc::clone(&ages);
        let task = tokio::spawn(async move {
            while let Some(message) = stream.message().await.expect("a stream that goes on") {
                let values = message.entity.and_then(|entity| entity.values);
                let sent = values.expect("values").into_object().remove("sent");
                let Some(Value::Number(sent)) = sent else {
                    panic!("no time in {sent:?}");
                };
                let age = Duration::from_secs_f64((now() - sent).max(0.0));
                noted.lock().unwrap().push(age);
            }
        });
        Self { ages, task }
    }

    /// The ages of `count` events, which are all there are.
    async fn ages(&self, count: usize) -> Vec<Duration> {
        let begun = Instant::now();
        while self.ages.lock().unwrap().len() < count {
            assert!(begun.elapsed() < PATIENCE, "events are missing");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut ages = std::mem::take(&mut *self.ages.lock().unwrap());
        assert_eq!(ages.len(), count);
        ages.sort();
        ages
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn p99(ages: &[Duration]) -> Duration {
    ages[ages.len() * 99 / 100]
}

/// Reads a stream that stood still up to the head of the log.
async fn read_on(mut stream: Streaming<pb::Event>, start: &Token, log: &Log) -> Vec<Delivered> {
    let (mut token, mut delivered) = (start.clone(), Vec::new());
    let due = check::due(start, log, &|_| true);
    while delivered.len() < due {
        let next = timeout(PATIENCE, stream.message()).await;
        let next = next.unwrap_or_else(|_| panic!("{} of {due} events", delivered.len()));
        let message = next.expect("a stream that goes on").expect("another event");
        take(message, &mut token, &mut delivered);
    }
    delivered
}

async fn stalled(form: Form) {
    const BYTES: usize = 64 << 10;
    const STALLED: usize = 8;
    let begun = Instant::now();
    let sets = scale(3_300, 16_000);
    let mut gateway = Gateway::start(Options::new(form)).await;
    let watchers = [
        Watcher::start(&gateway.clients()).await,
        Watcher::start(&gateway.clients()).await,
    ];

    // Caches and the tail fill up first: what is measured is what stalled subscribers add.
    timed_sets(&gateway, 4, sets / 2, BYTES).await;
    for watcher in &watchers {
        watcher.ages(sets / 2).await;
    }
    timed_sets(&gateway, 4, sets / 2, BYTES).await;
    let mut before = Vec::new();
    for watcher in &watchers {
        before.push(p99(&watcher.ages(sets / 2).await));
    }
    let behind = "stategate_subscriptions_fell_behind_total";
    let process = gateway.process(Role::Stream);
    let (memory, fell) = (process.resident_bytes(), process.metric(behind).await);

    let mut standing = Vec::new();
    for _ in 0..STALLED {
        // A connection of its own, which nobody reads from either.
        let clients = gateway.clients();
        standing.push((
            clients.stream(everything(None)).await.expect("subscribe"),
            clients,
        ));
    }
    let process = gateway.process(Role::Stream);
    let pid = process.pid();
    let most = Arc::new(AtomicU64::new(0));
    let sampler = tokio::spawn({
        let most = Arc::clone(&most);
        async move {
            loop {
                most.fetch_max(resident_bytes(pid), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
    timed_sets(&gateway, 4, sets, BYTES).await;
    let mut during = Vec::new();
    for watcher in &watchers {
        during.push(p99(&watcher.ages(sets).await));
    }
    sampler.abort();
    let grown = most.load(Ordering::Relaxed).saturating_sub(memory);
    let fell = gateway.process(Role::Stream).metric(behind).await - fell;

    let log = Log::read(&gateway.clients()).await;
    let mut readers = JoinSet::new();
    for ((start, stream), clients) in standing {
        let log = log.clone();
        readers.spawn(async move {
            let delivered = read_on(stream, &start, &log).await;
            drop(clients);
            check::delivery(
                "a stalled one",
                &delivered,
                &start,
                &log,
                &|_| true,
                Due::All,
            )
        });
    }
    let findings = readers.join_all().await.concat();
    check::assert_none(&findings);
    gateway.assert_no_errors();
    let written = sets * BYTES;
    println!(
        "{form}: {STALLED} stalled subscribers, {} MB of events meanwhile; p99 of the others {before:.1?} before, \
         {during:.1?} during; memory grew by {} MB from {} MB; {fell} subscribers moved to the storage; then all got \
         {sets} events each in order, {:.1?}",
        written >> 20,
        grown >> 20,
        memory >> 20,
        begun.elapsed()
    );
    assert!(written > 200 << 20, "{written} bytes prove too little");
    assert!(grown < 150 << 20, "memory grew by {grown} bytes");
    assert!(
        fell >= STALLED as f64,
        "only {fell} subscribers fell behind"
    );
    let (before, during) = (before.iter().max().unwrap(), during.iter().max().unwrap());
    assert!(
        *during < 3 * *before + Duration::from_millis(100),
        "{before:?} became {during:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_subscriber_costs_nobody_else_anything() {
    let _alone = alone().await;
    stalled(Form::One).await;
    stalled(Form::Three).await;
}

/// Events that a subscriber catching up reads between two looks at where it is.
const CATCH_UP: usize = 500;

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_subscriber_reads_the_storage_and_misses_nothing() {
    let _alone = alone().await;
    let mut gateway = Gateway::start(Options::new(Form::One).lanes(2)).await;
    let recent = Arc::<Recent>::default();
    let (start, mut stream) = gateway.clients().stream(everything(None)).await.unwrap();
    let mix = Mix::large(8 << 10);
    let writers = Writers::start(|| gateway.clients(), WRITERS, &mix, &recent, 3);
    let (mut token, mut delivered) = (start.clone(), Vec::new());
    let metric = "stategate_subscriptions_fell_behind_total";
    let begun = Instant::now();
    // One event to every hundred written, until it has fallen behind twice.
    let mut fell = 0.0;
    while fell < 2.0 {
        assert!(begun.elapsed() < 2 * PATIENCE, "it never fell behind");
        writers.reach(writers.acknowledged() + 100).await;
        let message = timeout(PATIENCE, stream.message()).await.expect("an event");
        take(message.unwrap().unwrap(), &mut token, &mut delivered);
        let process = gateway.process(Role::Stream);
        fell = process.metric(metric).await;
        if fell == 1.0 {
            // Off the tail: let it catch up, so that it can fall behind once more. It reads much
            // between two looks, or the writers would stay ahead of it.
            while process.metric("stategate_subscriptions_live").await < 1.0 {
                for _ in 0..CATCH_UP {
                    let message = timeout(PATIENCE, stream.message()).await.expect("an event");
                    take(message.unwrap().unwrap(), &mut token, &mut delivered);
                }
            }
        }
    }
    let slow = delivered.len();
    let writes = writers.finish().await;
    let log = Log::read(&gateway.clients()).await;
    delivered.extend(read_on(stream, &token, &log).await);
    let mut findings = check::history(&writes, &log);
    let all = check::delivery("a slow one", &delivered, &start, &log, &|_| true, Due::All);
    findings.extend(all);
    check::assert_none(&findings);
    println!(
        "a slow subscriber fell behind {fell} times, {slow} of {} events were read meanwhile",
        delivered.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_start_where_they_are_asked_to() {
    let _alone = alone().await;
    let gateway = Gateway::start(Options::new(Form::Three).lanes(4)).await;
    let clients = gateway.clients();
    let recent = Arc::<Recent>::default();
    let tail = Tail::start(&clients, &recent).await;
    let writers = Writers::start(|| gateway.clients(), WRITERS, &Mix::small(), &recent, 11);
    writers.reach(scale(2_000, 50_000)).await;
    let writes = writers.finish().await;

    // From the beginning it is the log, which the log by other ways confirms.
    let log = Log::read(&clients).await;
    let mut findings = check::everything(&clients, &writes, &log).await;
    findings.extend(tail.finish(&log).await.check(&log, Due::All));

    // Since a time: the events of that time and later, in every lane.
    let mut times: Vec<i64> = log.events().map(|event| event.time).collect();
    times.sort_unstable();
    let chosen = [0, times.len() / 3, times.len() / 2, times.len() - 1].map(|at| times[at]);
    let since = [
        -5,
        0,
        1,
        chosen[0],
        chosen[1],
        chosen[1] + 1,
        chosen[2],
        chosen[3],
    ];
    let mut replayed = 0;
    for since in since {
        let start = everything(Some(Start::Since(since)));
        let (token, stream) = clients.stream(start).await.expect("subscribe");
        let delivered = read_on(stream, &token, &log).await;
        replayed += delivered.len();
        let mut beginning = token.clone();
        for lane in &log.lanes {
            let Some(first) = lane.first() else { continue };
            let earlier = lane.iter().filter(|event| event.time < since).count();
            let expected = Position::new(earlier as u64);
            assert_eq!(token.get(first.lane), Some(expected), "since {since}");
            beginning.advance(first.lane, expected);
        }
        let name = format!("since {since}");
        findings.extend(check::delivery(
            &name,
            &delivered,
            &beginning,
            &log,
            &|event| event.time >= since,
            Due::All,
        ));
    }
    check::assert_none(&findings);

    // Progress: whoever gets nothing learns how far it is, in every lane.
    let silent = pb::StreamOpts {
        progress: true,
        start: Some(Start::FromBeginning(true)),
        ..opts("*", "nothing", "")
    };
    let (mut token, mut stream) = clients.stream(silent).await.expect("subscribe");
    let begun = Instant::now();
    while token != log.heads {
        let next = timeout(PATIENCE, stream.message()).await.expect("progress");
        let message = next.unwrap().unwrap();
        assert_eq!(
            (message.method.as_str(), message.id.as_str()),
            (PROGRESS, "")
        );
        assert!(message.entity.is_none());
        take(message, &mut token, &mut Vec::new());
        let waited = begun.elapsed();
        assert!(
            waited < Duration::from_secs(15),
            "only at {token} after {waited:?}"
        );
    }
    let waited = begun.elapsed();
    // And from there it is live.
    let after = everything(Some(Start::After(token.to_string())));
    let (start, mut stream) = clients.stream(after).await.expect("subscribe");
    assert_eq!(start, log.heads);
    let entity = EntityRef::new("domain-0", "thing", "last").unwrap();
    let message = pb::Entity {
        domain: entity.domain().to_owned(),
        r#type: entity.kind().to_owned(),
        key: entity.key().to_owned(),
        values: Some(Struct::default()),
        ..pb::Entity::default()
    };
    clients
        .commands
        .clone()
        .set(request(message))
        .await
        .expect("a set");
    let next = timeout(PATIENCE, stream.message()).await.expect("an event");
    assert_eq!(Event::of(next.unwrap().unwrap()).entity, entity);
    gateway.assert_no_errors();
    println!(
        "{} events read from the beginning, {replayed} since {} times, progress after {waited:.1?}",
        log.len(),
        since.len()
    );
}
