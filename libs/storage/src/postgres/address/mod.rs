//! The address of a database, as libpq has it: a URL, or `key=value` pairs. Here it is taken apart; what each
//! parameter means is in [`parameters`].
//!
//! A parameter is taken with the effect that libpq gives it, or refused with what to write instead; none is
//! passed over. What is refused never quotes a value, and a name only if it cannot be a piece of a password.

mod parameters;

use std::{borrow::Cow, net::IpAddr, path::PathBuf, time::Duration};

use stategate_model::times;
use tokio_postgres::config::{ChannelBinding, LoadBalanceHosts, SslNegotiation};

use crate::Result;

use self::parameters::Shown;
use super::failure::refused;

/// An address, as written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Address {
    pub(super) hosts: Vec<String>,
    pub(super) hostaddrs: Vec<IpAddr>,
    /// One for all hosts, or one for each.
    pub(super) ports: Vec<u16>,
    pub(super) user: Option<String>,
    pub(super) password: Option<Vec<u8>>,
    pub(super) passfile: Option<PathBuf>,
    pub(super) dbname: Option<String>,
    pub(super) application_name: Option<String>,
    fallback_application_name: Option<String>,
    /// Settings of the session, as the server takes them on its command line.
    pub(super) options: Option<String>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) keepalives: Option<bool>,
    pub(super) keepalives_idle: Option<Duration>,
    pub(super) keepalives_interval: Option<Duration>,
    pub(super) keepalives_count: Option<u32>,
    /// [`Duration::ZERO`]: the system's own.
    pub(super) tcp_user_timeout: Option<Duration>,
    pub(super) sslmode: Option<Mode>,
    pub(super) sslrootcert: Option<Trust>,
    pub(super) sslcert: Option<PathBuf>,
    pub(super) sslkey: Option<PathBuf>,
    pub(super) sslsni: Option<bool>,
    pub(super) sslnegotiation: Option<SslNegotiation>,
    pub(super) least_tls: Option<Version>,
    pub(super) most_tls: Option<Version>,
    pub(super) channel_binding: Option<ChannelBinding>,
    pub(super) load_balance_hosts: Option<LoadBalanceHosts>,
    /// `target_session_attrs` asks for a server that takes writes, as every connection without a pooler does.
    pub(super) takes_writes: bool,
}

/// `sslmode`, as far as it is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// What a server's certificate is checked against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trust {
    /// What the system trusts.
    System,
    /// The certificates of a file.
    File(PathBuf),
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    Tls12,
    Tls13,
}

const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];
/// What an address looks like.
const FORM: &str = "postgres://user:password@host:5432/database";
/// What a password in a URL has to be.
const ENCODE: &str = "a user or password in a URL must be percent-encoded: %40 for @, %3A for :, %2F for /, %3F for ?, \
                      %23 for #, %25 for %";

