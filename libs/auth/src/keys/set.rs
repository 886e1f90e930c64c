//! A set of keys as an issuer publishes it, and which of them a token may be verified with.

use std::{collections::HashSet, sync::Arc};

use jsonwebtoken::Algorithm;
use stategate_model::json::{self, Json};

use super::key::{Key, Unusable};

/// Most keys in a set. Issuers publish a few; each is looked at for tokens that name none.
const KEYS: usize = 100;
/// Most keys of one name and algorithm that a token is tried with.
const TRIED: usize = 4;

/// Keys that were published together.
#[derive(Debug, Default)]
pub(crate) struct KeySet {
    keys: Vec<Arc<Key>>,
    fingerprints: HashSet<[u8; 32]>,
}

/// A document that is no set of keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("it {0}")]
    Json(String),
    #[error("it is not an object with a list `keys`")]
    NoSet,
    #[error("it holds {0} keys; at most {KEYS} are accepted")]
    TooMany(usize),
}

/// Why no key may verify a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// No key of that name; or, for a token that names none, none for the algorithm.
    Key,
    /// The key of that name is for other algorithms.
    Algorithm,
    /// The token names none, and several are for the algorithm.
    Choice,
}

impl KeySet {
    /// The keys of a published set, and what was left out of it.
    pub(crate) fn parse(text: &str) -> Result<(Self, Vec<Unusable>), Malformed> {
        let Json::Object(members) = json::parse(text).map_err(Malformed::Json)? else {
            return Err(Malformed::NoSet);
        };
        let keys = members.iter().find(|(name, _)| name == "keys");
        let Some((_, Json::Array(published))) = keys else {
            return Err(Malformed::NoSet);
        };
        if published.len() > KEYS {
            return Err(Malformed::TooMany(published.len()));
        }
        let mut set = Self::default();
        let mut left_out = Vec::new();
        for key in published {
            match Key::parse(key) {
                Ok(key) if set.fingerprints.insert(*key.fingerprint()) => {
                    set.keys.push(Arc::new(key));
                }
                Ok(_twice) => {}
                Err(unusable) => left_out.push(unusable),
            }
        }
        Ok((set, left_out))
    }

    /// The keys that a token of this key name and algorithm may be verified with: at least one.
    pub(crate) fn candidates(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Vec<Arc<Key>>, Missing> {
        let of = |fits: &dyn Fn(&Key) -> bool| -> Vec<_> {
            let found = self.keys.iter().filter(|key| fits(key));
            found.take(TRIED).cloned().collect()
        };
        match id {
            Some(id) => {
                let found = of(&|key| key.id() == Some(id) && key.is_for(algorithm));
                if !found.is_empty() {
                    return Ok(found);
                }
                let named = self.keys.iter().any(|key| key.id() == Some(id));
                Err(if named {
                    Missing::Algorithm
                } else {
                    Missing::Key
                })
            }
            // A token that names no key is verified only if no choice has to be made.
            None => match of(&|key| key.is_for(algorithm)) {
                found if found.is_empty() => Err(Missing::Key),
                found if found.len() > 1 => Err(Missing::Choice),
                found => Ok(found),
            },
        }
    }

    /// Whether the key of this fingerprint is in the set.
    pub(crate) fn holds(&self, fingerprint: &[u8; 32]) -> bool {
        self.fingerprints.contains(fingerprint)
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }
}
