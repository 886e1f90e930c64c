//! What the channel does not tell is read from the log, and soon; what it tells wrongly is not believed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails, with a message"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use stategate_api::{Access, Context, Delivery, Problem, Stream as _, answer::Sent};
use stategate_channel::{
    Carries, Channel, Error, Events, InMemory, InMemoryConfig, Info, Message, Reach, Subscription,
};
use stategate_model::{
    Claims, EntityRef, Event, EventId, Lane, LogId, Method, Position, Timestamp, Values, Version,
};
use stategate_protocol::{decode_event, documents, encode_event, pb, requests};
use stategate_runtime::{Drain, Tasks};
use stategate_storage::{Appended, Batch, Memory, MemoryConfig, Storage};
use stategate_stream::{Settings, StreamService};
use tokio::time::timeout;

type Deliveries = BoxStream<'static, Result<Delivery, Problem>>;

/// So seldom that no test sees it: what comes, comes because of a message.
const NEVER: Duration = Duration::from_secs(86_400);
/// Longest that an event may take, on the clock of the test: far more than the follower's patience.
const SOON: Duration = Duration::from_millis(100);

type Place = (Lane, Position, EventId);

/// A stream service over a log and a channel.
struct Bench {
    storage: Arc<dyn Storage>,
    service: StreamService,
}

impl Bench {
    fn new(lanes: u8, channel: &Arc<dyn Channel>, look: Duration) -> Self {
        let storage: Arc<dyn Storage> = Arc::new(Memory::new(&MemoryConfig { lanes }).unwrap());
        let settings = Settings {
            look,
            ..Settings::default()
        };
        let tasks = Tasks::of(&Drain::new());
        let service =
            StreamService::start(Arc::clone(&storage), Arc::clone(channel), &settings, &tasks);
        Self { storage, service }
    }

    /// Who writes to a lane: always to one entity.
    fn scribe(&self, lane: Lane) -> Scribe {
        let lanes = self.storage.info().lanes;
        let mut domains = (0..).map(|n| format!("domain-{n}"));
        let domain = domains.find(|domain| lanes.of(domain) == lane).unwrap();
        Scribe {
            storage: Arc::clone(&self.storage),
            entity: EntityRef::new(&domain, "thing", "one").unwrap(),
            lane,
            head: Position::ZERO,
            written: Vec::new(),
        }
    }

    async fn subscribe(&self, domain: &str) -> Deliveries {
        let opts = pb::StreamOpts {
            domain: domain.to_owned(),
            r#type: "*".to_owned(),
            ..pb::StreamOpts::default()
        };
        let request = requests::subscribe(&opts).unwrap();
        let rules = Access::open().rules();
        let message = rules.subscription(|| documents::subscribe(&opts));
        let call = rules.call(request, message, Context::anonymous(), |call| {
            self.service.stream(call)
        });
        let subscription = call.await.unwrap().encode(Ok);
        subscription.unwrap().deliveries
    }
}

/// Appends to one lane as its command service does.
struct Scribe {
    storage: Arc<dyn Storage>,
    entity: EntityRef,
    lane: Lane,
    head: Position,
    written: Vec<EventId>,
}

impl Scribe {
    /// Appends so many events; answers the message that tells of them.
    async fn append(&mut self, count: u64) -> Message {
        let first = self.head.get() + 1;
        let event = |position| Event {
            id: EventId::fresh(Timestamp(0)),
            entity: self.entity.clone(),
            values: Values::empty(),
            version: Version::new(position),
            lane: self.lane,
            position: Position::new(position),
            time: Timestamp(i64::try_from(position).unwrap()),
            method: Method::Set,
            claims: Claims::none(),
            trace_parent: None,
        };
        let batch = Arc::new(Batch {
            events: (first..first + count).map(event).collect(),
            keys: Vec::new(),
        });
        let appended = self
            .storage
            .append(self.lane, self.head, Arc::clone(&batch));
        assert_eq!(appended.await.unwrap(), Appended::Done);
        // One time as a channel between processes has them, the other as one within a process has.
        let events = match first % 2 {
            0 => Events::Decoded(batch.events.clone()),
            _ => encoded(&batch.events),
        };
        let message = Message {
            log_id: self.storage.info().log_id,
            lane: self.lane,
            first: self.head.next(),
            previous: self.written.last().copied(),
            events,
        };
        self.head = message.head();
        self.written
            .extend(batch.events.iter().map(|event| event.id));
        message
    }
}

fn encoded(events: &[Event]) -> Events {
    let encoded = events.iter().map(|event| encode_event(event).unwrap().0);
    Events::Encoded(encoded.collect())
}

fn events(message: &Message) -> Vec<Event> {
    match &message.events {
        Events::Decoded(events) => events.clone(),
        Events::Encoded(events) => {
            let events = events.iter().cloned();
            events.map(|bytes| decode_event(bytes).unwrap()).collect()
        }
    }
}

