//! The thread that writes the file, and runs the tasks that write lanes.
//!
//! If a lane's task ran elsewhere, it and the thread would wake each other twice for each batch, to load and
//! to append, and waking a thread takes about as long as either. Here a load is a call, and a task that
//! appends waits without blocking the thread. The tasks run until all of them wait; what they have appended
//! by then is committed in one transaction.
//!
//! No task is polled between BEGIN and COMMIT.

use std::{cell::RefCell, future::poll_fn, panic::AssertUnwindSafe, task::Poll};

use futures::{FutureExt as _, executor::LocalPool, future::BoxFuture, task::LocalSpawnExt as _};
use rusqlite::Connection;
use tokio::{runtime::Handle, sync::mpsc};
use tokio_util::context::TokioContext;

use super::{append::Append, checkpoint};

/// Events from which on a transaction takes no further append.
const EVENTS_PER_COMMIT: usize = 4_096;

thread_local! {
    /// The connection of a writer's thread.
    static CONNECTION: RefCell<Option<Connection>> = const { RefCell::new(None) };
}

/// Does something with the connection of this thread, if it is a writer's.
pub(super) fn connection<T>(then: impl FnOnce(&Connection) -> T) -> Option<T> {
    CONNECTION.with_borrow(|connection| connection.as_ref().map(then))
}

/// A task, and the runtime it belongs to.
pub(super) struct Task {
    task: BoxFuture<'static, ()>,
    runtime: Handle,
}

impl Task {
    /// Called within the runtime.
    pub(super) fn new(task: BoxFuture<'static, ()>) -> Self {
        Self {
            task,
            runtime: Handle::current(),
        }
    }

    async fn run(self) {
        // The panic is in the log, and whoever handed the task over notices its end.
        let task = AssertUnwindSafe(TokioContext::new(self.task, self.runtime));
        let _ = task.catch_unwind().await;
    }
}

/// What comes in from other threads, and from tasks on this one.
pub(super) struct Inbox {
    pub(super) appends: mpsc::Receiver<Append>,
    pub(super) tasks: mpsc::UnboundedReceiver<Task>,
}

/// The tasks of a thread, and what they wait for.
pub(super) struct WriterThread {
    pool: LocalPool,
    inbox: Inbox,
}

impl WriterThread {
    /// Makes this thread the connection's.
    pub(super) fn new(connection: Connection, inbox: Inbox) -> Self {
        checkpoint::watch(&connection);
        CONNECTION.set(Some(connection));
        Self {
            pool: LocalPool::new(),
            inbox,
        }
    }

    /// Runs tasks and commits groups of appends until there will be no more.
    pub(super) fn run(&mut self, commit: impl Fn(&Connection, &mut Vec<Append>)) {
        let mut group = Vec::new();
        while self.next(&mut group) {
            connection(|connection| commit(connection, &mut group));
            // Those who waited go on before the next group is taken, however full the inbox is.
            self.pool.run_until_stalled();
        }
    }

    /// Waits for appends, running the tasks meanwhile. False once there will be no more.
    fn next(&mut self, group: &mut Vec<Append>) -> bool {
        let spawner = self.pool.spawner();
        let Inbox { appends, tasks } = &mut self.inbox;
        self.pool.run_until(poll_fn(|cx| {
            while let Poll::Ready(Some(task)) = tasks.poll_recv(cx) {
                // The pool is there as long as this runs.
                let _ = spawner.spawn_local(task.run());
            }
            let mut events = 0;
            while events < EVENTS_PER_COMMIT {
                match appends.poll_recv(cx) {
                    Poll::Ready(Some(append)) => {
                        events += append.batch.events.len();
                        group.push(append);
                    }
                    Poll::Ready(None) => return Poll::Ready(!group.is_empty()),
                    Poll::Pending if group.is_empty() => return Poll::Pending,
                    Poll::Pending => break,
                }
            }
            Poll::Ready(true)
        }))
    }

    /// Drops the tasks and gives the connection back.
    pub(super) fn end(self) -> Option<Connection> {
        drop(self);
        CONNECTION.take()
    }
}
