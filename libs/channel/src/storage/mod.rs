//! The channel that needs no broker: the storage's lane heads, read every few milliseconds.
//!
//! Works wherever several processes share a storage. It costs one small read per interval and
//! stream process, and as much latency. A log in which nothing happens is looked at less often, but
//! never less often than every [`SELDOM`] intervals; while nobody polls the subscription it is not
//! looked at at all.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::stream;
use parking_lot::Mutex;
use serde::Deserialize;
use stategate_model::Heads;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{Carries, Channel, Error, Info, Log, Message, Notice, Reach, Subscription};

/// Each such time of silence adds an interval to the pause between two looks …
const SILENCE: Duration = Duration::from_secs(1);
/// … up to so many: what is written after a silence is told of that many intervals later at most.
const SELDOM: u32 = 4;
/// How long a failed read counts. While somebody listens the next one comes sooner, however long it takes;
/// while nobody does there is none, and nobody would find out that the storage is there again.
const FORGOTTEN: Duration = Duration::from_secs(15);

/// Settings of the storage channel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageHeadsConfig {
    /// Milliseconds between two looks at the heads while events come; up to four times as many
    /// after some seconds without.
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

/// What the last read of the heads came to, and when.
#[derive(Debug, Default)]
struct LastRead(Mutex<Option<(Instant, bool)>>);

impl LastRead {
    fn note(&self, heads: Option<&Heads>) {
        *self.0.lock() = Some((Instant::now(), heads.is_some()));
    }

    fn reach(&self) -> Reach {
        match *self.0.lock() {
            Some((_, true)) => Reach::Up,
            Some((at, false)) if at.elapsed() < FORGOTTEN => Reach::Down,
            Some((_, false)) | None => Reach::Untried,
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
        // The heads as they are now are what the subscriber finds in the log by itself.
        let seen = (self.log.heads)().await;
        self.last.note(seen.as_ref());
        let poller = Poller {
            log: self.log.clone(),
            schedule: PollSchedule::new(self.every),
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

/// When the heads are looked at.
#[derive(Debug)]
struct PollSchedule {
    every: Duration,
    next: Instant,
    /// When something was found last.
    news: Instant,
}

impl PollSchedule {
    fn new(every: Duration) -> Self {
        let now = Instant::now();
        Self {
            every,
            next: now + every,
            news: now,
        }
    }

    /// After a look.
    fn after(&mut self, now: Instant, has_news: bool) {
        if has_news {
            self.news = now;
        }
        self.next = now + self.every * seldom(now - self.news);
    }
}

/// How many intervals the pause is after a time of silence.
fn seldom(silence: Duration) -> u32 {
    let more = u32::try_from(silence.as_secs() / SILENCE.as_secs()).unwrap_or(SELDOM);
    more.saturating_add(1).min(SELDOM)
}

struct Poller {
    log: Log,
    schedule: PollSchedule,
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
                () = sleep_until(self.schedule.next) => {}
            }
            let now = (self.log.heads)().await;
            self.last.note(now.as_ref());
            // A log that cannot be read is no silent one: it is news when it is back.
            self.schedule
                .after(Instant::now(), now.is_none() || now != self.seen);
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::{FutureExt as _, StreamExt as _, future};
    use stategate_model::{Lane, Lanes, LogId, Position};
    use tokio::time::{advance, pause, timeout};

    use super::*;

    #[test]
    fn silence_makes_looks_seldom_but_no_more_than_stated() {
        for (silence, intervals) in [(0, 1), (999, 1), (1_000, 2), (2_500, 3), (3_000, 4)] {
            assert_eq!(seldom(Duration::from_millis(silence)), intervals);
        }
        assert_eq!(seldom(Duration::MAX), SELDOM);
    }

    #[derive(Default)]
    struct Pretended {
        reads: AtomicUsize,
        head: Mutex<Position>,
    }

    fn channel(log: &Arc<Pretended>) -> StorageHeads {
        let log = Arc::clone(log);
        let heads = move || {
            log.reads.fetch_add(1, Ordering::Relaxed);
            let mut heads = Heads::beginning(Lanes::ONE);
            heads.set(Lane(0), *log.head.lock());
            future::ready(Some(heads)).boxed()
        };
        let log = Log {
            log_id: LogId::random(),
            heads: Arc::new(heads),
        };
        StorageHeads::new(&StorageHeadsConfig::default(), log)
    }

    #[tokio::test]
    async fn a_silent_log_is_read_seldom_and_what_is_written_to_it_is_told_in_time() {
        pause();
        let log = Arc::new(Pretended::default());
        let channel = channel(&log);
        let mut subscription = channel.subscribe().await.unwrap();
        let minute = Duration::from_secs(60);
        let silent = timeout(minute, subscription.next()).await;
        assert!(silent.is_err(), "{silent:?}");
        let reads = log.reads.load(Ordering::Relaxed);
        // At the pace of a busy log it would be 12,000.
        assert!(
            (2_500..=3_500).contains(&reads),
            "{reads} reads in a minute"
        );
        *log.head.lock() = Position::new(1);
        let most = Duration::from_millis(5) * SELDOM;
        let told = timeout(most, subscription.next()).await;
        assert!(matches!(told, Ok(Some(Notice::Message(_)))), "{told:?}");
        // From then on every interval again.
        *log.head.lock() = Position::new(2);
        let told = timeout(Duration::from_millis(5), subscription.next()).await;
        assert!(matches!(told, Ok(Some(Notice::Message(_)))), "{told:?}");
    }

    #[tokio::test]
    async fn a_failed_read_is_forgotten_when_none_follows_it() {
        pause();
        let last = LastRead::default();
        assert_eq!(last.reach(), Reach::Untried);
        last.note(None);
        assert_eq!(last.reach(), Reach::Down);
        advance(FORGOTTEN).await;
        assert_eq!(last.reach(), Reach::Untried);
        last.note(Some(&Heads::beginning(Lanes::ONE)));
        advance(FORGOTTEN).await;
        assert_eq!(last.reach(), Reach::Up);
    }

    #[tokio::test]
    async fn a_subscription_that_nobody_polls_reads_nothing() {
        pause();
        let log = Arc::new(Pretended::default());
        let channel = channel(&log);
        let mut subscription = channel.subscribe().await.unwrap();
        let before = log.reads.load(Ordering::Relaxed);
        advance(Duration::from_secs(60)).await;
        assert_eq!(log.reads.load(Ordering::Relaxed), before);
        *log.head.lock() = Position::new(1);
        let told = timeout(Duration::from_millis(1), subscription.next()).await;
        assert!(matches!(told, Ok(Some(Notice::Message(_)))), "{told:?}");
    }
}
