//! The writes that wait for their lane's writer.

use std::collections::VecDeque;

use stategate_model::limits;
use tokio::sync::mpsc;

use super::Item;

/// Writes taken from the queue and not decided yet, the oldest first.
pub(super) struct Waiting {
    queue: mpsc::Receiver<Item>,
    items: VecDeque<Item>,
    /// The number of the next item to be taken from the queue.
    next: u64,
    open: bool,
}

impl Waiting {
    pub(super) fn new(queue: mpsc::Receiver<Item>) -> Self {
        Self {
            queue,
            items: VecDeque::new(),
            next: 0,
            open: true,
        }
    }

    /// The number that the next item will have: every item taken so far has a lower one.
    pub(super) fn next_number(&self) -> u64 {
        self.next
    }

    pub(super) fn items(&self) -> &VecDeque<Item> {
        &self.items
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether more may come, and there is room for it.
    pub(super) fn takes_more(&self) -> bool {
        self.open && self.items.len() < limits::BATCH_EVENTS
    }

    /// Takes what is in the queue, waiting for something if it is empty. False once every handle is
    /// gone and the queue is empty. Dropping the future loses nothing.
    pub(super) async fn more(&mut self) -> bool {
        match self.queue.recv().await {
            Some(item) => self.take(item),
            None => self.open = false,
        }
        self.take_ready();
        self.open
    }

    /// Takes what is in the queue already.
    pub(super) fn take_ready(&mut self) {
        while self.items.len() < limits::BATCH_EVENTS {
            let Ok(item) = self.queue.try_recv() else {
                break;
            };
            self.take(item);
        }
    }

    fn take(&mut self, item: Item) {
        self.items.push_back(Item {
            number: self.next,
            ..item
        });
        self.next += 1;
    }

    /// Drops writes whose callers are gone: before it was decided, they do not want it any more.
    pub(super) fn drop_abandoned(&mut self) {
        self.items.retain(|item| !item.answer.is_closed());
    }

    /// Takes the first items out, at most `most` and as many as a batch holds; at least one.
    pub(super) fn batch(&mut self, most: usize) -> Vec<Item> {
        let mut items: Vec<Item> = Vec::new();
        let (mut events, mut bytes) = (0, 0);
        while let Some(item) = self.items.front() {
            events += item.ids.len();
            bytes += item.write.size();
            let fits = events <= limits::BATCH_EVENTS && bytes <= limits::BATCH_BYTES / 2;
            if !items.is_empty() && (!fits || items.len() >= most) {
                break;
            }
            items.extend(self.items.pop_front());
        }
        items
    }

    /// Puts items back in front.
    pub(super) fn put_back(&mut self, items: impl DoubleEndedIterator<Item = Item>) {
        for item in items.rev() {
            self.items.push_front(item);
        }
    }
}
