//! Rows of the gateway's log.

use tokio_postgres::Row;
use uuid::Uuid;

/// The columns of the table `events`, in the order of the fields of [`EventRow`].
pub(super) const EVENT_COLUMNS: &str =
    "lane, position, id, domain, type, key, version, time, method, claims, trace_parent, vals";

/// A row of the table `events`. The rows of `entities` and `lanes` that a write changes follow from it.
pub(super) struct EventRow {
    pub(super) lane: i16,
    pub(super) position: i64,
    pub(super) id: Uuid,
    pub(super) domain: String,
    pub(super) entity_type: String,
    pub(super) key: String,
    pub(super) version: i64,
    pub(super) time: i64,
    pub(super) method: i16,
    pub(super) claims: Option<String>,
    pub(super) trace_parent: Option<String>,
    pub(super) vals: String,
}

impl EventRow {
    pub(super) fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            lane: row.try_get(0)?,
            position: row.try_get(1)?,
            id: row.try_get(2)?,
            domain: row.try_get(3)?,
            entity_type: row.try_get(4)?,
            key: row.try_get(5)?,
            version: row.try_get(6)?,
            time: row.try_get(7)?,
            method: row.try_get(8)?,
            claims: row.try_get(9)?,
            trace_parent: row.try_get(10)?,
            vals: row.try_get(11)?,
        })
    }
}
