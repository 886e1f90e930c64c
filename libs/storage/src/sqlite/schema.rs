//! Opening the file: what it must be, making it when it is new, and the settings that the
//! acknowledgement of a write rests on.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior};
use stategate_model::{Lanes, LogId};
use uuid::Uuid;

use crate::{Error, ErrorKind, Identity, Result};

use super::{
    SqliteConfig,
    failure::{failure, is_busy},
};

/// Marks the file as one of stategate's: `SGLG` in the header.
const APPLICATION_ID: i32 = 0x5347_4c47;
/// The format this version writes, in the header's `user_version`.
const FORMAT: i32 = 1;
/// The format's tables.
const SCHEMA: &str = include_str!("schema.sql");
/// Bytes of a page; of effect when the file is made.
const PAGE_BYTES: i32 = 4096;
/// Between two tries for a lock that another process holds.
const BUSY_PAUSE: Duration = Duration::from_micros(500);
/// Tries for a lock before the call fails: for about two seconds.
const BUSY_TRIES: i32 = 4_000;
/// How long processes that start at once wait for one of them to make the file.
const CREATE_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at a file that another process is making.
const CREATE_PAUSE: Duration = Duration::from_millis(20);
/// Bytes the write-ahead log is cut back to after a reader has let it grow.
const WAL_BYTES: i64 = 64 << 20;
/// Prepared statements a connection keeps: all that there are.
const STATEMENTS: usize = 64;

/// Opens or makes the file, under `identity` if there is one, and reads what was fixed when it was made.
pub(super) fn initialise(config: &SqliteConfig, identity: Option<Identity>) -> Result<Identity> {
    check_path(&config.path)?;
    let asked = match config.lanes {
        Some(lanes) => Some(Lanes::new(lanes).map_err(|invalid| refused(invalid.to_string()))?),
        None => None,
    };
    let new = identity.unwrap_or_else(|| Identity {
        log_id: LogId::random(),
        lanes: asked.unwrap_or(Lanes::ONE),
    });
    let deadline = Instant::now() + CREATE_TIMEOUT;
    let meta = loop {
        match try_initialise(&config.path, new) {
            Ok(meta) => break meta,
            // Turning the write-ahead log on takes a lock that SQLite does not wait for.
            Err(Step::Sql(error)) if is_busy(&error) && Instant::now() < deadline => {
                thread::sleep(CREATE_PAUSE);
            }
            Err(Step::Sql(error)) => return Err(unopenable(&config.path, error)),
            Err(Step::Refused(error)) => return Err(error),
        }
    };
    match asked {
        Some(asked) if asked != meta.lanes => Err(refused(format!(
            "`lanes` is {}, but the log was initialised with {} lanes, which cannot be changed; \
             set it to {} or leave it out",
            asked.get(),
            meta.lanes.get(),
            meta.lanes.get()
        ))),
        _ => Ok(meta),
    }
}

/// Opens a connection for the calls of a running storage.
pub(super) fn connect(path: &Path, role: Role) -> Result<Connection> {
    let connection = open(path).and_then(|connection| {
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        connection.pragma_update(None, "cache_size", -role.cache_kib())?;
        connection.pragma_update(None, "query_only", role == Role::Reader)?;
        Ok(connection)
    });
    let connection = connection.map_err(|error| unopenable(path, error))?;
    check_durability(&connection)?;
    Ok(connection)
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The one that appends.
    Writer,
    /// One of those that read.
    Reader,
    /// The one that moves pages from the write-ahead log to the file.
    Checkpoints,
}

impl Role {
    /// Most memory for pages, in KiB.
    fn cache_kib(self) -> i32 {
        match self {
            Self::Writer => 16 << 10,
            Self::Reader => 16 << 10,
            // It reads no pages through the cache.
            Self::Checkpoints => 1 << 10,
        }
    }
}

/// Why a file could not be initialised at this try.
enum Step {
    Sql(rusqlite::Error),
    Refused(Error),
}

impl From<rusqlite::Error> for Step {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

fn refused(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, "open").because(problem.into())
}

/// Refuses paths that SQLite would take for something else, or refuse without a word of help.
fn check_path(path: &Path) -> Result<()> {
    let shown = path.display();
    if path.as_os_str().is_empty() || path.as_os_str() == ":memory:" {
        return Err(refused(
            "`path` must name a file; for a log in memory use {\"name\":\"memory\"}",
        ));
    }
    if path.is_dir() {
        return Err(refused(format!(
            "`path` is the directory {shown}; it must name a file, such as {}",
            path.join("stategate.db").display()
        )));
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
            Err(refused(format!(
                "`path` is {shown}, but there is no directory {}; make it, or correct the path",
                parent.display()
            )))
        }
        _ => Ok(()),
    }
}

/// Whether the file is there and cannot be written to for the file system it is on.
fn is_on_read_only(path: &Path) -> bool {
    let opened = std::fs::OpenOptions::new().append(true).open(path);
    opened.is_err_and(|error| error.kind() == std::io::ErrorKind::ReadOnlyFilesystem)
}

