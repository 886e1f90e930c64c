//! Searches: rows are narrowed by the file's indexes where that is exact, read in the order of an
//! index, and decided one by one by the model's evaluator.
//!
//! A search whose order is an index's ends as soon as its page is full. Any other holds the places of
//! its best rows in a bounded window and fetches their values at the end.

use rusqlite::{CachedStatement, Rows};
use stategate_model::{
    Cursor, Direction, EntityQuery, EntityRef, Event, EventQuery, Lane, PageRequest, Position,
    Scan, Sort, SortKey, Tie, Timestamp, Values, Version, Window, filter::Root,
};

use crate::{Error, ErrorKind, Found, Page, Result, columns};

use super::{
    failure::{closed, corrupt, failure},
    readers::Snapshot,
    reads::{self, Column, last_version_where},
    rows::{self, Columns, event_columns},
};

/// Rows between two looks at whether the caller still waits.
const ROWS_PER_LOOK: u32 = 256;
/// Older versions of one entity that are stepped over before seeking the next entity instead: a
/// seek costs about as much as this many steps.
const STEPS_PER_SEEK: u32 = 8;

/// Whether the one who asked has gone.
type Gone<'a> = &'a dyn Fn() -> bool;

/// Counts rows and stops a search that nobody waits for.
struct Patience<'a> {
    operation: &'static str,
    gone: Gone<'a>,
    rows: u32,
}

impl<'a> Patience<'a> {
    fn new(operation: &'static str, gone: Gone<'a>) -> Self {
        Self {
            operation,
            gone,
            rows: 0,
        }
    }

    fn row(&mut self) -> Result<()> {
        self.rows = (self.rows + 1) % ROWS_PER_LOOK;
        if self.rows == 0 && (self.gone)() {
            return Err(closed(self.operation));
        }
        Ok(())
    }
}

fn prepare<'s>(
    snapshot: &'s Snapshot<'_>,
    operation: &'static str,
    sql: &str,
) -> Result<CachedStatement<'s>> {
    snapshot
        .connection()
        .prepare_cached(sql)
        .map_err(failure(operation))
}

fn check_window(page: &PageRequest, operation: &'static str) -> Result<()> {
    page.check_sort_window()
        .map_err(|invalid| Error::new(ErrorKind::Invalid(invalid), operation))
}

const ENTITIES: &str = "search_entities";

/// An entity's newest event, as the index shows it.
struct Newest {
    seq: i64,
    version: Version,
}

/// Searches entities.
pub(super) fn entities(
    snapshot: &Snapshot<'_>,
    query: &EntityQuery,
    gone: Gone<'_>,
) -> Result<Page<Found>> {
    let direction = Direction::of(query.sort.as_ref());
    let Some(sort) = &query.sort else {
        let after = match &query.page.after {
            Some(Cursor {
                tie: Tie::Key(key), ..
            }) => key,
            _ => "",
        };
        let mut scan = Scan::new(&query.page, direction);
        each_entity(snapshot, query, after, gone, |key, newest, values| {
            let found = found(query, key, newest.version, values)?;
            let tie = Tie::Key(key.to_owned());
            let more = scan.offer(Cursor { key: None, tie }, found.size(), found);
            Ok(more.is_continue())
        })?;
        return Ok(scan.finish());
    };
    check_window(&query.page, ENTITIES)?;
    let names = query.of.domain.as_str().len() + query.of.kind.as_str().len();
    let mut window = Window::new(&query.page, direction);
    each_entity(snapshot, query, "", gone, |key, newest, values| {
        let sort_key = SortKey::of_values(&sort.path, columns::object(ENTITIES, &values)?);
        let cursor = Cursor {
            key: Some(sort_key),
            tie: Tie::Key(key.to_owned()),
        };
        let size = Found::size_of(names + key.len(), values.size());
        window.offer(cursor, size, (key.to_owned(), newest));
        Ok(true)
    })?;
    let Page { items, next } = window.finish();
    let mut values = prepare(snapshot, ENTITIES, VALUES)?;
    let items = items
        .into_iter()
        .map(|(key, newest)| {
            let values = values_of(&mut values, newest.seq)?
                .ok_or_else(|| corrupt(ENTITIES, "an event is missing"))?;
            found(query, &key, newest.version, values)
        })
        .collect::<Result<_>>()?;
    Ok(Page { items, next })
}

fn found(query: &EntityQuery, key: &str, version: Version, values: Values) -> Result<Found> {
    let entity = EntityRef::new(query.of.domain.as_str(), query.of.kind.as_str(), key)
        .map_err(|_| corrupt(ENTITIES, "a name is not legal"))?;
    Ok(Found {
        entity,
        version,
        values,
    })
}

