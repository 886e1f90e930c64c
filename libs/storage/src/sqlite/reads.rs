//! Point reads: what each asks of the file.

use rusqlite::{Connection, OptionalExtension};
use stategate_model::{
    At, Digest, EntityRef, Event, EventId, IdempotencyKey, Lane, Position, State, Timestamp,
    Version,
};

use crate::{Head, KeyRecord, Loaded, ReadLimit, Replay, Result, columns::KeyRow, prefix::Prefix};

use super::{
    failure::{corrupt, failure},
    readers::Snapshot,
    rows::{self, Columns, event_columns},
};

/// The head of a lane, with all that the next batch needs of it.
pub(super) fn head(connection: &Connection, operation: &'static str, lane: Lane) -> Result<Head> {
    const SQL: &str = "SELECT seq, time, id FROM events WHERE seq > ?1 AND seq <= ?2 \
                       ORDER BY seq DESC LIMIT 1";
    let mut statement = connection.prepare_cached(SQL).map_err(failure(operation))?;
    let mut found = statement
        .query(rows::lane_range(lane))
        .map_err(failure(operation))?;
    let Some(row) = found.next().map_err(failure(operation))? else {
        return Ok(Head::default());
    };
    let columns = Columns { row, operation };
    Ok(Head {
        position: rows::position(columns.integer(0)?),
        time: Timestamp(columns.integer(1)?),
        id: Some(columns.id(2)?),
    })
}

/// What the next batch of a lane is decided on; within a transaction, so that it is of one point.
pub(super) fn load(
    connection: &Connection,
    lane: Lane,
    entities: &[EntityRef],
    keys: &[IdempotencyKey],
    bytes: usize,
) -> Result<Loaded> {
    let mut prefix = Prefix::new(bytes);
    let mut loaded = Loaded {
        head: head(connection, "load", lane)?,
        states: Vec::with_capacity(entities.len()),
        replays: Vec::new(),
    };
    for entity in entities {
        let state = state(connection, "load", entity)?;
        if !prefix.takes(state.size()) {
            return Ok(loaded);
        }
        loaded.states.push(state);
    }
    for key in keys {
        let replay = replay(connection, key)?;
        if !prefix.takes(replay.as_ref().map_or(0, Replay::size)) {
            break;
        }
        loaded.replays.push(replay);
    }
    Ok(loaded)
}

/// An entity's current state.
pub(super) fn state(
    connection: &Connection,
    operation: &'static str,
    entity: &EntityRef,
) -> Result<State> {
    // A Del's event holds the values from before it; they are not even read.
    const SQL: &str = "SELECT version, CASE WHEN method = 3 THEN NULL ELSE vals END FROM events \
                       WHERE domain = ?1 AND type = ?2 AND key = ?3 ORDER BY version DESC LIMIT 1";
    let mut statement = connection.prepare_cached(SQL).map_err(failure(operation))?;
    let mut found = statement
        .query((entity.domain(), entity.kind(), entity.key()))
        .map_err(failure(operation))?;
    let Some(row) = found.next().map_err(failure(operation))? else {
        return Ok(State::default());
    };
    let columns = Columns { row, operation };
    Ok(State {
        version: columns.version(0)?,
        values: columns
            .optional_text(1)?
            .map(stategate_model::Values::from_canonical),
    })
}

fn replay(connection: &Connection, key: &IdempotencyKey) -> Result<Option<Replay>> {
    const SQL: &str = "SELECT digest, first, count FROM idempotency \
                       WHERE domain = ?1 AND caller = ?2 AND key = ?3";
    let found: Option<([u8; 32], i64, i64)> = connection
        .prepare_cached(SQL)
        .and_then(|mut statement| {
            statement
                .query_row((&key.domain, &key.caller, &key.key), |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })
                .optional()
        })
        .map_err(failure("load"))?;
    let Some((digest, first, count)) = found else {
        return Ok(None);
    };
    const EVENTS: &str = concat!(
        "SELECT ",
        event_columns!(),
        " FROM events WHERE seq >= ?1 AND seq < ?2 ORDER BY seq"
    );
    let mut statement = connection.prepare_cached(EVENTS).map_err(failure("load"))?;
    let mut found = statement
        .query((first, first.saturating_add(count)))
        .map_err(failure("load"))?;
    let mut events = Vec::new();
    while let Some(row) = found.next().map_err(failure("load"))? {
        events.push(
            Columns {
                row,
                operation: "load",
            }
            .event()?,
        );
    }
    Ok(Some(Replay {
        digest: Digest(digest),
        events,
    }))
}