impl Address {
    /// Reads an address.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut address = Self::default();
        let url = SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme));
        match url {
            Some(rest) => address.take_url(rest)?,
            None => address.take_pairs(text)?,
        }
        address.check()?;
        Ok(address)
    }

    /// Who is connected, as the server shows it.
    pub(super) fn application_name(&self) -> &str {
        let given = self.application_name.as_deref();
        given
            .or(self.fallback_application_name.as_deref())
            .unwrap_or("stategate")
    }

    /// How many servers it names.
    pub(super) fn servers(&self) -> usize {
        self.hosts.len().max(self.hostaddrs.len())
    }

    fn check(&self) -> Result<()> {
        let hosts = self.servers();
        if hosts == 0 {
            return Err(refused(format!("`addr` names no host; write {FORM}")));
        }
        if self.hosts.iter().any(String::is_empty) {
            return Err(refused("`addr` has an empty name among its hosts"));
        }
        if !self.hosts.is_empty()
            && !self.hostaddrs.is_empty()
            && self.hosts.len() != self.hostaddrs.len()
        {
            return Err(refused(
                "`addr` has another number of `hostaddr` than of `host`; give one for each",
            ));
        }
        if self.ports.len() > 1 && self.ports.len() != hosts {
            return Err(refused(
                "`addr` has another number of ports than of hosts; give one for all or one for each",
            ));
        }
        if self.sslcert.is_some() != self.sslkey.is_some() {
            return Err(refused(
                "`addr`: `sslcert` and `sslkey` go together; give both or neither",
            ));
        }
        if self.least_tls > self.most_tls && self.most_tls.is_some() {
            return Err(refused(
                "`addr`: `ssl_min_protocol_version` is above `ssl_max_protocol_version`",
            ));
        }
        if self.password.is_some() && self.passfile.is_some() {
            return Err(refused(
                "`addr` has a password and a `passfile`; give one of them",
            ));
        }
        // Every host gets its turn before a write gives up.
        let before_the_last = u32::try_from(hosts.saturating_sub(1)).unwrap_or(u32::MAX);
        if let Some(timeout) = self.connect_timeout
            && timeout.saturating_mul(before_the_last) >= times::CONNECTION
        {
            return Err(refused(format!(
                "`connect_timeout` is too long for {hosts} hosts: a write waits {} s for a connection, so that the last \
                 of them would never be asked; set it lower, or leave it out",
                times::CONNECTION.as_secs()
            )));
        }
        Ok(())
    }

    /// How long one server has to take a connection.
    pub(super) fn connect(&self) -> Duration {
        let servers = u32::try_from(self.servers()).unwrap_or(u32::MAX);
        let share = times::CONNECTION.checked_div(servers.saturating_add(1));
        self.connect_timeout.or(share).unwrap_or(times::CONNECTION)
    }

    /// What follows the scheme of a URL. Like libpq, not strict about what is nowhere a delimiter.
    fn take_url(&mut self, text: &str) -> Result<()> {
        let (credentials, rest) = split_credentials(text);
        // Whether a piece of a password may stand where hosts, names or values are expected.
        let is_doubtful = rest.contains('@');
        let (before_query, query) = match rest.split_once('?') {
            Some((before, query)) => (before, Some(query)),
            None => (rest, None),
        };
        let (authority, path) = match before_query.split_once('/') {
            Some((authority, path)) => (authority, Some(path)),
            None => (before_query, None),
        };
        if before_query.contains('@') {
            return Err(refused(format!("`addr` is not understood: {ENCODE}")));
        }
        self.take_authority(authority)
            .map_err(|error| match is_doubtful {
                true => refused(format!("`addr` is not understood: {ENCODE}")),
                false => error,
            })?;
        if let Some(credentials) = credentials {
            let (user, password) = match credentials.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (credentials, None),
            };
            if !user.is_empty() {
                self.user = Some(text_of(user, "user")?);
            }
            if let Some(password) = password {
                self.password = Some(decoded(password, "password")?.into_owned());
            }
        }
        if let Some(path) = path.filter(|path| !path.is_empty()) {
            self.dbname = Some(text_of(path, "database")?);
        }
        for pair in query
            .into_iter()
            .flat_map(|query| query.split('&'))
            .filter(|pair| !pair.is_empty())
        {
            let Some((name, value)) = pair.split_once('=') else {
                let problem = match is_doubtful {
                    true => format!(
                        "`addr` has a parameter without a value, unless it is a piece of the password: {ENCODE}"
                    ),
                    false => "`addr` has a parameter without a value; write name=value".to_owned(),
                };
                return Err(refused(problem));
            };
            let name = text_of(name, "parameter")?;
            let shown = match is_doubtful {
                true => Shown::Never,
                false => Shown::IfName,
            };
            match name.as_str() {
                // Not text in every case.
                "password" => self.password = Some(decoded(value, "password")?.into_owned()),
                _ => {
                    let value = text_of(value, "parameter")?;
                    self.take(&name, &value, shown)?;
                }
            }
        }
        Ok(())
    }

    fn take_authority(&mut self, authority: &str) -> Result<()> {
        if authority.is_empty() {
            return Ok(());
        }
        for server in authority.split(',') {
            let (host, port) = match server.strip_prefix('[') {
                Some(bracketed) => {
                    let (host, rest) = bracketed.split_once(']').ok_or_else(|| {
                        refused("`addr` has an IPv6 address without its closing ]")
                    })?;
                    let port = rest.strip_prefix(':');
                    if port.is_none() && !rest.is_empty() {
                        return Err(refused(
                            "`addr` has something other than a port after an IPv6 address",
                        ));
                    }
                    (host, port)
                }
                None => match server.split_once(':') {
                    Some((host, port)) => (host, Some(port)),
                    None => (server, None),
                },
            };
            let host = text_of(host, "host")?;
            // A port alone leaves the host to `host` of the parameters.
            if !host.is_empty() || authority.contains(',') {
                self.hosts.push(host);
            }
            self.ports.push(match port.filter(|port| !port.is_empty()) {
                Some(port) => parameters::port_of(port)?,
                None => DEFAULT_PORT,
            });
        }
        Ok(())
    }

    /// `key=value` pairs with white space between them; a value with white space in it, or none, stands in
    /// single quotes, and `\` takes the next character as it is.
    fn take_pairs(&mut self, text: &str) -> Result<()> {
        const PAIRS: &str = "a value with white space in it stands in single quotes";
        let malformed = || {
            refused(format!(
                "`addr` must be a URL such as {FORM}, or key=value pairs; {PAIRS}"
            ))
        };
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(match scheme.to_ascii_lowercase().as_str() {
                "jdbc:postgresql"
                | "postgres"
                | "postgresql"
                | "psql"
                | "pgsql"
                | "cockroachdb"
                | "postgresql+psycopg2"
                | "postgresql+asyncpg"
                | "prisma+postgres" => refused(format!(
                    "`addr` must begin with postgres:// or postgresql://, as in {FORM}"
                )),
                _ => malformed(),
            });
        }
        let mut rest = text.chars().peekable();
        let mut is_after_password = false;
        loop {
            while rest.next_if(|c| c.is_whitespace()).is_some() {}
            let mut name = String::new();
            while let Some(c) = rest.next_if(|c| !c.is_whitespace() && *c != '=') {
                name.push(c);
            }
            while rest.next_if(|c| c.is_whitespace()).is_some() {}
            if name.is_empty() && rest.peek().is_none() {
                return Ok(());
            }
            if rest.next_if_eq(&'=').is_none() || name.is_empty() {
                return Err(malformed());
            }
            while rest.next_if(|c| c.is_whitespace()).is_some() {}
            let is_quoted = rest.next_if_eq(&'\'').is_some();
            let mut value = String::new();
            loop {
                match rest.next_if(|c| is_quoted || !c.is_whitespace()) {
                    Some('\'') if is_quoted => break,
                    Some('\\') => value.extend(rest.next()),
                    Some(c) => value.push(c),
                    None if is_quoted => {
                        return Err(refused("`addr` has a value whose quote is not closed"));
                    }
                    None => break,
                }
            }
            let shown = match is_after_password {
                true => Shown::Never,
                false => Shown::IfName,
            };
            self.take(&name, &value, shown)?;
            is_after_password |= name == "password" && !is_quoted;
        }
    }
}

