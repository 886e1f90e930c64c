//! Passwords in a provider's settings.

use std::fmt;

use serde::Deserialize;

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

/// An address without what stands before its `@`, where passwords are. Several may be separated by
/// commas.
pub(crate) fn shown(addresses: &str) -> String {
    let without = |address: &str| {
        let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        let host = host.split(['/', '?']).next().unwrap_or_default();
        match scheme {
            "" => host.to_owned(),
            scheme => format!("{scheme}://{host}"),
        }
    };
    let shown: Vec<String> = addresses.split(',').map(|a| without(a.trim())).collect();
    shown.join(",")
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
            assert_eq!(shown(address), expected);
        }
    }
}
