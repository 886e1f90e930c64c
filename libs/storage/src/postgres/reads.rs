//! Point reads and reads of the log.

use stategate_model::{
    At, EntityRef, Event, EventId, Heads, Lane, Lanes, Position, Timestamp, Version,
};
use tokio_postgres::types::Type;

use crate::{KeyRecord, Read, ReadLimit, Result, columns::KeyRow, prefix::Prefix};

use super::{
    failure::corrupt,
    pool::{Parameters, Pool, Purpose, Statement},
    rows::{Columns, EVENT_COLUMNS, EVENT_SIZE},
};

/// The statements of one schema.
#[derive(Debug)]
pub(super) struct Reads {
    at_version: Statement,
    at_time: Statement,
    by_id: Statement,
    by_ids: Statement,
    log: Statement,
    keys: Statement,
    seek: Statement,
    heads: Statement,
}

/// A number between 0 and the last one for which a condition holds that holds for all before it:
/// versions and positions have no holes and times increase with both, so halving finds a time without
/// an index. `newest` and `time` are expressions; `time` is that of the row whose number is `h.middle`.
fn last_number(newest: &str, time: &str, holds: &str) -> String {
    format!(
        "(WITH RECURSIVE s (held, failed) AS ( \
            SELECT 0::bigint, coalesce(({newest}), 0) + 1 \
            UNION ALL \
            SELECT CASE WHEN h.holds THEN h.middle ELSE s.held END, CASE WHEN h.holds THEN s.failed ELSE h.middle END \
            FROM s CROSS JOIN LATERAL ( \
              SELECT m.middle, ({time}) {holds} AS holds FROM (SELECT (s.held + s.failed) / 2 AS middle OFFSET 0) m \
              OFFSET 0 \
            ) h WHERE s.failed - s.held > 1 \
          ) SELECT held FROM s WHERE failed - held = 1)"
    )
}

/// The position of a lane after which events are at a time or later; `lane` and `time` are expressions.
pub(super) fn seek(schema: &str, lane: &str, time: &str) -> String {
    last_number(
        &format!("SELECT l.head FROM {schema}.lanes l WHERE l.lane = {lane}"),
        &format!(
            "SELECT e.time FROM {schema}.events e WHERE e.lane = {lane} AND e.position = m.middle"
        ),
        &format!("< {time}"),
    )
}

