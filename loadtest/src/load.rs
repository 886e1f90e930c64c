//! Callers: each makes one call after the other, and the time that each call takes is kept.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::bail;
use hdrhistogram::Histogram;
use stategate_protocol::pb::{self, entity_service_client::EntityServiceClient, operation};
use tokio::{
    task::JoinSet,
    time::{sleep, sleep_until},
};
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    data::{DOMAIN, PAGE, PRODUCT_KEYS, PRODUCTS, Source},
    machine::nanoseconds,
};

/// Connections that callers share.
const CONNECTIONS: usize = 4;
/// Share of a measure's time that is spent before it, warming up.
const WARM_UP: f64 = 0.25;
/// What a connection may have on its way, so that no figure is one of the window's.
const CONNECTION_WINDOW: u32 = 16 << 20;
const STREAM_WINDOW: u32 = 1 << 20;
/// Between two looks at how far an audience is.
const PAUSE: Duration = Duration::from_millis(1);
/// Operations of a Transact that makes products.
const PRODUCTS_AT_ONCE: u32 = 1_000;

/// A few connections to one server, or to several that do the same.
#[derive(Clone)]
pub(crate) struct Connections(Vec<Channel>);

impl Connections {
    /// As many to each of these as callers share, in turn.
    pub(crate) async fn open(addresses: &[SocketAddr]) -> anyhow::Result<Self> {
        Self::open_many(addresses, CONNECTIONS).await
    }

    /// So many to each of these, in turn.
    pub(crate) async fn open_many(addresses: &[SocketAddr], count: usize) -> anyhow::Result<Self> {
        let mut channels = Vec::new();
        for address in addresses.iter().cycle().take(addresses.len() * count) {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))?
                .initial_connection_window_size(CONNECTION_WINDOW)
                .initial_stream_window_size(STREAM_WINDOW)
                .tcp_nodelay(true);
            channels.push(endpoint.connect().await?);
        }
        Ok(Self(channels))
    }

    /// The connection of a caller.
    pub(crate) fn of(&self, caller: usize) -> Channel {
        self.0[caller % self.0.len()].clone()
    }
}

/// Makes a call, and says how many things it did.
pub(crate) trait Caller: Send + 'static {
    fn call(&mut self) -> impl Future<Output = Result<u64, Status>> + Send;
}

/// What callers achieved.
pub(crate) struct Measured {
    /// Things done a second, in the time that counts.
    pub(crate) per_second: f64,
    /// How long calls took, in nanoseconds, in the time that counts.
    pub(crate) latency: Histogram<u64>,
    /// Things done, warming up included.
    pub(crate) done: u64,
}

/// Lets callers call for a while. A call that fails fails the run.
pub(crate) async fn measure<C: Caller>(
    callers: Vec<C>,
    during: Duration,
) -> anyhow::Result<Measured> {
    let start = Instant::now();
    let begin = start + during.mul_f64(WARM_UP);
    let end = begin + during;
    let mut tasks = JoinSet::new();
    for mut caller in callers {
        tasks.spawn(async move {
            let mut latency = Histogram::<u64>::new(3)?;
            let (mut counted, mut done) = (0, 0);
            let mut started = Instant::now();
            while started < end {
                let count = caller.call().await?;
                let now = Instant::now();
                done += count;
                if started >= begin {
                    latency.record(nanoseconds(now - started))?;
                }
                if now >= begin && now < end {
                    counted += count;
                }
                started = now;
            }
            anyhow::Ok((counted, done, latency))
        });
    }
    let mut all = Measured {
        per_second: 0.0,
        latency: Histogram::new(3)?,
        done: 0,
    };
    let mut counted = 0;
    while let Some(ended) = tasks.join_next().await {
        let (of_caller, done, latency) = ended??;
        counted += of_caller;
        all.done += done;
        all.latency.add(latency)?;
    }
    all.per_second = counted as f64 / during.as_secs_f64();
    Ok(all)
}

/// So many callers, each with a connection and keys of its own.
pub(crate) fn callers<C>(
    count: usize,
    connections: &Connections,
    source: &Source,
    make: impl Fn(EntityServiceClient<Channel>, Source) -> C,
) -> Vec<C> {
    (0..count)
        .map(|caller| {
            let client = EntityServiceClient::new(connections.of(caller));
            make(client, source.of_caller(caller))
        })
        .collect()
}

/// Sets orders.
pub(crate) struct Set(pub(crate) EntityServiceClient<Channel>, pub(crate) Source);

impl Caller for Set {
    async fn call(&mut self) -> Result<u64, Status> {
        self.0.set(self.1.order()).await?;
        Ok(1)
    }
}

/// Gets products.
pub(crate) struct Get(pub(crate) EntityServiceClient<Channel>, pub(crate) Source);

impl Caller for Get {
    async fn call(&mut self) -> Result<u64, Status> {
        let entity = self.0.get(self.1.product_ref()).await?.into_inner();
        match entity.values {
            Some(_) => Ok(1),
            None => Err(Status::data_loss("an entity without values")),
        }
    }
}

/// Searches for products, page after page.
pub(crate) struct Search {
    pub(crate) client: EntityServiceClient<Channel>,
    /// Where the next page continues; empty at the beginning.
    pub(crate) page_token: String,
}