/// A message of events that never were, changed in one more way.
fn forge(message: &Message, change: impl FnOnce(&mut Message)) -> Message {
    let mut forged = message.clone();
    change(&mut forged);
    let mut never = events(message);
    for (event, offset) in never.iter_mut().zip(0..) {
        event.id = EventId::fresh(Timestamp(0));
        event.position = forged.first.plus(offset);
    }
    forged.events = match message.events {
        Events::Decoded(_) => Events::Decoded(never),
        Events::Encoded(_) => encoded(&never),
    };
    forged
}

async fn next(stream: &mut Deliveries, patience: Duration) -> Place {
    let next = timeout(patience, stream.next()).await;
    let part = next.unwrap_or_else(|_| panic!("silence")).unwrap().unwrap();
    let Sent::Event { encoded, .. } = part.into_sent() else {
        panic!("it is small");
    };
    let event = decode_event(encoded).unwrap();
    (event.lane, event.position, event.id)
}

/// Fails unless what a scribe wrote comes soon, from `first` on, and nothing in its place.
async fn all_come_soon(stream: &mut Deliveries, scribe: &Scribe, first: u64) {
    let written = scribe.written.iter().zip(1..);
    for (id, position) in written.filter(|(_, position)| *position >= first) {
        let due = (scribe.lane, Position::new(position), *id);
        assert_eq!(next(stream, SOON).await, due);
    }
}

fn in_memory() -> Arc<dyn Channel> {
    Arc::new(InMemory::new(&InMemoryConfig::default()))
}

/// A service, a subscriber that had the first event, and who writes the next ones.
async fn begun(channel: &Arc<dyn Channel>) -> (Bench, Deliveries, Scribe) {
    let bench = Bench::new(1, channel, NEVER);
    let mut stream = bench.subscribe("*").await;
    let mut scribe = bench.scribe(Lane(0));
    channel.publish(scribe.append(1).await);
    all_come_soon(&mut stream, &scribe, 1).await;
    (bench, stream, scribe)
}

