//! Tells the channel what a lane has committed.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use stategate_channel::{Carries, Channel, Events, Message};
use stategate_model::{Event, EventId, Lane, LogId, value::Corrupt};
use stategate_protocol::encode_event;
use stategate_storage::Batch;
use tokio::{sync::mpsc, task::JoinHandle};

/// Committed batches that may wait to be published.
const UNPUBLISHED: usize = 16;

/// The way to a lane's publisher, which works beside its writer: encoding a batch takes a good part of
/// the time in which the next one could be on its way.
pub(super) struct Publishing {
    committed: mpsc::Sender<Committed>,
    task: JoinHandle<()>,
}

impl Publishing {
    /// Starts a publisher.
    pub(super) fn start(channel: Arc<dyn Channel>, log_id: LogId, lane: Lane) -> Self {
        let (sender, committed) = mpsc::channel(UNPUBLISHED);
        let publisher = Publisher {
            channel,
            log_id,
            lane,
        };
        Self {
            committed: sender,
            task: tokio::spawn(publisher.run(committed)),
        }
    }

    /// Hands over a batch, and the id of the event before it.
    pub(super) fn committed(&self, previous: Option<EventId>, batch: Arc<Batch>) {
        // When the publisher is that far behind, the stream services read the log.
        let _ = self.committed.try_send(Committed { previous, batch });
    }

    /// Publishes what is left.
    pub(super) async fn finish(self) {
        drop(self.committed);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "a publisher failed");
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
    async fn run(self, mut committed: mpsc::Receiver<Committed>) {
        while let Some(Committed { previous, batch }) = committed.recv().await {
            // What is not told because of a panic is read from the log, as whatever a channel loses.
            let publish = || self.publish(previous, &batch.events);
            let _ = catch_unwind(AssertUnwindSafe(publish));
        }
    }

    fn publish(&self, previous: Option<EventId>, events: &[Event]) {
        #[cfg(feature = "faults")]
        stategate_faults::pass("publisher");
        let Some(first) = events.first() else { return };
        let carried = match self.channel.info().carries {
            Carries::Heads => return,
            Carries::Events => Events::Decoded(events.iter().map(lean).collect()),
            Carries::Bytes => {
                let encoded = events.iter().map(encode_event);
                // An event that cannot be encoded was just decided on from the same values; if it
                // happens all the same, the message is lost, which a channel may do.
                match encoded.map(|encoded| Ok(encoded?.0)).collect() {
                    Ok(encoded) => Events::Encoded(encoded),
                    Err(Corrupt) => return,
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
