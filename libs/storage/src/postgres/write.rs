//! What a lane writer asks: what the next batch is decided on, and to append it.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use stategate_model::{
    EntityRef, Event, EventId, IdempotencyKey, Lane, Position, State, Timestamp, Values, Version,
    times,
};
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};
use uuid::Uuid;

use crate::{
    Appended, Batch, Error, ErrorKind, Head, KeyRecord, Loaded, Replay, Result,
    columns::{self, EventRow},
    prefix::Prefix,
};

use super::{
    failure::{append_failure, corrupt, is_conflict, is_held},
    pool::{DURABLY, Lease, Pool, Purpose, Statement, Unanswered},
    rows::{Columns, EVENT_COLUMNS, EVENT_SIZE},
};

const NO_LANE: &str = "a lane is missing";

/// The statements of one schema.
#[derive(Debug)]
pub(super) struct Writes {
    states: Statement,
    states_and_replays: Statement,
    one: Appends,
    many: Appends,
    head: Statement,
}

/// Where an append has its events from.
enum Source {
    /// From parameters. A lone caller's batch is of one, and setting arrays up is a fifth of what the server
    /// would do for it.
    One,
    /// From arrays.
    Many,
}

/// The statements that append.
#[derive(Debug)]
struct Appends {
    /// A batch that leaves no idempotency key.
    plain: Statement,
    /// One that does.
    keyed: Statement,
}

impl Appends {
    fn new(schema: &str, source: &Source) -> Self {
        Self {
            plain: Self::statement(schema, source, false),
            keyed: Self::statement(schema, source, true),
        }
    }

