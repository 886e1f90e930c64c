//! Three command, two query and two stream services over PostgreSQL and a real broker: every event once
//! and in order for everybody, and writes as quick as ever, whatever becomes of the broker.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what a test is made of may fail it too"
)]

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use serde_json::json;
use stategate_servers::{Broker as _, Kafka, Nats, RabbitMq, Redis};
use stategate_tests::{
    Absence, Carrier, Crowd, Cut, Role, Write, Writers, alone,
    crowd::{STREAMS, SUBSCRIBERS, load},
    postgres, scale,
    witness::{paced, percentile},
};
use tokio::sync::Mutex;

/// How long a subscriber stays before it leaves and comes back, commonly to another process.
const STAY: Range<Duration> = Duration::from_millis(300)..Duration::from_millis(900);
/// How long a channel lets a broker take before it gives it up: what a write would take that waited.
const BROKER_TIMEOUT: Duration = Duration::from_secs(5);

macro_rules! carriers {
    ($($test:ident: $name:literal, $server:ty, $channel:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            let _alone = alone().await;
            trial(Carrier::over($name, <$server>::start(), $channel)).await;
        }
    )*};
}

carriers! {
    kafka: "Kafka", Kafka, |server| json!({"name": "kafka", "addr": server.url()});
    nats_core: "NATS, core", Nats, |server| json!({"name": "nats", "addr": server.url(), "mode": "core"});
    nats_jetstream: "NATS, JetStream", Nats, |server| json!({"name": "nats", "addr": server.url(), "mode": "jetstream"});
    rabbitmq: "RabbitMQ", RabbitMq, |server| json!({"name": "rabbitmq", "addr": server.url()});
    redis_pubsub: "Redis, pub/sub", Redis, |server| json!({"name": "redis", "addr": server.url(), "mode": "pubsub"});
    redis_streams: "Redis, streams", Redis, |server| json!({"name": "redis", "addr": server.url(), "mode": "streams"});
}

/// When something was so.
#[derive(Debug, Default)]
struct Times(Vec<(Instant, Instant)>);

impl Times {
    fn add(&mut self, since: Instant) {
        self.0.push((since, Instant::now()));
    }

    /// How long the writes took that began then.
    fn of(&self, writes: &[Write]) -> Vec<Duration> {
        let within = |write: &&Write| {
            let mut times = self.0.iter();
            times.any(|(from, to)| *from <= write.begun && write.begun <= *to)
        };
        let writes = writes.iter().filter(within);
        writes.map(|write| write.ended - write.begun).collect()
    }
}

/// Every event once and in order to everybody, while the broker is there, killed, and stopped.
async fn trial(carrier: Option<Carrier>) {
    let Some(carrier) = carrier else { return };
    let Some(store) = postgres(carrier.name()) else {
        return;
    };
    let away = scale(Duration::from_secs(2), Duration::from_secs(60));
    let mut crowd = Crowd::start(store, carrier.channel(), &[]).await;
    let mut writes = Vec::new();
    let delays = paced(&crowd.connect()(), &mut writes, scale(100, 2_000)).await;
    let delays: Vec<Duration> = delays.into_values().collect();
    println!(
        "{carrier}: decided to delivered {:.2?} p50, {:.2?} p99, one at a time",
        percentile(delays.iter().copied(), 50),
        percentile(delays, 99)
    );
    let before = crowd.told().await;
    let crowd = Mutex::new(crowd);
    let (mut with, mut without) = (Times::default(), [Times::default(), Times::default()]);
    let loaded = load(&crowd, &mut writes, STAY, Cut::Fails, async |writers| {
        let more = async |count| writers.reach(writers.acknowledged() + count).await;
        let since = Instant::now();
        more(scale(1_200, 20_000)).await;
        with.add(since);
        let told = crowd.lock().await.told().await.since(before);
        println!(
            "{carrier}: {STREAMS} stream services took {} events from the channel and {} from the log, {} holes",
            told.believed, told.read, told.holes
        );
        assert!(told.share() >= 0.5, "the channel carried {told:?}");
        for (how, times) in [Absence::Killed, Absence::Stopped].into_iter().zip(&mut without) {
            carrier.leave(how).await;
            stay_away(&crowd, writers, how, away, times).await;
            carrier.come_back(how).await;
            crowd.lock().await.streams_say("ready\n").await;
            more(scale(200, 2_000)).await;
        }
    })
    .await;
    println!(
        "{carrier}, killed and stopped for {away:?}: {} writes, {} events delivered to {SUBSCRIBERS} subscribers that came back \
         {} times, {:.1?}",
        writes.len(),
        loaded.delivered,
        loaded.reconnects,
        loaded.took,
    );
    assert!(loaded.reconnects >= SUBSCRIBERS, "hardly anybody came back");
    let with = with.of(&writes);
    for (times, how) in without.iter().zip([Absence::Killed, Absence::Stopped]) {
        let without = times.of(&writes);
        compare(&carrier, how, &with, &without);
    }
    crowd.lock().await.assert_no_errors();
}

/// Keeps the broker away for so long, and looks at what everybody says of it.
async fn stay_away(
    crowd: &Mutex<Crowd>,
    writers: &Writers,
    how: Absence,
    away: Duration,
    times: &mut Times,
) {
    let since = Instant::now();
    while since.elapsed() < away {
        writers
            .reach(writers.acknowledged() + scale(100, 500))
            .await;
        crowd.lock().await.assert_others_ready().await;
    }
    let mut crowd = crowd.lock().await;
    match how {
        Absence::Killed => crowd.streams_say("ready\ndegraded: channel\n").await,
        // That nobody answers is noticed in time, which the channel's conformance is about.
        Absence::Stopped => println!("{how:?}: {:?}", crowd.readiness(Role::Stream).await),
    }
    times.add(since);
}

fn compare(carrier: &Carrier, how: Absence, with: &[Duration], without: &[Duration]) {
    let [p50, p99] = [50, 99].map(|percent| {
        let of = |took: &[Duration]| percentile(took.iter().copied(), percent);
        (of(with), of(without))
    });
    let ratio = |(with, without): (Duration, Duration)| without.as_secs_f64() / with.as_secs_f64();
    println!(
        "{carrier}: {} writes with the broker, {:.1?} p50, {:.1?} p99; {} while it was {how:?}, {:.1?} p50, {:.1?} p99: \
         {:.2} and {:.2} times",
        with.len(),
        p50.0,
        p99.0,
        without.len(),
        p50.1,
        p99.1,
        ratio(p50),
        ratio(p99),
    );
    assert!(without.len() >= scale(200, 2_000), "too few to compare");
    // The ratios are for the eye. A write that waited for a broker would wait until it is given up.
    assert!(p99.1 < BROKER_TIMEOUT, "writes wait for the broker");
}
