//! The cases that every channel passes, run over a fresh channel each.
//!
//! A channel is a hint, so the cases ask for no more than the contract does: that a subscriber
//! learns how far a lane goes, and that nobody is held up.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a case fails by panicking"
)]

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use parking_lot::Mutex;
use stategate_model::{
    Claims, EntityRef, Event, EventId, Heads, Lane, Lanes, LogId, Method, Position, Timestamp,
    Values, Version,
};
use tokio::{
    runtime,
    task::{spawn_blocking, yield_now},
    time::{Instant, sleep, timeout},
};

use crate::{Carries, Channel, Error, Events, Key, Log, Message, Notice, Reach, Subscription};

/// Far longer than any hint takes; reached only by a failing case.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at what cannot be waited for.
const LOOK: Duration = Duration::from_millis(5);

/// Far longer than a thread waits for its turn, and shorter than providers wait for a broker.
const HELD_UP: Duration = Duration::from_secs(2);

/// A pretended log: what stands behind the channel.
#[derive(Debug)]
pub struct PretendedLog {
    id: LogId,
    heads: Mutex<Heads>,
    reads: AtomicU64,
    away: Mutex<bool>,
}

/// One case's channel: what the writers publish to and what the streams subscribe to may be two
/// handles on one carrier.
#[derive(Debug)]
pub struct Rig {
    /// The log behind the channel.
    pub log: Arc<PretendedLog>,
    /// The handle of the writing process.
    pub writer: Arc<dyn Channel>,
    /// The handle of the reading process.
    pub reader: Arc<dyn Channel>,
    /// What is between them, if it is a broker.
    pub broker: Option<Arc<dyn Broker>>,
}

/// A broker, for the cases that more handles, and trouble, make.
#[async_trait]
pub trait Broker: fmt::Debug + Send + Sync {
    /// A handle on a log's messages, as another process has it.
    async fn open(&self, log: Log, key: Option<Key>) -> Arc<dyn Channel>;

    /// Kills the broker.
    async fn kill(&self);

    /// Starts it again.
    async fn restart(&self);

    /// Cuts the connections of [`Rig::writer`] alone, and lets it make no others.
    async fn part(&self);

    /// Lets it make connections again.
    async fn mend(&self);

    /// Size of an event that is over the limit of the broker, or of the provider.
    fn oversize(&self) -> usize;
}

impl PretendedLog {
    /// The log as a channel is told of it.
    pub fn described(self: &Arc<Self>) -> Log {
        let log = Arc::clone(self);
        let heads = move || {
            log.reads.fetch_add(1, Ordering::Relaxed);
            let heads = (!*log.away.lock()).then(|| log.heads.lock().clone());
            Box::pin(async { heads }) as _
        };
        Log {
            log_id: self.id,
            heads: Arc::new(heads),
        }
    }

    /// An empty log of eight lanes.
    pub fn new() -> Arc<Self> {
        let lanes = Lanes::new(8).unwrap_or(Lanes::ONE);
        Arc::new(Self {
            id: LogId::random(),
            heads: Mutex::new(Heads::beginning(lanes)),
            reads: AtomicU64::new(0),
            away: Mutex::new(false),
        })
    }
}

impl Rig {
    /// Commits `events` of `bytes` each to a lane and publishes them, as a command service does.
    fn write(&self, lane: Lane, events: usize, bytes: usize) -> Position {
        let first = {
            let mut heads = self.log.heads.lock();
            let head = heads.get(lane);
            heads.set(lane, head.plus(events as u64));
            head.next()
        };
        let message = Message {
            log_id: self.log.id,
            lane,
            first,
            previous: Some(EventId::fresh(Timestamp(0))),
            events: Events::Encoded(vec![Bytes::from(vec![0; bytes]); events]),
        };
        let head = message.head();
        self.writer.publish(message);
        head
    }
}

/// Waits until a handle says this of its connections.
async fn reaches(channel: &Arc<dyn Channel>, reach: Reach) {
    let reached = timeout(PATIENCE, async {
        while channel.reach() != reach {
            sleep(LOOK).await;
        }
    });
    let reached = reached.await;
    assert!(reached.is_ok(), "{:?} is not {reach:?}", channel.reach());
}