/// Idempotency keys in the order of the events they stand for. The table is in another order, and is
/// read whole; an index would cost every write with a key, for what only a copy of the log asks.
pub(super) fn read_keys(
    snapshot: &Snapshot<'_>,
    lane: Lane,
    after: Position,
    most: usize,
) -> Result<Vec<KeyRecord>> {
    const OPERATION: &str = "read_keys";
    const SQL: &str = "SELECT domain, caller, key, digest, first, count FROM idempotency \
                       WHERE first > ?1 AND first <= ?2 ORDER BY first LIMIT ?3";
    let mut statement = snapshot
        .connection()
        .prepare_cached(SQL)
        .map_err(failure(OPERATION))?;
    let (_, end) = rows::lane_range(lane);
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let mut found = statement
        .query((rows::seq(lane, after), end, most))
        .map_err(failure(OPERATION))?;
    let mut records = Vec::new();
    while let Some(row) = found.next().map_err(failure(OPERATION))? {
        let columns = Columns {
            row,
            operation: OPERATION,
        };
        let digest: [u8; 32] = columns.bytes(3)?;
        let row = KeyRow {
            domain: columns.text(0)?,
            caller: columns.text(1)?,
            key: columns.text(2)?,
            digest: &digest,
            first: rows::position(columns.integer(4)?),
            count: columns.integer(5)?,
        };
        records.push(row.record(OPERATION)?);
    }
    Ok(records)
}

pub(super) fn event_at(
    snapshot: &Snapshot<'_>,
    entity: &EntityRef,
    at: At,
) -> Result<Option<Event>> {
    let version = match at {
        At::Version(version) => version,
        At::Time(time) => version_at(snapshot, entity, time)?,
    };
    const SQL: &str = concat!(
        "SELECT ",
        event_columns!(),
        " FROM events WHERE domain = ?1 AND type = ?2 AND key = ?3 AND version = ?4"
    );
    one_event(
        snapshot,
        "get_at",
        SQL,
        (
            entity.domain(),
            entity.kind(),
            entity.key(),
            version.as_i64(),
        ),
    )
}

pub(super) fn event_by_id(
    snapshot: &Snapshot<'_>,
    operation: &'static str,
    entity: &EntityRef,
    id: EventId,
) -> Result<Option<Event>> {
    const SQL: &str = concat!("SELECT ", event_columns!(), " FROM events WHERE id = ?1");
    let found = one_event(snapshot, operation, SQL, [id.0.as_bytes()])?;
    Ok(found.filter(|event| event.entity == *entity))
}

pub(super) fn events_by_id(
    snapshot: &Snapshot<'_>,
    events: &[(EntityRef, EventId)],
    bytes: usize,
) -> Result<Vec<Option<Event>>> {
    let (mut found, mut prefix) = (Vec::with_capacity(events.len()), Prefix::new(bytes));
    for (entity, id) in events {
        let event = event_by_id(snapshot, "get_events", entity, *id)?;
        if !prefix.takes(event.as_ref().map_or(0, Event::size)) {
            break;
        }
        found.push(event);
    }
    Ok(found)
}

/// The event with a number, which is there.
pub(super) fn event(snapshot: &Snapshot<'_>, operation: &'static str, seq: i64) -> Result<Event> {
    const SQL: &str = concat!("SELECT ", event_columns!(), " FROM events WHERE seq = ?1");
    one_event(snapshot, operation, SQL, [seq])?
        .ok_or_else(|| corrupt(operation, "an event is missing"))
}

fn one_event(
    snapshot: &Snapshot<'_>,
    operation: &'static str,
    sql: &str,
    parameters: impl rusqlite::Params,
) -> Result<Option<Event>> {
    let mut statement = snapshot
        .connection()
        .prepare_cached(sql)
        .map_err(failure(operation))?;
    let mut found = statement.query(parameters).map_err(failure(operation))?;
    match found.next().map_err(failure(operation))? {
        Some(row) => Columns { row, operation }.event().map(Some),
        None => Ok(None),
    }
}

