//! The one thread that appends.
//!
//! It takes every append that waits, of whatever lane, and commits them as one transaction, so that
//! one sync of the disk serves them all. Callers hear only after COMMIT has returned. The tasks that
//! write lanes run on the thread too, see [`writer_thread`].

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, ThreadId},
};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use rusqlite::{CachedStatement, Connection, ToSql};
use stategate_model::{EntityRef, Event, IdempotencyKey, Lane, Position};
use tokio::sync::{mpsc, oneshot};

use crate::{Appended, Batch, Error, ErrorKind, Loaded, Result, columns::EventRow};

use super::{
    append::Append,
    checkpoint::Checkpoints,
    failure::{closed, failure, is_busy, is_unwritten, trouble},
    place::Place,
    reads, rows, schema,
    threads::Threads,
    writer_thread::{self, Inbox, Task, WriterThread},
};

const OPERATION: &str = "append";
/// Appends that may wait. Each lane of a command service has one under way, so more means trouble.
const WAITING: usize = 256;

/// The way to the thread.
pub(super) struct Writer {
    /// Gone once the writer is closed.
    appends: Mutex<Option<mpsc::Sender<Append>>>,
    tasks: mpsc::UnboundedSender<Task>,
    thread: ThreadId,
    place: Arc<Place>,
    /// See [`File::needs`].
    needs: Arc<AtomicU64>,
}

impl Writer {
    /// Starts the thread on a connection of its own.
    pub(super) fn start(
        connection: Connection,
        checkpoints: Arc<Checkpoints>,
        place: Arc<Place>,
        threads: &mut Threads,
    ) -> std::io::Result<Self> {
        let needs = Arc::new(AtomicU64::new(0));
        let (to_append, appends) = mpsc::channel(WAITING);
        let (to_run, tasks) = mpsc::unbounded_channel();
        let file = File {
            place: Arc::clone(&place),
            needs: Arc::clone(&needs),
        };
        let run = move || {
            let ending = Ending(checkpoints);
            let checkpoints = &ending.0;
            let mut thread = WriterThread::new(connection, Inbox { appends, tasks });
            thread.run(|connection, group| {
                // A panic leaves the group's callers with an unknown outcome, which is what it is, and
                // the next transaction begins by rolling back what is open. The thread lives on.
                let committed = catch_unwind(AssertUnwindSafe(|| file.commit(connection, group)));
                if committed.is_err() {
                    group.clear();
                }
                #[cfg(feature = "faults")]
                stategate_faults::pass("sqlite-writer");
                checkpoints.committed(connection);
            });
            thread.end()
        };
        Ok(Self {
            appends: Mutex::new(Some(to_append)),
            tasks: to_run,
            thread: threads.start("sqlite-writer", run)?.id(),
            place,
            needs,
        })
    }

    /// Hands an append to the thread and waits for its outcome.
    pub(super) async fn append(
        &self,
        lane: Lane,
        expected: Position,
        batch: Arc<Batch>,
    ) -> Result<Appended> {
        let (answer, answered) = oneshot::channel();
        let append = Append {
            lane,
            expected,
            batch,
            answer,
        };
        let appends = self.appends.lock().clone();
        let appends = appends.ok_or_else(|| closed(OPERATION))?;
        appends.send(append).await.map_err(|_| closed(OPERATION))?;
        drop(appends);
        // The thread answers whatever it took; should it have died, nobody knows how far it came.
        answered
            .await
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Unknown, OPERATION)))
    }

    /// Reads what a batch is decided on, if the caller runs on the thread.
    ///
    /// Its connection has read or written most of those pages before; a reader's forgets what it has
    /// read with every commit.
    pub(super) fn load(
        &self,
        lane: Lane,
        entities: &[EntityRef],
        keys: &[IdempotencyKey],
        bytes: usize,
    ) -> Option<Result<Loaded>> {
        const OPERATION: &str = "load";
        if thread::current().id() != self.thread {
            return None;
        }
        writer_thread::connection(|connection| {
            roll_back(connection);
            let reading = connection
                .unchecked_transaction()
                .map_err(failure(OPERATION))?;
            reads::load(&reading, lane, entities, keys, bytes)
        })
    }

    /// Whether an append can be carried out. As long as they go well nothing is written to find out.
    pub(super) async fn check(&self) -> Result<()> {
        const OPERATION: &str = "check";
        let (answer, answered) = oneshot::channel();
        let file = File {
            place: Arc::clone(&self.place),
            needs: Arc::clone(&self.needs),
        };
        self.run_task(Box::pin(async move {
            // Whoever asked may have given up, if an append before this took long.
            if !answer.is_closed() {
                let checked =
                    writer_thread::connection(|connection| file.check(connection, OPERATION));
                let _ = answer.send(checked.unwrap_or_else(|| Err(closed(OPERATION))));
            }
        }));
        answered.await.map_err(|_| closed(OPERATION))?
    }

    /// Runs a task on the thread.
    pub(super) fn run_task(&self, task: BoxFuture<'static, ()>) {
        // Once the thread has ended, so have its tasks.
        let _ = self.tasks.send(Task::new(task));
    }

    /// Lets the thread end once it has committed what waits.
    pub(super) fn close(&self) {
        *self.appends.lock() = None;
    }
}