const DEFAULT_PORT: u16 = 5432;

/// What stands before the `@` of a URL. A password may have a `?` in it, as with libpq, and no `/`; an `@` in
/// a parameter is none of these.
fn split_credentials(text: &str) -> (Option<&str>, &str) {
    let Some(at) = text
        .find(['@', '/'])
        .filter(|at| text[*at..].starts_with('@'))
    else {
        return (None, text);
    };
    let (credentials, rest) = (&text[..at], &text[at + 1..]);
    match credentials.split_once('?') {
        Some((before, _)) if !before.contains(':') => (None, text),
        _ => (Some(credentials), rest),
    }
}

/// A percent-encoded part of a URL.
fn decoded<'t>(text: &'t str, what: &str) -> Result<Cow<'t, [u8]>> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text.as_bytes()));
    }
    let malformed = || {
        refused(format!(
            "the {what} in `addr` has a % that is not followed by two hexadecimal digits: {ENCODE}"
        ))
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit(), digit());
        let code = high
            .zip(low)
            .and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        match code.ok_or_else(malformed)? {
            0 => return Err(refused(format!("the {what} in `addr` has a %00 in it"))),
            byte => bytes.push(byte),
        }
    }
    Ok(Cow::Owned(bytes))
}

fn text_of(text: &str, what: &str) -> Result<String> {
    let bytes = decoded(text, what)?.into_owned();
    String::from_utf8(bytes).map_err(|_| refused(format!("the {what} in `addr` is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PostgresConfig;

    fn parsed(text: &str) -> Address {
        Address::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn problem(text: &str) -> String {
        let config = PostgresConfig::new(text);
        let error = config
            .parse()
            .err()
            .unwrap_or_else(|| panic!("{text} is taken"));
        error.to_string()
    }

    #[test]
    fn both_forms_say_the_same() {
        let url = parsed(
            "postgresql://m%65:p%40s%2Fs@one:5433,two/app%20db?application_name=mine&connect_timeout=2\
             &keepalives_idle=7&keepalives_count=2&tcp_user_timeout=1500&sslmode=verify-full\
             &sslrootcert=%2Fca.pem&options=-c%20work_mem%3D8MB&target_session_attrs=read-write",
        );
        let pairs = parsed(
            r"host=one,two port = 5433,5432 user=me password='p@s/s' dbname='app db' application_name=mine
              connect_timeout=2 keepalives_idle=7 keepalives_count=2 tcp_user_timeout=1500 sslmode=verify-full
              sslrootcert=/ca.pem options='-c work_mem=8MB' target_session_attrs=primary",
        );
        assert_eq!(url, pairs);
        assert_eq!(url.tcp_user_timeout, Some(Duration::from_millis(1_500)));
        assert_eq!(url.password.as_deref(), Some(&b"p@s/s"[..]));
        let quoted = parsed(r"host=h password='it\'s \\ a b' dbname=''");
        assert_eq!(quoted.password.as_deref(), Some(&br"it's \ a b"[..]));
        // As libpq has it: what is no delimiter where it stands needs no escape.
        let loose = parsed("postgres://me:a:b?c#d@[::1]:5433/app?application_name=a@b");
        assert_eq!(loose.password.as_deref(), Some(&b"a:b?c#d"[..]));
        assert_eq!(
            (loose.hosts, loose.ports),
            (vec!["::1".to_owned()], vec![5_433])
        );
        let socket = parsed("postgres:///app?host=/run/postgresql&user=me");
        assert_eq!(socket.hosts, ["/run/postgresql"]);
        assert_eq!(
            parsed("postgres://db?user=a@b").user.as_deref(),
            Some("a@b")
        );
    }

    #[test]
    fn what_is_taken_has_its_effect() {
        let config = |addr: &str| PostgresConfig::new(addr).parse().unwrap();
        let of = config(
            "host=h user=u application_name=mine connect_timeout=7 keepalives=0 keepalives_interval=3 \
             channel_binding=require load_balance_hosts=random sslnegotiation=direct sslmode=require port=99",
        )
        .config;
        assert_eq!(of.get_application_name(), Some("mine"));
        assert_eq!(of.get_connect_timeout(), Some(&Duration::from_secs(7)));
        assert_eq!(of.get_keepalives_interval(), Some(Duration::from_secs(3)));
        assert!(!of.get_keepalives());
        assert_eq!(of.get_channel_binding(), ChannelBinding::Require);
        assert_eq!(of.get_load_balance_hosts(), LoadBalanceHosts::Random);
        assert_eq!(of.get_ssl_negotiation(), SslNegotiation::Direct);
        assert_eq!(of.get_ports(), [99]);
        let plain = config("host=h");
        assert_eq!(plain.config.get_application_name(), Some("stategate"));
        let named = config("host=h fallback_application_name=other").config;
        assert_eq!(named.get_application_name(), Some("other"));
        let own = config("host=h options='-c lock_timeout=300'").config;
        assert!(own.get_options().unwrap().ends_with("-c lock_timeout=300"));
        // Each of several hosts gets its turn while a write waits for a connection.
        let three = config("host=a,b,c").config;
        assert!(*three.get_connect_timeout().unwrap() * 3 < times::CONNECTION);
        for harmless in [
            "gssencmode=disable",
            "gssencmode=prefer",
            "client_encoding=UTF8",
            "client_encoding=utf-8",
            "target_session_attrs=any",
            "ssl_min_protocol_version=TLSv1",
            "sslsni=0",
        ] {
            config(&format!("host=h {harmless}"));
        }
    }

    #[test]
    fn what_is_not_taken_is_named_with_what_to_do() {
        for (parameter, words) in [
            ("gssencmode=require", &["gssencmode", "sslmode"][..]),
            ("client_encoding=LATIN1", &["client_encoding", "UTF8"]),
            ("pgbouncer=true", &["pgbouncer", "\"pooler\""]),
            ("schema=app", &["`schema`", "\"schema\""]),
            ("currentSchema=app", &["currentschema", "\"schema\""]),
            (
                "connection_limit=5",
                &["connection_limit", "\"connections\""],
            ),
            (
                "statement_timeout=5",
                &["statement_timeout", "\"statement_timeout_ms\""],
            ),
            (
                "options=-cstatement_timeout=5",
                &["statement_timeout", "\"statement_timeout_ms\""],
            ),
            (
                "options=--synchronous-commit=off",
                &["synchronous_commit=off"],
            ),
            (
                "options=-csynchronous_commit=local",
                &["synchronous_commit=local"],
            ),
            ("options=-clock_timeout=5s", &["lock_timeout", "1875 ms"]),
            ("options=-clock_timeout=2s", &["lock_timeout"]),
            ("options=-clock_timeout=0", &["lock_timeout"]),
            ("service=db", &["service", "write out"]),
            ("sslcrl=x", &["sslcrl", "leave it out"]),
            ("sslcert=x", &["sslkey"]),
            ("ssl=true", &["`ssl`", "sslmode"]),
            ("sslmode=allow", &["sslmode", "prefer"]),
            (
                "sslmode=prefer&sslrootcert=x",
                &["sslrootcert", "verify-full"],
            ),
            ("sslmode=require&sslrootcert=system", &["verify-full"]),
            (
                "sslmode=disable&channel_binding=require",
                &["channel_binding"],
            ),
            ("sslnegotiation=direct", &["sslnegotiation", "require"]),
            (
                "ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2",
                &["ssl_min_protocol_version"],
            ),
            (
                "target_session_attrs=standby",
                &["target_session_attrs", "read-write"],
            ),
            ("replication=database", &["replication"]),
            ("connect_timeout=soon", &["connect_timeout", "seconds"]),
            ("connect_timeout=0", &["connect_timeout", "1"]),
            ("keepalives=yes", &["keepalives", "0 or 1"]),
            ("krbsrvname=x", &["krbsrvname", "not supported"]),
            ("pasword=x", &["`pasword`", "not known"]),
            (
                "host=a,b&connect_timeout=10",
                &["connect_timeout", "2 hosts"],
            ),
            ("host=a,b&port=1,2,3", &["ports"]),
            ("passfile=x", &["passfile"]),
        ] {
            let told = problem(&format!("postgres://me:hunter2@db/app?{parameter}"));
            assert!(
                words.iter().all(|word| told.contains(word)),
                "{parameter}: {told}"
            );
            assert!(!told.contains("hunter2"), "{told}");
        }
        for scheme in ["jdbc:postgresql://db/app", "mysql://db/app", "db", ""] {
            assert!(problem(scheme).contains("postgres://"), "{scheme}");
        }
        let mut pooled = PostgresConfig::new("host=db options='-c work_mem=8MB'");
        pooled.pooler = true;
        let told = pooled.parse().err().unwrap().to_string();
        assert!(told.contains("ALTER ROLE"), "{told}");
    }

    #[test]
    fn a_password_that_is_not_encoded_is_told_and_not_shown() {
        for password in [
            "hun@ter2",
            "hun/ter2",
            "hun/ter@2",
            "hun%ter2",
            "2/hunter?a=b",
            "hun@ter2?hunter=2",
            "hunter%",
            "hunter%2",
            "1/hunter?hunter&2",
        ] {
            let told = problem(&format!("postgres://me:{password}@db:5432/app"));
            assert!(told.contains("percent-encoded"), "{password}: {told}");
            assert!(
                !told.contains("hun") && !told.contains("ter2"),
                "{password}: {told}"
            );
        }
        let told = problem("host=db password=my hunter=2");
        assert!(
            told.contains("single quotes") && !told.contains("hunter"),
            "{told}"
        );
    }
}