    fn statement(schema: &str, source: &Source, keyed: bool) -> Statement {
        // $1 is the lane, $2 the head that is expected, $3 to $12 are the columns of events.
        let mut types = vec![Type::INT2, Type::INT8];
        let of_events = [
            (Type::UUID, Type::UUID_ARRAY),
            (Type::TEXT, Type::TEXT_ARRAY),
            (Type::TEXT, Type::TEXT_ARRAY),
            (Type::TEXT, Type::TEXT_ARRAY),
            (Type::INT8, Type::INT8_ARRAY),
            (Type::INT8, Type::INT8_ARRAY),
            (Type::INT2, Type::INT2_ARRAY),
            (Type::TEXT, Type::TEXT_ARRAY),
            (Type::TEXT, Type::TEXT_ARRAY),
            (Type::TEXT, Type::TEXT_ARRAY),
        ];
        let (new, first_time, last) = match source {
            Source::One => {
                types.extend(of_events.map(|(one, _)| one));
                // Not a table of its own: what is asked of it is asked of the parameters.
                let new = "NOT MATERIALIZED ( \
                     SELECT $2 + 1 AS position, $3 AS id, $4 AS domain, $5 AS type, $6 AS key, $7 AS version, $8 AS time, \
                            $9 AS method, $10 AS claims, $11 AS trace_parent, $12 AS vals, \
                            true AS is_first, true AS is_last, $7 = 1 AS is_new \
                   )";
                (new, "$8", "head = $2 + 1, time = $8, id = $3")
            }
            Source::Many => {
                types.extend(of_events.map(|(_, many)| many));
                types.extend([Type::BOOL_ARRAY, Type::BOOL_ARRAY, Type::BOOL_ARRAY]);
                let new = "( \
                     SELECT $2 + n AS position, u.* \
                     FROM unnest($3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) \
                       WITH ORDINALITY AS u (id, domain, type, key, version, time, method, claims, trace_parent, vals, \
                                             is_first, is_last, is_new, n) \
                   )";
                let last = "head = $2 + cardinality($3), time = $8[cardinality($8)], id = $3[cardinality($3)]";
                (new, "$8[1]", last)
            }
        };
        let (mut keys, mut are_new, mut known) = (String::new(), String::new(), String::new());
        if keyed {
            let first = types.len() + 1;
            let names: Vec<String> = (first..first + 6).map(|n| format!("${n}")).collect();
            types.extend([
                Type::TEXT_ARRAY,
                Type::TEXT_ARRAY,
                Type::TEXT_ARRAY,
                Type::BYTEA_ARRAY,
                Type::INT8_ARRAY,
                Type::INT4_ARRAY,
            ]);
            keys = format!(
                ", k AS ( \
                   SELECT k.domain, sha256(convert_to(k.caller, 'UTF8')) AS caller_sha256, k.key, k.caller, k.digest, \
                          k.first, k.count \
                   FROM unnest({}) AS k (domain, caller, key, digest, first, count) \
                 )",
                names.join(", ")
            );
            are_new = format!(
                " AND NOT EXISTS ( \
                   SELECT FROM k CROSS JOIN LATERAL ( \
                     SELECT FROM {schema}.idempotency i \
                     WHERE i.domain = k.domain AND i.key = k.key AND i.caller_sha256 = k.caller_sha256 OFFSET 0 \
                   ) old \
                 )"
            );
            known = format!(
                ", known AS ( \
                   INSERT INTO {schema}.idempotency (domain, caller_sha256, key, caller, digest, lane, first, count) \
                   SELECT k.domain, k.caller_sha256, k.key, k.caller, k.digest, head.lane, k.first, k.count \
                   FROM head CROSS JOIN k \
                 )"
            );
        }
        // The head's row is locked first, so whoever comes second waits there, finds the head
        // moved, and inserts nothing. `fits` is no part of that row's condition, so that it is not
        // asked again after the wait: if the head is where it was expected, nothing else has changed. It
        // finds what the indexes would refuse too, but those would fill the server's log with it, and
        // a writer may well assume that something is absent which is there.
        // Entities that the batch makes are inserted and the others updated: which they are is known, and
        // inserting on conflict would look for each of them twice.
        let vals = "CASE WHEN new.method = 3 THEN NULL ELSE new.vals END";
        let sql = format!(
            "WITH new AS {new}{keys}, fits AS ( \
               SELECT NOT EXISTS ( \
                 SELECT FROM new LEFT JOIN LATERAL ( \
                   SELECT e.version FROM {schema}.entities e \
                   WHERE e.domain = new.domain AND e.type = new.type AND e.key = new.key OFFSET 0 \
                 ) old ON true \
                 WHERE new.is_first AND coalesce(old.version, 0) + 1 <> new.version \
               ){are_new} AND (l.id IS NULL OR l.time < {first_time}) AS fits, l.head \
               FROM {schema}.lanes l WHERE l.lane = $1 \
             ), head AS ( \
               UPDATE {schema}.lanes l SET {last} \
               FROM fits WHERE fits.fits AND l.lane = $1 AND l.head = $2 \
               RETURNING l.lane \
             ), logged AS ( \
               INSERT INTO {schema}.events \
                 (lane, position, id, domain, type, key, version, time, method, claims, trace_parent, vals) \
               SELECT head.lane, new.position, new.id, new.domain, new.type, new.key, new.version, new.time, \
                      new.method, new.claims, new.trace_parent, new.vals \
               FROM head CROSS JOIN new \
             ), made AS ( \
               INSERT INTO {schema}.entities (domain, type, key, version, vals) \
               SELECT new.domain, new.type, new.key, new.version, {vals} \
               FROM head CROSS JOIN new WHERE new.is_last AND new.is_new \
             ), changed AS ( \
               UPDATE {schema}.entities e SET version = new.version, vals = {vals} \
               FROM head CROSS JOIN new WHERE new.is_last AND NOT new.is_new \
                 AND e.domain = new.domain AND e.type = new.type AND e.key = new.key \
             ){known} SELECT EXISTS (SELECT FROM head), fits.fits, fits.head, {DURABLY} FROM fits"
        );
        Statement::new(sql, &types)
    }

    /// The statement for a batch, and what it is bound to after what is of the events.
    fn of<'s>(&'s self, keys: &'s Keys<'_>) -> (&'s Statement, Vec<Parameter<'s>>) {
        if keys.names.is_empty() {
            return (&self.plain, Vec::new());
        }
        let parameters: Vec<Parameter<'_>> = vec![
            &keys.domains,
            &keys.callers,
            &keys.names,
            &keys.digests,
            &keys.firsts,
            &keys.counts,
        ];
        (&self.keyed, parameters)
    }
}

type Parameter<'a> = &'a (dyn ToSql + Sync);

/// The idempotency keys that a batch leaves, column by column.
struct Keys<'b> {
    domains: Vec<&'b str>,
    callers: Vec<&'b str>,
    names: Vec<&'b str>,
    digests: Vec<&'b [u8]>,
    firsts: Vec<i64>,
    counts: Vec<i32>,
}

impl<'b> Keys<'b> {
    fn of(records: &'b [KeyRecord]) -> Self {
        let counts = records
            .iter()
            .map(|record| i32::try_from(record.count).unwrap_or(i32::MAX));
        Self {
            domains: records.iter().map(|record| &*record.key.domain).collect(),
            callers: records.iter().map(|record| &*record.key.caller).collect(),
            names: records.iter().map(|record| &*record.key.key).collect(),
            digests: records.iter().map(|record| &record.digest.0[..]).collect(),
            firsts: records.iter().map(|record| record.first.as_i64()).collect(),
            counts: counts.collect(),
        }
    }
}

