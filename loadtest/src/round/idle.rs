//! The scenario `idle`: the memory that a subscriber takes to which nothing is sent.

use std::net::SocketAddr;

use tokio::runtime::Runtime;

use crate::{
    floor::start_echo_server,
    gateway::{Gateway, ProcessCounts},
    quantity::Quantity,
    scenario::{IDLE_SUBSCRIBERS, IDLE_SUBSCRIBERS_ALONE, STREAMS_PER_CONNECTION},
    workload::{Connections, IdleSubscribers},
};

use super::active::{ActiveRound, Setup};

/// Measures the gateway and the echo server, with shared connections and with one for each subscriber. The
/// processes are new ones: a process that has worked before gives new subscribers memory that it has
/// freed, so it would seem to need less.
pub(super) fn idle(round: &mut ActiveRound<'_>) -> anyhow::Result<()> {
    let Setup {
        runtime,
        binaries,
        channel,
        ..
    } = *round.setup;
    for (per_connection, count) in [
        (STREAMS_PER_CONNECTION, IDLE_SUBSCRIBERS),
        (1, IDLE_SUBSCRIBERS_ALONE),
    ] {
        let settings = round.database.settings();
        let gateway = Gateway::start(binaries, &settings, channel, ProcessCounts::ONE)?;
        let addresses = gateway.stream_addresses();
        let memory = || gateway.stream_memory_kib();
        let idle = memory_kib_each(runtime, &addresses, count, per_connection, memory)?;
        gateway.stop()?;
        let echo_server = start_echo_server()?;
        let addresses = [echo_server.address()];
        let memory = || echo_server.memory_kib();
        let echo = memory_kib_each(runtime, &addresses, count, per_connection, memory)?;
        echo_server.stop()?;
        round.record(Quantity::Idle(per_connection), idle);
        round.record(Quantity::IdleStream(per_connection), echo);
    }
    Ok(())
}

/// By how much the memory of a server grows for each of this many idle subscribers, in KiB.
fn memory_kib_each(
    runtime: &Runtime,
    addresses: &[SocketAddr],
    count: usize,
    per_connection: usize,
    memory: impl Fn() -> anyhow::Result<u64>,
) -> anyhow::Result<f64> {
    runtime.block_on(async {
        // The first subscriber makes the server allocate what all of them share, so it is not counted.
        let first_connection = Connections::open_many(addresses, 1).await?;
        let _first = IdleSubscribers::open(&first_connection, 1, 1).await?;
        let before = memory()?;
        let connections = Connections::open_many(addresses, count / per_connection).await?;
        let _subscribers = IdleSubscribers::open(&connections, count, per_connection).await?;
        Ok(memory()?.saturating_sub(before) as f64 / count as f64)
    })
}
