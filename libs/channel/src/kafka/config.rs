//! The settings of a channel over Kafka.

use std::{
    num::{NonZeroU16, NonZeroU32},
    path::PathBuf,
};

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};
use serde::Deserialize;

use crate::{
    Error,
    settings::{Address, Provider, Secret, max_bytes, prefix},
};

/// Settings of the Kafka channel: `{"name": "kafka", "addr": "host:9092"}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// Brokers of one cluster to begin with, `host:port`, separated by commas.
    pub addr: Address,
    /// What the topic's name starts with; the log's id follows.
    #[serde(default = "prefix")]
    pub topic: String,
    /// How the brokers are spoken to.
    #[serde(default)]
    pub security: KafkaSecurity,
    /// The user.
    #[serde(default)]
    pub user: Option<String>,
    /// The user's password.
    #[serde(default)]
    pub password: Option<Secret>,
    /// How the user says who they are.
    #[serde(default)]
    pub mechanism: Option<KafkaMechanism>,
    /// PEM file with the certificates that the brokers' are checked against, instead of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// PEM file with a certificate that the client shows. Needs `key_file`.
    #[serde(default)]
    pub cert_file: Option<PathBuf>,
    /// PEM file with the key of that certificate.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// How long the topic keeps messages at least, if `max_bytes` lets it.
    #[serde(default = "default_retention")]
    pub retention_seconds: NonZeroU32,
    /// Bytes that the topic keeps, about.
    #[serde(default = "max_bytes")]
    pub max_bytes: NonZeroU32,
    /// On how many brokers; the cluster's default, if not said.
    #[serde(default)]
    pub replicas: Option<NonZeroU16>,
}

/// How brokers are spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KafkaSecurity {
    /// In the clear.
    #[default]
    Plaintext,
    /// Over TLS. Needs the feature `kafka-tls`.
    Tls,
}

/// How a user says who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum KafkaMechanism {
    /// By the password itself.
    #[serde(rename = "plain")]
    Plain,
    /// By a proof of knowing it. Needs the feature `kafka-tls`.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// By a proof of knowing it. Needs the feature `kafka-tls`.
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

impl KafkaMechanism {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

pub(super) const KAFKA: Provider = Provider("kafka");
/// Longest name: Kafka's limit is 249 characters, of which a log's id takes 36 and the dot one.
const NAME_BYTES: usize = 200;
/// Fewest bytes that a topic keeps: its parts are a quarter of it, and the least that Kafka takes is 1 MiB.
const LEAST_BYTES: u32 = 4 << 20;
/// Whether this build has OpenSSL, which TLS and SCRAM rest on.
const HAS_TLS: bool = cfg!(feature = "kafka-tls");

fn default_retention() -> NonZeroU32 {
    const DEFAULT: NonZeroU32 = NonZeroU32::new(60).unwrap();
    DEFAULT
}

impl KafkaConfig {
    /// For brokers, with everything else as it is by default.
    pub fn new(addr: impl Into<Address>) -> Self {
        Self {
            addr: addr.into(),
            topic: prefix(),
            security: KafkaSecurity::default(),
            user: None,
            password: None,
            mechanism: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            retention_seconds: default_retention(),
            max_bytes: max_bytes(),
            replicas: None,
        }
    }

    fn check(&self) -> Result<(), Error> {
        KAFKA.check_name("topic", &self.topic, "-_.", NAME_BYTES)?;
        let mut brokers = self.addr.expose().split(',');
        if !brokers.all(|broker| is_broker(broker.trim())) {
            return KAFKA.refuse("`addr` must be one or several host:port, with commas between");
        }
        if self.max_bytes.get() < LEAST_BYTES {
            return KAFKA.refuse("`max_bytes` must be 4194304 or more");
        }
        KAFKA.check_pair(("user", &self.user), ("password", &self.password))?;
        if self.user.is_some() != self.mechanism.is_some() {
            return KAFKA
                .refuse("a `user` needs a `mechanism`: plain, scram-sha-256 or scram-sha-512");
        }
        KAFKA.check_identity(&self.cert_file, &self.key_file)?;
        let is_tls = self.security == KafkaSecurity::Tls;
        if !is_tls && (self.ca_file.is_some() || self.cert_file.is_some()) {
            return KAFKA.refuse("`ca_file` and `cert_file` are for \"security\":\"tls\"");
        }
        let is_plain = matches!(self.mechanism, None | Some(KafkaMechanism::Plain));
        if !HAS_TLS && (is_tls || !is_plain) {
            return KAFKA
                .refuse("TLS and SCRAM are not in this build; build with the feature `kafka-tls`");
        }
        Ok(())
    }

