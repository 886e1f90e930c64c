//! What the settings of providers over a broker share: secrets that are shown nowhere, and what is refused
//! wherever it stands.

use std::{fmt, path::PathBuf};

use serde::Deserialize;

use crate::Error;

/// Text that is shown nowhere.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where a broker is. Shown without what stands before its `@`, where passwords are, and behind its host.
/// Several may be separated by commas.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Address(String);

impl Address {
    /// The text itself, with the passwords in it. What a parser says of it may quote them.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Address {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let without = |address: &str| {
            let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            let host = host.split(['/', '?']).next().unwrap_or_default();
            match scheme {
                "" => host.to_owned(),
                scheme => format!("{scheme}://{host}"),
            }
        };
        let shown: Vec<String> = self.0.split(',').map(|a| without(a.trim())).collect();
        f.write_str(&shown.join(","))
    }
}

/// A provider whose settings are checked.
pub(crate) struct Provider(pub(crate) &'static str);

impl Provider {
    /// Says what is wrong with them.
    pub(crate) fn refuse<T>(&self, problem: impl fmt::Display) -> Result<T, Error> {
        Err(Error::Config(format!("{}: {problem}", self.0)))
    }

    /// Takes a name of letters, digits and these signs.
    pub(crate) fn check_name(
        &self,
        field: &str,
        name: &str,
        signs: &str,
        longest: usize,
    ) -> Result<(), Error> {
        let is_legal = |c: char| c.is_ascii_alphanumeric() || signs.contains(c);
        if !name.is_empty() && name.len() <= longest && name.chars().all(is_legal) {
            return Ok(());
        }
        self.refuse(format_args!(
            "`{field}` must be 1 to {longest} letters, digits and `{signs}`"
        ))
    }

    /// Takes both of two fields, or none.
    pub(crate) fn check_pair<A, B>(
        &self,
        (first, is): (&str, &Option<A>),
        (second, has): (&str, &Option<B>),
    ) -> Result<(), Error> {
        match is.is_some() == has.is_some() {
            true => Ok(()),
            false => self.refuse(format_args!(
                "`{first}` and `{second}` go together; set both or none"
            )),
        }
    }

    /// Takes a client's certificate with its key.
    pub(crate) fn check_identity(
        &self,
        cert: &Option<PathBuf>,
        key: &Option<PathBuf>,
    ) -> Result<(), Error> {
        self.check_pair(("cert_file", cert), ("key_file", key))
    }

    /// Reads the file that a field names.
    #[cfg(any(feature = "rabbitmq", feature = "redis"))]
    pub(crate) async fn read(&self, field: &str, file: &std::path::Path) -> Result<Vec<u8>, Error> {
        let bytes = tokio::fs::read(file).await;
        bytes.or_else(|error| self.refuse(format_args!("`{field}` cannot be read: {error}")))
    }
}

/// What names begin with.
pub(crate) fn prefix() -> String {
    "stategate".to_owned()
}

/// Most bytes that a broker keeps.
#[cfg(any(feature = "kafka", feature = "nats", feature = "rabbitmq"))]
pub(crate) fn max_bytes() -> std::num::NonZeroU32 {
    const DEFAULT: std::num::NonZeroU32 = std::num::NonZeroU32::new(64 << 20).unwrap();
    DEFAULT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_shown() {
        assert_eq!(format!("{:?}", Secret::from("hunter2")), "Secret(…)");
        for (address, expected) in [
            ("nats://u:p@host:4222", "nats://host:4222"),
            (
                "host:1, nats://a:b@c@other:2/x?y=z",
                "host:1,nats://other:2",
            ),
            ("redis://:p/w@host/1", "redis://host"),
            ("u:p@host", "host"),
        ] {
            assert_eq!(format!("{:?}", Address::from(address)), expected);
        }
    }
}
