//! Writes and streams while a broker is killed and started again, and stopped and continued.
//!
//! Writers write at a rate that leaves room, because at full speed what is measured is who gets the
//! processor. Every write has a turn, and its time runs from then: one that has to wait for the one before it
//! is late, and none is left out. What subscribers got is compared with what writers were told.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use stategate_protocol::pb::{self, entity_service_client::EntityServiceClient};
use stategate_servers::{Absence, Broker};
use tokio::{runtime::Runtime, task::JoinSet};
use tonic::Streaming;

use crate::{
    audience::{Seen, subscribe},
    data::{LAST_ORDER, Source},
    gateway::{ByRole, Gateway},
    load::{Acknowledged, Connections, Set, callers, measure, position, set_at_rate},
    machine::nanoseconds,
    report::median,
    round::milliseconds,
};

/// Callers that write.
pub(crate) const WRITERS: usize = 16;
/// Subscribers, whose selections overlap.
pub(crate) const SUBSCRIBERS: usize = 50;
/// The broker goes away in both ways.
pub(crate) const ALL: &[Absence] = &[Absence::Killed, Absence::Stopped];
/// It stays.
pub(crate) const NONE: &[Absence] = &[];
/// Share of what the processes manage, with the subscribers there, that is written.
const LOAD: f64 = 1.0 / 3.0;
/// Longest that what they manage is measured.
const FULL: Duration = Duration::from_secs(10);
/// Share of a phase's time that is spent before the first.
const WARM_UP: f64 = 0.25;
/// Phases after the first where the broker stays: as many as where it does not.
const STILL: usize = 4;
/// How long delivery may take to be complete.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(1);

/// A time that is compared with the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// The first.
    Before,
    /// One that the broker's absence has to do with.
    Of(Absence, Stage),
    /// Nothing was done to it, and this is how often it was looked at.
    Still(usize),
}

/// Where the broker is in its absence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// It is away.
    Away,
    /// It starts, or goes on, until the stream services have it; as long as that takes.
    Returning,
    /// It is back.
    Back,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Before => f.write_str("before"),
            Self::Of(Absence::Killed, Stage::Away) => f.write_str("the broker is killed"),
            Self::Of(Absence::Stopped, Stage::Away) => f.write_str("the broker is stopped"),
            Self::Of(_, Stage::Returning) => f.write_str("it returns"),
            Self::Of(_, Stage::Back) => f.write_str("it is back"),
            Self::Still(n) => write!(f, "it is still there, {n}"),
        }
    }
}

/// What is known of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Aspect {
    /// How long a Set took, in ms.
    P50,
    P99,
    P999,
    /// The median of its seconds' P99: what a disk or machine that stands still for a moment does not change.
    TypicalP99,
    /// Sets a second.
    Rate,
    /// Percent of the events that came to the stream services by the channel.
    ByChannel,
    /// Processor time of the gateway for a Set, in µs.
    Cost,
}

/// What a trial is made with.
pub(crate) struct Trial<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) broker: &'a dyn Broker,
    pub(crate) gateway: &'a Gateway,
    pub(crate) connections: &'a ByRole,
    pub(crate) source: &'a Source,
    pub(crate) during: Duration,
    pub(crate) say: &'a dyn Fn(&str),
}

/// What a trial came to.
pub(crate) struct Outcome {
    /// Writes that were acknowledged.
    pub(crate) written: u64,
    pub(crate) figures: BTreeMap<(Phase, Aspect), f64>,
}

