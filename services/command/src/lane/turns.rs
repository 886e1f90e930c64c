//! Whose turn it is to write a lane that several processes write to.
//!
//! The writer that appends first moves the head of a lane. The others get `HeadMoved`, and have to load again
//! before they can append. A busy writer that goes from append to append without loading would win every time.
//! So after some batches in a row it reads the head first, as its competitors do. After a conflict it does not
//! prefetch for a while, so that a batch takes each of them about as long and each wins about as often.

use std::time::Duration;

use tokio::time::Instant;

/// How long after a conflict a writer does not prefetch.
const CONTENDED: Duration = Duration::from_secs(1);

/// What a writer knows of the others.
#[derive(Debug)]
pub(super) struct Turns {
    /// Batches in a row that are enough; `None` if nobody is kept waiting.
    limit: Option<u32>,
    /// Batches since the head was last read for one of them.
    batches: u32,
    /// When another process was last seen to have moved the head.
    last_conflict: Option<Instant>,
}

impl Turns {
    pub(super) fn new(limit: Option<u32>) -> Self {
        Self {
            limit,
            batches: 0,
            last_conflict: None,
        }
    }

    /// A batch was appended.
    pub(super) fn appended(&mut self) {
        self.batches += 1;
    }

    /// The others had their turn: the head was read, or nothing was there to be written.
    pub(super) fn begin_anew(&mut self) {
        self.batches = 0;
    }

    /// Another process has moved the head.
    pub(super) fn conflict(&mut self) {
        self.last_conflict = Some(Instant::now());
    }

    /// Whether the head is to be read before the next batch.
    pub(super) fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| self.batches >= limit)
    }

    /// Whether it will be, after the batch that is being appended.
    pub(super) fn is_last(&self) -> bool {
        self.limit.is_some_and(|limit| self.batches + 1 >= limit)
    }

    /// Whether others were seen to write to the lane of late.
    pub(super) fn is_contended(&self) -> bool {
        self.last_conflict
            .is_some_and(|conflict| conflict.elapsed() < CONTENDED)
    }
}
