//! The task that writes a lane: what it decides, when it looks ahead, and whom it lets go first.

use std::{collections::HashMap, pin::Pin, sync::Arc, time::Duration};

use stategate_channel::Channel;
use stategate_metrics::{Counter, Histogram};
use stategate_model::{EntityRef, EventId, Lane, Limits, State, limits};
use stategate_server::Seldom;
use stategate_storage::{Appended, Batch, Error, Head, Kind, Loaded, Storage};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, timeout_at},
};

use super::{
    Failure, Item, LaneHandle, QueueBounds, ROOM_UNIT, Written,
    appender::Appender,
    known::{Elsewhere, Known, Question},
    now,
    publisher::Publishing,
    waiting::Waiting,
};
use crate::{
    faults::{Faults, Step},
    plan::{self, Outcome, Plan},
};

/// Most bytes of states, and of what was done before, that one answer of the storage holds. A batch is
/// decided as far as they reach: for one write they may be read in several parts.
const LOAD_BYTES: usize = limits::BATCH_BYTES;
/// Looks ahead while one append is on its way: each costs a question, and what came in after the last
/// has to wait for a batch more.
const LOOKS: usize = 2;
/// How often a writer whose storage is some way off lets other tasks run before it takes a batch that is
/// less than half of the last one.
const YIELDS: u32 = 4;
/// Batches that are written without a pause. Then the writer looks at the head before it goes on, as one
/// has to who lost the race for it, so that a writer of another process gets its turn however busy this
/// one is.
const RUN: u32 = 16;
/// How long after losing such a race a writer does not look ahead, so that turns are fair.
const SHARED: Duration = Duration::from_secs(1);

/// The writer of one lane.
pub struct LaneWriter {
    appender: Appender,
    channel: Arc<dyn Channel>,
    limits: Limits,
    waiting: Waiting,
    known: Known,
    ahead: Option<Ahead>,
    /// The items before this one were looked at by a look ahead, or did not need it.
    looked: u64,
    /// How many items the last batch had.
    last: usize,
    /// Batches since the head was last read for one of them.
    run: u32,
    /// When another process was last seen to have moved the head.
    overtaken: Option<Instant>,
    /// How many of the waiting writes go one by one, since their batch was rejected as a whole.
    alone: usize,
    /// What is durable and not answered yet: where a way is to be gone, the next append goes first, unless
    /// it would be a small one.
    durable: Option<Durable>,
    /// Says when it is to be logged again that the storage is unavailable.
    unavailable: Seldom,
    faults: Faults,
    meters: Meters,
}

/// A question about writes that wait, asked while an append is on its way.
enum Ahead {
    Asked(
        Box<Question>,
        Pin<Box<dyn Future<Output = Result<Loaded, Error>> + Send>>,
    ),
    /// Answered, as of a head that the append on its way may have led to.
    Answered(Box<Elsewhere>),
}

/// A durable batch, and who waits to hear of it.
struct Durable {
    items: Vec<Item>,
    outcomes: Vec<Outcome>,
    batch: Arc<Batch>,
    /// The id of the event before it.
    previous: Option<EventId>,
}

struct Meters {
    events: Counter,
    appends: Counter,
    moved: Counter,
    ahead: Counter,
    misjudged: Counter,
    batch: Histogram,
    queued: Histogram,
}

