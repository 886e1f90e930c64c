//! The settings of a log in PostgreSQL, and how connections are made from them.

use std::{fmt, num::NonZeroU32, path::PathBuf, time::Duration};

use serde::Deserialize;
use stategate_model::{Lanes, times};
use tokio_postgres::config::{ChannelBinding, Host, SslMode, SslNegotiation, TargetSessionAttrs};

use crate::Result;

use super::{
    address::{Address, Mode, Trust, Version},
    failure::refused,
};

/// Settings of [`super::Postgres`]:
/// `{"name": "postgres", "addr": "postgres://user:password@host:5432/database", "lanes": 8}`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// A connection URL as libpq knows it, or its `key=value` pairs: several hosts may be named, and every
    /// parameter means what it means there, or is refused with what to write instead.
    pub addr: String,
    /// The schema the tables are in; made if it is not there. Several logs may share a database in
    /// schemas of their own.
    #[serde(default = "default_schema")]
    pub schema: String,
    /// How many lanes the log has, 1 to 64. Fixed when it is initialised (1 unless given here); given
    /// later, it must be the same.
    #[serde(default)]
    pub lanes: Option<u8>,
    /// Most connections that this process opens: 4 or more.
    #[serde(default = "default_connections")]
    pub connections: u16,
    /// How long a statement may run, in milliseconds.
    #[serde(default = "default_statement_timeout")]
    pub statement_timeout_ms: NonZeroU32,
    /// PEM file with the certificates that the server's is checked against, instead of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Whether a pooler that hands connections over between transactions (PgBouncer's transaction mode)
    /// stands in front of the database: statements are then not prepared, and nothing is set for
    /// a connection.
    #[serde(default)]
    pub pooler: bool,
    /// Whether there is a GIN index on the entities' values: searches for rare values become quick and
    /// every write dearer. Made and dropped at the start.
    #[serde(default)]
    pub gin: bool,
}

/// Fewest connections: writes, point reads, reads of the log and searches never wait for each other.
const LEAST_CONNECTIONS: u16 = 4;
/// How long a server that has taken a connection may take to encrypt it and to say who is let in.
const GREETING: Duration = Duration::from_secs(5);
/// How long sent bytes may stay unacknowledged before a connection counts as lost.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence after which the other side is asked whether it is still there, and between asking again.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Questions without an answer after which it is not.
const KEEPALIVES: u32 = 3;
/// How long a transaction may wait for its client: a stopped process holds nothing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest name of a schema, in bytes: PostgreSQL's own limit.
const SCHEMA_BYTES: usize = 63;

fn default_schema() -> String {
    "stategate".to_owned()
}

fn default_connections() -> u16 {
    12
}

fn default_statement_timeout() -> NonZeroU32 {
    const DEFAULT: NonZeroU32 = NonZeroU32::new(10_000).unwrap();
    const _: () = assert!(DEFAULT.get() as u128 == times::STATEMENT.as_millis());
    DEFAULT
}

impl PostgresConfig {
    /// For a database, with everything else as it is by default.
    pub fn new(addr: impl Into<String>) -> Self {
        Self {
            addr: addr.into(),
            schema: default_schema(),
            lanes: None,
            connections: default_connections(),
            statement_timeout_ms: default_statement_timeout(),
            ca_file: None,
            pooler: false,
            gin: false,
        }
    }

    /// Where the data is kept, without anything secret.
    pub(crate) fn location(&self) -> String {
        match self.parse() {
            Ok(Parsed { config, .. }) => format!(
                "PostgreSQL at {}, database {}, schema {}",
                hosts(&config),
                config
                    .get_dbname()
                    .or(config.get_user())
                    .unwrap_or("of the user's name"),
                self.schema
            ),
            Err(_) => "PostgreSQL".to_owned(),
        }
    }

    /// How long a statement may run.
    pub(super) fn statement_timeout(&self) -> Duration {
        Duration::from_millis(u64::from(self.statement_timeout_ms.get()))
    }

