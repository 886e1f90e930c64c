//! The task that writes a lane: what it does next.
//!
//! Reading ahead is in `prefetch.rs`, taking turns with writers of other processes in `turns.rs`, and which of
//! the two a storage needs in `strategy.rs`.

use std::{collections::HashMap, sync::Arc};

use stategate_channel::Channel;
use stategate_metrics::{Counter, Histogram};
use stategate_model::{EntityRef, EventId, Lane, Limits, State, limits};
use stategate_runtime::LogThrottle;
use stategate_storage::{Appended, Batch, Error, ErrorKind, Head, Storage};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, timeout_at},
};

use super::{
    Item, LaneHandle, QueueBounds, ROOM_UNIT, WriteError, Written, appender::Appender,
    cache::LaneCache, now, prefetch::Prefetch, publisher::Publishing, strategy::Strategy,
    turns::Turns, waiting::Waiting,
};
use crate::{
    faults::{BatchStep, Faults},
    plan::{self, Outcome, Plan},
};

/// Most bytes of states, and of what was done before, that one answer of the storage holds. A batch is
/// decided as far as they reach: for one write they may be read in several parts.
const LOAD_BYTES: usize = limits::BATCH_BYTES;

/// The writer of one lane.
pub struct LaneWriter {
    appender: Appender,
    channel: Arc<dyn Channel>,
    limits: Limits,
    waiting: Waiting,
    cache: LaneCache,
    strategy: Strategy,
    prefetch: Prefetch,
    turns: Turns,
    /// How many items the last batch had.
    last: usize,
    /// How many of the waiting writes go one by one, since their batch was rejected as a whole.
    alone: usize,
    /// What is durable and not answered yet: on a remote storage the next append is sent first, unless it would
    /// be a small one.
    durable: Option<Durable>,
    /// Says when it is to be logged again that the storage is unavailable.
    unavailable: LogThrottle,
    faults: Faults,
    meters: Meters,
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
    conflicts: Counter,
    prefetches: Counter,
    assumption_failed: Counter,
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
        let strategy = Strategy::of(storage.info());
        let writer = Self {
            appender: Appender { lane, storage },
            channel,
            limits,
            waiting: Waiting::new(queue),
            cache: LaneCache::new(cache_bytes),
            strategy,
            prefetch: Prefetch::default(),
            turns: Turns::new(strategy.batches_in_a_row),
            last: 0,
            alone: 0,
            durable: None,
            unavailable: LogThrottle::default(),
            faults: Faults::from_env(),
            meters: Meters {
                events: stategate_metrics::EVENTS_APPENDED.with([label.clone()]),
                appends: stategate_metrics::APPENDS.with([label.clone()]),
                conflicts: stategate_metrics::APPENDS_HEAD_MOVED.with([label.clone()]),
                prefetches: stategate_metrics::LOADS_AHEAD.with([label.clone()]),
                assumption_failed: stategate_metrics::APPENDS_ASSUMPTION_FAILED
                    .with([label.clone()]),
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
        if self.strategy.answers_first {
            self.acknowledge(publishing).await;
            // A caller answered just now may need this processor core to send its next write. Give up the core
            // for a moment, so that this write can join the batch.
            std::thread::yield_now();
        }
        let mut yields = 0;
        loop {
            self.waiting.take_ready();
            self.waiting.drop_abandoned();
            let Some(first) = self.waiting.items().front() else {
                self.acknowledge(publishing).await;
                // Nobody waits for it any more, and it would keep its connection for as long as nobody writes.
                self.prefetch.give_up();
                if !self.waiting.more().await && self.waiting.is_empty() {
                    return false;
                }
                self.turns.begin_anew();
                continue;
            };
            if !self.prefetch.is_loading_for(first) || self.cache.covers(first) {
                if yields == self.strategy.yields || !self.is_small() {
                    return true;
                }
                // Few writes are here: most callers were answered just now, and their next writes are still on
                // their way through the network. If these few were appended now, the many would miss the batch
                // and wait for a whole round trip, and small and large batches would alternate.
                yields += 1;
                self.acknowledge(publishing).await;
                tokio::task::yield_now().await;
                continue;
            }
            let until = first.until();
            self.acknowledge(publishing).await;
            let Ok(answer) = timeout_at(until, self.prefetch.answer()).await else {
                // Its caller is to be told, and others need not wait for it.
                self.prefetch.give_up();
                continue;
            };
            self.prefetch.learn(answer, &mut self.cache);
            if self.prefetch.is_at_other_head() {
                // No append of this writer's is on its way that could have led there.
                self.conflict();
            }
        }
    }

    /// Whether what waits is less than half of what the last batch had.
    fn is_small(&self) -> bool {
        self.waiting.items().len() * 2 < self.last
    }

    /// How many of the waiting items are written next: those that the cache covers, if it covers the first.
    fn next_batch(&mut self) -> usize {
        let is_alone = self.alone > 0;
        self.alone = self.alone.saturating_sub(1).min(self.waiting.items().len());
        if self.turns.is_over() {
            self.cache.doubt_the_head();
            self.prefetch.give_up();
        }
        if is_alone {
            return 1;
        }
        let items = self.waiting.items().iter();
        if !self.strategy.prefetches || self.cache.assumed_absent(items.clone()).is_some() {
            return limits::BATCH_EVENTS;
        }
        match items.take_while(|item| self.cache.covers(item)).count() {
            0 => limits::BATCH_EVENTS,
            covered => covered,
        }
    }

    /// Decides and appends what waits, at most `most` writes of it.
    async fn write(&mut self, most: usize, publishing: &Publishing) {
        let mut items = self.waiting.batch(most);
        let mut may_assume = true;
        for item in &mut items {
            item.answer.is_copy |= self.cache.is_copy(item);
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
            let decided = self.decide(&mut items, may_assume, give_up, publishing);
            let (plan, assumed_absent) = match decided.await {
                Ok(decided) => decided,
                Err(error) => {
                    let is_away = *error.kind() == ErrorKind::Unavailable;
                    let (copies, rest) = items
                        .into_iter()
                        .partition(|item| is_away && item.answer.is_copy);
                    fail_all(copies, || WriteError::Unknown);
                    return self.fail(rest, &error);
                }
            };
            // What did not fit goes first in the next batch.
            self.waiting.put_back(items.drain(plan.outcomes.len()..));
            let Plan {
                outcomes,
                batch,
                states,
            } = plan;
            if batch.events.is_empty() {
                if items.iter().all(|item| self.cache.is_confirmed_since(item)) {
                    self.acknowledge(publishing).await;
                    self.cache.decided(&items);
                    self.cache.make_room();
                    return self.answer_unwritten(items, outcomes, batch, give_up).await;
                }
                // Refusals alone, on states that may be stale by now: look whether they are.
                self.cache.doubt_the_head();
                continue;
            }

            self.faults.at(BatchStep::Decided).await;
            if self.faults.acknowledge_before_append() {
                return self.acknowledge_too_early(items, outcomes, batch).await;
            }
            self.cache.decided(&items);
            self.last = items.len();
            let batch = Arc::new(batch);
            set_under_way(&mut items, true);
            let appended = self.append(&batch, &mut items, give_up, publishing).await;
            match appended {
                Ok(Appended::Done) => {
                    self.faults.at(BatchStep::Appended).await;
                    self.meters.appends.increment(1);
                    self.meters.events.increment(batch.events.len() as u64);
                    #[allow(clippy::cast_precision_loss, reason = "at most a thousand")]
                    self.meters.batch.record(batch.events.len() as f64);
                    let previous = self.cache.head().and_then(|head| head.id);
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
                    self.meters.conflicts.increment(1);
                    self.conflict();
                    set_under_way(&mut items, false);
                }
                Err(error) if *error.kind() == ErrorKind::Rejected && assumed_absent > 0 => {
                    // Something that was assumed to be absent is there, most likely.
                    self.meters.assumption_failed.increment(1);
                    may_assume = false;
                    set_under_way(&mut items, false);
                }
                Err(error) => {
                    if *error.kind() == ErrorKind::Unavailable {
                        // `Unavailable` says that nothing was written. That is wrong for a copy of a write that is
                        // in the log already; it was not confirmed to be durable either, so it is unknown.
                        let outcomes = outcomes.iter().zip(items);
                        let (replays, rest): (Vec<_>, Vec<_>) = outcomes
                            .partition(|(outcome, _)| matches!(outcome, Outcome::Replayed(_)));
                        let of = |decided: Vec<(&Outcome, Item)>| -> Vec<Item> {
                            decided.into_iter().map(|(_, item)| item).collect()
                        };
                        fail_all(of(replays), || WriteError::Unknown);
                        items = of(rest);
                    }
                    return self.fail(items, &error);
                }
            }
        }
    }

    /// Answers a batch without events: refusals, and copies of requests that were carried out before (replays).
    /// Refusals are answered at once. Replays are answered after `confirm`: their events were read, but may come
    /// from an append, of any process, whose outcome was unknown, and so need not be durable yet. (In a batch
    /// with events no `confirm` is needed, since its own append proves the same.)
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
        // Nobody would look after it meanwhile.
        self.prefetch.begin_anew();
        match telling(&mut items, self.appender.confirm(give_up)).await {
            Ok(()) => answer(items, outcomes, &batch),
            Err(error) => {
                let lane = self.appender.lane;
                tracing::warn!(%lane, %error, "not known whether an earlier write is on stable storage");
                fail_all(items, || WriteError::Unknown);
            }
        }
    }