impl Trial<'_> {
    /// Takes the broker away in each of these ways, or looks on for as long while it stays. Used outside of
    /// the runtime's own threads.
    pub(crate) fn run(&self, absences: &[Absence]) -> anyhow::Result<Outcome> {
        let setters = || callers(WRITERS, &self.connections.writers, self.source, Set);
        let seat = || {
            self.runtime
                .block_on(Readers::seat(&self.connections.subscribers))
        };
        let readers = seat()?;
        let full = self
            .runtime
            .block_on(measure(setters(), self.during.min(FULL)))?;
        drop(readers);
        let rate = full.per_second * LOAD;
        (self.say)(&format!(
            "{:.0} Set/s at full speed, {rate:.0} from now on",
            full.per_second
        ));
        let mut readers = seat()?;
        let ended = Arc::new(AtomicBool::new(false));
        let load = self.runtime.spawn({
            let ended = Arc::clone(&ended);
            set_at_rate(setters(), rate, move |_| !ended.load(Relaxed))
        });
        sleep(self.during.mul_f64(WARM_UP));
        let mut phases = vec![self.phase(Phase::Before, || self.last())?];
        for how in absences {
            self.broker.leave(*how);
            phases.push(self.phase(Phase::Of(*how, Stage::Away), || self.last())?);
            phases.push(self.phase(Phase::Of(*how, Stage::Returning), || {
                self.broker.come_back(*how);
                self.gateway.wait_for_channel()
            })?);
            phases.push(self.phase(Phase::Of(*how, Stage::Back), || self.last())?);
        }
        if absences.is_empty() {
            for n in 1..=STILL {
                phases.push(self.phase(Phase::Still(n), || self.last())?);
            }
        }
        ended.store(true, Relaxed);
        let mut written = self.runtime.block_on(load)??;
        written.push(self.runtime.block_on(self.last_order())?);
        written.sort_unstable_by_key(|one| one.position);
        let delivered = readers.check(&written)?;
        (self.say)(&format!(
            "{} events written, {delivered} delivered to {SUBSCRIBERS} subscribers, once and in order",
            written.len()
        ));
        let mut figures = BTreeMap::new();
        for span in &phases {
            figures.extend(span.figures(&written)?);
        }
        Ok(Outcome {
            written: full.done + written.len() as u64,
            figures,
        })
    }

    /// As long as a phase lasts.
    fn last(&self) -> anyhow::Result<()> {
        sleep(self.during);
        Ok(())
    }

    fn phase(
        &self,
        phase: Phase,
        wait: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Span> {
        let (came, worked, from) = (
            self.gateway.came()?,
            self.gateway.processor_time(),
            Instant::now(),
        );
        wait().with_context(|| format!("{phase:?}"))?;
        let to = Instant::now();
        Ok(Span {
            phase,
            from,
            to,
            by_channel: self.gateway.came()?.by_channel_since(came),
            worked: self.gateway.processor_time() - worked,
        })
    }

    async fn last_order(&self) -> anyhow::Result<Acknowledged> {
        let mut client = EntityServiceClient::new(self.connections.writers.of(0));
        let due = Instant::now();
        let response = client.set(self.source.clone().last_order()).await?;
        Ok(Acknowledged {
            position: position(&response)?,
            key: LAST_ORDER.to_owned(),
            due,
            took: due.elapsed(),
            at: 0,
        })
    }
}

/// When a phase was, and what the gateway did in it.
struct Span {
    phase: Phase,
    from: Instant,
    to: Instant,
    by_channel: Option<f64>,
    worked: Duration,
}

impl Span {
    /// Of the writes whose turn was in it.
    fn figures(&self, written: &[Acknowledged]) -> anyhow::Result<Vec<((Phase, Aspect), f64)>> {
        let mut seconds = BTreeMap::<u64, Histogram<u64>>::new();
        for one in written {
            if self.from <= one.due && one.due < self.to {
                let second = seconds.entry((one.due - self.from).as_secs());
                let second = second.or_insert(Histogram::new(3)?);
                second.record(nanoseconds(one.took))?;
            }
        }
        let mut took = Histogram::<u64>::new(3)?;
        for second in seconds.values() {
            took.add(second)?;
        }
        let typical = seconds.values().map(|second| milliseconds(second, 0.99));
        let count = took.len() as f64;
        let figures = [
            (Aspect::P50, Some(milliseconds(&took, 0.5))),
            (Aspect::P99, Some(milliseconds(&took, 0.99))),
            (Aspect::P999, Some(milliseconds(&took, 0.999))),
            (Aspect::TypicalP99, Some(median(typical.collect()))),
            (
                Aspect::Rate,
                Some(count / (self.to - self.from).as_secs_f64()),
            ),
            (Aspect::ByChannel, self.by_channel),
            (Aspect::Cost, Some(self.worked.as_secs_f64() * 1e6 / count)),
        ];
        let known = figures.into_iter();
        Ok(known
            .filter_map(|(aspect, value)| Some(((self.phase, aspect), value?)))
            .collect())
    }
}

