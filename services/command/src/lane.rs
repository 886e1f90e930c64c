//! The lane writer: many writes, one append.
//!
//! Each lane has one writer task in each command service. It takes what has queued up, decides it
//! all on the states it holds, and appends once, on condition that the lane's head has not moved.
//! While one append is on its way the next batch gathers; an idle lane appends at once. So
//! throughput grows with load and latency does not, and no lock is held across an await.
//!
//! Nothing is answered on states that might be stale: an acceptance is answered when its append,
//! conditional on the head the states belong to, is durable; a refusal when that append went
//! through, or when the states were read after the request came in.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use metrics::{Counter, Histogram, counter, histogram};
use stategate_channel::{Channel, Message};
use stategate_model::{
    Claims, Digest, EntityRef, Event, EventId, IdempotencyKey, Lane, Limits, LogId, State,
    Timestamp, TraceParent, limits,
};
use stategate_protocol::encode_event;
use stategate_storage::{Appended, Batch, Error, Head, Kind, Storage};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, sleep},
};

use crate::{
    faults::{Faults, Step},
    plan::{self, Operation, Outcome, Plan},
    states::States,
};

/// How long a batch may try to reach the storage before its callers are told.
const GIVE_UP: Duration = Duration::from_secs(10);
/// Committed batches that may wait to be published.
const UNPUBLISHED: usize = 16;
/// Pause before the storage is asked again after an append whose outcome is unknown.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// A request to write: one operation, or several that happen together.
#[derive(Debug)]
pub struct Write {
    /// What to do, in order; all in the lane's domains.
    pub operations: Vec<Operation>,
    /// What makes copies of the request recognisable.
    pub idempotency: Option<(IdempotencyKey, Digest)>,
    /// Who asks.
    pub claims: Claims,
    /// The trace it belongs to.
    pub trace_parent: Option<TraceParent>,
}

impl Write {
    fn size(&self) -> usize {
        self.operations.iter().map(Operation::size).sum::<usize>() + self.claims.values().size()
    }
}

/// What a write did.
#[derive(Debug, Clone)]
pub struct Written {
    /// One event for each operation.
    pub events: Vec<Event>,
    /// Whether an earlier copy of the request did it.
    pub replayed: bool,
}

/// Why a write was not done, or may not have been.
#[derive(Debug)]
pub enum Failure {
    /// Decided against; nothing was written.
    Refused(plan::Refused),
    /// The queue is full; nothing was written.
    Busy,
    /// The storage is away; nothing was written.
    Unavailable,
    /// It may have been written, once.
    Unknown,
    /// The service is ending; nothing was written.
    Ending,
    /// The storage refused what stategate thought legal; nothing was written.
    Internal(Arc<Error>),
}

/// The way into a lane's queue.
#[derive(Debug, Clone)]
pub struct LaneHandle {
    queue: mpsc::Sender<Item>,
    room: Arc<Semaphore>,
}

/// How much may wait in front of a lane.
#[derive(Debug, Clone, Copy)]
pub struct QueueBounds {
    /// Most writes.
    pub writes: usize,
    /// Most bytes of their values.
    pub bytes: usize,
}

/// A waiting write. Its ids are given once, whatever becomes of the first try.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) write: Write,
    pub(crate) ids: Vec<EventId>,
    answer: oneshot::Sender<Result<Written, Failure>>,
    since: Instant,
    _room: OwnedSemaphorePermit,
}

/// The queue's room is counted in these, so that the largest bound fits a semaphore.
const ROOM_UNIT: usize = 256;

impl LaneHandle {
    /// Queues a write and waits for what becomes of it.
    ///
    /// Dropping the future before it ends leaves the outcome open.
    pub async fn write(&self, write: Write) -> Result<Written, Failure> {
        let units = u32::try_from(write.size() / ROOM_UNIT + 1).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room)
            .try_acquire_many_owned(units)
            .map_err(|_| Failure::Busy)?;
        let ids = write.operations.iter().map(|_| EventId::random()).collect();
        let (answer, outcome) = oneshot::channel();
        let item = Item {
            write,
            ids,
            answer,
            since: Instant::now(),
            _room: room,
        };
        self.queue.try_send(item).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Failure::Busy,
            mpsc::error::TrySendError::Closed(_) => Failure::Ending,
        })?;
        // The task answers every item it takes; it is gone only if it panicked mid-batch.
        outcome.await.unwrap_or(Err(Failure::Unknown))
    }
}

