//! The newest events of the log, kept in memory ([`tail`]), and the subscribers that are served from them.
//!
//! A subscriber that has read the log up to the tail is attached: from then on every new event that matches its
//! filter is put into its queue ([`fan_out`], [`queue`]). One lock guards the tail and the list of subscribers, so
//! that no event is added between a subscriber's last read and its attachment. Work under the lock is short and
//! never waits.
//!
//! Memory is bounded by the tail, in bytes and events, for a queue holds only events that the tail holds too. There
//! is one exception: events of a batch that is larger than the tail stay in queues until the next batch (`unkept`).
//! When a queue overflows, or the tail drops an event that is still in it, the queue is dropped and the subscriber
//! is detached: it reads the storage at its own pace until it is near enough to be attached again.

mod fan_out;
mod queue;
mod tail;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use stategate_metrics::{Counter, Gauge};
use stategate_model::{EntityRef, EventId, Heads, KindRef, Lane, Lanes, Position};
use tokio::sync::watch;

use self::{
    fan_out::{LOOKED_BYTES, Recipients},
    queue::{QUEUE_BYTES, Queue},
    tail::{Tail, first_of, fitting},
};
pub(crate) use self::{
    queue::{Subscriber, Taken},
    tail::{Entry, TailBounds},
};

/// Most events handed to an attaching subscriber under the lock; with more it reads on first.
const ATTACH_EVENTS: usize = 256;
/// Most bytes of them: a part of its queue, so that there is room for what comes next.
const ATTACH_BYTES: usize = QUEUE_BYTES / 4;
/// Identifies an attached subscriber.
pub(crate) type SubscriberId = u64;

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
    /// How many subscriptions there are, attached or not. While there are none, no events are kept.
    subscriptions: usize,
    /// How often the log was seen to go back. A subscription that began in an earlier epoch ends.
    epoch: u64,
    /// How often the tails were emptied and restarted, for whatever reason.
    restarts: u64,
    attached: HashMap<SubscriberId, Arc<Subscriber>>,
    next_id: SubscriberId,
    /// Subscribers to one entity each.
    exact: HashMap<EntityRef, Vec<SubscriberId>>,
    /// All other subscribers: their domain, type or key is a pattern, or they name no key.
    globs: Vec<SubscriberId>,
    /// A cache: those of `globs` that match a domain and type. Emptied when `globs` changes.
    kinds: HashMap<KindRef, Recipients>,
}

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

/// The result of an attempt to attach.
#[derive(Debug)]
pub(crate) enum Attach {
    /// Attached: the rest of the tail is in its queue, and new events will be.
    Attached(SubscriberId),
    /// Not attached: these events of the tail come first, and there are more after them.
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
                next_id: 0,
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
    pub(crate) fn leave(&self, id: Option<SubscriberId>) {
        let mut state = self.state.lock();
        if let Some(id) = id {
            self.remove(&mut state, id);
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
        let (mut backlog, mut bytes) = (VecDeque::new(), 0);
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
                backlog.push_back(Arc::clone(entry));
                if backlog.len() > ATTACH_EVENTS || (bytes > ATTACH_BYTES && backlog.len() > 1) {
                    return Attach::ReadOn(first_of(backlog, part));
                }
            }
        }
        *subscriber.queue.lock() = Queue {
            backlog: backlog.len(),
            entries: backlog,
            bytes,
            detached: false,
        };
        let id = state.next_id;
        state.next_id += 1;
        state.attached.insert(id, Arc::clone(subscriber));
        match subscriber.selection.entity() {
            Some(entity) => state.exact.entry(entity).or_default().push(id),
            None => {
                state.globs.push(id);
                state.kinds.clear();
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "a gauge")]
        self.meters.attached.set(state.attached.len() as f64);
        Attach::Attached(id)
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

    /// Detaches those whose queue holds an event that the tail has dropped.
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
            .map(|(id, subscriber)| (*id, Arc::clone(subscriber)))
            .collect();
        for (id, subscriber) in behind {
            self.meters.detached.increment(1);
            self.remove(state, id);
            woken.push(subscriber);
        }
    }

    fn remove(&self, state: &mut State, id: SubscriberId) {
        let Some(subscriber) = state.attached.remove(&id) else {
            return;
        };
        match subscriber.selection.entity() {
            Some(entity) => {
                if let Some(ids) = state.exact.get_mut(&entity) {
                    ids.retain(|other| *other != id);
                    if ids.is_empty() {
                        state.exact.remove(&entity);
                    }
                }
            }
            None => {
                state.globs.retain(|other| *other != id);
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
        let ids: Vec<SubscriberId> = state.attached.keys().copied().collect();
        let ended: Vec<_> = state.attached.values().cloned().collect();
        for id in ids {
            self.remove(&mut state, id);
        }
        drop(state);
        for subscriber in ended {
            subscriber.queue.lock().detached = true;
            subscriber.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use stategate_model::{Claims, Event, Method, Timestamp, Values, Version};
    use stategate_protocol::pb;

    use super::*;

    const PART: usize = 32 << 10;

    fn subscriber(domain: &str) -> Arc<Subscriber> {
        let opts = pb::StreamOpts {
            domain: domain.to_owned(),
            r#type: "*".to_owned(),
            ..pb::StreamOpts::default()
        };
        Arc::new(Subscriber::selecting(&opts))
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
        assert!(matches!(other.take(PART), Taken::Matched(taken) if taken.len() == 1));
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
        assert!(matches!(other.take(PART), Taken::Empty));
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
            assert!(matches!(other.take(PART), Taken::Matched(taken) if taken.len() == 1));
        }
        assert!(matches!(stalled.take(PART), Taken::FellBehind));
        assert!(matches!(other.take(PART), Taken::Empty));
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
        let filtering = Arc::new(Subscriber::selecting(&opts));
        attach(&hub, &filtering);
        let wanted = |position| {
            let mut wanted = entry("d", position);
            wanted.event.values = Values::from_canonical(r#"{"a":"x"}"#);
            let claims = Values::from_canonical(r#"{"sub":"x"}"#);
            wanted.event.claims = Claims::from_stored(claims);
            wanted
        };
        hub.extend(Lane(0), vec![entry("d", 1), wanted(2)]);
        let Taken::Matched(taken) = filtering.take(PART) else {
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
                Taken::Empty => break,
                Taken::Matched(part) => {
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
        assert!(
            matches!(late.take(PART), Taken::Backlog(first) if first.event.position.get() == 1)
        );
        let one = late.take(1);
        assert!(matches!(one, Taken::Backlog(second) if second.event.position.get() == 2));
    }
}