impl LaneWriter {
    /// A writer, and the way into its queue.
    pub fn new(
        lane: Lane,
        storage: Arc<dyn Storage>,
        channel: Arc<dyn Channel>,
        limits: Limits,
        bounds: QueueBounds,
        cache_bytes: usize,
    ) -> (Self, LaneHandle) {
        let (sender, queue) = mpsc::channel(bounds.writes.max(1));
        let label = lane.to_string();
        let writer = Self {
            appender: Appender { lane, storage },
            channel,
            limits,
            waiting: Waiting::new(queue),
            known: Known::new(cache_bytes),
            ahead: None,
            looked: 0,
            last: 0,
            run: 0,
            overtaken: None,
            alone: 0,
            durable: None,
            unavailable: Seldom::default(),
            faults: Faults::from_env(),
            meters: Meters {
                events: stategate_metrics::EVENTS_APPENDED.with([label.clone()]),
                appends: stategate_metrics::APPENDS.with([label.clone()]),
                moved: stategate_metrics::APPENDS_HEAD_MOVED.with([label.clone()]),
                ahead: stategate_metrics::LOADS_AHEAD.with([label.clone()]),
                misjudged: stategate_metrics::APPENDS_MISJUDGED.with([label.clone()]),
                batch: stategate_metrics::APPEND_EVENTS.with([label.clone()]),
                queued: stategate_metrics::WRITE_QUEUE_SECONDS.with([label]),
            },
        };
        let room = Arc::new(Semaphore::new(bounds.bytes / ROOM_UNIT + 1));
        (
            writer,
            LaneHandle {
                queue: sender,
                room,
            },
        )
    }

    /// Writes until every handle is gone and the queue is empty.
    pub async fn run(mut self) {
        let log_id = self.appender.storage.info().log_id;
        let publishing = Publishing::start(Arc::clone(&self.channel), log_id, self.appender.lane);
        while self.gather(&publishing).await {
            let most = self.next_batch();
            self.write(most, &publishing).await;
        }
        // What was acknowledged is also published.
        publishing.finish().await;
    }

    /// Waits until there is something to write. False at the end.
    async fn gather(&mut self, publishing: &Publishing) -> bool {
        if self.is_at_hand() {
            // Whoever hears now may have written again before this batch is taken, if others wait for this
            // thread's processor: larger batches are cheaper.
            self.acknowledge(publishing).await;
            std::thread::yield_now();
        }
        let mut yields = 0;
        loop {
            self.waiting.take_ready();
            self.waiting.drop_abandoned();
            let Some(first) = self.waiting.items().front() else {
                self.acknowledge(publishing).await;
                if !self.waiting.more().await && self.waiting.is_empty() {
                    return false;
                }
                // Others had their turn meanwhile.
                self.run = 0;
                continue;
            };
            // What the first one needs may be on its way already.
            let is_asked =
                matches!(self.ahead, Some(Ahead::Asked(..))) && first.number < self.looked;
            if !is_asked || self.known.covers(first) {
                if self.is_at_hand() || yields == YIELDS || !self.is_small() {
                    return true;
                }
                // Most callers wait for an answer, or theirs are just being read from the network. A
                // batch of the few that are here would make the many wait for a way to the storage,
                // and they the next few in turn.
                yields += 1;
                self.acknowledge(publishing).await;
                tokio::task::yield_now().await;
                continue;
            }
            let until = first.until();
            self.acknowledge(publishing).await;
            let Ok(answer) = timeout_at(until, answered(&mut self.ahead)).await else {
                // Its caller is to be told, and others need not wait for it.
                self.ahead = None;
                continue;
            };
            self.learn(answer);
            if matches!(self.ahead, Some(Ahead::Answered(_))) {
                // No append of this writer's is on its way that could have led there.
                self.lost_the_race();
            }
        }
    }

    /// Whether what waits is little beside what the last batch had.
    fn is_small(&self) -> bool {
        self.waiting.items().len() * 2 < self.last
    }

    /// How many of the waiting items are written next: those of which everything is known, if that is
    /// known of the first.
    fn next_batch(&mut self) -> usize {
        let is_alone = self.alone > 0;
        self.alone = self.alone.saturating_sub(1).min(self.waiting.items().len());
        if self.has_had_its_turn(self.run) {
            self.known.doubt_the_head();
            self.ahead = None;
        }
        if is_alone {
            return 1;
        }
        let items = self.waiting.items().iter();
        if self.is_at_hand() || self.known.presumptions(items.clone()).is_some() {
            return limits::BATCH_EVENTS;
        }
        match items.take_while(|item| self.known.covers(item)).count() {
            0 => limits::BATCH_EVENTS,
            covered => covered,
        }
    }