impl Writes {
    pub(super) fn new(schema: &str) -> Self {
        // One statement sees the log at one point. n counts from 1; row 0 is the head. What is left out here
        // for its size would be left out by the exact cut as well, which is made where the rows are read.
        let nothing = "NULL::smallint, NULL::bigint, NULL::uuid, NULL, NULL, NULL, NULL::bigint, NULL::bigint, \
                       NULL::smallint, NULL, NULL, NULL";
        let states = format!(
            "SELECT 0::bigint AS n, l.head, l.time, l.id, NULL::text COLLATE \"C\", NULL::bytea, {nothing} \
             FROM {schema}.lanes l WHERE l.lane = $1 \
             UNION ALL \
             SELECT e.n, e.version, NULL, NULL, e.vals, NULL, {nothing} FROM ( \
               SELECT q.n, e.version, e.vals, coalesce(sum(octet_length(e.vals)) \
                   OVER (ORDER BY q.n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before \
               FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS q (domain, type, key, n) \
               CROSS JOIN LATERAL ( \
                 SELECT e.version, e.vals FROM {schema}.entities e \
                 WHERE e.domain = q.domain AND e.type = q.type AND e.key = q.key OFFSET 0 \
               ) e \
             ) e WHERE e.before <= $5"
        );
        let replays = format!(
            " UNION ALL \
             SELECT -e.n, NULL, NULL, NULL, NULL, e.digest, {EVENT_COLUMNS} FROM ( \
               SELECT q.n, e.*, coalesce(sum({EVENT_SIZE}) \
                   OVER (ORDER BY q.n GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before \
               FROM unnest($6::text[], $7::text[], $8::text[]) WITH ORDINALITY AS q (domain, caller, key, n) \
               CROSS JOIN LATERAL ( \
                 SELECT i.digest, e.* FROM {schema}.idempotency i \
                 JOIN {schema}.events e \
                   ON e.lane = i.lane AND e.position >= i.first AND e.position < i.first + i.count \
                 WHERE i.domain = q.domain AND i.key = q.key \
                   AND i.caller_sha256 = sha256(convert_to(q.caller, 'UTF8')) OFFSET 0 \
               ) e \
             ) e WHERE e.before <= $5"
        );
        let texts = Type::TEXT_ARRAY;
        let of_states = [
            Type::INT2,
            texts.clone(),
            texts.clone(),
            texts.clone(),
            Type::INT8,
        ];
        let of_replays = [&of_states[..], &[texts.clone(), texts.clone(), texts]].concat();
        Self {
            states_and_replays: Statement::new(states.clone() + &replays, &of_replays),
            states: Statement::new(states, &of_states),
            one: Appends::new(schema, &Source::One),
            many: Appends::new(schema, &Source::Many),
            head: Statement::new(
                format!("SELECT head FROM {schema}.lanes WHERE lane = $1"),
                &[Type::INT2],
            ),
        }
    }