/// The next thing a subscription says.
async fn notice(subscription: &mut Subscription) -> Notice {
    let notice = timeout(PATIENCE, subscription.next()).await;
    notice
        .expect("something is said")
        .expect("the subscription goes on")
}

/// The next message, which nothing else may come before.
async fn message(subscription: &mut Subscription) -> Arc<Message> {
    match notice(subscription).await {
        Notice::Message(message) => message,
        Notice::Lagged => panic!("lagged where a message was due"),
    }
}

/// Waits until the subscription says that a lane reached `head`, or that it should look.
async fn learns(subscription: &mut Subscription, lane: Lane, head: Position) {
    let learnt = timeout(PATIENCE, async {
        while let Some(notice) = subscription.next().await {
            match notice {
                Notice::Lagged => return true,
                Notice::Message(message) if message.lane == lane && message.head() >= head => {
                    return true;
                }
                Notice::Message(_) => {}
            }
        }
        false
    });
    assert!(
        matches!(learnt.await, Ok(true)),
        "lane {lane} reached {head}, and nobody said so"
    );
}

type Run = fn(Rig) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// A named case.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name, for the report.
    pub name: &'static str,
    /// What it does.
    pub run: Run,
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// Every case.
        pub const CASES: &[Case] = &[$(Case { name: stringify!($name), run: |rig| Box::pin($name(rig)) }),*];
    };
}

cases![
    a_subscriber_learns_of_every_lane,
    every_subscription_gets_everything,
    what_was_published_before_is_not_told,
    events_arrive_as_they_were_published,
    events_that_are_not_encoded_arrive_or_go_as_their_head,
    publishing_without_subscribers_is_free,
    a_flood_nobody_reads_does_not_block,
    a_dropped_subscription_is_forgotten,
    nothing_is_said_when_nothing_happens,
    closing_ends_subscriptions,
    an_unreachable_source_is_followed_by_lagged,
    how_things_stand_is_told,
    every_process_gets_everything,
    messages_of_another_log_are_passed_over,
    messages_with_another_key_are_passed_over,
    a_message_over_the_limit_goes_as_its_head,
    a_broker_that_is_away_at_the_start_is_come_back_to,
    a_killed_broker_is_come_back_to,
    heads_published_while_the_broker_was_away_are_kept,
    a_broker_that_is_away_holds_up_nobody,
];

async fn a_subscriber_learns_of_every_lane(rig: Rig) {
    let mut subscription = rig.reader.subscribe().await.expect("subscribes");
    for round in 1..=3 {
        for lane in (0..8).map(Lane) {
            let head = rig.write(lane, round, 10);
            learns(&mut subscription, lane, head).await;
        }
    }
}

async fn every_subscription_gets_everything(rig: Rig) {
    let mut one = rig.reader.subscribe().await.expect("subscribes");
    let mut two = rig.reader.subscribe().await.expect("subscribes");
    for _ in 0..20 {
        let head = rig.write(Lane(3), 1, 10);
        learns(&mut one, Lane(3), head).await;
        learns(&mut two, Lane(3), head).await;
    }
}

async fn what_was_published_before_is_not_told(rig: Rig) {
    let mut early = rig.reader.subscribe().await.expect("subscribes");
    for _ in 0..5 {
        let head = rig.write(Lane(1), 1, 10);
        learns(&mut early, Lane(1), head).await;
    }
    // A process that starts does not go through what others have seen: its streams read that from the log.
    let mut late = rig.reader.subscribe().await.expect("subscribes");
    let head = rig.write(Lane(1), 1, 10);
    assert_eq!(message(&mut late).await.head(), head);
}

async fn events_arrive_as_they_were_published(rig: Rig) {
    if rig.reader.info().carries == Carries::Heads {
        return;
    }
    let mut subscription = rig.reader.subscribe().await.expect("subscribes");
    let message = Message {
        log_id: rig.log.id,
        lane: Lane(5),
        first: Position::new(7),
        previous: Some(EventId::fresh(Timestamp(0))),
        events: Events::Encoded(vec![
            Bytes::from_static(b"one"),
            Bytes::new(),
            Bytes::from_static(b"three"),
        ]),
    };
    rig.writer.publish(message.clone());
    let got = timeout(PATIENCE, subscription.next())
        .await
        .expect("arrives");
    assert_eq!(got, Some(Notice::Message(Arc::new(message))));
}

