//! The newest events of each lane, kept in memory for all subscribers that keep up with them.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
};

use stategate_api::Verdicts;
use stategate_model::{Event, EventId, Position, value::Corrupt};
use stategate_protocol::{Encoded, encode_event};

use crate::pieces;

/// An event of the tail.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) event: Event,
    encoded: OnceLock<Encoded>,
    /// Of the encoding, where that is sent in pieces.
    digest: OnceLock<u64>,
    /// Whether subscribers may see it, as far as that was decided.
    pub(crate) verdicts: Verdicts,
}

impl Entry {
    /// An event, and its encoding where it came with one.
    pub(crate) fn new(mut event: Event, encoded: Option<Encoded>) -> Self {
        event.values = event.values.lean();
        Self {
            event,
            encoded: encoded.map_or_else(OnceLock::new, OnceLock::from),
            digest: OnceLock::new(),
            verdicts: Verdicts::default(),
        }
    }

    /// Most bytes that the entry takes: the event and its encoding. Protobuf may be larger than JSON: an array of
    /// digits takes five and a half times as many bytes.
    pub(super) fn size(&self) -> usize {
        const ENCODED: usize = 6;
        self.event.size() + self.event.values.size() * ENCODED
    }

    /// The event's bytes, encoded by whoever needs them first.
    pub(crate) fn encoded(&self) -> Result<Encoded, Corrupt> {
        if let Some(encoded) = self.encoded.get() {
            return Ok(encoded.clone());
        }
        let encoded = encode_event(&self.event)?;
        Ok(self.encoded.get_or_init(|| encoded).clone())
    }

    /// What tells its encoding from another of the same event; the same for every subscriber.
    pub(crate) fn digest(&self, encoded: &[u8]) -> u64 {
        *self.digest.get_or_init(|| pieces::digest(encoded))
    }
}

/// How much of the log is kept in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TailBounds {
    /// Most events of a lane.
    pub(crate) events: usize,
    /// Most bytes of a lane.
    pub(crate) bytes: usize,
}

/// The tail of one lane: consecutive events up to its head.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pub(super) entries: VecDeque<Arc<Entry>>,
    pub(super) bytes: usize,
    pub(super) head: Position,
    /// The id of the event at the head; `None` when it is not known.
    pub(super) head_id: Option<EventId>,
    /// The last event of a batch that was larger than the tail. Queues hold such events until the next batch
    /// comes, so that subscribers that keep up get them.
    pub(super) unkept: Option<Position>,
}

impl Tail {
    /// The position after which the tail has everything.
    pub(super) fn reaches_back_to(&self) -> Position {
        Position::new(self.head.get() - self.entries.len() as u64)
    }

    pub(super) fn restart(&mut self, head: Position) {
        *self = Self {
            head,
            ..Self::default()
        };
    }
}

/// The first of some events, about so many bytes of them and at least one.
pub(super) fn first_of(mut entries: VecDeque<Arc<Entry>>, most: usize) -> Vec<Arc<Entry>> {
    let fitting = fitting(&entries, most);
    entries.truncate(fitting);
    entries.into()
}

/// How many of the first events are about so many bytes: at least one, if there is one.
pub(super) fn fitting<'a>(entries: impl IntoIterator<Item = &'a Arc<Entry>>, most: usize) -> usize {
    let mut bytes: usize = 0;
    let mut entries = entries.into_iter();
    let Some(first) = entries.next() else {
        return 0;
    };
    bytes += first.event.size();
    let fitting = entries.take_while(|entry| {
        bytes += entry.event.size();
        bytes <= most
    });
    1 + fitting.count()
}
