//! What messages are authenticated with on their way through a broker.

use std::fmt;

/// The key of [RFC 2104](https://www.rfc-editor.org/rfc/rfc2104) HMAC-SHA-256, the same in every
/// process (`STATEGATE_CHANNEL_KEY`). Shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Box<[u8]>);

impl Key {
    /// The bytes of a text.
    pub fn new(text: &str) -> Self {
        Self(text.as_bytes().into())
    }

    #[cfg(feature = "link")]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}
