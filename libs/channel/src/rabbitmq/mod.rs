//! The channel over RabbitMQ: one fan-out exchange a log, and a queue of its own for every process.

mod config;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, future::try_join_all};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
        QueueBindOptions, QueueDeclareOptions,
    },
    runtime::default_runtime,
    tcp::OwnedTLSConfig,
    types::{AMQPValue, FieldTable, ShortString},
    uri::AMQPUri,
};
use stategate_model::LogId;

pub use self::config::RabbitMqConfig;
use crate::{
    Error,
    link::{Carrier, CarrierError, Listener, Received, Sender},
};

/// Largest frame. RabbitMQ takes more, but asks that messages be no files.
const FRAME: usize = 4 << 20;

/// RabbitMQ as a carrier.
#[derive(Clone)]
pub(crate) struct RabbitMq {
    config: RabbitMqConfig,
    uri: AMQPUri,
    tls: OwnedTLSConfig,
    exchange: ShortString,
}

/// The address would have the password.
impl std::fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RabbitMq").field(&self.config).finish()
    }
}

impl From<lapin::Error> for CarrierError {
    fn from(error: lapin::Error) -> Self {
        Self::new(error)
    }
}

impl RabbitMq {
    /// A carrier of one log's messages.
    pub(crate) async fn new(config: &RabbitMqConfig, log_id: LogId) -> Result<Self, Error> {
        Ok(Self {
            uri: config.uri()?,
            tls: config.tls().await?,
            // The configuration bounds its length.
            exchange: format!("{}.{log_id}", config.exchange).into(),
            config: config.clone(),
        })
    }

    /// A connection, and a channel on which the exchange is known.
    async fn connect(&self) -> Result<(Connection, Channel), CarrierError> {
        let properties = ConnectionProperties::default().with_connection_name("stategate".into());
        let connection = Connection::connect_uri_with_config(
            self.uri.clone(),
            properties,
            self.tls.clone(),
            default_runtime()?,
        )
        .await?;
        let channel = connection.create_channel().await?;
        channel
            .exchange_declare(
                self.exchange.clone(),
                ExchangeKind::Fanout,
                ExchangeDeclareOptions::default(),
                FieldTable::default(),
            )
            .await?;
        Ok((connection, channel))
    }
}

impl Carrier for RabbitMq {
    fn provider(&self) -> &'static str {
        "rabbitmq"
    }

    fn sender(&self) -> Box<dyn Sender> {
        Box::new(Publisher {
            rabbit: self.clone(),
            now: None,
        })
    }

    fn listener(&self) -> Box<dyn Listener> {
        Box::new(Subscriber {
            rabbit: self.clone(),
            now: None,
        })
    }
}

fn gone() -> CarrierError {
    CarrierError::new("not connected")
}

/// The sending side.
struct Publisher {
    rabbit: RabbitMq,
    now: Option<(Connection, Channel)>,
}

#[async_trait]
impl Sender for Publisher {
    async fn connect(&mut self) -> Result<(), CarrierError> {
        self.now = None;
        let (connection, channel) = self.rabbit.connect().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        self.now = Some((connection, channel));
        Ok(())
    }

    fn limit(&self) -> usize {
        FRAME
    }

    async fn send(&mut self, frames: Vec<Bytes>) -> Result<(), CarrierError> {
        let (_, channel) = self.now.as_ref().ok_or_else(gone)?;
        let mut confirms = Vec::with_capacity(frames.len());
        for frame in &frames {
            let sent = channel.basic_publish(
                self.rabbit.exchange.clone(),
                ShortString::default(),
                BasicPublishOptions::default(),
                frame,
                BasicProperties::default(),
            );
            confirms.push(sent.await?);
        }
        let confirmed = try_join_all(confirms).await?;
        match confirmed.iter().any(|confirmed| confirmed.is_nack()) {
            true => Err(CarrierError::new("the broker refused a message")),
            false => Ok(()),
        }
    }

    async fn probe(&mut self) -> Result<(), CarrierError> {
        let (connection, channel) = self.now.as_ref().ok_or_else(gone)?;
        match connection.status().connected() && channel.status().connected() {
            true => Ok(()),
            false => Err(CarrierError::new("the connection was lost")),
        }
    }
}

/// A listening side.
struct Subscriber {
    rabbit: RabbitMq,
    now: Option<(Connection, Channel, Consumer)>,
}

#[async_trait]
impl Listener for Subscriber {
    async fn connect(&mut self) -> Result<(), CarrierError> {
        self.now = None;
        let (connection, channel) = self.rabbit.connect().await?;
        let mut bounds = FieldTable::default();
        let bytes = AMQPValue::LongLongInt(self.rabbit.config.max_bytes.get().into());
        bounds.insert("x-max-length-bytes".into(), bytes);
        // Named by the broker, and gone with the connection.
        let options = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        let queue = channel
            .queue_declare(ShortString::default(), options, bounds)
            .await?;
        let name = queue.name().clone();
        channel
            .queue_bind(
                name.clone(),
                self.rabbit.exchange.clone(),
                ShortString::default(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await?;
        let options = BasicConsumeOptions {
            no_ack: true,
            exclusive: true,
            ..BasicConsumeOptions::default()
        };
        let consumer = channel
            .basic_consume(name, ShortString::default(), options, FieldTable::default())
            .await?;
        self.now = Some((connection, channel, consumer));
        Ok(())
    }

    async fn next(&mut self) -> Result<Received, CarrierError> {
        let (_, _, consumer) = self.now.as_mut().ok_or_else(gone)?;
        let delivery = consumer.next().await.ok_or_else(gone)??;
        Ok(Received::Frame(delivery.data.into()))
    }
}
