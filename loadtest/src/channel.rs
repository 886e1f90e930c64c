//! The channel that carries events from the command service to the stream service: the memory of one
//! process, or something between the three services' processes.

use std::fmt;

use anyhow::Context as _;
use serde_json::{Value, json};
use stategate_channel::ChannelConfig;
use stategate_servers::{Broker, Kafka, Missing, Nats, RabbitMq, Redis};

/// A channel, as it is named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ChannelName {
    /// The memory of one process: `stategate dev`
    Inmem,
    /// The storage's own lane heads, between three processes
    Storage,
    /// NATS, core
    Nats,
    /// NATS, JetStream
    Jetstream,
    /// Redis, streams
    Redis,
    /// Redis, pub/sub
    RedisPubsub,
    /// RabbitMQ
    Rabbitmq,
    /// Kafka; needs the cargo feature `kafka`
    Kafka,
}

impl ChannelName {
    /// Whether each service is a process of its own.
    pub(crate) fn crosses_processes(self) -> bool {
        self != Self::Inmem
    }

    /// Whether it needs a broker.
    pub(crate) fn has_broker(self) -> bool {
        !matches!(self, Self::Inmem | Self::Storage)
    }

    /// Whether events go through it. With the storage's lane heads, events are read from the log.
    pub(crate) fn carries_events(self) -> bool {
        self != Self::Storage
    }

    /// The value of the gateway's `STATEGATE_CHANNEL_PROVIDER`. `addr` is the broker's address, if there is a
    /// broker.
    fn settings(self, addr: &str) -> Value {
        match self {
            Self::Inmem => json!({"name": "inmem"}),
            Self::Storage => json!({"name": "storage"}),
            Self::Nats => json!({"name": "nats", "addr": addr, "mode": "core"}),
            Self::Jetstream => json!({"name": "nats", "addr": addr, "mode": "jetstream"}),
            Self::Redis => json!({"name": "redis", "addr": addr, "mode": "streams"}),
            Self::RedisPubsub => json!({"name": "redis", "addr": addr, "mode": "pubsub"}),
            Self::Rabbitmq => json!({"name": "rabbitmq", "addr": addr}),
            Self::Kafka => json!({"name": "kafka", "addr": addr}),
        }
    }

    /// Parses the settings as the services do, so that a channel whose cargo feature is missing is refused before
    /// a broker is started.
    fn check_settings(self) -> anyhow::Result<()> {
        let settings = self.settings("127.0.0.1:1");
        serde_json::from_value::<ChannelConfig>(settings)
            .map(drop)
            .context("--channel")
    }
}

/// Starts the broker that a channel needs, set up as in the tests. Only this run uses it.
fn start_broker(name: ChannelName) -> Result<Option<Box<dyn Broker>>, Missing> {
    fn boxed<B: Broker>(broker: B) -> Box<dyn Broker> {
        Box::new(broker)
    }
    match name {
        ChannelName::Inmem | ChannelName::Storage => return Ok(None),
        ChannelName::Nats | ChannelName::Jetstream => Nats::start().map(boxed),
        ChannelName::Redis | ChannelName::RedisPubsub => Redis::start().map(boxed),
        ChannelName::Rabbitmq => RabbitMq::start().map(boxed),
        ChannelName::Kafka => Kafka::start().map(boxed),
    }
    .map(Some)
}

/// The channel of a run. Its broker, if it has one, runs until this is dropped.
pub(crate) struct Channel {
    name: ChannelName,
    broker: Option<Box<dyn Broker>>,
}

impl Channel {
    /// Starts the broker, if one is needed.
    pub(crate) fn start(name: ChannelName) -> anyhow::Result<Self> {
        name.check_settings()?;
        let broker = start_broker(name).map_err(|missing| anyhow::anyhow!("{missing}"))?;
        Ok(Self { name, broker })
    }

    /// The value of the gateway's `STATEGATE_CHANNEL_PROVIDER`.
    pub(crate) fn settings(&self) -> Value {
        let addr = self.broker.as_ref().map(|broker| broker.url());
        self.name.settings(&addr.unwrap_or_default())
    }

    /// The broker, if it has one.
    pub(crate) fn broker(&self) -> Option<&dyn Broker> {
        self.broker.as_deref()
    }

    /// The name it has on the command line.
    pub(crate) fn name(&self) -> ChannelName {
        self.name
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut settings = self.settings();
        if let Some(fields) = settings.as_object_mut() {
            // The port differs from run to run.
            fields.remove("addr");
        }
        match &self.broker {
            Some(broker) => write!(
                f,
                "{settings}; {} {}, set up as for the tests; ",
                broker.name(),
                broker.version()
            )?,
            None => write!(f, "{settings}; ")?,
        }
        f.write_str(match self.name.crosses_processes() {
            true => "command, query and stream in a process each",
            false => "one process",
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn the_services_accept_the_settings() {
        for name in ChannelName::value_variants() {
            let checked = name.check_settings();
            if *name == ChannelName::Kafka && cfg!(not(feature = "kafka")) {
                let refused = format!("{:#}", checked.unwrap_err());
                assert!(refused.contains("the cargo feature `kafka`"), "{refused}");
            } else {
                checked.unwrap();
            }
        }
    }
}