/// A glob over keys, and what it means.
type Selection = (&'static str, fn(&str) -> bool);

/// Selections that overlap. All have the last order as well.
const SELECTIONS: [Selection; 5] = [
    ("", |_| true),
    ("{order-*[02468],the-end}", |key| {
        key.ends_with(['0', '2', '4', '6', '8'])
    }),
    ("{order-00[0-4]*,the-end}", |key| key < "order-005"),
    ("{order-00?????7,the-end}", |key| key.ends_with('7')),
    ("{order-*11,order-*5?,the-end}", |key| {
        key.ends_with("11") || key[..key.len() - 1].ends_with('5')
    }),
];

/// Globs over types that select orders.
const TYPES: [&str; 3] = ["order", "*", "ord?r"];

/// Subscribers that listen.
struct Readers {
    heard: Vec<Arc<Heard>>,
    tasks: JoinSet<anyhow::Result<()>>,
}

/// What one was told.
#[derive(Default)]
struct Heard {
    events: AtomicU64,
    /// Of the positions, one after the other.
    digest: AtomicU64,
    last: AtomicU64,
}

impl Readers {
    /// Subscribers whose subscriptions are in force, spread over the connections.
    async fn seat(connections: &Connections) -> anyhow::Result<Self> {
        let (mut heard, mut tasks) = (Vec::new(), JoinSet::new());
        for n in 0..SUBSCRIBERS {
            let (key, _) = SELECTIONS[n % SELECTIONS.len()];
            let opts = pb::StreamOpts {
                domain: "sh*p".to_owned(),
                r#type: TYPES[n % TYPES.len()].to_owned(),
                key: key.to_owned(),
                ..pb::StreamOpts::default()
            };
            let stream = subscribe(connections.of(n), opts).await?;
            let one = Arc::new(Heard::default());
            tasks.spawn(listen(stream, Arc::clone(&one)));
            heard.push(one);
        }
        Ok(Self { heard, tasks })
    }

    /// Waits until everybody has the last event that was written, and compares all they got with it.
    fn check(&mut self, written: &[Acknowledged]) -> anyhow::Result<u64> {
        let (Some(first), Some(last)) = (written.first(), written.last()) else {
            bail!("nothing was written");
        };
        if last.position - first.position + 1 != written.len() as u64 {
            bail!("the positions of the writes have holes");
        }
        let begun = Instant::now();
        while self
            .heard
            .iter()
            .any(|one| one.last.load(Acquire) < last.position)
        {
            if let Some(ended) = self.tasks.try_join_next() {
                ended??;
                bail!("a stream ended");
            }
            if begun.elapsed() > PATIENCE {
                bail!("delivery is not complete after {PATIENCE:?}");
            }
            sleep(LOOK);
        }
        let mut delivered = 0;
        for (n, heard) in self.heard.iter().enumerate() {
            let (glob, selects) = SELECTIONS[n % SELECTIONS.len()];
            let due = written
                .iter()
                .filter(|one| one.key == LAST_ORDER || selects(&one.key));
            let (events, digest) = due.fold((0, 0), |(events, digest), one| {
                (events + 1, digested(digest, one.position))
            });
            let told = heard.events.load(Relaxed);
            if (told, heard.digest.load(Relaxed)) != (events, digest) {
                bail!(
                    "subscriber {n} of {glob:?} was told {told} events, and not the {events} it selects"
                );
            }
            delivered += events;
        }
        Ok(delivered)
    }
}

async fn listen(mut stream: Streaming<Seen>, heard: Arc<Heard>) -> anyhow::Result<()> {
    let (mut events, mut digest, mut before) = (0, 0, 0);
    while let Some(seen) = stream.message().await? {
        let position = u64::try_from(seen.position)?;
        if position <= before {
            bail!("position {position} was delivered after {before}");
        }
        (events, digest, before) = (events + 1, digested(digest, position), position);
        heard.events.store(events, Relaxed);
        heard.digest.store(digest, Relaxed);
        // Whoever sees it sees what was told until then.
        heard.last.store(position, Release);
    }
    bail!("the stream ended")
}

/// A step of [FNV-1a](http://www.isthe.com/chongo/tech/comp/fnv/), a position at a time.
fn digested(digest: u64, position: u64) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    (digest ^ position).wrapping_mul(PRIME)
}
