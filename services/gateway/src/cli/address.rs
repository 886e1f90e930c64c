//! Where the gateway is: `http://host:port`, `https://host:port`, or `host:port`, or less.

use std::{
    ffi::OsStr,
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use clap::{builder::TypedValueParser, error::ErrorKind};

/// The port of a gateway that was started without naming one.
const PORT: u16 = 8080;
/// The port where whatever ends TLS in front of a gateway listens.
const HTTPS: u16 = 443;

/// A gateway's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address(String);

impl Address {
    /// The address as a URL without a path.
    pub(crate) fn url(&self) -> &str {
        &self.0
    }

    /// Whether the gateway there is reached over TLS.
    pub(crate) fn is_https(&self) -> bool {
        self.0.starts_with("https://")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads the option. A refusal does not repeat what was given, for that may hold a password.
#[derive(Debug, Clone)]
pub(crate) struct Reader;

impl TypedValueParser for Reader {
    type Value = Address;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _option: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Address, clap::Error> {
        let parsed = value
            .to_str()
            .map_or_else(|| Err("it is not text".to_owned()), str::parse::<Address>);
        parsed.map_err(|problem| {
            let message = refusal("--addr", &problem);
            clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}

/// What is said of an address that cannot be used, by where it is from.
pub(crate) fn refusal(from: &str, problem: &str) -> String {
    format!("{from} is no address of a gateway: {problem}")
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const SHAPE: &str = "an address looks like 127.0.0.1:8080, http://gateway.example:8080 or https://gateway.example";
        let refused = |problem: &str| Err(format!("{problem}; {SHAPE}"));
        let text = text.trim();
        if text.is_empty() {
            return refused("it is empty");
        }
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return refused("it has white space or control characters");
        }
        let scheme_of = text.split_once("://").or_else(|| text.split_once(":/"));
        if text.starts_with(['/', '.', '~'])
            || scheme_of.is_some_and(|(scheme, _)| scheme == "unix")
            || text.starts_with("unix:")
        {
            return refused("a gateway has no socket in the file system; it listens on a port");
        }
        let (scheme, rest) = match text.split_once("://") {
            None if scheme_of.is_some() => return refused("two slashes follow the scheme"),
            None => ("http".to_owned(), text),
            Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
        };
        if !matches!(scheme.as_str(), "http" | "https") {
            return refused(&format!(
                "`{scheme}` is not a scheme of a gateway, which are http and https"
            ));
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.is_empty() {
            return refused("there is no host");
        }
        if authority.contains('@') {
            // What stands before it may be a password.
            return refused(
                "a gateway takes no user name; a token is given with --token-file, and the host stands alone",
            );
        }
        if authority.contains(['/', '?', '#', '\\']) {
            return refused("nothing follows the port");
        }
        if authority.contains(',') {
            return refused("it is one address; a list is not taken");
        }
        // A colon within brackets belongs to an IPv6 address.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let host = if host.is_empty() { "127.0.0.1" } else { host };
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if (host.contains([':', '[', ']']) || authority.starts_with('[')) && !bracketed {
            return Err("an IPv6 address stands in brackets: [::1]:8080".to_owned());
        }
        let host_is_legal = match host.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')) {
            Some(ip) => ip.parse::<Ipv6Addr>().is_ok(),
            None => is_host(host),
        };
        if !host_is_legal {
            return refused(&format!("`{host}` is no name or address of a host"));
        }
        let port = match port {
            None if scheme == "https" => HTTPS,
            None => PORT,
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
                let problem = match port {
                    "" => "the port after the colon is missing".to_owned(),
                    port => format!("`{port}` is not a port, which is a number from 1 to 65535"),
                };
                format!("{problem}; {SHAPE}")
            })?,
        };
        Ok(Self(format!("{scheme}://{host}:{port}")))
    }
}

/// Whether this may be the name of a host, or an IPv4 address. Names made of numbers alone are meant to
/// be the latter.
fn is_host(host: &str) -> bool {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_numeric = host.chars().all(|c| c.is_ascii_digit() || c == '.');
    !host.starts_with(['.', '-'])
        && !host.contains("..")
        && host.chars().all(is_legal)
        && (!is_numeric || host.parse::<Ipv4Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_are_completed() {
        for (text, url) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("127.0.0.1:9000", "http://127.0.0.1:9000"),
            ("localhost", "http://localhost:8080"),
            ("http://gateway.example", "http://gateway.example:8080"),
            ("https://gateway.example", "https://gateway.example:443"),
            (
                "https://gateway.example:8443/",
                "https://gateway.example:8443",
            ),
            ("HTTPS://gateway.example", "https://gateway.example:443"),
            ("my_service.local:80", "http://my_service.local:80"),
            (":9000", "http://127.0.0.1:9000"),
            ("[::1]", "http://[::1]:8080"),
            ("[::1]:9000", "http://[::1]:9000"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().url(), url, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for (text, why) in [
            ("", "it is empty"),
            (" ", "it is empty"),
            ("http://", "there is no host"),
            ("a b", "white space"),
            ("host:port", "`port` is not a port"),
            ("host:", "the port after the colon is missing"),
            ("host:0", "from 1 to 65535"),
            ("host:65536", "from 1 to 65535"),
            ("http://host:80x", "`80x` is not a port"),
            ("::1", "brackets"),
            ("fe80::1:8080", "brackets"),
            ("[::1", "brackets"),
            ("::1]:8080", "brackets"),
            ("[zz]:1", "`[zz]` is no name or address"),
            ("127.0.0.1.5:80", "`127.0.0.1.5` is no name or address"),
            ("999.0.0.1", "is no name or address"),
            ("%zz:1", "is no name or address"),
            ("-x", "is no name or address"),
            ("a..b", "is no name or address"),
            ("one:1,two:1", "a list is not taken"),
            ("http://host/path", "nothing follows the port"),
            ("host:8080/api", "nothing follows the port"),
            ("http://host?x", "nothing follows the port"),
            ("http:/host:8080", "two slashes"),
            ("user@host", "no user name"),
            ("http://user:hunter2@host", "no user name"),
            ("ftp://host", "`ftp` is not a scheme"),
            ("htp://host", "`htp` is not a scheme"),
            ("grpc://host", "`grpc` is not a scheme"),
            ("unix:/tmp/x", "listens on a port"),
            ("unix:///tmp/x", "listens on a port"),
            ("/tmp/x.sock", "listens on a port"),
        ] {
            let refused = text.parse::<Address>().unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
            assert!(!refused.contains("hunter2"), "{refused}");
        }
    }
}