impl Reads {
    pub(super) fn new(schema: &str) -> Self {
        let entity = "e.domain = $2 AND e.type = $3 AND e.key = $4";
        let entity_types = [Type::INT2, Type::TEXT, Type::TEXT, Type::TEXT];
        // The head and the event in one look at the log; a row of the head alone if there is no event.
        let one = |events: &str, condition: &str, last: Type| {
            Statement::new(
                format!(
                    "SELECT l.head, e.* FROM {schema}.lanes l LEFT JOIN LATERAL ( \
                       SELECT {EVENT_COLUMNS} FROM {events} e WHERE {condition} OFFSET 0 \
                     ) e ON true WHERE l.lane = $1"
                ),
                &[&entity_types[..], &[last]].concat(),
            )
        };
        let version_at = last_number(
            &format!("SELECT e.version FROM {schema}.entities e WHERE {entity}"),
            &format!(
                "SELECT e.time FROM {schema}.events e WHERE {entity} AND e.version = m.middle"
            ),
            "<= $5",
        );
        // Positions have no holes, so both ends of what is read are known: however the server reads it,
        // it reads no more. The sum up to an event, itself left out, is below the limit: one event at least.
        let log = format!(
            "SELECT {EVENT_COLUMNS} FROM ( \
               SELECT e.*, sum({EVENT_SIZE}) OVER (ORDER BY e.position ROWS UNBOUNDED PRECEDING) - {EVENT_SIZE} AS before FROM ( \
                 SELECT e.* FROM {schema}.events e WHERE e.lane = $1 AND e.position > $2 AND e.position <= $3 \
               ) e \
             ) e WHERE e.before = 0 OR e.before < $4 ORDER BY e.position"
        );
        let events = format!("{schema}.events");
        // Found by its id alone; whose it is, is looked at afterwards.
        let of_id = format!("(SELECT * FROM {events} e WHERE e.id = $5 OFFSET 0)");
        // One after the other by the index on ids, in the order asked for; cut as the log is.
        let by_ids = format!(
            "SELECT {EVENT_COLUMNS} FROM ( \
               SELECT e.*, q.n, \
                 coalesce(sum({EVENT_SIZE}) OVER (ORDER BY q.n ROWS UNBOUNDED PRECEDING), 0) \
                   - coalesce({EVENT_SIZE}, 0) AS before \
               FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) \
                 WITH ORDINALITY AS q (id, domain, type, key, n) \
               LEFT JOIN LATERAL ( \
                 SELECT {EVENT_COLUMNS} FROM (SELECT * FROM {events} e WHERE e.id = q.id OFFSET 0) e \
                 WHERE e.domain = q.domain AND e.type = q.type AND e.key = q.key OFFSET 0 \
               ) e ON true \
             ) e WHERE e.before = 0 OR e.before < $5 ORDER BY e.n"
        );
        Self {
            at_version: one(&events, &format!("{entity} AND e.version = $5"), Type::INT8),
            at_time: one(
                &events,
                &format!("{entity} AND e.version = {version_at}"),
                Type::INT8,
            ),
            by_id: one(&of_id, entity, Type::UUID),
            by_ids: Statement::new(
                by_ids,
                &[
                    Type::UUID_ARRAY,
                    Type::TEXT_ARRAY,
                    Type::TEXT_ARRAY,
                    Type::TEXT_ARRAY,
                    Type::INT8,
                ],
            ),
            log: Statement::new(log, &[Type::INT2, Type::INT8, Type::INT8, Type::INT8]),
            keys: Statement::new(
                format!(
                    "SELECT domain, caller, key, digest, first, count FROM {schema}.idempotency \
                     WHERE lane = $1 AND first > $2 ORDER BY first LIMIT $3"
                ),
                &[Type::INT2, Type::INT8, Type::INT8],
            ),
            seek: Statement::new(
                format!("SELECT {}", seek(schema, "$1", "$2")),
                &[Type::INT2, Type::INT8],
            ),
            heads: Statement::new(
                format!("SELECT lane, head FROM {schema}.lanes ORDER BY lane"),
                &[],
            ),
        }
    }

    pub(super) async fn get_at(
        &self,
        pool: &Pool,
        lane: Lane,
        entity: &EntityRef,
        at: At,
    ) -> Result<Read<Option<Event>>> {
        let (statement, last) = match at {
            At::Version(version) => (&self.at_version, Version::as_i64(version)),
            At::Time(time) => (&self.at_time, time.0),
        };
        let parameters = [
            &i16::from(lane.0) as _,
            &entity.domain() as _,
            &entity.kind() as _,
            &entity.key() as _,
            &last as _,
        ];
        one_event(pool, "get_at", lane, statement, &parameters).await
    }

    pub(super) async fn get_event(
        &self,
        pool: &Pool,
        lane: Lane,
        entity: &EntityRef,
        id: EventId,
    ) -> Result<Read<Option<Event>>> {
        let parameters = [
            &i16::from(lane.0) as _,
            &entity.domain() as _,
            &entity.kind() as _,
            &entity.key() as _,
            &id.0 as _,
        ];
        one_event(pool, "get_event", lane, &self.by_id, &parameters).await
    }

    pub(super) async fn get_events(
        &self,
        pool: &Pool,
        events: &[(EntityRef, EventId)],
        bytes: usize,
    ) -> Result<Vec<Option<Event>>> {
        const OPERATION: &str = "get_events";
        let ids: Vec<_> = events.iter().map(|(_, id)| id.0).collect();
        let name = |of: fn(&EntityRef) -> &str| events.iter().map(|(e, _)| of(e)).collect();
        let domains: Vec<&str> = name(EntityRef::domain);
        let kinds: Vec<&str> = name(EntityRef::kind);
        let keys: Vec<&str> = name(EntityRef::key);
        let most = i64::try_from(bytes).unwrap_or(i64::MAX);
        let mut lease = pool.lease(OPERATION, Purpose::Read).await?;
        let rows = lease
            .query(&self.by_ids, &[&ids, &domains, &kinds, &keys, &most])
            .await
            .map_err(|failure| failure.of_read(OPERATION))?;
        drop(lease);
        let (mut found, mut prefix) = (Vec::with_capacity(rows.len()), Prefix::new(bytes));
        for row in &rows {
            let columns = Columns {
                row,
                operation: OPERATION,
            };
            let event = columns.event(0)?;
            if !prefix.takes(event.as_ref().map_or(0, Event::size)) {
                break;
            }
            found.push(event);
        }
        Ok(found)
    }

