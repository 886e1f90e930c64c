//! The state of the driver's connections, from its callbacks. Its answers to calls mostly say that there was none.

use std::sync::Arc;

use parking_lot::Mutex;
use rdkafka::{
    client::ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::sync::watch;

use crate::link::CarrierError;

/// Whether brokers are there, and what went wrong last.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionState(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// No broker is connected. One that leaves others is the driver's own business.
    is_down: watch::Sender<bool>,
    why: Mutex<Option<String>>,
}

impl ConnectionState {
    /// A broker answered: earlier errors are of no interest.
    pub(super) fn up(&self) {
        self.0.is_down.send_replace(false);
        *self.0.why.lock() = None;
    }

    pub(super) fn is_down(&self) -> bool {
        *self.0.is_down.borrow()
    }

    /// Waits until no broker is connected.
    pub(super) async fn down(&self) -> CarrierError {
        let mut is_down = self.0.is_down.subscribe();
        // The sender is held here.
        let _ = is_down.wait_for(|is_down| *is_down).await;
        self.failure(&"no broker is connected")
    }

    /// The last connection error, or `otherwise` if none is known.
    pub(super) fn failure(&self, otherwise: &dyn std::fmt::Display) -> CarrierError {
        match &*self.0.why.lock() {
            Some(why) => CarrierError::new(why),
            None => CarrierError::new(otherwise),
        }
    }
}

impl ClientContext for ConnectionState {
    /// Called for every attempt to connect, so at debug level; the link logs once that the channel is away.
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

impl ConsumerContext for ConnectionState {}
