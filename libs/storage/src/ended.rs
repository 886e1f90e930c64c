//! Whether a thread or task that a provider works with has ended by a panic, outside of any one call.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::{Error, ErrorKind, Result};

/// Remembers the first that has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ended(Arc<Mutex<Option<&'static str>>>);

impl Ended {
    /// Watches the thread or task that holds the answer: unwinding through it is the end.
    pub(crate) fn watch(&self, name: &'static str) -> Watched {
        Watched {
            ended: self.clone(),
            name,
        }
    }

    /// Fails once one has.
    pub(crate) fn check(&self, operation: &'static str) -> Result<()> {
        match *self.0.lock() {
            None => Ok(()),
            Some(name) => {
                let what = format!("the {name} of the storage has ended by a panic");
                Err(Error::new(ErrorKind::Bug, operation).because(what))
            }
        }
    }
}

/// A thread or task that is watched.
pub(crate) struct Watched {
    ended: Ended,
    name: &'static str,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.ended.0.lock().get_or_insert(self.name);
        }
    }
}
