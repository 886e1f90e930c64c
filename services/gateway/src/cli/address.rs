//! Where the gateway is: `http://host:port`, `https://host:port`, or `host:port`, or less.

use std::{fmt, str::FromStr};

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
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const SHAPE: &str = "an address looks like 127.0.0.1:8080 or http://gateway.example:8080";
        let text = text.trim();
        let (scheme, rest) = match text.split_once("://") {
            None => ("http", text),
            Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
            Some((scheme, _)) => {
                return Err(format!("`{scheme}` is not a scheme of a gateway; {SHAPE}"));
            }
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.is_empty()
            || authority.contains(|c: char| {
                c.is_whitespace() || c.is_control() || matches!(c, '/' | '?' | '#' | '@' | '\\')
            })
        {
            return Err(SHAPE.to_owned());
        }
        // A colon within brackets belongs to an IPv6 address.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let host = if host.is_empty() { "127.0.0.1" } else { host };
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if host.contains(':') && !bracketed {
            return Err("an IPv6 address stands in brackets: [::1]:8080".to_owned());
        }
        let port = match port {
            None if scheme == "https" => HTTPS,
            None => PORT,
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| format!("`{port}` is not a port"))?,
        };
        Ok(Self(format!("{scheme}://{host}:{port}")))
    }
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
            (":9000", "http://127.0.0.1:9000"),
            ("[::1]", "http://[::1]:8080"),
            ("[::1]:9000", "http://[::1]:9000"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().url(), url, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "http://",
            "a b",
            "host:port",
            "host:0",
            "host:65536",
            "::1",
            "http://host/path",
            "user@host",
            "ftp://host",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
