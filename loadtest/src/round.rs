//! One round: a fresh gateway, and each of its figures in turn with the floors it is compared with.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use stategate_servers::Absence;
use tokio::runtime::Runtime;

use crate::{
    audience::{Audience, Order, STREAMS_PER_CONNECTION, Witness, connections_for, replay, sit},
    away::{self, Aspect, Phase, Trial},
    channel::Channel,
    data::{PRODUCT_KEYS, Source},
    gateway::{Binaries, ByRole, Counts, Gateway},
    load::{
        Acknowledged, Connections, Get, Measured, Search, Set, Transact, callers, measure,
        set_at_rate, write_for, write_products,
    },
    machine::sync_latency,
    plain::{Disk, Storage},
    process::Process,
    scenario::Scenario,
};

/// Callers at once, where there are many.
pub(crate) const CALLERS: usize = 64;
/// Callers of Transact at once: more than enough to keep appends full.
pub(crate) const TRANSACT_CALLERS: usize = 16;
/// Operations of a Transact.
pub(crate) const OPERATIONS: u32 = 100;
/// Sizes of audiences.
pub(crate) const AUDIENCES: [usize; 3] = [1, 100, 1_000];
/// Subscribers to whom nothing is sent, many on a connection.
const IDLE: usize = 1_000;
/// The same with a connection each.
const IDLE_ALONE: usize = 200;
/// Events of a log that has not grown yet: the products.
pub(crate) const SMALL_LOG: u64 = PRODUCT_KEYS as u64;
/// Events that are written before the audience has heard them, on the average.
const AHEAD: u64 = 300;
/// Callers that write for an audience.
const AUTHORS: usize = 4;

/// A quantity that rounds measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Quantity {
    Set,
    SetOne,
    SetOneP50,
    SetOneP99,
    Transact,
    Get,
    Search,
    Replay,
    Deliver(usize),
    /// KiB of memory for each of so many subscribers on a connection to whom nothing is sent.
    Idle(usize),
    IdleStream(usize),
    /// On a log of so many events.
    Grown(u64, Grown),
    /// Of a phase of a broker's trial.
    In(Phase, Aspect),
    /// Percent of the events that came to who streams them by the channel, not from the log.
    DelayByChannel,
    DeliverByChannel(usize),
    /// Delivered − committed, in ms.
    DelayP50,
    DelayP99,
    /// Delivered − decided, which has the append within it, in ms.
    SinceDecidedP50,
    SinceDecidedP99,
    HalfLoad,
    PeakMib,
    EchoSet,
    EchoSetOne,
    EchoGet,
    /// Processor time of the server for a call, in µs.
    SetCost,
    GetCost,
    SearchCost,
    EchoSetCost,
    EchoGetCost,
    EchoSearch,
    EchoSearchCost,
    Pages,
    Batch,
    PlainOne,
    PlainMany,
    Select,
    Stream(usize),
    /// What the authors of an audience of this size write without it.
    Authors(usize),
    Scan,
    /// The quickest sync of the round.
    SyncQuickest,
    SyncP50,
    SyncP99,
}

/// What is measured on a log that grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Grown {
    Set,
    /// Of one caller, in ms.
    SetOneP50,
    Get,
    Search,
}

/// What a round measured.
pub(crate) type Round = BTreeMap<Quantity, f64>;

/// What rounds are run with.
pub(crate) struct Stage<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) binaries: &'a Binaries,
    pub(crate) channel: &'a Channel,
    pub(crate) storage: &'a Storage,
    pub(crate) directory: &'a Path,
    pub(crate) scenarios: &'a [Scenario],
    pub(crate) during: Duration,
    /// How far a log grows.
    pub(crate) events: u64,
    pub(crate) say: &'a dyn Fn(&str),
}

impl Stage<'_> {
    /// Runs a round.
    pub(crate) fn round(&self, number: usize) -> anyhow::Result<Round> {
        let directory = self.directory.join(format!("round-{number}"));
        std::fs::create_dir(&directory)?;
        let disk = self
            .storage
            .fresh(number, &directory, self.runtime.handle());
        let counts = match self
            .scenarios
            .iter()
            .any(|scenario| scenario.is_of_broker())
        {
            true => Counts::SEVERAL,
            false => Counts::ONE,
        };
        let gateway = Gateway::start(self.binaries, &disk.provider(), self.channel, counts)?;
        let floor = Process::floor()?;
        let mut running = Running {
            stage: self,
            connections: gateway.connect(self.runtime)?,
            floor_connections: self
                .runtime
                .block_on(Connections::open(&[floor.address()]))?,
            source: Source::new(),
            gateway,
            floor,
            disk,
            directory: directory.clone(),
            written: 0,
            has_products: false,
            round: Round::new(),
        };
        for scenario in self.scenarios {
            let begun = Instant::now();
            running
                .play(*scenario)
                .with_context(|| format!("round {number}, scenario {scenario:?}"))?;
            (self.say)(&format!(
                "round {number}: {scenario:?} took {:.1?}",
                begun.elapsed()
            ));
        }
        let round = running.end()?;
        std::fs::remove_dir_all(directory)?;
        Ok(round)
    }
}

