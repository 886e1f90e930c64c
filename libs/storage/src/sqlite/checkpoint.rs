//! Moving pages from the write-ahead log to the file, beside the writer instead of in its way.
//!
//! SQLite by itself does this within a COMMIT: once every so many pages, one writer waits while all of
//! them are written and synced, and everybody else behind it. Here a thread does it while appends go
//! on. But the log starts over from its beginning only when all of it has been moved, which never is the
//! case while appends keep coming; so what little is left at the end the writer moves itself, between
//! two commits.

use std::{
    cell::Cell,
    ffi::c_int,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::{Condvar, Mutex};
use rusqlite::{Connection, hooks::Wal};

use super::threads::Threads;

/// Pages in the log from which on they are moved. More means that a page changed often is written
/// less often; fewer, that a crashed process's log is read back sooner.
const LOG_PAGES: c_int = 8_000;
/// Pages that may be left for the writer to move: some milliseconds' worth.
const REST_PAGES: c_int = 1_000;
/// Times the thread goes over the log before it leaves the rest to the writer, however much it is.
const PASSES: u32 = 4;

thread_local! {
    /// Pages that were in the log after the last commit of the writer of this thread.
    static PAGES: Cell<c_int> = const { Cell::new(0) };
}

/// Has the connection of a writer note, at each commit, how long the log has become.
pub(super) fn watch(writer: &Connection) {
    writer.wal_hook(Some(|_: &Wal, pages| {
        PAGES.set(pages);
        Ok(())
    }));
}

/// How the thread and the writer tell each other.
#[derive(Default)]
pub(super) struct Checkpoints {
    state: Mutex<State>,
    wake: Condvar,
    /// The rest is the writer's to move.
    rest: AtomicBool,
    /// It is said once that pages cannot be moved, not with every commit.
    is_failing: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The log is long enough to be shortened.
    long: bool,
    closed: bool,
}

/// How far the log has come.
struct Progress {
    pages: c_int,
    moved: c_int,
}

impl Checkpoints {
    /// Starts the thread on a connection of its own.
    pub(super) fn start(
        connection: Connection,
        threads: &mut Threads,
    ) -> std::io::Result<Arc<Self>> {
        let checkpoints = Arc::new(Self::default());
        let shared = Arc::clone(&checkpoints);
        let run = move || {
            while shared.wait() {
                #[cfg(feature = "faults")]
                stategate_faults::pass("sqlite-checkpoint");
                shared.tell(shared.shorten(&connection));
            }
            Some(connection)
        };
        threads.start("sqlite-checkpoint", run)?;
        Ok(checkpoints)
    }

    /// Logs that pages could not be moved, the first time. Nothing is lost: they stay in the log, and the
    /// next commit asks again.
    fn tell(&self, moved: rusqlite::Result<()>) {
        let was_failing = self.is_failing.swap(moved.is_err(), Ordering::Relaxed);
        if let (Err(error), false) = (moved, was_failing) {
            tracing::warn!(%error, "the write-ahead log cannot be moved to the file, and grows");
        }
    }

    /// The writer has committed, and has a moment.
    pub(super) fn committed(&self, connection: &Connection) {
        if PAGES.get() < LOG_PAGES {
            return;
        }
        if self.rest.swap(false, Ordering::AcqRel) {
            self.tell(checkpoint(connection, Mode::Passive).map(drop));
            // Where nobody reads an old part of it, the next commit begins it anew.
            return;
        }
        let mut state = self.state.lock();
        if !state.long {
            state.long = true;
            self.wake.notify_one();
        }
    }

    /// Lets the thread end.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_one();
    }

    /// Waits until the log is long; false when nobody makes it longer any more.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while !state.long && !state.closed {
            self.wake.wait(&mut state);
        }
        state.long = false;
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
