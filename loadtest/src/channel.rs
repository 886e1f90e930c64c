//! What carries events from those who write them to those who stream them: the memory of one process,
//! or something between three.

use std::fmt;

use anyhow::Context as _;
use serde_json::{Value, json};
use stategate_channel::ChannelConfig;
use stategate_servers::{Broker, Kafka, Missing, Nats, RabbitMq, Redis};

/// A channel that can be measured.
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
    /// Whether the services are processes of their own.
    pub(crate) fn crosses_processes(self) -> bool {
        self != Self::Inmem
    }

    /// Whether a broker stands between.
    pub(crate) fn has_broker(self) -> bool {
        !matches!(self, Self::Inmem | Self::Storage)
    }

    /// Whether events go through it; with the storage's heads they are read from the log.
    pub(crate) fn carries_events(self) -> bool {
        self != Self::Storage
    }

    /// The gateway's `STATEGATE_CHANNEL_PROVIDER`, with a broker, if there is one, at this address.
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

    /// Reads the settings as the services will: what no build of these features takes is not worth a
    /// broker.
    fn check(self) -> anyhow::Result<()> {
        let settings = self.settings("127.0.0.1:1");
        serde_json::from_value::<ChannelConfig>(settings)
            .map(drop)
            .context("--channel")
    }
}

/// Starts the broker that a channel needs: one of the run's own, set up as for the tests.
fn broker(name: ChannelName) -> Result<Option<Box<dyn Broker>>, Missing> {
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

/// A channel whose broker, if it has one, runs as long as this does.
pub(crate) struct Channel {
    name: ChannelName,
    broker: Option<Box<dyn Broker>>,
}

impl Channel {
    /// Starts what has to be there.
    pub(crate) fn start(name: ChannelName) -> anyhow::Result<Self> {
        name.check()?;
        let broker = broker(name).map_err(|missing| anyhow::anyhow!("{missing}"))?;
        Ok(Self { name, broker })
    }

    /// The gateway's `STATEGATE_CHANNEL_PROVIDER`.
    pub(crate) fn provider(&self) -> Value {
        let addr = self.broker.as_ref().map(|broker| broker.url());
        self.name.settings(&addr.unwrap_or_default())
    }

    /// The broker, if it has one.
    pub(crate) fn broker(&self) -> Option<&dyn Broker> {
        self.broker.as_deref()
    }

    /// Which it is.
    pub(crate) fn name(&self) -> ChannelName {
        self.name
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut settings = self.provider();
        if let Some(fields) = settings.as_object_mut() {
            // A port that was free says nothing.
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
    fn settings_are_those_that_the_services_take() {
        for name in ChannelName::value_variants() {
            let checked = name.check();
            if *name == ChannelName::Kafka && cfg!(not(feature = "kafka")) {
                let refused = format!("{:#}", checked.unwrap_err());
                assert!(refused.contains("the cargo feature `kafka`"), "{refused}");
            } else {
                checked.unwrap();
            }
        }
    }
}
