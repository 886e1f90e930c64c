//! The threads of a storage: started in one place, watched, and waited for at the end.

use std::thread::{self, JoinHandle, Thread};

use rusqlite::Connection;

use crate::ended::Ended;

/// Each gives its connection back at its end.
#[derive(Default)]
pub(super) struct Threads {
    started: Vec<JoinHandle<Option<Connection>>>,
    ended: Ended,
}

impl Threads {
    /// Starts a thread. A panic that it does not catch by itself is noted.
    pub(super) fn start(
        &mut self,
        name: &'static str,
        run: impl FnOnce() -> Option<Connection> + Send + 'static,
    ) -> std::io::Result<Thread> {
        let ended = self.ended.clone();
        let started = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _watched = ended.watch(name);
                run()
            })?;
        let thread = started.thread().clone();
        self.started.push(started);
        Ok(thread)
    }

    /// Whether any has ended by a panic.
    pub(super) fn ended(&self) -> Ended {
        self.ended.clone()
    }

    /// Waits for all of them; whether all ended well.
    pub(super) fn join(&mut self) -> bool {
        // The connections are closed one after another, for the last one moves the write-ahead log to
        // the file, and of several at once none takes itself for the last.
        let joined: Vec<_> = self.started.drain(..).map(JoinHandle::join).collect();
        joined.iter().all(Result::is_ok)
    }
}