/// The writer of one lane.
pub struct LaneWriter {
    lane: Lane,
    storage: Arc<dyn Storage>,
    channel: Arc<dyn Channel>,
    limits: Limits,
    queue: mpsc::Receiver<Item>,
    /// Taken from the queue, not decided yet.
    waiting: VecDeque<Item>,
    /// The head that `states` belong to; `None` when it has to be read.
    head: Option<Head>,
    states: States,
    /// How many of the waiting writes go one by one, since their batch was rejected as a whole.
    alone: usize,
    faults: Faults,
    meters: Meters,
}

struct Meters {
    events: Counter,
    appends: Counter,
    moved: Counter,
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
            lane,
            storage,
            channel,
            limits,
            queue,
            waiting: VecDeque::new(),
            head: None,
            states: States::new(cache_bytes),
            alone: 0,
            faults: Faults::from_env(),
            meters: Meters {
                events: counter!("stategate_events_appended_total", "lane" => label.clone()),
                appends: counter!("stategate_appends_total", "lane" => label.clone()),
                moved: counter!("stategate_appends_head_moved_total", "lane" => label.clone()),
                batch: histogram!("stategate_append_events", "lane" => label.clone()),
                queued: histogram!("stategate_write_queue_seconds", "lane" => label),
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
        let (publisher, committed) = mpsc::channel(UNPUBLISHED);
        let publishing = tokio::spawn(
            Publisher {
                channel: Arc::clone(&self.channel),
                log_id: self.storage.info().log_id,
                lane: self.lane,
            }
            .run(committed),
        );
        loop {
            if self.waiting.is_empty() {
                let Some(item) = self.queue.recv().await else {
                    break;
                };
                self.waiting.push_back(item);
            }
            while self.waiting.len() < limits::BATCH_EVENTS {
                let Ok(item) = self.queue.try_recv() else {
                    break;
                };
                self.waiting.push_back(item);
            }
            // A caller that is gone before its write was decided does not want it any more.
            self.waiting.retain(|item| !item.answer.is_closed());
            let most = if self.alone > 0 {
                1
            } else {
                limits::BATCH_EVENTS
            };
            self.alone = self.alone.saturating_sub(1).min(self.waiting.len());
            if !self.waiting.is_empty() {
                self.write(most, &publisher).await;
            }
        }
        // What was acknowledged is also published.
        drop(publisher);
        if let Err(error) = publishing.await {
            tracing::error!(%error, "a publisher failed");
        }
    }

