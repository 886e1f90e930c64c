//! Real databases, brokers and an OpenID provider for tests: started on free ports from what the machine has, gone with
//! the process that started them.
//!
//! Knows nothing of stategate. What a machine lacks is a failure where `CI` is set; elsewhere the
//! tests say loudly what they did not cover (see [`Missing`]).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "support for tests: a broken set-up fails the test"
)]

mod account;
mod broker;
mod daemon;
pub mod issuer;
mod janitor;
mod kafka;
mod nats;
mod oidc;
mod pgbouncer;
mod ports;
mod postgres;
mod proxy;
mod rabbitmq;
mod redis;

use std::{fmt, time::Duration};

pub use self::{
    account::postgres_group,
    broker::{Absence, Broker},
    issuer::Issuer,
    kafka::Kafka,
    nats::Nats,
    oidc::Oidc,
    pgbouncer::PgBouncer,
    ports::free_port,
    postgres::Postgres,
    proxy::{Answers, Proxy},
    rabbitmq::RabbitMq,
    redis::Redis,
};

/// How long a server may take to start, or to end.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A server that is not installed here.
#[derive(Debug, Clone)]
pub struct Missing {
    /// Which.
    pub server: &'static str,
    /// How to install it.
    pub install: &'static str,
}

impl Missing {
    /// Says what is not covered, or fails where everything has to be.
    pub fn report(&self, what: &str) {
        assert!(std::env::var_os("CI").is_none(), "{what}: {self}");
        eprintln!("\n!!!! NOT COVERED: {what}: {self}\n");
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not here; {}", self.server, self.install)
    }
}
