//! Unary answers that were made and that their clients have not taken: how much of them a connection may hold, and all
//! connections together.
//!
//! HTTP/2 lets a client ask for many answers and grant no window to send them in. Each is bounded, and so is their
//! number, but their product is not memory that a stranger may have. Three rules bound it:
//!
//! - While the client of a connection has not taken [`Limits::connection_answers`], its further unary calls are refused
//!   before they run, and reads that are under way before their answers are made.
//! - When all connections together hold more than [`Limits::answers`], those are closed that weigh most: the bytes they
//!   hold times the time since a byte was taken.
//! - A connection that holds an answer and of which nothing is taken for [`Limits::answer_stall`] is closed.
//!
//! Streams are bounded otherwise ([`in_flight`](crate::in_flight)): what they have not sent yet is not made yet.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use stategate_metrics::Gauge;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::{end::End, limits::Limits};

/// How often connections are looked at for having taken something.
const LOOK: Duration = Duration::from_secs(1);

/// What all connections together hold.
#[derive(Debug)]
pub(crate) struct Budget {
    most: usize,
    of_connection: usize,
    stall: Duration,
    /// Bytes held by connections that are not being closed.
    total: AtomicUsize,
    connections: Mutex<Connections>,
    held: Gauge,
}

#[derive(Debug, Default)]
struct Connections {
    by_id: HashMap<u64, Weak<Answers>>,
    last: u64,
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            most: limits.answers,
            of_connection: limits.connection_answers,
            stall: limits.answer_stall,
            total: AtomicUsize::new(0),
            connections: Mutex::default(),
            held: stategate_metrics::ANSWERS_HELD.get(),
        })
    }

    /// A new connection, which holds nothing.
    pub(crate) fn connection(self: &Arc<Self>) -> Arc<Answers> {
        let mut connections = self.connections.lock();
        connections.last += 1;
        let id = connections.last;
        let answers = Arc::new(Answers {
            id,
            budget: Arc::clone(self),
            state: Mutex::new(State {
                bytes: 0,
                end: None,
                seen: 0,
                since: Instant::now(),
            }),
            taken: AtomicU64::new(0),
            closing: Notify::new(),
        });
        connections.by_id.insert(id, Arc::downgrade(&answers));
        answers
    }

    fn all(&self) -> Vec<Arc<Answers>> {
        let connections = self.connections.lock();
        // Upgraded under the lock and dropped without it: the last one to be dropped takes it.
        connections
            .by_id
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// Closes those of which nothing is taken, again and again.
    pub(crate) async fn watch(self: Arc<Self>) {
        loop {
            sleep(LOOK).await;
            let now = Instant::now();
            for answers in self.all() {
                answers.look(now);
            }
        }
    }

    /// Closes connections until the others hold no more than all may.
    fn make_room(&self) {
        let now = Instant::now();
        let mut weighed: Vec<_> = self
            .all()
            .into_iter()
            .map(|answers| (answers.weight(now), answers))
            .filter(|(weight, _)| *weight > 0)
            .collect();
        weighed.sort_by_key(|(weight, _)| *weight);
        while self.total.load(Relaxed) > self.most
            && let Some((_, heaviest)) = weighed.pop()
        {
            if heaviest.close(End::AnswersMemory) {
                tracing::debug!("connection closed: clients have not taken their answers");
            }
        }
    }
}

/// What one connection holds of unary answers, and the way to close it.
#[derive(Debug)]
pub(crate) struct Answers {
    id: u64,
    budget: Arc<Budget>,
    state: Mutex<State>,
    /// Bytes that the client took since it connected.
    taken: AtomicU64,
    closing: Notify,
}

#[derive(Debug)]
struct State {
    bytes: usize,
    /// Why the connection ends, once it does.
    end: Option<End>,
    /// What was taken when it was looked at last …
    seen: u64,
    /// … and when that had changed, or something was held, for the first time.
    since: Instant,
}

impl Answers {
    /// Whether the client has to take something before it may ask for more, or the connection is being closed.
    pub(crate) fn are_too_many(&self) -> bool {
        let state = self.state.lock();
        state.bytes >= self.budget.of_connection || state.end.is_some()
    }

    /// Counts bytes of an answer until they are [released](Self::release).
    pub(crate) fn hold(&self, bytes: usize) {
        let mut total = 0;
        {
            let mut state = self.state.lock();
            if state.bytes == 0 {
                state.since = Instant::now();
                state.seen = self.taken.load(Relaxed);
            }
            state.bytes += bytes;
            if state.end.is_none() {
                total = self.budget.total.fetch_add(bytes, Relaxed) + bytes;
            }
        }
        self.budget.held.increment(in_metric(bytes));
        if total > self.budget.most {
            self.budget.make_room();
        }
    }

