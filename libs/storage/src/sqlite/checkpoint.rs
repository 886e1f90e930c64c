//! Moving pages from the write-ahead log to the file, beside the writer instead of in its way.
//!
//! SQLite by itself does this within a COMMIT: once every so many pages, one writer waits while all of
//! them are written and synced, and everybody else behind it. Here a thread does it while appends go
//! on. But the log starts over from its beginning only when all of it has been moved, which never is the
//! case while appends keep coming; so what little is left at the end the writer moves itself, between
//! two commits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;

/// Pages in the log from which on they are moved. More means that a page changed often is written
/// less often; fewer, that a crashed process's log is read back sooner.
const LOG_PAGES: i64 = 8_000;
/// Pages that may be left for the writer to move: some milliseconds' worth.
const REST_PAGES: i64 = 1_000;
/// Times the thread goes over the log before it leaves the rest to the writer, however much it is.
const PASSES: u32 = 4;

/// How the thread and the writer tell each other.
#[derive(Default)]
pub(super) struct Checkpoints {
    state: Mutex<State>,
    wake: Condvar,
    /// The rest is the writer's to move.
    rest: AtomicBool,
}

#[derive(Default)]
struct State {
    committed: bool,
    closed: bool,
}

/// How far the log has come.
struct Progress {
    pages: i64,
    moved: i64,
}

impl Checkpoints {
    /// Starts the thread on a connection of its own.
    pub(super) fn start(
        connection: Connection,
        threads: &mut Vec<thread::JoinHandle<Option<Connection>>>,
    ) -> std::io::Result<Arc<Self>> {
        let checkpoints = Arc::new(Self::default());
        let shared = Arc::clone(&checkpoints);
        let run = move || {
            while shared.next_commit() {
                if let Err(error) = shared.shorten(&connection) {
                    // Nothing is lost: the pages stay in the log, and the next commit asks again.
                    tracing::warn!(%error, "the write-ahead log could not be moved to the file");
                }
            }
            Some(connection)
        };
        threads.push(
            thread::Builder::new()
                .name("sqlite-checkpoint".to_owned())
                .spawn(run)?,
        );
        Ok(checkpoints)
    }

    /// The writer has committed, and has a moment.
    pub(super) fn committed(&self, connection: &Connection) {
        if self.rest.swap(false, Ordering::AcqRel)
            && let Err(error) = checkpoint(connection, Mode::Passive)
        {
            tracing::warn!(%error, "the write-ahead log could not be moved to the file");
        }
        let mut state = self.state.lock();
        if !state.committed {
            state.committed = true;
            self.wake.notify_one();
        }
    }

    /// Lets the thread end.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_one();
    }

    /// Waits for a commit; false when there will be none.
    fn next_commit(&self) -> bool {
        let mut state = self.state.lock();
        while !state.committed && !state.closed {
            self.wake.wait(&mut state);
        }
        state.committed = false;
        !state.closed
    }

    fn shorten(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut progress = checkpoint(connection, Mode::Look)?;
        if progress.pages < LOG_PAGES {
            return Ok(());
        }
        for _ in 0..PASSES {
            if progress.pages - progress.moved <= REST_PAGES {
                break;
            }
            checkpoint(connection, Mode::Passive)?;
            progress = checkpoint(connection, Mode::Look)?;
        }
        self.rest.store(true, Ordering::Release);
        Ok(())
    }
}

/// What to do with the log.
#[derive(Debug, Clone, Copy)]
enum Mode {
    /// Nothing: tell how far it is.
    Look,
    /// Move what can be moved without waiting for anybody.
    Passive,
}

fn checkpoint(connection: &Connection, mode: Mode) -> rusqlite::Result<Progress> {
    let sql = match mode {
        Mode::Look => "PRAGMA wal_checkpoint(NOOP)",
        Mode::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
    };
    connection.prepare_cached(sql)?.query_row([], |row| {
        Ok(Progress {
            pages: row.get(1)?,
            moved: row.get(2)?,
        })
    })
}
