//! Rows as the model's types.

use stategate_model::{Event, Position, Version};
use tokio_postgres::{Row, types::FromSql};

use crate::{
    Result,
    columns::{self, EventRow},
};

use super::failure::corrupt;

/// The columns that [`Columns::event`] reads, in its order, of a table called `e`.
pub(super) const EVENT_COLUMNS: &str = "e.lane, e.position, e.id, e.domain, e.type, e.key, e.version, \
     e.time, e.method, e.claims, e.trace_parent, e.vals";
/// How many they are.
pub(super) const EVENT_WIDTH: usize = 12;
/// Bytes of an event, to the server, which cuts what it sends by them: no more than they are by
/// [`Event::size`], so that the exact cut can be made here.
pub(super) const EVENT_SIZE: &str =
    "(octet_length(e.vals) + coalesce(octet_length(e.claims), 0) + 64)";
/// An event's domain and type as one text, which an index is on; no name has a space in it.
pub(super) const EVENT_KIND: &str = "(e.domain || ' ' || e.type)";

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
        columns::position(self.operation, self.get(column)?)
    }

    pub(super) fn version(&self, column: usize) -> Result<Version> {
        columns::version(self.operation, self.get(column)?)
    }

    /// The event in the columns from `at` on; `None` where they are those of no row.
    pub(super) fn event(&self, at: usize) -> Result<Option<Event>> {
        let Some(lane) = self.get::<Option<i16>>(at)? else {
            return Ok(None);
        };
        let row = EventRow {
            lane: i64::from(lane),
            position: self.get(at + 1)?,
            id: self.get(at + 2)?,
            domain: self.get(at + 3)?,
            kind: self.get(at + 4)?,
            key: self.get(at + 5)?,
            version: self.get(at + 6)?,
            time: self.get(at + 7)?,
            method: self.get(at + 8)?,
            claims: self.get(at + 9)?,
            trace_parent: self.get(at + 10)?,
            values: self.get(at + 11)?,
        };
        row.event(self.operation).map(Some)
    }
}
