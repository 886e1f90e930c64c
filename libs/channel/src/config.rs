//! Which channel to use, as `STATEGATE_CHANNEL_PROVIDER` says it.

use std::sync::Arc;

use serde::Deserialize;

#[cfg(feature = "kafka")]
use crate::kafka::{Kafka, KafkaConfig};
#[cfg(feature = "link")]
use crate::link::Link;
#[cfg(feature = "nats")]
use crate::nats::{Nats, NatsConfig, NatsMode};
#[cfg(feature = "rabbitmq")]
use crate::rabbitmq::{RabbitMq, RabbitMqConfig};
#[cfg(feature = "redis")]
use crate::redis::{Redis, RedisConfig};
use crate::{Channel, Error, InMemory, InMemoryConfig, Key, Log, StorageHeads, StorageHeadsConfig};

/// A channel and its settings: JSON with the provider's `name` and that provider's own fields.
/// Unknown names and fields are refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum ChannelConfig {
    /// The memory of this process.
    Inmem(InMemoryConfig),
    /// The storage's own lane heads.
    Storage(StorageHeadsConfig),
    /// Kafka.
    #[cfg(feature = "kafka")]
    Kafka(KafkaConfig),
    /// Kafka, which this build is without.
    #[cfg(not(feature = "kafka"))]
    Kafka(NotBuilt),
    /// NATS.
    #[cfg(feature = "nats")]
    Nats(NatsConfig),
    /// NATS Streaming, which has ended: JetStream in its place.
    #[cfg(feature = "nats")]
    Stan(NatsConfig),
    /// RabbitMQ.
    #[cfg(feature = "rabbitmq")]
    #[serde(alias = "amqp")]
    RabbitMq(RabbitMqConfig),
    /// Redis.
    #[cfg(feature = "redis")]
    Redis(RedisConfig),
}

/// The settings of a provider that is in no build but those that ask for it: reading them says so.
#[cfg(not(feature = "kafka"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotBuilt {}

#[cfg(not(feature = "kafka"))]
impl<'de> Deserialize<'de> for NotBuilt {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom(
            "`kafka` is not in this build; build with the cargo feature `kafka`, or `kafka-tls` for TLS and SCRAM",
        ))
    }
}

impl ChannelConfig {
    /// Whether services in several processes can use it.
    pub fn crosses_processes(&self) -> bool {
        !matches!(self, Self::Inmem(_))
    }
}

/// Opens a channel that tells of `log`. Messages that leave the process are authenticated with the key,
/// if there is one. A broker that is away is no error; it is come back to.
pub async fn open(
    config: &ChannelConfig,
    log: Log,
    key: Option<Key>,
) -> Result<Arc<dyn Channel>, Error> {
    #[cfg(not(feature = "link"))]
    drop(key);
    Ok(match config {
        ChannelConfig::Inmem(config) => Arc::new(InMemory::new(config)),
        ChannelConfig::Storage(config) => Arc::new(StorageHeads::new(config, log)),
        #[cfg(feature = "kafka")]
        ChannelConfig::Kafka(config) => {
            Arc::new(Link::new(Kafka::new(config, log.log_id).await?, &log, key))
        }
        #[cfg(not(feature = "kafka"))]
        ChannelConfig::Kafka(never) => match *never {},
        #[cfg(feature = "nats")]
        ChannelConfig::Nats(config) => {
            Arc::new(Link::new(Nats::new(config, log.log_id)?, &log, key))
        }
        #[cfg(feature = "nats")]
        ChannelConfig::Stan(config) => {
            tracing::warn!(
                "the channel `stan` is served by JetStream; say {{\"name\":\"nats\",\"mode\":\"jetstream\"}} instead"
            );
            let config = NatsConfig {
                mode: NatsMode::JetStream,
                ..config.clone()
            };
            Arc::new(Link::new(Nats::new(&config, log.log_id)?, &log, key))
        }
        #[cfg(feature = "rabbitmq")]
        ChannelConfig::RabbitMq(config) => {
            let rabbit = RabbitMq::new(config, log.log_id).await?;
            Arc::new(Link::new(rabbit, &log, key))
        }
        #[cfg(feature = "redis")]
        ChannelConfig::Redis(config) => {
            Arc::new(Link::new(Redis::new(config, log.log_id).await?, &log, key))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_is_strict() {
        let parse = serde_json::from_str::<ChannelConfig>;
        assert!(matches!(
            parse(r#"{"name":"inmem"}"#),
            Ok(ChannelConfig::Inmem(_))
        ));
        assert!(matches!(
            parse(r#"{"name":"storage","interval_ms":20}"#),
            Ok(ChannelConfig::Storage(_))
        ));
        for bad in [
            r#"{"name":"carrier-pigeon"}"#,
            r#"{"name":"inmem","adr":"x"}"#,
            r#"{"name":"storage","interval_ms":0}"#,
            r#"{"name":"nats"}"#,
            r#"{"name":"nats","addr":"nats://h","adr":"x"}"#,
            r#"{"name":"redis","addr":"redis://h","adr":"x"}"#,
            r#"{"name":"rabbitmq","addr":"amqp://h","adr":"x"}"#,
            r#"{"name":"kafka","addr":"h:9092","adr":"x"}"#,
            "{}",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[cfg(feature = "rabbitmq")]
    #[test]
    fn rabbitmq_goes_by_two_names() {
        for name in ["rabbitmq", "amqp"] {
            let json = format!(r#"{{"name":"{name}","addr":"amqp://h"}}"#);
            let config = serde_json::from_str(&json);
            assert!(matches!(config, Ok(ChannelConfig::RabbitMq(_))), "{name}");
        }
    }

    #[cfg(not(feature = "kafka"))]
    #[test]
    fn a_build_without_kafka_says_how_to_have_it() {
        let refused = serde_json::from_str::<ChannelConfig>(r#"{"name":"kafka","addr":"h:9092"}"#);
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("the cargo feature `kafka`"), "{refused}");
    }

    #[cfg(feature = "nats")]
    #[test]
    fn the_old_name_of_jetstream_is_known() {
        let stan = serde_json::from_str(r#"{"name":"stan","addr":"nats://h"}"#);
        assert!(matches!(stan, Ok(ChannelConfig::Stan(_))));
    }
}
