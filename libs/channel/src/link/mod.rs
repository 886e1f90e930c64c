//! What every channel over a broker shares.
//!
//! A provider is a [`Carrier`]: how bytes go into its broker and come out. The rest is here, once:
//! frames and their authentication ([`frame`]), the buffer that keeps publishing from waiting
//! ([`outbox`]), the task that sends ([`sending`]) and those that listen ([`listening`]), reconnection
//! ([`backoff`]) and metrics.

mod backoff;
mod frame;
mod listening;
mod meters;
mod outbox;
mod sending;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use stategate_model::LogId;
use tokio::{runtime::Handle, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use self::{
    meters::Meters,
    outbox::{BOUNDS, Outbox, Pushed},
};
use crate::{Carries, Channel, Error, Info, Key, Log, Message, Reach, Subscription};

/// How long a connection may take to be made, and a subscription to be in force.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the broker may take to accept what is sent to it at once.
const SEND: Duration = Duration::from_secs(5);
/// How often an idle connection is looked at.
const PROBE: Duration = Duration::from_secs(1);
/// How long `close` waits for what was published before it.
const FLUSH: Duration = Duration::from_secs(1);

/// Why a carrier failed, for the log. Says nothing secret.
#[derive(Debug)]
pub(crate) struct CarrierError(String);

impl CarrierError {
    pub(crate) fn new(why: impl fmt::Display) -> Self {
        Self(why.to_string())
    }
}

impl fmt::Display for CarrierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A broker, as far as a channel needs it.
pub(crate) trait Carrier: fmt::Debug + Send + Sync + 'static {
    /// The provider's name.
    fn provider(&self) -> &'static str;

    /// The sending side, not connected yet.
    fn sender(&self) -> Box<dyn Sender>;

    /// A listening side, not connected yet. Each gets everything.
    fn listener(&self) -> Box<dyn Listener>;
}

/// The sending side of a carrier.
#[async_trait]
pub(crate) trait Sender: Send {
    /// Makes a connection, letting go of the one there was.
    async fn connect(&mut self) -> Result<(), CarrierError>;

    /// The largest frame that the broker takes over this connection, in bytes.
    fn limit(&self) -> usize;

    /// Sends frames in their order, and returns when the broker has them as surely as the provider
    /// can tell. After a failure some may have been sent.
    async fn send(&mut self, frames: Vec<Bytes>) -> Result<(), CarrierError>;

    /// Whether the connection is still good, asked when nothing is sent.
    async fn probe(&mut self) -> Result<(), CarrierError>;
}

/// What comes out of a broker.
#[derive(Debug)]
pub(crate) enum Received {
    /// A frame.
    Frame(Bytes),
    /// The broker or the driver dropped frames.
    Lagged,
}

/// A listening side of a carrier.
#[async_trait]
pub(crate) trait Listener: Send {
    /// Makes a connection, letting go of the one there was. What is sent after this returns is received.
    async fn connect(&mut self) -> Result<(), CarrierError>;

    /// The next frame. A failure means that the connection is lost.
    async fn next(&mut self) -> Result<Received, CarrierError>;
}

/// A channel over a carrier.
pub(crate) struct Link {
    shared: Arc<Shared>,
    runtime: Handle,
    /// The task that sends, from the first message on.
    sending: Mutex<Option<JoinHandle<()>>>,
    is_sending: AtomicBool,
}

/// What the link and its tasks have in common.
struct Shared {
    carrier: Box<dyn Carrier>,
    log_id: LogId,
    key: Option<Key>,
    outbox: Outbox,
    meters: Arc<Meters>,
    closed: CancellationToken,
}

impl Link {
    /// A link that connects when it is used. Needs a tokio runtime.
    pub(crate) fn new(carrier: impl Carrier, log: &Log, key: Option<Key>) -> Self {
        let meters = Arc::new(Meters::new(carrier.provider()));
        Self {
            shared: Arc::new(Shared {
                carrier: Box::new(carrier),
                log_id: log.log_id,
                key,
                outbox: Outbox::new(log.log_id, BOUNDS),
                meters,
                closed: CancellationToken::new(),
            }),
            runtime: Handle::current(),
            sending: Mutex::new(None),
            is_sending: AtomicBool::new(false),
        }
    }
}

#[async_trait]
impl Channel for Link {
    fn info(&self) -> Info {
        Info {
            provider: self.shared.carrier.provider(),
            crosses_processes: true,
            carries: Carries::Bytes,
        }
    }

    fn publish(&self, message: Message) {
        let shared = &self.shared;
        if shared.closed.is_cancelled() {
            return;
        }
        if shared.outbox.push(message) == Pushed::Dropped {
            shared.meters.dropped.increment(1);
        }
        if !self.is_sending.swap(true, Ordering::Relaxed) {
            let task = self.runtime.spawn(sending::run(Arc::clone(shared)));
            *self.sending.lock() = Some(task);
        }
    }

    async fn subscribe(&self) -> Result<Subscription, Error> {
        listening::subscribe(&self.shared).await
    }

    fn reach(&self) -> Reach {
        self.shared.meters.reach()
    }

    async fn close(&self) {
        self.shared.closed.cancel();
        let sending = self.sending.lock().take();
        if let Some(mut sending) = sending
            && timeout(FLUSH, &mut sending).await.is_err()
        {
            sending.abort();
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.closed.cancel();
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("carrier", &self.shared.carrier)
            .field("log_id", &self.shared.log_id)
            .finish_non_exhaustive()
    }
}

/// Waits for a step of a carrier, but not for ever.
async fn within<T>(
    limit: Duration,
    what: &'static str,
    step: impl Future<Output = Result<T, CarrierError>>,
) -> Result<T, CarrierError> {
    match timeout(limit, step).await {
        Ok(done) => done,
        Err(_) => Err(CarrierError::new(format_args!(
            "{what}: no answer within {limit:?}"
        ))),
    }
}
