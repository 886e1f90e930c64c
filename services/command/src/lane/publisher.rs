//! Tells the channel what a lane has committed.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use parking_lot::Mutex;
use stategate_channel::{Carries, Channel, Events, Message};
use stategate_metrics::Counter;
use stategate_model::{Event, EventId, Lane, LogId, Position, value::Corrupt};
use stategate_protocol::encode_event;
use stategate_storage::Batch;
use tokio::{sync::Notify, task::JoinHandle};

/// Committed batches that may wait to be published. Of one more, only how far the lane goes is kept.
const UNPUBLISHED: usize = 16;

/// The way to a lane's publisher, which works beside its writer: encoding a batch takes a good part of
/// the time in which the next one could be on its way.
pub(super) struct Publishing {
    backlog: Arc<Backlog>,
    /// Batches of which only the head was kept.
    dropped: Counter,
    /// Whether the channel takes messages; one that looks at the log itself takes none.
    is_wanted: bool,
    task: JoinHandle<()>,
}

impl Publishing {
    /// Starts a publisher.
    pub(super) fn start(channel: Arc<dyn Channel>, log_id: LogId, lane: Lane) -> Self {
        let backlog = Arc::new(Backlog::default());
        let info = channel.info();
        let publisher = Publisher {
            channel,
            log_id,
            lane,
        };
        Self {
            backlog: Arc::clone(&backlog),
            dropped: stategate_metrics::CHANNEL_DROPPED.with([info.provider]),
            is_wanted: info.carries != Carries::Heads,
            task: tokio::spawn(publisher.run(backlog)),
        }
    }

    /// Hands over a batch, and the id of the event before it.
    pub(super) fn committed(&self, previous: Option<EventId>, batch: Arc<Batch>) {
        if self.is_wanted && self.backlog.push(Committed { previous, batch }) == Pushed::Dropped {
            self.dropped.increment(1);
        }
    }

    /// Publishes what is left.
    pub(super) async fn finish(self) {
        self.backlog.end();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "a publisher failed");
        }
    }
}

/// What is committed and not yet published: bounded, and never without the newest head. When the
/// publisher is that far behind, the stream services read the log, and they have to know how far.
#[derive(Default)]
struct Backlog {
    state: Mutex<Waiting>,
    /// Told when there is something to take, or nothing will come.
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    batches: VecDeque<Committed>,
    /// The head of the lane, if a batch was dropped and no batch was queued after it.
    owed: Option<Position>,
    has_ended: bool,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pushed {
    Kept,
    /// Only how far the lane goes was kept.
    Dropped,
}

/// What is next to be published.
enum Next {
    Batch(Committed),
    Head(Position),
}

impl Backlog {
    fn push(&self, committed: Committed) -> Pushed {
        let mut state = self.state.lock();
        let pushed = if state.batches.len() < UNPUBLISHED {
            // It says itself how far the lane goes, and its receiver sees the hole before it.
            state.owed = None;
            state.batches.push_back(committed);
            Pushed::Kept
        } else {
            let head = committed.batch.events.last().map(|event| event.position);
            state.owed = head.or(state.owed);
            Pushed::Dropped
        };
        drop(state);
        self.changed.notify_one();
        pushed
    }

    fn end(&self) {
        self.state.lock().has_ended = true;
        self.changed.notify_one();
    }

