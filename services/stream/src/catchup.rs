//! Reading the log from the storage, for subscribers that are behind the tail, within one memory budget for all.
//!
//! A subscriber that catches up reads the log page by page. A page is a copy of what the storage has, so it can be
//! dropped at any time and read again from the subscriber's cursor. When a reader needs memory, pages that nothing
//! was taken from for a while are dropped first. So a client that never reads keeps nobody from catching up, and
//! memory is bounded by the budget, however many subscribers there are.
//!
//! Pages are read by tasks of their own: the stream of a subscriber is polled only while its client takes what it
//! is sent, and a read that was not polled would keep its memory.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use stategate_api::{Delivery, Problem, Undelivered, Verdicts};
use stategate_metrics::{Counter, Gauge};
use stategate_model::{Event, Lane, Position};
use stategate_protocol::encode_event;
use stategate_runtime::{caught, of_read};
use stategate_storage::{ErrorKind, ReadLimit, Storage};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    hub::Subscriber,
    pieces::{Begun, LARGE, before},
};

/// What room is counted in: bytes that one permit stands for.
const UNIT: usize = 1 << 10;
/// Bytes of the first page, and of the one after a page that was dropped: a reader that takes nothing
/// costs no more. Every page that was taken makes the next twice as large …
const FIRST: usize = 32 << 10;
/// … up to this.
const LARGEST: usize = 1 << 20;
/// Of the budget, at most this part is one page.
const SHARE: usize = 8;
/// Most events of a page.
const EVENTS: usize = 1_000;
/// What an event counts at least ([`Event::size`](stategate_model::Event::size)). A database may look at as
/// many events as it is asked for before it knows how large they are.
const SMALLEST: usize = 128;
/// A page is held twice while it is read: as the storage gives it, and encoded.
const READING: usize = 2;
/// What an event costs beside its bytes.
const ITEM: usize = 64;
/// A page that nothing was taken from for this long may be dropped.
const QUIET: Duration = Duration::from_millis(20);
/// When pages are dropped, one part in this many of the budget is freed in addition to what is waited for.
const SPARE: u64 = 8;
/// Pause between two searches for pages to drop while somebody waits for room.
const LOOK: Duration = Duration::from_millis(10);
/// Pause before a storage that did not answer is read again.
pub(crate) const RETRY: Duration = Duration::from_millis(200);
/// How long a storage may fail to answer before the stream ends and the client is sent elsewhere.
const GIVE_UP: Duration = Duration::from_secs(10);

/// The memory that all catching up of a process may take.
#[derive(Debug)]
pub(crate) struct Budget {
    room: Arc<Semaphore>,
    /// All there is, in units.
    all: u32,
    largest: usize,
    pages: Mutex<Pages>,
    /// What is known of a storage that does not answer; `None` while it does.
    outage: Mutex<Option<Outage>>,
    meters: Meters,
}

/// A storage that did not answer the last read. One reader at a time tries it again and the others take over the
/// result, or thousands would try at once.
#[derive(Debug)]
struct Outage {
    /// When it is tried again.
    next: Instant,
    /// The result of the last try.
    problem: Problem,
}

#[derive(Debug)]
struct Pages {
    /// Those that are held, the oldest first.
    held: BTreeMap<u64, Arc<PageSlot>>,
    next: u64,
    /// Units that somebody waits for.
    wanted: u64,
    /// When quiet pages are looked for next.
    look: Instant,
}

struct Meters {
    bytes: Gauge,
    dropped: Counter,
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meters")
    }
}

/// The place of a reader's page, from which it may be dropped.
#[derive(Debug, Default)]
struct PageSlot(Mutex<SlotState>);

#[derive(Debug, Default)]
struct SlotState {
    page: Option<Page>,
    /// The reader is gone; a page that is still being read is not kept.
    has_ended: bool,
}

/// A stretch of a lane, as far as it is to be delivered.
#[derive(Debug)]
struct Page {
    number: u64,
    lane: Lane,
    events: VecDeque<(Position, Delivery)>,
    /// How far the stretch goes; the events after the last that is delivered did not match.
    end: Position,
    bytes: usize,
    room: OwnedSemaphorePermit,
    /// When something was taken from it last.
    taken: Instant,
}

