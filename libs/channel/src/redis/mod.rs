//! The channel over Redis: a stream of bounded length that every process reads by itself, or pub/sub.

mod config;

use std::{collections::VecDeque, time::Duration};

use ::redis::{
    AsyncConnectionConfig, Client, RedisError, Value,
    aio::{MultiplexedConnection, PubSubSink, PubSubStream},
    cmd, pipe,
    streams::{StreamRangeReply, StreamReadReply},
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use stategate_model::LogId;
use tokio::time::timeout;

pub use self::config::{RedisConfig, RedisMode};
use crate::{
    Error,
    link::{Carrier, CarrierError, Listener, Received, Sender},
};

/// Largest frame. Redis takes more, but bounds a stream by its length alone, and this times that is what
/// it may come to hold.
const FRAME: usize = 512 << 10;
/// The one field of an entry.
const FIELD: &str = "f";
/// How long a read waits for an entry.
const BLOCK: Duration = Duration::from_secs(2);
/// How long the server may take to answer what does not wait.
const ANSWER: Duration = Duration::from_secs(5);
/// Most entries read at once. As many means that there may be more, perhaps trimmed away.
const READ: usize = 64;

/// Redis as a carrier.
#[derive(Clone)]
pub(crate) struct Redis {
    config: RedisConfig,
    client: Client,
    /// The stream's key, or the pub/sub channel.
    name: String,
}

/// The client's would have the password.
impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Redis").field(&self.config).finish()
    }
}

impl From<RedisError> for CarrierError {
    fn from(error: RedisError) -> Self {
        Self::new(error)
    }
}

impl Redis {
    /// A carrier of one log's messages.
    pub(crate) async fn new(config: &RedisConfig, log_id: LogId) -> Result<Self, Error> {
        Ok(Self {
            client: config.client().await?,
            name: format!("{}:{log_id}", config.key),
            config: config.clone(),
        })
    }

    /// A connection on which an answer may take this long.
    async fn connect(&self, answer: Duration) -> Result<MultiplexedConnection, CarrierError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER))
            .set_response_timeout(Some(answer));
        let connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config);
        Ok(connection.await?)
    }
}

impl Carrier for Redis {
    fn provider(&self) -> &'static str {
        "redis"
    }

    fn sender(&self) -> Box<dyn Sender> {
        Box::new(Writer {
            redis: self.clone(),
            connection: None,
        })
    }

    fn listener(&self) -> Box<dyn Listener> {
        let redis = self.clone();
        match self.config.mode {
            RedisMode::Streams => Box::new(StreamReader {
                redis,
                connection: None,
                last: None,
                entries: VecDeque::new(),
                is_behind: false,
            }),
            RedisMode::PubSub => Box::new(Subscriber { redis, now: None }),
        }
    }
}

fn gone() -> CarrierError {
    CarrierError::new("not connected")
}

/// The sending side.
struct Writer {
    redis: Redis,
    connection: Option<MultiplexedConnection>,
}

#[async_trait]
impl Sender for Writer {
    async fn connect(&mut self) -> Result<(), CarrierError> {
        self.connection = None;
        self.connection = Some(self.redis.connect(ANSWER).await?);
        Ok(())
    }

    fn limit(&self) -> usize {
        FRAME
    }

    async fn send(&mut self, frames: Vec<Bytes>) -> Result<(), CarrierError> {
        let connection = self.connection.as_mut().ok_or_else(gone)?;
        let (name, config) = (&self.redis.name, &self.redis.config);
        let mut commands = pipe();
        for frame in &frames {
            let frame: &[u8] = frame;
            match config.mode {
                RedisMode::Streams => commands
                    .cmd("XADD")
                    .arg(name)
                    .arg("MAXLEN")
                    .arg("~")
                    .arg(config.max_len.get())
                    .arg("*")
                    .arg(FIELD)
                    .arg(frame)
                    .ignore(),
                RedisMode::PubSub => commands.cmd("PUBLISH").arg(name).arg(frame).ignore(),
            };
        }
        Ok(commands.exec_async(connection).await?)
    }

