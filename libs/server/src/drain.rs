//! Ending well: unready, finish what is under way, end streams, close, all within the grace time
//! (invariant I12).

use std::{
    fmt,
    future::Future,
    sync::{Arc, OnceLock},
};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The end of the process, shared by everything that has to know of it.
#[derive(Clone, Default)]
pub struct Drain(Arc<Inner>);

#[derive(Default)]
struct Inner {
    begun: CancellationToken,
    /// What the process cannot go on without, and how that ended.
    failure: OnceLock<String>,
    closers: Mutex<Vec<Closer>>,
}

struct Closer {
    name: &'static str,
    close: BoxFuture<'static, ()>,
}

impl Drain {
    /// Nothing ends yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the end. Safe to call more than once.
    pub fn begin(&self) {
        self.0.begun.cancel();
    }

    /// Begins the end because `what` has ended, which the process cannot do without. The first one is
    /// remembered.
    pub fn fail(&self, what: &str, how: &str) {
        if self.0.failure.set(format!("{what} {how}")).is_ok() {
            tracing::error!(what, how, "the process cannot go on without this; draining");
        }
        self.begin();
    }

    /// Why the process ends, if it was not told to.
    pub fn failure(&self) -> Option<String> {
        self.0.failure.get().cloned()
    }

    /// Whether the end has begun.
    pub fn has_begun(&self) -> bool {
        self.0.begun.is_cancelled()
    }

    /// Cancelled when the end begins. Whoever holds a stream ends it then, in a way that its client
    /// can resume; unary calls go on to their own end.
    pub fn token(&self) -> CancellationToken {
        // A child, so that nobody but `begin` ends the process.
        self.0.begun.child_token()
    }

    /// Has `close` run once no call is under way any more. What was registered last is closed first,
    /// so that a thing is closed before what it stands on; `name` is for the log.
    pub fn on_close(&self, name: &'static str, close: impl Future<Output = ()> + Send + 'static) {
        let close = Box::pin(close);
        self.0.closers.lock().push(Closer { name, close });
    }

    /// Runs the closers, one after the other. Each may take its share of the time that is left, so
    /// that one that hangs does not keep the storage from being closed.
    pub(crate) async fn close(&self, until: Instant) {
        loop {
            let (next, left) = {
                let mut closers = self.0.closers.lock();
                (closers.pop(), closers.len())
            };
            let Some(Closer { name, close }) = next else {
                return;
            };
            let shares = u32::try_from(left + 1).unwrap_or(u32::MAX);
            let share = until.saturating_duration_since(Instant::now()) / shares;
            tracing::debug!(what = name, "closing");
            if tokio::time::timeout(share, close).await.is_err() {
                tracing::warn!(what = name, "not closed within the grace time");
            }
        }
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain")
            .field("begun", &self.has_begun())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn closes_in_reverse_and_passes_over_what_hangs() {
        let drain = Drain::new();
        let closed = Arc::new(Mutex::new(Vec::new()));
        for name in ["storage", "lanes"] {
            let closed = Arc::clone(&closed);
            drain.on_close(name, async move { closed.lock().push(name) });
        }
        drain.on_close("stuck", std::future::pending());
        let token = drain.token();
        drain.begin();
        assert!(token.is_cancelled());
        drain.close(Instant::now() + Duration::from_secs(1)).await;
        assert_eq!(*closed.lock(), ["lanes", "storage"]);
    }
}