    /// Decides and appends what waits, at most `most` writes of it.
    async fn write(&mut self, most: usize, publishing: &Publishing) {
        let mut items = self.waiting.batch(most);
        let mut may_presume = true;
        for item in &items {
            self.meters
                .queued
                .record(item.since.elapsed().as_secs_f64());
        }
        loop {
            drop_late(&mut items);
            // Each is told in its own time; this is for the last of them.
            let Some(give_up) = items.iter().map(Item::until).max() else {
                return;
            };
            let decided = self.decide(&mut items, may_presume, give_up, publishing);
            let (plan, presumed) = match decided.await {
                Ok(decided) => decided,
                Err(error) => return self.fail(items, &error),
            };
            // What did not fit goes first in the next batch.
            self.waiting.put_back(items.drain(plan.outcomes.len()..));
            let Plan {
                outcomes,
                batch,
                states,
            } = plan;
            if batch.events.is_empty() {
                if items.iter().all(|item| self.known.is_confirmed_since(item)) {
                    self.acknowledge(publishing).await;
                    self.known.decided(&items);
                    return self.answer_unwritten(items, outcomes, batch, give_up).await;
                }
                // Refusals alone, on states that may be stale by now: look whether they are.
                self.known.doubt_the_head();
                continue;
            }

            self.faults.at(Step::Decided).await;
            if self.faults.acknowledge_before_append() {
                return self.acknowledge_too_early(items, outcomes, batch).await;
            }
            self.known.decided(&items);
            self.last = items.len();
            let batch = Arc::new(batch);
            set_under_way(&mut items, true);
            let appended = self.append(&batch, &mut items, give_up, publishing).await;
            match appended {
                Ok(Appended::Done) => {
                    self.faults.at(Step::Appended).await;
                    self.meters.appends.increment(1);
                    self.meters.events.increment(batch.events.len() as u64);
                    #[allow(clippy::cast_precision_loss, reason = "at most a thousand")]
                    self.meters.batch.record(batch.events.len() as f64);
                    let previous = self.known.head().and_then(|head| head.id);
                    self.advance(&batch, states);
                    self.durable = Some(Durable {
                        items,
                        outcomes,
                        batch,
                        previous,
                    });
                    return;
                }
                Ok(Appended::HeadMoved) => {
                    self.meters.moved.increment(1);
                    self.lost_the_race();
                    set_under_way(&mut items, false);
                }
                Err(error) if *error.kind() == Kind::Rejected && presumed > 0 => {
                    // Not everything was new, most likely.
                    self.meters.misjudged.increment(1);
                    may_presume = false;
                    set_under_way(&mut items, false);
                }
                Err(error) => {
                    if *error.kind() == Kind::Unavailable {
                        // What was seen to have been written before is not told to be unwritten.
                        let outcomes = outcomes.iter().zip(items);
                        let (replays, rest): (Vec<_>, Vec<_>) = outcomes
                            .partition(|(outcome, _)| matches!(outcome, Outcome::Replayed(_)));
                        let of = |decided: Vec<(&Outcome, Item)>| -> Vec<Item> {
                            decided.into_iter().map(|(_, item)| item).collect()
                        };
                        fail_all(of(replays), || Failure::Unknown);
                        items = of(rest);
                    }
                    return self.fail(items, &error);
                }
            }
        }
    }

    /// Answers items of which none writes anything. Those that an earlier copy of did are told so once
    /// what it wrote is on stable storage: that it could be read may come of an append whose outcome nobody
    /// knew, in whichever process. (An append of theirs would say it as well, if there was one.)
    async fn answer_unwritten(
        &mut self,
        items: Vec<Item>,
        outcomes: Vec<Outcome>,
        batch: Batch,
        give_up: Instant,
    ) {
        let batch = Arc::new(batch);
        let decided = items.into_iter().zip(outcomes);
        let (replays, refusals): (Vec<_>, Vec<_>) =
            decided.partition(|(_, outcome)| matches!(outcome, Outcome::Replayed(_)));
        let (items, outcomes) = refusals.into_iter().unzip();
        answer(items, outcomes, &batch);
        if replays.is_empty() {
            return;
        }
        let (mut items, outcomes): (Vec<_>, _) = replays.into_iter().unzip();
        set_under_way(&mut items, true);
        match telling(&mut items, self.appender.confirm(give_up)).await {
            Ok(()) => answer(items, outcomes, &batch),
            Err(error) => {
                let lane = self.appender.lane;
                tracing::warn!(%lane, %error, "not known whether an earlier write is on stable storage");
                fail_all(items, || Failure::Unknown);
            }
        }
    }

