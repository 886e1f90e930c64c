//! SQLite: a file for each round, and the floors by rusqlite.

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
use serde_json::json;
use stategate_storage::{Sqlite, SqliteConfig, Storage as _};
use tokio::runtime::Handle;

use crate::{
    scenario::{PAGE_SIZE, PRODUCT_COUNT},
    workload::{DOMAIN, ORDERS, PRODUCTS, product_key},
};

use super::database::{
    BATCH_ROWS, Database, InsertFloors, LogState, MAX_COPIED_ROWS, SCAN_ROWS, reader_count,
    warm_up_rows,
};

/// The gateway's page cache and checkpoint interval, so that the floors have the same.
const CACHE_KIB: i32 = 64 << 10;
const CHECKPOINT_PAGES: i32 = 4_000;

pub(super) const PLAIN_CLIENTS: &str = "one connection behind a mutex";

pub(super) const DURABILITY: &str = "journal_mode = wal in the gateway's file; synchronous is a connection's own and cannot be \
        read from outside, but a Set took longer than the quickest sync of the disk (checked with set-one); \
        every acknowledged event was there at the end, without a hole";

/// The file of a round's gateway.
pub(super) struct File {
    path: PathBuf,
    directory: PathBuf,
    runtime: Handle,
}

impl File {
    pub(super) fn new(directory: &Path, runtime: &Handle) -> Self {
        Self {
            path: directory.join("stategate.db"),
            directory: directory.to_owned(),
            runtime: runtime.clone(),
        }
    }
}

impl Database for File {
    fn settings(&self) -> serde_json::Value {
        json!({"name": "sqlite", "path": self.path})
    }