fn unopenable(path: &Path, error: rusqlite::Error) -> Error {
    let shown = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => refused(format!(
            "{shown} is not an SQLite file, or is damaged at its beginning; name another file, or put a \
             copy of it from before in its place"
        )),
        Some(ErrorCode::DatabaseCorrupt) => damaged(path),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Error::new(ErrorKind::Unavailable, "open").because(format!(
                "another process keeps {shown} locked; end it, or wait until it is done"
            ))
        }
        Some(ErrorCode::DiskFull) => Error::new(ErrorKind::Unavailable, "open")
            .because(format!("the disk of {shown} is full; make room on it")),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly)
            if is_on_read_only(path) =>
        {
            refused(format!(
                "{shown} is on a file system that is read-only; mount it for writing, and see in the system's log \
                 whether it became so by an error of the disk"
            ))
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => refused(format!(
            "{shown} cannot be opened for writing; change the owner or permissions of the file and \
                 its directory"
        )),
        Some(ErrorCode::ReadOnly) => refused(format!(
            "{shown}, or the directory it is in, is read-only; make both writable"
        )),
        // The statements are ours and fixed, so it is the tables that are not what they were.
        Some(ErrorCode::Unknown) => damaged(path),
        _ => failure("open")(error),
    }
}

fn damaged(path: &Path) -> Error {
    Error::new(ErrorKind::Corrupt, "open").because(format!(
        "{} is damaged or was cut off; put a copy of it from before in its place",
        path.display()
    ))
}

/// A connection with the settings that every one has. The path is never read as a URI.
fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_handler(Some(wait_for_lock))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Of effect on macOS alone, where a plain fsync leaves data in the drive's cache.
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // There is a thread for that.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES)?;
    Ok(connection)
}

/// SQLite's own handler sleeps for up to a tenth of a second between tries, and a process that writes
/// without pause would hardly ever be met between two of its transactions.
fn wait_for_lock(tries: i32) -> bool {
    thread::sleep(BUSY_PAUSE);
    tries < BUSY_TRIES
}

/// An acknowledged write is on stable storage only under these two settings, so they are read back.
fn check_durability(connection: &Connection) -> Result<()> {
    let read = |pragma| connection.pragma_query_value(None, pragma, |row| row.get(0));
    let journal: String = read("journal_mode").map_err(failure("open"))?;
    if journal != "wal" {
        return Err(refused(format!(
            "the file's journal mode is `{journal}` and could not be set to `wal`; the file system may not \
             support shared memory"
        )));
    }
    let read = |pragma| connection.pragma_query_value(None, pragma, |row| row.get(0));
    let synchronous: i64 = read("synchronous").map_err(failure("open"))?;
    if synchronous < 2 {
        return Err(refused("`PRAGMA synchronous` could not be set to FULL"));
    }
    Ok(())
}

/// What a file is, by its header and tables.
enum Nature {
    Empty,
    Ours,
}

fn nature(connection: &Connection, path: &Path) -> std::result::Result<Nature, Step> {
    // One statement, and so one look: another process may be making the file at this moment.
    const SQL: &str = "SELECT (SELECT application_id FROM pragma_application_id), \
                       (SELECT user_version FROM pragma_user_version), \
                       (SELECT count(*) FROM sqlite_schema)";
    let (application, format, tables): (i32, i32, i64) =
        connection.query_row(SQL, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    match (application, format) {
        (APPLICATION_ID, FORMAT) => Ok(Nature::Ours),
        (APPLICATION_ID, newer) if newer > FORMAT => Err(Step::Refused(refused(format!(
            "{} has format {newer}, made by a newer version of stategate, and this one knows formats up to \
             {FORMAT}; start that version, or name another file",
            path.display()
        )))),
        (0, 0) if tables == 0 => Ok(Nature::Empty),
        _ => Err(Step::Refused(refused(format!(
            "{} is an SQLite database of another application; name another file",
            path.display()
        )))),
    }
}

fn try_initialise(path: &Path, new: Identity) -> std::result::Result<Identity, Step> {
    let mut connection = open(path)?;
    let nature = nature(&connection, path)?;
    if matches!(nature, Nature::Empty) {
        connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    }
    // Kept in the file, but lost where it was restored from a dump.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    if matches!(nature, Nature::Empty) {
        create(&mut connection, path, new)?;
    }
    check_durability(&connection).map_err(Step::Refused)?;
    let found = connection
        .query_row("SELECT log_id, lanes FROM meta", [], |row| {
            Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, u8>(1)?))
        })
        .optional()?;
    let meta = found.and_then(|(log_id, lanes)| {
        Some(Identity {
            log_id: LogId(Uuid::from_bytes(log_id)),
            lanes: Lanes::new(lanes).ok()?,
        })
    });
    meta.ok_or_else(|| Step::Refused(damaged(path)))
}

/// Says in the file's header which format it has.
pub(super) fn mark(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "user_version", FORMAT)
}

/// Makes the tables, unless another process has by now.
fn create(
    connection: &mut Connection,
    path: &Path,
    new: Identity,
) -> std::result::Result<(), Step> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if matches!(nature(&transaction, path)?, Nature::Ours) {
        return Ok(());
    }
    transaction.execute_batch(SCHEMA)?;
    let created = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
        });
    transaction.execute(
        "INSERT INTO meta (one, log_id, lanes, created) VALUES (1, ?1, ?2, ?3)",
        (new.log_id.0.as_bytes(), new.lanes.get(), created),
    )?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    mark(&transaction)?;
    transaction.commit()?;
    Ok(())
}