    /// The batches in their order, and after them the head that is owed. `None` at the end.
    async fn next(&self) -> Option<Next> {
        loop {
            {
                let mut state = self.state.lock();
                if let Some(batch) = state.batches.pop_front() {
                    return Some(Next::Batch(batch));
                }
                if let Some(head) = state.owed.take() {
                    return Some(Next::Head(head));
                }
                if state.has_ended {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }
}

struct Publisher {
    channel: Arc<dyn Channel>,
    log_id: LogId,
    lane: Lane,
}

/// A committed batch, and the id of the event before it.
struct Committed {
    previous: Option<EventId>,
    batch: Arc<Batch>,
}

/// An event that holds no more than its size says: queues are bounded by that.
fn lean(event: &Event) -> Event {
    Event {
        values: event.values.lean(),
        ..event.clone()
    }
}

impl Publisher {
    async fn run(self, backlog: Arc<Backlog>) {
        while let Some(next) = backlog.next().await {
            // What is not told because of a panic is read from the log, as whatever a channel loses.
            let publish = || match next {
                Next::Batch(Committed { previous, batch }) => {
                    self.publish(previous, &batch.events);
                }
                Next::Head(head) => self.publish_head(head),
            };
            let _ = catch_unwind(AssertUnwindSafe(publish));
        }
    }

    fn publish_head(&self, head: Position) {
        self.channel
            .publish(Message::bare_head(self.log_id, self.lane, head));
    }

    fn publish(&self, previous: Option<EventId>, events: &[Event]) {
        #[cfg(feature = "faults")]
        stategate_faults::pass("publisher");
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return;
        };
        let carried = match self.channel.info().carries {
            Carries::Heads => return,
            Carries::Events => Events::Decoded(events.iter().map(lean).collect()),
            Carries::Bytes => {
                let encoded = events.iter().map(encode_event);
                // An event that cannot be encoded was just decided on from the same values; if it
                // happens all the same, the log is left to say what it is.
                match encoded.map(|encoded| Ok(encoded?.0)).collect() {
                    Ok(encoded) => Events::Encoded(encoded),
                    Err(Corrupt) => return self.publish_head(last.position),
                }
            }
        };
        self.channel.publish(Message {
            log_id: self.log_id,
            lane: self.lane,
            first: first.position,
            previous,
            events: carried,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;
    use stategate_channel::{Error, Info, Reach, Subscription};
    use stategate_model::{Claims, EntityRef, Method, Timestamp, Values, Version};

    use super::*;

    /// A channel whose `publish` takes until the gate is opened.
    #[derive(Debug)]
    struct Slow {
        carries: Carries,
        gate: Mutex<()>,
        published: Mutex<Vec<Message>>,
    }

    #[async_trait]
    impl Channel for Slow {
        fn info(&self) -> Info {
            Info {
                provider: "slow",
                crosses_processes: true,
                carries: self.carries,
            }
        }

        fn publish(&self, message: Message) {
            let _open = self.gate.lock();
            self.published.lock().push(message);
        }

        async fn subscribe(&self) -> Result<Subscription, Error> {
            Err(Error::Closed)
        }

        fn reach(&self) -> Reach {
            Reach::Up
        }

        async fn close(&self) {}
    }

    fn batch(position: u64) -> Arc<Batch> {
        let position = Position::new(position);
        let event = Event {
            id: EventId::fresh(Timestamp(0)),
            entity: EntityRef::new("d", "t", "k").unwrap(),
            values: Values::empty(),
            version: Version::new(position.get()),
            lane: Lane(0),
            position,
            time: Timestamp(position.as_i64()),
            method: Method::Set,
            claims: Claims::none(),
            trace_parent: None,
        };
        Arc::new(Batch {
            events: vec![event],
            keys: Vec::new(),
        })
    }

    /// Commits a burst while the channel stands still. Answers what was published, as heads and numbers
    /// of events, and how many batches were counted as dropped.
    async fn burst(carries: Carries, batches: u64) -> (Vec<(u64, usize)>, u64) {
        let channel = Arc::new(Slow {
            carries,
            gate: Mutex::default(),
            published: Mutex::default(),
        });
        let mut publishing = Publishing::start(Arc::clone(&channel) as _, LogId::random(), Lane(0));
        let dropped = Arc::new(AtomicU64::new(0));
        publishing.dropped = Counter::from_arc(Arc::clone(&dropped));
        {
            let _closed = channel.gate.lock();
            for position in 1..=batches {
                publishing.committed(None, batch(position));
            }
        }
        publishing.finish().await;
        let published = channel.published.lock();
        let seen = published.iter().map(|m| (m.head().get(), m.events.len()));
        (seen.collect(), dropped.load(Ordering::Relaxed))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_newest_head_of_a_burst_is_published_and_what_was_dropped_is_counted() {
        for carries in [Carries::Events, Carries::Bytes] {
            let (published, dropped) = burst(carries, 100).await;
            let kept = published.len() - 1;
            // One may be on its way beside those that wait.
            assert!(
                (UNPUBLISHED..=UNPUBLISHED + 1).contains(&kept),
                "{published:?}"
            );
            assert_eq!(dropped, 100 - kept as u64);
            // The one that found room when the first was taken follows those that were there.
            assert!(published.is_sorted(), "{published:?}");
            assert!(published[..kept].iter().all(|(_, events)| *events == 1));
            assert_eq!(
                published[kept],
                (100, 0),
                "the last says how far the lane goes"
            );
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_fits_is_published_as_it_is() {
        let (published, dropped) = burst(Carries::Events, UNPUBLISHED as u64).await;
        assert_eq!(published.len(), UNPUBLISHED);
        assert!(published.iter().all(|(_, events)| *events == 1));
        assert_eq!(dropped, 0);
    }

    #[tokio::test]
    async fn a_channel_that_looks_at_the_log_is_told_nothing() {
        let (published, dropped) = burst(Carries::Heads, 100).await;
        assert_eq!((published, dropped), (Vec::new(), 0));
    }

    #[tokio::test]
    async fn a_batch_that_fits_again_says_itself_how_far_the_lane_goes() {
        let backlog = Backlog::default();
        let push = |position| {
            backlog.push(Committed {
                previous: None,
                batch: batch(position),
            })
        };
        for position in 1..=16 {
            assert_eq!(push(position), Pushed::Kept);
        }
        assert_eq!(push(17), Pushed::Dropped);
        assert!(matches!(backlog.next().await, Some(Next::Batch(_))));
        assert_eq!(push(18), Pushed::Kept);
        backlog.end();
        let mut batches = 0;
        while let Some(next) = backlog.next().await {
            assert!(matches!(next, Next::Batch(_)));
            batches += 1;
        }
        assert_eq!(batches, 16);
    }
}
