//! Brokers under trial: each a server of one's own, and the channel's settings for it.

use std::{fmt, sync::Arc};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use serde_json::Value;
use stategate_servers::{Kafka, Missing, Nats, RabbitMq, Redis};
use tokio::task::spawn_blocking;

/// A broker that can be killed and stopped.
pub trait Broker: Send + Sync + 'static {
    /// Its process id, while it runs.
    fn pid(&self) -> Option<u32>;
    /// SIGKILL.
    fn kill(&self);
    /// Starts it again.
    fn restart(&self);
}

macro_rules! brokers {
    ($($server:ident),*) => {$(
        impl Broker for $server {
            fn pid(&self) -> Option<u32> {
                self.pid()
            }

            fn kill(&self) {
                self.kill();
            }

            fn restart(&self) {
                self.restart();
            }
        }
    )*};
}

brokers!(Kafka, Nats, RabbitMq, Redis);

/// How a broker goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// Killed: whoever asks is refused at once.
    Killed,
    /// Stopped: connections stay and nobody answers.
    Stopped,
}

/// A broker, and what carries messages over it.
#[derive(Clone)]
pub struct Carrier {
    name: &'static str,
    broker: Arc<dyn Broker>,
    channel: Value,
}

impl Carrier {
    /// A carrier over a broker that was started; `None`, said loudly, where there is no such server.
    pub fn over<B: Broker>(
        name: &'static str,
        broker: Result<B, Missing>,
        channel: impl Fn(&B) -> Value,
    ) -> Option<Self> {
        match broker {
            Ok(broker) => Some(Self {
                name,
                channel: channel(&broker),
                broker: Arc::new(broker),
            }),
            Err(missing) => {
                missing.report(name);
                None
            }
        }
    }

    /// For messages.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The channel's settings.
    pub fn channel(&self) -> &Value {
        &self.channel
    }

    /// Takes the broker away.
    pub async fn leave(&self, how: Absence) {
        match how {
            Absence::Killed => self.blocking(|broker| broker.kill()).await,
            Absence::Stopped => self.signal(Signal::SIGSTOP),
        }
    }

    /// Brings it back.
    pub async fn come_back(&self, from: Absence) {
        match from {
            Absence::Killed => self.blocking(|broker| broker.restart()).await,
            Absence::Stopped => self.signal(Signal::SIGCONT),
        }
    }

    async fn blocking(&self, what: fn(&dyn Broker)) {
        let broker = Arc::clone(&self.broker);
        spawn_blocking(move || what(&*broker))
            .await
            .expect("the broker does as it is told");
    }

    fn signal(&self, signal: Signal) {
        let pid = self.broker.pid().expect("a broker that runs");
        let pid = Pid::from_raw(i32::try_from(pid).expect("a process id"));
        signal::kill(pid, signal).expect("send a signal");
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