async fn events_that_are_not_encoded_arrive_or_go_as_their_head(rig: Rig) {
    let carries = rig.reader.info().carries;
    if carries == Carries::Heads {
        return;
    }
    let mut subscription = rig.reader.subscribe().await.expect("subscribes");
    let (lane, first) = (Lane(5), Position::new(7));
    let event = |position| Event {
        id: EventId::fresh(Timestamp(0)),
        entity: EntityRef::new("domain", "type", "key").expect("a name"),
        values: Values::empty(),
        version: Version::new(1),
        lane,
        position,
        time: Timestamp(0),
        method: Method::Set,
        claims: Claims::none(),
        trace_parent: None,
    };
    let message = Message {
        log_id: rig.log.id,
        lane,
        first,
        previous: Some(EventId::fresh(Timestamp(0))),
        events: Events::Decoded(vec![event(first), event(first.next())]),
    };
    let expected = match carries {
        Carries::Events => message.clone(),
        Carries::Bytes | Carries::Heads => Message::bare_head(rig.log.id, lane, message.head()),
    };
    rig.writer.publish(message);
    assert_eq!(*self::message(&mut subscription).await, expected);
}

async fn publishing_without_subscribers_is_free(rig: Rig) {
    for _ in 0..1_000 {
        rig.write(Lane(0), 1, 100_000);
    }
    let mut subscription = rig.reader.subscribe().await.expect("subscribes");
    let head = rig.write(Lane(0), 1, 10);
    learns(&mut subscription, Lane(0), head).await;
}

async fn a_flood_nobody_reads_does_not_block(rig: Rig) {
    let mut subscription = rig.reader.subscribe().await.expect("subscribes");
    let mut head = Position::ZERO;
    for _ in 0..2_000 {
        // 2 GB in all, of which a bounded channel keeps little.
        head = rig.write(Lane(1), 1, 1 << 20);
    }
    learns(&mut subscription, Lane(1), head).await;
    let head = rig.write(Lane(1), 1, 10);
    learns(&mut subscription, Lane(1), head).await;
}

async fn a_dropped_subscription_is_forgotten(rig: Rig) {
    for _ in 0..100 {
        let subscription = rig.reader.subscribe().await.expect("subscribes");
        drop(subscription);
    }
    let mut subscription = rig.reader.subscribe().await.expect("subscribes");
    let head = rig.write(Lane(2), 1, 10);
    learns(&mut subscription, Lane(2), head).await;
}

async fn nothing_is_said_when_nothing_happens(rig: Rig) {
    let mut subscription = rig.reader.subscribe().await.expect("subscribes");
    let reads = rig.log.reads.load(Ordering::Relaxed);
    let quiet = timeout(Duration::from_millis(50), subscription.next()).await;
    assert!(quiet.is_err(), "a quiet log was announced: {quiet:?}");
    let reads = rig.log.reads.load(Ordering::Relaxed) - reads;
    assert!(reads <= 50, "the log was read {reads} times in 50 ms");
}

async fn closing_ends_subscriptions(rig: Rig) {
    let mut subscription = rig.reader.subscribe().await.expect("subscribes");
    rig.reader.close().await;
    let end = timeout(PATIENCE, async {
        while subscription.next().await.is_some() {}
    })
    .await;
    assert!(
        end.is_ok(),
        "the subscription went on after the channel was closed"
    );
    assert!(matches!(rig.reader.subscribe().await, Err(Error::Closed)));
    // A writer that is still finishing is not disturbed.
    rig.write(Lane(0), 1, 10);
}

