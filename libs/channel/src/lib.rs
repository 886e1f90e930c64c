//! The channel contract: how a stream service learns quickly that something was written.
//!
//! A channel is a hint. It may lose, repeat and reorder; the log is the truth, positions have no
//! holes and each message names its predecessor, so the receiver knows what it may believe and reads
//! the rest from the storage. A channel therefore never delays or fails a write.
//!
//! A provider is one folder here, behind a cargo feature where it needs a driver, that knows no other.
//! Those over a broker say only how bytes go in and come out; frames, buffers, reconnection and
//! metrics are in `link`, once. [`conformance`] is the list of cases that every provider passes.

mod config;
mod inmem;
#[cfg(feature = "kafka")]
mod kafka;
mod key;
#[cfg(feature = "link")]
mod link;
#[cfg(feature = "nats")]
mod nats;
mod queue;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "link")]
mod settings;
mod storage;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

use std::{fmt, pin::Pin, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, future::BoxFuture};
use stategate_model::{Event, EventId, Lane, LogId, Position};

#[cfg(feature = "kafka")]
pub use self::kafka::{KafkaConfig, KafkaMechanism, KafkaSecurity};
#[cfg(feature = "nats")]
pub use self::nats::{NatsConfig, NatsMode};
#[cfg(feature = "rabbitmq")]
pub use self::rabbitmq::RabbitMqConfig;
#[cfg(feature = "redis")]
pub use self::redis::{RedisConfig, RedisMode};
#[cfg(feature = "link")]
pub use self::settings::{Address, Secret};
pub use self::{
    config::{ChannelConfig, open},
    inmem::{InMemory, InMemoryConfig},
    key::Key,
    storage::{StorageHeads, StorageHeadsConfig},
};

/// Committed events on their way to the stream services.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The log they were committed to. A message of another log is not believed.
    pub log_id: LogId,
    /// Their lane.
    pub lane: Lane,
    /// The position of the first of them; one past the lane's head for a bare head.
    pub first: Position,
    /// The id of the event before the first; `None` at the beginning of a lane, or if the provider
    /// knows the head alone.
    pub previous: Option<EventId>,
    /// The events, consecutive. None at all: a bare head, saying how far the lane goes.
    pub events: Events,
}

/// The events of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Events {
    /// As any process reads them.
    Encoded(Vec<Bytes>),
    /// As they are in this process, for a channel that does not leave it: what nobody asks for is
    /// never encoded.
    Decoded(Vec<Event>),
}

impl Events {
    /// None at all.
    pub const NONE: Self = Self::Encoded(Vec::new());

    /// How many they are.
    pub fn len(&self) -> usize {
        match self {
            Self::Encoded(events) => events.len(),
            Self::Decoded(events) => events.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn size(&self) -> usize {
        match self {
            Self::Encoded(events) => events.iter().map(Bytes::len).sum(),
            Self::Decoded(events) => events.iter().map(Event::size).sum(),
        }
    }
}

impl Message {
    /// The lane's head as the message has it.
    pub fn head(&self) -> Position {
        let end = self.first.get() + self.events.len() as u64;
        Position::new(end.saturating_sub(1))
    }

    /// A message that says how far a lane goes.
    pub fn bare_head(log_id: LogId, lane: Lane, head: Position) -> Self {
        Self {
            log_id,
            lane,
            first: head.next(),
            previous: None,
            events: Events::NONE,
        }
    }

    /// Bytes the message holds on to.
    pub fn size(&self) -> usize {
        const FIXED: usize = 128;
        FIXED + self.events.size()
    }
}

/// What a subscription delivers.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// Something was written.
    Message(Arc<Message>),
    /// Messages were dropped, or the connection was lost and is back: look at the log.
    Lagged,
}

/// Everything that is published while the subscription is held. It ends when the channel is closed.
pub type Subscription = Pin<Box<dyn Stream<Item = Notice> + Send>>;

/// What carries hints from the command services to the stream services.
///
/// # Delivery
///
/// At most once or better. A subscription is in force when `subscribe` returns: what is published
/// after that is delivered, or a [`Notice::Lagged`] in its place. Order is kept where the carrier
/// keeps it; nobody relies on it. Every subscription gets every message, and a process makes one
/// subscription, whatever the number of its clients.
///
/// # Failure
///
/// Reconnecting is the provider's business, from the start on: a broker that is away fails neither
/// [`open`] nor `subscribe`. While it is away `publish` drops, keeping how far each lane goes, and
/// subscriptions stay silent; then they say [`Notice::Lagged`].
#[async_trait]
pub trait Channel: fmt::Debug + Send + Sync + 'static {
    /// What the provider is.
    fn info(&self) -> Info;

    /// Hands a message on. Never blocks and never fails: what does not fit the provider's bounded
    /// buffer is dropped, and a message over the carrier's limit goes as a bare head.
    fn publish(&self, message: Message);

    /// Starts to listen.
    async fn subscribe(&self) -> Result<Subscription, Error>;

    /// Whether messages come and go at the moment, as far as can be known.
    fn reach(&self) -> Reach;

    /// Lets go of connections and ends subscriptions.
    async fn close(&self);
}

/// Whether messages come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Nothing was published and nobody subscribed, so nobody has looked.
    Untried,
    /// They do.
    Up,
    /// They do not, in at least one direction that is in use: streams are as late as the heads are
    /// looked at seldom.
    Down,
}

/// What a channel provider is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// The provider's name, as in its configuration.
    pub provider: &'static str,
    /// Whether messages reach other processes.
    pub crosses_processes: bool,
    /// What its messages say beside how far a lane goes.
    pub carries: Carries,
}

/// What a channel's messages say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    /// How far a lane goes: the stream service reads every event from the log.
    Heads,
    /// Encoded events.
    Bytes,
    /// Events as they are, encoded or not.
    Events,
}

/// The log that a channel tells of, as whoever joins channel and storage describes it: neither knows
/// the other.
#[derive(Clone)]
pub struct Log {
    /// The log's identity.
    pub log_id: LogId,
    /// Reads the head of every lane; `None` while they cannot be read.
    pub heads: Heads,
}

/// Reads the head of every lane. For channels that carry nothing themselves.
pub type Heads = Arc<dyn Fn() -> BoxFuture<'static, Option<stategate_model::Heads>> + Send + Sync>;

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("log_id", &self.log_id)
            .finish_non_exhaustive()
    }
}

/// Why a channel cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The channel was closed.
    #[error("the channel is closed")]
    Closed,
    /// The configuration does not fit the deployment.
    #[error("{0}")]
    Config(String),
}