    /// Decides items on what is known as of the head: all, or the first ones, if what all are decided on is
    /// too much to be held at once. What is not in the cache is loaded, or assumed to be absent;
    /// answers how much is assumed.
    async fn decide(
        &mut self,
        items: &mut Vec<Item>,
        may_assume: bool,
        give_up: Instant,
        publishing: &Publishing,
    ) -> Result<(Plan, usize), Error> {
        if may_assume && let Some(assumed_absent) = self.cache.assumed_absent(items.iter()) {
            let plan = self.plan(items).await;
            let mut decided = items.iter().zip(&plan.outcomes);
            // A refusal must not rest on an assumption: it appends nothing, so no append could be rejected
            // and show that the assumption was wrong.
            if decided.all(|(item, outcome)| {
                !matches!(outcome, Outcome::Refused(_)) || self.cache.covers(item)
            }) {
                return Ok((plan, assumed_absent));
            }
        }
        let before = self.waiting.next_number();
        let mut count = items.len();
        while let Some(request) = self.cache.request(items.iter().take(count), before) {
            self.acknowledge(publishing).await;
            if !self.cache.is_sure_of_the_head() {
                self.turns.begin_anew();
            }
            // Nobody would look after it meanwhile, and it may have the connection that this load needs.
            self.prefetch.begin_anew();
            let Appender { lane, storage } = &self.appender;
            let load = storage.load(*lane, &request.entities, &request.keys, LOAD_BYTES);
            let loaded = telling(items, timeout_at(give_up, load)).await;
            let loaded = loaded.unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Unavailable, "load").because("no answer in time"))
            })?;
            let has_states = loaded.states.len() == request.entities.len();
            let has_replays = loaded.replays.len() == request.keys.len();
            if self.cache.learn(request, loaded).is_err() {
                // Another process wrote: what is in the cache is old.
                self.conflict();
            }
            for item in items.iter_mut() {
                item.answer.is_copy |= self.cache.is_copy(item);
            }
            drop_late(items);
            // The storage may have answered only a part of what was asked. Writes beyond that part are left for
            // a later batch. The first write is not: the rest of what it needs is loaded in the next round.
            let asked = items.iter().take(count);
            if !has_states {
                let covered = asked.take_while(|item| self.cache.covers_states(item));
                count = covered.count().max(1);
            } else if !has_replays {
                let covered = asked.take_while(|item| self.cache.covers(item));
                count = covered.count().max(1);
            }
        }
        let count = count.min(items.len());
        Ok((self.plan(items.get(..count).unwrap_or_default()).await, 0))
    }

    /// Decides items on what is in the cache.
    async fn plan(&mut self, items: &[Item]) -> Plan {
        self.faults.at(BatchStep::Loaded).await;
        let setting = plan::Setting {
            lane: self.appender.lane,
            head: self.cache.head().unwrap_or_default(),
            now: now(),
            limits: &self.limits,
        };
        let writes = items.iter().map(Item::proposed);
        plan::plan(writes, &setting, self.cache.states(), self.cache.replays())
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
        let expected = self.cache.head().unwrap_or_default().position;
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
            self.start_prefetch();
            tokio::select! {
                biased;
                outcome = &mut telling => return outcome,
                answer = self.prefetch.answer() => self.prefetch.learn(answer, &mut self.cache),
                _ = self.waiting.more(), if self.waiting.takes_more() => {}
            }
        }
    }

    /// Answers the callers of a batch that is durable, and lets it be published.
    async fn acknowledge(&mut self, publishing: &Publishing) {
        let Some(durable) = self.durable.take() else {
            return;
        };
        answer(durable.items, durable.outcomes, &durable.batch);
        self.faults.at(BatchStep::Acknowledged).await;
        publishing.committed(durable.previous, durable.batch);
    }

    /// Begins to load what waiting items need, if enough of them came in since the last time.
    fn start_prefetch(&mut self) {
        // What is loaded for the batch after the last one in a row would be dropped.
        let is_of_use = self.strategy.prefetches
            && self.prefetch.is_idle()
            && !self.turns.is_contended()
            && !self.turns.is_last()
            && !self.cache.is_overfull()
            && self.alone == 0;
        if !is_of_use {
            return;
        }
        let (items, next) = (self.waiting.items(), self.waiting.next_number());
        if self.cache.assumed_absent(items.iter()).is_some() {
            return;
        }
        let new = self.prefetch.look(items, self.last, next);
        if new == 0 {
            return;
        }
        let items = items.range(items.len() - new..);
        let Some(request) = self.cache.request(items, next) else {
            return;
        };
        self.meters.prefetches.increment(1);
        let Appender { lane, storage } = self.appender.clone();
        let (entities, keys) = (request.entities.clone(), request.keys.clone());
        let load = async move { storage.load(lane, &entities, &keys, LOAD_BYTES).await };
        self.prefetch.begin(request, Box::pin(load));
    }

    /// Moves on to where a durable batch led.
    fn advance(&mut self, batch: &Batch, states: HashMap<EntityRef, State>) {
        self.turns.appended();
        if self
            .prefetch
            .advance(&mut self.cache, batch, states)
            .is_err()
        {
            self.conflict();
        }
    }

    /// Answers items whose batch failed as a whole; a batch refused for its content is tried again
    /// one by one, so that one write never fails its neighbours.
    fn fail(&mut self, mut items: Vec<Item>, error: &Error) {
        let lane = self.appender.lane;
        self.forget();
        match error.kind() {
            ErrorKind::Rejected if items.len() > 1 => {
                tracing::warn!(%lane, %error, writes = items.len(), "batch rejected; trying its writes one by one");
                set_under_way(&mut items, false);
                self.alone = items.len() + self.waiting.items().len();
                self.waiting.put_back(items.into_iter());
            }
            ErrorKind::Unknown => fail_all(items, || WriteError::Unknown),
            ErrorKind::Unavailable => {
                if let Some(left_out) = self.unavailable.is_due() {
                    tracing::warn!(%lane, %error, left_out, "storage unavailable");
                }
                let trouble = error.trouble();
                fail_all(items, || {
                    trouble.map_or(WriteError::Unavailable, WriteError::Unable)
                });
            }
            ErrorKind::Rejected
            | ErrorKind::Invalid(_)
            | ErrorKind::Corrupt
            | ErrorKind::Config
            | ErrorKind::Bug => {
                let error = Arc::new(
                    Error::new(error.kind().clone(), error.operation())
                        .because(error.to_string())
                        .with_panic(error.panic()),
                );
                fail_all(items, || WriteError::Internal(Arc::clone(&error)));
            }
        }
    }

    fn forget(&mut self) {
        self.cache.forget();
        self.prefetch.begin_anew();
    }

    /// Another process has moved the head: nothing in the cache holds any more.
    fn conflict(&mut self) {
        self.turns.conflict();
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
        self.faults.at(BatchStep::AcknowledgedTooEarly).await;
        let Head { position, .. } = self.cache.head().unwrap_or_default();
        let Appender { lane, storage } = &self.appender;
        let _ = storage.append(*lane, position, batch).await;
        self.forget();
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
            Outcome::Refused(refused) => Err(WriteError::Refused(refused)),
        };
        item.answer.send(answer);
    }
}

fn fail_all(items: Vec<Item>, failure: impl Fn() -> WriteError) {
    for item in items {
        item.answer.send(Err(failure()));
    }
}