    /// Decides items on what is known as of the head: all, or the first ones, if what all are decided on is
    /// too much to be held at once. What is not known is read, or presumed; answers how many presumptions
    /// the plan stands on.
    async fn decide(
        &mut self,
        items: &mut Vec<Item>,
        may_presume: bool,
        give_up: Instant,
        publishing: &Publishing,
    ) -> Result<(Plan, usize), Error> {
        if may_presume && let Some(presumptions) = self.known.presumptions(items.iter()) {
            let plan = self.plan(items).await;
            let mut decided = items.iter().zip(&plan.outcomes);
            // Nobody would find out that a refusal was wrong.
            if decided.all(|(item, outcome)| {
                !matches!(outcome, Outcome::Refused(_)) || self.known.covers(item)
            }) {
                return Ok((plan, presumptions));
            }
        }
        let before = self.waiting.next_number();
        let mut count = items.len();
        while let Some(question) = self.known.question(items.iter().take(count), before) {
            self.acknowledge(publishing).await;
            if !self.known.is_sure_of_the_head() {
                self.run = 0;
            }
            let Appender { lane, storage } = &self.appender;
            let load = storage.load(*lane, &question.entities, &question.keys, LOAD_BYTES);
            let loaded = telling(items, timeout_at(give_up, load)).await;
            let loaded = loaded.unwrap_or_else(|_| {
                Err(Error::new(Kind::Unavailable, "load").because("no answer in time"))
            })?;
            let has_states = loaded.states.len() == question.entities.len();
            let has_replays = loaded.replays.len() == question.keys.len();
            if self.known.learn(question, loaded).is_err() {
                // Another process wrote: what was known is old.
                self.lost_the_race();
            }
            drop_late(items);
            // What does not fit into one answer is for a batch of its own, but for what the first write needs.
            let asked = items.iter().take(count);
            if !has_states {
                let covered = asked.take_while(|item| self.known.covers_states(item));
                count = covered.count().max(1);
            } else if !has_replays {
                let covered = asked.take_while(|item| self.known.covers(item));
                count = covered.count().max(1);
            }
        }
        let count = count.min(items.len());
        Ok((self.plan(items.get(..count).unwrap_or_default()).await, 0))
    }

    /// Decides items on what is known.
    async fn plan(&mut self, items: &[Item]) -> Plan {
        self.faults.at(Step::Loaded).await;
        let setting = plan::Setting {
            lane: self.appender.lane,
            head: self.known.head().unwrap_or_default(),
            now: now(),
            limits: &self.limits,
        };
        plan::plan(items, &setting, self.known.states(), self.known.replays())
    }

    /// Appends a batch; meanwhile the one before it is acknowledged, the next one gathers, and what
    /// that needs is read.
    async fn append(
        &mut self,
        batch: &Arc<Batch>,
        items: &mut [Item],
        give_up: Instant,
        publishing: &Publishing,
    ) -> Result<Appended, Error> {
        let appender = self.appender.clone();
        let expected = self.known.head().unwrap_or_default().position;
        let appending = appender.append(expected, batch, give_up);
        tokio::pin!(appending);
        // Polled once, it is on its way.
        let mut outcome = None;
        tokio::select! {
            biased;
            appended = &mut appending => outcome = Some(appended),
            () = std::future::ready(()) => {}
        }
        self.acknowledge(publishing).await;
        if let Some(outcome) = outcome {
            return outcome;
        }
        let telling = telling(items, appending);
        tokio::pin!(telling);
        loop {
            self.look_ahead();
            tokio::select! {
                biased;
                outcome = &mut telling => return outcome,
                answer = answered(&mut self.ahead) => self.learn(answer),
                _ = self.waiting.more(), if self.waiting.takes_more() => {}
            }
        }
    }

