//! The queue of one subscriber that is attached to the tail: events that match its filter and that it has not taken.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use stategate_api::{Delivery, Gate, Undelivered, Verdicts};
use stategate_model::{Event, Lane, Position, value::Corrupt};
use stategate_protocol::Encoded;
use tokio::sync::Notify;

use super::tail::Entry;
use crate::selection::{Looked, Selection};

/// Most events a subscriber may have waiting before it is moved to the storage.
const QUEUE_EVENTS: usize = 1_024;
/// Most bytes of them.
pub(super) const QUEUE_BYTES: usize = 1 << 20;

/// A subscriber as the hub knows it.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) selection: Selection,
    /// What every event for it goes through.
    pub(crate) gate: Gate,
    pub(super) queue: Mutex<Queue>,
    /// Notified when an event was queued, or the subscriber was detached.
    pub(crate) changed: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) entries: VecDeque<Arc<Entry>>,
    pub(super) bytes: usize,
    /// How many of the first were in the tail when it attached: they are not filtered yet.
    pub(super) backlog: usize,
    /// The queue was dropped, and the subscriber reads the storage.
    pub(super) detached: bool,
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

/// What a subscriber takes from its queue.
#[derive(Debug)]
pub(crate) enum Taken {
    /// The queue is empty.
    Empty,
    /// An event that was in the tail when the subscriber attached, and may not match its filter.
    Backlog(Arc<Entry>),
    /// These events, which match its filter.
    Matched(Vec<Arc<Entry>>),
    /// The queue was dropped; the subscriber has to read the storage.
    FellBehind,
}

impl Subscriber {
    pub(crate) fn new(selection: Selection, gate: Gate) -> Self {
        Self {
            selection,
            gate,
            queue: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// A subscriber that may see everything.
    #[cfg(test)]
    pub(crate) fn selecting(opts: &stategate_protocol::pb::StreamOpts) -> Self {
        use futures::FutureExt as _;
        use stategate_api::{Access, Context};
        let request = stategate_protocol::requests::subscribe(opts).unwrap();
        let mut subscriber = None;
        let rules = Access::open().rules();
        let message = rules.message(stategate_policy::Document::null);
        let call = rules.call(request, message, Context::anonymous(), |call| {
            let gate = call.gate();
            let (request, _) = call.into_parts();
            subscriber = Some(Self::new(Selection::of(request), gate));
            async { Err(stategate_api::Problem::ShuttingDown) }
        });
        drop(call.now_or_never());
        subscriber.unwrap()
    }

    /// An event as it is sent, if the subscriber may see it.
    pub(crate) fn deliver(
        &self,
        event: &Event,
        verdicts: &Verdicts,
        encode: impl FnOnce() -> Result<Encoded, Corrupt>,
    ) -> Result<Option<Delivery>, Undelivered> {
        self.gate
            .deliver(event, verdicts, || encode().map(|encoded| encoded.0))
    }

    /// Takes the first of what was queued, about `most` bytes of it.
    pub(crate) fn take(&self, most: usize) -> Taken {
        let mut queue = self.queue.lock();
        if queue.detached {
            return Taken::FellBehind;
        }
        if queue.backlog > 0 {
            queue.backlog -= 1;
            return queue.pop().map_or(Taken::Empty, Taken::Backlog);
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
            true => Taken::Empty,
            false => Taken::Matched(taken),
        }
    }

    /// Drops the queue if it holds an event of the lane up to a position. Whether it did.
    pub(super) fn detach_if_behind(&self, lane: Lane, gone: Position) -> bool {
        let mut queue = self.queue.lock();
        let oldest = queue.entries.iter().find(|entry| entry.event.lane == lane);
        let is_behind = oldest.is_some_and(|entry| entry.event.position <= gone);
        if is_behind {
            queue.detach();
        }
        is_behind
    }

    /// Queues those of consecutive events of one (domain, type) that match; `looked` are the same events.
    pub(super) fn offer(&self, entries: &[Arc<Entry>], looked: &[Looked<'_>]) -> Offered {
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
            // The encoding is counted by the tail; queues share it.
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
pub(super) enum Offered {
    /// All are queued.
    Queued(u64),
    /// The queue was dropped.
    TooMuch(u64),
}