/// The file that is written to.
struct File {
    place: Arc<Place>,
    /// 0 while appends go well. Otherwise how many bytes the last one had, which failed for something other
    /// than what was in it.
    needs: Arc<AtomicU64>,
}

/// The end of the thread that writes, one way or the other.
struct Ending(Arc<Checkpoints>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl File {
    /// Commits a group as one transaction. If the content of one is refused, each is tried alone, so that
    /// only the one at fault fails. (Savepoints would do the same at the price of a copy of every page
    /// touched, on every append, for what only a defect elsewhere can cause.)
    fn commit(&self, connection: &Connection, group: &mut Vec<Append>) {
        let committed = self.transact(connection, group);
        let needs = match &committed {
            Err(error) if *error.kind() != ErrorKind::Rejected => {
                let events = group.iter().flat_map(|append| &append.batch.events);
                events.map(Event::size).sum::<usize>().max(1) as u64
            }
            _ => 0,
        };
        self.needs.store(needs, Ordering::Relaxed);
        match committed {
            Ok(outcomes) => {
                for (append, outcome) in group.drain(..).zip(outcomes) {
                    append.answer(Ok(outcome));
                }
            }
            Err(error) if *error.kind() == ErrorKind::Rejected && group.len() > 1 => {
                for append in group.drain(..) {
                    let mut alone = vec![append];
                    self.commit(connection, &mut alone);
                }
            }
            Err(error) => {
                let cause = error.to_string();
                for append in group.drain(..) {
                    let error = Error::new(error.kind().clone(), OPERATION)
                        .with_trouble(error.trouble())
                        .because(cause.clone());
                    append.answer(Err(error));
                }
            }
        }
    }

    /// Appends all of a group and commits, or fails having written nothing (but for [`ErrorKind::Unknown`]).
    fn transact(&self, connection: &Connection, group: &[Append]) -> Result<Vec<Appended>> {
        roll_back(connection);
        self.place.check(OPERATION)?;
        connection
            .execute_batch("BEGIN IMMEDIATE")
            .map_err(failure(OPERATION))?;
        let outcomes = group
            .iter()
            .map(|append| write(connection, append))
            .collect::<Result<Vec<_>>>();
        let outcomes = match outcomes {
            Ok(outcomes) => outcomes,
            Err(error) => {
                roll_back(connection);
                return Err(error);
            }
        };
        commit(connection, OPERATION)?;
        // Removed meanwhile, it is on a disk, but not for long.
        let kept = self.place.check(OPERATION);
        kept.map(|()| outcomes).map_err(|gone| {
            Error::new(ErrorKind::Unknown, OPERATION)
                .with_trouble(gone.trouble())
                .because(gone)
        })
    }

    /// Whether the file can be written to. Once an append has failed it is tried: there is room for it, and
    /// what the file's header says is written again, so that it says the same.
    fn check(&self, connection: &Connection, operation: &'static str) -> Result<()> {
        self.place.check(operation)?;
        let needs = self.needs.load(Ordering::Relaxed);
        if needs == 0 {
            return Ok(());
        }
        self.place.check_room(operation, needs)?;
        roll_back(connection);
        connection
            .execute_batch("BEGIN IMMEDIATE")
            .and_then(|()| schema::mark(connection))
            .map_err(|error| {
                roll_back(connection);
                failure(operation)(error)
            })?;
        commit(connection, operation)?;
        self.needs.store(0, Ordering::Relaxed);
        Ok(())
    }
}

/// Makes the transaction durable.
///
/// A COMMIT that fails for a lock leaves the transaction open, and rolling it back is certain. So it is
/// where the log could not be written to, for the commit record is what is written last. After any other
/// failure that record may already be in the write-ahead log: SQLite does not count it as committed, and
/// the next append overwrites it, but a crash before that would recover it. Nobody can say which, so the
/// outcome is unknown until the append is repeated.
fn commit(connection: &Connection, operation: &'static str) -> Result<()> {
    let Err(error) = connection.execute_batch("COMMIT") else {
        return Ok(());
    };
    let open = !connection.is_autocommit();
    let certain = roll_back(connection) && (open && is_busy(&error) || is_unwritten(&error));
    let kind = if certain {
        ErrorKind::Unavailable
    } else {
        ErrorKind::Unknown
    };
    Err(Error::new(kind, operation)
        .with_trouble(trouble(&error))
        .because(error))
}

/// Undoes the open transaction, if SQLite has not already. Whether it is undone now.
fn roll_back(connection: &Connection) -> bool {
    if connection.is_autocommit() {
        return true;
    }
    match connection.execute_batch("ROLLBACK") {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(%error, "a transaction could not be rolled back");
            false
        }
    }
}

