//! Brokers under trial: each a server of one's own, and the channel's settings for it.

use std::{fmt, sync::Arc};

use serde_json::Value;
use stategate_servers::{Absence, Broker, Missing};
use tokio::task::spawn_blocking;

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
        self.blocking(move |broker| broker.leave(how)).await;
    }

    /// Brings it back.
    pub async fn come_back(&self, from: Absence) {
        self.blocking(move |broker| broker.come_back(from)).await;
    }

    async fn blocking(&self, what: impl FnOnce(&dyn Broker) + Send + 'static) {
        let broker = Arc::clone(&self.broker);
        spawn_blocking(move || what(&*broker))
            .await
            .expect("the broker does as it is told");
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