impl Caller for Search {
    async fn call(&mut self) -> Result<u64, Status> {
        let page = self
            .client
            .search(pb::SearchEntityOpts {
                domain: DOMAIN.to_owned(),
                r#type: PRODUCTS.to_owned(),
                limit: PAGE.cast_signed(),
                page_token: std::mem::take(&mut self.page_token),
                ..pb::SearchEntityOpts::default()
            })
            .await?
            .into_inner();
        if page.entities.len() != PAGE as usize {
            return Err(Status::data_loss("a page that is not full"));
        }
        self.page_token = page.next_page_token;
        Ok(1)
    }
}

/// Sets orders, so many at once.
pub(crate) struct Transact {
    pub(crate) client: EntityServiceClient<Channel>,
    pub(crate) source: Source,
    pub(crate) operations: u32,
}

impl Caller for Transact {
    async fn call(&mut self) -> Result<u64, Status> {
        let operations = (0..self.operations)
            .map(|_| set(self.source.order()))
            .collect();
        transact(&mut self.client, operations).await
    }
}

fn set(entity: pb::Entity) -> pb::Operation {
    pb::Operation {
        operation: Some(operation::Operation::Set(entity)),
        precondition: None,
    }
}

async fn transact(
    client: &mut EntityServiceClient<Channel>,
    operations: Vec<pb::Operation>,
) -> Result<u64, Status> {
    let asked = operations.len();
    let request = pb::TransactRequest {
        domain: DOMAIN.to_owned(),
        operations,
    };
    let events = client.transact(request).await?.into_inner().events.len();
    if events != asked {
        return Err(Status::data_loss("a transaction without all of its events"));
    }
    Ok(events as u64)
}

/// Writes every product once; answers how many that were.
pub(crate) async fn write_products(
    connections: &Connections,
    source: &Source,
) -> anyhow::Result<u64> {
    let mut client = EntityServiceClient::new(connections.of(0));
    let mut source = source.clone();
    let mut done = 0;
    for first in (0..PRODUCT_KEYS).step_by(PRODUCTS_AT_ONCE as usize) {
        let last = (first + PRODUCTS_AT_ONCE).min(PRODUCT_KEYS);
        let operations = (first..last).map(|n| set(source.product(n))).collect();
        done += transact(&mut client, operations).await?;
    }
    Ok(done)
}

/// A write that was acknowledged.
#[derive(Debug)]
pub(crate) struct Acknowledged {
    /// The event's position.
    pub(crate) position: u64,
    /// The order's key.
    pub(crate) key: String,
    /// When its turn was.
    pub(crate) due: Instant,
    /// How long after that its caller heard.
    pub(crate) took: Duration,
    /// When its caller heard, in nanoseconds since 1970, by the clock that events are stamped with.
    pub(crate) at: i64,
}

/// Sets orders at a given rate, spread evenly over callers and time, as long as turns are wanted; answers
/// when each was acknowledged. A caller whose call takes longer than its turn skips none: it is late.
pub(crate) async fn set_at_rate(
    callers: Vec<Set>,
    per_second: f64,
    is_wanted: impl Fn(Instant) -> bool + Clone + Send + 'static,
) -> anyhow::Result<Vec<Acknowledged>> {
    let start = Instant::now();
    let count = callers.len();
    let turn = Duration::from_secs_f64(count as f64 / per_second);
    let mut tasks = JoinSet::new();
    for (n, mut caller) in callers.into_iter().enumerate() {
        let mut due = start + turn.mul_f64(n as f64 / count as f64);
        let is_wanted = is_wanted.clone();
        tasks.spawn(async move {
            let mut all = Vec::new();
            while is_wanted(due) {
                sleep_until(due.into()).await;
                let order = caller.1.order();
                let key = order.key.clone();
                let response = caller.0.set(order).await?;
                all.push(Acknowledged {
                    position: position(&response)?,
                    key,
                    due,
                    took: due.elapsed(),
                    at: now(),
                });
                due += turn;
            }
            anyhow::Ok(all)
        });
    }
    let mut all = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        all.extend(ended??);
    }
    Ok(all)
}

/// The position in an answer's token, of a log with one lane.
pub(crate) fn position<T>(response: &Response<T>) -> anyhow::Result<u64> {
    let token = response.metadata().get("stategate-position");
    let token = token
        .and_then(|token| token.to_str().ok())
        .unwrap_or_default();
    match token
        .rsplit_once("/0:")
        .and_then(|(_, position)| position.parse().ok())
    {
        Some(position) => Ok(position),
        None => bail!("the token {token:?} of a write is not one of a log with one lane"),
    }
}

/// Now, as events have it.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Writes as fast as an audience takes it in, until the future is dropped: never more than `ahead`
/// events before what each listener has heard on the average. Counts what was acknowledged.
pub(crate) async fn write_for(
    mut caller: Transact,
    heard: impl Fn() -> u64 + Send,
    ahead: u64,
    acknowledged: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    loop {
        while acknowledged.load(Relaxed) > heard() + ahead {
            sleep(PAUSE).await;
        }
        acknowledged.fetch_add(caller.call().await?, Relaxed);
    }
}