fn rejected(problem: &'static str) -> Error {
    Error::new(ErrorKind::Rejected, OPERATION).because(problem)
}

/// Writes one batch, already right in itself, into the open transaction.
fn write(connection: &Connection, append: &Append) -> Result<Appended> {
    let head = reads::head(connection, OPERATION, append.lane)?;
    if head.position != append.expected {
        return Ok(Appended::HeadMoved);
    }
    let events = &append.batch.events;
    if let Some(first) = events.first()
        && head.id.is_some()
        && first.time <= head.time
    {
        return Err(rejected("times do not increase"));
    }
    write_rows(connection, append).map_err(failure(OPERATION))??;
    Ok(Appended::Done)
}

fn write_rows(connection: &Connection, append: &Append) -> rusqlite::Result<Result<()>> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO events \
         (seq, id, domain, type, key, version, time, method, claims, trace_parent, vals) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    let mut before = connection.prepare_cached(
        "SELECT 1 FROM events WHERE domain = ?1 AND type = ?2 AND key = ?3 AND version = ?4",
    )?;
    for event in &append.batch.events {
        let seq = rows::seq(append.lane, event.position);
        let row = EventRow::of(event);
        // The index keeps a version from being written twice; this keeps one from being left out.
        let entity = (row.domain, row.kind, row.key, row.version - 1);
        if row.version > 1 && !before.exists(entity)? {
            return Ok(Err(rejected("a version does not continue its entity")));
        }
        bind(
            &mut insert,
            &[
                &seq,
                &row.id.as_bytes(),
                &row.domain,
                &row.kind,
                &row.key,
                &row.version,
                &row.time,
                &row.method,
                &row.claims,
                &row.trace_parent,
                &row.values,
            ],
        )?;
        insert.raw_execute()?;
    }
    let mut remember = connection.prepare_cached(
        "INSERT INTO idempotency (domain, caller, key, digest, first, count) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for record in &append.batch.keys {
        let key = &record.key;
        let first = rows::seq(append.lane, record.first);
        remember.execute((
            &key.domain,
            &key.caller,
            &key.key,
            &record.digest.0,
            first,
            record.count,
        ))?;
    }
    Ok(Ok(()))
}

fn bind(statement: &mut CachedStatement<'_>, values: &[&dyn ToSql]) -> rusqlite::Result<()> {
    for (index, value) in values.iter().enumerate() {
        statement.raw_bind_parameter(index + 1, value)?;
    }
    Ok(())
}