impl Page {
    /// Takes about `most` bytes of events, at least one, and gives their room back; or a piece of a large
    /// event, which keeps its room until the last piece. [`Page::is_done`] says whether anything is left.
    fn take(&mut self, most: usize, begun: &mut Option<Begun>) -> Part {
        self.taken = Instant::now();
        if let Some(piece) = self.take_piece(most, begun) {
            return piece;
        }
        let (mut events, mut bytes) = (Vec::new(), 0);
        while let Some((position, event)) = self.events.pop_front() {
            let size = event.encoded().len() + ITEM;
            if bytes > 0 && bytes + size > most {
                self.events.push_front((position, event));
                break;
            }
            bytes += size;
            events.push((position, event));
        }
        self.shrink(bytes);
        let last = events.last().map(|(position, _)| *position);
        Part {
            lane: self.lane,
            reached: self.reached(last),
            events,
            piece: None,
        }
    }

    /// A piece of the first event, if that is a large one.
    fn take_piece(&mut self, most: usize, begun: &mut Option<Begun>) -> Option<Part> {
        let (position, delivery) = self.events.front()?;
        let (lane, position, size) = (self.lane, *position, delivery.encoded().len());
        if size <= LARGE {
            return None;
        }
        // What is in a page was encoded here, and would be again as it was.
        if begun.is_none() {
            *begun = Begun::new(delivery, None);
        }
        let event = begun.as_mut()?;
        let piece = Piece {
            position,
            part: event.piece(delivery, most),
            is_last: event.is_sent(),
        };
        let reached = match piece.is_last {
            false => before(position),
            true => {
                *begun = None;
                self.events.pop_front();
                self.shrink(size + ITEM);
                self.reached(Some(position))
            }
        };
        Some(Part {
            lane,
            reached,
            events: Vec::new(),
            piece: Some(piece),
        })
    }

    /// How far the lane was passed once everything up to an event was taken.
    fn reached(&self, last: Option<Position>) -> Position {
        last.filter(|_| !self.is_done()).unwrap_or(self.end)
    }

    /// Whether the rest of an event that was begun, if one was, is what comes first.
    fn goes_on_with(&self, begun: Option<&Begun>) -> bool {
        begun.is_none_or(|begun| {
            let first = self.events.front();
            first.is_some_and(|(_, delivery)| begun.goes_on_with(delivery))
        })
    }

    fn is_done(&self) -> bool {
        self.events.is_empty()
    }

    /// Gives back the room of so many bytes that were taken.
    fn shrink(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        let held = self.room.num_permits();
        let surplus = held.saturating_sub(units(self.bytes));
        drop(self.room.split(surplus));
    }
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT)
}

/// Units that somebody waits for, counted until the wait ends in whatever way.
struct Wanted<'a> {
    budget: &'a Budget,
    units: u32,
}

impl<'a> Wanted<'a> {
    fn new(budget: &'a Budget, units: u32) -> Self {
        budget.pages.lock().wanted += u64::from(units);
        Self { budget, units }
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        let mut pages = self.budget.pages.lock();
        pages.wanted = pages.wanted.saturating_sub(u64::from(self.units));
    }
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        let all = u32::try_from(units(bytes).clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Arc::new(Self {
            room: Arc::new(Semaphore::new(all as usize)),
            all,
            largest: LARGEST.min(bytes / SHARE).max(UNIT),
            pages: Mutex::new(Pages {
                held: BTreeMap::new(),
                next: 0,
                wanted: 0,
                look: Instant::now(),
            }),
            outage: Mutex::default(),
            meters: Meters {
                bytes: stategate_metrics::CATCHUP_BYTES.get(),
                dropped: stategate_metrics::CATCHUP_PAGES_DROPPED.get(),
            },
        })
    }

    fn units(&self, bytes: usize) -> u32 {
        u32::try_from(units(bytes)).map_or(self.all, |units| units.clamp(1, self.all))
    }

