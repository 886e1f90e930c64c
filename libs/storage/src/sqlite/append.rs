//! An append on its way to the thread that carries it out.

use std::sync::Arc;

use stategate_model::{Lane, Position};
use tokio::sync::oneshot;

use crate::{Appended, Batch, Result};

/// One append and who waits for it.
pub(super) struct Append {
    pub(super) lane: Lane,
    pub(super) expected: Position,
    pub(super) batch: Arc<Batch>,
    pub(super) answer: oneshot::Sender<Result<Appended>>,
}

impl Append {
    pub(super) fn answer(self, outcome: Result<Appended>) {
        // A caller that went away has chosen not to know.
        let _ = self.answer.send(outcome);
    }
}