    /// Decides and appends what waits, at most `most` writes of it.
    async fn write(&mut self, most: usize, publisher: &mpsc::Sender<Committed>) {
        let give_up = Instant::now() + GIVE_UP;
        let mut items: Vec<Item> = Vec::new();
        let (mut events, mut bytes) = (0, 0);
        while let Some(item) = self.waiting.front() {
            events += item.ids.len();
            bytes += item.write.size();
            let fits = events <= limits::BATCH_EVENTS && bytes <= limits::BATCH_BYTES / 2;
            if !items.is_empty() && (!fits || items.len() >= most) {
                break;
            }
            items.extend(self.waiting.pop_front());
        }
        for item in &items {
            self.meters
                .queued
                .record(item.since.elapsed().as_secs_f64());
        }

        loop {
            let (plan, fresh) = match self.decide(&items).await {
                Ok(decided) => decided,
                Err(error) => return self.fail(items, &error),
            };
            // What did not fit goes first in the next batch.
            for item in items.drain(plan.outcomes.len()..).rev().collect::<Vec<_>>() {
                self.waiting.push_front(item);
            }
            let Plan {
                outcomes,
                batch,
                states,
            } = plan;
            if batch.events.is_empty() {
                if fresh {
                    return answer(items, outcomes, &[]);
                }
                // Refusals alone, on states that may be stale by now: look once more.
                self.forget();
                continue;
            }

            self.faults.at(Step::Decided).await;
            if self.faults.acknowledge_before_append() {
                let events = batch.events.clone();
                answer(std::mem::take(&mut items), outcomes, &events);
                let expected = self.head.unwrap_or_default().position;
                self.faults.at(Step::AcknowledgedTooEarly).await;
                let _ = self
                    .storage
                    .append(self.lane, expected, Arc::new(batch))
                    .await;
                return self.forget();
            }
            let batch = Arc::new(batch);
            match self.append(&batch, give_up).await {
                Ok(Appended::Done) => {
                    self.faults.at(Step::Appended).await;
                    self.meters.appends.increment(1);
                    self.meters.events.increment(batch.events.len() as u64);
                    #[allow(clippy::cast_precision_loss, reason = "at most a thousand")]
                    self.meters.batch.record(batch.events.len() as f64);
                    let previous = self.head.and_then(|head| head.id);
                    self.advance(&batch, states);
                    answer(items, outcomes, &batch.events);
                    self.faults.at(Step::Acknowledged).await;
                    // When the publisher is that far behind, the stream services read the log.
                    let _ = publisher.try_send(Committed { previous, batch });
                    return;
                }
                Ok(Appended::HeadMoved) => {
                    self.meters.moved.increment(1);
                    self.forget();
                    if Instant::now() >= give_up {
                        return fail_all(items, || Failure::Unavailable);
                    }
                }
                Err(error) => return self.fail(items, &error),
            }
        }
    }

    /// Decides items on states that belong to `self.head`, reading what is not known. The flag says
    /// whether the storage was asked, so that the head is known to have been there since the items
    /// came in.
    async fn decide(&mut self, items: &[Item]) -> Result<(Plan, bool), Error> {
        loop {
            let keys = plan::keys(items);
            let unknown = self.states.unknown(plan::entities(items));
            let look = self.head.is_none() || !unknown.is_empty() || !keys.is_empty();
            let mut replays = HashMap::new();
            if look {
                let loaded = self.storage.load(self.lane, &unknown, &keys).await?;
                if self.head.is_some_and(|head| head != loaded.head) {
                    // Another process wrote: what was known is old.
                    self.forget();
                    continue;
                }
                // If the head is where it was, what was known before is as fresh as what was read.
                self.head = Some(loaded.head);
                self.states.learn(unknown, loaded.states);
                replays = keys.into_iter().zip(loaded.replays).collect();
            }
            self.faults.at(Step::Loaded).await;
            let head = self.head.unwrap_or_default();
            let setting = plan::Setting {
                lane: self.lane,
                head,
                now: now(),
                limits: &self.limits,
            };
            return Ok((plan::plan(items, &setting, &self.states, &replays), look));
        }
    }

    /// Appends on condition of the head, finding out what became of an append whose outcome is
    /// unknown.
    ///
    /// Repeating the same append is how: if the first landed, or still lands, the head moves and the
    /// repetition cannot. So `Done` is this batch, and after `HeadMoved` the batch is in the log if
    /// its first event is, and otherwise never will be.
    async fn append(&mut self, batch: &Arc<Batch>, give_up: Instant) -> Result<Appended, Error> {
        let expected = self.head.unwrap_or_default().position;
        let mut in_doubt = false;
        loop {
            let error = match self
                .storage
                .append(self.lane, expected, Arc::clone(batch))
                .await
            {
                Ok(Appended::Done) => return Ok(Appended::Done),
                Ok(Appended::HeadMoved) if !in_doubt => return Ok(Appended::HeadMoved),
                Ok(Appended::HeadMoved) => match self.landed(batch).await {
                    Ok(true) => return Ok(Appended::Done),
                    Ok(false) => return Ok(Appended::HeadMoved),
                    Err(error) => error,
                },
                Err(error) if *error.kind() == Kind::Unknown => error,
                Err(error) if !in_doubt => return Err(error),
                Err(error) => error,
            };
            in_doubt = true;
            tracing::warn!(lane = %self.lane, %error, "append in doubt; asking again");
            if Instant::now() + ASK_AGAIN >= give_up {
                return Err(Error::new(Kind::Unknown, "append").because(error));
            }
            sleep(ASK_AGAIN).await;
        }
    }

