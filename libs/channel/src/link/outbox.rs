//! What is published and not yet sent.
//!
//! Bounded in messages and bytes. What does not fit is dropped, but how far its lane goes is kept, one
//! number a lane, and sent as a bare head. While the carrier is away nothing but that is kept: events
//! that waited for its return would be in every stream long before, from the log.

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;
use stategate_model::{Lane, LogId, Position};
use tokio::sync::Notify;

use crate::Message;

/// How much may wait, and how much of it is sent at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) messages: usize,
    pub(super) bytes: usize,
    pub(super) sent_messages: usize,
    pub(super) sent_bytes: usize,
}

/// Those of every link.
pub(super) const BOUNDS: Bounds = Bounds {
    messages: 4_096,
    bytes: 32 << 20,
    sent_messages: 128,
    sent_bytes: 4 << 20,
};

/// A bounded buffer between `publish` and the task that sends.
#[derive(Debug)]
pub(super) struct Outbox {
    log_id: LogId,
    bounds: Bounds,
    state: Mutex<State>,
    /// Told when there is something to take.
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Message>,
    bytes: usize,
    /// How far lanes go of which something was dropped.
    owed: BTreeMap<Lane, Position>,
    /// How far lanes go, as far as they were published.
    newest: BTreeMap<Lane, Position>,
    is_away: bool,
}

impl State {
    fn owe(&mut self, lane: Lane, head: Position) {
        let owed = self.owed.entry(lane).or_default();
        *owed = head.max(*owed);
    }
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits to be sent.
    Kept,
    /// Only how far its lane goes was kept.
    Dropped,
}

impl Outbox {
    pub(super) fn new(log_id: LogId, bounds: Bounds) -> Self {
        Self {
            log_id,
            bounds,
            state: Mutex::default(),
            filled: Notify::new(),
        }
    }

    /// Adds a message if there is room.
    pub(super) fn push(&self, message: Message) -> Pushed {
        let mut state = self.state.lock();
        let (lane, head) = (message.lane, message.head());
        let newest = state.newest.entry(lane).or_default();
        *newest = head.max(*newest);
        let fits = state.waiting.len() < self.bounds.messages
            && state.bytes + message.size() <= self.bounds.bytes;
        if state.is_away || !fits {
            state.owe(lane, head);
            let is_there = !state.is_away;
            drop(state);
            if is_there {
                // Nothing else may wait: one message can be more than there is ever room for.
                self.filled.notify_one();
            }
            return Pushed::Dropped;
        }
        // It will say itself how far its lane goes, and the receiver sees the hole.
        if state.owed.get(&lane).is_some_and(|owed| *owed <= head) {
            state.owed.remove(&lane);
        }
        state.bytes += message.size();
        state.waiting.push_back(message);
        drop(state);
        self.filled.notify_one();
        Pushed::Kept
    }

    /// Waits for something to send, and takes a part of it: messages in their order, and once these
    /// are all taken, heads that are owed.
    pub(super) async fn take(&self) -> Vec<Message> {
        loop {
            let filled = self.filled.notified();
            let taken = self.take_now();
            if !taken.is_empty() {
                return taken;
            }
            filled.await;
        }
    }

    /// As [`Outbox::take`], but nothing if there is nothing.
    pub(super) fn take_now(&self) -> Vec<Message> {
        let mut state = self.state.lock();
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(message) = state.waiting.front() {
            let size = message.size();
            let is_enough =
                taken.len() >= self.bounds.sent_messages || bytes + size > self.bounds.sent_bytes;
            if is_enough && !taken.is_empty() {
                return taken;
            }
            bytes += size;
            state.bytes -= size;
            taken.extend(state.waiting.pop_front());
        }
        let owed = std::mem::take(&mut state.owed).into_iter();
        taken.extend(owed.map(|(lane, head)| Message::bare_head(self.log_id, lane, head)));
        taken
    }

    /// The carrier is away, and what was on its way may be lost: keeps heads alone from now on.
    /// Answers how many messages were dropped.
    pub(super) fn away(&self) -> usize {
        let mut state = self.state.lock();
        state.is_away = true;
        state.bytes = 0;
        let dropped = std::mem::take(&mut state.waiting);
        for message in &dropped {
            state.owe(message.lane, message.head());
        }
        dropped.len()
    }

