//! The scenarios of single requests: Set, Transact, Get and Search.

use std::time::Duration;

use crate::{
    quantity::Quantity,
    scenario::{CALLERS, TRANSACT_CALLERS},
    statistics::quantile_ms,
    workload::Throughput,
};

use super::active::ActiveRound;

/// Set with many callers.
pub(super) fn set(round: &mut ActiveRound<'_>) -> anyhow::Result<()> {
    let before = round.gateway.processor_time();
    let set = round.measure_sets(CALLERS, &round.connections.writers)?;
    let cost = microseconds_per_call(round.gateway.processor_time() - before, &set);
    round.written += set.done;
    round.record(Quantity::Set, set.per_second);
    round.record(Quantity::SetCost, cost);
    let before = round.echo_server.processor_time();
    let echo = round.measure_sets(CALLERS, &round.echo_connections)?;
    let cost = microseconds_per_call(round.echo_server.processor_time() - before, &echo);
    round.record(Quantity::EchoSet, echo.per_second);
    round.record(Quantity::EchoSetCost, cost);
    let duration = round.setup.duration;
    let mut floors = round.database.insert_floors()?;
    let batch = floors.batch_rate(duration)?;
    let plain = floors.concurrent_rate(duration, CALLERS)?;
    drop(floors);
    round.record(Quantity::Batch, batch);
    round.record(Quantity::PlainMany, plain);
    round.measure_syncs()
}

/// Set with one caller.
pub(super) fn set_one(round: &mut ActiveRound<'_>) -> anyhow::Result<()> {
    let set = round.measure_sets(1, &round.connections.writers)?;
    round.written += set.done;
    round.record(Quantity::SetOne, set.per_second);
    round.record(Quantity::SetOneP50, quantile_ms(&set.latency, 0.5));
    round.record(Quantity::SetOneP99, quantile_ms(&set.latency, 0.99));
    let echo = round.measure_sets(1, &round.echo_connections)?;
    round.record(Quantity::EchoSetOne, echo.per_second);
    let plain = round
        .database
        .insert_floors()?
        .single_rate(round.setup.duration)?;
    round.record(Quantity::PlainOne, plain);
    round.measure_syncs()
}

/// Transact with several callers.
pub(super) fn transact(round: &mut ActiveRound<'_>) -> anyhow::Result<()> {
    let duration = round.setup.duration;
    let rate = round.measure_transactions(TRANSACT_CALLERS, duration)?;
    round.record(Quantity::Transact, rate);
    if round.get(Quantity::Batch).is_none() {
        let batch = round.database.insert_floors()?.batch_rate(duration)?;
        round.record(Quantity::Batch, batch);
    }
    Ok(())
}

/// Get with many callers.
pub(super) fn get(round: &mut ActiveRound<'_>) -> anyhow::Result<()> {
    round.write_products()?;
    let before = round.gateway.processor_time();
    let get = round.measure_gets(&round.connections.readers)?;
    let cost = microseconds_per_call(round.gateway.processor_time() - before, &get);
    let before = round.echo_server.processor_time();
    let echo = round.measure_gets(&round.echo_connections)?;
    let echo_cost = microseconds_per_call(round.echo_server.processor_time() - before, &echo);
    round.record(Quantity::Get, get.per_second);
    round.record(Quantity::GetCost, cost);
    round.record(Quantity::EchoGet, echo.per_second);
    round.record(Quantity::EchoGetCost, echo_cost);
    let select = round.database.select_rate(round.setup.duration)?;
    round.record(Quantity::Select, select);
    Ok(())
}

/// Search with many callers.
pub(super) fn search(round: &mut ActiveRound<'_>) -> anyhow::Result<()> {
    round.write_products()?;
    let before = round.gateway.processor_time();
    let search = round.measure_searches(&round.connections.readers)?;
    let cost = microseconds_per_call(round.gateway.processor_time() - before, &search);
    let before = round.echo_server.processor_time();
    let echo = round.measure_searches(&round.echo_connections)?;
    let echo_cost = microseconds_per_call(round.echo_server.processor_time() - before, &echo);
    round.record(Quantity::Search, search.per_second);
    round.record(Quantity::SearchCost, cost);
    round.record(Quantity::EchoSearch, echo.per_second);
    round.record(Quantity::EchoSearchCost, echo_cost);
    let pages = round.database.page_rate(round.setup.duration)?;
    round.record(Quantity::Pages, pages);
    Ok(())
}

/// A server's processor time for each call, in µs.
fn microseconds_per_call(processor_time: Duration, throughput: &Throughput) -> f64 {
    processor_time.as_secs_f64() * 1e6 / throughput.done as f64
}
