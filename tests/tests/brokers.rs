//! Three command, two query and two stream services over PostgreSQL and a real broker: every event once
//! and in order for everybody, whatever the broker does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what a test is made of may fail it too"
)]

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures::future::join_all;
use serde_json::{Value, json};
use stategate_model::{EntityRef, Object};
use stategate_protocol::pb;
use stategate_servers::{Missing, Nats, RabbitMq, Redis};
use stategate_tests::{
    Clients, Form, Gateway, Log, Mix, Options, PATIENCE, Process, Role, Selection, Store,
    Subscriber, What, Write, Writers, alone, check,
    clients::everything,
    postgres, scale,
    workload::{Recent, send},
};
use tokio::{
    sync::Mutex,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use uuid::Uuid;

const COMMANDS: usize = 3;
const QUERIES: usize = 2;
const STREAMS: usize = 2;
const WRITERS: usize = 16;
const SUBSCRIBERS: usize = 50;
const LANES: u8 = 4;
/// How long a subscriber stays before it leaves and comes back, commonly to another process.
const STAY: std::ops::Range<Duration> = Duration::from_millis(300)..Duration::from_millis(900);
/// Between two looks at what cannot be waited for.
const LOOK: Duration = Duration::from_millis(5);

/// A broker that can be killed.
trait Broker: Send + Sync + 'static {
    fn kill(&self);
    fn restart(&self);
}

impl Broker for Nats {
    fn kill(&self) {
        self.kill();
    }

    fn restart(&self) {
        self.restart();
    }
}

impl Broker for Redis {
    fn kill(&self) {
        self.kill();
    }

    fn restart(&self) {
        self.restart();
    }
}

impl Broker for RabbitMq {
    fn kill(&self) {
        self.kill();
    }

    fn restart(&self) {
        self.restart();
    }
}

/// A broker under trial, and the channel's settings for it.
#[derive(Clone)]
struct Trial {
    name: &'static str,
    broker: Arc<dyn Broker>,
    channel: Value,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Trial {
    fn start<B: Broker>(
        name: &'static str,
        broker: Result<B, Missing>,
        channel: impl Fn(&B) -> Value,
    ) -> Option<Self> {
        match broker {
            Ok(broker) => Some(Self {
                name,
                channel: channel(&broker),
                broker: Arc::new(broker),
            }),
            Err(missing) => {
                missing.report(name);
                None
            }
        }
    }

    async fn blocking(&self, what: fn(&dyn Broker)) {
        let broker = Arc::clone(&self.broker);
        spawn_blocking(move || what(&*broker)).await.unwrap();
    }
}

fn rabbitmq() -> Option<Trial> {
    Trial::start(
        "RabbitMQ",
        RabbitMq::start(),
        |server| json!({"name": "rabbitmq", "addr": server.url()}),
    )
}

fn nats(name: &'static str, mode: &str) -> Option<Trial> {
    Trial::start(
        name,
        Nats::start(),
        |server| json!({"name": "nats", "addr": server.url(), "mode": mode}),
    )
}

fn redis(name: &'static str, mode: &str) -> Option<Trial> {
    Trial::start(
        name,
        Redis::start(),
        |server| json!({"name": "redis", "addr": server.url(), "mode": mode}),
    )
}

/// All services, several of each.
struct Crowd {
    gateway: Gateway,
    commands: Vec<Process>,
    queries: Vec<Process>,
    streams: Vec<Process>,
    turn: AtomicUsize,
}

impl Crowd {
    async fn start(store: Store, channel: &Value) -> Self {
        let options = Options::new(Form::Three)
            .lanes(LANES)
            .store(store)
            .env("STATEGATE_CHANNEL_PROVIDER", channel.to_string())
            .env("STATEGATE_CHANNEL_KEY", "a key that all of them have");
        let gateway = Gateway::start(options).await;
        // Those that the gateway has already are among them.
        let more =
            async |role, count: usize| join_all((1..count).map(|_| gateway.spawn(role, &[]))).await;
        Self {
            commands: more(Role::Command, COMMANDS).await,
            queries: more(Role::Query, QUERIES).await,
            streams: more(Role::Stream, STREAMS).await,
            gateway,
            turn: AtomicUsize::new(0),
        }
    }

    /// Clients of other processes each time.
    fn clients(&self) -> Clients {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let own = self.gateway.clients();
        let of = |others: &[Process]| match turn % (others.len() + 1) {
            0 => None,
            n => Some(others[n - 1].grpc()),
        };
        let elsewhere = |address| Clients::new(address, address, address);
        Clients {
            commands: of(&self.commands).map_or(own.commands, |at| elsewhere(at).commands),
            entities: of(&self.queries).map_or(own.entities, |at| elsewhere(at).entities),
            events: of(&self.queries).map_or(own.events, |at| elsewhere(at).events),
            streams: of(&self.streams).map_or(own.streams, |at| elsewhere(at).streams),
        }
    }

