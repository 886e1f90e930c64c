//! Appends, and finds out what became of an append whose outcome is unknown.

use std::{sync::Arc, time::Duration};

use stategate_model::{Lane, Position};
use stategate_server::Seldom;
use stategate_storage::{Appended, Batch, Error, Kind, Storage};
use tokio::time::{Instant, sleep};

/// Pause before the storage is asked again after an append whose outcome is unknown.
const ASK_AGAIN: Duration = Duration::from_millis(50);

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
    /// its first event is, and otherwise never will be.
    pub(super) async fn append(
        &self,
        expected: Position,
        batch: &Arc<Batch>,
        give_up: Instant,
    ) -> Result<Appended, Error> {
        let mut in_doubt = false;
        let told = Seldom::default();
        loop {
            let error = match self
                .storage
                .append(self.lane, expected, Arc::clone(batch))
                .await
            {
                Ok(Appended::Done) => return Ok(Appended::Done),
                Ok(Appended::HeadMoved) if !in_doubt => return Ok(Appended::HeadMoved),
                Ok(Appended::HeadMoved) => match self.landed(batch).await {
                    Ok(true) => return Ok(Appended::Done),
                    Ok(false) => return Ok(Appended::HeadMoved),
                    Err(error) => error,
                },
                Err(error) if *error.kind() == Kind::Unknown => error,
                // Where it does not fit it can not have landed.
                Err(error) if !in_doubt || *error.kind() == Kind::Rejected => return Err(error),
                Err(error) => error,
            };
            in_doubt = true;
            if let Some(left_out) = told.is_due() {
                tracing::warn!(lane = %self.lane, %error, left_out, "append in doubt; asking again");
            }
            if Instant::now() + ASK_AGAIN >= give_up {
                return Err(Error::new(Kind::Unknown, "append").because(error));
            }
            sleep(ASK_AGAIN).await;
        }
    }

    async fn landed(&self, batch: &Batch) -> Result<bool, Error> {
        let Some(event) = batch.events.first() else {
            return Ok(false);
        };
        Ok(self
            .storage
            .get_event(&event.entity, event.id)
            .await?
            .value
            .is_some())
    }
}
