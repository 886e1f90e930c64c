//! One subscriber: a cursor into the log that reads the tail in memory while it keeps up, and the storage while
//! it does not. Whichever it reads, it passes every position once and in order.

use std::{
    slice,
    sync::{Arc, Weak},
    time::Duration,
};

use futures::{Stream, TryStreamExt as _, stream};
use stategate_api::{Delivery, GateWatch, Problem, Undelivered};
use stategate_model::{Heads, Lane, Position};
use stategate_storage::Storage;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::Permit,
    catchup::{Budget, Part, RETRY, Reader},
    hub::{Attach, Entry, Hub, Subscriber, SubscriberId, Taken},
    pieces::{Begun, LARGE, before},
};

/// Silence after which a subscriber that asked for it is told how far it is.
const PROGRESS: Duration = Duration::from_secs(10);
/// How long the rest of an event is read for once the process ends.
const LAST_READ: Duration = Duration::from_secs(2);
/// Most bytes that are taken at once, from the tail or from a page, and so held for a client that
/// does not read; a large event is taken in pieces of so many bytes. The rest stays where it can be dropped.
const PART: usize = 32 << 10;

/// What all subscriptions of a service share.
pub(crate) struct Shared {
    pub(crate) hub: Arc<Hub>,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) end: CancellationToken,
}

/// A subscription at work.
pub(crate) struct Subscription {
    shared: Shared,
    subscriber: Arc<Subscriber>,
    reader: Reader,
    lanes: Vec<Lane>,
    /// How far each lane was passed.
    cursor: Heads,
    /// The positions that the client knows, from its start token, its events and progress messages.
    reported: Heads,
    epoch: u64,
    _permit: Permit,
    place: Place,
    /// What `next` returns next: the cursor is past it.
    ready: Vec<Delivery>,
    /// The large event that is being delivered. Nothing else is before its end.
    begun: Option<Begun>,
    /// The tail's entry of the event in `begun`. If the tail has dropped it, the rest is read from the storage.
    in_tail: Weak<Entry>,
    progress: bool,
    spoken: Instant,
    /// Tells when the subscriber may not be permitted to go on.
    permission: GateWatch,
    /// How often the policies were replaced when events were judged last.
    replaced: u64,
    ended: bool,
}

enum Place {
    /// Reading the storage.
    Storage,
    /// On the tail.
    Tail(SubscriberId),
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let id = match self.place {
            Place::Tail(id) => Some(id),
            Place::Storage => None,
        };
        self.shared.hub.leave(id);
    }
}

impl Subscription {
    /// A subscription that was counted in at `epoch`, from `cursor` on.
    pub(crate) fn new(
        shared: Shared,
        subscriber: Subscriber,
        lanes: Vec<Lane>,
        cursor: Heads,
        epoch: u64,
        permit: Permit,
        progress: bool,
    ) -> Self {
        let permission = subscriber.gate.watch();
        let replaced = subscriber.gate.replacements();
        let subscriber = Arc::new(subscriber);
        let reader = Reader::new(
            Arc::clone(&shared.budget),
            Arc::clone(&shared.storage),
            Arc::clone(&subscriber),
        );
        Self {
            shared,
            subscriber,
            reader,
            lanes,
            reported: cursor.clone(),
            cursor,
            epoch,
            _permit: permit,
            place: Place::Storage,
            ready: Vec::new(),
            begun: None,
            in_tail: Weak::new(),
            progress,
            spoken: Instant::now(),
            permission,
            replaced,
            ended: false,
        }
    }

    /// What is to be sent.
    pub(crate) fn into_stream(self) -> impl Stream<Item = Result<Delivery, Problem>> + Send {
        let parts = stream::unfold(self, |mut subscription| async move {
            if subscription.ended {
                return None;
            }
            let part = subscription.next().await;
            subscription.ended = part.is_err();
            let part = part.map(|ready| stream::iter(ready.into_iter().map(Ok)));
            Some((part, subscription))
        });
        parts.try_flatten()
    }

