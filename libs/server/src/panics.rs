//! From a panic that was caught to what its caller is told: the id that the log has it under.

use std::{any::Any, panic::AssertUnwindSafe};

use futures::FutureExt as _;
use stategate_api::Problem;

/// What the caller is told whose call ended in a panic that was just caught on this thread.
pub(crate) fn problem(panic: &(dyn Any + Send)) -> Problem {
    match stategate_panics::last() {
        Some(id) => Problem::Internal { id: id.to_string() },
        None => Problem::internal(&format_args!("panic: {}", stategate_panics::message(panic))),
    }
}

/// The output of a future. If it panics, what its caller is told, under the id that the log has the panic
/// under: whoever spawns a task for a caller spawns it through this, for another thread cannot tell the id.
pub async fn caught<F: Future>(future: F) -> Result<F::Output, Problem> {
    let ended = AssertUnwindSafe(future).catch_unwind().await;
    // Nothing is awaited in between, so this is still the thread that panicked.
    ended.map_err(|panic| problem(&*panic))
}
