//! The scenarios that can be measured, and their sizes. A round runs them at these sizes, and the report
//! names the sizes.

use clap::ValueEnum as _;

/// Concurrent callers in the scenarios with many callers.
pub(crate) const CALLERS: usize = 64;
/// Concurrent callers of Transact: enough to keep the gateway's batches full.
pub(crate) const TRANSACT_CALLERS: usize = 16;
/// Operations in one Transact.
pub(crate) const OPERATIONS: u32 = 100;
/// Entities on a page of a Search.
pub(crate) const PAGE_SIZE: u32 = 20;
/// Products, the entities that are read. `grow` first measures on a log with nothing else in it.
pub(crate) const PRODUCT_COUNT: u32 = 20_000;
/// Numbers of live subscribers.
pub(crate) const SUBSCRIBER_COUNTS: [usize; 3] = [1, 100, 1_000];
/// The most streams on one connection.
pub(crate) const STREAMS_PER_CONNECTION: usize = 100;
/// Idle subscribers that share connections.
pub(crate) const IDLE_SUBSCRIBERS: usize = 1_000;
/// Idle subscribers with a connection each.
pub(crate) const IDLE_SUBSCRIBERS_ALONE: usize = 200;
/// Callers that write during a broker outage.
pub(crate) const OUTAGE_CALLERS: usize = 16;
/// Subscribers during a broker outage.
pub(crate) const OUTAGE_SUBSCRIBERS: usize = 50;

/// A scenario, as it is named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// Durable Set, 64 callers
    Set,
    /// Durable Set, 1 caller
    SetOne,
    /// Durable Transact of 100 operations
    Transact,
    /// Get, 64 callers
    Get,
    /// Search for a page of 20, 64 callers
    Search,
    /// Time from commit to delivery at half load
    Delay,
    /// Events delivered to 1, 100 and 1,000 live subscribers
    Deliver,
    /// The log from its beginning to one subscriber
    Replay,
    /// Memory of a thousand subscribers to which nothing is sent
    Idle,
    /// Set, Get and Search on a small log and on one of `--events`; runs alone, and only when named
    Grow,
    /// Durable Set and 50 subscribers during outages of the broker, with several processes of each
    /// service; runs alone, and only when named
    Away,
    /// As `away`, without an outage: how much the ratios vary by themselves
    Stay,
}

impl Scenario {
    /// The scenarios of a run that names none.
    pub(crate) fn defaults() -> Vec<Self> {
        let all = Self::value_variants().iter().copied();
        all.filter(|scenario| !scenario.runs_alone()).collect()
    }

    /// Whether a run with this scenario has no other.
    pub(crate) fn runs_alone(self) -> bool {
        self.needs_broker() || self == Self::Grow
    }

    /// Whether it needs a broker, and several processes of each service.
    pub(crate) fn needs_broker(self) -> bool {
        matches!(self, Self::Away | Self::Stay)
    }
}
