//! The way of an answer from the thread or task that reads to its caller. If that panics, the caller is answered
//! with the id of the panic.

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::{Error, ErrorKind, Result};

/// Answers one caller.
pub(crate) struct Answer<T> {
    caller: Option<oneshot::Sender<Result<T>>>,
    operation: &'static str,
}

impl<T> Answer<T> {
    pub(crate) fn new(caller: oneshot::Sender<Result<T>>, operation: &'static str) -> Self {
        Self {
            caller: Some(caller),
            operation,
        }
    }

    /// Whether nobody waits any more.
    pub(crate) fn is_unwanted(&self) -> bool {
        let caller = self.caller.as_ref();
        caller.is_none_or(oneshot::Sender::is_closed)
    }

    /// Answers, if the caller still waits.
    pub(crate) fn send(mut self, answer: Result<T>) {
        if let Some(caller) = self.caller.take() {
            let _ = caller.send(answer);
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(caller) = self.caller.take()
        {
            // This is the thread that panics, so the id is that of this panic.
            let _ = caller.send(Err(panicked(self.operation, stategate_panics::last())));
        }
    }
}

/// The call panicked; the log has it under the id, if that is known.
pub(crate) fn panicked(operation: &'static str, id: Option<Uuid>) -> Error {
    Error::new(ErrorKind::Bug, operation)
        .because("the log has the panic")
        .with_panic(id)
}