    /// The lanes asked for, if any.
    pub(super) fn asked_lanes(&self) -> Result<Option<Lanes>> {
        self.lanes
            .map(|lanes| Lanes::new(lanes).map_err(|invalid| refused(invalid.to_string())))
            .transpose()
    }

    /// Checks everything, and reads the address.
    pub(super) fn parse(&self) -> Result<Parsed> {
        let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let starts = |c: char| c.is_ascii_lowercase() || c == '_';
        let is_name = self.schema.starts_with(starts) && self.schema.chars().all(named);
        if !is_name || self.schema.len() > SCHEMA_BYTES || self.schema.starts_with("pg_") {
            return Err(refused(
                "`schema` must be 1 to 63 lower-case letters, digits and underscores, not start with a \
                 digit and not with `pg_`",
            ));
        }
        if self.connections < LEAST_CONNECTIONS {
            return Err(refused(format!(
                "`connections` is {}; it must be {LEAST_CONNECTIONS} or more",
                self.connections
            )));
        }
        let address = Address::parse(&self.addr)?;
        let tls = self.tls(&address)?;
        if self.pooler && address.options.is_some() {
            return Err(refused(
                "`addr` has `options`, and behind a pooler nothing is set for a connection; set it for the role, \
                 with ALTER ROLE",
            ));
        }
        let mut config = tokio_postgres::Config::new();
        for host in &address.hosts {
            config.host(host);
        }
        for host in &address.hostaddrs {
            config.hostaddr(*host);
        }
        for port in &address.ports {
            config.port(*port);
        }
        if let Some(user) = &address.user {
            config.user(user);
        }
        if let Some(password) = &address.password {
            config.password(password);
        }
        if let Some(database) = &address.dbname {
            config.dbname(database);
        }
        let connect = address.connect();
        config
            .application_name(address.application_name())
            .ssl_mode(tls.mode)
            .connect_timeout(connect)
            .keepalives(address.keepalives.unwrap_or(true))
            .keepalives_idle(address.keepalives_idle.unwrap_or(KEEPALIVE))
            .keepalives_interval(address.keepalives_interval.unwrap_or(KEEPALIVE))
            .keepalives_retries(address.keepalives_count.unwrap_or(KEEPALIVES));
        match address.tcp_user_timeout.unwrap_or(TCP_USER_TIMEOUT) {
            Duration::ZERO => {}
            timeout => {
                config.tcp_user_timeout(timeout);
            }
        }
        if let Some(negotiation) = address.sslnegotiation {
            config.ssl_negotiation(negotiation);
        }
        if let Some(binding) = address.channel_binding {
            config.channel_binding(binding);
        }
        if let Some(balance) = address.load_balance_hosts {
            config.load_balance_hosts(balance);
        }
        if address.takes_writes || !self.pooler {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        if !self.pooler {
            // Every statement has an index for what it looks up, and a plan that was made while a
            // table was small must serve when it is not.
            let set = format!(
                "-c statement_timeout={} -c lock_timeout={} \
                 -c idle_in_transaction_session_timeout={} -c jit=off \
                 -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off",
                self.statement_timeout_ms,
                self.lock_timeout().as_millis(),
                IDLE_TIMEOUT.as_millis()
            );
            let set = match &address.options {
                Some(given) => format!("{set} {given}"),
                None => set,
            };
            config.options(set);
        }
        let servers = u32::try_from(address.servers()).unwrap_or(u32::MAX);
        Ok(Parsed {
            config,
            tls,
            passfile: address.passfile,
            connect: connect.saturating_mul(servers).saturating_add(GREETING),
        })
    }

    /// How encryption is asked for. What would have no effect is refused.
    fn tls(&self, address: &Address) -> Result<Tls> {
        let given = address.sslrootcert.clone();
        if given.is_some() && self.ca_file.is_some() {
            return Err(refused(
                "`ca_file` and `sslrootcert` in `addr` say the same; give one of them",
            ));
        }
        let trust = given.or_else(|| self.ca_file.clone().map(Trust::File));
        let is_trusting = trust.is_some();
        let (mode, check) = match (address.sslmode, &trust) {
            (None, Some(_)) | (Some(Mode::VerifyFull), _) => (SslMode::Require, Check::Name),
            (None, None) | (Some(Mode::Prefer), None) => (SslMode::Prefer, Check::None),
            (Some(Mode::Disable), None) => (SslMode::Disable, Check::None),
            (Some(Mode::Require), None) => (SslMode::Require, Check::None),
            (Some(Mode::Require | Mode::VerifyCa), Some(Trust::System)) => {
                return Err(refused(
                    "`addr`: with `sslrootcert=system` anybody's certificate would do; set `sslmode=verify-full`",
                ));
            }
            // As with libpq: what to trust says that it is to be looked at.
            (Some(Mode::Require), Some(Trust::File(_))) | (Some(Mode::VerifyCa), _) => {
                (SslMode::Require, Check::Chain)
            }
            (Some(Mode::Disable | Mode::Prefer), Some(_)) => {
                return Err(refused(
                    "`addr` has an `sslmode` that checks no certificate, so what to check it against (`ca_file`, \
                     `sslrootcert`) has no effect; set `sslmode=verify-full`, or leave one of the two out",
                ));
            }
        };
        let asks = [
            (address.sslcert.is_some(), "sslcert"),
            (address.sslsni.is_some(), "sslsni"),
            (address.least_tls.is_some(), "ssl_min_protocol_version"),
            (address.most_tls.is_some(), "ssl_max_protocol_version"),
            (
                address.channel_binding == Some(ChannelBinding::Require),
                "channel_binding",
            ),
        ];
        if let (SslMode::Disable, Some((_, name))) = (mode, asks.iter().find(|(asked, _)| *asked)) {
            return Err(refused(format!(
                "`addr` has `{name}`, which has no effect with `sslmode=disable`; leave one of the two out"
            )));
        }
        if address.sslnegotiation == Some(SslNegotiation::Direct) && mode != SslMode::Require {
            return Err(refused(
                "`addr`: `sslnegotiation=direct` takes `sslmode=require`, verify-ca or verify-full",
            ));
        }
        if check == Check::Name && address.hosts.is_empty() {
            return Err(refused(
                "`addr` has `hostaddr` alone, and a certificate is checked against a name; give `host` too",
            ));
        }
        debug_assert!(!is_trusting || check != Check::None);
        Ok(Tls {
            mode,
            check,
            trust: trust.unwrap_or(Trust::System),
            identity: address.sslcert.clone().zip(address.sslkey.clone()),
            sni: address.sslsni.unwrap_or(true),
            least: address.least_tls,
            most: address.most_tls,
        })
    }

    /// How long a statement waits for a row that another holds: heads alone are waited for, and held for
    /// no longer than a statement of another process takes. Less than a statement may run, so that the
    /// server's word is about the row.
    fn lock_timeout(&self) -> Duration {
        let half = self.statement_timeout() / 2;
        times::LOCK.min(half).max(Duration::from_millis(1))
    }
}

/// Shows nothing that is secret.
impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("location", &self.location())
            .field("lanes", &self.lanes)
            .field("connections", &self.connections)
            .field("statement_timeout_ms", &self.statement_timeout_ms)
            .field("ca_file", &self.ca_file)
            .field("pooler", &self.pooler)
            .field("gin", &self.gin)
            .finish()
    }
}

