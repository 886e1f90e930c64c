//! Page tokens: where a result continues, bound to the request it belongs to.
//!
//! A token holds the last item's place in the order, so that the next page neither skips nor repeats
//! an item that did not change, whatever was written in between.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use stategate_model::{Cursor, Invalid};

/// Bytes of the tag in a token. It guards against mistakes, not against forgery: a forged token shows
/// nothing that a search without it would not.
const TAG: usize = 8;

/// What a page token is bound to: everything of a request but which part is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding([u8; 32]);

impl Binding {
    /// Of a method and the parts of its request.
    pub fn new(method: &str, parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in std::iter::once(method.as_bytes()).chain(parts.iter().copied()) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    /// Ties a cursor to the request: neither can be exchanged or cut without the other noticing.
    fn tag(&self, cursor: &[u8]) -> [u8; TAG] {
        let digest = Sha256::new()
            .chain_update(self.0)
            .chain_update(cursor)
            .finalize();
        std::array::from_fn(|index| digest[index])
    }

    /// The token for the page after `cursor`.
    pub fn token(&self, cursor: &Cursor) -> String {
        let cursor = cursor.encode();
        let mut bytes = self.tag(&cursor).to_vec();
        bytes.extend(cursor);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Where the page of a token starts; `None` for the first page.
    pub fn cursor(&self, token: &str) -> Result<Option<Cursor>, Invalid> {
        if token.is_empty() {
            return Ok(None);
        }
        let read = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| {
            let (tag, cursor) = bytes.split_at_checked(TAG)?;
            (tag == self.tag(cursor))
                .then(|| Cursor::decode(cursor))
                .flatten()
        });
        read.map(Some).ok_or_else(|| {
            Invalid::new(
                "page_token",
                "is not one of this request; send back a `next_page_token` as it was, with the same domain, type, query_string, times and sort",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use stategate_model::order::Tie;

    use super::*;

    #[test]
    fn tokens_belong_to_their_request() {
        let cursor = Cursor {
            key: None,
            tie: Tie::Key("JFK".to_owned()),
        };
        let mine = Binding::new("Search", &[b"faa", b"airport"]);
        let token = mine.token(&cursor);
        assert_eq!(mine.cursor(&token), Ok(Some(cursor)));
        assert_eq!(mine.cursor(""), Ok(None));
        let other = Binding::new("Search", &[b"faaa", b"irport"]);
        assert!(other.cursor(&token).is_err());
        for bad in [
            "x",
            "!",
            &token[..5],
            &token[..token.len() - 2],
            &format!("{token}AAAA"),
        ] {
            assert_eq!(mine.cursor(bad).unwrap_err().field, "page_token", "{bad}");
        }
    }
}
