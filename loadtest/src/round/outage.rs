//! The scenarios `away` and `stay`: writes and streams while a broker is killed and started again, and
//! stopped and continued; or while it is left alone.
//!
//! The callers write at a fraction of the rate that the services can do, since at full load the latency
//! depends on which process gets the processor. Each write is scheduled, and its latency counts from then:
//! a write that has to wait for the caller's previous one is late, and none is left out. At the end, what
//! the subscribers received is compared with what was acknowledged.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use stategate_protocol::pb::entity_service_client::EntityServiceClient;
use stategate_servers::{Absence, Broker};

use crate::{
    quantity::{OutageStage, Phase, PhaseQuantity, Quantity},
    scenario::{OUTAGE_CALLERS, OUTAGE_SUBSCRIBERS},
    statistics::{median, nanoseconds, quantile_ms},
    workload::{
        AcknowledgedWrite, FilteredSubscribers, LAST_ORDER, Set, callers, full_load, position,
        set_at_rate,
    },
};

use super::active::ActiveRound;

/// The outages of `away`.
pub(super) const KILL_AND_STOP: &[Absence] = &[Absence::Killed, Absence::Stopped];
/// The outages of `stay`.
pub(super) const NO_OUTAGE: &[Absence] = &[];
/// The rate of writes, as a share of the rate at full load.
const LOAD: f64 = 1.0 / 3.0;
/// The longest time that full load is measured for.
const MAX_FULL_LOAD: Duration = Duration::from_secs(10);
/// The time before the first phase, as a share of a phase's time.
const WARM_UP: f64 = 0.25;
/// Phases of `stay` after the first. `away` has as many of the same length: two for each outage.
const PHASES_WITHOUT_OUTAGE: usize = 4;

/// Runs the load through all phases, with an outage of each of these kinds.
pub(super) fn run(round: &mut ActiveRound<'_>, outages: &[Absence]) -> anyhow::Result<()> {
    let setup = round.setup;
    let runtime = setup.runtime;
    let broker = setup.channel.broker().context("there is no broker")?;
    let setters = || {
        let connections = &round.connections.writers;
        callers(OUTAGE_CALLERS, connections, &round.generator, Set::new)
    };
    let subscribe = || runtime.block_on(FilteredSubscribers::open(&round.connections.subscribers));

    let subscribers = subscribe()?;
    let duration = setup.duration.min(MAX_FULL_LOAD);
    let full = runtime.block_on(full_load(setters(), duration))?;
    drop(subscribers);
    let rate = full.per_second * LOAD;
    (setup.progress)(&format!(
        "{:.0} Set/s at full speed, {rate:.0} from now on",
        full.per_second
    ));

    let mut subscribers = subscribe()?;
    let is_over = Arc::new(AtomicBool::new(false));
    let load = runtime.spawn({
        let is_over = Arc::clone(&is_over);
        set_at_rate(setters(), rate, move |_| !is_over.load(Relaxed))
    });
    sleep(setup.duration.mul_f64(WARM_UP));
    let phases = run_phases(round, broker, outages)?;
    is_over.store(true, Relaxed);
    let mut writes = runtime.block_on(load)??;
    writes.push(runtime.block_on(write_last_order(round))?);
    writes.sort_unstable_by_key(|write| write.position);

    let delivered = subscribers.check(&writes)?;
    (setup.progress)(&format!(
        "{} events written, {delivered} delivered to {OUTAGE_SUBSCRIBERS} subscribers, once and in order",
        writes.len()
    ));
    round.written += full.done + writes.len() as u64;
    for phase in &phases {
        for (quantity, value) in phase.quantities(&writes)? {
            round.record(Quantity::In(phase.phase, quantity), value);
        }
    }
    Ok(())
}

