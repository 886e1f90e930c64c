//! The shared tail of the log and the subscribers that live on it.
//!
//! One lock guards both, so that attaching a subscriber and adding an event cannot miss each other.
//! Everything under it is short and never waits. Memory is bounded by the tail, in bytes and events:
//! a subscriber's queue holds nothing that the tail does not. It is dropped when it overflows, or
//! when the tail moves past what is in it; the subscriber then reads the storage at its own pace.

use std::{
    collections::{HashMap, VecDeque},
    slice,
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;
use stategate_metrics::{Counter, Gauge};
use stategate_model::{
    EntityRef, Event, EventId, Heads, KindRef, Lane, Lanes, Position, value::Corrupt,
};
use stategate_protocol::{Encoded, encode_event};
use tokio::sync::{Notify, watch};

use crate::{
    pieces,
    selection::{Looked, Selection},
};

/// Most events a subscriber may have waiting before it is moved to the storage.
const QUEUE_EVENTS: usize = 1_024;
/// Most bytes of them.
const QUEUE_BYTES: usize = 1 << 20;
/// Most events handed to an attaching subscriber under the lock; with more it reads on first.
const ATTACH_EVENTS: usize = 256;
/// Most bytes of them: a part of its queue, so that there is room for what comes next.
const ATTACH_BYTES: usize = QUEUE_BYTES / 4;
/// Most bytes of events that are looked at together, one at least: filters make up to a hundred times as
/// much of them meanwhile.
const LOOKED_BYTES: usize = 256 << 10;
/// Most (domain, type) pairs whose subscribers are remembered.
const KINDS: usize = 10_000;

/// An event of the tail.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) event: Event,
    encoded: OnceLock<Encoded>,
    /// Of the encoding, where that is sent in pieces.
    digest: OnceLock<u64>,
}

impl Entry {
    /// An event, and its encoding where it came with one.
    pub(crate) fn new(mut event: Event, encoded: Option<Encoded>) -> Self {
        event.values = event.values.lean();
        Self {
            event,
            encoded: encoded.map_or_else(OnceLock::new, OnceLock::from),
            digest: OnceLock::new(),
        }
    }

    /// Bytes the entry may come to hold: the event, and its encoding. An array of digits is five and a half
    /// times as large as protobuf as it is as JSON.
    fn size(&self) -> usize {
        const ENCODED: usize = 6;
        self.event.size() + self.event.values.size() * ENCODED
    }

    /// The event's bytes, encoded by whoever needs them first.
    pub(crate) fn encoded(&self) -> Result<Encoded, Corrupt> {
        if let Some(encoded) = self.encoded.get() {
            return Ok(encoded.clone());
        }
        let encoded = encode_event(&self.event)?;
        Ok(self.encoded.get_or_init(|| encoded).clone())
    }

    /// What tells its encoding from another of the same event; the same for every subscriber.
    pub(crate) fn digest(&self, encoded: &Encoded) -> u64 {
        *self.digest.get_or_init(|| pieces::digest(encoded))
    }
}

/// How much of the log is kept in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TailBounds {
    /// Most events of a lane.
    pub(crate) events: usize,
    /// Most bytes of a lane.
    pub(crate) bytes: usize,
}

/// The tail of one lane: consecutive events up to its head.
#[derive(Debug, Default)]
struct Tail {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    head: Position,
    /// The id of the event at the head; `None` when it is not known.
    head_id: Option<EventId>,
    /// The last of those that came at once and were too much for the tail. Queues hold them until more
    /// comes, so that who keeps up gets them.
    unkept: Option<Position>,
}

impl Tail {
    /// The position after which the tail has everything.
    fn reaches_back_to(&self) -> Position {
        Position::new(self.head.get() - self.entries.len() as u64)
    }

    fn restart(&mut self, head: Position) {
        *self = Self {
            head,
            ..Self::default()
        };
    }
}

