//! How a storage, a channel and the keys of tokens are, for readiness.

use std::sync::Arc;

use async_trait::async_trait;
use stategate_channel::{Channel, Reach};
use stategate_server::{AccessControl, Foundation, Unfit};
use stategate_storage::{ErrorKind, Storage, Work};

/// A storage, a channel where one is used, and what callers are verified with.
pub(crate) struct Foundations {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) channel: Option<Arc<dyn Channel>>,
    /// What the services of the process do with the storage.
    pub(crate) work: Work,
    pub(crate) control: AccessControl,
}

#[async_trait]
impl Foundation for Foundations {
    async fn check(&self) -> Result<(), Unfit> {
        if !self.control.is_ready() {
            let why = "the keys that tokens are verified with could not be fetched".to_owned();
            return Err(Unfit {
                cause: why.clone(),
                why,
                is_for_good: false,
            });
        }
        let checked = self.storage.check(self.work).await;
        checked.map_err(|error| Unfit {
            why: format!("storage: {}", error.words()),
            is_for_good: *error.kind() == ErrorKind::Bug,
            cause: error.to_string(),
        })
    }

    fn concerns(&self) -> Vec<String> {
        match self.work {
            Work::Write => self.storage.concerns(),
            Work::Read => Vec::new(),
        }
    }

    fn degraded(&self) -> Option<&'static str> {
        let channel = self.channel.as_ref()?;
        (channel.reach() == Reach::Down).then_some("channel")
    }
}
