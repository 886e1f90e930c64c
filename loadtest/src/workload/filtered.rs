//! Subscribers with different filters, which overlap, and the check that each of them received every
//! event that its filter selects, once and in order.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::bail;
use stategate_protocol::pb;
use tokio::task::JoinSet;
use tonic::Streaming;

use crate::scenario::OUTAGE_SUBSCRIBERS;

use super::{
    connections::Connections,
    dataset::LAST_ORDER,
    load::AcknowledgedWrite,
    subscribers::{ReceivedEvent, subscribe},
};

/// How long after the last write its event may reach the last subscriber.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two checks of what was received.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// A glob over keys, and the same condition in Rust.
type KeyFilter = (&'static str, fn(&str) -> bool);

/// Filters that overlap. Each of them also selects the last order.
const KEY_FILTERS: [KeyFilter; 5] = [
    ("", |_| true),
    ("{order-*[02468],the-end}", |key| {
        key.ends_with(['0', '2', '4', '6', '8'])
    }),
    ("{order-00[0-4]*,the-end}", |key| key < "order-005"),
    ("{order-00?????7,the-end}", |key| key.ends_with('7')),
    ("{order-*11,order-*5?,the-end}", |key| {
        key.ends_with("11") || key[..key.len() - 1].ends_with('5')
    }),
];

/// Globs over types. All of them select orders.
const TYPE_GLOBS: [&str; 3] = ["order", "*", "ord?r"];

/// Subscribers that receive in the background.
pub(crate) struct FilteredSubscribers {
    received: Vec<Arc<Received>>,
    tasks: JoinSet<anyhow::Result<()>>,
}

/// What one subscriber received.
#[derive(Default)]
struct Received {
    events: AtomicU64,
    /// A hash of the positions, in the order they were received.
    hash: AtomicU64,
    last_position: AtomicU64,
}

impl FilteredSubscribers {
    /// Opens the streams, spread over the connections.
    pub(crate) async fn open(connections: &Connections) -> anyhow::Result<Self> {
        let (mut received, mut tasks) = (Vec::new(), JoinSet::new());
        for n in 0..OUTAGE_SUBSCRIBERS {
            let (key, _) = KEY_FILTERS[n % KEY_FILTERS.len()];
            let opts = pb::StreamOpts {
                domain: "sh*p".to_owned(),
                r#type: TYPE_GLOBS[n % TYPE_GLOBS.len()].to_owned(),
                key: key.to_owned(),
                ..pb::StreamOpts::default()
            };
            let stream = subscribe(connections.get(n), opts).await?;
            let one = Arc::new(Received::default());
            tasks.spawn(receive(stream, Arc::clone(&one)));
            received.push(one);
        }
        Ok(Self { received, tasks })
    }

    /// Waits until all have received the last of these writes, which are in the order of their positions, and
    /// compares what each has received with what it selects. Answers the number of deliveries.
    pub(crate) fn check(&mut self, written: &[AcknowledgedWrite]) -> anyhow::Result<u64> {
        let (Some(first), Some(last)) = (written.first(), written.last()) else {
            bail!("nothing was written");
        };
        if last.position - first.position + 1 != written.len() as u64 {
            bail!("the positions of the writes have holes");
        }
        let begun = Instant::now();
        while self
            .received
            .iter()
            .any(|one| one.last_position.load(Acquire) < last.position)
        {
            if let Some(ended) = self.tasks.try_join_next() {
                ended??;
                bail!("a stream ended");
            }
            if begun.elapsed() > DELIVERY_TIMEOUT {
                bail!("delivery is not complete after {DELIVERY_TIMEOUT:?}");
            }
            sleep(POLL_INTERVAL);
        }
        let mut delivered = 0;
        for (n, received) in self.received.iter().enumerate() {
            let (glob, selects) = KEY_FILTERS[n % KEY_FILTERS.len()];
            let selected = written
                .iter()
                .filter(|write| write.key == LAST_ORDER || selects(&write.key));
            let (events, hash) = selected.fold((0, 0), |(events, hash), write| {
                (events + 1, hash_position(hash, write.position))
            });
            let received_events = received.events.load(Relaxed);
            if (received_events, received.hash.load(Relaxed)) != (events, hash) {
                bail!(
                    "subscriber {n} of {glob:?} received {received_events} events, and not the {events} it selects"
                );
            }
            delivered += events;
        }
        Ok(delivered)
    }
}

async fn receive(
    mut stream: Streaming<ReceivedEvent>,
    received: Arc<Received>,
) -> anyhow::Result<()> {
    let (mut events, mut hash, mut last) = (0, 0, 0);
    while let Some(event) = stream.message().await? {
        let position = u64::try_from(event.position)?;
        if position <= last {
            bail!("position {position} was delivered after {last}");
        }
        (events, hash, last) = (events + 1, hash_position(hash, position), position);
        received.events.store(events, Relaxed);
        received.hash.store(hash, Relaxed);
        // Released last: whoever reads this position also reads the count and the hash up to it.
        received.last_position.store(position, Release);
    }
    bail!("the stream ended")
}

/// A step of [FNV-1a](http://www.isthe.com/chongo/tech/comp/fnv/), with a position in place of a byte.
fn hash_position(hash: u64, position: u64) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    (hash ^ position).wrapping_mul(PRIME)
}