    /// [`crate::Storage::load`], in one round trip.
    pub(super) async fn load(
        &self,
        pool: &Pool,
        lane: Lane,
        entities: &[EntityRef],
        keys: &[IdempotencyKey],
        bytes: usize,
    ) -> Result<Loaded> {
        const OPERATION: &str = "load";
        let lane = i16::from(lane.0);
        let most = i64::try_from(bytes).unwrap_or(i64::MAX);
        let domains: Vec<&str> = entities.iter().map(EntityRef::domain).collect();
        let kinds: Vec<&str> = entities.iter().map(EntityRef::kind).collect();
        let names: Vec<&str> = entities.iter().map(EntityRef::key).collect();
        let mut lease = pool.lease(OPERATION, Purpose::Load).await?;
        let rows = if keys.is_empty() {
            let parameters = [
                &lane as _,
                &domains as _,
                &kinds as _,
                &names as _,
                &most as _,
            ];
            lease.query(&self.states, &parameters).await
        } else {
            let key_domains: Vec<&str> = keys.iter().map(|key| &*key.domain).collect();
            let callers: Vec<&str> = keys.iter().map(|key| &*key.caller).collect();
            let key_names: Vec<&str> = keys.iter().map(|key| &*key.key).collect();
            let parameters = [
                &lane as _,
                &domains as _,
                &kinds as _,
                &names as _,
                &most as _,
                &key_domains as _,
                &callers as _,
                &key_names as _,
            ];
            lease.query(&self.states_and_replays, &parameters).await
        };
        let rows = rows.map_err(|failure| failure.of_read(OPERATION))?;
        drop(lease);

        let mut head = None;
        let mut states = vec![State::default(); entities.len()];
        let mut replays: Vec<Option<Replay>> = vec![None; keys.len()];
        for row in &rows {
            let columns = Columns {
                row,
                operation: OPERATION,
            };
            let n: i64 = columns.get(0)?;
            let at = usize::try_from(n.unsigned_abs()).unwrap_or(usize::MAX);
            match n {
                0 => {
                    head = Some(Head {
                        position: columns.position(1)?,
                        time: Timestamp(columns.get(2)?),
                        id: columns.get::<Option<Uuid>>(3)?.map(EventId),
                    });
                }
                1.. => {
                    let state = states.get_mut(at - 1);
                    *state.ok_or_else(|| corrupt(OPERATION, "a state nobody asked for"))? = State {
                        version: columns.version(1)?,
                        values: columns.get::<Option<&str>>(4)?.map(Values::from_canonical),
                    };
                }
                _ => {
                    let replay = replays.get_mut(at - 1);
                    let replay =
                        replay.ok_or_else(|| corrupt(OPERATION, "a key nobody asked for"))?;
                    let digest = columns::digest(OPERATION, columns.get(5)?)?;
                    let event = columns.event(6)?;
                    replay
                        .get_or_insert_with(|| Replay {
                            digest,
                            events: Vec::new(),
                        })
                        .events
                        .extend(event);
                }
            }
        }
        for replay in replays.iter_mut().flatten() {
            replay.events.sort_unstable_by_key(|event| event.position);
        }
        let mut prefix = Prefix::new(bytes);
        let cut = states.iter().position(|state| !prefix.takes(state.size()));
        match cut {
            Some(cut) => {
                states.truncate(cut);
                replays.clear();
            }
            None => {
                let size = |replay: &Option<Replay>| replay.as_ref().map_or(0, Replay::size);
                let cut = replays
                    .iter()
                    .position(|replay| !prefix.takes(size(replay)));
                replays.truncate(cut.unwrap_or(replays.len()));
            }
        }
        Ok(Loaded {
            head: head.ok_or_else(|| corrupt(OPERATION, NO_LANE))?,
            states,
            replays,
        })
    }

    /// [`crate::Storage::append`] of a batch that is right in itself.
    pub(super) async fn append(
        &self,
        pool: &Pool,
        lane: Lane,
        expected: Position,
        batch: Arc<Batch>,
    ) -> Result<Appended> {
        for _ in 0..times::LOCK_TRIES {
            let mut lease = pool.lease("append", Purpose::Append).await?;
            let cut_short = pool.cut_short();
            match self.try_append(&mut lease, lane, expected, &batch).await {
                Ok(rows) => {
                    let row = of_lane(&rows)?;
                    let (done, fits): (bool, bool) = (row.get(0)?, row.get(1)?);
                    return match done {
                        // It may have been this one: done here, and perhaps on no standby.
                        true if pool.cut_short() != cut_short => Err(unreplicated("append")),
                        true => Ok(Appended::Done),
                        // Or it has moved while the statement waited for its row.
                        false if fits || row.position(2)? != expected => Ok(Appended::HeadMoved),
                        false => Err(Error::new(ErrorKind::Rejected, "append").because(
                            "its times, versions or keys do not continue those that are there",
                        )),
                    };
                }
                // Nothing was written, and whoever has the head may have moved it. Only a head that was
                // seen to have moved says that this batch, sent before, cannot land after all.
                Err(Unanswered::Sql(error)) if is_held(&error) => {}
                Err(Unanswered::Unsent(error)) => return Err(error),
                Err(Unanswered::Sql(error)) if is_conflict(&error) => continue,
                Err(Unanswered::Sql(error)) => return Err(append_failure(&error)),
                Err(Unanswered::Silence) => {
                    return Err(Error::new(ErrorKind::Unknown, "append")
                        .because("the database did not answer in time"));
                }
            }
            let rows = lease.query(&self.head, &[&i16::from(lane.0)]).await;
            let rows = rows.map_err(|failure| failure.of_read("append"))?;
            let row = of_lane(&rows)?;
            if row.position(0)? != expected {
                return Ok(Appended::HeadMoved);
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "append")
            .because("the database gave the batch up in favour of others again and again"))
    }

