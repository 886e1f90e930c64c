//! The channel over NATS: core NATS, or a JetStream stream in the servers' memory.
//!
//! One subject a log. The driver would reconnect by itself and say nothing; here a lost connection
//! ends, so that the link makes a new one and says [`Notice::Lagged`](crate::Notice::Lagged).

mod config;

use std::time::Duration;

use async_nats::{
    Client, Event, ServerAddr, Subscriber,
    jetstream::{
        self,
        consumer::{DeliverPolicy, pull},
        stream,
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, future::try_join_all};
use stategate_model::LogId;
use tokio::sync::watch;

pub use self::config::{NatsConfig, NatsMode};
use crate::{
    Error,
    link::{Carrier, CarrierError, Listener, Received, Sender},
};

/// Most frames that the driver holds for us; with more it drops, and says so.
const HELD: usize = 1_024;
/// How often the server is asked whether it is there; two questions without an answer are a loss.
const PING: Duration = Duration::from_secs(5);
/// How long JetStream keeps what nobody fetched.
const KEPT: Duration = Duration::from_secs(60);

/// NATS as a carrier.
#[derive(Debug, Clone)]
pub(crate) struct Nats {
    config: NatsConfig,
    addresses: Vec<ServerAddr>,
    subject: String,
    /// The name of the JetStream stream, in which dots are illegal.
    stream: String,
}

impl Nats {
    /// A carrier of one log's messages.
    pub(crate) fn new(config: &NatsConfig, log_id: LogId) -> Result<Self, Error> {
        let addresses = config.check()?;
        Ok(Self {
            addresses,
            subject: format!("{}.{log_id}", config.subject),
            stream: format!("{}_{log_id}", config.subject.replace('.', "_")),
            config: config.clone(),
        })
    }

    async fn connect(&self) -> Result<Connection, CarrierError> {
        let (trouble, seen) = watch::channel(Trouble::default());
        let options = self.config.options().await.map_err(CarrierError::new)?;
        let client = options
            .ping_interval(PING)
            .subscription_capacity(HELD)
            .event_callback(move |event| {
                trouble.send_if_modified(|trouble| trouble.note(&event));
                async {}
            })
            .connect(&*self.addresses)
            .await
            .map_err(CarrierError::new)?;
        Ok(Connection {
            client,
            trouble: seen,
        })
    }

    async fn stream(&self, client: &Client) -> Result<stream::Stream, CarrierError> {
        let config = stream::Config {
            name: self.stream.clone(),
            subjects: vec![self.subject.clone()],
            storage: stream::StorageType::Memory,
            discard: stream::DiscardPolicy::Old,
            max_bytes: i64::from(self.config.max_bytes.get()),
            max_age: KEPT,
            num_replicas: usize::try_from(self.config.replicas.get()).unwrap_or(usize::MAX),
            ..stream::Config::default()
        };
        let context = jetstream::new(client.clone());
        let stream = context.get_or_create_stream(config).await;
        stream.map_err(CarrierError::new)
    }
}

impl Carrier for Nats {
    fn provider(&self) -> &'static str {
        "nats"
    }

    fn sender(&self) -> Box<dyn Sender> {
        Box::new(Side {
            nats: self.clone(),
            now: None,
        })
    }

    fn listener(&self) -> Box<dyn Listener> {
        Box::new(Receiver {
            nats: self.clone(),
            now: None,
        })
    }
}

/// What the driver said of a connection.
#[derive(Debug, Default)]
struct Trouble {
    /// Why it is of no more use.
    lost: Option<String>,
    /// How often frames were dropped.
    drops: u64,
}

impl Trouble {
    /// Whether there is any that was not known.
    fn note(&mut self, event: &Event) -> bool {
        match event {
            Event::SlowConsumer(_) => self.drops += 1,
            Event::Connected | Event::LameDuckMode | Event::Draining => return false,
            // Among them a subject that may not be used, of which the driver's calls say nothing.
            Event::Disconnected | Event::Closed | Event::ServerError(_) | Event::ClientError(_) => {
                self.lost.get_or_insert_with(|| event.to_string());
            }
        }
        true
    }
}

/// A connection until its first trouble.
struct Connection {
    client: Client,
    trouble: watch::Receiver<Trouble>,
}

impl Connection {
    fn check(&self) -> Result<(), CarrierError> {
        match &self.trouble.borrow().lost {
            Some(why) => Err(CarrierError::new(why)),
            None => Ok(()),
        }
    }

