//! Rows as the model's types, and the number that an event is stored under.

use rusqlite::{Row, types::ValueRef};
use stategate_model::{Event, EventId, Lane, Position, Version};
use uuid::Uuid;

use crate::{
    Result,
    columns::{self, EventRow},
};

use super::failure::{corrupt, failure};

/// Bits of an event's number that hold its position; the lane is above them. 64 lanes take 6 bits
/// and the sign stays free.
const POSITION_BITS: u32 = 57;
const POSITION_MASK: i64 = (1 << POSITION_BITS) - 1;

/// The number of the event at a position of a lane.
pub(super) fn seq(lane: Lane, position: Position) -> i64 {
    i64::from(lane.0) << POSITION_BITS | position.as_i64().min(POSITION_MASK)
}

/// The position in an event's number.
pub(super) fn position(seq: i64) -> Position {
    Position::from_i64(seq & POSITION_MASK).unwrap_or_default()
}

/// The numbers just before a lane's first event and at its last possible one.
pub(super) fn lane_range(lane: Lane) -> (i64, i64) {
    let start = seq(lane, Position::ZERO);
    (start, start | POSITION_MASK)
}

/// The columns that [`event`] reads, in its order.
macro_rules! event_columns {
    () => {
        "seq, id, domain, type, key, version, time, method, claims, trace_parent, vals"
    };
}
pub(super) use event_columns;

/// Reads columns and says what is wrong with those that are not as written.
pub(super) struct Columns<'r, 's> {
    pub(super) row: &'r Row<'s>,
    pub(super) operation: &'static str,
}

impl Columns<'_, '_> {
    pub(super) fn integer(&self, column: usize) -> Result<i64> {
        self.row.get(column).map_err(failure(self.operation))
    }

    pub(super) fn text(&self, column: usize) -> Result<&str> {
        self.optional_text(column)?
            .ok_or_else(|| corrupt(self.operation, "a text is missing"))
    }

    pub(super) fn optional_text(&self, column: usize) -> Result<Option<&str>> {
        match self.row.get_ref(column).map_err(failure(self.operation))? {
            ValueRef::Text(bytes) => std::str::from_utf8(bytes)
                .map(Some)
                .map_err(|_| corrupt(self.operation, "a text is not UTF-8")),
            ValueRef::Null => Ok(None),
            _ => Err(corrupt(self.operation, "a text is of another type")),
        }
    }

    pub(super) fn bytes<const N: usize>(&self, column: usize) -> Result<[u8; N]> {
        self.row.get(column).map_err(failure(self.operation))
    }

    pub(super) fn id(&self, column: usize) -> Result<EventId> {
        self.bytes(column)
            .map(|bytes| EventId(Uuid::from_bytes(bytes)))
    }

    pub(super) fn version(&self, column: usize) -> Result<Version> {
        columns::version(self.operation, self.integer(column)?)
    }

    /// The event in a row of [`event_columns`].
    pub(super) fn event(&self) -> Result<Event> {
        let seq = self.integer(0)?;
        let method = self.integer(7)?;
        let row = EventRow {
            lane: seq >> POSITION_BITS,
            position: position(seq).as_i64(),
            id: self.id(1)?.0,
            domain: self.text(2)?,
            kind: self.text(3)?,
            key: self.text(4)?,
            version: self.integer(5)?,
            time: self.integer(6)?,
            method: i16::try_from(method)
                .map_err(|_| corrupt(self.operation, "a method is unknown"))?,
            claims: self.optional_text(8)?,
            trace_parent: self.optional_text(9)?,
            values: self.text(10)?,
        };
        row.event(self.operation)
    }
}