/// A subscriber's side of the hub.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) selection: Selection,
    queue: Mutex<Queue>,
    /// Told when something was queued, or the subscriber was detached.
    pub(crate) changed: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    /// How many of the first were there when it attached, and may not be wanted.
    left: usize,
    /// The subscriber is off the tail; its queue was dropped.
    detached: bool,
}

impl Queue {
    fn pop(&mut self) -> Option<Arc<Entry>> {
        let entry = self.entries.pop_front()?;
        self.bytes = self.bytes.saturating_sub(entry.event.size());
        Some(entry)
    }

    fn detach(&mut self) {
        *self = Self {
            detached: true,
            ..Self::default()
        };
    }
}

/// What a subscriber finds in its queue.
#[derive(Debug)]
pub(crate) enum Taken {
    /// Nothing is queued.
    Nothing,
    /// An event that was there when the subscriber attached, and may not be wanted.
    Left(Arc<Entry>),
    /// These events, which are wanted.
    Offered(Vec<Arc<Entry>>),
    /// It fell behind and has to read the storage.
    FellBehind,
}

impl Subscriber {
    pub(crate) fn new(selection: Selection) -> Self {
        Self {
            selection,
            queue: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Takes the first of what was queued, about `most` bytes of it.
    pub(crate) fn take(&self, most: usize) -> Taken {
        let mut queue = self.queue.lock();
        if queue.detached {
            return Taken::FellBehind;
        }
        if queue.left > 0 {
            queue.left -= 1;
            return queue.pop().map_or(Taken::Nothing, Taken::Left);
        }
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(entry) = queue.entries.front() {
            bytes += entry.event.size();
            if bytes > most && !taken.is_empty() {
                break;
            }
            taken.extend(queue.pop());
        }
        match taken.is_empty() {
            true => Taken::Nothing,
            false => Taken::Offered(taken),
        }
    }

    /// Drops the queue if it holds an event of the lane up to a position. Whether it did.
    fn detach_if_behind(&self, lane: Lane, gone: Position) -> bool {
        let mut queue = self.queue.lock();
        let oldest = queue.entries.iter().find(|entry| entry.event.lane == lane);
        let is_behind = oldest.is_some_and(|entry| entry.event.position <= gone);
        if is_behind {
            queue.detach();
        }
        is_behind
    }

    /// Queues those of consecutive events of one (domain, type) that match; `looked` are the same events.
    fn offer(&self, entries: &[Arc<Entry>], looked: &[Looked<'_>]) -> Offered {
        // Locked at the first that matches.
        let mut queue = None;
        let mut offered = 0;
        for (entry, looked) in entries.iter().zip(looked) {
            // An event that cannot be read is left to the subscriber, which reports it.
            if !self.selection.matches_within_kind(looked).unwrap_or(true) {
                continue;
            }
            let queue = queue.get_or_insert_with(|| self.queue.lock());
            if queue.detached {
                break;
            }
            offered += 1;
            // The tail counts what else an entry holds; a queue shares it.
            let size = entry.event.size();
            let full = queue.entries.len() >= QUEUE_EVENTS || queue.bytes + size > QUEUE_BYTES;
            if full && !queue.entries.is_empty() {
                queue.detach();
                return Offered::TooMuch(offered);
            }
            queue.bytes += size;
            queue.entries.push_back(Arc::clone(entry));
        }
        Offered::Queued(offered)
    }
}

/// How many events were offered to a subscriber that match, and whether they fitted.
#[derive(Debug, Clone, Copy)]
enum Offered {
    /// All are queued.
    Queued(u64),
    /// The queue was dropped.
    TooMuch(u64),
}

/// Identifies an attached subscriber.
pub(crate) type Slot = u64;

/// The tails of all lanes and the subscribers on them.
#[derive(Debug)]
pub(crate) struct Hub {
    state: Mutex<State>,
    bounds: TailBounds,
    /// Whether anybody listens.
    is_listened_to: watch::Sender<bool>,
    meters: Meters,
}

#[derive(Debug)]
struct State {
    tails: Vec<Tail>,
    /// Subscriptions there are, attached or not. Without any, nothing is kept.
    subscriptions: usize,
    /// Counts how often the log went back; a subscription of an earlier count ends.
    epoch: u64,
    /// Counts how often the tails were started anew, for whatever reason.
    restarts: u64,
    attached: HashMap<Slot, Arc<Subscriber>>,
    next_slot: Slot,
    /// Subscribers of exactly one entity.
    exact: HashMap<EntityRef, Vec<Slot>>,
    /// All the others.
    globs: Vec<Slot>,
    /// Which of them a (domain, type) concerns; emptied when `globs` changes.
    kinds: HashMap<KindRef, Seats>,
}

/// Subscribers and where they are.
type Seats = Arc<[(Slot, Arc<Subscriber>)]>;

struct Meters {
    subscriptions: Gauge,
    attached: Gauge,
    tail_bytes: Gauge,
    detached: Counter,
    delivered: Counter,
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meters")
    }
}

/// What an attempt to attach came to.
#[derive(Debug)]
pub(crate) enum Attach {
    /// On the tail: what is left of it is queued, and what comes will be.
    Attached(Slot),
    /// Not yet: these events come first, and there are more after them.
    ReadOn(Vec<Arc<Entry>>),
    /// The tail does not reach back that far in this lane: read the storage.
    Behind(Lane),
}

impl Hub {
    /// An empty hub over the lanes of a log.
    pub(crate) fn new(lanes: Lanes, bounds: TailBounds) -> Self {
        Self {
            state: Mutex::new(State {
                tails: lanes.iter().map(|_| Tail::default()).collect(),
                subscriptions: 0,
                epoch: 0,
                restarts: 0,
                attached: HashMap::new(),
                next_slot: 0,
                exact: HashMap::new(),
                globs: Vec::new(),
                kinds: HashMap::new(),
            }),
            bounds,
            is_listened_to: watch::Sender::new(false),
            meters: Meters {
                subscriptions: stategate_metrics::SUBSCRIPTIONS.get(),
                attached: stategate_metrics::SUBSCRIPTIONS_LIVE.get(),
                tail_bytes: stategate_metrics::TAIL_BYTES.get(),
                detached: stategate_metrics::SUBSCRIPTIONS_FELL_BEHIND.get(),
                delivered: stategate_metrics::EVENTS_FANNED_OUT.get(),
            },
        }
    }

    /// Counts a subscription in; answers the epoch it belongs to.
    ///
    /// `heads` were read just now: after a time without subscribers the tails start from there.
    pub(crate) fn enter(&self, heads: &Heads) -> u64 {
        let mut state = self.state.lock();
        if state.subscriptions == 0 {
            state.restarts += 1;
            for (lane, head) in heads.iter() {
                if let Some(tail) = state.tails.get_mut(lane.index()) {
                    tail.restart(head);
                }
            }
            self.is_listened_to.send_replace(true);
        }
        state.subscriptions += 1;
        #[allow(clippy::cast_precision_loss, reason = "a gauge")]
        self.meters.subscriptions.set(state.subscriptions as f64);
        state.epoch
    }

    /// Counts a subscription out.
    pub(crate) fn leave(&self, slot: Option<Slot>) {
        let mut state = self.state.lock();
        if let Some(slot) = slot {
            self.remove(&mut state, slot);
        }
        state.subscriptions = state.subscriptions.saturating_sub(1);
        if state.subscriptions == 0 {
            self.is_listened_to.send_replace(false);
            for tail in &mut state.tails {
                tail.restart(tail.head);
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "a gauge")]
        self.meters.subscriptions.set(state.subscriptions as f64);
    }

    /// Whether nobody listens.
    pub(crate) fn is_idle(&self) -> bool {
        self.state.lock().subscriptions == 0
    }

    /// Whether anybody listens, for those who wait for it to change.
    pub(crate) fn listened_to(&self) -> watch::Receiver<bool> {
        self.is_listened_to.subscribe()
    }

    /// How often the log went back so far.
    pub(crate) fn epoch(&self) -> u64 {
        self.state.lock().epoch
    }

    /// How often the tails were started anew so far.
    pub(crate) fn restarts(&self) -> u64 {
        self.state.lock().restarts
    }

    /// The head of a lane's tail, and the id there if it is known.
    pub(crate) fn head(&self, lane: Lane) -> (Position, Option<EventId>) {
        let state = self.state.lock();
        state
            .tails
            .get(lane.index())
            .map_or_else(Default::default, |tail| (tail.head, tail.head_id))
    }

    /// Puts a subscriber on the tail if it is close enough. Otherwise it reads on by about `part` bytes
    /// of the tail at a time.
    pub(crate) fn attach(
        &self,
        subscriber: &Arc<Subscriber>,
        lanes: &[Lane],
        cursor: &Heads,
        part: usize,
    ) -> Attach {
        let mut state = self.state.lock();
        let (mut left, mut bytes) = (VecDeque::new(), 0);
        for lane in lanes {
            let Some(tail) = state.tails.get(lane.index()) else {
                continue;
            };
            let at = cursor.get(*lane);
            if at < tail.reaches_back_to() {
                return Attach::Behind(*lane);
            }
            // A subscriber that read the storage may be ahead of the tail; what it has is passed over.
            let skip =
                usize::try_from(at.get() - tail.reaches_back_to().get()).unwrap_or(usize::MAX);
            for entry in tail.entries.iter().skip(skip) {
                bytes += entry.event.size();
                left.push_back(Arc::clone(entry));
                if left.len() > ATTACH_EVENTS || (bytes > ATTACH_BYTES && left.len() > 1) {
                    return Attach::ReadOn(first_of(left, part));
                }
            }
        }
        *subscriber.queue.lock() = Queue {
            left: left.len(),
            entries: left,
            bytes,
            detached: false,
        };
        let slot = state.next_slot;
        state.next_slot += 1;
        state.attached.insert(slot, Arc::clone(subscriber));
        match subscriber.selection.entity() {
            Some(entity) => state.exact.entry(entity).or_default().push(slot),
            None => {
                state.globs.push(slot);
                state.kinds.clear();
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "a gauge")]
        self.meters.attached.set(state.attached.len() as f64);
        Attach::Attached(slot)
    }

    /// Everything a subscriber has seen once its queue is empty: the heads of the tails. `None` when
    /// something is queued or it is not attached.
    pub(crate) fn seen(&self, subscriber: &Subscriber) -> Option<Heads> {
        let state = self.state.lock();
        let queue = subscriber.queue.lock();
        (queue.entries.is_empty() && !queue.detached)
            .then(|| Heads::new(state.tails.iter().map(|tail| tail.head).collect()))
    }

    /// Adds events that continue a lane's tail and hands them to those they concern. What the tail
    /// has already is passed over; what does not continue it is not taken.
    pub(crate) fn extend(&self, lane: Lane, entries: Vec<Entry>) {
        let mut state = self.state.lock();
        if state.subscriptions == 0 {
            return;
        }
        let Some(tail) = state.tails.get_mut(lane.index()) else {
            return;
        };
        let first_new = tail.head.next();
        let mut new = Vec::with_capacity(entries.len());
        for entry in entries {
            if entry.event.position != tail.head.next() {
                if entry.event.position > tail.head {
                    break;
                }
                continue;
            }
            let entry = Arc::new(entry);
            tail.head = entry.event.position;
            tail.head_id = Some(entry.event.id);
            tail.bytes += entry.size();
            tail.entries.push_back(Arc::clone(&entry));
            new.push(entry);
        }
        if new.is_empty() {
            return;
        }
        let mut gone = tail.unkept.take();
        while tail.entries.len() > self.bounds.events || tail.bytes > self.bounds.bytes {
            let Some(oldest) = tail.entries.pop_front() else {
                break;
            };
            tail.bytes -= oldest.size();
            if oldest.event.position >= first_new {
                tail.unkept = Some(oldest.event.position);
            } else if Arc::strong_count(&oldest) > 1 {
                // In a queue still.
                gone = Some(oldest.event.position);
            }
        }
        let mut woken = Vec::new();
        if let Some(gone) = gone {
            self.leave_behind(&mut state, lane, gone, &mut woken);
        }
        for run in new.chunk_by(|a, b| a.event.entity.is_of_the_kind_of(&b.event.entity)) {
            let mut rest = run;
            while !rest.is_empty() {
                let (part, after) = rest.split_at(fitting(rest, LOOKED_BYTES));
                self.fan_out(&mut state, part, &mut woken);
                rest = after;
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "a gauge")]
        self.meters
            .tail_bytes
            .set(state.tails.iter().map(|tail| tail.bytes).sum::<usize>() as f64);
        drop(state);
        for subscriber in woken {
            subscriber.changed.notify_one();
        }
    }

    /// Takes those off the tail that have not passed what it no longer has.
    fn leave_behind(
        &self,
        state: &mut State,
        lane: Lane,
        gone: Position,
        woken: &mut Vec<Arc<Subscriber>>,
    ) {
        let attached = state.attached.iter();
        let behind: Vec<_> = attached
            .filter(|(_, subscriber)| subscriber.detach_if_behind(lane, gone))
            .map(|(slot, subscriber)| (*slot, Arc::clone(subscriber)))
            .collect();
        for (slot, subscriber) in behind {
            self.meters.detached.increment(1);
            self.remove(state, slot);
            woken.push(subscriber);
        }
    }

    /// Hands consecutive events of one (domain, type) to those they concern.
    fn fan_out(&self, state: &mut State, run: &[Arc<Entry>], woken: &mut Vec<Arc<Subscriber>>) {
        let Some(first) = run.first() else { return };
        let looked: Vec<_> = run.iter().map(|entry| Looked::at(&entry.event)).collect();
        let mut behind = Vec::new();
        let mut offer = |slot: Slot,
                         subscriber: &Arc<Subscriber>,
                         entries: &[Arc<Entry>],
                         looked: &[Looked<'_>]| {
            let delivered = match subscriber.offer(entries, looked) {
                Offered::Queued(0) => return,
                Offered::Queued(delivered) => delivered,
                Offered::TooMuch(delivered) => {
                    behind.push(slot);
                    delivered
                }
            };
            self.meters.delivered.increment(delivered);
            woken.push(Arc::clone(subscriber));
        };
        if !state.exact.is_empty() {
            for (entry, looked) in run.iter().zip(&looked) {
                for slot in state.exact.get(&entry.event.entity).into_iter().flatten() {
                    if let Some(subscriber) = state.attached.get(slot) {
                        let (entry, looked) = (slice::from_ref(entry), slice::from_ref(looked));
                        offer(*slot, subscriber, entry, looked);
                    }
                }
            }
        }
        if !state.globs.is_empty() {
            for (slot, subscriber) in globs_of(state, &first.event.entity).iter() {
                offer(*slot, subscriber, run, &looked);
            }
        }
        for slot in behind {
            self.meters.detached.increment(1);
            self.remove(state, slot);
        }
    }

    fn remove(&self, state: &mut State, slot: Slot) {
        let Some(subscriber) = state.attached.remove(&slot) else {
            return;
        };
        match subscriber.selection.entity() {
            Some(entity) => {
                if let Some(slots) = state.exact.get_mut(&entity) {
                    slots.retain(|other| *other != slot);
                    if slots.is_empty() {
                        state.exact.remove(&entity);
                    }
                }
            }
            None => {
                state.globs.retain(|other| *other != slot);
                state.kinds.clear();
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "a gauge")]
        self.meters.attached.set(state.attached.len() as f64);
    }

    /// The log went back: every subscription ends, and the tails start anew.
    pub(crate) fn rewind(&self, heads: &Heads) {
        let mut state = self.state.lock();
        state.epoch += 1;
        state.restarts += 1;
        for (lane, head) in heads.iter() {
            if let Some(tail) = state.tails.get_mut(lane.index()) {
                tail.restart(head);
            }
        }
        let slots: Vec<Slot> = state.attached.keys().copied().collect();
        let ended: Vec<_> = state.attached.values().cloned().collect();
        for slot in slots {
            self.remove(&mut state, slot);
        }
        drop(state);
        for subscriber in ended {
            subscriber.queue.lock().detached = true;
            subscriber.changed.notify_one();
        }
    }
}

/// The first of some events, about so many bytes of them and at least one.
fn first_of(mut entries: VecDeque<Arc<Entry>>, most: usize) -> Vec<Arc<Entry>> {
    let fitting = fitting(&entries, most);
    entries.truncate(fitting);
    entries.into()
}

/// How many of the first events are about so many bytes: at least one, if there is one.
fn fitting<'a>(entries: impl IntoIterator<Item = &'a Arc<Entry>>, most: usize) -> usize {
    let mut bytes: usize = 0;
    let mut entries = entries.into_iter();
    let Some(first) = entries.next() else {
        return 0;
    };
    bytes += first.event.size();
    let fitting = entries.take_while(|entry| {
        bytes += entry.event.size();
        bytes <= most
    });
    1 + fitting.count()
}

/// The glob subscribers that a domain and type concern.
fn globs_of(state: &mut State, entity: &EntityRef) -> Seats {
    // Names of an entity are legal by construction; a pair that were not would concern nobody.
    let Ok(kind) = KindRef::new(entity.domain(), entity.kind()) else {
        return Arc::from([]);
    };
    if let Some(seats) = state.kinds.get(&kind) {
        return Arc::clone(seats);
    }
    let concerned = state.globs.iter().filter_map(|slot| {
        let subscriber = state.attached.get(slot)?;
        subscriber
            .selection
            .matches_kind(entity.domain(), entity.kind())
            .then(|| (*slot, Arc::clone(subscriber)))
    });
    let seats: Seats = concerned.collect();
    if state.kinds.len() >= KINDS {
        state.kinds.clear();
    }
    state.kinds.insert(kind, Arc::clone(&seats));
    seats
}

#[cfg(test)]
mod tests {
    use stategate_model::{Claims, Method, Timestamp, Values, Version};
    use stategate_protocol::pb;

