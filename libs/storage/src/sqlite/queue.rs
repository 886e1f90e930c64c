//! A bounded queue from async callers to dedicated threads, which take as much as they can carry.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Semaphore;

/// The queue takes nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Closed;

/// Many callers, one or several threads. Callers wait for room without blocking their thread.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
    room: Semaphore,
}

struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

impl<T> Queue<T> {
    /// An empty queue that holds at most `bound` items.
    pub(super) fn new(bound: usize) -> Self {
        Self {
            state: Mutex::new(State {
                items: VecDeque::new(),
                closed: false,
            }),
            ready: Condvar::new(),
            room: Semaphore::new(bound),
        }
    }

    /// Adds an item, waiting for room.
    pub(super) async fn push(&self, item: T) -> Result<(), Closed> {
        self.room.acquire().await.map_err(|_| Closed)?.forget();
        let mut state = self.state.lock();
        if state.closed {
            return Err(Closed);
        }
        state.items.push_back(item);
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// Waits for items and moves them to `into`: at least one, and more while their weights stay
    /// within `budget`. False once the queue is closed and empty.
    pub(super) fn take(
        &self,
        into: &mut Vec<T>,
        budget: usize,
        weight: impl Fn(&T) -> usize,
    ) -> bool {
        let mut state = self.state.lock();
        while state.items.is_empty() {
            if state.closed {
                return false;
            }
            self.ready.wait(&mut state);
        }
        let (mut taken, mut left) = (0, budget);
        while let Some(next) = state.items.front() {
            let weight = weight(next);
            if taken > 0 && weight > left {
                break;
            }
            left = left.saturating_sub(weight);
            taken += 1;
            into.extend(state.items.pop_front());
        }
        // What is left is another thread's: it may have been woken for an item taken here.
        let more = !state.items.is_empty();
        drop(state);
        if more {
            self.ready.notify_one();
        }
        self.room.add_permits(taken);
        true
    }

    /// Refuses new items and drops those that are there: nobody may be left to take them.
    pub(super) fn abandon(&self) {
        self.close();
        let dropped = std::mem::take(&mut self.state.lock().items);
        drop(dropped);
    }

    /// Refuses new items. Those that are there are still taken.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.room.close();
        self.ready.notify_all();
    }
}
