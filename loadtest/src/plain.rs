//! The floors of the disk: the gateway's own rows, inserted and read by the plain driver, with the
//! same tables and the same durability.

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rusqlite::{
    Connection, OpenFlags, OptionalExtension as _, Statement, params_from_iter, types::Value,
};
use stategate_storage::{Sqlite, SqliteConfig, Storage as _};

use crate::data::{DOMAIN, ORDERS, PRODUCT_KEYS, PRODUCTS, product_key};

/// Rows in a transaction of the batch floor.
pub(crate) const BATCH: usize = 256;
/// Rows that are inserted before those that count.
const WARM_UP: usize = 10_000;
/// Most rows that are taken over from the gateway.
const ROWS: usize = 200_000;
/// The gateway's page cache and distance between checkpoints, for a floor that is no lower.
const CACHE_KIB: i32 = 64 << 10;
const CHECKPOINT_PAGES: i32 = 4_000;

/// Rows that the gateway wrote.
pub(crate) struct Rows {
    insert: String,
    rows: Vec<Vec<Value>>,
}

impl Rows {
    /// Reads the events of orders from a gateway's file, in the order of the log.
    pub(crate) fn of(file: &Path) -> anyhow::Result<Self> {
        let connection = read_only(file)?;
        let mut select = connection.prepare(&format!(
            "SELECT * FROM events WHERE type = '{ORDERS}' ORDER BY seq LIMIT {ROWS}"
        ))?;
        let columns = select.column_names().join(", ");
        let width = select.column_count();
        let marks = vec!["?"; width].join(", ");
        let rows = select
            .query_map([], |row| (0..width).map(|column| row.get(column)).collect())?
            .collect::<Result<Vec<Vec<Value>>, _>>()?;
        if rows.is_empty() {
            bail!("the gateway wrote no rows");
        }
        let insert = format!("INSERT INTO events ({columns}) VALUES ({marks})");
        Ok(Self { insert, rows })
    }

    /// Rows a second in transactions of [`BATCH`], as fast as one connection goes.
    pub(crate) fn in_batches(&self, files: &mut Files, during: Duration) -> anyhow::Result<f64> {
        self.fill(files, during, BATCH)
    }

    /// Rows a second in a transaction each, by one client.
    pub(crate) fn one_by_one(&self, files: &mut Files, during: Duration) -> anyhow::Result<f64> {
        self.fill(files, during, 1)
    }

    /// Inserts rows into fresh files until the time is over; making the files does not count.
    fn fill(&self, files: &mut Files, during: Duration, batch: usize) -> anyhow::Result<f64> {
        let (mut done, mut taken) = (0, Duration::ZERO);
        while taken < during {
            let connection = files.fresh()?;
            let rows = self.warm_up(&connection)?;
            let begun = Instant::now();
            for rows in rows.chunks(batch) {
                self.insert(&connection, rows)?;
                done += rows.len();
                if taken + begun.elapsed() >= during {
                    break;
                }
            }
            taken += begun.elapsed();
        }
        Ok(done as f64 / taken.as_secs_f64())
    }

    /// Inserts the first rows, so that the write-ahead log has its size: a sync of a file that still
    /// grows is several times dearer, and a gateway's has grown. Answers the rows that are left.
    fn warm_up(&self, connection: &Connection) -> anyhow::Result<&[Vec<Value>]> {
        let (first, rest) = self.rows.split_at(WARM_UP.min(self.rows.len() / 3));
        for rows in first.chunks(BATCH) {
            self.insert(connection, rows)?;
        }
        Ok(rest)
    }

    /// Inserts rows in a transaction.
    fn insert(&self, connection: &Connection, rows: &[Vec<Value>]) -> anyhow::Result<()> {
        let mut insert = connection.prepare_cached(&self.insert)?;
        // A statement alone is a transaction.
        if let [row] = rows {
            return Ok(put(&mut insert, row)?);
        }
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for row in rows {
            put(&mut insert, row)?;
        }
        Ok(connection.execute_batch("COMMIT")?)
    }