    use super::*;

    const PART: usize = 32 << 10;

    fn subscriber(domain: &str) -> Arc<Subscriber> {
        let opts = pb::StreamOpts {
            domain: domain.to_owned(),
            r#type: "*".to_owned(),
            ..pb::StreamOpts::default()
        };
        Arc::new(Subscriber::new(Selection::parse(&opts).unwrap()))
    }

    fn entry(domain: &str, position: u64) -> Entry {
        let text = format!(r#"{{"a":"{}"}}"#, "x".repeat(1_000));
        let event = Event {
            id: EventId::fresh(Timestamp(0)),
            entity: EntityRef::new(domain, "t", "k").unwrap(),
            values: Values::from_canonical(&*text),
            version: Version::new(position),
            lane: Lane(0),
            position: Position::new(position),
            time: Timestamp(0),
            method: Method::Set,
            claims: Claims::none(),
            trace_parent: None,
        };
        Entry::new(event, None)
    }

    fn hub() -> Hub {
        let bounds = TailBounds {
            events: 100,
            bytes: usize::MAX,
        };
        let hub = Hub::new(Lanes::ONE, bounds);
        hub.enter(&Heads::beginning(Lanes::ONE));
        hub
    }

    fn attach(hub: &Hub, subscriber: &Arc<Subscriber>) {
        let cursor = Heads::beginning(Lanes::ONE);
        let attached = hub.attach(subscriber, &[Lane(0)], &cursor, PART);
        assert!(matches!(attached, Attach::Attached(_)), "{attached:?}");
    }

    #[test]
    fn a_queue_holds_nothing_that_the_tail_does_not() {
        let hub = hub();
        let (stalled, other) = (subscriber("seldom"), subscriber("seldom"));
        attach(&hub, &stalled);
        attach(&hub, &other);
        hub.extend(Lane(0), vec![entry("seldom", 1)]);
        assert!(matches!(other.take(PART), Taken::Offered(taken) if taken.len() == 1));
        for position in 2..=100 {
            hub.extend(Lane(0), vec![entry("often", position)]);
        }
        assert_eq!(
            stalled.queue.lock().entries.len(),
            1,
            "it is in the tail still"
        );
        hub.extend(Lane(0), vec![entry("often", 101)]);
        // Far from full, and of no more use: what it holds is in the log alone.
        assert!(matches!(stalled.take(PART), Taken::FellBehind));
        assert!(matches!(other.take(PART), Taken::Nothing));
    }

    #[test]
    fn a_queue_holds_what_is_too_much_for_the_tail_until_more_comes() {
        let bounds = TailBounds {
            events: 100,
            bytes: 1,
        };
        let hub = Hub::new(Lanes::ONE, bounds);
        hub.enter(&Heads::beginning(Lanes::ONE));
        let (stalled, other) = (subscriber("d"), subscriber("d"));
        attach(&hub, &stalled);
        attach(&hub, &other);
        for position in 1..=3 {
            hub.extend(Lane(0), vec![entry("d", position)]);
            assert!(matches!(other.take(PART), Taken::Offered(taken) if taken.len() == 1));
        }
        assert!(matches!(stalled.take(PART), Taken::FellBehind));
        assert!(matches!(other.take(PART), Taken::Nothing));
    }

    #[test]
    fn what_filters_make_of_an_event_is_not_kept() {
        let hub = hub();
        let opts = pb::StreamOpts {
            domain: "*".to_owned(),
            r#type: "*".to_owned(),
            query_string: r#"{"entity.values.a":"x","claims.sub":"x"}"#.to_owned(),
            ..pb::StreamOpts::default()
        };
        let filtering = Arc::new(Subscriber::new(Selection::parse(&opts).unwrap()));
        attach(&hub, &filtering);
        let wanted = |position| {
            let mut wanted = entry("d", position);
            wanted.event.values = Values::from_canonical(r#"{"a":"x"}"#);
            let claims = Values::from_canonical(r#"{"sub":"x"}"#);
            wanted.event.claims = Claims::from_stored(claims);
            wanted
        };
        hub.extend(Lane(0), vec![entry("d", 1), wanted(2)]);
        let Taken::Offered(taken) = filtering.take(PART) else {
            panic!("it matches");
        };
        assert_eq!(taken.len(), 1);
        let event = &taken.first().unwrap().event;
        assert_eq!(event.position, Position::new(2));
        assert!(filtering.selection.matches(event).unwrap());
        assert!(!event.values.has_tree() && !event.claims.values().has_tree());
    }

    #[test]
    fn what_is_taken_at_once_is_bounded() {
        let hub = hub();
        let reader = subscriber("d");
        attach(&hub, &reader);
        hub.extend(Lane(0), (1..=90).map(|n| entry("d", n)).collect());
        let mut taken = Vec::new();
        loop {
            match reader.take(PART) {
                Taken::Nothing => break,
                Taken::Offered(part) => {
                    let bytes: usize = part.iter().map(|entry| entry.event.size()).sum();
                    assert!(bytes <= PART, "{bytes}");
                    taken.extend(part.iter().map(|entry| entry.event.position.get()));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(taken, (1..=90).collect::<Vec<_>>());
        // One that comes later finds what is left in its queue, and reads on where that is much.
        let late = subscriber("d");
        attach(&hub, &late);
        assert!(matches!(late.take(PART), Taken::Left(first) if first.event.position.get() == 1));
        let one = late.take(1);
        assert!(matches!(one, Taken::Left(second) if second.event.position.get() == 2));
    }
}
