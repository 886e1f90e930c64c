//! The parameters of an address: which there are, what each takes, and what stands for those that others
//! know and this does not.

use std::{path::PathBuf, time::Duration};

use stategate_model::times;
use tokio_postgres::config::{ChannelBinding, LoadBalanceHosts, SslNegotiation};

use crate::Result;

use super::{super::failure::refused, Address, DEFAULT_PORT, ENCODE, Mode, Trust, Version};

/// What others take and this does not, and what to write instead.
const ELSEWHERE: &[(&[&str], &str)] = &[
    (
        &["schema", "currentschema", "search_path", "searchpath"],
        "name the schema beside `addr`, with \"schema\"",
    ),
    (
        &[
            "pgbouncer",
            "pooler",
            "prepared_statements",
            "preparethreshold",
            "statement_cache_size",
            "statement_cache_capacity",
            "statement_cache_mode",
            "default_query_exec_mode",
            "binary_parameters",
        ],
        "behind a pooler set \"pooler\": true beside `addr`",
    ),
    (
        &[
            "connection_limit",
            "pool_size",
            "max_connections",
            "pool_max_conns",
            "pool_min_conns",
            "maxpoolsize",
            "max_pool_size",
        ],
        "set the number of connections beside `addr`, with \"connections\"",
    ),
    (
        &[
            "statement_timeout",
            "socket_timeout",
            "sockettimeout",
            "command_timeout",
            "query_timeout",
        ],
        "set it beside `addr`, with \"statement_timeout_ms\"",
    ),
    (
        &["pool_timeout", "logintimeout", "timeout"],
        "leave it out, or set `connect_timeout`, in seconds",
    ),
    (
        &[
            "lock_timeout",
            "idle_in_transaction_session_timeout",
            "synchronous_commit",
        ],
        "it is set by stategate; leave it out",
    ),
    (
        &["ssl", "requiressl", "sslaccept", "tls", "sslmode_require"],
        "use `sslmode`: disable, prefer, require, verify-ca or verify-full",
    ),
    (
        &["sslidentity", "sslpassword", "sslfactory"],
        "give the client's certificate with `sslcert` and its key, in PEM form and without a passphrase, with `sslkey`",
    ),
    (
        &["sslcrl", "sslcrldir"],
        "lists of revoked certificates are not read; leave it out",
    ),
    (
        &[
            "sslkeylogfile",
            "sslcertmode",
            "sslcompression",
            "gsslib",
            "krbsrvname",
            "gssdelegation",
            "requirepeer",
            "require_auth",
            "scram_client_key",
            "scram_server_key",
            "min_protocol_version",
            "max_protocol_version",
            "oauth_issuer",
            "oauth_client_id",
            "oauth_client_secret",
            "oauth_scope",
        ],
        "it is not supported; leave it out",
    ),
    (
        &["service", "servicefile"],
        "service files are not read; write out what it stands for",
    ),
    (
        &["replication"],
        "a log is not kept over a replication connection; leave it out",
    ),
];
impl Address {
    /// Takes a parameter, the last of its name winning as with libpq.
    pub(super) fn take(&mut self, name: &str, value: &str, shown: Shown) -> Result<()> {
        match name {
            "host" => self.hosts = value.split(',').map(str::to_owned).collect(),
            "hostaddr" => {
                let read = |one: &str| one.parse().map_err(|_| wrong("hostaddr", "IP addresses"));
                self.hostaddrs = value.split(',').map(read).collect::<Result<_>>()?;
            }
            "port" => {
                let read = |one: &str| match one.is_empty() {
                    true => Ok(DEFAULT_PORT),
                    false => port_of(one),
                };
                self.ports = value.split(',').map(read).collect::<Result<_>>()?;
            }
            "user" => self.user = Some(value.to_owned()),
            "password" => self.password = Some(value.as_bytes().to_vec()),
            "passfile" => self.passfile = Some(PathBuf::from(value)),
            "dbname" => self.dbname = Some(value.to_owned()),
            "application_name" => self.application_name = Some(value.to_owned()),
            "fallback_application_name" => self.fallback_application_name = Some(value.to_owned()),
            "options" => self.options = Some(checked_options(value)?),
            "connect_timeout" => {
                self.connect_timeout = Some(seconds("connect_timeout", value)?);
            }
            "keepalives" => self.keepalives = Some(flag("keepalives", value)?),
            "keepalives_idle" => {
                self.keepalives_idle = Some(seconds("keepalives_idle", value)?);
            }
            "keepalives_interval" => {
                self.keepalives_interval = Some(seconds("keepalives_interval", value)?);
            }
            "keepalives_count" | "keepalives_retries" => {
                let count = value.parse().ok().filter(|count| (1..=100).contains(count));
                self.keepalives_count = Some(
                    count.ok_or_else(|| wrong("keepalives_count", "an integer from 1 to 100"))?,
                );
            }
            "tcp_user_timeout" => {
                let millis = value.parse::<u32>();
                let millis =
                    millis.map_err(|_| wrong("tcp_user_timeout", "an integer of milliseconds"))?;
                self.tcp_user_timeout = Some(Duration::from_millis(u64::from(millis)));
            }
            "sslmode" => {
                self.sslmode = Some(match value {
                    "disable" => Mode::Disable,
                    "prefer" => Mode::Prefer,
                    "require" => Mode::Require,
                    "verify-ca" => Mode::VerifyCa,
                    "verify-full" => Mode::VerifyFull,
                    _ => {
                        return Err(refused(
                            "`addr` has an `sslmode` that is not disable, prefer, require, verify-ca or verify-full",
                        ));
                    }
                });
            }
            "sslrootcert" => {
                self.sslrootcert = Some(match value {
                    "system" => Trust::System,
                    path => Trust::File(PathBuf::from(path)),
                });
            }
            "sslcert" => self.sslcert = Some(PathBuf::from(value)),
            "sslkey" => self.sslkey = Some(PathBuf::from(value)),
            "sslsni" => self.sslsni = Some(flag("sslsni", value)?),
            "sslnegotiation" => {
                self.sslnegotiation = Some(match value {
                    "postgres" => SslNegotiation::Postgres,
                    "direct" => SslNegotiation::Direct,
                    _ => return Err(wrong("sslnegotiation", "postgres or direct")),
                });
            }
            "ssl_min_protocol_version" => {
                self.least_tls = Some(tls_version("ssl_min_protocol_version", value)?)
            }
            "ssl_max_protocol_version" => {
                self.most_tls = Some(tls_version("ssl_max_protocol_version", value)?)
            }
            "channel_binding" => {
                self.channel_binding = Some(match value {
                    "disable" => ChannelBinding::Disable,
                    "prefer" => ChannelBinding::Prefer,
                    "require" => ChannelBinding::Require,
                    _ => return Err(wrong("channel_binding", "disable, prefer or require")),
                });
            }
            "load_balance_hosts" => {
                self.load_balance_hosts = Some(match value {
                    "disable" => LoadBalanceHosts::Disable,
                    "random" => LoadBalanceHosts::Random,
                    _ => return Err(wrong("load_balance_hosts", "disable or random")),
                });
            }
            "target_session_attrs" => match value {
                "read-write" | "primary" | "any" => self.takes_writes = value != "any",
                "read-only" | "standby" | "prefer-standby" => {
                    return Err(refused(
                        "`addr`: `target_session_attrs` asks for a server that takes no writes, and a log is written \
                         to; leave it out, or say read-write",
                    ));
                }
                _ => return Err(wrong("target_session_attrs", "read-write, primary or any")),
            },
            // What is not spoken here is what both of these allow.
            "gssencmode" => match value {
                "disable" | "prefer" => {}
                "require" => {
                    return Err(refused(
                        "`addr`: `gssencmode=require` is not supported; encrypt with `sslmode` and leave it out",
                    ));
                }
                _ => return Err(wrong("gssencmode", "disable or prefer")),
            },
            "client_encoding" => {
                let plain: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
                if !["utf8", "unicode"].contains(&plain.to_ascii_lowercase().as_str()) {
                    return Err(refused(
                        "`addr`: `client_encoding` is always UTF8; leave it out",
                    ));
                }
            }
            _ => return Err(unknown(name, shown)),
        }
        Ok(())
    }
}

