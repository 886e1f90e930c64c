//! The settings of a channel over RabbitMQ.

use std::{num::NonZeroU32, path::PathBuf};

use lapin::{
    tcp::{OwnedIdentity, OwnedTLSConfig},
    uri::{AMQPScheme, AMQPUri},
};
use serde::Deserialize;

use crate::{
    Error,
    settings::{Address, Provider, Secret, max_bytes, prefix},
};

/// Settings of the RabbitMQ channel: `{"name": "rabbitmq", "addr": "amqp://host:5672"}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RabbitMqConfig {
    /// The broker: `amqp://user:password@host:port/vhost`, `amqps://` for TLS.
    pub addr: Address,
    /// What the exchange's name starts with; the log's id follows.
    #[serde(default = "prefix")]
    pub exchange: String,
    /// The user, if not in the address.
    #[serde(default)]
    pub user: Option<String>,
    /// The user's password.
    #[serde(default)]
    pub password: Option<Secret>,
    /// PEM file with the certificates that the broker's is checked against, beside the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// PEM file with a certificate that the client shows. Needs `key_file`.
    #[serde(default)]
    pub cert_file: Option<PathBuf>,
    /// PEM file with the key of that certificate.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// Most bytes that the queue of a process may come to hold; the oldest are dropped.
    #[serde(default = "max_bytes")]
    pub max_bytes: NonZeroU32,
}

const RABBITMQ: Provider = Provider("rabbitmq");
/// Seconds between two heartbeats, unless the address says otherwise.
const HEARTBEAT: u16 = 5;
/// Longest name: AMQP's limit is 255 bytes, of which a log's id takes 36 and the dot one.
const NAME_BYTES: usize = 200;

impl RabbitMqConfig {
    /// For a broker, with everything else as it is by default.
    pub fn new(addr: impl Into<Address>) -> Self {
        Self {
            addr: addr.into(),
            exchange: prefix(),
            user: None,
            password: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            max_bytes: max_bytes(),
        }
    }

    /// Checks everything that can be checked without a broker.
    pub(super) fn uri(&self) -> Result<AMQPUri, Error> {
        RABBITMQ.check_name("exchange", &self.exchange, "-_.:", NAME_BYTES)?;
        // The broker keeps these names for itself.
        if self.exchange.starts_with("amq.") {
            return RABBITMQ.refuse("`exchange` must not start with `amq.`");
        }
        RABBITMQ.check_pair(("user", &self.user), ("password", &self.password))?;
        RABBITMQ.check_identity(&self.cert_file, &self.key_file)?;
        // What the parser says may quote the address, and with it a password.
        let Ok(mut uri) = self.addr.expose().parse::<AMQPUri>() else {
            return RABBITMQ.refuse("`addr` must be a URL such as amqp://host:5672");
        };
        let has_files = self.ca_file.is_some() || self.cert_file.is_some();
        if uri.scheme == AMQPScheme::AMQP && has_files {
            return RABBITMQ.refuse("`ca_file` and `cert_file` are for amqps:// addresses");
        }
        if let (Some(user), Some(password)) = (&self.user, &self.password) {
            uri.authority.userinfo.username.clone_from(user);
            password
                .expose()
                .clone_into(&mut uri.authority.userinfo.password);
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        Ok(uri)
    }

    /// Reads the files.
    pub(super) async fn tls(&self) -> Result<OwnedTLSConfig, Error> {
        let mut tls = OwnedTLSConfig::default();
        if let Some(file) = &self.ca_file {
            let Ok(chain) = String::from_utf8(RABBITMQ.read("ca_file", file).await?) else {
                return RABBITMQ.refuse("`ca_file` is not PEM");
            };
            tls.cert_chain = Some(chain);
        }
        if let (Some(cert), Some(key)) = (&self.cert_file, &self.key_file) {
            tls.identity = Some(OwnedIdentity::PKCS8 {
                pem: RABBITMQ.read("cert_file", cert).await?,
                key: RABBITMQ.read("key_file", key).await?,
            });
        }
        Ok(tls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked_and_secrets_not_shown() {
        let parse = |json: &str| serde_json::from_str::<RabbitMqConfig>(json).unwrap();
        for good in [
            r#"{"addr":"amqp://me:hunter2@host:5672/%2f"}"#,
            r#"{"addr":"amqps://host","user":"me","password":"hunter2","ca_file":"x"}"#,
        ] {
            let config = parse(good);
            let uri = config.uri().unwrap();
            assert_eq!(uri.authority.userinfo.password, "hunter2");
            assert_eq!(uri.query.heartbeat, Some(HEARTBEAT));
            assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
        }
        for bad in [
            r#"{"addr":"hunter2"}"#,
            r#"{"addr":"http://hunter2"}"#,
            r#"{"addr":"amqp://h","exchange":""}"#,
            r#"{"addr":"amqp://h","exchange":"amq.x"}"#,
            r#"{"addr":"amqp://h","exchange":"a b"}"#,
            r#"{"addr":"amqp://h","user":"me"}"#,
            r#"{"addr":"amqp://h","ca_file":"x"}"#,
            r#"{"addr":"amqps://h","key_file":"x"}"#,
        ] {
            let refused = parse(bad).uri().unwrap_err().to_string();
            assert!(!refused.contains("hunter2"), "{refused}");
        }
        for bad in [r#"{"addr":"h","adr":1}"#, "{}"] {
            assert!(
                serde_json::from_str::<RabbitMqConfig>(bad).is_err(),
                "{bad}"
            );
        }
    }
}