/// An address that was understood.
pub(super) struct Parsed {
    pub(super) config: tokio_postgres::Config,
    pub(super) tls: Tls,
    /// Where the password is, if it is in a file.
    pub(super) passfile: Option<PathBuf>,
    /// How long a connection may take to be made, at whichever host.
    pub(super) connect: Duration,
}

/// How connections are encrypted.
#[derive(Debug)]
pub(super) struct Tls {
    mode: SslMode,
    pub(super) check: Check,
    pub(super) trust: Trust,
    /// The client's own certificate and key.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
    pub(super) sni: bool,
    pub(super) least: Option<Version>,
    pub(super) most: Option<Version>,
}

/// How a server's certificate is checked, as libpq's `sslmode` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// Not at all (`disable`, `prefer`, `require`): who listens is protected against, who stands
    /// between is not.
    None,
    /// Its chain (`verify-ca`).
    Chain,
    /// Its chain and its name (`verify-full`).
    Name,
}

/// The hosts of an address, for people.
pub(super) fn hosts(config: &tokio_postgres::Config) -> String {
    let name = |host: &Host| match host {
        Host::Tcp(name) => name.clone(),
        #[cfg(unix)]
        Host::Unix(path) => path.display().to_string(),
    };
    let hosts: Vec<String> = match config.get_hosts() {
        [] => config
            .get_hostaddrs()
            .iter()
            .map(ToString::to_string)
            .collect(),
        hosts => hosts.iter().map(name).collect(),
    };
    hosts.join(", ")
}