/// Whether the name of a parameter may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// If it looks like one.
    IfName,
    /// It may be a piece of a password.
    Never,
}

fn unknown(name: &str, shown: Shown) -> crate::Error {
    let lower = name.to_ascii_lowercase();
    if let Some((name, instead)) = ELSEWHERE
        .iter()
        .find_map(|(names, instead)| Some((names.iter().find(|name| **name == lower)?, instead)))
    {
        return refused(format!(
            "`addr`: the parameter `{name}` is not taken; {instead}"
        ));
    }
    let is_name = name.len() <= 40
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if shown == Shown::IfName && is_name {
        return refused(format!(
            "`addr`: the parameter `{name}` is not known; leave it out. Those that are known are in the README of \
             the provider"
        ));
    }
    refused(format!(
        "`addr` has a parameter that is not known, or its password is not written as it has to be: {ENCODE}; among \
         key=value pairs it stands in single quotes"
    ))
}

fn wrong(name: &'static str, takes: &'static str) -> crate::Error {
    refused(format!("`addr`: `{name}` takes {takes}"))
}

pub(super) fn port_of(text: &str) -> Result<u16> {
    let port = text.parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| {
        refused(format!(
            "`addr` has a port that is not a number from 1 to 65535, or a password that is not written as it has to be: {ENCODE}"
        ))
    })
}

