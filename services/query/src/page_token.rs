//! Page tokens: where a result continues, bound to the request it belongs to.
//!
//! A token holds the last item's place in the order, so that the next page neither skips nor repeats
//! an item that did not change, whatever was written in between.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use stategate_model::{Cursor, Invalid};

/// Bytes of the request's digest in a token. It guards against mistakes, not against forgery: a
/// forged token shows nothing that a search without it would not.
const BINDING: usize = 8;
/// Bytes of the digest of all that, at the end: a token that was cut or changed on its way would
/// otherwise continue somewhere else.
const CHECK: usize = 4;

fn check(bytes: &[u8]) -> [u8; CHECK] {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let mut check = [0; CHECK];
    check.copy_from_slice(&digest[..CHECK]);
    check
}

/// What a page token is bound to: everything of a request but which part is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binding([u8; BINDING]);

impl Binding {
    /// Of a method and the parts of its request.
    pub(crate) fn new(method: &str, parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in std::iter::once(method.as_bytes()).chain(parts.iter().copied()) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let digest: [u8; 32] = hash.finalize().into();
        let mut binding = [0; BINDING];
        binding.copy_from_slice(&digest[..BINDING]);
        Self(binding)
    }

    /// The token for the page after `cursor`.
    pub(crate) fn token(&self, cursor: &Cursor) -> String {
        let mut bytes = self.0.to_vec();
        bytes.extend(cursor.encode());
        bytes.extend(check(&bytes));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Where the page of a token starts; `None` for the first page.
    pub(crate) fn cursor(&self, token: &str) -> Result<Option<Cursor>, Invalid> {
        if token.is_empty() {
            return Ok(None);
        }
        let refuse = |problem| Invalid::new("page_token", problem);
        let malformed = || refuse("is not a page token; send back a `next_page_token` as it was");
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| malformed())?;
        let (bytes, end) = bytes.split_last_chunk().ok_or_else(malformed)?;
        if *end != check(bytes) {
            return Err(malformed());
        }
        let (binding, cursor) = bytes.split_at_checked(BINDING).ok_or_else(malformed)?;
        if binding != self.0 {
            return Err(refuse(
                "is of another request; domain, type, query_string, times and sort must not change between pages",
            ));
        }
        Cursor::decode(cursor).map(Some).ok_or_else(malformed)
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
        assert!(
            other
                .cursor(&token)
                .unwrap_err()
                .problem
                .contains("another request")
        );
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