    /// Waits for room, in turn. `None` if there will never be any.
    async fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = self.units(bytes);
        let mut turn = std::pin::pin!(Arc::clone(&self.room).acquire_many_owned(units));
        if let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(units) {
            return Some(room);
        }
        let _wanted = Wanted::new(self, units);
        loop {
            self.drop_quiet_pages();
            tokio::select! {
                biased;
                room = &mut turn => return room.ok(),
                () = sleep(LOOK) => {}
            }
        }
    }

    /// Makes the room of a page that was read as large as the page. `false` if there is too little.
    fn settle(&self, room: &mut OwnedSemaphorePermit, bytes: usize) -> bool {
        let (held, needed) = (room.num_permits(), units(bytes));
        let Some(more) = needed.checked_sub(held) else {
            drop(room.split(held - needed));
            return true;
        };
        if more == 0 || held >= self.all as usize {
            // An event larger than the whole budget has all of it.
            return true;
        }
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        match Arc::clone(&self.room).try_acquire_many_owned(more) {
            Ok(more) => {
                room.merge(more);
                true
            }
            Err(_) => false,
        }
    }

    /// Drops pages that nobody takes from, the oldest first, until there is what is waited for.
    fn drop_quiet_pages(&self) {
        let mut pages = self.pages.lock();
        let now = Instant::now();
        if now < pages.look {
            return;
        }
        pages.look = now + LOOK;
        let free = self.room.available_permits() as u64;
        if free >= pages.wanted {
            return;
        }
        // Somewhat more than is missing, so that the next one need not wait.
        let mut missing = pages.wanted - free + u64::from(self.all) / SPARE;
        let mut dropped = Vec::new();
        for (number, slot) in &pages.held {
            if missing == 0 {
                break;
            }
            let mut state = slot.0.lock();
            let is_quiet =
                |page: &mut Page| page.number == *number && now.duration_since(page.taken) >= QUIET;
            if let Some(page) = state.page.take_if(is_quiet) {
                missing = missing.saturating_sub(page.room.num_permits() as u64);
                dropped.push((*number, page));
            }
        }
        for (number, _) in &dropped {
            pages.held.remove(number);
        }
        drop(pages);
        self.meters.dropped.increment(dropped.len() as u64);
        drop(dropped);
        self.note();
    }

    /// Whether to read the storage now: always while it answers, one reader after the other while it does not.
    fn may_read(&self) -> Result<(), Problem> {
        match &mut *self.outage.lock() {
            Some(outage) if Instant::now() < outage.next => Err(outage.problem.clone()),
            Some(outage) => {
                // The others take over this one's result, or try themselves if that takes long.
                outage.next = Instant::now() + RETRY;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Notes that the storage answered a read, or why it did not.
    fn note_result(&self, problem: Option<Problem>) {
        *self.outage.lock() = problem.map(|problem| Outage {
            next: Instant::now() + RETRY,
            problem,
        });
    }

    fn note(&self) {
        let taken = (self.all as usize).saturating_sub(self.room.available_permits());
        #[allow(clippy::cast_precision_loss, reason = "a gauge")]
        self.meters.bytes.set((taken * UNIT) as f64);
    }

    /// Puts a page into its slot, where it may be dropped from now on.
    fn put(&self, slot: &Arc<PageSlot>, mut page: Page) {
        let mut pages = self.pages.lock();
        let mut state = slot.0.lock();
        if state.has_ended {
            return;
        }
        let number = pages.next;
        pages.next += 1;
        page.number = number;
        state.page = Some(page);
        pages.held.insert(number, Arc::clone(slot));
        drop((state, pages));
        self.note();
    }

    fn forget(&self, number: u64) {
        self.pages.lock().held.remove(&number);
        self.note();
    }
}

/// A subscriber's way through the storage.
#[derive(Debug)]
pub(crate) struct Reader {
    budget: Arc<Budget>,
    storage: Arc<dyn Storage>,
    subscriber: Arc<Subscriber>,
    slot: Arc<PageSlot>,
    /// Bytes of the next page.
    want: usize,
    /// Whether a page was read and not all of it taken.
    has_page: bool,
}

/// A part of a page.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) lane: Lane,
    pub(crate) events: Vec<(Position, Delivery)>,
    /// A piece of a large event, in place of whole ones.
    pub(crate) piece: Option<Piece>,
    /// How far the lane was passed with it.
    pub(crate) reached: Position,
}

/// A piece of a large event.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) position: Position,
    pub(crate) part: Delivery,
    pub(crate) is_last: bool,
}

