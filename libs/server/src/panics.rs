//! Turns a caught panic into the problem that the caller is told, with the id that the log has the panic under.

use std::{any::Any, panic::AssertUnwindSafe};

use futures::FutureExt as _;
use stategate_api::Problem;

/// The problem for the caller whose call ended in a panic. The panic was just caught on this thread.
pub(crate) fn problem(panic: &(dyn Any + Send)) -> Problem {
    match stategate_panics::last() {
        Some(id) => Problem::Internal { id: id.to_string() },
        None => Problem::internal(&format_args!("panic: {}", stategate_panics::message(panic))),
    }
}

/// Runs a future; if it panics, answers a problem with the id that the log has the panic under. A task that is
/// spawned on behalf of a caller runs through this, because the id is known only on the thread that panicked.
pub async fn caught<F: Future>(future: F) -> Result<F::Output, Problem> {
    let ended = AssertUnwindSafe(future).catch_unwind().await;
    // Nothing is awaited in between, so this is still the thread that panicked.
    ended.map_err(|panic| problem(&*panic))
}