async fn an_unreachable_source_is_followed_by_lagged(rig: Rig) {
    if rig.reader.info().carries != Carries::Heads {
        return;
    }
    let mut subscription = rig.reader.subscribe().await.expect("subscribes");
    *rig.log.away.lock() = true;
    let before = rig.log.reads.load(Ordering::Relaxed);
    let log = Arc::clone(&rig.log);
    let reader = tokio::spawn(async move {
        let notice = timeout(PATIENCE, subscription.next()).await;
        (notice, subscription)
    });
    timeout(PATIENCE, async {
        while log.reads.load(Ordering::Relaxed) < before + 2 {
            yield_now().await;
        }
    })
    .await
    .expect("the source is asked again while it is away");
    rig.write(Lane(0), 1, 10);
    *rig.log.away.lock() = false;
    let (notice, _subscription) = reader.await.expect("runs");
    assert_eq!(notice, Ok(Some(Notice::Lagged)));
}

async fn how_things_stand_is_told(rig: Rig) {
    let _subscription = rig.reader.subscribe().await.expect("subscribes");
    assert_eq!(rig.reader.reach(), Reach::Up);
    rig.write(Lane(0), 1, 10);
    if rig.broker.is_some() {
        reaches(&rig.writer, Reach::Up).await;
    }
}

async fn every_process_gets_everything(rig: Rig) {
    let Some(broker) = &rig.broker else { return };
    let mut processes = Vec::new();
    for _ in 0..3 {
        let process = broker.open(rig.log.described(), None).await;
        let subscription = process.subscribe().await.expect("subscribes");
        processes.push((process, subscription));
    }
    for _ in 0..20 {
        let head = rig.write(Lane(3), 1, 10);
        for (_, subscription) in &mut processes {
            assert_eq!(message(subscription).await.head(), head);
        }
    }
}

async fn messages_of_another_log_are_passed_over(rig: Rig) {
    if rig.broker.is_none() {
        return;
    }
    let mut subscription = rig.reader.subscribe().await.expect("subscribes");
    for _ in 0..10 {
        rig.writer.publish(Message {
            log_id: LogId::random(),
            lane: Lane(1),
            first: Position::new(1),
            previous: None,
            events: Events::Encoded(vec![Bytes::from_static(b"another's")]),
        });
        let head = rig.write(Lane(1), 1, 10);
        let next = message(&mut subscription).await;
        assert_eq!((next.log_id, next.head()), (rig.log.id, head));
    }
}

async fn messages_with_another_key_are_passed_over(rig: Rig) {
    let Some(broker) = &rig.broker else { return };
    let open = async |key: Option<&str>| broker.open(rig.log.described(), key.map(Key::new)).await;
    let reader = open(Some("the key of this log")).await;
    let mut subscription = reader.subscribe().await.expect("subscribes");
    let mut careless = rig.reader.subscribe().await.expect("subscribes");
    let forgery = |first| Message {
        events: Events::Encoded(vec![Bytes::from_static(b"forged")]),
        ..Message::bare_head(rig.log.id, Lane(1), Position::new(first))
    };
    for forger in [open(None).await, open(Some("the key of another log")).await] {
        for first in 1..=5 {
            forger.publish(forgery(first));
            // It came as far as whoever believes everything.
            assert_eq!(*message(&mut careless).await, forgery(first));
        }
    }
    let writer = open(Some("the key of this log")).await;
    let genuine = Message::bare_head(rig.log.id, Lane(1), Position::new(7));
    writer.publish(genuine.clone());
    assert_eq!(*message(&mut subscription).await, genuine);
    // Whoever has no key yet is served as well.
    assert_eq!(*message(&mut careless).await, genuine);
}

async fn a_message_over_the_limit_goes_as_its_head(rig: Rig) {
    let Some(broker) = &rig.broker else { return };
    let mut subscription = rig.reader.subscribe().await.expect("subscribes");
    for _ in 0..3 {
        let head = rig.write(Lane(4), 2, broker.oversize());
        let expected = Message::bare_head(rig.log.id, Lane(4), head);
        assert_eq!(*message(&mut subscription).await, expected);
        let head = rig.write(Lane(4), 2, 10);
        let next = message(&mut subscription).await;
        assert_eq!((next.head(), next.events.len()), (head, 2));
    }
}

