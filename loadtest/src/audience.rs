//! Subscribers. They look at what is needed to see that nothing is missing and when it came, and at
//! nothing else: with a thousand of them on the machine under test, decoding every value a thousand
//! times would hide what the server does.

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
use tonic::{
    Request, Status, Streaming, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel,
};

use crate::{
    data::DOMAIN,
    load::{Connections, now},
};

/// Most streams on one connection.
pub(crate) const STREAMS_PER_CONNECTION: usize = 100;

/// As much of an event as a subscriber looks at.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Seen {
    #[prost(int64, tag = "4")]
    time: i64,
    #[prost(int64, tag = "12")]
    pub(crate) position: i64,
}

/// When an event reached a subscriber.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivered {
    /// The event's position.
    pub(crate) position: u64,
    /// When it was decided, by the gateway.
    pub(crate) decided: i64,
    /// When it was delivered.
    pub(crate) at: i64,
}

/// Connections enough for so many subscribers.
pub(crate) fn connections_for(subscribers: usize) -> usize {
    subscribers.div_ceil(STREAMS_PER_CONNECTION)
}

/// A subscription that is in force.
pub(crate) async fn subscribe(
    channel: Channel,
    opts: pb::StreamOpts,
) -> Result<Streaming<Seen>, Status> {
    let mut client = Grpc::new(channel);
    client
        .ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static("/stategate.EventService/Stream");
    let codec: Codec<pb::StreamOpts, Seen> = Codec::default();
    let response = client
        .server_streaming(Request::new(opts), path, codec)
        .await?;
    Ok(response.into_inner())
}

/// The log of the domain: from the beginning, or from now on.
fn everything(from_beginning: bool) -> pb::StreamOpts {
    pb::StreamOpts {
        domain: DOMAIN.to_owned(),
        r#type: "*".to_owned(),
        start: from_beginning.then_some(pb::stream_opts::Start::FromBeginning(true)),
        ..pb::StreamOpts::default()
    }
}

/// Whether subscribers look out for missing events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Every event follows the one before it.
    Checked,
    /// The floor sends one event over and over.
    None,
}

/// Subscribers that listen.
pub(crate) struct Audience {
    heard: Arc<AtomicU64>,
    size: u64,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Audience {
    /// Subscribers whose subscriptions are in force.
    pub(crate) async fn gather(
        connections: &Connections,
        size: usize,
        order: Order,
    ) -> anyhow::Result<Self> {
        let heard = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for n in 0..size {
            let channel = connections.of(n / STREAMS_PER_CONNECTION);
            let mut opts = everything(false);
            if order == Order::None {
                // How many the floor is to wait for.
                opts.key = size.to_string();
            }
            let stream = subscribe(channel, opts).await?;
            tasks.spawn(listen(stream, order, Arc::clone(&heard)));
        }
        Ok(Self {
            heard,
            size: size as u64,
            tasks,
        })
    }

    /// Counts what all subscribers have heard so far.
    pub(crate) fn counter(&self) -> impl Fn() -> u64 + Send + Sync + Clone + 'static {
        let heard = Arc::clone(&self.heard);
        move || heard.load(Relaxed)
    }

    /// How many subscribers there are.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Events delivered a second, over all subscribers. One whose stream ends fails the run.
    pub(crate) async fn measure(&mut self, during: Duration) -> anyhow::Result<f64> {
        tokio::select! {
            ended = self.tasks.join_next() => match ended {
                Some(ended) => {
                    ended??;
                    bail!("a stream ended");
                }
                None => bail!("there are no subscribers"),
            },
            rate = rate(&self.heard, during) => Ok(rate),
        }
    }
}

async fn rate(heard: &AtomicU64, during: Duration) -> f64 {
    tokio::time::sleep(during.mul_f64(0.25)).await;
    let (begun, before) = (Instant::now(), heard.load(Relaxed));
    tokio::time::sleep(during).await;
    (heard.load(Relaxed) - before) as f64 / begun.elapsed().as_secs_f64()
}

async fn listen(
    mut stream: Streaming<Seen>,
    order: Order,
    heard: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    let mut before = None;
    while let Some(seen) = stream.message().await? {
        heard.fetch_add(1, Relaxed);
        if order == Order::Checked {
            check(&mut before, &seen)?;
        }
    }
    Ok(())
}

fn check(before: &mut Option<i64>, seen: &Seen) -> anyhow::Result<()> {
    if let Some(before) = *before
        && seen.position != before + 1
    {
        bail!("position {} was delivered after {before}", seen.position);
    }
    *before = Some(seen.position);
    Ok(())
}

/// Subscribers to whom nothing is sent, since nothing has this key; on the floor, since more are waited
/// for than ever come.
pub(crate) async fn sit(
    connections: &Connections,
    size: usize,
    per_connection: usize,
) -> anyhow::Result<Vec<Streaming<Seen>>> {
    let mut seated = Vec::with_capacity(size);
    for n in 0..size {
        let opts = pb::StreamOpts {
            key: usize::MAX.to_string(),
            ..everything(false)
        };
        seated.push(subscribe(connections.of(n / per_connection), opts).await?);
    }
    Ok(seated)
}

/// Reads the log from its beginning up to a position, over and over; answers events a second.
pub(crate) async fn replay(
    connections: &Connections,
    head: u64,
    during: Duration,
) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let mut heard = 0;
    while begun.elapsed() < during {
        let mut stream = subscribe(connections.of(0), everything(true)).await?;
        let mut before = Some(0);
        while let Some(seen) = stream.message().await? {
            check(&mut before, &seen)?;
            heard += 1;
            if before.and_then(|position| u64::try_from(position).ok()) == Some(head) {
                break;
            }
        }
    }
    Ok(heard as f64 / begun.elapsed().as_secs_f64())
}

/// One subscriber who notes when each event came.
pub(crate) struct Witness(tokio::task::JoinHandle<anyhow::Result<Vec<Delivered>>>);

impl Witness {
    /// A subscriber whose subscription is in force.
    pub(crate) async fn seat(connections: &Connections) -> anyhow::Result<Self> {
        let mut stream = subscribe(connections.of(0), everything(false)).await?;
        Ok(Self(tokio::spawn(async move {
            let mut all = Vec::new();
            let mut before = None;
            loop {
                // Silence is the end of what was written.
                let next = tokio::time::timeout(Duration::from_secs(1), stream.message()).await;
                let Ok(next) = next else { return Ok(all) };
                let Some(seen) = next? else {
                    bail!("the stream ended")
                };
                check(&mut before, &seen)?;
                let position = u64::try_from(seen.position)?;
                all.push(Delivered {
                    position,
                    decided: seen.time,
                    at: now(),
                });
            }
        })))
    }

    /// What came, up to a second of silence.
    pub(crate) async fn heard(self) -> anyhow::Result<Vec<Delivered>> {
        self.0.await?
    }
}
