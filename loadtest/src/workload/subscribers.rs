//! Subscribers. They decode an event's position and time stamp and nothing else: a thousand subscribers
//! run on the machine under test, and decoding every value a thousand times would take the processor
//! time that the server needs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::bail;
use prost::Message;
use stategate_protocol::{codec::Codec, pb};
use tokio::task::JoinSet;
use tonic::{Request, Status, Streaming, client::Grpc, codegen::http::uri::PathAndQuery};

use crate::scenario::STREAMS_PER_CONNECTION;

use super::{
    connections::{Connection, Connections},
    dataset::DOMAIN,
    load::now,
};

/// The fields of an event that a subscriber decodes.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ReceivedEvent {
    #[prost(int64, tag = "4")]
    time: i64,
    #[prost(int64, tag = "12")]
    pub(super) position: i64,
}

/// How many connections this many subscribers need.
pub(crate) fn connections_for(subscribers: usize) -> usize {
    subscribers.div_ceil(STREAMS_PER_CONNECTION)
}

/// Opens a stream; returns when the server has accepted it.
pub(super) async fn subscribe(
    channel: Connection,
    opts: pb::StreamOpts,
) -> Result<Streaming<ReceivedEvent>, Status> {
    let mut client = Grpc::new(channel);
    client
        .ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static("/stategate.EventService/Stream");
    let codec: Codec<pb::StreamOpts, ReceivedEvent> = Codec::default();
    let response = client
        .server_streaming(Request::new(opts), path, codec)
        .await?;
    Ok(response.into_inner())
}

/// Where a stream starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Now,
    Beginning,
}

/// All events of the domain.
fn all_events(start: Start) -> pb::StreamOpts {
    pb::StreamOpts {
        domain: DOMAIN.to_owned(),
        r#type: "*".to_owned(),
        start: (start == Start::Beginning).then_some(pb::stream_opts::Start::FromBeginning(true)),
        ..pb::StreamOpts::default()
    }
}

/// Whether subscribers check that no event is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PositionCheck {
    /// Each event's position follows that of the event before it.
    Consecutive,
    /// No check: the echo server sends the same event over and over.
    Off,
}

/// Live subscribers to all events.
pub(crate) struct Subscribers {
    received: Arc<AtomicU64>,
    count: u64,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Subscribers {
    /// Opens this many streams.
    pub(crate) async fn open(
        connections: &Connections,
        count: usize,
        check: PositionCheck,
    ) -> anyhow::Result<Self> {
        let received = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for n in 0..count {
            let channel = connections.get(n / STREAMS_PER_CONNECTION);
            let mut opts = all_events(Start::Now);
            if check == PositionCheck::Off {
                // Tells the echo server how many streams to wait for before it sends.
                opts.key = count.to_string();
            }
            let stream = subscribe(channel, opts).await?;
            tasks.spawn(receive(stream, check, Arc::clone(&received)));
        }
        Ok(Self {
            received,
            count: count as u64,
            tasks,
        })
    }

    /// Reads how many events all subscribers together have received so far.
    pub(crate) fn counter(&self) -> impl Fn() -> u64 + Send + Sync + Clone + 'static {
        let received = Arc::clone(&self.received);
        move || received.load(Relaxed)
    }

    /// How many subscribers there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Events received a second, by all subscribers together. A stream that ends fails the run.
    pub(crate) async fn measure(&mut self, duration: Duration) -> anyhow::Result<f64> {
        tokio::select! {
            ended = self.tasks.join_next() => match ended {
                Some(ended) => {
                    ended??;
                    bail!("a stream ended");
                }
                None => bail!("there are no subscribers"),
            },
            rate = rate(&self.received, duration) => Ok(rate),
        }
    }
}

async fn rate(received: &AtomicU64, duration: Duration) -> f64 {
    tokio::time::sleep(duration.mul_f64(0.25)).await;
    let (begun, before) = (Instant::now(), received.load(Relaxed));
    tokio::time::sleep(duration).await;
    (received.load(Relaxed) - before) as f64 / begun.elapsed().as_secs_f64()
}

async fn receive(
    mut stream: Streaming<ReceivedEvent>,
    check: PositionCheck,
    received: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    let mut last = None;
    while let Some(event) = stream.message().await? {
        received.fetch_add(1, Relaxed);
        if check == PositionCheck::Consecutive {
            check_consecutive(&mut last, &event)?;
        }
    }
    Ok(())
}

fn check_consecutive(last: &mut Option<i64>, event: &ReceivedEvent) -> anyhow::Result<()> {
    if let Some(last) = *last
        && event.position != last + 1
    {
        bail!("position {} was delivered after {last}", event.position);
    }
    *last = Some(event.position);
    Ok(())
}

/// Streams to which nothing is sent. They stay open until this is dropped.
pub(crate) struct IdleSubscribers {
    _streams: Vec<Streaming<ReceivedEvent>>,
}

impl IdleSubscribers {
    /// Opens this many streams. They select a key that no event has; to the echo server, the key is a
    /// number of streams to wait for that is never reached.
    pub(crate) async fn open(
        connections: &Connections,
        count: usize,
        per_connection: usize,
    ) -> anyhow::Result<Self> {
        let mut streams = Vec::with_capacity(count);
        for n in 0..count {
            let opts = pb::StreamOpts {
                key: usize::MAX.to_string(),
                ..all_events(Start::Now)
            };
            streams.push(subscribe(connections.get(n / per_connection), opts).await?);
        }
        Ok(Self { _streams: streams })
    }
}

/// Reads the log from its beginning up to the position `head`, over and over; answers events a second.
pub(crate) async fn replay(
    connections: &Connections,
    head: u64,
    duration: Duration,
) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let mut received = 0;
    while begun.elapsed() < duration {
        let mut stream = subscribe(connections.get(0), all_events(Start::Beginning)).await?;
        let mut last = Some(0);
        while let Some(event) = stream.message().await? {
            check_consecutive(&mut last, &event)?;
            received += 1;
            if last.and_then(|position| u64::try_from(position).ok()) == Some(head) {
                break;
            }
        }
    }
    Ok(received as f64 / begun.elapsed().as_secs_f64())
}

/// An event that a subscriber received. Times are in nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery {
    /// The event's position.
    pub(crate) position: u64,
    /// The event's time stamp, which the gateway gave it when it decided the write.
    pub(crate) decided: i64,
    /// When the subscriber received it.
    pub(crate) received: i64,
}

/// A subscriber that records when it received each event.
pub(crate) struct RecordingSubscriber(tokio::task::JoinHandle<anyhow::Result<Vec<Delivery>>>);

impl RecordingSubscriber {
    /// Opens the stream.
    pub(crate) async fn open(connections: &Connections) -> anyhow::Result<Self> {
        let mut stream = subscribe(connections.get(0), all_events(Start::Now)).await?;
        Ok(Self(tokio::spawn(async move {
            let mut deliveries = Vec::new();
            let mut last = None;
            loop {
                // A second without an event means that everything written was delivered.
                let next = tokio::time::timeout(Duration::from_secs(1), stream.message()).await;
                let Ok(next) = next else {
                    return Ok(deliveries);
                };
                let Some(event) = next? else {
                    bail!("the stream ended")
                };
                check_consecutive(&mut last, &event)?;
                let position = u64::try_from(event.position)?;
                deliveries.push(Delivery {
                    position,
                    decided: event.time,
                    received: now(),
                });
            }
        })))
    }

    /// Waits until no event has come for a second, and answers what was received.
    pub(crate) async fn finish(self) -> anyhow::Result<Vec<Delivery>> {
        self.0.await?
    }
}
