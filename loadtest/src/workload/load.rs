//! Callers in parallel: at full load, each sending its next request when the last one is answered; at a
//! given rate; or no faster than subscribers receive.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::bail;
use hdrhistogram::Histogram;
use stategate_protocol::pb::entity_service_client::EntityServiceClient;
use tokio::{
    task::JoinSet,
    time::{sleep, sleep_until},
};
use tonic::Response;

use crate::statistics::nanoseconds;

use super::{
    connections::{Connection, Connections},
    dataset::EntityGenerator,
    requests::{Caller, Set, Transact},
};

/// The warm-up before a measurement, as a share of its time.
const WARM_UP: f64 = 0.25;
/// Between two checks of how much subscribers have received.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// What callers achieved.
pub(crate) struct Throughput {
    /// Units of work a second, without the warm-up.
    pub(crate) per_second: f64,
    /// Latencies of the calls in nanoseconds, without the warm-up.
    pub(crate) latency: Histogram<u64>,
    /// Units of work, with the warm-up.
    pub(crate) done: u64,
}

/// Lets each caller send one request after the other. A call that fails fails the run.
pub(crate) async fn full_load<C: Caller>(
    callers: Vec<C>,
    duration: Duration,
) -> anyhow::Result<Throughput> {
    let start = Instant::now();
    let begin = start + duration.mul_f64(WARM_UP);
    let end = begin + duration;
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
    let mut total = Throughput {
        per_second: 0.0,
        latency: Histogram::new(3)?,
        done: 0,
    };
    let mut counted = 0;
    while let Some(ended) = tasks.join_next().await {
        let (of_caller, done, latency) = ended??;
        counted += of_caller;
        total.done += done;
        total.latency.add(latency)?;
    }
    total.per_second = counted as f64 / duration.as_secs_f64();
    Ok(total)
}

/// Makes callers; each has keys of its own and, in turn, one of the connections.
pub(crate) fn callers<C>(
    count: usize,
    connections: &Connections,
    generator: &EntityGenerator,
    new: impl Fn(EntityServiceClient<Connection>, EntityGenerator) -> C,
) -> Vec<C> {
    (0..count)
        .map(|n| {
            let client = EntityServiceClient::new(connections.get(n));
            new(client, generator.of_caller(n))
        })
        .collect()
}

/// A write that was acknowledged.
#[derive(Debug)]
pub(crate) struct AcknowledgedWrite {
    /// The position of the event.
    pub(crate) position: u64,
    /// The key of the order.
    pub(crate) key: String,
    /// When the call was scheduled. It is sent later if the caller's previous call took too long.
    pub(crate) scheduled: Instant,
    /// The time from then to the acknowledgement.
    pub(crate) latency: Duration,
    /// When it was acknowledged, in nanoseconds since 1970: the clock of the events' time stamps.
    pub(crate) acknowledged: i64,
}

/// Sets orders at a given rate, spread evenly over callers and time, for as long as `is_wanted` says so of
/// the time a call is scheduled for. A caller whose call takes longer than its interval skips none of its
/// calls; it sends them late.
pub(crate) async fn set_at_rate(
    callers: Vec<Set>,
    per_second: f64,
    is_wanted: impl Fn(Instant) -> bool + Clone + Send + 'static,
) -> anyhow::Result<Vec<AcknowledgedWrite>> {
    let start = Instant::now();
    let count = callers.len();
    let interval = Duration::from_secs_f64(count as f64 / per_second);
    let mut tasks = JoinSet::new();
    for (n, mut caller) in callers.into_iter().enumerate() {
        let mut scheduled = start + interval.mul_f64(n as f64 / count as f64);
        let is_wanted = is_wanted.clone();
        tasks.spawn(async move {
            let mut writes = Vec::new();
            while is_wanted(scheduled) {
                sleep_until(scheduled.into()).await;
                let order = caller.generator.order();
                let key = order.key.clone();
                let response = caller.client.set(order).await?;
                writes.push(AcknowledgedWrite {
                    position: position(&response)?,
                    key,
                    scheduled,
                    latency: scheduled.elapsed(),
                    acknowledged: now(),
                });
                scheduled += interval;
            }
            anyhow::Ok(writes)
        });
    }
    let mut all = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        all.extend(ended??);
    }
    Ok(all)
}

/// Writes as fast as subscribers receive, until the future is dropped: pauses while more than `max_ahead`
/// events are acknowledged that the average subscriber has not received. Adds what was acknowledged to
/// `acknowledged`, which all writers share.
pub(crate) async fn write_limited(
    mut caller: Transact,
    received: impl Fn() -> u64 + Send,
    max_ahead: u64,
    acknowledged: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    loop {
        while acknowledged.load(Relaxed) > received() + max_ahead {
            sleep(POLL_INTERVAL).await;
        }
        acknowledged.fetch_add(caller.call().await?, Relaxed);
    }
}

/// The position in the token of an answer, of a log with one lane.
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

/// The time in nanoseconds since 1970: the clock of the events' time stamps.
pub(super) fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
