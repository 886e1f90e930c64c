//! Verified tokens, so that each costs one signature check.
//!
//! Looked up by the SHA-256 of the token: the cache holds no token. Bounded in number and in bytes; what
//! was not used for longest goes first.

use std::{fmt, num::NonZeroUsize, sync::Arc};

use lru::LruCache;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use stategate_api::Caller;

use super::claims::Times;

/// Parts of the cache, each behind a lock of its own, so that cores seldom wait for each other.
const PARTS: usize = 16;
/// Most tokens in one part.
const PART_TOKENS: NonZeroUsize = NonZeroUsize::new(1_024).unwrap();
/// Most bytes of claims in one part, as [`Caller::size`] counts them.
const PART_BYTES: usize = 8 << 20;

pub(super) type Digest = [u8; 32];

/// A token that was verified.
#[derive(Debug, Clone)]
pub(super) struct Verified {
    pub(super) caller: Arc<Caller>,
    /// The fingerprint of the key: a token lives no longer than the key that verified it.
    pub(super) key: [u8; 32],
    pub(super) times: Times,
}

pub(super) struct Cache([Mutex<Part>; PARTS]);

struct Part {
    tokens: LruCache<Digest, Verified>,
    bytes: usize,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| {
            Mutex::new(Part {
                tokens: LruCache::new(PART_TOKENS),
                bytes: 0,
            })
        }))
    }

    pub(super) fn digest(token: &str) -> Digest {
        Sha256::digest(token.as_bytes()).into()
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<Verified> {
        self.part(digest).lock().tokens.get(digest).cloned()
    }

    pub(super) fn remove(&self, digest: &Digest) {
        let mut part = self.part(digest).lock();
        if let Some(gone) = part.tokens.pop(digest) {
            part.bytes -= gone.caller.size();
        }
    }

    pub(super) fn insert(&self, digest: Digest, verified: Verified) {
        let mut part = self.part(&digest).lock();
        part.bytes += verified.caller.size();
        if let Some((_, replaced)) = part.tokens.push(digest, verified) {
            part.bytes -= replaced.caller.size();
        }
        while part.bytes > PART_BYTES {
            let Some((_, gone)) = part.tokens.pop_lru() else {
                break;
            };
            part.bytes -= gone.caller.size();
        }
    }

    fn part(&self, digest: &Digest) -> &Mutex<Part> {
        &self.0[usize::from(digest[0]) % PARTS]
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cache")
    }
}