    async fn probe(&mut self) -> Result<(), CarrierError> {
        let connection = self.connection.as_mut().ok_or_else(gone)?;
        Ok(cmd("PING").exec_async(connection).await?)
    }
}

/// Reads a stream.
struct StreamReader {
    redis: Redis,
    connection: Option<MultiplexedConnection>,
    /// The last entry that was read; after a reconnection it goes on from there.
    last: Option<EntryId>,
    entries: VecDeque<Bytes>,
    /// Whether entries may have been trimmed before they were read.
    is_behind: bool,
}

/// An entry's id: `milliseconds-number`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct EntryId(u64, u64);

impl EntryId {
    fn parse(text: &str) -> Result<Self, CarrierError> {
        let parsed = text
            .split_once('-')
            .and_then(|(time, number)| Some(Self(time.parse().ok()?, number.parse().ok()?)));
        parsed.ok_or_else(|| CarrierError::new(format_args!("{text:?} is no id of a stream entry")))
    }
}

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl StreamReader {
    async fn read(&mut self) -> Result<(), CarrierError> {
        let connection = self.connection.as_mut().ok_or_else(gone)?;
        let last = self.last.unwrap_or_default();
        let read: Option<StreamReadReply> = cmd("XREAD")
            .arg("COUNT")
            .arg(READ)
            .arg("BLOCK")
            .arg(BLOCK.as_millis().to_string())
            .arg("STREAMS")
            .arg(&self.redis.name)
            .arg(last.to_string())
            .query_async(connection)
            .await?;
        let streams = read.map(|read| read.keys).unwrap_or_default();
        let entries: Vec<_> = streams.into_iter().flat_map(|stream| stream.ids).collect();
        self.is_behind = entries.len() >= READ;
        for mut entry in entries {
            self.last = Some(EntryId::parse(&entry.id)?);
            if let Some(Value::BulkString(frame)) = entry.map.remove(FIELD) {
                self.entries.push_back(frame.into());
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Listener for StreamReader {
    async fn connect(&mut self) -> Result<(), CarrierError> {
        self.connection = None;
        let mut connection = self.redis.connect(BLOCK + ANSWER).await?;
        let newest: StreamRangeReply = cmd("XREVRANGE")
            .arg(&self.redis.name)
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(1)
            .query_async(&mut connection)
            .await?;
        let newest = match newest.ids.first() {
            Some(entry) => EntryId::parse(&entry.id)?,
            None => EntryId::default(),
        };
        self.last = match self.last {
            Some(last) if last <= newest => Some(last),
            // Another stream than before: all of it is new.
            Some(_) => Some(EntryId::default()),
            None => Some(newest),
        };
        self.connection = Some(connection);
        Ok(())
    }

    async fn next(&mut self) -> Result<Received, CarrierError> {
        loop {
            if let Some(frame) = self.entries.pop_front() {
                return Ok(Received::Frame(frame));
            }
            if std::mem::take(&mut self.is_behind) {
                return Ok(Received::Lagged);
            }
            self.read().await?;
        }
    }
}

/// Listens to a pub/sub channel.
struct Subscriber {
    redis: Redis,
    now: Option<(PubSubSink, PubSubStream)>,
}

#[async_trait]
impl Listener for Subscriber {
    async fn connect(&mut self) -> Result<(), CarrierError> {
        self.now = None;
        let (mut sink, stream) = self.redis.client.get_async_pubsub().await?.split();
        sink.subscribe(&self.redis.name).await?;
        self.now = Some((sink, stream));
        Ok(())
    }

    async fn next(&mut self) -> Result<Received, CarrierError> {
        let (sink, stream) = self.now.as_mut().ok_or_else(gone)?;
        loop {
            // A server that drops a slow subscriber closes its connection.
            match timeout(BLOCK, stream.next()).await {
                Ok(Some(message)) => {
                    return Ok(Received::Frame(message.get_payload_bytes().to_vec().into()));
                }
                Ok(None) => return Err(gone()),
                Err(_) => {
                    let pinged = timeout(ANSWER, sink.ping::<()>()).await;
                    pinged.map_err(CarrierError::new)??;
                }
            }
        }
    }
}
