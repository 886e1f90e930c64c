//! What a round runs on, what it measured so far, and the measurements that several scenarios share.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::bail;
use tokio::runtime::Runtime;

use crate::{
    channel::Channel,
    floor::{start_echo_server, sync_latency},
    gateway::{Binaries, Gateway, GatewayConnections, ProcessCounts},
    process::Process,
    quantity::{Measurements, Quantity},
    scenario::{CALLERS, Scenario},
    statistics::quantile_ms,
    storage::{Database, Storage},
    workload::{
        Connections, EntityGenerator, Get, Search, Set, Throughput, Transact, callers, full_load,
        write_products,
    },
};

/// What all rounds have in common.
pub(crate) struct Setup<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) binaries: &'a Binaries,
    pub(crate) channel: &'a Channel,
    pub(crate) storage: &'a Storage,
    pub(crate) directory: &'a Path,
    pub(crate) scenarios: &'a [Scenario],
    /// How long each measurement takes.
    pub(crate) duration: Duration,
    /// The number of events that the log of `grow` grows to.
    pub(crate) events: u64,
    /// Tells the user how far the run is.
    pub(crate) progress: &'a dyn Fn(&str),
}

/// A round that is being run.
pub(super) struct ActiveRound<'a> {
    pub(super) setup: &'a Setup<'a>,
    pub(super) gateway: Gateway,
    pub(super) echo_server: Process,
    pub(super) connections: GatewayConnections,
    pub(super) echo_connections: Connections,
    pub(super) generator: EntityGenerator,
    pub(super) database: Box<dyn Database + 'a>,
    directory: PathBuf,
    /// Events that the gateway acknowledged.
    pub(super) written: u64,
    has_products: bool,
    measured: Measurements,
}

impl<'a> ActiveRound<'a> {
    /// Starts a gateway on an empty database, and an echo server.
    pub(super) fn start(
        setup: &'a Setup<'a>,
        number: usize,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        let runtime = setup.runtime;
        let database = setup
            .storage
            .new_database(number, directory, runtime.handle());
        let counts = match setup
            .scenarios
            .iter()
            .any(|scenario| scenario.needs_broker())
        {
            true => ProcessCounts::SEVERAL,
            false => ProcessCounts::ONE,
        };
        let gateway = Gateway::start(setup.binaries, &database.settings(), setup.channel, counts)?;
        let echo_server = start_echo_server()?;
        Ok(Self {
            setup,
            connections: gateway.connect(runtime)?,
            echo_connections: runtime.block_on(Connections::open(&[echo_server.address()]))?,
            generator: EntityGenerator::new(),
            gateway,
            echo_server,
            database,
            directory: directory.to_owned(),
            written: 0,
            has_products: false,
            measured: Measurements::new(),
        })
    }

    /// Adds a quantity to what was measured.
    pub(super) fn record(&mut self, quantity: Quantity, value: f64) {
        self.measured.insert(quantity, value);
    }

    /// A quantity that was measured before in this round.
    pub(super) fn get(&self, quantity: Quantity) -> Option<f64> {
        self.measured.get(&quantity).copied()
    }

    /// Set by this many callers.
    pub(super) fn measure_sets(
        &self,
        count: usize,
        connections: &Connections,
    ) -> anyhow::Result<Throughput> {
        let callers = callers(count, connections, &self.generator, Set::new);
        self.setup
            .runtime
            .block_on(full_load(callers, self.setup.duration))
    }

    /// Get by many callers.
    pub(super) fn measure_gets(&self, connections: &Connections) -> anyhow::Result<Throughput> {
        let callers = callers(CALLERS, connections, &self.generator, Get::new);
        self.setup
            .runtime
            .block_on(full_load(callers, self.setup.duration))
    }

    /// Search by many callers.
    pub(super) fn measure_searches(&self, connections: &Connections) -> anyhow::Result<Throughput> {
        let callers = callers(CALLERS, connections, &self.generator, |client, _| {
            Search::new(client)
        });
        self.setup
            .runtime
            .block_on(full_load(callers, self.setup.duration))
    }

    /// Events/s written by this many callers of Transact.
    pub(super) fn measure_transactions(
        &mut self,
        count: usize,
        duration: Duration,
    ) -> anyhow::Result<f64> {
        let writers = &self.connections.writers;
        let callers = callers(count, writers, &self.generator, Transact::new);
        let transact = self.setup.runtime.block_on(full_load(callers, duration))?;
        self.written += transact.done;
        Ok(transact.per_second)
    }

    /// Writes every product once, unless this round has done so.
    pub(super) fn write_products(&mut self) -> anyhow::Result<()> {
        if std::mem::replace(&mut self.has_products, true) {
            return Ok(());
        }
        let written = write_products(&self.connections.writers, &self.generator);
        self.written += self.setup.runtime.block_on(written)?;
        Ok(())
    }

    /// Measures the sync floor.
    pub(super) fn measure_syncs(&mut self) -> anyhow::Result<()> {
        let latencies = sync_latency(&self.directory, self.setup.duration / 2)?;
        self.record(Quantity::SyncP50, quantile_ms(&latencies, 0.5));
        self.record(Quantity::SyncP99, quantile_ms(&latencies, 0.99));
        let quickest = latencies.min() as f64 / 1e6;
        let before = self.get(Quantity::SyncQuickest);
        self.record(
            Quantity::SyncQuickest,
            before.map_or(quickest, |before| before.min(quickest)),
        );
        Ok(())
    }

    /// Stops the processes, and checks that the gateway stored what it acknowledged, durably.
    pub(super) fn finish(mut self) -> anyhow::Result<Measurements> {
        if let Some(peak) = self.gateway.peak_mib() {
            self.record(Quantity::PeakMib, peak as f64);
        }
        if let Some(setting) = self.database.log_state()?.weak_durability {
            bail!("durability was lowered: {setting}");
        }
        self.gateway.ensure_ready()?;
        if self.setup.channel.name().carries_events() && self.gateway.event_counts()?.all_from_log()
        {
            bail!("no event came by the channel; all were read from the log");
        }
        drop((self.connections, self.echo_connections));
        self.gateway.stop()?;
        self.echo_server.stop()?;
        let log = self.database.log_state()?;
        if log.events < self.written || log.events != log.head {
            bail!(
                "{} events were acknowledged, {} are kept, and the last is at position {}",
                self.written,
                log.events,
                log.head
            );
        }
        let get = |quantity| self.measured.get(&quantity).copied();
        // On a disk that others use, the latency of syncs varies. But a durable write includes a sync, so it
        // is never faster than the fastest sync.
        if let (Some(set), Some(sync)) = (get(Quantity::SetOneP50), get(Quantity::SyncQuickest))
            && set < sync
        {
            bail!(
                "durability was lowered: half of the Sets took less than {set:.2} ms, and no sync of the disk less than {sync:.2} ms"
            );
        }
        Ok(self.measured)
    }
}