impl Reader {
    pub(crate) fn new(
        budget: Arc<Budget>,
        storage: Arc<dyn Storage>,
        subscriber: Arc<Subscriber>,
    ) -> Self {
        Self {
            want: FIRST.min(budget.largest),
            budget,
            storage,
            subscriber,
            slot: Arc::default(),
            has_page: false,
        }
    }

    /// Takes the next part of the page, of about `most` bytes and at least one event, or the next piece of the
    /// event that was begun. `None` if there is no page: it was all taken, or it was dropped.
    pub(crate) fn take(&mut self, most: usize, begun: &mut Option<Begun>) -> Option<Part> {
        if !std::mem::take(&mut self.has_page) {
            return None;
        }
        let mut slot = self.slot.0.lock();
        let Some(page) = slot.page.as_mut() else {
            self.want = FIRST.min(self.budget.largest);
            return None;
        };
        if !page.goes_on_with(begun.as_ref()) {
            // The event was begun from the tail, and this page is of no use to it.
            drop(slot);
            self.discard();
            return None;
        }
        let part = page.take(most, begun);
        if page.is_done() {
            let number = page.number;
            slot.page = None;
            drop(slot);
            self.budget.forget(number);
            self.grow();
        } else {
            self.has_page = true;
            drop(slot);
            self.budget.note();
        }
        Some(part)
    }

    /// Drops the page.
    pub(crate) fn discard(&mut self) {
        self.has_page = false;
        let page = self.slot.0.lock().page.take();
        if let Some(page) = page {
            let number = page.number;
            drop(page);
            self.budget.forget(number);
        }
    }

    /// A page was taken to its end: this one reads.
    fn grow(&mut self) {
        self.want = (self.want * 2).min(self.budget.largest);
    }

    /// Reads the page after a position, which begins with the event that was begun, if one was. Answers its
    /// first part, of about `most` bytes, which nothing can drop any more: so every read comes further, whoever
    /// needs room meanwhile. `None` if the log ends there.
    pub(crate) async fn read(
        &mut self,
        lane: Lane,
        after: Position,
        most: usize,
        begun: &mut Option<Begun>,
    ) -> Result<Option<Part>, Problem> {
        let reading = Reading {
            budget: Arc::clone(&self.budget),
            storage: Arc::clone(&self.storage),
            subscriber: Arc::clone(&self.subscriber),
            slot: Arc::clone(&self.slot),
            want: self.want,
            most,
            begun: begun.clone(),
        };
        let reading = tokio::spawn(caught(reading.run(lane, after)));
        let read = AbortOnDropHandle::new(reading).await;
        // Nothing else ends it early but the end of the runtime.
        let read = read.map_err(|_| Problem::ShuttingDown)?;
        let Some((part, has_more, now_begun)) = read?? else {
            return Ok(None);
        };
        *begun = now_begun;
        self.has_page = has_more;
        if !has_more {
            self.grow();
        }
        Ok(Some(part))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.slot.0.lock().has_ended = true;
        self.discard();
    }
}

/// A page being read.
struct Reading {
    budget: Arc<Budget>,
    storage: Arc<dyn Storage>,
    subscriber: Arc<Subscriber>,
    slot: Arc<PageSlot>,
    want: usize,
    most: usize,
    begun: Option<Begun>,
}

/// The first part of a page, whether there is more of it in its slot, and the event of which a piece is in it.
type Read = (Part, bool, Option<Begun>);

impl Reading {
    /// An event as it is sent, if the subscriber may see it: what was begun it may.
    fn deliver(&self, event: &Event) -> Result<Option<Delivery>, Undelivered> {
        let encode = || encode_event(event).map(|encoded| encoded.0);
        if let Some(begun) = &self.begun
            && let Some(delivery) = begun.pass.deliver(event, encode)?
        {
            return Ok(Some(delivery));
        }
        // Nobody else has this copy of it, so that there is nobody to share the decision with.
        let verdicts = Verdicts::default();
        self.subscriber
            .deliver(event, &verdicts, || encode_event(event))
    }