    /// The sum of a metric over all stream services.
    async fn streamed(&mut self, metric: &str) -> f64 {
        let own = self.gateway.process(Role::Stream).metric(metric).await;
        let others = join_all(self.streams.iter().map(|process| process.metric(metric))).await;
        own + others.into_iter().sum::<f64>()
    }

    /// Events that stream services took from the channel, and read from the log, and holes among the
    /// former.
    async fn told(&mut self) -> [f64; 3] {
        [
            self.streamed("stategate_channel_events_total").await,
            self.streamed("stategate_tail_events_read_total").await,
            self.streamed("stategate_channel_holes_total").await,
        ]
    }

    /// Waits until every stream service says this of itself, and asserts that the others are as ever.
    async fn is_ready(&mut self, body: &str) {
        let begun = Instant::now();
        loop {
            let own = self.gateway.process(Role::Stream).http("/readyz").await;
            let others = self.streams.iter().map(|process| process.http("/readyz"));
            let others = join_all(others).await;
            if others
                .iter()
                .chain([&own])
                .all(|said| said.as_deref() == Some(body))
            {
                break;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{own:?} {others:?} is not {body:?}"
            );
            sleep(LOOK).await;
        }
        for process in self.commands.iter().chain(&self.queries) {
            let said = process.http("/readyz").await;
            assert_eq!(said.as_deref(), Some("ready\n"));
        }
    }