fn seconds(name: &'static str, value: &str) -> Result<Duration> {
    let seconds = value
        .parse()
        .ok()
        .filter(|seconds| (1..=3_600).contains(seconds));
    let seconds = seconds.ok_or_else(|| wrong(name, "an integer of seconds from 1 to 3600"))?;
    Ok(Duration::from_secs(seconds))
}

fn flag(name: &'static str, value: &str) -> Result<bool> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(wrong(name, "0 or 1")),
    }
}

fn tls_version(name: &'static str, value: &str) -> Result<Version> {
    match value.to_ascii_lowercase().as_str() {
        // Nothing below is spoken at all.
        "tlsv1" | "tlsv1.1" if name == "ssl_min_protocol_version" => Ok(Version::Tls12),
        "tlsv1.2" => Ok(Version::Tls12),
        "tlsv1.3" => Ok(Version::Tls13),
        _ => Err(wrong(name, "TLSv1.2 or TLSv1.3")),
    }
}
/// Settings of a session that stategate's promises rest on are its own.
fn checked_options(options: &str) -> Result<String> {
    for (name, value) in settings(options) {
        let refuse =
            |problem: &str| Err(refused(format!("`addr`: `options` sets {name}, {problem}")));
        match name.as_str() {
            "synchronous_commit"
                if ["on", "true", "yes", "1", "remote_apply"].contains(&&*value) => {}
            "synchronous_commit" => {
                let shown = ["off", "local", "remote_write"]
                    .into_iter()
                    .find(|known| *known == value);
                return Err(refused(format!(
                    "`addr`: `options` sets synchronous_commit={}, so that a crash would lose acknowledged writes; \
                     leave it out, or set it to on or remote_apply",
                    shown.unwrap_or("off")
                )));
            }
            "statement_timeout" => {
                return refuse("which is set beside `addr`, with \"statement_timeout_ms\"");
            }
            "client_min_messages" => return refuse("which is set by stategate; leave it out"),
            "client_encoding" => return refuse("which is always UTF8; leave it out"),
            "lock_timeout" => {
                let limit = milliseconds(&value);
                let most = times::WRITE / times::LOCK_TRIES;
                if !limit.is_some_and(|limit| !limit.is_zero() && limit < most) {
                    return refuse(&format!(
                        "which has to be more than 0 and less than {} ms, so that a write that finds its lane held {} \
                         times is told in time that nothing was written; set it lower, or leave it out",
                        most.as_millis(),
                        times::LOCK_TRIES
                    ));
                }
            }
            _ => {}
        }
    }
    Ok(options.to_owned())
}

/// The settings in options, as the server reads them: `-c name=value`, `-cname=value` or `--name=value`.
fn settings(options: &str) -> Vec<(String, String)> {
    let mut words = vec![String::new()];
    let mut chars = options.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => words
                .last_mut()
                .into_iter()
                .for_each(|word| word.extend(chars.next())),
            c if c.is_whitespace() => words.push(String::new()),
            c => words.last_mut().into_iter().for_each(|word| word.push(c)),
        }
    }
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let setting = match (word.strip_prefix("--"), word.strip_prefix("-c")) {
            (Some(setting), _) => setting.to_owned(),
            (None, Some("")) => words.next().unwrap_or_default(),
            (None, Some(setting)) => setting.to_owned(),
            (None, None) => continue,
        };
        if let Some((name, value)) = setting.split_once('=') {
            let name = name.replace('-', "_").to_ascii_lowercase();
            let value = value.trim_matches('\'').to_ascii_lowercase();
            settings.push((name, value));
        }
    }
    settings
}

/// A time as the server reads one: milliseconds, or with a unit.
fn milliseconds(value: &str) -> Option<Duration> {
    let at = value
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(value.len());
    let (number, unit) = value.split_at(at);
    let number: u64 = number.parse().ok()?;
    let unit = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(unit)?))
}