    /// Some events or pieces, in order; at least one.
    async fn next(&mut self) -> Result<Vec<Delivery>, Problem> {
        loop {
            if !self.ready.is_empty() {
                self.spoken = Instant::now();
                return Ok(std::mem::take(&mut self.ready));
            }
            if let Some(begun) = &self.begun {
                // A message that was begun is not left without its end, if that can be had.
                let lane = begun.pass.lane();
                self.go_on(lane).await?;
                continue;
            }
            if self.shared.end.is_cancelled() {
                return Err(Problem::ShuttingDown);
            }
            if self.shared.hub.epoch() != self.epoch {
                return Err(Problem::LogRewound);
            }
            self.subscriber.gate.check()?;
            let replaced = self.subscriber.gate.replacements();
            if replaced != self.replaced {
                // What was read of the storage was judged by the policies before.
                self.replaced = replaced;
                self.reader.discard();
            }
            // A queue of events that are all for others is no reason to keep this thread.
            tokio::task::consume_budget().await;
            if self.progress && self.spoken.elapsed() >= PROGRESS {
                self.say_progress();
                continue;
            }
            match self.place {
                Place::Storage => match self.reader.take(PART, &mut self.begun) {
                    Some(part) => self.pass_part(part),
                    None => self.approach().await?,
                },
                Place::Tail(_) => match self.subscriber.take(PART) {
                    Taken::Empty => self.wait().await,
                    Taken::Backlog(entry) => self.pass_selected(slice::from_ref(&entry))?,
                    Taken::Matched(entries) => {
                        for entry in &entries {
                            self.pass(entry, entries.len())?;
                        }
                    }
                    // The hub has detached the subscriber and removed its id.
                    Taken::FellBehind => self.place = Place::Storage,
                },
            }
        }
    }