/// The servers of an address with their ports, for whoever starts the process.
pub(super) fn servers(config: &tokio_postgres::Config) -> String {
    let ports: Vec<String> = config.get_ports().iter().map(ToString::to_string).collect();
    match ports.as_slice() {
        [] => hosts(config),
        [port] => format!("{}, port {port}", hosts(config)),
        ports => format!("{}, ports {}", hosts(config), ports.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(addr: &str) -> Result<Parsed> {
        PostgresConfig::new(addr).parse()
    }

    #[test]
    fn the_password_is_shown_nowhere() {
        for addr in [
            "postgres://me:hunter2@db.example:5432/app?sslmode=verify-full",
            "postgres://me:hunter2@db.example:port/app",
            "host=db.example password=hunter2 sslmode=what",
            "postgres://me:hunter2@/app",
        ] {
            let config = PostgresConfig::new(addr);
            let mut shown = format!("{config:?} {}", config.location());
            if let Err(error) = config.parse() {
                shown.push_str(&error.to_string());
            }
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn ssl_modes_mean_what_they_mean_to_libpq() {
        let of = |mode: &str| {
            let parsed = parsed(&format!("postgres://me@db/app?sslmode={mode}")).unwrap();
            (parsed.config.get_ssl_mode(), parsed.tls.check)
        };
        assert_eq!(of("disable"), (SslMode::Disable, Check::None));
        assert_eq!(of("prefer"), (SslMode::Prefer, Check::None));
        assert_eq!(of("require"), (SslMode::Require, Check::None));
        assert_eq!(of("verify-ca"), (SslMode::Require, Check::Chain));
        assert_eq!(of("verify-full"), (SslMode::Require, Check::Name));
        assert!(parsed("postgres://me@db/app?sslmode=off").is_err());
        let mut config = PostgresConfig::new("postgres://me@db/app");
        config.ca_file = Some("ca.pem".into());
        assert_eq!(config.parse().unwrap().tls.check, Check::Name);
    }

    #[test]
    fn what_cannot_work_is_refused_by_its_name() {
        let problem = |change: fn(&mut PostgresConfig)| {
            let mut config = PostgresConfig::new("postgres://me@db/app");
            change(&mut config);
            config.parse().map(|_| ()).unwrap_err().to_string()
        };
        assert!(problem(|config| config.schema = "a\"b".to_owned()).contains("`schema`"));
        assert!(problem(|config| config.schema = "pg_x".to_owned()).contains("`schema`"));
        assert!(problem(|config| config.connections = 3).contains("`connections`"));
        assert!(problem(|config| config.addr = "db".to_owned()).contains("`addr`"));
    }
}