#[tokio::test(start_paused = true)]
async fn a_hole_behind_a_hole_is_filled_with_it() {
    let channel = in_memory();
    let (bench, mut stream, mut scribe) = begun(&channel).await;
    for is_told in [false, true, false, true, false, false, true] {
        let message = scribe.append(2).await;
        if is_told {
            channel.publish(message);
        }
    }
    all_come_soon(&mut stream, &scribe, 2).await;
    bench.service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn more_early_messages_than_are_held_are_read_from_the_log() {
    let channel = in_memory();
    let (bench, mut stream, mut scribe) = begun(&channel).await;
    scribe.append(1).await;
    for _ in 0..500 {
        channel.publish(scribe.append(1).await);
    }
    all_come_soon(&mut stream, &scribe, 2).await;
    bench.service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_far_future_delay_nobody() {
    let channel = in_memory();
    let (bench, mut stream, mut scribe) = begun(&channel).await;
    for first in [2, 5, 8] {
        scribe.append(2).await;
        let message = scribe.append(1).await;
        for far in 1..100 {
            let ahead = |forged: &mut Message| forged.first = message.first.plus(1_000_000 * far);
            channel.publish(forge(&message, ahead));
        }
        channel.publish(message);
        all_come_soon(&mut stream, &scribe, first).await;
    }
    bench.service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn while_the_channel_is_silent_the_log_is_looked_at_often() {
    let channel = in_memory();
    let seldom = Duration::from_secs(10);
    let bench = Bench::new(1, &channel, seldom);
    let mut stream = bench.subscribe("*").await;
    let mut scribe = bench.scribe(Lane(0));
    // The first the subscriber finds by itself.
    for _ in 0..2 {
        scribe.append(1).await;
        next(&mut stream, 2 * seldom).await;
    }
    for first in 3..10 {
        scribe.append(1).await;
        all_come_soon(&mut stream, &scribe, first).await;
    }
    // Nothing is written and nothing is said: there is no hurry any more.
    let silence = timeout(seldom.mul_f64(9.5), stream.next()).await;
    assert!(silence.is_err());
    scribe.append(1).await;
    let still = timeout(SOON, stream.next()).await;
    assert!(still.is_err(), "the heads are looked at as often as ever");
    next(&mut stream, 2 * seldom).await;
    bench.service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_of_this_history_is_not_believed() {
    let channel = in_memory();
    let (bench, mut stream, mut scribe) = begun(&channel).await;
    let forgeries: [fn(&mut Message); 3] = [
        |forged| forged.log_id = LogId::random(),
        |forged| forged.previous = Some(EventId::fresh(Timestamp(0))),
        |forged| forged.previous = None,
    ];
    for (forgery, first) in forgeries.into_iter().zip([2, 5, 8]) {
        let message = scribe.append(1).await;
        channel.publish(forge(&message, forgery));
        channel.publish(message);
        // The same for one that comes early.
        let missing = scribe.append(1).await;
        let message = scribe.append(1).await;
        channel.publish(forge(&message, forgery));
        channel.publish(missing);
        channel.publish(message);
        all_come_soon(&mut stream, &scribe, first).await;
    }
    bench.service.finish().await;
}

#[cfg(feature = "faults")]
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_repeated_or_reordered_behind_a_lossy_channel() {
    use std::collections::HashMap;

    use parking_lot::Mutex;
    use stategate_stream::faults::{Lossy, Trouble};
    use tokio::task::{JoinSet, yield_now};

    const LANES: u8 = 4;
    const BATCHES: u64 = 1_500;
    const SUBSCRIBERS: usize = 16;
    const PATIENCE: Duration = Duration::from_secs(30);

    let troubles = Arc::<Mutex<HashMap<Trouble, usize>>>::default();
    let tell = {
        let troubles = Arc::clone(&troubles);
        move |trouble, _: &Message| *troubles.lock().entry(trouble).or_default() += 1
    };
    let channel: Arc<dyn Channel> = Arc::new(Lossy::new(in_memory(), Arc::new(tell)));
    let bench = Bench::new(LANES, &channel, Duration::from_millis(100));
    let mut streams = Vec::new();
    for number in 0..SUBSCRIBERS {
        let lane = (number % 2 == 1).then(|| Lane(u8::try_from(number / 2).unwrap() % LANES));
        let domain = lane.map(|lane| bench.scribe(lane).entity.domain().to_owned());
        let domain = domain.as_deref().unwrap_or("*");
        streams.push((lane, bench.subscribe(domain).await));
    }
    let mut writers = JoinSet::new();
    for lane in bench.storage.info().lanes.iter() {
        let (mut scribe, channel) = (bench.scribe(lane), Arc::clone(&channel));
        writers.spawn(async move {
            let mut written: Vec<Place> = Vec::new();
            for batch in 0..BATCHES {
                let message = scribe.append(1 + batch % 3).await;
                let places = events(&message).into_iter();
                written.extend(places.map(|event| (event.lane, event.position, event.id)));
                channel.publish(message);
                yield_now().await;
            }
            written
        });
    }
    let total = usize::try_from(2 * BATCHES).unwrap();
    let mut readers = JoinSet::new();
    for (lane, mut stream) in streams {
        readers.spawn(async move {
            let lanes = lane.map_or(usize::from(LANES), |_| 1);
            let mut got: Vec<Place> = Vec::new();
            while got.len() < lanes * total {
                got.push(next(&mut stream, PATIENCE).await);
            }
            // Lanes have no order among them.
            got.sort_by_key(|(lane, ..)| *lane);
            (lane, got)
        });
    }
    let mut written = writers.join_all().await.concat();
    written.sort_by_key(|(lane, ..)| *lane);
    let mut delivered = 0;
    for (lane, got) in readers.join_all().await {
        let due = |place: &&Place| lane.is_none_or(|lane| place.0 == lane);
        let due: Vec<Place> = written.iter().filter(due).copied().collect();
        assert!(got == due, "{lane:?}: got something else than was written");
        delivered += got.len();
    }
    bench.service.finish().await;
    let troubles = troubles.lock();
    println!(
        "{} events written, {delivered} delivered to {SUBSCRIBERS} subscribers, {troubles:?}",
        written.len()
    );
    let is_enough = troubles.len() == 7 && troubles.values().all(|count| *count >= 100);
    assert!(is_enough, "too little trouble: {troubles:?}");
}

/// A channel that looks at the log itself whenever its subscription is polled.
#[derive(Debug, Default)]
struct Looking {
    polls: Arc<AtomicU64>,
}

#[async_trait]
impl Channel for Looking {
    fn info(&self) -> Info {
        Info {
            provider: "looking",
            crosses_processes: true,
            carries: Carries::Heads,
        }
    }

    fn publish(&self, _: Message) {}

    async fn subscribe(&self) -> Result<Subscription, Error> {
        let polls = Arc::clone(&self.polls);
        Ok(Box::pin(futures::stream::unfold((), move |()| {
            let polls = Arc::clone(&polls);
            async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    polls.fetch_add(1, Ordering::Relaxed);
                }
            }
        })))
    }

    fn reach(&self) -> Reach {
        Reach::Up
    }

    async fn close(&self) {}
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_looks_at_the_log_is_left_alone_while_nobody_listens() {
    let looking = Arc::new(Looking::default());
    let polls = Arc::clone(&looking.polls);
    let channel: Arc<dyn Channel> = looking;
    let bench = Bench::new(1, &channel, Duration::from_secs(1));
    let minute = || tokio::time::sleep(Duration::from_secs(60));
    minute().await;
    assert_eq!(polls.load(Ordering::Relaxed), 0, "nobody was ever there");
    for _ in 0..2 {
        let stream = bench.subscribe("domain").await;
        minute().await;
        let listened = polls.swap(0, Ordering::Relaxed);
        assert!(listened > 1_000, "looked {listened} times for a subscriber");
        drop(stream);
        minute().await;
        let left = polls.swap(0, Ordering::Relaxed);
        assert!(left <= 1, "looked {left} times for nobody");
    }
}
