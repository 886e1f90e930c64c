//! The threads that read, so that no async worker ever waits for a disk.
//!
//! A point read costs less than the switch to its thread, so a thread takes all that wait and answers
//! them in one read transaction. Searches may take long and have threads of their own.

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use rusqlite::{Connection, OptionalExtension};
use stategate_model::{Heads, Lane, Lanes, Position};
use tokio::sync::oneshot;

use crate::{
    Read, Result,
    answer::{Answer, panicked},
};

use super::{
    failure::{closed, corrupt, failure, shared_failure},
    queue::Queue,
    rows,
    threads::Threads,
};

/// Point reads one transaction answers.
const READS_PER_TURN: usize = 256;

/// Something to read.
type Job = Box<dyn FnOnce(Result<&Snapshot<'_>>) + Send>;

/// Some threads, each with a connection, fed by one queue.
pub(super) struct Readers {
    queue: Arc<Queue<Job>>,
}

impl Readers {
    /// Starts a thread for each connection; at most `waiting` reads wait for them.
    pub(super) fn start(
        name: &'static str,
        connections: Vec<Connection>,
        lanes: Lanes,
        waiting: usize,
        per_turn: Turn,
        threads: &mut Threads,
    ) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::new(waiting));
        for connection in connections {
            let queue = Arc::clone(&queue);
            let run = move || {
                let queue = Taking(queue);
                let mut reader = Reader {
                    connection,
                    lanes,
                    heads: None,
                };
                let mut jobs = Vec::new();
                while queue.0.take(&mut jobs, per_turn.jobs(), |_| 1) {
                    #[cfg(feature = "faults")]
                    stategate_faults::pass(name);
                    reader.turn(&mut jobs);
                }
                Some(reader.connection)
            };
            threads.start(name, run)?;
        }
        Ok(Self { queue })
    }

    /// Runs `read` on a thread, in a read transaction that begins after this call.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        read: impl FnOnce(&Snapshot<'_>, &Caller<T>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |snapshot| {
            let caller = Caller(Answer::new(answer, operation));
            if caller.is_gone() {
                return;
            }
            #[cfg(feature = "faults")]
            stategate_faults::pass(operation);
            let result = match snapshot {
                Ok(snapshot) => read(snapshot, &caller),
                Err(error) => Err(error),
            };
            caller.0.send(result);
        });
        self.queue.push(job).await.map_err(|_| closed(operation))?;
        // A thread answers whatever it took, and takes whatever there is.
        answered.await.map_err(|_| panicked(operation, None))?
    }

    /// Lets the threads end once they have answered what waits.
    pub(super) fn close(&self) {
        self.queue.close();
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        // The threads are not waited for: nobody can be waiting for their answers either.
        self.close();
    }
}

/// The queue in the hands of a thread. If that ends by a panic, nobody is left waiting behind it.
struct Taking(Arc<Queue<Job>>);

impl Drop for Taking {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.abandon();
        }
    }
}

/// How much a thread takes on at once.
#[derive(Debug, Clone, Copy)]
pub(super) enum Turn {
    /// Everything that waits, for it is quick.
    Many,
    /// One thing, for it may be long.
    One,
}

impl Turn {
    fn jobs(self) -> usize {
        match self {
            Self::Many => READS_PER_TURN,
            Self::One => 1,
        }
    }
}

/// Who waits for the answer.
pub(super) struct Caller<T>(Answer<T>);

impl<T> Caller<T> {
    /// Whether nobody waits any more: a long read stops then.
    pub(super) fn is_gone(&self) -> bool {
        self.0.is_unwanted()
    }
}

struct Reader {
    connection: Connection,
    lanes: Lanes,
    /// The heads as of a `PRAGMA data_version` of this connection.
    heads: Option<(i64, Heads)>,
}

impl Reader {
    fn turn(&mut self, jobs: &mut Vec<Job>) {
        let begun = self.connection.execute_batch("BEGIN");
        let snapshot = Snapshot {
            connection: &self.connection,
            lanes: self.lanes,
            heads: RefCell::new(self.heads.take()),
            lane_heads: RefCell::new(None),
        };
        for job in jobs.drain(..) {
            // A panic costs its caller the answer, and nobody else the thread.
            let _ = catch_unwind(AssertUnwindSafe(|| match &begun {
                Ok(()) => job(Ok(&snapshot)),
                Err(error) => job(Err(shared_failure(error, "read"))),
            }));
        }
        self.heads = snapshot.heads.into_inner();
        if let Err(error) = self.connection.execute_batch("COMMIT") {
            tracing::warn!(%error, "a read transaction did not end; rolling it back");
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }
}

/// The log at one point: everything read through it is consistent.
pub(super) struct Snapshot<'c> {
    connection: &'c Connection,
    lanes: Lanes,
    heads: RefCell<Option<(i64, Heads)>>,
    /// The head of the lane asked for last.
    lane_heads: RefCell<Option<(Lane, Position)>>,
}

impl Snapshot<'_> {
    pub(super) fn connection(&self) -> &Connection {
        self.connection
    }

    /// A value of a domain, with the head of its lane.
    pub(super) fn read<T>(
        &self,
        operation: &'static str,
        domain: &str,
        value: T,
    ) -> Result<Read<T>> {
        let lane = self.lanes.of(domain);
        let known = *self.lane_heads.borrow();
        let position = match known {
            Some((known, position)) if known == lane => position,
            _ => {
                let position = self.head(operation, lane)?;
                *self.lane_heads.borrow_mut() = Some((lane, position));
                position
            }
        };
        Ok(Read {
            value,
            lane,
            position,
        })
    }

    /// The position of a lane's last event.
    pub(super) fn head(&self, operation: &'static str, lane: Lane) -> Result<Position> {
        let (start, end) = rows::lane_range(lane);
        const SQL: &str =
            "SELECT seq FROM events WHERE seq > ?1 AND seq <= ?2 ORDER BY seq DESC LIMIT 1";
        let last: Option<i64> = self
            .connection
            .prepare_cached(SQL)
            .and_then(|mut statement| {
                statement
                    .query_row((start, end), |row| row.get(0))
                    .optional()
            })
            .map_err(failure(operation))?;
        Ok(last.map_or(Position::ZERO, rows::position))
    }

    /// The heads of all lanes; read again only if the file has changed since this thread last did.
    pub(super) fn heads(&self) -> Result<Heads> {
        let version: i64 = self
            .connection
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(failure("heads"))?;
        let mut known = self
            .heads
            .try_borrow_mut()
            .map_err(|_| corrupt("heads", "asked for twice at once"))?;
        if let Some((at, heads)) = &*known
            && *at == version
        {
            return Ok(heads.clone());
        }
        let heads = self
            .lanes
            .iter()
            .map(|lane| self.head("heads", lane))
            .collect::<Result<_>>()
            .map(Heads::new)?;
        *known = Some((version, heads.clone()));
        Ok(heads)
    }
}
