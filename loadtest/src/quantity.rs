//! The quantities that a round measures. Rounds produce them and the report reads them; neither knows
//! the other.

use std::{collections::BTreeMap, fmt};

use stategate_servers::Absence;

/// What one round measured.
pub(crate) type Measurements = BTreeMap<Quantity, f64>;

/// A quantity that rounds measure.
///
/// The names of the variants are the keys of `rounds` in the JSON report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Quantity {
    /// Set/s with many callers.
    Set,
    /// Set/s with one caller.
    SetOne,
    /// Latency of the one caller's Sets, in ms.
    SetOneP50,
    SetOneP99,
    /// Events/s written by Transact.
    Transact,
    /// Get/s with many callers.
    Get,
    /// Search/s with many callers.
    Search,
    /// Events/s to one subscriber that reads the log from its beginning.
    Replay,
    /// Events/s delivered to this many live subscribers together.
    Deliver(usize),
    /// Gateway memory for each idle subscriber, in KiB, with this many subscribers on a connection.
    Idle(usize),
    /// The same on the echo server.
    IdleStream(usize),
    /// On a log with this many events.
    Grown(u64, GrowthQuantity),
    /// In one phase of a broker outage.
    In(Phase, PhaseQuantity),
    /// Percent of the events that the stream services received through the channel; the rest they read
    /// from the log.
    DelayByChannel,
    DeliverByChannel(usize),
    /// Time from commit to delivery, in ms.
    DelayP50,
    DelayP99,
    /// Time from the event's time stamp to delivery, in ms. It includes the append.
    SinceDecidedP50,
    SinceDecidedP99,
    /// Set/s while the delay was measured.
    HalfLoad,
    /// The highest memory use of the gateway, in MiB.
    PeakMib,
    /// Calls a second to the echo server, with as many callers as for the gateway.
    EchoSet,
    EchoSetOne,
    EchoGet,
    /// The server's processor time for one call, in µs.
    SetCost,
    GetCost,
    SearchCost,
    EchoSetCost,
    EchoGetCost,
    EchoSearch,
    EchoSearchCost,
    /// Pages/s selected by the plain driver.
    Pages,
    /// Rows/s inserted by the plain driver in large transactions.
    Batch,
    /// Rows/s inserted by the plain driver, one transaction each, by one client.
    PlainOne,
    /// The same by many clients.
    PlainMany,
    /// Entities/s selected by the plain driver.
    Select,
    /// Events/s of the echo server to this many subscribers together.
    Stream(usize),
    /// Events/s that the writers of `deliver` write while nobody is subscribed, measured after the
    /// delivery to this many subscribers.
    Authors(usize),
    /// Rows/s of the log read by the plain driver.
    Scan,
    /// The fastest sync of the disk in the round, in ms.
    SyncQuickest,
    /// Latency of a sync of the disk, in ms.
    SyncP50,
    SyncP99,
}

/// What is measured on a small log and on a large one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum GrowthQuantity {
    /// Set/s with many callers.
    Set,
    /// Latency of one caller's Sets, in ms.
    SetOneP50,
    /// Get/s.
    Get,
    /// Search/s.
    Search,
}

/// What is measured in a phase of a broker outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PhaseQuantity {
    /// Latency of a Set from the time it was scheduled for, in ms.
    P50,
    P99,
    P999,
    /// The median of the P99 of each second, in ms. One stall of the disk or the machine changes the P99
    /// of the phase, but not this.
    TypicalP99,
    /// Set/s.
    Rate,
    /// Percent of the events that the stream services received through the channel.
    ByChannel,
    /// The gateway's processor time for one Set, in µs.
    Cost,
}

/// A phase of the scenarios `away` and `stay`. The order of the variants is the order in the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Before the first outage. The other phases are compared with it.
    Before,
    /// A stage of an outage.
    Of(Absence, OutageStage),
    /// With a broker that is left alone: the number of the phase.
    Still(usize),
}

/// Stages of an outage, in the order they happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OutageStage {
    /// The broker is killed or stopped.
    Away,
    /// The broker was started or continued, and the stream services are not connected to it yet. The stage
    /// lasts until they are.
    Returning,
    /// The stream services are connected again.
    Back,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Before => f.write_str("before"),
            Self::Of(Absence::Killed, OutageStage::Away) => f.write_str("the broker is killed"),
            Self::Of(Absence::Stopped, OutageStage::Away) => f.write_str("the broker is stopped"),
            Self::Of(_, OutageStage::Returning) => f.write_str("it returns"),
            Self::Of(_, OutageStage::Back) => f.write_str("it is back"),
            Self::Still(n) => write!(f, "it is still there, {n}"),
        }
    }
}
