//! The settings of a channel over Redis.

use std::{num::NonZeroU32, path::PathBuf};

use ::redis::{Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo as _, TlsCertificates};
use serde::Deserialize;

use crate::{
    Error,
    settings::{Address, Provider, Secret, prefix},
};

/// Settings of the Redis channel: `{"name": "redis", "addr": "redis://host:6379"}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// The server: `redis://user:password@host:port`, `rediss://` for TLS.
    pub addr: Address,
    /// Streams or pub/sub.
    #[serde(default)]
    pub mode: RedisMode,
    /// What the key of the stream, or the name of the pub/sub channel, starts with; the log's id
    /// follows.
    #[serde(default = "prefix")]
    pub key: String,
    /// The user, if not in the address.
    #[serde(default)]
    pub user: Option<String>,
    /// The password, if not in the address.
    #[serde(default)]
    pub password: Option<Secret>,
    /// PEM file with the certificates that the server's is checked against, instead of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// PEM file with a certificate that the client shows. Needs `key_file`.
    #[serde(default)]
    pub cert_file: Option<PathBuf>,
    /// PEM file with the key of that certificate.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// Streams: how many messages are kept, about; at least 128.
    #[serde(default = "default_max_len")]
    pub max_len: NonZeroU32,
}

/// What carries the messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RedisMode {
    /// A stream of bounded length.
    #[default]
    Streams,
    /// Pub/sub: nothing is kept.
    PubSub,
}

const REDIS: Provider = Provider("redis");
const KEY_BYTES: usize = 64;
/// Shortest stream: twice what is read at once, so that falling behind is noticed before it is trimmed.
const LEAST_LEN: u32 = 128;

fn default_max_len() -> NonZeroU32 {
    const DEFAULT: NonZeroU32 = NonZeroU32::new(1_024).unwrap();
    DEFAULT
}

impl RedisConfig {
    /// For a server, with everything else as it is by default.
    pub fn new(addr: impl Into<Address>, mode: RedisMode) -> Self {
        Self {
            addr: addr.into(),
            mode,
            key: prefix(),
            user: None,
            password: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            max_len: default_max_len(),
        }
    }

    fn check(&self) -> Result<(), Error> {
        REDIS.check_name("key", &self.key, "-_.:{}", KEY_BYTES)?;
        if self.max_len.get() < LEAST_LEN {
            return REDIS.refuse("`max_len` must be 128 or more");
        }
        if self.user.is_some() && self.password.is_none() {
            return REDIS.refuse("`user` needs a `password`");
        }
        REDIS.check_identity(&self.cert_file, &self.key_file)
    }

    /// Checks everything that can be checked without a server, and reads the files.
    pub(super) async fn client(&self) -> Result<Client, Error> {
        self.check()?;
        // What the parser says may quote the address, and with it a password.
        let Ok(info) = self.addr.expose().into_connection_info() else {
            return REDIS.refuse("`addr` must be a URL such as redis://host:6379");
        };
        let mut settings = info.redis_settings().clone().set_lib_name("stategate", "1");
        if let Some(user) = &self.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password.expose());
        }
        let is_tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        let has_files = self.ca_file.is_some() || self.cert_file.is_some();
        let info = info.set_redis_settings(settings);
        let client = if is_tls {
            let client_tls = match (&self.cert_file, &self.key_file) {
                (Some(cert), Some(key)) => Some(ClientTlsConfig {
                    client_cert: REDIS.read("cert_file", cert).await?,
                    client_key: REDIS.read("key_file", key).await?,
                }),
                _ => None,
            };
            let root_cert = match &self.ca_file {
                Some(file) => Some(REDIS.read("ca_file", file).await?),
                None => None,
            };
            let certificates = TlsCertificates {
                client_tls,
                root_cert,
            };
            Client::build_with_tls(info, certificates)
        } else if has_files {
            return REDIS.refuse("`ca_file` and `cert_file` are for rediss:// addresses");
        } else {
            Client::open(info)
        };
        client.or_else(|error| REDIS.refuse(format_args!("`addr` or the certificates: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn settings_are_checked_and_secrets_not_shown() {
        let parse = |json: &str| serde_json::from_str::<RedisConfig>(json).unwrap();
        for good in [
            r#"{"addr":"redis://me:hunter2@host:6379/1","mode":"pubsub"}"#,
            r#"{"addr":"rediss://host","user":"me","password":"hunter2","key":"app:{a}"}"#,
        ] {
            let config = parse(good);
            assert!(config.client().await.is_ok(), "{good}");
            assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
        }
        for bad in [
            r#"{"addr":"hunter2"}"#,
            r#"{"addr":"http://hunter2"}"#,
            r#"{"addr":"redis://h","key":""}"#,
            r#"{"addr":"redis://h","key":"a b"}"#,
            r#"{"addr":"redis://h","user":"me"}"#,
            r#"{"addr":"redis://h","max_len":10}"#,
            r#"{"addr":"redis://h","ca_file":"x"}"#,
            r#"{"addr":"rediss://h","ca_file":"nowhere"}"#,
            r#"{"addr":"rediss://h","key_file":"x"}"#,
        ] {
            let refused = parse(bad)
                .client()
                .await
                .map(|_| ())
                .unwrap_err()
                .to_string();
            assert!(!refused.contains("hunter2"), "{refused}");
        }
        for bad in [
            r#"{"addr":"h","mode":"list"}"#,
            r#"{"addr":"h","adr":1}"#,
            "{}",
        ] {
            assert!(serde_json::from_str::<RedisConfig>(bad).is_err(), "{bad}");
        }
    }
}
