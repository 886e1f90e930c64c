//! Who a verified token is of.

use std::{collections::BTreeSet, fmt, time::SystemTime};

use stategate_model::{Claims, Limits, Object, Value, Values, value::Corrupt};

use super::{Refused, TOKEN_BYTES};
use stategate_policy::Document;

/// A caller whose token is verified.
///
/// Two calls are of the same caller if issuer and subject are the same ([`Identity::caller`]), whatever
/// else their tokens say.
pub struct Identity {
    claims: Values,
    document: Document,
    event_claims: Claims,
    issuer: Box<str>,
    subject: Box<str>,
    expires: SystemTime,
}

impl Identity {
    /// Of claims that [`TokenRules`](super::TokenRules) accepted.
    pub(super) fn new(
        claims: Object,
        event_claims: &EventClaims,
        expires: SystemTime,
    ) -> Result<Self, Refused> {
        let text = |name: &str| match claims.get(name) {
            Some(Value::String(text)) => text.as_str().into(),
            _ => Box::from(""),
        };
        let (issuer, subject) = (text("iss"), text("sub"));
        let kept = event_claims.of(&claims);
        // Canonical JSON may be longer than what was signed; this is more than it can become.
        let most = Limits {
            value_bytes: 4 * TOKEN_BYTES,
        };
        let claims = Values::new(claims, &most).map_err(|_| Refused::ClaimsJson)?;
        let object = claims.to_object().map_err(|Corrupt| Refused::ClaimsJson)?;
        let event_claims = Claims::new(kept).map_err(|_| Refused::ClaimsTooLarge)?;
        Ok(Self {
            document: Document::from(&object),
            claims,
            event_claims,
            issuer,
            subject,
            expires,
        })
    }

    /// All claims, as values.
    pub fn claims(&self) -> &Values {
        &self.claims
    }

    /// All claims, as policies see them: made once for a token.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// The claims that events keep.
    pub fn event_claims(&self) -> &Claims {
        &self.event_claims
    }

    /// `iss`, empty if the token has none.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// `sub`, empty if the token has none.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Issuer and subject: what rates, subscriptions and idempotency keys are counted and looked up by.
    pub fn caller(&self) -> (&str, &str) {
        (&self.issuer, &self.subject)
    }

    /// When the token stops being accepted, leeway included: its streams end then.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// Bytes of what is kept, at most: an element of a list is two bytes of JSON and some thirty as a
    /// document.
    pub(super) fn size(&self) -> usize {
        const TREE: usize = 16;
        TREE * self.claims.size() + self.event_claims.values().size()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("issuer", &self.issuer)
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}

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