async fn a_broker_that_is_away_at_the_start_is_come_back_to(rig: Rig) {
    let Some(broker) = &rig.broker else { return };
    broker.kill().await;
    let reader = broker.open(rig.log.described(), None).await;
    assert_eq!(reader.reach(), Reach::Untried);
    let mut subscription = reader.subscribe().await.expect("subscribes");
    assert_eq!(reader.reach(), Reach::Down);
    for _ in 0..100 {
        rig.write(Lane(2), 1, 1_000);
    }
    reaches(&rig.writer, Reach::Down).await;
    broker.restart().await;
    assert_eq!(notice(&mut subscription).await, Notice::Lagged);
    // A broker that has just started may drop a connection once more.
    reaches(&reader, Reach::Up).await;
    reaches(&rig.writer, Reach::Up).await;
    let head = rig.write(Lane(2), 1, 10);
    arrives(&mut subscription, Lane(2), head).await;
}

async fn a_killed_broker_is_come_back_to(rig: Rig) {
    let Some(broker) = &rig.broker else { return };
    let mut subscription = rig.reader.subscribe().await.expect("subscribes");
    for _ in 0..2 {
        let head = rig.write(Lane(6), 1, 10);
        learns(&mut subscription, Lane(6), head).await;
        broker.kill().await;
        reaches(&rig.reader, Reach::Down).await;
        reaches(&rig.writer, Reach::Down).await;
        broker.restart().await;
        reaches(&rig.reader, Reach::Up).await;
        reaches(&rig.writer, Reach::Up).await;
        while notice(&mut subscription).await != Notice::Lagged {}
        let head = rig.write(Lane(6), 1, 10);
        arrives(&mut subscription, Lane(6), head).await;
    }
}

async fn heads_published_while_the_broker_was_away_are_kept(rig: Rig) {
    let Some(broker) = &rig.broker else { return };
    let mut subscription = rig.reader.subscribe().await.expect("subscribes");
    let sent = rig.write(Lane(7), 1, 10);
    assert_eq!(message(&mut subscription).await.head(), sent);
    broker.part().await;
    let mut heads = Vec::new();
    for lane in (0..7).map(Lane) {
        for _ in 0..50 {
            rig.write(lane, 1, 1_000);
        }
        heads.push((lane, rig.write(lane, 1, 10)));
    }
    reaches(&rig.writer, Reach::Down).await;
    broker.mend().await;
    let told = timeout(PATIENCE, async {
        // The subscriber was connected all the time, so it is told by messages alone.
        while !heads.is_empty() {
            let message = message(&mut subscription).await;
            heads.retain(|(lane, head)| message.lane != *lane || message.head() < *head);
        }
    });
    assert!(
        told.await.is_ok(),
        "nobody said how far these go: {heads:?}"
    );
    let head = rig.write(Lane(0), 1, 10);
    arrives(&mut subscription, Lane(0), head).await;
}

async fn a_broker_that_is_away_holds_up_nobody(rig: Rig) {
    let Some(broker) = rig.broker.clone() else {
        return;
    };
    // All on one thread, which a provider that blocks it keeps from everyone.
    let alone = move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let channel = broker.open(rig.log.described(), None).await;
            let rig = Rig {
                writer: Arc::clone(&channel),
                reader: channel,
                ..rig
            };
            let mut subscription = rig.reader.subscribe().await.expect("subscribes");
            let head = rig.write(Lane(5), 1, 10);
            arrives(&mut subscription, Lane(5), head).await;
            let trouble = async {
                broker.kill().await;
                for _ in 0..100 {
                    rig.write(Lane(5), 1, 1_000);
                    yield_now().await;
                }
                reaches(&rig.reader, Reach::Down).await;
                broker.restart().await;
                reaches(&rig.reader, Reach::Up).await;
            };
            let held_up = async {
                loop {
                    let begun = Instant::now();
                    sleep(LOOK).await;
                    assert!(begun.elapsed() < HELD_UP, "held up: {:?}", begun.elapsed());
                }
            };
            tokio::select! {
                () = trouble => {}
                () = held_up => {}
            }
        });
    };
    spawn_blocking(alone).await.expect("held up");
}

/// Waits for a message that has the event at `head`.
async fn arrives(subscription: &mut Subscription, lane: Lane, head: Position) {
    loop {
        if let Notice::Message(message) = notice(subscription).await
            && message.lane == lane
            && message.head() == head
            && !message.events.is_empty()
        {
            return;
        }
    }
}
