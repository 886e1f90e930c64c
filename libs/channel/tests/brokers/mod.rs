//! Every case on real brokers.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use stategate_channel::{
    Channel, ChannelConfig, Key, Log,
    conformance::{Broker, PretendedLog, Rig},
    open,
};
use stategate_servers::{Broker as Server, Missing, Proxy, free_port};
use tokio::task::spawn_blocking;

use crate::run_all;

/// A server, how a channel over it is configured, and a proxy before it for the writer.
#[derive(Debug)]
struct Trial<S> {
    server: Arc<S>,
    config: fn(u16) -> ChannelConfig,
    proxy: Arc<Proxy>,
    oversize: usize,
}

#[async_trait]
impl<S: Server> Broker for Trial<S> {
    async fn open(&self, log: Log, key: Option<Key>) -> Arc<dyn Channel> {
        let config = (self.config)(self.server.port());
        open(&config, log, key).await.expect("a channel")
    }

    async fn kill(&self) {
        let server = Arc::clone(&self.server);
        spawn_blocking(move || server.kill()).await.expect("killed");
    }

    async fn restart(&self) {
        let server = Arc::clone(&self.server);
        let started = spawn_blocking(move || server.restart()).await;
        started.expect("started");
    }

    async fn part(&self) {
        self.proxy.point_at(address(free_port()));
        self.proxy.cut();
    }

    async fn mend(&self) {
        self.proxy.point_at(address(self.server.behind()));
    }

    fn oversize(&self) -> usize {
        self.oversize
    }
}

fn address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

async fn suite<S: Server>(
    name: &str,
    server: Result<S, Missing>,
    oversize: usize,
    config: fn(u16) -> ChannelConfig,
) {
    let proxy = Arc::new(Proxy::start(address(free_port())).await);
    suite_behind(proxy, name, server, oversize, config).await;
}

/// The suite on a server that was told of the proxy before it.
async fn suite_behind<S: Server>(
    proxy: Arc<Proxy>,
    name: &str,
    server: Result<S, Missing>,
    oversize: usize,
    config: fn(u16) -> ChannelConfig,
) {
    let server = match server {
        Ok(server) => Arc::new(server),
        Err(missing) => return missing.report(&format!("the channel suite on {name}")),
    };
    run_all(name, async || {
        let log = PretendedLog::new();
        // A case that failed may have left it parted.
        proxy.point_at(address(server.behind()));
        let trial = Trial {
            server: Arc::clone(&server),
            config,
            proxy: Arc::clone(&proxy),
            oversize,
        };
        let proxied = config(trial.proxy.address().port());
        let writer = open(&proxied, log.described(), None).await;
        Rig {
            writer: writer.expect("a channel"),
            reader: trial.open(log.described(), None).await,
            log,
            broker: Some(Arc::new(trial)),
        }
    })
    .await;
}

#[cfg(feature = "kafka")]
mod kafka {
    use stategate_channel::KafkaConfig;
    use stategate_servers::Kafka;
    #[cfg(feature = "kafka-tls")]
    use {
        futures::StreamExt as _,
        stategate_channel::{KafkaMechanism, KafkaSecurity, Message, Notice, Reach},
        stategate_model::{Lane, Position},
        stategate_servers::PATIENCE,
        tokio::time::timeout,
    };

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_topic() {
        let proxy = Arc::new(Proxy::start(address(free_port())).await);
        let port = proxy.address().port();
        let server = spawn_blocking(move || Kafka::start_behind(port)).await;
        let server = server.expect("started");
        let config = |port| ChannelConfig::Kafka(KafkaConfig::new(format!("127.0.0.1:{port}")));
        suite_behind(proxy, "kafka", server, 1 << 20, config).await;
    }

