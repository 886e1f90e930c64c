//! The channel within one process: a bounded queue for each subscription.
//!
//! A queue is bounded in bytes, since messages are between a hundred bytes and several megabytes. A
//! subscription that falls behind loses its queue, not the publisher its time.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
};

use async_trait::async_trait;
use futures::Stream;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::{Channel, Error, Info, Message, Notice, Subscription};

/// Most bytes a subscription may be behind.
const QUEUE_BYTES: usize = 32 << 20;

/// Settings of the in-memory channel: none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InMemoryConfig {}

/// The channel within one process.
#[derive(Debug)]
pub struct InMemory {
    subscribers: Mutex<Option<Vec<Weak<Queue>>>>,
}

impl InMemory {
    /// An open channel without subscribers.
    pub fn new(_config: &InMemoryConfig) -> Self {
        Self {
            subscribers: Mutex::new(Some(Vec::new())),
        }
    }
}

#[async_trait]
impl Channel for InMemory {
    fn info(&self) -> Info {
        Info {
            provider: "inmem",
            crosses_processes: false,
            carries_events: true,
        }
    }

    fn publish(&self, message: Message) {
        let message = Arc::new(message);
        let mut subscribers = self.subscribers.lock();
        let Some(subscribers) = subscribers.as_mut() else {
            return;
        };
        subscribers.retain(|subscriber| match subscriber.upgrade() {
            Some(queue) => {
                queue.push(&message);
                true
            }
            None => false,
        });
    }

    async fn subscribe(&self) -> Result<Subscription, Error> {
        let queue = Arc::new(Queue::default());
        self.subscribers
            .lock()
            .as_mut()
            .ok_or(Error::Closed)?
            .push(Arc::downgrade(&queue));
        Ok(Box::pin(Listener(queue)))
    }

    async fn close(&self) {
        let subscribers = self.subscribers.lock().take();
        for queue in subscribers
            .into_iter()
            .flatten()
            .filter_map(|queue| queue.upgrade())
        {
            queue.end();
        }
    }
}

#[derive(Debug, Default)]
struct Queue(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Arc<Message>>,
    bytes: usize,
    lagged: bool,
    ended: bool,
    reader: Option<Waker>,
}

impl Queue {
    fn push(&self, message: &Arc<Message>) {
        let mut waiting = self.0.lock();
        if waiting.bytes + message.size() > QUEUE_BYTES {
            waiting.messages.clear();
            waiting.bytes = 0;
            waiting.lagged = true;
        } else {
            waiting.bytes += message.size();
            waiting.messages.push_back(Arc::clone(message));
        }
        let reader = waiting.reader.take();
        drop(waiting);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn end(&self) {
        let mut waiting = self.0.lock();
        waiting.ended = true;
        if let Some(reader) = waiting.reader.take() {
            reader.wake();
        }
    }
}

struct Listener(Arc<Queue>);

impl Stream for Listener {
    type Item = Notice;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Notice>> {
        let mut waiting = self.0.0.lock();
        if std::mem::take(&mut waiting.lagged) {
            return Poll::Ready(Some(Notice::Lagged));
        }
        if let Some(message) = waiting.messages.pop_front() {
            waiting.bytes -= message.size();
            return Poll::Ready(Some(Notice::Message(message)));
        }
        if waiting.ended {
            return Poll::Ready(None);
        }
        waiting.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}
