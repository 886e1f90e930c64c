//! What a batch must be in itself, before a storage compares it with what it has.

use std::collections::{HashMap, HashSet};

use stategate_model::{EntityRef, Lane, Lanes, Position, Version, limits::BATCH_EVENTS};

use crate::{Batch, Error, ErrorKind, Result};

impl Batch {
    /// Checks what can be checked without a log: that the events stand at `expected + 1` and on in
    /// `lane`, in order of time, with continuing versions, and that the keys stand for some of them.
    ///
    /// Every storage asks this first, so that a broken batch is refused alike by all.
    pub(crate) fn check(&self, lanes: Lanes, lane: Lane, expected: Position) -> Result<()> {
        self.problem(lanes, lane, expected)
            .map_or(Ok(()), |problem| {
                Err(Error::new(ErrorKind::Rejected, "append").because(problem))
            })
    }

    fn problem(&self, lanes: Lanes, lane: Lane, expected: Position) -> Option<&'static str> {
        if self.events.is_empty() {
            return Some("the batch is empty");
        }
        if self.events.len() > BATCH_EVENTS {
            return Some("the batch has too many events");
        }
        if !lanes.contains(lane) {
            return Some("there is no such lane");
        }
        let mut ids = HashSet::with_capacity(self.events.len());
        let mut versions: HashMap<&EntityRef, Version> = HashMap::with_capacity(self.events.len());
        let mut position = expected;
        let mut time = None;
        let mut domain = "";
        for event in &self.events {
            position = position.next();
            if event.position != position {
                return Some("a position does not continue the lane");
            }
            if domain != event.entity.domain() {
                domain = event.entity.domain();
                if lanes.of(domain) != lane {
                    return Some("a domain belongs to another lane");
                }
            }
            if event.lane != lane {
                return Some("an event names another lane");
            }
            if time.is_some_and(|time| time >= event.time) {
                return Some("times do not increase");
            }
            time = Some(event.time);
            if event.version == Version::ZERO {
                return Some("a version is zero");
            }
            if versions
                .insert(&event.entity, event.version)
                .is_some_and(|before| before.next() != event.version)
            {
                return Some("a version does not continue its entity");
            }
            if !ids.insert(event.id) {
                return Some("an event id occurs twice");
            }
        }
        let mut keys = HashSet::with_capacity(self.keys.len());
        for record in &self.keys {
            let last = record.first.get().saturating_add(u64::from(record.count));
            if record.count == 0 || record.first <= expected || last > position.get() + 1 {
                return Some("an idempotency key stands for events of another batch");
            }
            if lanes.of(&record.key.domain) != lane {
                return Some("an idempotency key belongs to another lane");
            }
            if !keys.insert(&record.key) {
                return Some("an idempotency key occurs twice");
            }
        }
        None
    }
}
