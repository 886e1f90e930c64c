//! The floors of the disk: the gateway's own rows, inserted and read by the plain driver, with the
//! same tables and the same durability.

mod postgres;
mod sqlite;

use std::{fmt, path::Path, thread, time::Duration};

use anyhow::bail;
use tokio::runtime::Handle;

/// Rows in a transaction of the batch floor.
pub(crate) const BATCH: usize = 256;
/// Rows that are inserted before those that count.
const WARM_UP: usize = 10_000;
/// Most rows that are taken over from the gateway.
const ROWS: usize = 200_000;

/// A storage that can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum StorageName {
    /// A file
    Sqlite,
    /// A server of the run's own
    Postgres,
}

/// What the rounds of a run keep their data with.
pub(crate) enum Storage {
    Sqlite,
    Postgres(postgres::Server),
}

impl Storage {
    /// Starts what has to be there, with its files in `directory`.
    pub(crate) fn start(name: StorageName, directory: &Path) -> anyhow::Result<Self> {
        Ok(match name {
            StorageName::Sqlite => Self::Sqlite,
            StorageName::Postgres => Self::Postgres(postgres::Server::start(directory)?),
        })
    }

    /// A fresh place for the round with a number, whose files, if any, go to `directory`.
    pub(crate) fn fresh(
        &self,
        number: usize,
        directory: &Path,
        runtime: &Handle,
    ) -> Box<dyn Disk + '_> {
        match self {
            Self::Sqlite => Box::new(sqlite::Disk::new(directory, runtime)),
            Self::Postgres(server) => Box::new(postgres::Disk::new(server, number, runtime)),
        }
    }

    /// What the floors are, where that depends on the storage.
    pub(crate) fn words(&self) -> Words {
        match self {
            Self::Sqlite => sqlite::WORDS,
            Self::Postgres(_) => postgres::WORDS,
        }
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite => write!(f, "SQLite {}", rusqlite::version()),
            Self::Postgres(server) => write!(f, "{server}"),
        }
    }
}

/// What a report says of a storage.
pub(crate) struct Words {
    /// How the 64 plain clients are connected.
    pub(crate) clients: &'static str,
    /// What a round that ended well has checked.
    pub(crate) durability: &'static str,
}

/// Where a gateway keeps its log, and the floors beside it. Used outside of the runtime's own threads.
pub(crate) trait Disk {
    /// The gateway's `STATEGATE_STORAGE_PROVIDER`.
    fn provider(&self) -> serde_json::Value;

    /// The orders that the gateway wrote, in the order of the log.
    fn rows(&self) -> anyhow::Result<Box<dyn Rows + '_>>;

    /// Products a second by primary key, the newest state of each, by a connection for each processor.
    fn select(&self, during: Duration) -> anyhow::Result<f64>;

    /// Pages of products a second in the order of their keys, page after page, by a connection for each
    /// processor.
    fn pages(&self, during: Duration) -> anyhow::Result<f64>;

    /// Rows a second of the log from its beginning, by one connection.
    fn scan(&self, during: Duration) -> anyhow::Result<f64>;

    /// What the gateway's acknowledged writes left; it runs one lane.
    fn kept(&self) -> anyhow::Result<Kept>;
}

/// Rows that the gateway wrote, to be inserted into fresh tables like its own.
pub(crate) trait Rows {
    /// Rows a second in transactions of [`BATCH`], as fast as one connection goes.
    fn in_batches(&mut self, during: Duration) -> anyhow::Result<f64>;

    /// Rows a second in a transaction each, by one client.
    fn one_by_one(&mut self, during: Duration) -> anyhow::Result<f64>;

    /// Rows a second in a transaction each, by so many clients.
    fn by_clients(&mut self, during: Duration, clients: usize) -> anyhow::Result<f64>;
}

/// What the acknowledged writes of a gateway left.
pub(crate) struct Kept {
    /// The setting by which durability is lowered, if one is.
    pub(crate) lowered: Option<String>,
    /// How many events there are.
    pub(crate) events: u64,
    /// The position of the last one.
    pub(crate) head: u64,
}

/// Rows that a scan asks for at once.
const SCANNED: i64 = 1_000;

/// How many of `rows` are inserted before those that count, so that the write-ahead log has its size: a sync
/// of a file that still grows is several times dearer, and a gateway's has grown.
fn warm_up(rows: usize) -> usize {
    WARM_UP.min(rows / 3)
}

fn in_threads(
    threads: usize,
    run: impl Fn() -> anyhow::Result<usize> + Sync,
) -> anyhow::Result<usize> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(&run)).collect();
        let counts = threads.into_iter().map(|thread| match thread.join() {
            Ok(count) => count,
            Err(_) => bail!("a client of the plain driver panicked"),
        });
        counts.sum()
    })
}

/// A connection for each processor.
fn readers() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