    /// Waits until something is queued, or there is something else to say.
    async fn wait(&mut self) {
        let silence = async {
            if self.progress {
                sleep_until(self.spoken + PROGRESS).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = self.subscriber.changed.notified() => {}
            () = self.shared.end.cancelled() => {}
            () = self.permission.changed() => {}
            () = silence => {}
        }
    }

    /// Comes closer to the tail, or attaches to it.
    async fn approach(&mut self) -> Result<(), Problem> {
        match self
            .shared
            .hub
            .attach(&self.subscriber, &self.lanes, &self.cursor, PART)
        {
            Attach::Attached(id) => {
                self.place = Place::Tail(id);
                Ok(())
            }
            Attach::ReadOn(entries) => self.pass_selected(&entries),
            Attach::Behind(lane) => self.read(lane).await,
        }
    }

    /// Passes events of the tail that may not be wanted.
    fn pass_selected(&mut self, entries: &[Arc<Entry>]) -> Result<(), Problem> {
        for entry in entries {
            let selected = self.subscriber.selection.matches(&entry.event);
            if selected.map_err(|corrupt| Problem::internal(&corrupt))? {
                self.pass(entry, entries.len())?;
            } else {
                self.move_to(entry.event.lane, entry.event.position);
            }
        }
        Ok(())
    }

    /// Passes an event that is to be delivered, unless it was passed before; it is one of `taken` that were
    /// taken at once. Those are small together, and a large event is one alone.
    fn pass(&mut self, entry: &Arc<Entry>, taken: usize) -> Result<(), Problem> {
        let (lane, position) = (entry.event.lane, entry.event.position);
        if position <= self.cursor.get(lane) {
            return Ok(());
        }
        let delivery = self
            .subscriber
            .deliver(&entry.event, &entry.verdicts, || entry.encoded());
        let delivery = delivery.map_err(Undelivered::problem)?;
        let Some(delivery) = delivery else {
            self.move_to(lane, position);
            return Ok(());
        };
        if taken == 1 && delivery.encoded().len() > LARGE {
            self.move_to(lane, before(position));
            let digest = Some(entry.digest(delivery.encoded()));
            self.begun = Begun::new(&delivery, digest);
            self.in_tail = Arc::downgrade(entry);
            self.deliver_piece(&delivery);
            return Ok(());
        }
        self.move_to(lane, position);
        self.deliver(lane, position, delivery);
        Ok(())
    }

    /// Delivers the next piece of the event that was begun.
    async fn go_on(&mut self, lane: Lane) -> Result<(), Problem> {
        if let (Some(entry), Some(begun)) = (self.in_tail.upgrade(), &self.begun) {
            let encode = || entry.encoded().map(|encoded| encoded.0);
            let delivery = begun.pass.deliver(&entry.event, encode);
            let delivery = delivery.map_err(|corrupt| Problem::internal(&corrupt))?;
            if let Some(delivery) = delivery {
                self.deliver_piece(&delivery);
                return Ok(());
            }
        }
        if let Some(part) = self.reader.take(PART, &mut self.begun) {
            self.pass_part(part);
            return Ok(());
        }
        if self.shared.hub.epoch() != self.epoch {
            return Err(Problem::LogRewound);
        }
        self.read(lane).await
    }

    fn deliver_piece(&mut self, delivery: &Delivery) {
        let Some(begun) = &mut self.begun else {
            return;
        };
        self.ready.push(begun.piece(delivery, PART));
        if begun.is_sent() {
            let (lane, position) = (begun.pass.lane(), begun.pass.position());
            self.begun = None;
            self.in_tail = Weak::new();
            self.reported.set(lane, position);
            self.move_to(lane, position);
        }
    }

    /// Passes what was read of the storage.
    fn pass_part(&mut self, part: Part) {
        for (position, delivery) in part.events {
            if self.move_to(part.lane, position) {
                self.deliver(part.lane, position, delivery);
            }
        }
        if let Some(piece) = part.piece {
            self.ready.push(piece.part);
            if piece.is_last {
                self.reported.set(part.lane, piece.position);
                self.in_tail = Weak::new();
                if let Place::Tail(_) = self.place {
                    // What else was read with it comes by the queue.
                    self.reader.discard();
                }
            }
        }
        self.move_to(part.lane, part.reached);
    }

    fn deliver(&mut self, lane: Lane, position: Position, delivery: Delivery) {
        self.reported.set(lane, position);
        self.ready.push(delivery);
    }

    /// Moves the cursor to a position; `false` if it is there already.
    fn move_to(&mut self, lane: Lane, position: Position) -> bool {
        let ahead = position > self.cursor.get(lane);
        if ahead {
            self.cursor.set(lane, position);
        }
        ahead
    }

    /// Reads a page of a lane from the storage.
    async fn read(&mut self, lane: Lane) -> Result<(), Problem> {
        let after = self.cursor.get(lane);
        // The rest of an event that was begun is still read at the end, if that does not take long.
        let is_begun = self.begun.is_some();
        let end = async {
            self.shared.end.cancelled().await;
            if is_begun {
                sleep(LAST_READ).await;
            }
        };
        let part = tokio::select! {
            () = end => return Err(Problem::ShuttingDown),
            read = self.reader.read(lane, after, PART, &mut self.begun) => read?,
        };
        match part {
            Some(part) => self.pass_part(part),
            None if self.shared.end.is_cancelled() => return Err(Problem::ShuttingDown),
            // The tail has what the log does not: the log went back, and the follower is about to see it.
            None => sleep(RETRY).await,
        }
        Ok(())
    }

    /// Says how far the subscriber is: every lane that is further than the client knows, or one of
    /// them at least.
    fn say_progress(&mut self) {
        if let (Place::Tail(_), Some(seen)) = (&self.place, self.shared.hub.seen(&self.subscriber))
        {
            for lane in &self.lanes {
                if seen.get(*lane) > self.cursor.get(*lane) {
                    self.cursor.set(*lane, seen.get(*lane));
                }
            }
        }
        let news = self
            .lanes
            .iter()
            .filter(|lane| self.cursor.get(**lane) != self.reported.get(**lane));
        let mut news: Vec<Lane> = news.copied().collect();
        if news.is_empty() {
            news.extend(self.lanes.first());
        }
        for lane in news {
            let position = self.cursor.get(lane);
            self.reported.set(lane, position);
            self.ready.push(Delivery::progress(lane, position));
        }
        self.spoken = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use stategate_api::answer::Sent;
    use stategate_model::{
        Claims, EntityRef, Event, EventId, Lanes, Method, Timestamp, Values, Version,
    };
    use stategate_protocol::{decode_event, pb};
    use stategate_storage::{Appended, Batch, Memory, MemoryConfig};

    use super::*;
    use crate::{
        admission::{Admission, SubscriptionLimits},
        hub::TailBounds,
    };

    const LANE: Lane = Lane(0);

    fn event(position: u64) -> Event {
        // Larger than what is sent at once, and small enough that a page has several.
        let text = format!(r#"{{"a":"{}","n":{position}}}"#, "x".repeat(LARGE));
        Event {
            id: EventId::fresh(Timestamp(0)),
            entity: EntityRef::new("d", "t", "k").unwrap(),
            values: Values::from_canonical(&*text),
            version: Version::new(position),
            lane: LANE,
            position: Position::new(position),
            time: Timestamp(i64::try_from(position).unwrap()),
            method: Method::Set,
            claims: Claims::none(),
            trace_parent: None,
        }
    }

    /// A log, and a tail that keeps the newest event alone.
    struct Bench {
        storage: Arc<dyn Storage>,
        hub: Arc<Hub>,
        written: Vec<Event>,
    }

    impl Bench {
        async fn append(&mut self, events: u64) {
            let first = self.written.len() as u64;
            let events: Vec<_> = (first + 1..=first + events).map(event).collect();
            for event in &events {
                let batch = Arc::new(Batch {
                    events: vec![event.clone()],
                    keys: Vec::new(),
                });
                let before = before(event.position);
                let appended = self.storage.append(LANE, before, batch).await;
                assert_eq!(appended.unwrap(), Appended::Done);
            }
            self.written.extend(events.iter().cloned());
            let entries = events.into_iter().map(|event| Entry::new(event, None));
            self.hub.extend(LANE, entries.collect());
        }

        fn subscribe(&self) -> Subscription {
            let opts = pb::StreamOpts {
                domain: "*".to_owned(),
                r#type: "*".to_owned(),
                ..pb::StreamOpts::default()
            };
            let beginning = Heads::beginning(Lanes::ONE);
            let shared = Shared {
                hub: Arc::clone(&self.hub),
                storage: Arc::clone(&self.storage),
                budget: Budget::new(16 << 20),
                end: CancellationToken::new(),
            };
            let subscriber = Subscriber::selecting(&opts);
            let admission = Arc::new(Admission::new(SubscriptionLimits::default()));
            let permit = admission.admit(None).unwrap();
            let epoch = self.hub.enter(&beginning);
            Subscription::new(
                shared,
                subscriber,
                vec![LANE],
                beginning,
                epoch,
                permit,
                false,
            )
        }
    }

    /// What a client makes of what it is sent.
    #[derive(Default)]
    struct Client {
        length: usize,
        message: Vec<u8>,
        received: Vec<Event>,
    }

    impl Client {
        async fn take(&mut self, subscription: &mut Subscription) {
            for part in subscription.next().await.unwrap() {
                match part.into_sent() {
                    Sent::Event { .. } | Sent::Progress(..) => panic!("they are all large"),
                    Sent::First { length, bytes } => {
                        assert!(self.message.is_empty(), "in the middle of an event");
                        self.length = length;
                        self.message.extend_from_slice(&bytes);
                    }
                    Sent::More(bytes) => self.message.extend_from_slice(&bytes),
                }
                if self.message.len() == self.length {
                    let message = std::mem::take(&mut self.message);
                    self.received.push(decode_event(message.into()).unwrap());
                }
            }
        }
    }

    #[tokio::test]
    async fn a_large_event_goes_on_from_the_storage_when_the_tail_has_dropped_it() {
        let storage = Memory::new(&MemoryConfig::default()).unwrap();
        let bounds = TailBounds {
            events: 1,
            bytes: usize::MAX,
        };
        let mut bench = Bench {
            hub: Arc::new(Hub::new(Lanes::ONE, bounds)),
            storage: Arc::new(storage),
            written: Vec::new(),
        };
        let mut subscription = bench.subscribe();
        subscription.approach().await.unwrap();
        assert!(matches!(subscription.place, Place::Tail(_)));
        let mut client = Client::default();
        bench.append(1).await;
        for written in 1..=12 {
            client.take(&mut subscription).await;
            assert!(subscription.begun.is_some());
            bench.append(1).await;
            assert!(
                subscription.in_tail.upgrade().is_none(),
                "the tail keeps it"
            );
            while client.received.len() < written {
                client.take(&mut subscription).await;
            }
            assert!(matches!(subscription.place, Place::Tail(_)));
        }
        // The last one is in the tail still, and in a page that was read before it.
        while client.received.len() < bench.written.len() {
            client.take(&mut subscription).await;
        }
        // More than a queue holds: the subscriber reads the storage.
        bench.append(30).await;
        while client.received.len() < bench.written.len() {
            client.take(&mut subscription).await;
        }
        assert!(
            client.received == bench.written,
            "other events than were written"
        );
    }
}
