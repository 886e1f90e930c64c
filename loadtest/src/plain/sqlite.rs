//! The floors of SQLite, by rusqlite.

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rusqlite::{
    Connection, OpenFlags, OptionalExtension as _, Statement, params_from_iter, types::Value,
};
use serde_json::json;
use stategate_storage::{Sqlite, SqliteConfig, Storage as _};
use tokio::runtime::Handle;

use crate::data::{DOMAIN, ORDERS, PAGE, PRODUCT_KEYS, PRODUCTS, product_key};

use super::{BATCH, Kept, ROWS, SCANNED, Words, in_threads, readers, warm_up};

/// The gateway's page cache and distance between checkpoints, for a floor that is no lower.
const CACHE_KIB: i32 = 64 << 10;
const CHECKPOINT_PAGES: i32 = 4_000;

pub(super) const WORDS: Words = Words {
    clients: "one connection behind a mutex",
    durability: "journal_mode = wal in the gateway's file; synchronous is a connection's own and cannot be \
        read from outside, but a Set took longer than the quickest sync of the disk (checked with set-one); \
        every acknowledged event was there at the end, without a hole",
};

/// A gateway's file.
pub(super) struct Disk {
    file: PathBuf,
    directory: PathBuf,
    runtime: Handle,
}

impl Disk {
    pub(super) fn new(directory: &Path, runtime: &Handle) -> Self {
        Self {
            file: directory.join("stategate.db"),
            directory: directory.to_owned(),
            runtime: runtime.clone(),
        }
    }
}

impl super::Disk for Disk {
    fn provider(&self) -> serde_json::Value {
        json!({"name": "sqlite", "path": self.file})
    }

    fn rows(&self) -> anyhow::Result<Box<dyn super::Rows + '_>> {
        let connection = read_only(&self.file)?;
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
        Ok(Box::new(Rows {
            insert: format!("INSERT INTO events ({columns}) VALUES ({marks})"),
            rows,
            files: Files {
                directory: self.directory.clone(),
                made: 0,
                runtime: self.runtime.clone(),
            },
        }))
    }

    fn select(&self, during: Duration) -> anyhow::Result<f64> {
        let begun = Instant::now();
        let reader = || -> anyhow::Result<usize> {
            let connection = read_only(&self.file)?;
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
        let done = in_threads(readers(), reader)?;
        Ok(done as f64 / begun.elapsed().as_secs_f64())
    }

    /// A product has one version, so that no row is stepped over.
    fn pages(&self, during: Duration) -> anyhow::Result<f64> {
        let begun = Instant::now();
        let reader = || -> anyhow::Result<usize> {
            let connection = read_only(&self.file)?;
            let mut select = connection.prepare(
                "SELECT key, version, vals FROM events INDEXED BY events_entity \
                 WHERE domain = ?1 AND type = ?2 AND key > ?3 ORDER BY key, version DESC LIMIT ?4",
            )?;
            let mut done = 0;
            let mut after = String::new();
            while begun.elapsed() < during {
                let mut rows = select.query((DOMAIN, PRODUCTS, &after, PAGE))?;
                let mut found = 0;
                while let Some(row) = rows.next()? {
                    let (key, _, _): (String, i64, String) =
                        (row.get(0)?, row.get(1)?, row.get(2)?);
                    after = key;
                    found += 1;
                }
                if found != PAGE {
                    bail!("a page has {found} products");
                }
                if after == product_key(PRODUCT_KEYS - 1) {
                    after.clear();
                }
                done += 1;
            }
            Ok(done)
        };
        let done = in_threads(readers(), reader)?;
        Ok(done as f64 / begun.elapsed().as_secs_f64())
    }

    fn scan(&self, during: Duration) -> anyhow::Result<f64> {
        let connection = read_only(&self.file)?;
        let mut select = connection.prepare(
            "SELECT seq, id, domain, type, key, version, time, method, claims, trace_parent, vals \
             FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2",
        )?;
        let begun = Instant::now();
        let (mut done, mut after) = (0, i64::MIN);
        while begun.elapsed() < during {
            let mut rows = select.query((after, SCANNED))?;
            let mut found = 0;
            while let Some(row) = rows.next()? {
                let width = row.as_ref().column_count();
                let columns = (0..width).map(|column| row.get(column));
                let columns = columns.collect::<Result<Vec<Value>, _>>()?;
                drop(columns);
                after = row.get(0)?;
                found += 1;
            }
            if found < SCANNED {
                after = i64::MIN;
            }
            done += found;
        }
        Ok(done as f64 / begun.elapsed().as_secs_f64())
    }

    /// In WAL mode the file says so itself as long as it is open.
    fn kept(&self) -> anyhow::Result<Kept> {
        let connection = read_only(&self.file)?;
        let (events, head): (i64, i64) = connection.query_row(
            "SELECT count(*), coalesce(max(seq), 0) FROM events",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let mode = journal_mode(&connection)?;
        Ok(Kept {
            lowered: (mode != "wal").then(|| format!("the journal mode is {mode}")),
            events: u64::try_from(events)?,
            head: u64::try_from(head)?,
        })
    }
}

/// Rows of a gateway, and files to insert them into.
struct Rows {
    insert: String,
    rows: Vec<Vec<Value>>,
    files: Files,
}

impl super::Rows for Rows {
    fn in_batches(&mut self, during: Duration) -> anyhow::Result<f64> {
        self.fill(during, BATCH)
    }

    fn one_by_one(&mut self, during: Duration) -> anyhow::Result<f64> {
        self.fill(during, 1)
    }

    /// By clients that share a connection behind a mutex: kinder to them than a connection each, which
    /// would sleep and retry on SQLite's lock.
    fn by_clients(&mut self, during: Duration, clients: usize) -> anyhow::Result<f64> {
        let connection = self.files.fresh()?;
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

impl Rows {
    /// Inserts rows into fresh files until the time is over; making the files does not count.
    fn fill(&mut self, during: Duration, batch: usize) -> anyhow::Result<f64> {
        let (mut done, mut taken) = (0, Duration::ZERO);
        while taken < during {
            let connection = self.files.fresh()?;
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

    /// Inserts the first rows; answers those that are left.
    fn warm_up(&self, connection: &Connection) -> anyhow::Result<&[Vec<Value>]> {
        let (first, rest) = self.rows.split_at(warm_up(self.rows.len()));
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
}

fn put(insert: &mut Statement<'_>, row: &[Value]) -> rusqlite::Result<()> {
    insert.execute(params_from_iter(row)).map(drop)
}

/// Makes files with the gateway's schema, one at a time.
struct Files {
    directory: PathBuf,
    made: u32,
    runtime: Handle,
}

impl Files {
    /// A connection to a fresh file with the gateway's tables, indexes and durability.
    fn fresh(&mut self) -> anyhow::Result<Connection> {
        self.remove_last();
        self.made += 1;
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
            .join(format!("plain-{}.db{suffix}", self.made))
    }

    /// What was measured on the one before is over.
    fn remove_last(&self) {
        for suffix in ["", "-wal", "-shm"] {
            // The first has none before it.
            let _ = std::fs::remove_file(self.path(suffix));
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.remove_last();
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
