//! What the driver tells of its connections, beside its answers.

use std::sync::Arc;

use parking_lot::Mutex;
use rdkafka::{
    client::ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::sync::watch;

use crate::link::Failure;

/// Whether brokers are there, and what went wrong last.
#[derive(Debug, Clone, Default)]
pub(super) struct Told(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// No broker is connected. One that leaves others is the driver's own business.
    is_down: watch::Sender<bool>,
    why: Mutex<Option<String>>,
}

impl Told {
    /// Brokers answered: whatever was told before is past.
    pub(super) fn up(&self) {
        self.0.is_down.send_replace(false);
        *self.0.why.lock() = None;
    }

    pub(super) fn is_down(&self) -> bool {
        *self.0.is_down.borrow()
    }

    /// Waits until no broker is connected.
    pub(super) async fn down(&self) -> Failure {
        let mut is_down = self.0.is_down.subscribe();
        // The sender is held here.
        let _ = is_down.wait_for(|is_down| *is_down).await;
        self.failure(&"no broker is connected")
    }

    /// What went wrong, as well as is known: the driver's answer to a question is mostly that it got none.
    pub(super) fn failure(&self, otherwise: &dyn std::fmt::Display) -> Failure {
        match &*self.0.why.lock() {
            Some(why) => Failure::new(why),
            None => Failure::new(otherwise),
        }
    }
}

impl ClientContext for Told {
    /// Every attempt to connect is told of here; the link says once that the channel is away.
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.0.is_down.send_replace(true);
        } else {
            *self.0.why.lock() = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for Told {}