    fn assert_no_errors(&self) {
        self.gateway.assert_no_errors();
        let others = [&self.commands, &self.queries, &self.streams];
        for process in others.into_iter().flatten() {
            let errors = process.errors();
            assert!(errors.is_empty(), "{errors:#?}");
        }
    }
}

/// Subscriptions that overlap in many ways, each with what it means.
fn selections() -> Vec<Selection> {
    let opts = |domain: &str, kind: &str, key: &str| pb::StreamOpts {
        domain: domain.to_owned(),
        r#type: kind.to_owned(),
        key: key.to_owned(),
        ..pb::StreamOpts::default()
    };
    let mut selections = vec![
        Selection::new(opts("*", "*", ""), |_| true),
        Selection::new(opts("domain-?", "th*", "*"), |_| true),
        Selection::new(opts("domain-[02]", "thing", ""), |event| {
            ["domain-0", "domain-2"].contains(&event.entity.domain())
        }),
        Selection::new(opts("*", "th?ng", "shared-{1,4}"), |event| {
            ["shared-1", "shared-4"].contains(&event.entity.key())
        }),
    ];
    for n in 0..6 {
        let domain = format!("domain-{n}");
        selections.push(Selection::new(opts(&domain, "*", ""), move |event| {
            event.entity.domain() == domain
        }));
    }
    selections
}

/// Loads a crowd until `enough`, and compares what everybody got; `writes` has what was written before,
/// and then all. Answers which share of the events came through the channel, to each stream service.
async fn load(
    crowd: &Arc<Mutex<Crowd>>,
    name: &str,
    writes: &mut Vec<Write>,
    enough: impl AsyncFnOnce(&Writers),
) -> f64 {
    let begun = Instant::now();
    let before = crowd.lock().await.told().await;
    let written = writes.len();
    let connect = {
        let crowd = Arc::clone(crowd);
        let clients: Vec<Clients> = {
            let crowd = crowd.lock().await;
            (0..12).map(|_| crowd.clients()).collect()
        };
        let turn = Arc::new(AtomicUsize::new(0));
        move || clients[turn.fetch_add(1, Ordering::Relaxed) % clients.len()].clone()
    };
    let mut subscribers = Vec::new();
    for (seed, selection) in (0..SUBSCRIBERS as u64).zip(selections().into_iter().cycle()) {
        subscribers.push(Subscriber::start(connect.clone(), selection, STAY, seed).await);
    }
    let recent = Arc::<Recent>::default();
    let writers = Writers::start(&connect, WRITERS, &Mix::small(), &recent, written as u64);
    enough(&writers).await;
    writes.extend(writers.finish().await);
    let clients = connect();
    let log = Log::read(&clients).await;
    let mut findings = check::history(writes, &log);
    let mut delivered = 0;
    let reconnects: usize = subscribers.iter().map(Subscriber::reconnects).sum();
    let finished = subscribers
        .into_iter()
        .map(|subscriber| subscriber.finish(&log));
    for (count, found) in join_all(finished).await {
        delivered += count;
        findings.extend(found);
    }
    check::assert_none(&findings);
    let after = crowd.lock().await.told().await;
    let [believed, read, holes] = [0, 1, 2].map(|n| after[n] - before[n]);
    println!(
        "{name}: {} writes, {delivered} events delivered to {SUBSCRIBERS} subscribers that came back {reconnects} times; \
         {STREAMS} stream services took {believed} events from the channel and {read} from the log, {holes} holes, {:.1?}",
        writes.len() - written,
        begun.elapsed(),
    );
    assert!(reconnects >= SUBSCRIBERS, "hardly anybody came back");
    believed / (believed + read)
}

/// From the decision on a write to its delivery, one at a time.
async fn latencies(clients: &Clients, writes: &mut Vec<Write>, count: usize) -> Vec<Duration> {
    let (_, mut stream) = clients.stream(everything(None)).await.expect("subscribe");
    let mut took = Vec::new();
    for n in 0..count {
        let entity = EntityRef::new("domain-0", "paced", &format!("key-{}", n % 8)).unwrap();
        let what = What::Set(Object::from([("n".to_owned(), 1.0.into())]));
        let (id, begun) = (Uuid::new_v4(), Instant::now());
        let sent = send(clients, &entity, &what, id, None);
        let (outcome, event) = tokio::join!(sent, timeout(PATIENCE, stream.message()));
        writes.push(Write {
            id,
            entity,
            what,
            if_version: None,
            begun,
            ended: Instant::now(),
            outcome,
        });
        let event = event.expect("delivered").unwrap().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let then = Duration::from_nanos(u64::try_from(event.time).unwrap());
        took.push(now.saturating_sub(then));
    }
    took.sort();
    took
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

/// Every event once and in order to everybody, then the same with the broker killed again and again.
async fn trial(trial: Option<Trial>) {
    let _alone = alone().await;
    let Some(trial) = trial else { return };
    let Some(store) = postgres(trial.name) else {
        return;
    };
    let crowd = Crowd::start(store, &trial.channel).await;
    let mut writes = Vec::new();
    let took = latencies(&crowd.gateway.clients(), &mut writes, scale(200, 2_000)).await;
    println!(
        "{trial}: decided to delivered {:.2?} p50, {:.2?} p99",
        percentile(&took, 50),
        percentile(&took, 99)
    );
    let crowd = Arc::new(Mutex::new(crowd));
    let share = load(
        &crowd,
        trial.name,
        &mut writes,
        async |writers: &Writers| {
            writers.reach(scale(2_000, 60_000)).await;
        },
    )
    .await;
    assert!(share >= 0.5, "the channel carried {share} of the events");

    let mut away: Vec<(Instant, Instant)> = Vec::new();
    let kills = scale(2, 6);
    let name = format!("{trial}, killed {kills} times");
    let before = writes.len();
    load(&crowd, &name, &mut writes, async |writers: &Writers| {
        for _ in 0..kills {
            writers
                .reach(writers.acknowledged() + scale(500, 5_000))
                .await;
            trial.blocking(|broker| broker.kill()).await;
            crowd
                .lock()
                .await
                .is_ready("ready\ndegraded: channel\n")
                .await;
            let since = Instant::now();
            writers
                .reach(writers.acknowledged() + scale(500, 5_000))
                .await;
            away.push((since, Instant::now()));
            trial.blocking(|broker| broker.restart()).await;
            crowd.lock().await.is_ready("ready\n").await;
        }
        writers
            .reach(writers.acknowledged() + scale(500, 5_000))
            .await;
    })
    .await;
    let took = |is_away: bool| {
        let of = writes[before..].iter().filter(|write| {
            let within =
                |(from, to): &(Instant, Instant)| *from <= write.begun && write.begun <= *to;
            away.iter().any(within) == is_away
        });
        let mut took: Vec<Duration> = of.map(|write| write.ended - write.begun).collect();
        took.sort();
        took
    };
    let (with, without) = (took(false), took(true));
    let ratio = |percent| {
        let of = |took| percentile(took, percent).as_secs_f64();
        of(&without) / of(&with)
    };
    println!(
        "{name}: {} writes with the broker, {:.2?} p50, {:.2?} p99; {} without, {:.2?} p50, {:.2?} p99: {:.2} and {:.2} times",
        with.len(),
        percentile(&with, 50),
        percentile(&with, 99),
        without.len(),
        percentile(&without, 50),
        percentile(&without, 99),
        ratio(50),
        ratio(99),
    );
    assert!(without.len() >= scale(800, 20_000), "too few to compare");
    // Far from what waiting for the broker would cost; the figures above are for the eye.
    assert!(ratio(50) < 2.0, "writes wait for the broker");
    crowd.lock().await.assert_no_errors();
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_core() {
    trial(nats("NATS, core", "core")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_jetstream() {
    trial(nats("NATS, JetStream", "jetstream")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_fan_out() {
    trial(rabbitmq()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_streams() {
    trial(redis("Redis, streams", "streams")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_pubsub() {
    trial(redis("Redis, pub/sub", "pubsub")).await;
}