    pub(super) async fn read_log(
        &self,
        pool: &Pool,
        lane: Lane,
        after: Position,
        limit: ReadLimit,
    ) -> Result<Vec<Event>> {
        const OPERATION: &str = "read_log";
        let most = i64::try_from(limit.events.max(1)).unwrap_or(i64::MAX);
        let last = after.as_i64().saturating_add(most);
        let most_bytes = i64::try_from(limit.bytes).unwrap_or(i64::MAX);
        let mut lease = pool.lease(OPERATION, Purpose::Search).await?;
        let rows = lease
            .query(
                &self.log,
                &[&i16::from(lane.0), &after.as_i64(), &last, &most_bytes],
            )
            .await
            .map_err(|failure| failure.of_read(OPERATION))?;
        drop(lease);
        let (mut events, mut prefix) = (Vec::with_capacity(rows.len()), Prefix::new(limit.bytes));
        for row in &rows {
            let columns = Columns {
                row,
                operation: OPERATION,
            };
            let event = columns
                .event(0)?
                .ok_or_else(|| corrupt(OPERATION, "an event has no lane"))?;
            if !prefix.takes(event.size()) {
                break;
            }
            events.push(event);
        }
        Ok(events)
    }

    pub(super) async fn read_keys(
        &self,
        pool: &Pool,
        lane: Lane,
        after: Position,
        most: usize,
    ) -> Result<Vec<KeyRecord>> {
        const OPERATION: &str = "read_keys";
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let mut lease = pool.lease(OPERATION, Purpose::Search).await?;
        let rows = lease
            .query(&self.keys, &[&i16::from(lane.0), &after.as_i64(), &most])
            .await
            .map_err(|failure| failure.of_read(OPERATION))?;
        drop(lease);
        let records = rows.iter().map(|row| {
            let columns = Columns {
                row,
                operation: OPERATION,
            };
            let row = KeyRow {
                domain: columns.get(0)?,
                caller: columns.get(1)?,
                key: columns.get(2)?,
                digest: columns.get(3)?,
                first: columns.position(4)?,
                count: i64::from(columns.get::<i32>(5)?),
            };
            row.record(OPERATION)
        });
        records.collect()
    }

    pub(super) async fn seek(&self, pool: &Pool, lane: Lane, time: Timestamp) -> Result<Position> {
        const OPERATION: &str = "seek";
        let mut lease = pool.lease(OPERATION, Purpose::Read).await?;
        let rows = lease
            .query(&self.seek, &[&i16::from(lane.0), &time.0])
            .await
            .map_err(|failure| failure.of_read(OPERATION))?;
        let row = rows
            .first()
            .ok_or_else(|| corrupt(OPERATION, "a lane is missing"))?;
        Columns {
            row,
            operation: OPERATION,
        }
        .position(0)
    }

    pub(super) async fn heads(&self, pool: &Pool, lanes: Lanes) -> Result<Heads> {
        const OPERATION: &str = "heads";
        let mut lease = pool.lease(OPERATION, Purpose::Read).await?;
        let rows = lease
            .query(&self.heads, &[])
            .await
            .map_err(|failure| failure.of_read(OPERATION))?;
        if rows.len() != usize::from(lanes.get()) {
            return Err(corrupt(OPERATION, "a lane is missing"));
        }
        let heads = rows.iter().map(|row| {
            Columns {
                row,
                operation: OPERATION,
            }
            .position(1)
        });
        heads.collect::<Result<_>>().map(Heads::new)
    }
}

async fn one_event(
    pool: &Pool,
    operation: &'static str,
    lane: Lane,
    statement: &Statement,
    parameters: Parameters<'_>,
) -> Result<Read<Option<Event>>> {
    let mut lease = pool.lease(operation, Purpose::Read).await?;
    let rows = lease.query(statement, parameters).await;
    let rows = rows.map_err(|failure| failure.of_read(operation))?;
    let row = rows
        .first()
        .ok_or_else(|| corrupt(operation, "a lane is missing"))?;
    let columns = Columns { row, operation };
    Ok(Read {
        position: columns.position(0)?,
        lane,
        value: columns.event(1)?,
    })
}