    async fn landed(&self, batch: &Batch) -> Result<bool, Error> {
        let Some(event) = batch.events.first() else {
            return Ok(false);
        };
        Ok(self
            .storage
            .get_event(&event.entity, event.id)
            .await?
            .value
            .is_some())
    }

    /// Answers items whose batch failed as a whole; a batch refused for its content is tried again
    /// one by one, so that one write never fails its neighbours.
    fn fail(&mut self, items: Vec<Item>, error: &Error) {
        self.forget();
        match error.kind() {
            Kind::Rejected if items.len() > 1 => {
                tracing::warn!(lane = %self.lane, %error, writes = items.len(), "batch rejected; trying its writes one by one");
                for item in items.into_iter().rev() {
                    self.waiting.push_front(item);
                }
                self.alone = self.waiting.len();
            }
            Kind::Unknown => fail_all(items, || Failure::Unknown),
            Kind::Unavailable => {
                tracing::warn!(lane = %self.lane, %error, "storage unavailable");
                fail_all(items, || Failure::Unavailable);
            }
            Kind::Rejected | Kind::Invalid(_) | Kind::Corrupt | Kind::Config => {
                let error = Arc::new(
                    Error::new(error.kind().clone(), error.operation()).because(error.to_string()),
                );
                fail_all(items, || Failure::Internal(Arc::clone(&error)));
            }
        }
    }

    fn forget(&mut self) {
        self.head = None;
        self.states.clear();
    }

    fn advance(&mut self, batch: &Batch, changed: HashMap<EntityRef, State>) {
        if let Some(last) = batch.events.last() {
            self.head = Some(Head {
                position: last.position,
                time: last.time,
                id: Some(last.id),
            });
            self.states.replace(changed);
        }
    }
}

/// Publishes what a lane has committed, beside its writer: encoding a batch takes a good part of the
/// time in which the next one could be on its way.
struct Publisher {
    channel: Arc<dyn Channel>,
    log_id: LogId,
    lane: Lane,
}

/// A committed batch, and the id of the event before it.
struct Committed {
    previous: Option<EventId>,
    batch: Arc<Batch>,
}

impl Publisher {
    async fn run(self, mut committed: mpsc::Receiver<Committed>) {
        while let Some(Committed { previous, batch }) = committed.recv().await {
            self.publish(previous, &batch.events);
        }
    }

    fn publish(&self, previous: Option<EventId>, events: &[Event]) {
        let Some(first) = events.first() else { return };
        if !self.channel.info().carries_events {
            return;
        }
        // An event that cannot be encoded was just decided on from the same values; if it happens all
        // the same, the message is lost, which a channel may do.
        let Ok(encoded) = events
            .iter()
            .map(|event| encode_event(event).map(|encoded| encoded.0))
            .collect()
        else {
            return;
        };
        self.channel.publish(Message {
            log_id: self.log_id,
            lane: self.lane,
            first: first.position,
            previous,
            events: encoded,
        });
    }
}

fn answer(items: Vec<Item>, outcomes: Vec<Outcome>, events: &[Event]) {
    for (item, outcome) in items.into_iter().zip(outcomes) {
        let answer = match outcome {
            Outcome::Accepted(range) => Ok(Written {
                events: events.get(range).unwrap_or_default().to_vec(),
                replayed: false,
            }),
            Outcome::Copy(range) => Ok(Written {
                events: events.get(range).unwrap_or_default().to_vec(),
                replayed: true,
            }),
            Outcome::Replayed(events) => Ok(Written {
                events,
                replayed: true,
            }),
            Outcome::Refused(refused) => Err(Failure::Refused(refused)),
        };
        // A caller that is gone in the meantime learns it from the log.
        let _ = item.answer.send(answer);
    }
}

fn fail_all(items: Vec<Item>, failure: impl Fn() -> Failure) {
    for item in items {
        let _ = item.answer.send(Err(failure()));
    }
}

/// The time now. A clock before 1970 counts as 1970; one after 2262 as 2262.
fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
