//! Which claims of a verified token go where.

use std::{collections::BTreeSet, time::SystemTime};

use stategate_api::Caller;
use stategate_model::{Claims, Limits, Object, Values, value::Corrupt};

use super::{Refused, TOKEN_BYTES};

/// Which claims of a caller are kept with events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum EventClaims {
    /// All of them.
    #[default]
    All,
    /// Those of these names.
    Named(BTreeSet<String>),
}

/// A list of claims with an entry that is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("has an empty name; give names of claims with commas between them, such as iss,sub,email")]
pub struct UnknownClaim;

impl EventClaims {
    /// Names with commas between them. White space around them means nothing.
    pub fn parse(text: &str) -> Result<Self, UnknownClaim> {
        let names = text.split(',').map(|name| match name.trim() {
            "" => Err(UnknownClaim),
            name => Ok(name.to_owned()),
        });
        names.collect::<Result<_, _>>().map(Self::Named)
    }

    /// Those of some claims.
    fn of(&self, claims: &Object) -> Object {
        match self {
            Self::All => claims.clone(),
            Self::Named(names) => {
                let kept = claims.iter().filter(|(name, _)| names.contains(*name));
                kept.map(|(name, value)| (name.clone(), value.clone()))
                    .collect()
            }
        }
    }
}

/// The caller of claims that [`TokenRules`](super::TokenRules) accepted.
pub(super) fn caller(
    claims: Object,
    event_claims: &EventClaims,
    expires: SystemTime,
) -> Result<Caller, Refused> {
    let kept = event_claims.of(&claims);
    // Canonical JSON may be longer than what was signed; this is more than it can become.
    let most = Limits {
        value_bytes: 4 * TOKEN_BYTES,
    };
    let claims = Values::new(claims, &most).map_err(|_| Refused::ClaimsJson)?;
    let kept = Claims::new(kept).map_err(|_| Refused::ClaimsTooLarge)?;
    Caller::new(&claims, kept, expires).map_err(|Corrupt| Refused::ClaimsJson)
}
