//! Tasks that go on for as long as the process does, and what the end of each means.
//!
//! None is spawned without a name and a meaning, so that none ends unseen. What a library runs by itself
//! it starts again by itself, or says that it has ended when it is asked how it is
//! ([`Foundation::check`](crate::Foundation::check)).

use std::{future::Future, panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt as _;
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::Drain;

/// Pause before a task that panicked is started again.
const AGAIN: Duration = Duration::from_secs(1);

/// The tasks of a process.
#[derive(Debug, Clone)]
pub struct Tasks(Drain);

impl Tasks {
    /// Tasks whose ends may mean that of the process.
    pub fn of(drain: &Drain) -> Self {
        Self(drain.clone())
    }

    /// Cancelled when the process begins to end.
    pub fn end(&self) -> CancellationToken {
        self.0.token()
    }

    /// Spawns a task that the process cannot do without: if it ends before the process is told to, by a
    /// panic or otherwise, the process ends, in good order and as a failure.
    pub fn essential(
        &self,
        name: &str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        tokio::spawn(self.watched(name, task))
    }

    /// As [`Tasks::essential`], for a task that something else runs. Dropping it before its end means
    /// the same.
    pub fn watched<F>(&self, name: &str, task: F) -> impl Future<Output = ()> + Send + use<F>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let end = End {
            drain: self.0.clone(),
            name: name.to_owned(),
            how: How::Dropped,
        };
        async move {
            // All of it, so that it is dropped with the task wherever that happens.
            let mut end = end;
            let ended = AssertUnwindSafe(task).catch_unwind().await;
            end.how = match ended {
                Ok(()) => How::Ended,
                Err(_) => How::Panicked,
            };
        }
    }
}

/// Spawns a task that is started again when it panicked, and may end.
pub fn restarted<F>(name: &'static str, make: impl Fn() -> F + Send + 'static) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        while AssertUnwindSafe(make()).catch_unwind().await.is_err() {
            tracing::warn!(task = name, "panicked; it is started again");
            sleep(AGAIN).await;
        }
    })
}

/// The end of a task that the process cannot do without.
struct End {
    drain: Drain,
    name: String,
    how: How,
}

#[derive(Debug, Clone, Copy)]
enum How {
    Ended,
    Panicked,
    Dropped,
}

impl Drop for End {
    fn drop(&mut self) {
        let how = match self.how {
            How::Panicked => "panicked",
            // As they should, once the process ends.
            How::Ended | How::Dropped if self.drain.has_begun() => return,
            How::Ended => "ended",
            How::Dropped => "was dropped",
        };
        self.drain.fail(&self.name, how);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    async fn failed(task: impl Future<Output = ()> + Send + 'static) -> Option<String> {
        let drain = Drain::new();
        let spawned = Tasks::of(&drain).essential("a task", task);
        spawned.await.unwrap();
        assert!(drain.has_begun());
        drain.failure()
    }

    #[tokio::test]
    async fn an_essential_task_that_ends_ends_the_process_and_says_how() {
        let panics = failed(async { panic!("planted") }).await;
        assert_eq!(panics.as_deref(), Some("a task panicked"));
        let ends = failed(async {}).await;
        assert_eq!(ends.as_deref(), Some("a task ended"));
    }

    #[tokio::test]
    async fn dropping_an_essential_task_is_its_end_even_before_its_beginning() {
        for begin in [false, true] {
            let drain = Drain::new();
            let task = Tasks::of(&drain).watched("a task", std::future::pending());
            let mut task = Box::pin(task);
            if begin {
                assert!(futures::poll!(&mut task).is_pending());
            }
            assert!(!drain.has_begun());
            drop(task);
            assert_eq!(drain.failure().as_deref(), Some("a task was dropped"));
        }
    }

    #[tokio::test]
    async fn the_end_after_the_beginning_of_the_drain_is_no_failure() {
        let drain = Drain::new();
        let tasks = Tasks::of(&drain);
        let task = tasks.essential("a task", tasks.end().cancelled_owned());
        drain.begin();
        task.await.unwrap();
        assert_eq!(drain.failure(), None);
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_even_then() {
        let drain = Drain::new();
        drain.begin();
        let task = Tasks::of(&drain).essential("a task", async { panic!("planted") });
        task.await.unwrap();
        assert_eq!(drain.failure().as_deref(), Some("a task panicked"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_restarted_task_goes_on_after_a_panic() {
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        let task = restarted("a task", move || {
            let run = counted.fetch_add(1, Ordering::SeqCst);
            async move { assert!(run >= 2, "planted") }
        });
        task.await.unwrap();
        assert_eq!(runs.load(Ordering::SeqCst), 3);
    }
}