    /// The carrier is there. If it was away, every lane's head is owed: nobody knows what of the last
    /// that was sent has arrived.
    pub(super) fn back(&self) {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.is_away) {
            state.owed = state.newest.clone();
            drop(state);
            self.filled.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::FutureExt as _;

    use super::*;
    use crate::Events;

    const SMALL: Bounds = Bounds {
        messages: 4,
        bytes: 10_000,
        sent_messages: 3,
        sent_bytes: 5_000,
    };

    fn message(lane: u8, first: u64, bytes: usize) -> Message {
        Message {
            lane: Lane(lane),
            first: Position::new(first),
            events: Events::Encoded(vec![Bytes::from(vec![0; bytes])]),
            ..Message::bare_head(LogId::random(), Lane(0), Position::ZERO)
        }
    }

    /// Lane, head, and whether the events are there.
    fn taken(outbox: &Outbox) -> Vec<(u8, u64, bool)> {
        let taken = outbox.take().now_or_never().unwrap_or_default();
        let seen = |m: Message| (m.lane.0, m.head().get(), !m.events.is_empty());
        taken.into_iter().map(seen).collect()
    }

    #[test]
    fn what_fits_is_sent_in_order() {
        let outbox = Outbox::new(LogId::random(), SMALL);
        for first in 1..=4 {
            assert_eq!(outbox.push(message(1, first, 10)), Pushed::Kept);
        }
        let all = |range: std::ops::RangeInclusive<u64>| -> Vec<_> {
            range.map(|head| (1, head, true)).collect()
        };
        assert_eq!(taken(&outbox), all(1..=3));
        assert_eq!(taken(&outbox), all(4..=4));
        assert_eq!(taken(&outbox), []);
    }

    #[test]
    fn what_does_not_fit_leaves_the_newest_head() {
        let outbox = Outbox::new(LogId::random(), SMALL);
        for first in 1..=9 {
            outbox.push(message(1, first, 10));
        }
        assert_eq!(outbox.push(message(2, 7, 20_000)), Pushed::Dropped);
        assert_eq!(taken(&outbox).len(), 3);
        assert_eq!(taken(&outbox), [(1, 4, true), (1, 9, false), (2, 7, false)]);
        // A newer message makes the head superfluous, an older one does not.
        for first in 1..=9 {
            outbox.push(message(3, first, 10));
        }
        assert_eq!(taken(&outbox).len(), 3);
        outbox.push(message(3, 10, 10));
        assert_eq!(taken(&outbox), [(3, 4, true), (3, 10, true)]);
    }

    #[tokio::test]
    async fn a_message_that_never_fits_has_its_head_sent_at_once() {
        let outbox = Outbox::new(LogId::random(), SMALL);
        let mut waits = std::pin::pin!(outbox.take());
        assert!(futures::poll!(&mut waits).is_pending());
        assert_eq!(outbox.push(message(1, 7, 20_000)), Pushed::Dropped);
        let taken = waits.now_or_never().unwrap();
        assert_eq!(taken.first().unwrap().head(), Position::new(7));
    }

    #[test]
    fn large_messages_are_sent_few_at_a_time() {
        let outbox = Outbox::new(LogId::random(), SMALL);
        outbox.push(message(0, 1, 2_000));
        outbox.push(message(0, 2, 7_000));
        assert_eq!(taken(&outbox), [(0, 1, true)]);
        assert_eq!(taken(&outbox), [(0, 2, true)]);
    }

    #[test]
    fn while_the_carrier_is_away_heads_are_kept() {
        let outbox = Outbox::new(LogId::random(), SMALL);
        outbox.push(message(1, 1, 10));
        assert_eq!(taken(&outbox), [(1, 1, true)]);
        outbox.push(message(2, 1, 10));
        outbox.push(message(2, 2, 10));
        assert_eq!(outbox.away(), 2);
        assert_eq!(outbox.push(message(2, 3, 10)), Pushed::Dropped);
        outbox.back();
        assert_eq!(taken(&outbox), [(1, 1, false), (2, 3, false)]);
        assert_eq!(outbox.push(message(2, 4, 10)), Pushed::Kept);
        outbox.back();
        assert_eq!(taken(&outbox), [(2, 4, true)]);
    }
}
