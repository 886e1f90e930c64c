//! What a round asks of a database: settings for the gateway, the floors, and the state of the log. Each
//! kind of storage implements it.

use std::{thread, time::Duration};

/// Rows in a transaction of the batch floor.
pub(super) const BATCH_ROWS: usize = 256;
/// Rows in one read of the scan floor.
pub(super) const SCAN_ROWS: i64 = 1_000;
/// The most rows that the insert floors copy from the gateway's log.
pub(super) const MAX_COPIED_ROWS: usize = 200_000;
/// The most rows that are inserted before an insert floor is measured.
const MAX_WARM_UP_ROWS: usize = 10_000;

/// A gateway's database, and the floors that read it. Its methods block, so they are not called on the
/// runtime's threads.
pub(crate) trait Database {
    /// The value of the gateway's `STATEGATE_STORAGE_PROVIDER`.
    fn settings(&self) -> serde_json::Value;

    /// Copies the orders that the gateway wrote, in the order of the log, for the insert floors.
    fn insert_floors(&self) -> anyhow::Result<Box<dyn InsertFloors + '_>>;

    /// The select floor: products a second, selected by primary key in their newest state, by one connection
    /// for each processor.
    fn select_rate(&self, duration: Duration) -> anyhow::Result<f64>;

    /// The pages floor: pages of products a second, page after page in the order of keys, by one connection
    /// for each processor.
    fn page_rate(&self, duration: Duration) -> anyhow::Result<f64>;

    /// The scan floor: rows a second of the log from its beginning, by one connection.
    fn scan_rate(&self, duration: Duration) -> anyhow::Result<f64>;

    /// What is in the log. The gateway writes one lane.
    fn log_state(&self) -> anyhow::Result<LogState>;
}

/// The insert floors: rows that the gateway wrote, inserted into empty tables like its own.
pub(crate) trait InsertFloors {
    /// Rows a second in transactions of [`BATCH_ROWS`], by one connection.
    fn batch_rate(&mut self, duration: Duration) -> anyhow::Result<f64>;

    /// Rows a second in a transaction each, by one client.
    fn single_rate(&mut self, duration: Duration) -> anyhow::Result<f64>;

    /// Rows a second in a transaction each, by this many clients.
    fn concurrent_rate(&mut self, duration: Duration, clients: usize) -> anyhow::Result<f64>;
}

/// What is in a gateway's log.
pub(crate) struct LogState {
    /// A setting that makes writes less durable than the gateway promises, if there is one.
    pub(crate) weak_durability: Option<String>,
    /// The number of events.
    pub(crate) events: u64,
    /// The position of the last event.
    pub(crate) head: u64,
}

/// How many of this many rows are inserted before an insert floor is measured, so that the write-ahead log has
/// reached its size: syncs of a file that grows are several times slower, and the gateway's file has
/// stopped growing by then.
pub(super) fn warm_up_rows(rows: usize) -> usize {
    MAX_WARM_UP_ROWS.min(rows / 3)
}

/// The number of connections that read in parallel: one for each processor.
pub(super) fn reader_count() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
