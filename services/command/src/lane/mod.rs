//! The lane writer: many writes, one append.
//!
//! Each lane has one writer task in each command service. It takes what has queued up, decides it
//! all on the states in its cache, and appends once, on condition that the lane's head has not moved.
//! While one append is on its way the next batch gathers and, if the storage is remote, what it needs is
//! loaded; an idle lane appends at once. So more load makes batches larger, and a write waits as a rule for no
//! more than the append that is under way and its own. No lock is held across an await.
//!
//! Nothing is answered on states that might be stale: an acceptance is answered when its append,
//! conditional on the head the states belong to, is durable; a refusal when that append went
//! through, or when the states were read after the request came in.

mod appender;
mod cache;
mod prefetch;
mod publisher;
mod strategy;
mod turns;
mod waiting;
mod writer;

use std::{ops::Range, sync::Arc, time::SystemTime};

use stategate_model::{Event, EventId, Timestamp, times};
use stategate_storage::{Batch, Error, Trouble};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::Instant,
};

use crate::plan::{self, Proposed};

pub use self::writer::LaneWriter;
pub use crate::plan::Write;

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
pub enum WriteError {
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

    /// What is decided of it.
    fn proposed(&self) -> Proposed<'_> {
        Proposed {
            write: &self.write,
            ids: &self.ids,
        }
    }
}

/// The way back to a caller. One who gets no answer, for the writer's task has ended, is told what is known.
#[derive(Debug)]
struct Answer {
    caller: Option<oneshot::Sender<Result<Written, WriteError>>>,
    /// Whether the write may be on its way to the storage.
    is_under_way: bool,
    /// Whether an earlier copy of the write was seen in the log. So it is not told to be unwritten.
    is_copy: bool,
}

impl Answer {
    /// To a caller whose write is not on its way yet.
    fn to(caller: oneshot::Sender<Result<Written, WriteError>>) -> Self {
        Self {
            caller: Some(caller),
            is_under_way: false,
            is_copy: false,
        }
    }

    /// Whether the write may be in the log, or get there.
    fn may_be_written(&self) -> bool {
        self.is_under_way || self.is_copy
    }

    fn send(mut self, outcome: Result<Written, WriteError>) {
        if let Some(caller) = self.caller.take() {
            // A caller that is gone in the meantime learns it from the log.
            let _ = caller.send(outcome);
        }
    }

    /// Tells a caller who has waited for as long as a write may take.
    fn give_up(&mut self) {
        if let Some(caller) = self.caller.take() {
            let _ = caller.send(Err(match self.may_be_written() {
                true => WriteError::Unknown,
                false => WriteError::Unavailable,
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
            let _ = caller.send(Err(match self.may_be_written() {
                true => WriteError::Unknown,
                false => WriteError::Ending,
            }));
        }
    }
}

/// What a waiting write holds beside itself: what waits for its answer, and the allocator's share.
const AROUND: usize = size_of::<Item>() - size_of::<Write>() + 256;
/// The queue's room is counted in these, so that the largest bound fits a semaphore.
const ROOM_UNIT: usize = 256;

impl LaneHandle {
    /// Queues a write and waits for what becomes of it.
    ///
    /// Dropping the future before it ends leaves the outcome open.
    pub async fn write(&self, write: Write) -> Result<Written, WriteError> {
        self.write_since(write, Instant::now()).await
    }

    /// As [`LaneHandle::write`], for a call that came in at `since`: its time counts from there.
    pub async fn write_since(&self, write: Write, since: Instant) -> Result<Written, WriteError> {
        let units = u32::try_from((AROUND + write.held()) / ROOM_UNIT + 1).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room)
            .try_acquire_many_owned(units)
            .map_err(|_| WriteError::Busy)?;
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
            since,
            _room: room,
        };
        self.queue.try_send(item).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => WriteError::Busy,
            mpsc::error::TrySendError::Closed(_) => WriteError::Ending,
        })?;
        // Every item is answered, if only when it is dropped.
        outcome.await.unwrap_or(Err(WriteError::Unknown))
    }
}

/// The time now. A clock before 1970 counts as 1970; one after 2262 as 2262.
fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