/// The values that an event leaves its entity with.
const VALUES: &str =
    "SELECT CASE WHEN method = 3 THEN NULL ELSE vals END FROM events WHERE seq = ?1";

fn values_of(statement: &mut CachedStatement<'_>, seq: i64) -> Result<Option<Values>> {
    let mut found = statement.query([seq]).map_err(failure(ENTITIES))?;
    let Some(row) = found.next().map_err(failure(ENTITIES))? else {
        return Err(corrupt(ENTITIES, "an event is missing"));
    };
    let columns = Columns {
        row,
        operation: ENTITIES,
    };
    Ok(columns.optional_text(0)?.map(Values::from_canonical))
}

/// Hands over each entity that matches and whose key is above `after`, in order of keys, until told
/// to stop.
///
/// The index has the versions of an entity next to each other, the newest first. The older ones are
/// stepped over, or passed by a new seek when they are many.
fn each_entity(
    snapshot: &Snapshot<'_>,
    query: &EntityQuery,
    after: &str,
    gone: Gone<'_>,
    mut take: impl FnMut(&str, Newest, Values) -> Result<bool>,
) -> Result<()> {
    const SQL: &str = "SELECT key, version, seq FROM events INDEXED BY events_entity \
                       WHERE domain = ?1 AND type = ?2 AND key > ?3 \
                       ORDER BY key, version DESC";
    let mut statement = prepare(snapshot, ENTITIES, SQL)?;
    let mut values_statement = prepare(snapshot, ENTITIES, VALUES)?;
    let mut patience = Patience::new(ENTITIES, gone);
    let mut current = after.to_owned();
    loop {
        let from = current.clone();
        let mut found = statement
            .query((query.of.domain.as_str(), query.of.kind.as_str(), &from))
            .map_err(failure(ENTITIES))?;
        let mut older = 0;
        loop {
            patience.row()?;
            let Some(row) = found.next().map_err(failure(ENTITIES))? else {
                return Ok(());
            };
            let columns = Columns {
                row,
                operation: ENTITIES,
            };
            let key = columns.text(0)?;
            if key == current {
                older += 1;
                if older > STEPS_PER_SEEK {
                    break;
                }
                continue;
            }
            older = 0;
            current.clear();
            current.push_str(key);
            let newest = Newest {
                version: columns.version(1)?,
                seq: columns.integer(2)?,
            };
            let Some(values) = values_of(&mut values_statement, newest.seq)? else {
                continue;
            };
            let matches = query.filter.is_all()
                || query
                    .filter
                    .matches_values(columns::object(ENTITIES, &values)?);
            if matches && !take(&current, newest, values)? {
                return Ok(());
            }
        }
    }
}

const EVENTS: &str = "search_events";

/// Searches events.
pub(super) fn events(
    snapshot: &Snapshot<'_>,
    lane: Lane,
    query: &EventQuery,
    gone: Gone<'_>,
) -> Result<Page<Event>> {
    let mut range = Range::of_times(snapshot, lane, query)?;
    let direction = Direction::of(query.sort.as_ref());
    let sort_key = |event: &Event| match &query.sort {
        Some(sort) => SortKey::of_event(&sort.path, event)
            .map(Some)
            .map_err(|_| corrupt(EVENTS, "values are not an object")),
        None => Ok(None),
    };
    let cursor = |event: &Event| {
        Ok::<_, Error>(Cursor {
            key: sort_key(event)?,
            tie: Tie::Place(event.lane, event.position),
        })
    };
    if query.sort.is_some() {
        check_window(&query.page, EVENTS)?;
    }
    if is_log_order(query.sort.as_ref()) {
        range.continue_after(lane, query.page.after.as_ref(), direction);
        let mut scan = Scan::new(&query.page, direction);
        each_event(snapshot, query, range, direction, gone, |event| {
            let more = scan.offer(cursor(&event)?, event.size(), event);
            Ok(more.is_continue())
        })?;
        return Ok(scan.finish());
    }
    let mut window = Window::new(&query.page, direction);
    each_event(snapshot, query, range, Direction::Forward, gone, |event| {
        let seq = rows::seq(event.lane, event.position);
        window.offer(cursor(&event)?, event.size(), seq);
        Ok(true)
    })?;
    let Page { items, next } = window.finish();
    let items = items
        .into_iter()
        .map(|seq| reads::event(snapshot, EVENTS, seq))
        .collect::<Result<_>>()?;
    Ok(Page { items, next })
}