    async fn run(mut self, lane: Lane, after: Position) -> Result<Option<Read>, Problem> {
        // Set when the storage does not answer.
        let mut give_up = None;
        let limit = ReadLimit {
            events: EVENTS.min(self.want / SMALLEST).max(1),
            bytes: self.want,
        };
        let mut needed = self.want * READING;
        loop {
            if let Err(problem) = self.budget.may_read() {
                let now = Instant::now();
                if now >= *give_up.get_or_insert(now + GIVE_UP) {
                    return Err(problem);
                }
                sleep(RETRY).await;
                continue;
            }
            let room = self.budget.room(needed).await;
            let mut room = room.ok_or(Problem::ShuttingDown)?;
            let asked = Instant::now();
            #[cfg(feature = "faults")]
            stategate_faults::pass("catch-up");
            let events = match self.storage.read_log(lane, after, limit).await {
                Ok(events) => events,
                Err(error) if *error.kind() == ErrorKind::Unavailable => {
                    give_up.get_or_insert(asked + GIVE_UP);
                    self.budget.note_result(Some(of_read(&error)));
                    continue;
                }
                Err(error) => return Err(of_read(&error)),
            };
            self.budget.note_result(None);
            give_up = None;
            let Some(end) = events.last().map(|event| event.position) else {
                return Ok(None);
            };
            let (mut delivered, mut bytes) = (VecDeque::new(), 0);
            for event in events {
                let corrupt = |corrupt| Problem::internal(&corrupt);
                if !self.subscriber.selection.matches(&event).map_err(corrupt)? {
                    continue;
                }
                let delivery = self.deliver(&event).map_err(Undelivered::problem)?;
                // Decisions take a while, and this thread is not for them alone.
                tokio::task::consume_budget().await;
                if let Some(delivery) = delivery {
                    bytes += delivery.encoded().len() + ITEM;
                    delivered.push_back((event.position, delivery));
                }
            }
            if !self.budget.settle(&mut room, bytes) {
                // It is larger than it seemed, by one large event or by its encoding: it waits its turn
                // for as much as it needs, holding nothing meanwhile.
                needed = bytes.max(needed);
                continue;
            }
            let mut page = Page {
                number: 0,
                lane,
                events: delivered,
                end,
                bytes,
                room,
                taken: Instant::now(),
            };
            if !page.goes_on_with(self.begun.as_ref()) {
                // The client has bytes of an event that is not there, or that is encoded otherwise now.
                return Err(Problem::internal(
                    &"an event is not what it was when its first bytes were sent",
                ));
            }
            if let Some(begun) = &mut self.begun {
                begun.verified();
            }
            let part = page.take(self.most, &mut self.begun);
            let has_more = !page.is_done();
            if has_more {
                self.budget.put(&self.slot, page);
            }
            return Ok(Some((part, has_more, self.begun)));
        }
    }
}

#[cfg(test)]
mod tests {
    use stategate_api::answer::Sent;
    use stategate_model::{Claims, EntityRef, EventId, Method, Timestamp, Values, Version};
    use stategate_protocol::pb;
    use stategate_storage::{Appended, Batch, Memory, MemoryConfig};

    use super::*;

    const LANE: Lane = Lane(0);
    const PART: usize = 32 << 10;