    /// Bytes of an answer were written to the client.
    pub(crate) fn take(&self, bytes: usize) {
        self.taken
            .fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Relaxed);
    }

    /// The bytes of an answer are gone, taken or not.
    pub(crate) fn release(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.bytes -= bytes;
        if state.end.is_none() {
            self.budget.total.fetch_sub(bytes, Relaxed);
        }
        drop(state);
        self.budget.held.decrement(in_metric(bytes));
    }

    /// Has the connection closed; `false` if it is being closed already.
    pub(crate) fn close(&self, end: End) -> bool {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return false;
        }
        state.end = Some(end);
        // What it holds is as good as gone, and nobody else is to be closed for it.
        self.budget.total.fetch_sub(state.bytes, Relaxed);
        drop(state);
        self.closing.notify_one();
        true
    }

    /// Waits until the connection has to be closed.
    pub(crate) async fn closed(&self) {
        self.closing.notified().await;
    }

    /// Why it has to be.
    pub(crate) fn end(&self) -> Option<End> {
        self.state.lock().end
    }

    fn look(&self, now: Instant) {
        let taken = self.taken.load(Relaxed);
        let mut state = self.state.lock();
        if taken != state.seen || state.bytes == 0 {
            state.seen = taken;
            state.since = now;
        }
        let is_stalled = now.duration_since(state.since) >= self.budget.stall;
        drop(state);
        if is_stalled && self.close(End::AnswersUntaken) {
            tracing::debug!("connection closed: its client has not taken an answer in time");
        }
    }

    /// The bytes it holds times the milliseconds since one was taken.
    fn weight(&self, now: Instant) -> u128 {
        let taken = self.taken.load(Relaxed);
        let state = self.state.lock();
        let bytes = match state.end {
            None => state.bytes as u128,
            Some(_) => 0,
        };
        let stalled = match taken == state.seen {
            true => now.duration_since(state.since).as_millis(),
            false => 0,
        };
        bytes * (stalled + 1)
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.budget.connections.lock().by_id.remove(&self.id);
    }
}

fn in_metric(bytes: usize) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(most: usize, of_connection: usize) -> Arc<Budget> {
        Budget::new(&Limits {
            answers: most,
            connection_answers: of_connection,
            ..Limits::default()
        })
    }

    #[tokio::test]
    async fn a_connection_that_takes_its_answers_may_ask_again() {
        let budget = budget(1_000, 100);
        let answers = budget.connection();
        answers.hold(99);
        assert!(!answers.are_too_many());
        answers.hold(1);
        assert!(answers.are_too_many());
        answers.release(99);
        assert!(!answers.are_too_many());
        answers.release(1);
        assert_eq!(budget.total.load(Relaxed), 0);
        drop(answers);
        assert!(budget.connections.lock().by_id.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_what_all_may_hold_whoever_holds_most_for_longest_is_closed() {
        let budget = budget(1_000, 1_000);
        let [idle, large, busy] = [(); 3].map(|()| budget.connection());
        idle.hold(400);
        tokio::time::advance(Duration::from_secs(5)).await;
        large.hold(500);
        busy.hold(50);
        assert_eq!(idle.end(), None);
        busy.hold(51);
        assert_eq!(idle.end(), Some(End::AnswersMemory));
        assert_eq!((large.end(), busy.end()), (None, None));
        // What is being closed makes room before it is gone, and counts no more.
        assert_eq!(budget.total.load(Relaxed), 601);
        idle.hold(5_000);
        idle.release(400);
        assert_eq!(budget.total.load(Relaxed), 601);
        // Who takes something is not the one, however much it holds.
        tokio::time::advance(Duration::from_secs(5)).await;
        large.take(1);
        busy.hold(400);
        assert_eq!(busy.end(), Some(End::AnswersMemory));
        assert_eq!(large.end(), None);
        tokio::time::timeout(Duration::ZERO, busy.closed())
            .await
            .unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_takes_nothing_is_closed_in_time_and_no_other() {
        let budget = budget(1_000, 1_000);
        let stall = budget.stall;
        let watch = tokio::spawn(Arc::clone(&budget).watch());
        let [stalled, slow, empty] = [(); 3].map(|()| budget.connection());
        stalled.hold(1);
        slow.hold(100);
        for second in 0..2 * stall.as_secs() {
            let is_early = second < stall.as_secs();
            assert!(!is_early || stalled.end().is_none(), "after {second} s");
            sleep(LOOK).await;
            if second % 20 == 0 {
                slow.take(1);
            }
        }
        assert_eq!(stalled.end(), Some(End::AnswersUntaken));
        assert_eq!((slow.end(), empty.end()), (None, None));
        watch.abort();
    }
}
