//! Events: who changed what, to what, when; and what makes a retried request recognisable.

use std::fmt;

use uuid::Uuid;

use crate::{
    EntityRef, Invalid, Lane, Object, Position, Timestamp, Value, Values, Version,
    limits::{self, Limits},
};

/// An event's id: a UUID of version 4, given before the event is stored and kept whatever becomes of
/// the first try.
///
/// It begins with the time in milliseconds, and 74 bits of it are random: ids that are given one after
/// the other lie side by side in an index, so that a commit writes one page for them and not a page
/// for each. Nothing may be read from the time: the event has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(pub Uuid);

impl EventId {
    /// An id that nothing else has, for a write that came in now.
    pub fn fresh(now: Timestamp) -> Self {
        let mut bytes = Uuid::new_v4().into_bytes();
        let [_, _, time @ ..] = (now.0 / 1_000_000).to_be_bytes();
        bytes[..time.len()].copy_from_slice(&time);
        // The bits of version and variant come after the time, and are those of a random UUID.
        Self(Uuid::from_bytes(bytes))
    }

    /// Parses the hyphenated form; the field it is refused by is `id`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let uuid = (text.len() == 36)
            .then(|| Uuid::try_parse(text).ok())
            .flatten();
        match uuid {
            Some(uuid) if uuid.get_version_num() == 4 => Ok(Self(uuid)),
            _ => Err(Invalid::new(
                "id",
                "is not a UUID of version 4, such as 1b4e28ba-2fa1-4d2b-883f-0016d3cca427",
            )),
        }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The write that made an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Values were replaced.
    Set,
    /// Some top-level keys were overwritten.
    Edit,
    /// Values were set to those of an earlier event.
    Revert,
    /// The entity was removed from the current state.
    Del,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 4] = [Self::Set, Self::Edit, Self::Revert, Self::Del];

    /// The full gRPC method, as events and policies show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Set => "/stategate.EntityService/Set",
            Self::Edit => "/stategate.EntityService/Edit",
            Self::Revert => "/stategate.EntityService/Revert",
            Self::Del => "/stategate.EntityService/Del",
        }
    }

    /// The method of a full gRPC name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == text)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The verified claims of the caller, kept with each event: an object of at most 16 KiB, empty when
/// authentication is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims(Values);

impl Claims {
    /// No claims.
    pub fn none() -> Self {
        Self(Values::empty())
    }

    /// Claims within their limit; the field they are refused by starts with `claims`.
    pub fn new(claims: Object) -> Result<Self, Invalid> {
        Values::new(
            claims,
            &Limits {
                value_bytes: limits::CLAIMS_BYTES,
            },
        )
        .map(Self)
        .map_err(|invalid| Invalid {
            field: invalid.field.replacen("values", "claims", 1).into(),
            ..invalid
        })
    }

    /// Claims as they were stored.
    pub fn from_stored(values: Values) -> Self {
        Self(values)
    }

    /// The claims as values.
    pub fn values(&self) -> &Values {
        &self.0
    }

    /// The same claims without a tree: for keeping.
    #[must_use]
    pub fn lean(&self) -> Self {
        Self(self.0.lean())
    }

    /// The text that a claim holds.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.0.object().ok()?.get(name)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }
}

/// Issuer and subject of a caller, joined so that no two pairs are alike: the length in front keeps ("a", "b\nc") and
/// ("a\nb", "c") apart.
pub fn caller_key(issuer: &str, subject: &str) -> Box<str> {
    format!("{}\n{issuer}\n{subject}", issuer.len()).into()
}

/// A W3C `traceparent`, kept with an event so that its delivery continues the writer's trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceParent(Box<str>);

impl TraceParent {
    /// Parses version 00 of the header, or any later version by its first fields; `None` when it is
    /// none, for a broken trace header must not fail a write.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |part: &str, len: usize| {
            part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let mut parts = text.split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let shaped = hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
        let known = version != "ff" && (version != "00" || parts.next().is_none());
        let named = trace.bytes().any(|b| b != b'0') && span.bytes().any(|b| b != b'0');
        (shaped && known && named).then(|| Self(format!("00-{trace}-{span}-{flags}").into()))
    }

    /// The header's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One immutable change of one entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event's id.
    pub id: EventId,
    /// The entity that changed.
    pub entity: EntityRef,
    /// Its values after the change; before it, for Del.
    pub values: Values,
    /// The entity's version after the change.
    pub version: Version,
    /// The lane of the entity's domain.
    pub lane: Lane,
    /// The event's place in the lane.
    pub position: Position,
    /// When, strictly increasing within the lane.
    pub time: Timestamp,
    /// What was done.
    pub method: Method,
    /// By whom.
    pub claims: Claims,
    /// The trace the write belonged to.
    pub trace_parent: Option<TraceParent>,
}

