//! The channel within one process: a bounded queue for each subscription.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::Deserialize;
use stategate_metrics::Counter;

use crate::{
    Carries, Channel, Error, Info, Message, Reach, Subscription,
    queue::{Queue, Reader},
};

const PROVIDER: &str = "inmem";

/// Settings of the in-memory channel: none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InMemoryConfig {}

/// The channel within one process.
pub struct InMemory {
    subscribers: Mutex<Option<Vec<Weak<Queue>>>>,
    /// Messages of which a subscription heard no more than that there were some.
    dropped: Counter,
}

impl fmt::Debug for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemory").finish_non_exhaustive()
    }
}

impl InMemory {
    /// An open channel without subscribers.
    pub fn new(_config: &InMemoryConfig) -> Self {
        Self {
            subscribers: Mutex::new(Some(Vec::new())),
            dropped: stategate_metrics::CHANNEL_UNREAD.with([PROVIDER]),
        }
    }
}

#[async_trait]
impl Channel for InMemory {
    fn info(&self) -> Info {
        Info {
            provider: PROVIDER,
            crosses_processes: false,
            carries: Carries::Events,
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
                self.dropped.increment(queue.push(&message) as u64);
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
        Ok(Box::pin(Reader(queue)))
    }

    fn reach(&self) -> Reach {
        match *self.subscribers.lock() {
            Some(_) => Reach::Up,
            None => Reach::Down,
        }
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
