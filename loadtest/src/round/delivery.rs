//! The scenarios of streams that receive events: how long delivery takes, and how many events a second.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use anyhow::bail;
use hdrhistogram::Histogram;

use crate::{
    quantity::Quantity,
    scenario::CALLERS,
    statistics::quantile_ms,
    workload::{
        self, AcknowledgedWrite, Connections, PositionCheck, RecordingSubscriber, Set, Subscribers,
        Transact, callers, connections_for, set_at_rate, write_limited,
    },
};

use super::active::ActiveRound;

/// How many events the writers of `deliver` may be ahead of the average subscriber.
const MAX_AHEAD: u64 = 300;
/// Writers of `deliver`.
const WRITERS: usize = 4;

/// The time from commit to delivery at half the rate of Sets that the gateway can do.
pub(super) fn delay(round: &mut ActiveRound<'_>) -> anyhow::Result<()> {
    if round.get(Quantity::Set).is_none() {
        let set = round.measure_sets(CALLERS, &round.connections.writers)?;
        round.written += set.done;
        round.record(Quantity::Set, set.per_second);
    }
    if round.get(Quantity::EchoSetOne).is_none() {
        let echo = round.measure_sets(1, &round.echo_connections)?;
        round.record(Quantity::EchoSetOne, echo.per_second);
    }
    let get = |quantity| round.get(quantity).unwrap_or_default();
    // If the disk stalled for all of a short measurement, there were no Sets to take the half of.
    let rate = (get(Quantity::Set) / 2.0).max(CALLERS as f64);
    let one_way_nanoseconds = 0.5e9 / get(Quantity::EchoSetOne);
    let callers = callers(
        CALLERS,
        &round.connections.writers,
        &round.generator,
        Set::new,
    );
    let duration = round.setup.duration;
    let before = round.gateway.event_counts()?;
    let (mut writes, deliveries) = round.setup.runtime.block_on(async {
        let subscriber = RecordingSubscriber::open(&round.connections.subscribers).await?;
        let end = Instant::now() + duration;
        let writes = set_at_rate(callers, rate, move |scheduled| scheduled < end).await?;
        anyhow::Ok((writes, subscriber.finish().await?))
    })?;
    round.written += writes.len() as u64;
    let percent = round
        .gateway
        .event_counts()?
        .percent_by_channel_since(before);
    if let Some(percent) = percent {
        round.record(Quantity::DelayByChannel, percent);
    }
    if writes.len() != deliveries.len() {
        bail!(
            "{} writes were acknowledged, {} events delivered",
            writes.len(),
            deliveries.len()
        );
    }
    writes.sort_unstable_by_key(|write| write.position);
    bound_commit_times(&mut writes);
    let mut since_commit = Histogram::<u64>::new(3)?;
    let mut since_decision = Histogram::<u64>::new(3)?;
    for (write, delivery) in writes.iter().zip(&deliveries) {
        if write.position != delivery.position {
            bail!(
                "position {} was acknowledged, {} delivered",
                write.position,
                delivery.position
            );
        }
        #[allow(clippy::cast_possible_truncation, reason = "a part of a second")]
        let committed = write.acknowledged - one_way_nanoseconds as i64;
        since_commit.record(u64::try_from(delivery.received - committed).unwrap_or(0))?;
        since_decision.record(u64::try_from(delivery.received - delivery.decided).unwrap_or(0))?;
    }
    round.record(
        Quantity::HalfLoad,
        writes.len() as f64 / duration.as_secs_f64(),
    );
    round.record(Quantity::DelayP50, quantile_ms(&since_commit, 0.5));
    round.record(Quantity::DelayP99, quantile_ms(&since_commit, 0.99));
    round.record(Quantity::SinceDecidedP50, quantile_ms(&since_decision, 0.5));
    round.record(
        Quantity::SinceDecidedP99,
        quantile_ms(&since_decision, 0.99),
    );
    Ok(())
}

/// Lowers each time of acknowledgement to the earliest one of that write and the writes after it. Positions
/// become durable in order, so when a later write was acknowledged, this one had been committed.
fn bound_commit_times(writes: &mut [AcknowledgedWrite]) {
    let mut earliest = i64::MAX;
    for write in writes.iter_mut().rev() {
        earliest = earliest.min(write.acknowledged);
        write.acknowledged = earliest;
    }
}

/// Events delivered to this many live subscribers.
pub(super) fn deliver(round: &mut ActiveRound<'_>, count: usize) -> anyhow::Result<()> {
    let duration = round.setup.duration;
    let writers = callers(
        WRITERS,
        &round.connections.writers,
        &round.generator,
        Transact::new,
    );
    let addresses = round.gateway.stream_addresses();
    let before = round.gateway.event_counts()?;
    let (rate, written) = round.setup.runtime.block_on(async {
        let connections = Connections::open_many(&addresses, connections_for(count)).await?;
        let mut subscribers =
            Subscribers::open(&connections, count, PositionCheck::Consecutive).await?;
        let written = Arc::new(AtomicU64::new(0));
        let (received, count) = (subscribers.counter(), subscribers.count());
        let writers = writers.into_iter().map(|writer| {
            let received = received.clone();
            let average = move || received() / count;
            write_limited(writer, average, MAX_AHEAD, Arc::clone(&written))
        });
        let rate = tokio::select! {
            rate = subscribers.measure(duration) => rate?,
            end = futures::future::try_join_all(writers) => {
                end?;
                bail!("the writers stopped");
            }
        };
        anyhow::Ok((rate, written.load(Relaxed)))
    })?;
    round.written += written;
    let percent = round
        .gateway
        .event_counts()?
        .percent_by_channel_since(before);
    if let Some(percent) = percent {
        round.record(Quantity::DeliverByChannel(count), percent);
    }
    round.record(Quantity::Deliver(count), rate);
    let writers_alone = round.measure_transactions(WRITERS, duration)?;
    round.record(Quantity::Authors(count), writers_alone);
    stream_floor(round, count)
}

/// Events delivered to this many subscribers by the echo server.
fn stream_floor(round: &mut ActiveRound<'_>, count: usize) -> anyhow::Result<()> {
    let (address, duration) = (round.echo_server.address(), round.setup.duration);
    let rate = round.setup.runtime.block_on(async {
        let connections = Connections::open_many(&[address], connections_for(count)).await?;
        let mut subscribers = Subscribers::open(&connections, count, PositionCheck::Off).await?;
        subscribers.measure(duration).await
    })?;
    round.record(Quantity::Stream(count), rate);
    Ok(())
}

/// The log from its beginning, to one subscriber.
pub(super) fn replay(round: &mut ActiveRound<'_>) -> anyhow::Result<()> {
    let mut head = round.database.log_state()?.head;
    if head == 0 {
        round.write_products()?;
        head = round.database.log_state()?.head;
    }
    let duration = round.setup.duration;
    let subscribers = &round.connections.subscribers;
    let replay = workload::replay(subscribers, head, duration);
    let rate = round.setup.runtime.block_on(replay)?;
    round.record(Quantity::Replay, rate);
    let scan = round.database.scan_rate(duration)?;
    round.record(Quantity::Scan, scan);
    if round.get(Quantity::Stream(1)).is_none() {
        stream_floor(round, 1)?;
    }
    Ok(())
}