    /// Whether what is read and appended takes no way, so that nothing is won by reading ahead.
    fn is_at_hand(&self) -> bool {
        self.appender.storage.info().at_hand
    }

    /// Whether so many batches are enough while others may be waiting for the head.
    fn has_had_its_turn(&self, batches: u32) -> bool {
        let info = self.appender.storage.info();
        batches >= RUN && info.capabilities.shared && !info.at_hand
    }

    /// Answers the callers of a batch that is durable, and lets it be published.
    async fn acknowledge(&mut self, publishing: &Publishing) {
        let Some(durable) = self.durable.take() else {
            return;
        };
        answer(durable.items, durable.outcomes, &durable.batch);
        self.faults.at(Step::Acknowledged).await;
        publishing.committed(durable.previous, durable.batch);
    }

    /// Asks for what waiting items need, if enough of them came in since the last time.
    fn look_ahead(&mut self) {
        let is_shared = self
            .overtaken
            .is_some_and(|overtaken| overtaken.elapsed() < SHARED);
        // What is read for the batch after the last of a run would be forgotten.
        let is_last = self.has_had_its_turn(self.run + 1);
        let is_pointless = self.is_at_hand() || self.ahead.is_some();
        if is_pointless || is_shared || is_last || self.alone > 0 {
            return;
        }
        let next = self.waiting.next_number();
        let items = self.waiting.items();
        if self.known.presumptions(items.iter()).is_some() {
            return;
        }
        // Numbers grow from front to back.
        let new = items.len() - items.partition_point(|item| item.number < self.looked);
        if new == 0 || new < self.last / LOOKS {
            return;
        }
        let items = items.range(items.len() - new..);
        self.looked = next;
        let Some(question) = self.known.question(items, next) else {
            return;
        };
        self.meters.ahead.increment(1);
        let Appender { lane, storage } = self.appender.clone();
        let (entities, keys) = (question.entities.clone(), question.keys.clone());
        let load = async move { storage.load(lane, &entities, &keys, LOAD_BYTES).await };
        self.ahead = Some(Ahead::Asked(Box::new(question), Box::pin(load)));
    }

    /// Takes in the answer to what was asked ahead.
    fn learn(&mut self, answer: Result<Loaded, Error>) {
        let Some(Ahead::Asked(question, _)) = self.ahead.take() else {
            return;
        };
        match answer {
            // It may be the head that the append on its way leads to.
            Ok(loaded) => {
                if let Err(elsewhere) = self.known.learn(*question, loaded) {
                    self.ahead = Some(Ahead::Answered(elsewhere));
                }
            }
            // Whoever needs it asks again, and is told.
            Err(error) => tracing::debug!(%error, "could not read ahead"),
        }
    }

    /// Moves on to where a durable batch led.
    fn advance(&mut self, batch: &Batch, states: HashMap<EntityRef, State>) {
        self.run += 1;
        let asked = match &mut self.ahead {
            Some(Ahead::Asked(question, _)) => Some(&mut **question),
            Some(Ahead::Answered(elsewhere)) => Some(&mut elsewhere.0),
            None => None,
        };
        if !self.known.advance(batch, states, asked) {
            self.ahead = None;
        }
        match self.ahead.take() {
            Some(Ahead::Answered(elsewhere)) => {
                let Elsewhere(question, loaded) = *elsewhere;
                if self.known.learn(question, loaded).is_err() {
                    self.lost_the_race();
                }
            }
            asked => self.ahead = asked,
        }
    }

