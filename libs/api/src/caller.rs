//! Who a call is of.

use std::{fmt, sync::Arc, time::SystemTime};

use stategate_model::{Claims, Value, Values, event::caller_key, value::Corrupt};
use stategate_policy::Document;

/// How much larger a document is than its JSON, at most: an element of a list is two bytes of JSON and some thirty as
/// a document.
const TREE: usize = 16;

/// A caller whose token is verified.
///
/// Two calls are of the same caller if issuer and subject are the same ([`Caller::name`]), whatever else their
/// tokens say.
pub struct Caller {
    issuer: Box<str>,
    subject: Box<str>,
    key: Arc<str>,
    claims: Document,
    event_claims: Claims,
    expires: SystemTime,
    size: usize,
}

impl Caller {
    /// Of the verified claims of a token, those of them that events keep, and the time at which the token stops
    /// being accepted.
    pub fn new(
        claims: &Values,
        event_claims: Claims,
        expires: SystemTime,
    ) -> Result<Self, Corrupt> {
        let object = claims.to_object()?;
        let text = |name: &str| match object.get(name) {
            Some(Value::String(text)) => text.as_str(),
            _ => "",
        };
        // Tokens of programs may name the program alone (RFC 9068, OpenID Connect).
        let names = ["sub", "client_id", "azp"].map(text);
        let subject = names.into_iter().find(|name| !name.is_empty());
        let (issuer, subject) = (text("iss"), subject.unwrap_or_default());
        Ok(Self {
            issuer: issuer.into(),
            subject: subject.into(),
            key: caller_key(issuer, subject).into(),
            claims: Document::from(&object),
            size: TREE * claims.size() + event_claims.values().size(),
            event_claims,
            expires,
        })
    }

    /// Issuer and subject (`sub`, or `client_id` or `azp` where there is none), each empty if the token has none: what rates, subscriptions and idempotency keys are
    /// counted and looked up by.
    pub fn name(&self) -> (&str, &str) {
        (&self.issuer, &self.subject)
    }

    /// The name as one text, different for any two callers.
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// All claims, as policies see them: made once for a token.
    pub fn claims(&self) -> &Document {
        &self.claims
    }

    /// The claims that events keep.
    pub fn event_claims(&self) -> &Claims {
        &self.event_claims
    }

    /// When the token stops being accepted, leeway included: its streams end then.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// Bytes of what is kept, at most.
    pub fn size(&self) -> usize {
        self.size
    }
}

/// Without the claims: they are somebody's, and a log has no use for them.
impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("issuer", &self.issuer)
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}