    /// [`crate::Storage::confirm`]: a commit of our own. The servers' log is in order, so whoever has this
    /// one has every one that could be seen before it.
    pub(super) async fn confirm(&self, pool: &Pool) -> Result<()> {
        const OPERATION: &str = "confirm";
        let mut lease = pool.lease(OPERATION, Purpose::Confirm).await?;
        let cut_short = pool.cut_short();
        // A message in the server's log that nobody reads: no table is written and nothing is locked.
        let sql =
            format!("SELECT {DURABLY}, pg_logical_emit_message(true, 'stategate', ''::text)::text");
        let confirmed = lease.query_once(&sql, &[]).await;
        confirmed.map_err(|failure| failure.of_read(OPERATION))?;
        match pool.cut_short() == cut_short {
            true => Ok(()),
            false => Err(unreplicated(OPERATION)),
        }
    }

    async fn try_append(
        &self,
        lease: &mut Lease,
        lane: Lane,
        expected: Position,
        batch: &Batch,
    ) -> std::result::Result<Vec<Row>, Unanswered> {
        let keys = Keys::of(&batch.keys);
        match &batch.events[..] {
            [event] => self.append_one(lease, lane, expected, event, &keys).await,
            events => self.append_many(lease, lane, expected, events, &keys).await,
        }
    }

    async fn append_one(
        &self,
        lease: &mut Lease,
        lane: Lane,
        expected: Position,
        event: &Event,
        keys: &Keys<'_>,
    ) -> std::result::Result<Vec<Row>, Unanswered> {
        let (statement, of_keys) = self.one.of(keys);
        let (lane, expected) = (i16::from(lane.0), expected.as_i64());
        let row = EventRow::of(event);
        let mut parameters: Vec<Parameter<'_>> = vec![
            &lane,
            &expected,
            &row.id,
            &row.domain,
            &row.kind,
            &row.key,
            &row.version,
            &row.time,
            &row.method,
            &row.claims,
            &row.trace_parent,
            &row.values,
        ];
        parameters.extend(of_keys);
        lease.query(statement, &parameters).await
    }

    async fn append_many(
        &self,
        lease: &mut Lease,
        lane: Lane,
        expected: Position,
        events: &[Event],
        keys: &Keys<'_>,
    ) -> std::result::Result<Vec<Row>, Unanswered> {
        let (statement, of_keys) = self.many.of(keys);
        let (lane, expected) = (i16::from(lane.0), expected.as_i64());
        let rows: Vec<EventRow<'_>> = events.iter().map(EventRow::of).collect();
        let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
        let domains: Vec<&str> = rows.iter().map(|row| row.domain).collect();
        let kinds: Vec<&str> = rows.iter().map(|row| row.kind).collect();
        let names: Vec<&str> = rows.iter().map(|row| row.key).collect();
        let versions: Vec<i64> = rows.iter().map(|row| row.version).collect();
        let times: Vec<i64> = rows.iter().map(|row| row.time).collect();
        let methods: Vec<i16> = rows.iter().map(|row| row.method).collect();
        let claims: Vec<Option<&str>> = rows.iter().map(|row| row.claims).collect();
        let traces: Vec<Option<&str>> = rows.iter().map(|row| row.trace_parent).collect();
        let values: Vec<&str> = rows.iter().map(|row| row.values).collect();
        let mut firsts: HashMap<&EntityRef, Version> = HashMap::with_capacity(events.len());
        let is_first: Vec<bool> = events
            .iter()
            .map(|event| match firsts.entry(&event.entity) {
                Entry::Vacant(first) => {
                    first.insert(event.version);
                    true
                }
                Entry::Occupied(_) => false,
            })
            .collect();
        let is_new: Vec<bool> = events
            .iter()
            .map(|event| firsts.get(&event.entity) == Some(&Version::ZERO.next()))
            .collect();
        let mut is_last: Vec<bool> = events
            .iter()
            .rev()
            .map(|event| firsts.remove(&event.entity).is_some())
            .collect();
        is_last.reverse();

        let mut parameters: Vec<Parameter<'_>> = vec![
            &lane, &expected, &ids, &domains, &kinds, &names, &versions, &times, &methods, &claims,
            &traces, &values, &is_first, &is_last, &is_new,
        ];
        parameters.extend(of_keys);
        lease.query(statement, &parameters).await
    }
}

/// A commit that somebody cancelled as it waited for a standby.
fn unreplicated(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unknown, operation)
        .because("a commit was cancelled as it waited for a standby, and may be on none")
}

/// The one row that is asked of a lane by an append.
fn of_lane(rows: &[Row]) -> Result<Columns<'_>> {
    const OPERATION: &str = "append";
    let row = rows.first().ok_or_else(|| corrupt(OPERATION, NO_LANE))?;
    Ok(Columns {
        row,
        operation: OPERATION,
    })
}
