//! The lane writer: many writes, one append.
//!
//! Each lane has one writer task in each command service. It takes what has queued up, decides it
//! all on the states it holds, and appends once, on condition that the lane's head has not moved.
//! While one append is on its way the next batch gathers and, where the storage is not at hand, what it
//! needs is read; an idle lane appends at once. So throughput grows with load and latency does not, and
//! no lock is held across an await.
//!
//! Nothing is answered on states that might be stale: an acceptance is answered when its append,
//! conditional on the head the states belong to, is durable; a refusal when that append went
//! through, or when the states were read after the request came in.

mod appender;
mod known;
mod publisher;
mod states;
mod waiting;
mod writer;

use std::{ops::Range, sync::Arc, time::SystemTime};

use stategate_model::{
    Claims, Digest, Event, EventId, IdempotencyKey, Timestamp, TraceParent, times,
};
use stategate_storage::{Batch, Error, Trouble};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::Instant,
};

use crate::plan::{self, Operation};

pub(crate) use self::states::States;
pub use self::writer::LaneWriter;

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
    /// Bytes it brings into a batch, about.
    fn size(&self) -> usize {
        self.operations.iter().map(Operation::size).sum::<usize>() + self.claims.values().size()
    }

    /// Bytes it holds while it waits: values and claims are bytes then, without a tree.
    fn held(&self) -> usize {
        /// What waits for the answer, and the allocator's share.
        const AROUND: usize = 256;
        let operations: usize = self.operations.iter().map(Operation::held).sum();
        let key = self.idempotency.as_ref().map_or(0, |(key, _)| key.size());
        size_of::<Item>() + AROUND + operations + self.claims.values().size() + key
    }
}

/// What a write did.
#[derive(Debug, Clone)]
pub struct Written {
    /// What it was done with, shared with all who waited for that.
    batch: Arc<Batch>,
    range: Range<usize>,
    /// Whether an earlier copy of the request did it.
    pub replayed: bool,
}

impl Written {
    /// One event for each operation, in order.
    pub fn events(&self) -> &[Event] {
        self.batch
            .events
            .get(self.range.clone())
            .unwrap_or_default()
    }
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
    /// The storage is there and cannot write; nothing was written.
    Unable(Trouble),
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
    /// Most bytes that they hold.
    pub bytes: usize,
}

/// A waiting write. Its ids are given once, whatever becomes of the first try.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) write: Write,
    pub(crate) ids: Vec<EventId>,
    /// In the order in which the writer took them from the queue.
    number: u64,
    answer: Answer,
    since: Instant,
    _room: OwnedSemaphorePermit,
}

impl Item {
    /// When its caller is told what is known by then.
    fn until(&self) -> Instant {
        self.since + times::WRITE
    }
}

/// The way back to a caller. One who gets no answer, for the writer's task has ended, is told what is known.
#[derive(Debug)]
struct Answer {
    caller: Option<oneshot::Sender<Result<Written, Failure>>>,
    /// Whether the write may be on its way to the storage.
    is_under_way: bool,
}

impl Answer {
    /// To a caller whose write is not on its way yet.
    fn to(caller: oneshot::Sender<Result<Written, Failure>>) -> Self {
        Self {
            caller: Some(caller),
            is_under_way: false,
        }
    }

    fn send(mut self, outcome: Result<Written, Failure>) {
        if let Some(caller) = self.caller.take() {
            // A caller that is gone in the meantime learns it from the log.
            let _ = caller.send(outcome);
        }
    }

    /// Tells a caller who has waited for as long as a write may take.
    fn give_up(&mut self) {
        if let Some(caller) = self.caller.take() {
            let _ = caller.send(Err(match self.is_under_way {
                true => Failure::Unknown,
                false => Failure::Unavailable,
            }));
        }
    }

    /// Whether the caller is gone, or was told.
    fn is_closed(&self) -> bool {
        self.caller.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(caller) = self.caller.take() {
            let _ = caller.send(Err(match self.is_under_way {
                true => Failure::Unknown,
                false => Failure::Ending,
            }));
        }
    }
}

/// The queue's room is counted in these, so that the largest bound fits a semaphore.
const ROOM_UNIT: usize = 256;

impl LaneHandle {
    /// Queues a write and waits for what becomes of it.
    ///
    /// Dropping the future before it ends leaves the outcome open.
    pub async fn write(&self, write: Write) -> Result<Written, Failure> {
        let units = u32::try_from(write.held() / ROOM_UNIT + 1).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room)
            .try_acquire_many_owned(units)
            .map_err(|_| Failure::Busy)?;
        let now = now();
        let ids = write
            .operations
            .iter()
            .map(|_| EventId::fresh(now))
            .collect();
        let (answer, outcome) = oneshot::channel();
        let item = Item {
            write,
            ids,
            number: 0,
            answer: Answer::to(answer),
            since: Instant::now(),
            _room: room,
        };
        self.queue.try_send(item).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Failure::Busy,
            mpsc::error::TrySendError::Closed(_) => Failure::Ending,
        })?;
        // Every item is answered, if only when it is dropped.
        outcome.await.unwrap_or(Err(Failure::Unknown))
    }
}

/// The time now. A clock before 1970 counts as 1970; one after 2262 as 2262.
fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