struct Running<'a> {
    stage: &'a Stage<'a>,
    gateway: Gateway,
    floor: Process,
    connections: ByRole,
    floor_connections: Connections,
    source: Source,
    disk: Box<dyn Disk + 'a>,
    directory: PathBuf,
    /// Events that the gateway acknowledged.
    written: u64,
    has_products: bool,
    round: Round,
}

impl Running<'_> {
    fn play(&mut self, scenario: Scenario) -> anyhow::Result<()> {
        match scenario {
            Scenario::Set => self.set_many(),
            Scenario::SetOne => self.set_one(),
            Scenario::Transact => self.transact(),
            Scenario::Get => self.get(),
            Scenario::Search => self.search(),
            Scenario::Delay => self.delay(),
            Scenario::Deliver => AUDIENCES
                .into_iter()
                .try_for_each(|size| self.deliver(size)),
            Scenario::Replay => self.replay(),
            Scenario::Idle => self.idle(),
            Scenario::Grow => self.grow(),
            Scenario::Away => self.broker(away::ALL),
            Scenario::Stay => self.broker(away::NONE),
        }
    }

    fn put(&mut self, quantity: Quantity, value: f64) {
        self.round.insert(quantity, value);
    }

    fn set_many(&mut self) -> anyhow::Result<()> {
        let before = self.gateway.processor_time();
        let set = self.sets(CALLERS, &self.connections.writers)?;
        let cost = per_call(self.gateway.processor_time() - before, &set);
        self.written += set.done;
        self.put(Quantity::Set, set.per_second);
        self.put(Quantity::SetCost, cost);
        let before = self.floor.processor_time();
        let echo = self.sets(CALLERS, &self.floor_connections)?;
        let cost = per_call(self.floor.processor_time() - before, &echo);
        self.put(Quantity::EchoSet, echo.per_second);
        self.put(Quantity::EchoSetCost, cost);
        let mut rows = self.disk.rows()?;
        let batch = rows.in_batches(self.stage.during)?;
        let plain = rows.by_clients(self.stage.during, CALLERS)?;
        drop(rows);
        self.put(Quantity::Batch, batch);
        self.put(Quantity::PlainMany, plain);
        self.sync()
    }

    fn set_one(&mut self) -> anyhow::Result<()> {
        let set = self.sets(1, &self.connections.writers)?;
        self.written += set.done;
        self.put(Quantity::SetOne, set.per_second);
        self.put(Quantity::SetOneP50, milliseconds(&set.latency, 0.5));
        self.put(Quantity::SetOneP99, milliseconds(&set.latency, 0.99));
        let echo = self.sets(1, &self.floor_connections)?;
        self.put(Quantity::EchoSetOne, echo.per_second);
        let plain = self.disk.rows()?.one_by_one(self.stage.during)?;
        self.put(Quantity::PlainOne, plain);
        self.sync()
    }

    fn sets(&self, count: usize, connections: &Connections) -> anyhow::Result<Measured> {
        let callers = callers(count, connections, &self.source, Set);
        self.stage
            .runtime
            .block_on(measure(callers, self.stage.during))
    }

    fn transact(&mut self) -> anyhow::Result<()> {
        let rate = self.transactions(TRANSACT_CALLERS, self.stage.during)?;
        self.put(Quantity::Transact, rate);
        if !self.round.contains_key(&Quantity::Batch) {
            let batch = self.disk.rows()?.in_batches(self.stage.during)?;
            self.put(Quantity::Batch, batch);
        }
        Ok(())
    }

    /// Events a second that so many write.
    fn transactions(&mut self, count: usize, during: Duration) -> anyhow::Result<f64> {
        let writers = &self.connections.writers;
        let callers = callers(count, writers, &self.source, author);
        let done = self.stage.runtime.block_on(measure(callers, during))?;
        self.written += done.done;
        Ok(done.per_second)
    }

    fn get(&mut self) -> anyhow::Result<()> {
        self.write_products()?;
        let before = self.gateway.processor_time();
        let read = self.gets(&self.connections.readers)?;
        let cost = per_call(self.gateway.processor_time() - before, &read);
        let before = self.floor.processor_time();
        let echo = self.gets(&self.floor_connections)?;
        let echo_cost = per_call(self.floor.processor_time() - before, &echo);
        self.put(Quantity::Get, read.per_second);
        self.put(Quantity::GetCost, cost);
        self.put(Quantity::EchoGet, echo.per_second);
        self.put(Quantity::EchoGetCost, echo_cost);
        let select = self.disk.select(self.stage.during)?;
        self.put(Quantity::Select, select);
        Ok(())
    }

    fn search(&mut self) -> anyhow::Result<()> {
        self.write_products()?;
        let before = self.gateway.processor_time();
        let found = self.searches(&self.connections.readers)?;
        let cost = per_call(self.gateway.processor_time() - before, &found);
        let before = self.floor.processor_time();
        let echo = self.searches(&self.floor_connections)?;
        let echo_cost = per_call(self.floor.processor_time() - before, &echo);
        self.put(Quantity::Search, found.per_second);
        self.put(Quantity::SearchCost, cost);
        self.put(Quantity::EchoSearch, echo.per_second);
        self.put(Quantity::EchoSearchCost, echo_cost);
        let pages = self.disk.pages(self.stage.during)?;
        self.put(Quantity::Pages, pages);
        Ok(())
    }

    fn searches(&self, connections: &Connections) -> anyhow::Result<Measured> {
        let callers = callers(CALLERS, connections, &self.source, |client, _| Search {
            client,
            page_token: String::new(),
        });
        self.stage
            .runtime
            .block_on(measure(callers, self.stage.during))
    }

    fn delay(&mut self) -> anyhow::Result<()> {
        if !self.round.contains_key(&Quantity::Set) {
            let set = self.sets(CALLERS, &self.connections.writers)?;
            self.written += set.done;
            self.put(Quantity::Set, set.per_second);
        }
        if !self.round.contains_key(&Quantity::EchoSetOne) {
            let echo = self.sets(1, &self.floor_connections)?;
            self.put(Quantity::EchoSetOne, echo.per_second);
        }
        let of = |quantity| self.round.get(&quantity).copied().unwrap_or_default();
        // A disk that stood still for the whole of a short measure has no half load.
        let rate = (of(Quantity::Set) / 2.0).max(CALLERS as f64);
        let one_way = 0.5e9 / of(Quantity::EchoSetOne);
        let callers = callers(CALLERS, &self.connections.writers, &self.source, Set);
        let during = self.stage.during;
        let before = self.gateway.came()?;
        let (mut acknowledged, delivered) = self.stage.runtime.block_on(async {
            let witness = Witness::seat(&self.connections.subscribers).await?;
            let end = Instant::now() + during;
            let acknowledged = set_at_rate(callers, rate, move |due| due < end).await?;
            anyhow::Ok((acknowledged, witness.heard().await?))
        })?;
        self.written += acknowledged.len() as u64;
        let share = self.gateway.came()?.by_channel_since(before);
        self.round
            .extend(share.map(|share| (Quantity::DelayByChannel, share)));
        if acknowledged.len() != delivered.len() {
            bail!(
                "{} writes were acknowledged, {} events delivered",
                acknowledged.len(),
                delivered.len()
            );
        }
        acknowledged.sort_unstable_by_key(|one| one.position);
        latest_commits(&mut acknowledged);
        let mut since_commit = Histogram::<u64>::new(3)?;
        let mut since_decision = Histogram::<u64>::new(3)?;
        for (one, event) in acknowledged.iter().zip(&delivered) {
            if one.position != event.position {
                bail!(
                    "position {} was acknowledged, {} delivered",
                    one.position,
                    event.position
                );
            }
            #[allow(clippy::cast_possible_truncation, reason = "a part of a second")]
            let committed = one.at - one_way as i64;
            since_commit.record(u64::try_from(event.at - committed).unwrap_or(0))?;
            since_decision.record(u64::try_from(event.at - event.decided).unwrap_or(0))?;
        }
        self.put(
            Quantity::HalfLoad,
            acknowledged.len() as f64 / during.as_secs_f64(),
        );
        self.put(Quantity::DelayP50, milliseconds(&since_commit, 0.5));
        self.put(Quantity::DelayP99, milliseconds(&since_commit, 0.99));
        self.put(
            Quantity::SinceDecidedP50,
            milliseconds(&since_decision, 0.5),
        );
        self.put(
            Quantity::SinceDecidedP99,
            milliseconds(&since_decision, 0.99),
        );
        Ok(())
    }

    fn deliver(&mut self, size: usize) -> anyhow::Result<()> {
        let during = self.stage.during;
        let authors = callers(AUTHORS, &self.connections.writers, &self.source, author);
        let addresses = self.gateway.stream_addresses();
        let before = self.gateway.came()?;
        let (rate, written) = self.stage.runtime.block_on(async {
            let connections = Connections::open_many(&addresses, connections_for(size)).await?;
            let mut audience = Audience::gather(&connections, size, Order::Checked).await?;
            let written = Arc::new(AtomicU64::new(0));
            let (heard, size) = (audience.counter(), audience.size());
            let authors = authors.into_iter().map(|author| {
                let heard = heard.clone();
                write_for(author, move || heard() / size, AHEAD, Arc::clone(&written))
            });
            let rate = tokio::select! {
                rate = audience.measure(during) => rate?,
                end = futures::future::try_join_all(authors) => {
                    end?;
                    bail!("the authors stopped");
                }
            };
            anyhow::Ok((rate, written.load(Relaxed)))
        })?;
        self.written += written;
        let share = self.gateway.came()?.by_channel_since(before);
        self.round
            .extend(share.map(|share| (Quantity::DeliverByChannel(size), share)));
        self.put(Quantity::Deliver(size), rate);
        let alone = self.transactions(AUTHORS, during)?;
        self.put(Quantity::Authors(size), alone);
        self.stream_floor(size)
    }

    fn stream_floor(&mut self, size: usize) -> anyhow::Result<()> {
        let (address, during) = (self.floor.address(), self.stage.during);
        let rate = self.stage.runtime.block_on(async {
            let connections = Connections::open_many(&[address], connections_for(size)).await?;
            let mut audience = Audience::gather(&connections, size, Order::None).await?;
            audience.measure(during).await
        })?;
        self.put(Quantity::Stream(size), rate);
        Ok(())
    }

    fn replay(&mut self) -> anyhow::Result<()> {
        let mut head = self.disk.kept()?.head;
        if head == 0 {
            self.write_products()?;
            head = self.disk.kept()?.head;
        }
        let during = self.stage.during;
        let subscribers = &self.connections.subscribers;
        let replayed = replay(subscribers, head, during);
        let rate = self.stage.runtime.block_on(replayed)?;
        self.put(Quantity::Replay, rate);
        let scan = self.disk.scan(during)?;
        self.put(Quantity::Scan, scan);
        if !self.round.contains_key(&Quantity::Stream(1)) {
            self.stream_floor(1)?;
        }
        Ok(())
    }

    fn broker(&mut self, absences: &[Absence]) -> anyhow::Result<()> {
        let trial = Trial {
            runtime: self.stage.runtime,
            broker: self.stage.channel.broker().context("there is no broker")?,
            gateway: &self.gateway,
            connections: &self.connections,
            source: &self.source,
            during: self.stage.during,
            say: self.stage.say,
        };
        let outcome = trial.run(absences)?;
        self.written += outcome.written;
        let figures = outcome.figures.into_iter();
        self.round
            .extend(figures.map(|((phase, aspect), value)| (Quantity::In(phase, aspect), value)));
        Ok(())
    }

    fn gets(&self, connections: &Connections) -> anyhow::Result<Measured> {
        let callers = callers(CALLERS, connections, &self.source, Get);
        self.stage
            .runtime
            .block_on(measure(callers, self.stage.during))
    }

    /// Fresh processes, since those that have worked give new subscribers memory that they held before.
    fn idle(&mut self) -> anyhow::Result<()> {
        let Stage {
            runtime,
            binaries,
            channel,
            ..
        } = *self.stage;
        for (on_a_connection, size) in [(STREAMS_PER_CONNECTION, IDLE), (1, IDLE_ALONE)] {
            let seat = |addresses: &[SocketAddr], memory: &dyn Fn() -> anyhow::Result<u64>| {
                runtime.block_on(async {
                    // What the first of all costs is not its own.
                    let first = Connections::open_many(addresses, 1).await?;
                    let _first = sit(&first, 1, 1).await?;
                    let before = memory()?;
                    let count = size / on_a_connection;
                    let connections = Connections::open_many(addresses, count).await?;
                    let _seated = sit(&connections, size, on_a_connection).await?;
                    anyhow::Ok(memory()?.saturating_sub(before) as f64 / size as f64)
                })
            };
            let gateway = Gateway::start(binaries, &self.disk.provider(), channel, Counts::ONE)?;
            let idle = seat(&gateway.stream_addresses(), &|| {
                gateway.streaming_memory_kib()
            })?;
            gateway.end()?;
            let floor = Process::floor()?;
            let bare = seat(&[floor.address()], &|| floor.memory_kib())?;
            floor.end()?;
            self.put(Quantity::Idle(on_a_connection), idle);
            self.put(Quantity::IdleStream(on_a_connection), bare);
        }
        Ok(())
    }

    /// Measures on a small log and on a large one.
    fn grow(&mut self) -> anyhow::Result<()> {
        self.write_products()?;
        for events in [SMALL_LOG, self.stage.events] {
            while self.written < events {
                self.transactions(TRANSACT_CALLERS, Duration::from_secs(1))?;
            }
            (self.stage.say)(&format!("{} events", self.written));
            // Once to warm up: what was read at the other size is in no cache any more.
            let _ = self.gets(&self.connections.readers)?;
            let get = self.gets(&self.connections.readers)?;
            let _ = self.searches(&self.connections.readers)?;
            let search = self.searches(&self.connections.readers)?;
            let one = self.sets(1, &self.connections.writers)?;
            let set = self.sets(CALLERS, &self.connections.writers)?;
            self.written += one.done + set.done;
            let mut put = |what, value| self.put(Quantity::Grown(events, what), value);
            put(Grown::Set, set.per_second);
            put(Grown::SetOneP50, milliseconds(&one.latency, 0.5));
            put(Grown::Get, get.per_second);
            put(Grown::Search, search.per_second);
        }
        Ok(())
    }

    /// Once a round: each has one version.
    fn write_products(&mut self) -> anyhow::Result<()> {
        if std::mem::replace(&mut self.has_products, true) {
            return Ok(());
        }
        let written = write_products(&self.connections.writers, &self.source);
        self.written += self.stage.runtime.block_on(written)?;
        Ok(())
    }

    fn sync(&mut self) -> anyhow::Result<()> {
        let taken = sync_latency(&self.directory, self.stage.during / 2)?;
        self.put(Quantity::SyncP50, milliseconds(&taken, 0.5));
        self.put(Quantity::SyncP99, milliseconds(&taken, 0.99));
        let quickest = taken.min() as f64 / 1e6;
        let before = self.round.get(&Quantity::SyncQuickest).copied();
        self.put(
            Quantity::SyncQuickest,
            before.map_or(quickest, |before| before.min(quickest)),
        );
        Ok(())
    }

    /// Ends the processes and looks whether the gateway kept what it acknowledged, the way it should.
    fn end(mut self) -> anyhow::Result<Round> {
        if let Some(peak) = self.gateway.peak_mib() {
            self.put(Quantity::PeakMib, peak as f64);
        }
        if let Some(lowered) = self.disk.kept()?.lowered {
            bail!("durability was lowered: {lowered}");
        }
        self.gateway.assert_channel_is_there()?;
        if self.stage.channel.name().carries_events() && self.gateway.came()?.all_from_log() {
            bail!("no event came by the channel; all were read from the log");
        }
        drop((self.connections, self.floor_connections));
        self.gateway.end()?;
        self.floor.end()?;
        let kept = self.disk.kept()?;
        if kept.events < self.written || kept.events != kept.head {
            bail!(
                "{} events were acknowledged, {} are kept, and the last is at position {}",
                self.written,
                kept.events,
                kept.head
            );
        }
        let of = |quantity| self.round.get(&quantity).copied();
        // A disk that others use is quick at one time and slow at another, but what is durable is never
        // quicker than the quickest sync.
        if let (Some(set), Some(sync)) = (of(Quantity::SetOneP50), of(Quantity::SyncQuickest))
            && set < sync
        {
            bail!(
                "durability was lowered: half of the Sets took less than {set:.2} ms, and no sync of the disk less than {sync:.2} ms"
            );
        }
        Ok(self.round)
    }
}

fn author(
    client: stategate_protocol::pb::entity_service_client::EntityServiceClient<
        tonic::transport::Channel,
    >,
    source: Source,
) -> Transact {
    Transact {
        client,
        source,
        operations: OPERATIONS,
    }
}

/// From when each write was acknowledged to when it was committed at the latest: positions become
/// durable in order, so what is after an event was acknowledged after the event was committed.
fn latest_commits(acknowledged: &mut [Acknowledged]) {
    let mut earliest = i64::MAX;
    for one in acknowledged.iter_mut().rev() {
        earliest = earliest.min(one.at);
        one.at = earliest;
    }
}

/// Microseconds of a server's processor time for each call of a measure.
fn per_call(taken: Duration, measured: &Measured) -> f64 {
    taken.as_secs_f64() * 1e6 / measured.done as f64
}

pub(crate) fn milliseconds(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1e6
}