    /// Answers items whose batch failed as a whole; a batch refused for its content is tried again
    /// one by one, so that one write never fails its neighbours.
    fn fail(&mut self, mut items: Vec<Item>, error: &Error) {
        let lane = self.appender.lane;
        self.forget();
        match error.kind() {
            Kind::Rejected if items.len() > 1 => {
                tracing::warn!(%lane, %error, writes = items.len(), "batch rejected; trying its writes one by one");
                set_under_way(&mut items, false);
                self.alone = items.len() + self.waiting.items().len();
                self.waiting.put_back(items.into_iter());
            }
            Kind::Unknown => fail_all(items, || Failure::Unknown),
            Kind::Unavailable => {
                if let Some(left_out) = self.unavailable.is_due() {
                    tracing::warn!(%lane, %error, left_out, "storage unavailable");
                }
                let trouble = error.trouble();
                fail_all(items, || {
                    trouble.map_or(Failure::Unavailable, Failure::Unable)
                });
            }
            Kind::Rejected | Kind::Invalid(_) | Kind::Corrupt | Kind::Config | Kind::Bug => {
                let error = Arc::new(
                    Error::new(error.kind().clone(), error.operation()).because(error.to_string()),
                );
                fail_all(items, || Failure::Internal(Arc::clone(&error)));
            }
        }
    }

    fn forget(&mut self) {
        self.known.forget();
        self.ahead = None;
        self.looked = 0;
    }

    /// Another process has moved the head: nothing known holds any more.
    fn lost_the_race(&mut self) {
        self.overtaken = Some(Instant::now());
        self.forget();
    }

    /// The bug that the kill test has to find.
    async fn acknowledge_too_early(
        &mut self,
        items: Vec<Item>,
        outcomes: Vec<Outcome>,
        batch: Batch,
    ) {
        let batch = Arc::new(batch);
        answer(items, outcomes, &batch);
        self.faults.at(Step::AcknowledgedTooEarly).await;
        let Head { position, .. } = self.known.head().unwrap_or_default();
        let Appender { lane, storage } = &self.appender;
        let _ = storage.append(*lane, position, batch).await;
        self.forget();
    }
}

/// The answer to what was asked ahead; never, if nothing was. Dropping the future loses nothing.
async fn answered(ahead: &mut Option<Ahead>) -> Result<Loaded, Error> {
    match ahead {
        Some(Ahead::Asked(_, answer)) => answer.await,
        Some(Ahead::Answered(_)) | None => std::future::pending().await,
    }
}

/// Waits for what is done for items. Meanwhile each caller who has waited for as long as a write may take is
/// told what is known, whatever becomes of the others.
async fn telling<T>(items: &mut [Item], work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    loop {
        let open = items.iter().filter(|item| !item.answer.is_closed());
        let Some(next) = open.map(Item::until).min() else {
            return work.await;
        };
        match timeout_at(next, &mut work).await {
            Ok(done) => return done,
            Err(_) => tell_late(items),
        }
    }
}

/// Tells callers who have waited for as long as a write may take what is known.
fn tell_late(items: &mut [Item]) {
    let now = Instant::now();
    for item in items.iter_mut().filter(|item| item.until() <= now) {
        item.answer.give_up();
    }
}

/// Drops writes, none of them under way, whose callers have waited for too long, or are gone: they are not
/// written any more.
fn drop_late(items: &mut Vec<Item>) {
    tell_late(items);
    items.retain(|item| !item.answer.is_closed());
}

fn set_under_way(items: &mut [Item], is_under_way: bool) {
    for item in items {
        item.answer.is_under_way = is_under_way;
    }
}

fn answer(items: Vec<Item>, outcomes: Vec<Outcome>, batch: &Arc<Batch>) {
    let written = |batch: &Arc<Batch>, range, replayed| Written {
        batch: Arc::clone(batch),
        range,
        replayed,
    };
    for (item, outcome) in items.into_iter().zip(outcomes) {
        let answer = match outcome {
            Outcome::Accepted(range) => Ok(written(batch, range, false)),
            Outcome::Copy(range) => Ok(written(batch, range, true)),
            Outcome::Replayed(events) => {
                let range = 0..events.len();
                let keys = Vec::new();
                Ok(written(&Arc::new(Batch { events, keys }), range, true))
            }
            Outcome::Refused(refused) => Err(Failure::Refused(refused)),
        };
        item.answer.send(answer);
    }
}

fn fail_all(items: Vec<Item>, failure: impl Fn() -> Failure) {
    for item in items {
        item.answer.send(Err(failure()));
    }
}
