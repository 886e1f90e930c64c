//! What can be measured.

use clap::ValueEnum as _;

/// One of them.
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
    /// Memory of a thousand subscribers to whom nothing is sent
    Idle,
    /// Set, Get and Search on a small log and on one of `--events`; alone, and only when named
    Grow,
    /// Durable Set and 50 subscribers while a broker is away, several processes of each service; alone,
    /// and only when named
    Away,
    /// As `away`, with a broker that stays: how far its ratios go by themselves
    Stay,
}

impl Scenario {
    /// What is measured when nothing is named.
    pub(crate) fn usual() -> Vec<Self> {
        let all = Self::value_variants().iter().copied();
        all.filter(|scenario| !scenario.is_alone()).collect()
    }

    /// Whether no other is measured beside it.
    pub(crate) fn is_alone(self) -> bool {
        self.is_of_broker() || self == Self::Grow
    }

    /// Whether it is about a broker that may go away.
    pub(crate) fn is_of_broker(self) -> bool {
        matches!(self, Self::Away | Self::Stay)
    }
}
