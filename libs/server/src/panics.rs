//! Panics: each is in the log once, under an id, and whoever catches one can tell a caller that id.

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    cell::Cell,
    panic::{self, AssertUnwindSafe, PanicHookInfo},
    thread,
};

use futures::FutureExt as _;
use stategate_protocol::Problem;
use uuid::Uuid;

thread_local! {
    /// The id of this thread's last panic.
    static LAST: Cell<Option<Uuid>> = const { Cell::new(None) };
}

/// Has every panic of the process logged, in place of the lines that go to standard error by themselves.
pub(crate) fn log() {
    panic::set_hook(Box::new(|info: &PanicHookInfo<'_>| {
        let id = Uuid::new_v4();
        LAST.set(Some(id));
        let current = thread::current();
        let name = current.name().unwrap_or("unnamed");
        let place = info.location().map(ToString::to_string);
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured)
            .then(|| tracing::field::display(backtrace));
        tracing::error!(
            error.id = %id,
            thread = name,
            place,
            cause = message(info.payload()),
            backtrace,
            "panicked"
        );
    }));
}

/// What the caller is told whose call ended in a panic that was just caught on this thread.
pub(crate) fn problem(panic: &(dyn Any + Send)) -> Problem {
    match LAST.take() {
        Some(id) => Problem::Internal { id: id.to_string() },
        None => Problem::internal(&format_args!("panic: {}", message(panic))),
    }
}

/// The output of a future. If it panics, what its caller is told, under the id that the log has the panic
/// under: whoever spawns a task for a caller spawns it through this, for another thread cannot tell the id.
pub async fn caught<F: Future>(future: F) -> Result<F::Output, Problem> {
    let ended = AssertUnwindSafe(future).catch_unwind().await;
    // Nothing is awaited in between, so this is still the thread that panicked.
    ended.map_err(|panic| problem(&*panic))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
