//! The settings of a channel over NATS.

use std::{num::NonZeroU32, path::PathBuf};

use async_nats::{ConnectOptions, ServerAddr};
use serde::Deserialize;

use crate::{
    Error,
    settings::{Address, Provider, Secret, max_bytes, prefix},
};

/// Settings of the NATS channel: `{"name": "nats", "addr": "nats://host:4222"}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsConfig {
    /// Addresses of servers of one cluster, separated by commas. `tls://` asks for TLS. A user and password
    /// may stand before an `@`.
    pub addr: Address,
    /// Core NATS or JetStream.
    #[serde(default)]
    pub mode: NatsMode,
    /// What subjects start with; the log's id follows.
    #[serde(default = "prefix")]
    pub subject: String,
    /// The user, if not in the address.
    #[serde(default)]
    pub user: Option<String>,
    /// The user's password.
    #[serde(default)]
    pub password: Option<Secret>,
    /// A token instead of a user.
    #[serde(default)]
    pub token: Option<Secret>,
    /// A file with a JWT and an nkey seed (`.creds`) instead of a user.
    #[serde(default)]
    pub credentials_file: Option<PathBuf>,
    /// PEM file with the certificates that the server's is checked against, beside the system's. Asks for
    /// TLS.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// PEM file with a certificate that the client shows. Needs `key_file`.
    #[serde(default)]
    pub cert_file: Option<PathBuf>,
    /// PEM file with the key of that certificate.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// JetStream: most bytes that the stream keeps, in the servers' memory.
    #[serde(default = "max_bytes")]
    pub max_bytes: NonZeroU32,
    /// JetStream: on how many servers.
    #[serde(default = "default_replicas")]
    pub replicas: NonZeroU32,
}

/// What carries the messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NatsMode {
    /// Core NATS: whoever listens gets it, at once.
    #[default]
    Core,
    /// A JetStream stream in the servers' memory: publishing is acknowledged, and a process that falls
    /// behind for a moment catches up.
    JetStream,
}

const NATS: Provider = Provider("nats");
const SUBJECT_BYTES: usize = 64;

fn default_replicas() -> NonZeroU32 {
    NonZeroU32::MIN
}

impl NatsConfig {
    /// For servers, with everything else as it is by default.
    pub fn new(addr: impl Into<Address>, mode: NatsMode) -> Self {
        Self {
            addr: addr.into(),
            mode,
            subject: prefix(),
            user: None,
            password: None,
            token: None,
            credentials_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            max_bytes: max_bytes(),
            replicas: default_replicas(),
        }
    }

    /// Checks everything that can be checked without a server.
    pub(super) fn check(&self) -> Result<Vec<ServerAddr>, Error> {
        NATS.check_name("subject", &self.subject, "-_.", SUBJECT_BYTES)?;
        if self.subject.split('.').any(str::is_empty) {
            return NATS.refuse("`subject` must have something before and after every dot");
        }
        let ways = [
            self.user.is_some(),
            self.token.is_some(),
            self.credentials_file.is_some(),
        ];
        if ways.into_iter().filter(|is_set| *is_set).count() > 1 {
            return NATS
                .refuse("`user`, `token` and `credentials_file` exclude each other; keep one");
        }
        NATS.check_pair(("user", &self.user), ("password", &self.password))?;
        NATS.check_identity(&self.cert_file, &self.key_file)?;
        let addresses: Option<Vec<ServerAddr>> = self
            .addr
            .expose()
            .split(',')
            .map(str::trim)
            .map(|address| address.parse().ok().filter(|_| !address.is_empty()))
            .collect();
        // What the parser says may quote the address, and with it a password.
        match addresses {
            Some(addresses) => Ok(addresses),
            None => NATS.refuse(
                "`addr` must be a URL such as nats://host:4222, or several with commas between",
            ),
        }
    }

    /// Everything about a connection but what is told of it. Reads the credentials, which may be others
    /// than last time.
    pub(super) async fn options(&self) -> std::io::Result<ConnectOptions> {
        let mut options = ConnectOptions::new().name("stategate");
        if let (Some(user), Some(password)) = (&self.user, &self.password) {
            options = options.user_and_password(user.clone(), password.expose().to_owned());
        }
        if let Some(token) = &self.token {
            options = options.token(token.expose().to_owned());
        }
        if let Some(file) = &self.credentials_file {
            options = options.credentials_file(file).await?;
        }
        if let Some(file) = &self.ca_file {
            options = options
                .add_root_certificates(file.clone())
                .require_tls(true);
        }
        if let (Some(cert), Some(key)) = (&self.cert_file, &self.key_file) {
            options = options.add_client_certificate(cert.clone(), key.clone());
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked_and_secrets_not_shown() {
        let parse = |json: &str| serde_json::from_str::<NatsConfig>(json).unwrap();
        let config = parse(
            r#"{"addr":"tls://me:hunter2@one:4222, two","mode":"jetstream","subject":"a.b-c"}"#,
        );
        assert_eq!(config.check().unwrap().len(), 2);
        assert_eq!(config.mode, NatsMode::JetStream);
        assert!(!format!("{config:?}").contains("hunter2"));
        let config = parse(r#"{"addr":"h","user":"me","password":"hunter2"}"#);
        assert!(config.check().is_ok());
        assert!(!format!("{config:?}").contains("hunter2"));
        for bad in [
            r#"{"addr":""}"#,
            r#"{"addr":"http://hunter2"}"#,
            r#"{"addr":"h","subject":"a.*"}"#,
            r#"{"addr":"h","subject":"a..b"}"#,
            r#"{"addr":"h","user":"me"}"#,
            r#"{"addr":"h","user":"me","password":"x","token":"y"}"#,
            r#"{"addr":"h","key_file":"x"}"#,
        ] {
            let refused = parse(bad).check().unwrap_err().to_string();
            assert!(!refused.contains("hunter2"), "{refused}");
        }
        for bad in [
            r#"{"addr":"h","mode":"stan"}"#,
            r#"{"addr":"h","adr":1}"#,
            "{}",
        ] {
            assert!(serde_json::from_str::<NatsConfig>(bad).is_err(), "{bad}");
        }
    }
}