/// Takes the broker through its outages, while others write and receive.
fn run_phases(
    round: &ActiveRound<'_>,
    broker: &dyn Broker,
    outages: &[Absence],
) -> anyhow::Result<Vec<ObservedPhase>> {
    let wait = || {
        sleep(round.setup.duration);
        Ok(())
    };
    let mut phases = vec![observe(round, Phase::Before, wait)?];
    for outage in outages.iter().copied() {
        broker.leave(outage);
        phases.push(observe(round, Phase::Of(outage, OutageStage::Away), wait)?);
        let returning = Phase::Of(outage, OutageStage::Returning);
        phases.push(observe(round, returning, || {
            broker.come_back(outage);
            round.gateway.wait_until_ready()
        })?);
        phases.push(observe(round, Phase::Of(outage, OutageStage::Back), wait)?);
    }
    if outages.is_empty() {
        for n in 1..=PHASES_WITHOUT_OUTAGE {
            phases.push(observe(round, Phase::Still(n), wait)?);
        }
    }
    Ok(phases)
}

/// Observes the gateway until `wait` returns.
fn observe(
    round: &ActiveRound<'_>,
    phase: Phase,
    wait: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<ObservedPhase> {
    let gateway = &round.gateway;
    let counts = gateway.event_counts()?;
    let processor_time = gateway.processor_time();
    let begin = Instant::now();
    wait().with_context(|| format!("{phase:?}"))?;
    let end = Instant::now();
    Ok(ObservedPhase {
        phase,
        begin,
        end,
        percent_by_channel: gateway.event_counts()?.percent_by_channel_since(counts),
        processor_time: gateway.processor_time() - processor_time,
    })
}

/// Writes the order that every subscriber selects, so that all of them know when they have everything.
async fn write_last_order(round: &ActiveRound<'_>) -> anyhow::Result<AcknowledgedWrite> {
    let mut client = EntityServiceClient::new(round.connections.writers.get(0));
    let scheduled = Instant::now();
    let response = client.set(round.generator.clone().last_order()).await?;
    Ok(AcknowledgedWrite {
        position: position(&response)?,
        key: LAST_ORDER.to_owned(),
        scheduled,
        latency: scheduled.elapsed(),
        acknowledged: 0,
    })
}

/// When a phase was, and what was observed of the gateway in it.
struct ObservedPhase {
    phase: Phase,
    begin: Instant,
    end: Instant,
    percent_by_channel: Option<f64>,
    processor_time: Duration,
}

impl ObservedPhase {
    /// The quantities of the phase, from the writes that were scheduled in it.
    fn quantities(
        &self,
        writes: &[AcknowledgedWrite],
    ) -> anyhow::Result<Vec<(PhaseQuantity, f64)>> {
        let mut seconds = BTreeMap::<u64, Histogram<u64>>::new();
        for write in writes {
            if self.begin <= write.scheduled && write.scheduled < self.end {
                let second = seconds.entry((write.scheduled - self.begin).as_secs());
                let second = second.or_insert(Histogram::new(3)?);
                second.record(nanoseconds(write.latency))?;
            }
        }
        let mut latencies = Histogram::<u64>::new(3)?;
        for second in seconds.values() {
            latencies.add(second)?;
        }
        let p99_of_seconds = seconds.values().map(|second| quantile_ms(second, 0.99));
        let count = latencies.len() as f64;
        let processor_time = self.processor_time.as_secs_f64() * 1e6 / count;
        let mut quantities = vec![
            (PhaseQuantity::P50, quantile_ms(&latencies, 0.5)),
            (PhaseQuantity::P99, quantile_ms(&latencies, 0.99)),
            (PhaseQuantity::P999, quantile_ms(&latencies, 0.999)),
            (PhaseQuantity::TypicalP99, median(p99_of_seconds.collect())),
            (
                PhaseQuantity::Rate,
                count / (self.end - self.begin).as_secs_f64(),
            ),
            (PhaseQuantity::Cost, processor_time),
        ];
        let by_channel = self.percent_by_channel;
        quantities.extend(by_channel.map(|percent| (PhaseQuantity::ByChannel, percent)));
        Ok(quantities)
    }
}
