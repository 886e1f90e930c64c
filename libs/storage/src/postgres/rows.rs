//! Rows as the model's types.

use stategate_model::{
    Claims, EntityRef, Event, EventId, Lane, Method, Position, Timestamp, TraceParent, Values,
    Version, value::Object,
};
use tokio_postgres::{Row, types::FromSql};

use crate::Result;

use super::failure::corrupt;

/// The columns that [`Columns::event`] reads, in its order, of a table called `e`.
pub(super) const EVENT_COLUMNS: &str = "e.lane, e.position, e.id, e.domain, e.type, e.key, e.version, \
     e.time, e.method, e.claims, e.trace_parent, e.vals";
/// How many they are.
pub(super) const EVENT_WIDTH: usize = 12;
/// An event's domain and type as one text, which an index is on; no name has a space in it.
pub(super) const EVENT_KIND: &str = "(e.domain || ' ' || e.type)";

/// The number a method is stored as. Frozen with the format.
pub(super) fn method_code(method: Method) -> i16 {
    match method {
        Method::Set => 0,
        Method::Edit => 1,
        Method::Revert => 2,
        Method::Del => 3,
    }
}

fn method(code: i16) -> Option<Method> {
    Method::ALL
        .into_iter()
        .find(|method| method_code(*method) == code)
}

/// What is stored for claims: nothing when there are none, which is every event while
/// authentication is off.
pub(super) fn claims_text(claims: &Claims) -> Option<&str> {
    let json = claims.values().json();
    (json != "{}").then_some(json)
}

/// Reads columns and says what is wrong with those that are not as written.
#[derive(Clone, Copy)]
pub(super) struct Columns<'r> {
    pub(super) row: &'r Row,
    pub(super) operation: &'static str,
}

impl<'r> Columns<'r> {
    pub(super) fn get<T: FromSql<'r>>(&self, column: usize) -> Result<T> {
        self.row
            .try_get(column)
            .map_err(|_| corrupt(self.operation, "a column is not as it was written"))
    }

    pub(super) fn position(&self, column: usize) -> Result<Position> {
        Position::from_i64(self.get(column)?)
            .ok_or_else(|| corrupt(self.operation, "a position is negative"))
    }

    pub(super) fn version(&self, column: usize) -> Result<Version> {
        Version::from_i64(self.get(column)?)
            .ok_or_else(|| corrupt(self.operation, "a version is negative"))
    }

    /// The event in the columns from `at` on; `None` where they are those of no row.
    pub(super) fn event(&self, at: usize) -> Result<Option<Event>> {
        let Some(lane) = self.get::<Option<i16>>(at)? else {
            return Ok(None);
        };
        let lane =
            u8::try_from(lane).map_err(|_| corrupt(self.operation, "an event has no lane"))?;
        Ok(Some(Event {
            lane: Lane(lane),
            position: self.position(at + 1)?,
            id: EventId(self.get(at + 2)?),
            entity: EntityRef::new(self.get(at + 3)?, self.get(at + 4)?, self.get(at + 5)?)
                .map_err(|_| corrupt(self.operation, "a name is not legal"))?,
            version: self.version(at + 6)?,
            time: Timestamp(self.get(at + 7)?),
            method: method(self.get(at + 8)?)
                .ok_or_else(|| corrupt(self.operation, "a method is unknown"))?,
            claims: match self.get::<Option<&str>>(at + 9)? {
                Some(json) => Claims::from_stored(Values::from_canonical(json)),
                None => Claims::none(),
            },
            trace_parent: match self.get::<Option<&str>>(at + 10)? {
                Some(text) => Some(
                    TraceParent::parse(text)
                        .ok_or_else(|| corrupt(self.operation, "a trace parent is malformed"))?,
                ),
                None => None,
            },
            values: Values::from_canonical(self.get::<&str>(at + 11)?),
        }))
    }
}

/// The tree of values that were read.
pub(super) fn object<'v>(operation: &'static str, values: &'v Values) -> Result<&'v Object> {
    values
        .object()
        .map_err(|_| corrupt(operation, "values are not an object"))
}