/// Whether an order is that of positions: times increase with them, and a search sees one lane.
fn is_log_order(sort: Option<&Sort>) -> bool {
    sort.is_none_or(|sort| match sort.path.root() {
        Root::Time | Root::Position | Root::Lane | Root::Domain | Root::Kind => true,
        Root::Values | Root::Claims | Root::Key | Root::Method | Root::Id | Root::Version => false,
    })
}

/// Events above one number and up to another.
#[derive(Debug, Clone, Copy)]
struct Range {
    above: i64,
    up_to: i64,
}

impl Range {
    /// The events of a lane within the query's times.
    fn of_times(snapshot: &Snapshot<'_>, lane: Lane, query: &EventQuery) -> Result<Self> {
        let (start, end) = rows::lane_range(lane);
        let seek = |time| {
            reads::seek(snapshot, EVENTS, lane, time).map(|position| rows::seq(lane, position))
        };
        let above = match query.min {
            Some(min) => seek(min)?,
            None => start,
        };
        let up_to = match query.max {
            Some(Timestamp(i64::MAX)) | None => end,
            Some(Timestamp(max)) => seek(Timestamp(max + 1))?,
        };
        Ok(Self { above, up_to })
    }

    /// Narrows to what comes after the page before.
    fn continue_after(&mut self, lane: Lane, after: Option<&Cursor>, direction: Direction) {
        let Some(Tie::Place(at, position)) = after.map(|cursor| &cursor.tie) else {
            return;
        };
        if *at != lane {
            return;
        }
        match direction {
            Direction::Forward => self.above = self.above.max(rows::seq(lane, *position)),
            Direction::Reverse => {
                let before = Position::new(position.get().saturating_sub(1));
                self.up_to = self.up_to.min(rows::seq(lane, before));
            }
        }
    }
}

/// Hands over each event that matches, in the order of positions, until told to stop.
fn each_event(
    snapshot: &Snapshot<'_>,
    query: &EventQuery,
    range: Range,
    direction: Direction,
    gone: Gone<'_>,
    take: impl FnMut(Event) -> Result<bool>,
) -> Result<()> {
    macro_rules! select {
        ($rest:literal) => {
            concat!("SELECT ", event_columns!(), " FROM events ", $rest)
        };
    }
    let (domain, kind) = (query.of.domain.as_str(), query.of.kind.as_str());
    if let Some(key) = query.filter.equality(&["entity", "key"]) {
        let last_up_to = |seq| {
            last_version_where(snapshot, EVENTS, (domain, kind, key), Column::Seq, |at| {
                at <= seq
            })
        };
        let (above, up_to) = (last_up_to(range.above)?, last_up_to(range.up_to)?);
        let mut statement = prepare(
            snapshot,
            EVENTS,
            match direction {
                Direction::Forward => select!(
                    "INDEXED BY events_entity WHERE domain = ?1 AND type = ?2 AND key = ?3 \
                     AND version > ?4 AND version <= ?5 ORDER BY version"
                ),
                Direction::Reverse => select!(
                    "INDEXED BY events_entity WHERE domain = ?1 AND type = ?2 AND key = ?3 \
                     AND version > ?4 AND version <= ?5 ORDER BY version DESC"
                ),
            },
        )?;
        let found = statement
            .query((domain, kind, key, above.as_i64(), up_to.as_i64()))
            .map_err(failure(EVENTS))?;
        return each_match(query, found, gone, take);
    }
    let mut statement = prepare(
        snapshot,
        EVENTS,
        match direction {
            Direction::Forward => select!(
                "INDEXED BY events_kind WHERE domain = ?1 AND type = ?2 AND seq > ?3 AND seq <= ?4 \
                 ORDER BY seq"
            ),
            Direction::Reverse => select!(
                "INDEXED BY events_kind WHERE domain = ?1 AND type = ?2 AND seq > ?3 AND seq <= ?4 \
                 ORDER BY seq DESC"
            ),
        },
    )?;
    let found = statement
        .query((domain, kind, range.above, range.up_to))
        .map_err(failure(EVENTS))?;
    each_match(query, found, gone, take)
}

fn each_match(
    query: &EventQuery,
    mut found: Rows<'_>,
    gone: Gone<'_>,
    mut take: impl FnMut(Event) -> Result<bool>,
) -> Result<()> {
    let mut patience = Patience::new(EVENTS, gone);
    while let Some(row) = found.next().map_err(failure(EVENTS))? {
        patience.row()?;
        let event = Columns {
            row,
            operation: EVENTS,
        }
        .event()?;
        let matches = query.filter.is_all()
            || query
                .filter
                .matches_event(&event)
                .map_err(|_| corrupt(EVENTS, "values are not an object"))?;
        if matches && !take(event)? {
            break;
        }
    }
    Ok(())
}
