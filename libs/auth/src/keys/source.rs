//! Where keys are published, parsed from configuration.

use std::path::PathBuf;

use reqwest::Url;

/// Where the keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A set of keys at an address: https, or http on the loopback interface.
    Address(Address),
    /// A set of keys in a file.
    File(PathBuf),
    /// An OpenID issuer, whose discovery document names the address of its keys.
    Issuer(Issuer),
}

/// An address that keys may be fetched from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(Url);

/// An OpenID issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// As configured: what the discovery document and the tokens have to say, byte for byte.
    name: String,
    discovery: Address,
}

/// An address that keys are not fetched from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// No URL.
    #[error(
        "is not a URL, such as https://issuer.example/.well-known/jwks.json or file:/etc/stategate/jwks.json"
    )]
    NoUrl,
    /// Another scheme.
    #[error("has the scheme {0}; use https, http on the loopback interface, or file")]
    Scheme(String),
    /// http to another machine.
    #[error(
        "is http to another machine, where anybody on the way can put keys of their own; use https"
    )]
    Clear,
    /// User or password in the URL.
    #[error("has a user or password in it; keys are public and are fetched without")]
    Credentials,
    /// A fragment, or a query in an issuer.
    #[error("has a fragment, or is an issuer with a query; leave it out")]
    Rest,
    /// A file: URL that names none.
    #[error("does not name a file by an absolute path, such as file:/etc/stategate/jwks.json")]
    NoFile,
}

impl KeySource {
    /// The source at a URL: `https:`, `http:` on the loopback interface, or `file:` with an absolute path.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let url = Url::parse(text).map_err(|_| SourceError::NoUrl)?;
        if url.scheme() == "file" {
            let path = url.to_file_path().map_err(|()| SourceError::NoFile)?;
            return Ok(Self::File(path));
        }
        Address::parse(text).map(Self::Address)
    }

    /// The keys of an OpenID issuer, found through its discovery document.
    pub fn issuer(text: &str) -> Result<Self, SourceError> {
        let address = Address::parse(text)?;
        if address.0.query().is_some() {
            return Err(SourceError::Rest);
        }
        let name = text.to_owned();
        let discovery = format!(
            "{}/.well-known/openid-configuration",
            text.trim_end_matches('/')
        );
        let discovery = Address::parse(&discovery)?;
        Ok(Self::Issuer(Issuer { name, discovery }))
    }
}

impl Address {
    /// An address that keys may be fetched from.
    pub(super) fn parse(text: &str) -> Result<Self, SourceError> {
        let url = Url::parse(text).map_err(|_| SourceError::NoUrl)?;
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&url) => {}
            "http" => return Err(SourceError::Clear),
            other => return Err(SourceError::Scheme(other.to_owned())),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(SourceError::Credentials);
        }
        if url.fragment().is_some() {
            return Err(SourceError::Rest);
        }
        Ok(Self(url))
    }

    pub(super) fn url(&self) -> &Url {
        &self.0
    }

    pub(super) fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }
}

impl Issuer {
    /// The issuer's name, as it stands in its tokens' `iss`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn discovery(&self) -> &Address {
        &self.discovery
    }
}

/// Whether a URL stays on this machine. `localhost` is what it is by every resolver's rules (RFC 6761).
fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else {
        return false;
    };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_https_loopback_or_a_file() {
        for good in [
            "https://issuer.example/keys",
            "https://issuer.example:8443/keys?tenant=a",
            "http://127.0.0.1:8080/keys",
            "http://[::1]:8080/keys",
            "http://localhost/keys",
            "file:/etc/keys.json",
            "file:///etc/keys.json",
        ] {
            assert!(KeySource::parse(good).is_ok(), "{good}");
        }
        for (bad, error) in [
            ("", SourceError::NoUrl),
            ("/etc/keys.json", SourceError::NoUrl),
            ("http://issuer.example/keys", SourceError::Clear),
            ("http://localhost.issuer.example/keys", SourceError::Clear),
            ("http://127.0.0.1.issuer.example/keys", SourceError::Clear),
            ("http://169.254.169.254/keys", SourceError::Clear),
            ("http://0.0.0.0/keys", SourceError::Clear),
            (
                "ftp://issuer.example/keys",
                SourceError::Scheme("ftp".into()),
            ),
            (
                "data:application/json,{}",
                SourceError::Scheme("data".into()),
            ),
            (
                "https://user:word@issuer.example/",
                SourceError::Credentials,
            ),
            ("https://user@issuer.example/", SourceError::Credentials),
            ("https://issuer.example/#keys", SourceError::Rest),
            ("file://elsewhere/etc/keys.json", SourceError::NoFile),
        ] {
            assert_eq!(KeySource::parse(bad), Err(error), "{bad}");
        }
        assert_eq!(
            KeySource::issuer("https://issuer.example/?a=b"),
            Err(SourceError::Rest)
        );
        assert_eq!(
            KeySource::issuer("file:/etc/issuer"),
            Err(SourceError::Scheme("file".into()))
        );
    }
}
