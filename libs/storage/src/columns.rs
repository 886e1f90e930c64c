//! Events and idempotency keys as columns of a table: what goes into each, and what is read back.
//!
//! Written once for every database with columns of numbers and text. How a column is declared and addressed
//! is the provider's own; what these make of an event is frozen with the stored formats.

use stategate_model::{
    Claims, Digest, EntityRef, Event, EventId, IdempotencyKey, Lane, Method, Position, Timestamp,
    TraceParent, Values, Version, value::Object,
};
use uuid::Uuid;

use crate::{KeyRecord, Result, error::corrupt};

/// The columns of an event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventRow<'r> {
    pub(crate) lane: i64,
    pub(crate) position: i64,
    pub(crate) id: Uuid,
    pub(crate) domain: &'r str,
    pub(crate) kind: &'r str,
    pub(crate) key: &'r str,
    pub(crate) version: i64,
    pub(crate) time: i64,
    pub(crate) method: i16,
    /// Nothing when there are none, which is every event while authentication is off.
    pub(crate) claims: Option<&'r str>,
    pub(crate) trace_parent: Option<&'r str>,
    pub(crate) values: &'r str,
}

impl<'r> EventRow<'r> {
    /// What is stored of an event.
    pub(crate) fn of(event: &'r Event) -> Self {
        let claims = event.claims.values().json();
        Self {
            lane: i64::from(event.lane.0),
            position: event.position.as_i64(),
            id: event.id.0,
            domain: event.entity.domain(),
            kind: event.entity.kind(),
            key: event.entity.key(),
            version: event.version.as_i64(),
            time: event.time.0,
            method: method_code(event.method),
            claims: (claims != "{}").then_some(claims),
            trace_parent: event.trace_parent.as_ref().map(TraceParent::as_str),
            values: event.values.json(),
        }
    }

    /// The event that was stored, or which column is not as it was written.
    pub(crate) fn event(self, operation: &'static str) -> Result<Event> {
        let corrupt = |what| corrupt(operation, what);
        let lane = u8::try_from(self.lane).map_err(|_| corrupt("an event has no lane"))?;
        Ok(Event {
            id: EventId(self.id),
            entity: EntityRef::new(self.domain, self.kind, self.key)
                .map_err(|_| corrupt("a name is not legal"))?,
            values: Values::from_canonical(self.values),
            version: version(operation, self.version)?,
            lane: Lane(lane),
            position: position(operation, self.position)?,
            time: Timestamp(self.time),
            method: Method::ALL
                .into_iter()
                .find(|method| method_code(*method) == self.method)
                .ok_or_else(|| corrupt("a method is unknown"))?,
            claims: match self.claims {
                Some(json) => Claims::from_stored(Values::from_canonical(json)),
                None => Claims::none(),
            },
            trace_parent: match self.trace_parent {
                Some(text) => Some(
                    TraceParent::parse(text)
                        .ok_or_else(|| corrupt("a trace parent is malformed"))?,
                ),
                None => None,
            },
        })
    }
}

/// The number a method is stored as. Frozen with the formats.
pub(crate) fn method_code(method: Method) -> i16 {
    match method {
        Method::Set => 0,
        Method::Edit => 1,
        Method::Revert => 2,
        Method::Del => 3,
    }
}

/// A position that was stored.
pub(crate) fn position(operation: &'static str, stored: i64) -> Result<Position> {
    Position::from_i64(stored).ok_or_else(|| corrupt(operation, "a position is negative"))
}

/// A version that was stored.
pub(crate) fn version(operation: &'static str, stored: i64) -> Result<Version> {
    Version::from_i64(stored).ok_or_else(|| corrupt(operation, "a version is negative"))
}

/// A digest that was stored.
pub(crate) fn digest(operation: &'static str, stored: &[u8]) -> Result<Digest> {
    let digest = stored.try_into().map(Digest);
    digest.map_err(|_| corrupt(operation, "a digest is of another length"))
}

/// The columns of an idempotency key, as they are read back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyRow<'r> {
    pub(crate) domain: &'r str,
    pub(crate) caller: &'r str,
    pub(crate) key: &'r str,
    pub(crate) digest: &'r [u8],
    pub(crate) first: Position,
    pub(crate) count: i64,
}

impl KeyRow<'_> {
    /// The record that was stored.
    pub(crate) fn record(self, operation: &'static str) -> Result<KeyRecord> {
        Ok(KeyRecord {
            key: IdempotencyKey {
                domain: self.domain.into(),
                caller: self.caller.into(),
                key: self.key.into(),
            },
            digest: digest(operation, self.digest)?,
            first: self.first,
            count: u32::try_from(self.count)
                .map_err(|_| corrupt(operation, "a number of events that cannot be"))?,
        })
    }
}

/// The tree of values that were read.
pub(crate) fn object<'v>(operation: &'static str, values: &'v Values) -> Result<&'v Object> {
    let object = values.object();
    object.map_err(|_| corrupt(operation, "values are not an object"))
}