    #[cfg(feature = "kafka-tls")]
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn over_tls_by_scram() {
        let names = || vec!["127.0.0.1".to_owned()];
        let identity = rcgen::generate_simple_self_signed(names()).expect("a certificate");
        let stranger = rcgen::generate_simple_self_signed(names()).expect("a certificate");
        let key = identity.signing_key.serialize_pem() + &identity.cert.pem();
        let server = spawn_blocking(move || Kafka::start_secured(&key, "me", "hunter2")).await;
        let server = match server.expect("started") {
            Ok(server) => server,
            Err(missing) => return missing.report("Kafka over TLS"),
        };
        let folder = tempfile::tempdir().expect("a folder");
        let log = PretendedLog::new();
        let opened = async |cert: &rcgen::Certificate, user: &str, password: &str| {
            let ca_file = folder.path().join(format!("{user}-{password}.pem"));
            std::fs::write(&ca_file, cert.pem()).expect("written");
            let config = ChannelConfig::Kafka(KafkaConfig {
                security: KafkaSecurity::Tls,
                user: Some(user.to_owned()),
                password: Some(password.into()),
                mechanism: Some(KafkaMechanism::ScramSha512),
                ca_file: Some(ca_file),
                ..KafkaConfig::new(format!("127.0.0.1:{}", server.behind()))
            });
            let channel = open(&config, log.described(), None).await;
            let channel = channel.expect("a channel");
            let subscription = channel.subscribe().await.expect("subscribes");
            (channel, subscription)
        };
        let (channel, mut subscription) = opened(&identity.cert, "me", "hunter2").await;
        assert_eq!(channel.reach(), Reach::Up);
        let message = Message::bare_head(log.described().log_id, Lane(1), Position::new(7));
        channel.publish(message.clone());
        let said = timeout(PATIENCE, subscription.next()).await;
        assert_eq!(said, Ok(Some(Notice::Message(Arc::new(message)))));
        // A broker that this certificate does not vouch for, and users that the broker does not know.
        for (cert, user, password) in [
            (&stranger.cert, "me", "hunter2"),
            (&identity.cert, "me", "hunter3"),
            (&identity.cert, "you", "hunter2"),
        ] {
            let (channel, _subscription) = opened(cert, user, password).await;
            assert_eq!(channel.reach(), Reach::Down, "{user} {password}");
        }
    }
}

#[cfg(feature = "nats")]
mod nats {
    use stategate_channel::{NatsConfig, NatsMode};
    use stategate_servers::Nats;

    use super::*;

    fn config(port: u16, mode: NatsMode) -> ChannelConfig {
        ChannelConfig::Nats(NatsConfig::new(format!("nats://127.0.0.1:{port}"), mode))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn core() {
        let config = |port| config(port, NatsMode::Core);
        suite("nats, core", Nats::start(), 1 << 20, config).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn jetstream() {
        let config = |port| config(port, NatsMode::JetStream);
        suite("nats, JetStream", Nats::start(), 1 << 20, config).await;
    }
}

#[cfg(feature = "rabbitmq")]
mod rabbitmq {
    use stategate_channel::RabbitMqConfig;
    use stategate_servers::RabbitMq;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn fan_out() {
        let config =
            |port| ChannelConfig::RabbitMq(RabbitMqConfig::new(format!("amqp://127.0.0.1:{port}")));
        suite("rabbitmq", RabbitMq::start(), 4 << 20, config).await;
    }
}

#[cfg(feature = "redis")]
mod redis {
    use stategate_channel::{RedisConfig, RedisMode};
    use stategate_servers::Redis;

    use super::*;

    fn config(port: u16, mode: RedisMode) -> ChannelConfig {
        ChannelConfig::Redis(RedisConfig::new(format!("redis://127.0.0.1:{port}"), mode))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn streams() {
        let config = |port| config(port, RedisMode::Streams);
        suite("redis, streams", Redis::start(), 1 << 20, config).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn pubsub() {
        let config = |port| config(port, RedisMode::PubSub);
        suite("redis, pub/sub", Redis::start(), 1 << 20, config).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn streams_of_valkey() {
        let config = |port| config(port, RedisMode::Streams);
        suite("valkey, streams", Redis::start_valkey(), 1 << 20, config).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn pubsub_of_valkey() {
        let config = |port| config(port, RedisMode::PubSub);
        suite("valkey, pub/sub", Redis::start_valkey(), 1 << 20, config).await;
    }
}
