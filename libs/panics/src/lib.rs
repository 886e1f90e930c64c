//! Every panic of a process is in its log once, under an id, which whoever catches it can tell a caller.
//!
//! The id is known to the thread that panicked. Who catches a panic, or drops something while a thread unwinds, is
//! on that thread; who waits for another thread has to be given the id.

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    cell::Cell,
    panic::{self, PanicHookInfo},
    thread,
};

use uuid::Uuid;

thread_local! {
    static LAST: Cell<Option<Uuid>> = const { Cell::new(None) };
}

/// Has every panic of the process logged, in place of the lines that go to standard error by themselves.
pub fn log() {
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

/// The id of this thread's last panic; `None` if it had none, or [`log`] was not called.
pub fn last() -> Option<Uuid> {
    LAST.get()
}

/// What a panic says.
pub fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
