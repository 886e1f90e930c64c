//! Appends, and finds out what became of an append whose outcome is unknown.

use std::sync::Arc;

use stategate_model::{Lane, Position, times};
use stategate_runtime::LogThrottle;
use stategate_storage::{Appended, Batch, Error, ErrorKind, Storage};
use tokio::time::{Instant, sleep, timeout_at};

/// What appends to a lane.
#[derive(Clone)]
pub(super) struct Appender {
    pub(super) lane: Lane,
    pub(super) storage: Arc<dyn Storage>,
}

impl Appender {
    /// Appends on condition of the head, finding out what became of an append whose outcome is
    /// unknown.
    ///
    /// Repeating the same append is how: if the first landed, or still lands, the head moves and the
    /// repetition cannot. So `Done` is this batch, and after `HeadMoved` the batch is in the log if
    /// its first event is, and otherwise never will be. That it can be read is not yet that it is on stable
    /// storage: of that the storage is asked too.
    pub(super) async fn append(
        &self,
        expected: Position,
        batch: &Arc<Batch>,
        give_up: Instant,
    ) -> Result<Appended, Error> {
        let mut in_doubt = false;
        let told = LogThrottle::default();
        loop {
            let appending = self.storage.append(self.lane, expected, Arc::clone(batch));
            // A storage over a network ends an unanswered call itself, after `times::SILENCE`. This timeout is for
            // an append that takes longer all the same.
            let appended = timeout_at(give_up, appending).await.unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Unknown, "append").because("no answer in time"))
            });
            let error = match appended {
                Ok(Appended::Done) => return Ok(Appended::Done),
                Ok(Appended::HeadMoved) if !in_doubt => return Ok(Appended::HeadMoved),
                Ok(Appended::HeadMoved) => {
                    let landed = timeout_at(give_up, self.landed(batch)).await;
                    match landed.unwrap_or_else(|_| Err(Error::new(ErrorKind::Unknown, "append"))) {
                        Ok(true) => return Ok(Appended::Done),
                        Ok(false) => return Ok(Appended::HeadMoved),
                        Err(error) => error,
                    }
                }
                Err(error) if *error.kind() == ErrorKind::Unknown => error,
                // Where it does not fit it can not have landed.
                Err(error) if !in_doubt || *error.kind() == ErrorKind::Rejected => {
                    return Err(error);
                }
                Err(error) => error,
            };
            in_doubt = true;
            if let Some(left_out) = told.is_due() {
                tracing::warn!(lane = %self.lane, %error, left_out, "append in doubt; asking again");
            }
            if Instant::now() + times::ASK_AGAIN >= give_up {
                return Err(Error::new(ErrorKind::Unknown, "append").because(error));
            }
            sleep(times::ASK_AGAIN).await;
        }
    }

    /// Makes sure that what was read of the log is on stable storage, for as long as callers wait.
    pub(super) async fn confirm(&self, give_up: Instant) -> Result<(), Error> {
        loop {
            let confirmed = timeout_at(give_up, self.storage.confirm()).await;
            let error = match confirmed {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_) => Error::new(ErrorKind::Unknown, "confirm").because("no answer in time"),
            };
            if Instant::now() + times::ASK_AGAIN >= give_up {
                return Err(Error::new(ErrorKind::Unknown, "confirm").because(error));
            }
            sleep(times::ASK_AGAIN).await;
        }
    }

    /// Whether the batch is in the log, and if so on stable storage.
    async fn landed(&self, batch: &Batch) -> Result<bool, Error> {
        let Some(event) = batch.events.first() else {
            return Ok(false);
        };
        let found = self.storage.get_event(&event.entity, event.id).await?;
        if found.value.is_none() {
            return Ok(false);
        }
        self.storage.confirm().await?;
        Ok(true)
    }
}