    /// Rows a second in a transaction each, by clients that share a connection behind a mutex: kinder
    /// to them than a connection each, which would sleep and retry on SQLite's lock.
    pub(crate) fn by_clients(
        &self,
        files: &mut Files,
        during: Duration,
        clients: usize,
    ) -> anyhow::Result<f64> {
        let connection = files.fresh()?;
        let rows = self.warm_up(&connection)?;
        let shared = Mutex::new((connection, rows.iter()));
        let begun = Instant::now();
        let client = || -> anyhow::Result<usize> {
            let mut done = 0;
            while begun.elapsed() < during {
                let Ok(mut shared) = shared.lock() else {
                    bail!("another client failed");
                };
                let (connection, rows) = &mut *shared;
                let Some(row) = rows.next() else { break };
                put(&mut *connection.prepare_cached(&self.insert)?, row)?;
                done += 1;
            }
            Ok(done)
        };
        let done = in_threads(clients, client)?;
        Ok(done as f64 / begun.elapsed().as_secs_f64())
    }
}

fn put(insert: &mut Statement<'_>, row: &[Value]) -> rusqlite::Result<()> {
    insert.execute(params_from_iter(row)).map(drop)
}

/// Products a second by primary key, the newest version of each, by a connection for each processor.
pub(crate) fn select(file: &Path, during: Duration) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let reader = || -> anyhow::Result<usize> {
        let connection = read_only(file)?;
        let mut select = connection.prepare(
            "SELECT version, vals FROM events WHERE domain = ?1 AND type = ?2 AND key = ?3 \
             ORDER BY version DESC LIMIT 1",
        )?;
        let mut done = 0;
        let mut n = 0;
        while begun.elapsed() < during {
            // A step that meets every product in an order that is not theirs.
            n = (n + 7_919) % PRODUCT_KEYS;
            let found: Option<(i64, String)> = select
                .query_row((DOMAIN, PRODUCTS, product_key(n)), |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()?;
            if found.is_none() {
                bail!("product {n} is missing");
            }
            done += 1;
        }
        Ok(done)
    };
    let readers = thread::available_parallelism().map_or(1, usize::from);
    let done = in_threads(readers, reader)?;
    Ok(done as f64 / begun.elapsed().as_secs_f64())
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

/// Makes files with the gateway's schema.
pub(crate) struct Files {
    directory: PathBuf,
    made: u32,
    runtime: tokio::runtime::Handle,
}

impl Files {
    /// Files in a directory. Outside of the runtime's own threads.
    pub(crate) fn new(directory: &Path, runtime: tokio::runtime::Handle) -> Self {
        Self {
            directory: directory.to_owned(),
            made: 0,
            runtime,
        }
    }

    /// A connection to a fresh file with the gateway's tables, indexes and durability.
    fn fresh(&mut self) -> anyhow::Result<Connection> {
        let path = self.directory.join(format!("plain-{}.db", self.made));
        // What was measured on the one before is over.
        for suffix in ["", "-wal", "-shm"] {
            let before = format!("plain-{}.db{suffix}", self.made.wrapping_sub(1));
            // The first has none before it.
            let _ = std::fs::remove_file(self.directory.join(before));
        }
        self.made += 1;
        self.runtime.block_on(async {
            let config = SqliteConfig {
                path: path.clone(),
                lanes: None,
            };
            Sqlite::open(&config).await?.close().await;
            anyhow::Ok(())
        })?;
        let connection = Connection::open(&path)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        let mode = journal_mode(&connection)?;
        if mode != "wal" {
            bail!("the floor's file is in journal mode {mode}");
        }
        Ok(connection)
    }
}

/// What the acknowledged writes of a gateway left in its file.
pub(crate) struct Kept {
    /// How its changes become durable.
    pub(crate) journal_mode: String,
    /// How many events there are.
    pub(crate) events: u64,
    /// The position of the last one.
    pub(crate) head: u64,
}

/// Looks into the file of a gateway that runs one lane.
pub(crate) fn kept(file: &Path) -> anyhow::Result<Kept> {
    let connection = read_only(file)?;
    let (events, head): (i64, i64) = connection.query_row(
        "SELECT count(*), coalesce(max(seq), 0) FROM events",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    Ok(Kept {
        journal_mode: journal_mode(&connection)?,
        events: u64::try_from(events)?,
        head: u64::try_from(head)?,
    })
}

fn journal_mode(connection: &Connection) -> rusqlite::Result<String> {
    connection.pragma_query_value(None, "journal_mode", |row| row.get(0))
}

fn read_only(file: &Path) -> anyhow::Result<Connection> {
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .with_context(|| format!("cannot open {}", file.display()))?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok(connection)
}