/// The entity's last version at or before a time; zero if it was not there yet.
fn version_at(snapshot: &Snapshot<'_>, entity: &EntityRef, time: Timestamp) -> Result<Version> {
    let names = (entity.domain(), entity.kind(), entity.key());
    last_version_where(snapshot, "get_at", names, Column::Time, |at| at <= time.0)
}

/// What of an entity's events increases with their version.
#[derive(Debug, Clone, Copy)]
pub(super) enum Column {
    Time,
    Seq,
}

/// The last version of an entity for which `holds`, which holds for all before one it holds for;
/// zero if it holds for none. Versions have no holes, so halving finds it without an index.
pub(super) fn last_version_where(
    snapshot: &Snapshot<'_>,
    operation: &'static str,
    (domain, kind, key): (&str, &str, &str),
    column: Column,
    holds: impl Fn(i64) -> bool,
) -> Result<Version> {
    const NEWEST: &str = "SELECT version FROM events WHERE domain = ?1 AND type = ?2 AND key = ?3 \
                          ORDER BY version DESC LIMIT 1";
    const TIME: &str =
        "SELECT time FROM events WHERE domain = ?1 AND type = ?2 AND key = ?3 AND version = ?4";
    const SEQ: &str =
        "SELECT seq FROM events WHERE domain = ?1 AND type = ?2 AND key = ?3 AND version = ?4";
    let prepare = |sql| {
        snapshot
            .connection()
            .prepare_cached(sql)
            .map_err(failure(operation))
    };
    let newest: Option<i64> = prepare(NEWEST)?
        .query_row((domain, kind, key), |row| row.get(0))
        .optional()
        .map_err(failure(operation))?;
    let mut statement = prepare(match column {
        Column::Time => TIME,
        Column::Seq => SEQ,
    })?;
    let newest = Version::from_i64(newest.unwrap_or(0)).unwrap_or_default();
    let version = last_where(newest.get(), |version| {
        let version = Version::new(version).as_i64();
        statement
            .query_row((domain, kind, key, version), |row| row.get(0))
            .map(&holds)
            .map_err(failure(operation))
    })?;
    Ok(Version::new(version))
}

/// The position after which a lane's events are at `time` or later. Positions have no holes and
/// their times increase.
pub(super) fn seek(
    snapshot: &Snapshot<'_>,
    operation: &'static str,
    lane: Lane,
    time: Timestamp,
) -> Result<Position> {
    let head = snapshot.head(operation, lane)?;
    let mut statement = snapshot
        .connection()
        .prepare_cached("SELECT time FROM events WHERE seq = ?1")
        .map_err(failure(operation))?;
    let position = last_where(head.get(), |position| {
        let seq = rows::seq(lane, Position::new(position));
        let at: i64 = statement
            .query_row([seq], |row| row.get(0))
            .map_err(failure(operation))?;
        Ok(at < time.0)
    })?;
    Ok(Position::new(position))
}

/// The last of 1 to `newest` for which `holds`, which holds for all before one it holds for; zero if
/// it holds for none.
fn last_where(newest: u64, mut holds: impl FnMut(u64) -> Result<bool>) -> Result<u64> {
    let (mut held, mut failed) = (0, newest + 1);
    while failed - held > 1 {
        let middle = held + (failed - held) / 2;
        if holds(middle)? {
            held = middle;
        } else {
            failed = middle;
        }
    }
    Ok(held)
}

pub(super) fn read_log(
    snapshot: &Snapshot<'_>,
    lane: Lane,
    after: Position,
    limit: ReadLimit,
) -> Result<Vec<Event>> {
    const OPERATION: &str = "read_log";
    const SQL: &str = concat!(
        "SELECT ",
        event_columns!(),
        " FROM events WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3"
    );
    let mut statement = snapshot
        .connection()
        .prepare_cached(SQL)
        .map_err(failure(OPERATION))?;
    let (_, end) = rows::lane_range(lane);
    let most = i64::try_from(limit.events.max(1)).unwrap_or(i64::MAX);
    let mut found = statement
        .query((rows::seq(lane, after), end, most))
        .map_err(failure(OPERATION))?;
    let (mut events, mut prefix) = (Vec::new(), Prefix::new(limit.bytes));
    while let Some(row) = found.next().map_err(failure(OPERATION))? {
        let event = Columns {
            row,
            operation: OPERATION,
        }
        .event()?;
        if !prefix.takes(event.size()) {
            break;
        }
        events.push(event);
    }
    Ok(events)
}