    fn insert_floors(&self) -> anyhow::Result<Box<dyn InsertFloors + '_>> {
        let connection = read_only(&self.path)?;
        let mut select = connection.prepare(&format!(
            "SELECT * FROM events WHERE type = '{ORDERS}' ORDER BY seq LIMIT {MAX_COPIED_ROWS}"
        ))?;
        let columns = select.column_names().join(", ");
        let width = select.column_count();
        let placeholders = vec!["?"; width].join(", ");
        let rows = select
            .query_map([], |row| (0..width).map(|column| row.get(column)).collect())?
            .collect::<Result<Vec<Vec<Value>>, _>>()?;
        if rows.is_empty() {
            bail!("the gateway wrote no rows");
        }
        Ok(Box::new(Inserts {
            sql: format!("INSERT INTO events ({columns}) VALUES ({placeholders})"),
            rows,
            files: FloorFiles {
                directory: self.directory.clone(),
                created: 0,
                runtime: self.runtime.clone(),
            },
        }))
    }

    fn select_rate(&self, duration: Duration) -> anyhow::Result<f64> {
        let begun = Instant::now();
        let reader = || -> anyhow::Result<usize> {
            let connection = read_only(&self.path)?;
            let mut select = connection.prepare(
                "SELECT version, vals FROM events WHERE domain = ?1 AND type = ?2 AND key = ?3 \
                 ORDER BY version DESC LIMIT 1",
            )?;
            let mut done = 0;
            let mut n = 0;
            while begun.elapsed() < duration {
                // The step and the number of products have no common divisor, so every product is selected, in an
                // order that is not that of the keys.
                n = (n + 7_919) % PRODUCT_COUNT;
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
        let done = run_in_threads(reader_count(), reader)?;
        Ok(done as f64 / begun.elapsed().as_secs_f64())
    }

    /// A product has one version, so the query skips no rows.
    fn page_rate(&self, duration: Duration) -> anyhow::Result<f64> {
        let begun = Instant::now();
        let reader = || -> anyhow::Result<usize> {
            let connection = read_only(&self.path)?;
            let mut select = connection.prepare(
                "SELECT key, version, vals FROM events INDEXED BY events_entity \
                 WHERE domain = ?1 AND type = ?2 AND key > ?3 ORDER BY key, version DESC LIMIT ?4",
            )?;
            let mut done = 0;
            let mut after = String::new();
            while begun.elapsed() < duration {
                let mut rows = select.query((DOMAIN, PRODUCTS, &after, PAGE_SIZE))?;
                let mut found = 0;
                while let Some(row) = rows.next()? {
                    let (key, _, _): (String, i64, String) =
                        (row.get(0)?, row.get(1)?, row.get(2)?);
                    after = key;
                    found += 1;
                }
                if found != PAGE_SIZE {
                    bail!("a page has {found} products");
                }
                if after == product_key(PRODUCT_COUNT - 1) {
                    after.clear();
                }
                done += 1;
            }
            Ok(done)
        };
        let done = run_in_threads(reader_count(), reader)?;
        Ok(done as f64 / begun.elapsed().as_secs_f64())
    }

    fn scan_rate(&self, duration: Duration) -> anyhow::Result<f64> {
        let connection = read_only(&self.path)?;
        let mut select = connection.prepare(
            "SELECT seq, id, domain, type, key, version, time, method, claims, trace_parent, vals \
             FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2",
        )?;
        let begun = Instant::now();
        let (mut done, mut after) = (0, i64::MIN);
        while begun.elapsed() < duration {
            let mut rows = select.query((after, SCAN_ROWS))?;
            let mut found = 0;
            while let Some(row) = rows.next()? {
                let width = row.as_ref().column_count();
                let columns = (0..width).map(|column| row.get(column));
                let columns = columns.collect::<Result<Vec<Value>, _>>()?;
                drop(columns);
                after = row.get(0)?;
                found += 1;
            }
            if found < SCAN_ROWS {
                after = i64::MIN;
            }
            done += found;
        }
        Ok(done as f64 / begun.elapsed().as_secs_f64())
    }

    /// The file records by itself that it is in WAL mode, for as long as the gateway has it open.
    fn log_state(&self) -> anyhow::Result<LogState> {
        let connection = read_only(&self.path)?;
        let (events, head): (i64, i64) = connection.query_row(
            "SELECT count(*), coalesce(max(seq), 0) FROM events",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let mode = journal_mode(&connection)?;
        Ok(LogState {
            weak_durability: (mode != "wal").then(|| format!("the journal mode is {mode}")),
            events: u64::try_from(events)?,
            head: u64::try_from(head)?,
        })
    }
}

/// Inserts a gateway's rows into new files.
struct Inserts {
    /// The INSERT statement.
    sql: String,
    rows: Vec<Vec<Value>>,
    files: FloorFiles,
}

impl InsertFloors for Inserts {
    fn batch_rate(&mut self, duration: Duration) -> anyhow::Result<f64> {
        self.rate(duration, BATCH_ROWS)
    }

    fn single_rate(&mut self, duration: Duration) -> anyhow::Result<f64> {
        self.rate(duration, 1)
    }

    /// The clients share a connection behind a mutex. That is faster than a connection each: those would
    /// sleep and retry when the database is locked.
    fn concurrent_rate(&mut self, duration: Duration, clients: usize) -> anyhow::Result<f64> {
        let connection = self.files.create()?;
        let rows = self.warm_up(&connection)?;
        let shared = Mutex::new((connection, rows.iter()));
        let begun = Instant::now();
        let client = || -> anyhow::Result<usize> {
            let mut done = 0;
            while begun.elapsed() < duration {
                let Ok(mut shared) = shared.lock() else {
                    bail!("another client failed");
                };
                let (connection, rows) = &mut *shared;
                let Some(row) = rows.next() else { break };
                insert_row(&mut *connection.prepare_cached(&self.sql)?, row)?;
                done += 1;
            }
            Ok(done)
        };
        let done = run_in_threads(clients, client)?;
        Ok(done as f64 / begun.elapsed().as_secs_f64())
    }
}

impl Inserts {
    /// Rows a second in transactions of `batch` rows. If all rows are inserted before the time is over, it goes
    /// on with a new file. The time to create files and to warm up does not count.
    fn rate(&mut self, duration: Duration, batch: usize) -> anyhow::Result<f64> {
        let (mut done, mut taken) = (0, Duration::ZERO);
        while taken < duration {
            let connection = self.files.create()?;
            let rows = self.warm_up(&connection)?;
            let begun = Instant::now();
            for rows in rows.chunks(batch) {
                self.insert_batch(&connection, rows)?;
                done += rows.len();
                if taken + begun.elapsed() >= duration {
                    break;
                }
            }
            taken += begun.elapsed();
        }
        Ok(done as f64 / taken.as_secs_f64())
    }

    /// Inserts the first rows, and answers the others.
    fn warm_up(&self, connection: &Connection) -> anyhow::Result<&[Vec<Value>]> {
        let (first, rest) = self.rows.split_at(warm_up_rows(self.rows.len()));
        for rows in first.chunks(BATCH_ROWS) {
            self.insert_batch(connection, rows)?;
        }
        Ok(rest)
    }

    /// Inserts rows in one transaction.
    fn insert_batch(&self, connection: &Connection, rows: &[Vec<Value>]) -> anyhow::Result<()> {
        let mut statement = connection.prepare_cached(&self.sql)?;
        // A single statement is a transaction by itself.
        if let [row] = rows {
            return Ok(insert_row(&mut statement, row)?);
        }
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for row in rows {
            insert_row(&mut statement, row)?;
        }
        Ok(connection.execute_batch("COMMIT")?)
    }
}

fn insert_row(statement: &mut Statement<'_>, row: &[Value]) -> rusqlite::Result<()> {
    statement.execute(params_from_iter(row)).map(drop)
}

/// Creates files with the gateway's tables, one at a time.
struct FloorFiles {
    directory: PathBuf,
    /// How many were created.
    created: u32,
    runtime: Handle,
}

impl FloorFiles {
    /// Creates a file with the gateway's tables, indexes and durability, and connects to it. The file before
    /// is removed.
    fn create(&mut self) -> anyhow::Result<Connection> {
        self.remove_current();
        self.created += 1;
        let path = self.path("");
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

    fn path(&self, suffix: &str) -> PathBuf {
        self.directory
            .join(format!("plain-{}.db{suffix}", self.created))
    }

    fn remove_current(&self) {
        for suffix in ["", "-wal", "-shm"] {
            // Before the first file there is none to remove.
            let _ = std::fs::remove_file(self.path(suffix));
        }
    }
}

impl Drop for FloorFiles {
    fn drop(&mut self) {
        self.remove_current();
    }
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

/// Runs the same client in several threads, and answers the sum of what they return.
fn run_in_threads(
    threads: usize,
    client: impl Fn() -> anyhow::Result<usize> + Sync,
) -> anyhow::Result<usize> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(&client)).collect();
        let counts = threads.into_iter().map(|thread| match thread.join() {
            Ok(count) => count,
            Err(_) => bail!("a client of the plain driver panicked"),
        });
        counts.sum()
    })
}