impl Event {
    /// The entity's values after the event: none after Del.
    pub fn state(&self) -> Option<&Values> {
        match self.method {
            Method::Del => None,
            Method::Set | Method::Edit | Method::Revert => Some(&self.values),
        }
    }

    /// Bytes that count against a batch, page or buffer: everything of variable length and a fixed
    /// share for the rest.
    pub fn size(&self) -> usize {
        const FIXED: usize = 128;
        FIXED + self.entity.size() + self.values.size() + self.claims.values().size()
    }
}

/// SHA-256 of what a request asked for: method, canonical message, preconditions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What makes two copies of a request the same: unique per domain and caller (contract §3).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdempotencyKey {
    /// The domain written to.
    pub domain: Box<str>,
    /// The caller, as `iss` and `sub` of the claims, joined so that no two pairs are alike.
    pub caller: Box<str>,
    /// The key the caller sent: 1–128 visible ASCII characters.
    pub key: Box<str>,
}

impl IdempotencyKey {
    /// Whether a key is one; the field it is refused by is `idempotency-key`.
    pub fn check(key: &str) -> Result<(), Invalid> {
        let visible = key.bytes().all(|b| b.is_ascii_graphic());
        if key.is_empty() || key.len() > limits::IDEMPOTENCY_KEY_BYTES || !visible {
            return Err(Invalid::new(
                "idempotency-key",
                "must be 1 to 128 visible ASCII characters",
            ));
        }
        Ok(())
    }

    /// Parses a key of a caller in a domain.
    pub fn new(domain: &str, issuer: &str, subject: &str, key: &str) -> Result<Self, Invalid> {
        Self::check(key)?;
        Ok(Self {
            domain: domain.into(),
            caller: caller_key(issuer, subject),
            key: key.into(),
        })
    }

    /// Bytes of its parts together.
    pub fn size(&self) -> usize {
        self.domain.len() + self.caller.len() + self.key.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_of_version_4() {
        assert!(EventId::parse(&EventId::fresh(Timestamp(0)).to_string()).is_ok());
        for bad in [
            "",
            "x",
            "6f9619ff-8b86-1d01-b42d-00cf4fc964ff",
            "6f9619ff8b864d01b42d00cf4fc964ff",
        ] {
            assert_eq!(EventId::parse(bad).unwrap_err().field, "id", "{bad}");
        }
    }

    #[test]
    fn fresh_ids_lie_in_the_order_of_time_and_are_no_two_the_same() {
        for milliseconds in [0, 1, 1_800_000_000_000, i64::MAX / 1_000_000 - 1] {
            let now = Timestamp(milliseconds * 1_000_000);
            let ids: Vec<_> = (0..100).map(|_| EventId::fresh(now)).collect();
            let next = EventId::fresh(Timestamp(now.0 + 1_000_000));
            assert!(ids.iter().all(|id| *id < next), "at {milliseconds}");
            assert!(
                ids.iter()
                    .all(|id| EventId::parse(&id.to_string()) == Ok(*id))
            );
            let distinct: std::collections::HashSet<_> = ids.iter().collect();
            assert_eq!(distinct.len(), ids.len());
        }
    }

    #[test]
    fn trace_parents_are_taken_only_whole() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(TraceParent::parse(good).unwrap().as_str(), good);
        for bad in [
            "",
            "00-0-0-0",
            &good.to_uppercase(),
            &format!("{good}-x"),
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn callers_do_not_collide() {
        let a = IdempotencyKey::new("d", "a", "b\nc", "k").unwrap();
        let b = IdempotencyKey::new("d", "a\nb", "c", "k").unwrap();
        assert_ne!(a, b);
        for bad in ["", " ", "a b", "é", &"x".repeat(129)] {
            assert!(IdempotencyKey::new("d", "", "", bad).is_err());
        }
    }

    #[test]
    fn method_names_are_frozen() {
        for method in Method::ALL {
            assert_eq!(Method::parse(method.as_str()), Some(method));
        }
        assert_eq!(Method::parse("/stategate.EntityService/Get"), None);
    }
}