    async fn log(events: u64, bytes: usize) -> Arc<dyn Storage> {
        let storage = Memory::new(&MemoryConfig::default()).unwrap();
        let text = format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes));
        for position in 1..=events {
            let event = Event {
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
            };
            let batch = Arc::new(Batch {
                events: vec![event],
                keys: Vec::new(),
            });
            let appended = storage.append(LANE, Position::new(position - 1), batch);
            assert_eq!(appended.await.unwrap(), Appended::Done);
        }
        Arc::new(storage)
    }

    fn reader(budget: &Arc<Budget>, storage: &Arc<dyn Storage>) -> Reader {
        let opts = pb::StreamOpts {
            domain: "*".to_owned(),
            r#type: "*".to_owned(),
            ..pb::StreamOpts::default()
        };
        let subscriber = Subscriber::selecting(&opts);
        Reader::new(
            Arc::clone(budget),
            Arc::clone(storage),
            Arc::new(subscriber),
        )
    }

    /// Reads to the end, as a subscription does. Answers the positions.
    async fn read_all(reader: &mut Reader) -> Vec<u64> {
        let (mut at, mut read, mut begun) = (Position::ZERO, Vec::new(), None);
        loop {
            let part = match reader.take(PART, &mut begun) {
                Some(part) => part,
                None => match reader.read(LANE, at, PART, &mut begun).await.unwrap() {
                    Some(part) => part,
                    None => return read,
                },
            };
            let pieces = part.piece.filter(|piece| piece.is_last);
            read.extend(pieces.map(|piece| piece.position.get()));
            read.extend(part.events.iter().map(|(position, _)| position.get()));
            at = part.reached;
        }
    }

    fn held(budget: &Budget) -> usize {
        budget.all as usize - budget.room.available_permits()
    }

    #[tokio::test]
    async fn readers_that_take_nothing_keep_nobody_from_reading() {
        let storage = log(400, 4_000).await;
        let budget = Budget::new(1 << 20);
        let mut stalled = Vec::new();
        for _ in 0..200 {
            let mut reader = reader(&budget, &storage);
            // As one that took a page before, so that this one is larger than a part.
            reader.want = 4 * FIRST;
            let part = reader
                .read(LANE, Position::ZERO, PART, &mut None)
                .await
                .unwrap();
            assert!(part.is_some() && reader.has_page);
            stalled.push(reader);
        }
        // More than there is room for.
        assert!(stalled.len() * FIRST > 2 << 20);
        let mut beside = reader(&budget, &storage);
        assert_eq!(read_all(&mut beside).await, (1..=400).collect::<Vec<_>>());
        let all = budget.all as usize;
        assert!(held(&budget) <= all);
        let pages = budget.pages.lock().held.len();
        assert!(pages < stalled.len(), "{pages} pages are held");
        drop(stalled);
        assert_eq!(held(&budget), 0, "all room is given back");
        assert!(budget.pages.lock().held.is_empty());
    }

    #[tokio::test]
    async fn events_larger_than_a_page_and_than_the_budget_are_read() {
        for (bytes, budget) in [(900_000, 1 << 20), (900_000, 64 << 10), (200_000, 2 << 20)] {
            let storage = log(5, bytes).await;
            let budget = Budget::new(budget);
            let mut readers: Vec<_> = (0..4).map(|_| reader(&budget, &storage)).collect();
            let all = readers.iter_mut().map(read_all);
            for read in futures::future::join_all(all).await {
                assert_eq!(read, [1, 2, 3, 4, 5]);
            }
            drop(readers);
            assert_eq!(held(&budget), 0);
        }
    }

    #[tokio::test]
    async fn a_reader_that_is_gone_leaves_nothing_behind() {
        let storage = log(10, 1_000).await;
        let budget = Budget::new(1 << 20);
        let mut one = reader(&budget, &storage);
        assert!(
            one.read(LANE, Position::ZERO, 1, &mut None)
                .await
                .unwrap()
                .is_some()
        );
        assert!(held(&budget) > 0);
        drop(one);
        assert_eq!(held(&budget), 0);
        // And one that is gone while it waits for room.
        let all = budget.room(usize::MAX).await.unwrap();
        let (mut two, mut begun) = (reader(&budget, &storage), None);
        {
            let mut waits = std::pin::pin!(two.read(LANE, Position::ZERO, PART, &mut begun));
            assert!(futures::poll!(&mut waits).is_pending());
            sleep(2 * LOOK).await;
            assert!(futures::poll!(&mut waits).is_pending());
        }
        drop(two);
        drop(all);
        while held(&budget) > 0 || budget.pages.lock().wanted > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_storage_that_is_away_is_asked_by_one_reader_for_all() {
        let budget = Budget::new(1 << 20);
        let refused = || budget.may_read().unwrap_err();
        budget.note_result(Some(Problem::StorageUnavailable));
        assert_eq!(refused(), Problem::StorageUnavailable);
        tokio::time::advance(RETRY).await;
        assert_eq!(budget.may_read(), Ok(()));
        // The others wait for what it is told, and one asks again if that takes long.
        assert_eq!(refused(), Problem::StorageUnavailable);
        tokio::time::advance(RETRY).await;
        assert_eq!(budget.may_read(), Ok(()));
        assert_eq!(refused(), Problem::StorageUnavailable);
        budget.note_result(None);
        assert_eq!((budget.may_read(), budget.may_read()), (Ok(()), Ok(())));
    }

    #[tokio::test]
    async fn what_matches_nothing_is_passed() {
        let storage = log(1_500, 10).await;
        let budget = Budget::new(1 << 20);
        let opts = pb::StreamOpts {
            domain: "other".to_owned(),
            r#type: "*".to_owned(),
            ..pb::StreamOpts::default()
        };
        let subscriber = Subscriber::selecting(&opts);
        let mut reader = Reader::new(Arc::clone(&budget), storage, Arc::new(subscriber));
        let part = reader
            .read(LANE, Position::ZERO, PART, &mut None)
            .await
            .unwrap()
            .unwrap();
        assert!(part.events.is_empty() && part.reached > Position::ZERO);
        assert!(reader.take(PART, &mut None).is_none());
        assert_eq!(held(&budget), 0);
    }

    /// A page that is dropped in the middle of an event is read again, and the event goes on where it was.
    #[tokio::test]
    async fn a_large_event_goes_on_in_a_page_that_is_read_again() {
        let storage = log(3, 900_000).await;
        let budget = Budget::new(4 << 20);
        let mut reader = reader(&budget, &storage);
        let (mut at, mut begun) = (Position::ZERO, None);
        let (mut messages, mut message, mut expected) = (Vec::new(), Vec::new(), 0);
        let mut pieces = 0;
        loop {
            let part = match reader.take(PART, &mut begun) {
                Some(part) => part,
                None => match reader.read(LANE, at, PART, &mut begun).await.unwrap() {
                    Some(part) => part,
                    None => break,
                },
            };
            at = part.reached;
            let piece = part.piece.expect("all events are large");
            match piece.part.into_sent() {
                Sent::First { length, bytes } => {
                    assert!(message.is_empty());
                    expected = length;
                    message.extend_from_slice(&bytes);
                }
                Sent::More(bytes) => message.extend_from_slice(&bytes),
                Sent::Event { .. } | Sent::Progress(..) => panic!("it is large"),
            }
            assert_eq!(piece.is_last, message.len() == expected);
            if piece.is_last {
                messages.push(std::mem::take(&mut message));
            }
            pieces += 1;
            if pieces % 3 == 0 {
                // As if somebody had needed the room.
                let page = reader.slot.0.lock().page.take();
                if let Some(page) = page {
                    budget.forget(page.number);
                }
            }
        }
        let events = storage.read_log(
            LANE,
            Position::ZERO,
            ReadLimit {
                events: 10,
                bytes: usize::MAX,
            },
        );
        let written = events.await.unwrap();
        let written: Vec<_> = written
            .iter()
            .map(|event| encode_event(event).unwrap().0)
            .collect();
        assert!(messages == written, "other bytes than were written");
        drop(reader);
        assert_eq!(held(&budget), 0);
    }

    #[tokio::test]
    async fn an_event_does_not_go_on_with_another_in_its_place() {
        let (one, other) = (log(1, 900_000).await, log(1, 900_001).await);
        let budget = Budget::new(4 << 20);
        let mut begun = None;
        let mut first = reader(&budget, &one);
        let part = first.read(LANE, Position::ZERO, PART, &mut begun).await;
        assert!(part.unwrap().is_some() && begun.is_some());
        let mut second = reader(&budget, &other);
        let part = second.read(LANE, Position::ZERO, PART, &mut begun).await;
        assert!(matches!(part, Err(Problem::Internal { .. })), "{part:?}");
    }
}