    /// Checks everything that can be checked without a broker, and says it to the driver.
    pub(super) fn client(&self) -> Result<ClientConfig, Error> {
        self.check()?;
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", self.addr.expose())
            .set("client.id", "stategate")
            // A topic made that way would keep messages for days.
            .set("allow.auto.create.topics", "false")
            .set("socket.nagle.disable", "true")
            .set("socket.keepalive.enable", "true")
            .set("socket.timeout.ms", "10000")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "2000")
            .set_log_level(RDKafkaLogLevel::Warning);
        let protocol = match (self.security, &self.user) {
            (KafkaSecurity::Plaintext, None) => "plaintext",
            (KafkaSecurity::Plaintext, Some(_)) => "sasl_plaintext",
            (KafkaSecurity::Tls, None) => "ssl",
            (KafkaSecurity::Tls, Some(_)) => "sasl_ssl",
        };
        client.set("security.protocol", protocol);
        if let (Some(user), Some(password), Some(mechanism)) =
            (&self.user, &self.password, self.mechanism)
        {
            client
                .set("sasl.mechanism", mechanism.name())
                .set("sasl.username", user)
                .set("sasl.password", password.expose());
        }
        for (property, field, file) in [
            ("ssl.ca.location", "ca_file", &self.ca_file),
            ("ssl.certificate.location", "cert_file", &self.cert_file),
            ("ssl.key.location", "key_file", &self.key_file),
        ] {
            let Some(file) = file else { continue };
            let Some(path) = file.to_str() else {
                return KAFKA.refuse(format_args!("`{field}` must be a path in UTF-8"));
            };
            client.set(property, path);
        }
        Ok(client)
    }
}

/// Whether this is `host:port`. Anything before an `@` would be a password in the wrong place.
fn is_broker(broker: &str) -> bool {
    let host = broker.rsplit_once(':').filter(|(host, port)| {
        let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
        is_port && !host.is_empty()
    });
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
    host.is_some_and(|(host, _)| host.chars().all(legal))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> KafkaConfig {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn settings_are_checked_and_secrets_not_shown() {
        for good in [
            r#"{"addr":"one:9092, [::1]:9093"}"#,
            r#"{"addr":"h:1","user":"me","password":"hunter2","mechanism":"plain"}"#,
        ] {
            let config = parse(good);
            let client = config.client().unwrap();
            assert_eq!(client.get("sasl.password").is_some(), config.user.is_some());
            assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
        }
        for bad in [
            r#"{"addr":"hunter2"}"#,
            r#"{"addr":"me:hunter2@h:9092"}"#,
            r#"{"addr":"h:1,"}"#,
            r#"{"addr":"kafka://h:1"}"#,
            r#"{"addr":"h:1","topic":""}"#,
            r#"{"addr":"h:1","topic":"a b"}"#,
            r#"{"addr":"h:1","max_bytes":1000}"#,
            r#"{"addr":"h:1","user":"me","mechanism":"plain"}"#,
            r#"{"addr":"h:1","user":"me","password":"hunter2"}"#,
            r#"{"addr":"h:1","mechanism":"plain"}"#,
            r#"{"addr":"h:1","ca_file":"x"}"#,
            r#"{"addr":"h:1","security":"tls","key_file":"x"}"#,
        ] {
            let refused = parse(bad).client().unwrap_err().to_string();
            assert!(!refused.contains("hunter2"), "{refused}");
        }
        for bad in [
            r#"{"addr":"h:1","security":"ssl"}"#,
            r#"{"addr":"h:1","mechanism":"gssapi"}"#,
            r#"{"addr":"h:1","adr":1}"#,
            "{}",
        ] {
            assert!(serde_json::from_str::<KafkaConfig>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_rests_on_openssl_is_taken_where_it_is_there() {
        for json in [
            r#"{"addr":"h:1","security":"tls"}"#,
            r#"{"addr":"h:1","user":"me","password":"x","mechanism":"scram-sha-256"}"#,
        ] {
            let problem = parse(json).client().map(drop).map_err(|e| e.to_string());
            assert_eq!(problem.is_ok(), HAS_TLS, "{problem:?}");
            assert!(problem.is_ok() || problem.unwrap_err().contains("kafka-tls"));
        }
    }
}
