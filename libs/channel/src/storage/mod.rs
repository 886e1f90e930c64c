//! The channel that needs no broker: the storage's lane heads, read every few milliseconds.
//!
//! Works wherever several processes share a storage. It costs one small read per interval and
//! stream process, and as much latency.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::stream;
use serde::Deserialize;
use stategate_model::Heads;
use tokio::{
    sync::watch,
    time::{Interval, MissedTickBehavior, interval},
};

use crate::{Carries, Channel, Error, Info, Log, Message, Notice, Reach, Subscription};

/// Settings of the storage channel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageHeadsConfig {
    /// Milliseconds between two looks at the heads.
    pub interval_ms: NonZeroU32,
}

impl Default for StorageHeadsConfig {
    fn default() -> Self {
        Self {
            interval_ms: NonZeroU32::MIN.saturating_add(4),
        }
    }
}

/// The channel that reads lane heads.
#[derive(Debug)]
pub struct StorageHeads {
    log: Log,
    every: Duration,
    closed: watch::Sender<bool>,
    last: Arc<LastRead>,
}

/// What the last read of the heads came to.
#[derive(Debug, Default)]
struct LastRead(AtomicU8);

impl LastRead {
    const NONE: u8 = 0;
    const DONE: u8 = 1;
    const FAILED: u8 = 2;

    fn note(&self, heads: Option<&Heads>) {
        let last = if heads.is_some() {
            Self::DONE
        } else {
            Self::FAILED
        };
        self.0.store(last, Ordering::Relaxed);
    }

    fn reach(&self) -> Reach {
        match self.0.load(Ordering::Relaxed) {
            Self::NONE => Reach::Untried,
            Self::DONE => Reach::Up,
            _ => Reach::Down,
        }
    }
}

impl StorageHeads {
    /// A channel over the heads of `log`.
    pub fn new(config: &StorageHeadsConfig, log: Log) -> Self {
        Self {
            log,
            every: Duration::from_millis(u64::from(config.interval_ms.get())),
            closed: watch::Sender::new(false),
            last: Arc::default(),
        }
    }
}

#[async_trait]
impl Channel for StorageHeads {
    fn info(&self) -> Info {
        Info {
            provider: "storage",
            crosses_processes: true,
            carries: Carries::Heads,
        }
    }

    fn publish(&self, _message: Message) {
        // The append itself moved the head.
    }

    async fn subscribe(&self) -> Result<Subscription, Error> {
        let closed = self.closed.subscribe();
        if *closed.borrow() {
            return Err(Error::Closed);
        }
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The heads as they are now are what the subscriber finds in the log by itself.
        let seen = (self.log.heads)().await;
        self.last.note(seen.as_ref());
        let poller = Poller {
            log: self.log.clone(),
            ticks,
            closed,
            last: Arc::clone(&self.last),
            seen,
            pending: Vec::new(),
        };
        Ok(Box::pin(stream::unfold(poller, |mut poller| async move {
            let notice = poller.next().await?;
            Some((notice, poller))
        })))
    }

    fn reach(&self) -> Reach {
        self.last.reach()
    }

    async fn close(&self) {
        self.closed.send_replace(true);
    }
}

struct Poller {
    log: Log,
    ticks: Interval,
    closed: watch::Receiver<bool>,
    last: Arc<LastRead>,
    /// The heads last read; `None` after a failed read.
    seen: Option<Heads>,
    pending: Vec<Message>,
}

impl Poller {
    async fn next(&mut self) -> Option<Notice> {
        loop {
            if let Some(message) = self.pending.pop() {
                return Some(Notice::Message(Arc::new(message)));
            }
            tokio::select! {
                _ = self.closed.wait_for(|closed| *closed) => return None,
                _ = self.ticks.tick() => {}
            }
            let now = (self.log.heads)().await;
            self.last.note(now.as_ref());
            match (&self.seen, now) {
                (Some(seen), Some(now)) => {
                    let log_id = self.log.log_id;
                    // A head that went back is told like any other move: the receiver judges it.
                    self.pending = now
                        .iter()
                        .filter(|(lane, head)| *head != seen.get(*lane))
                        .map(|(lane, head)| Message::bare_head(log_id, lane, head))
                        .collect();
                    self.seen = Some(now);
                }
                (None, Some(now)) => {
                    self.seen = Some(now);
                    return Some(Notice::Lagged);
                }
                (_, None) => self.seen = None,
            }
        }
    }
}