    /// Returns once the server has seen everything that was asked of it before, since it does what one
    /// connection asks in order.
    async fn settle(&self) -> Result<(), CarrierError> {
        let inbox = self.client.new_inbox();
        let subscribed = self.client.subscribe(inbox.clone()).await;
        let mut answers = subscribed.map_err(CarrierError::new)?;
        let asked = self.client.publish(inbox, Bytes::new()).await;
        asked.map_err(CarrierError::new)?;
        let mut trouble = self.trouble.clone();
        tokio::select! {
            _ = trouble.wait_for(|trouble| trouble.lost.is_some()) => {}
            _ = answers.next() => {}
        }
        self.check()
    }
}

fn gone() -> CarrierError {
    CarrierError::new("not connected")
}

/// The sending side.
struct Side {
    nats: Nats,
    now: Option<(Connection, jetstream::Context)>,
}

#[async_trait]
impl Sender for Side {
    async fn connect(&mut self) -> Result<(), CarrierError> {
        self.now = None;
        let connection = self.nats.connect().await?;
        if self.nats.config.mode == NatsMode::JetStream {
            self.nats.stream(&connection.client).await?;
        }
        let context = jetstream::new(connection.client.clone());
        self.now = Some((connection, context));
        Ok(())
    }

    fn limit(&self) -> usize {
        let now = self.now.as_ref();
        now.map_or(0, |(connection, _)| connection.client.max_payload())
    }

    async fn send(&mut self, frames: Vec<Bytes>) -> Result<(), CarrierError> {
        let (connection, context) = self.now.as_ref().ok_or_else(gone)?;
        let subject = &self.nats.subject;
        match self.nats.config.mode {
            NatsMode::Core => {
                for frame in frames {
                    let sent = connection.client.publish(subject.clone(), frame).await;
                    sent.map_err(CarrierError::new)?;
                }
                connection.client.flush().await.map_err(CarrierError::new)?;
            }
            NatsMode::JetStream => {
                let mut acknowledgements = Vec::with_capacity(frames.len());
                for frame in frames {
                    let sent = context.publish(subject.clone(), frame).await;
                    acknowledgements.push(sent.map_err(CarrierError::new)?.into_future());
                }
                try_join_all(acknowledgements)
                    .await
                    .map_err(CarrierError::new)?;
            }
        }
        connection.check()
    }

    async fn probe(&mut self) -> Result<(), CarrierError> {
        let (connection, _) = self.now.as_ref().ok_or_else(gone)?;
        connection.check()
    }
}

/// A listening side.
struct Receiver {
    nats: Nats,
    now: Option<(Connection, Source)>,
}

enum Source {
    Core(Subscriber),
    JetStream(Box<pull::Ordered>),
}

#[async_trait]
impl Listener for Receiver {
    async fn connect(&mut self) -> Result<(), CarrierError> {
        self.now = None;
        let connection = self.nats.connect().await?;
        let source = match self.nats.config.mode {
            NatsMode::Core => {
                let subject = self.nats.subject.clone();
                let subscribed = connection.client.subscribe(subject).await;
                let subscriber = subscribed.map_err(CarrierError::new)?;
                connection.settle().await?;
                Source::Core(subscriber)
            }
            NatsMode::JetStream => {
                let stream = self.nats.stream(&connection.client).await?;
                let config = pull::OrderedConfig {
                    deliver_policy: DeliverPolicy::New,
                    ..pull::OrderedConfig::default()
                };
                let consumer = stream
                    .create_consumer(config)
                    .await
                    .map_err(CarrierError::new)?;
                let messages = consumer.messages().await;
                Source::JetStream(Box::new(messages.map_err(CarrierError::new)?))
            }
        };
        self.now = Some((connection, source));
        Ok(())
    }

    async fn next(&mut self) -> Result<Received, CarrierError> {
        let (connection, source) = self.now.as_mut().ok_or_else(gone)?;
        let next = async {
            match source {
                Source::Core(subscriber) => {
                    let message = subscriber.next().await.ok_or_else(gone)?;
                    Ok(Received::Frame(message.payload))
                }
                Source::JetStream(messages) => {
                    let message = messages.next().await.ok_or_else(gone)?;
                    let message = message.map_err(CarrierError::new)?;
                    Ok(Received::Frame(message.message.payload))
                }
            }
        };
        tokio::select! {
            biased;
            changed = connection.trouble.changed() => {
                changed.map_err(|_| gone())?;
                connection.check()?;
                Ok(Received::Lagged)
            }
            received = next => received,
        }
    }
}
