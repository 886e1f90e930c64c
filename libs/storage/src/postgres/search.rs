//! Searches: the server narrows and sorts, the model's evaluator decides every row.
//!
//! The order of contract §5 is made by the server, exactly, so rows come in the order of the results
//! and a search ends as soon as its page is full. Rows come in chunks, bounded in number and bytes. The
//! first chunk is a statement of its own, and most searches need no other; where the evaluator has
//! dropped too many rows, the search is made again in a transaction that sees the log at one point.

use stategate_model::{
    Cursor, Direction, EntityQuery, EntityRef, Event, EventQuery, Lane, Method, PageRequest, Path,
    Position, Scan, Sort, SortKey, SortPart, Tie, Timestamp, Value, Values, filter::Root, json,
};
use tokio_postgres::types::{ToSql, Type};

use crate::{Error, ErrorKind, Found, Page, Read, Result, columns};

use super::{
    failure::corrupt,
    jsonpath,
    pool::{Lease, Pool, Purpose, Statement, Transaction},
    reads,
    rows::{Columns, EVENT_COLUMNS, EVENT_KIND, EVENT_WIDTH},
};

/// Rows of the chunks after the first.
const CHUNK_ROWS: i64 = 2_000;
/// Bytes of values after which a chunk ends.
const CHUNK_BYTES: i64 = 4 << 20;

/// A statement in the making, and what it is bound to.
struct Sql {
    parameters: Vec<(Box<dyn ToSql + Sync + Send>, Type)>,
    /// Most rows that it is to answer.
    rows: i64,
}

impl Sql {
    fn new(rows: i64) -> Self {
        Self {
            parameters: Vec::new(),
            rows,
        }
    }

    /// Binds a value; answers how the statement names it.
    fn bind(&mut self, value: impl ToSql + Sync + Send + 'static, type_: Type) -> String {
        self.parameters.push((Box::new(value), type_));
        format!("${}", self.parameters.len())
    }

    fn text(&mut self, text: &str) -> String {
        self.bind(text.to_owned(), Type::TEXT)
    }

    fn integer(&mut self, integer: i64) -> String {
        self.bind(integer, Type::INT8)
    }
}

/// The part of a result that one statement gives.
struct Chunk<T> {
    head: Position,
    items: Vec<T>,
    /// Whether nothing follows.
    is_last: bool,
}

/// What of a search is the same for entities and events.
struct Search<'q> {
    operation: &'static str,
    schema: &'q str,
    lane: Lane,
    page: &'q PageRequest,
    sort: Option<&'q Sort>,
    /// Whether its statements have the same plan whatever they are bound to.
    one_plan: bool,
}

impl Search<'_> {
    fn direction(&self) -> Direction {
        Direction::of(self.sort)
    }

    /// Asks for chunks until `scan` has its page. `chunk` makes the statement for what follows a
    /// cursor, and `take` offers a row.
    async fn run<T: Send, R: Send>(
        &self,
        pool: &Pool,
        chunk: impl Fn(&mut Sql, Option<&Cursor>, &str) -> String + Sync,
        read: impl Fn(&Columns<'_>) -> Result<R> + Sync,
        cursor: impl Fn(&R) -> Result<Cursor> + Sync,
        take: impl Fn(&mut Scan<T>, Cursor, R) -> Result<bool> + Sync,
    ) -> Result<Read<Page<T>>> {
        if self.sort.is_some() {
            self.page
                .check_sort_window()
                .map_err(|invalid| Error::new(ErrorKind::Invalid(invalid), self.operation))?;
        }
        let mut lease = pool.lease(self.operation, Purpose::Search).await?;
        // One more than the page has, to tell that something follows.
        let wanted = i64::from(self.page.offset) + i64::from(self.page.limit) + 1;
        let mut rows = wanted.min(CHUNK_ROWS);
        let mut in_snapshot = false;
        let mut scan = Scan::new(self.page, self.direction());
        let mut after = self.page.after.clone();
        loop {
            let mut sql = Sql::new(rows);
            let limit = sql.integer(rows);
            let statement = chunk(&mut sql, after.as_ref(), &limit);
            let found = self.ask(&mut lease, &statement, &sql, &read).await?;
            let is_first = after == self.page.after;
            let mut is_complete = false;
            for row in found.items {
                let at = cursor(&row)?;
                after = Some(at.clone());
                if !take(&mut scan, at, row)? {
                    is_complete = true;
                    break;
                }
            }
            if is_complete || found.is_last {
                if in_snapshot {
                    lease
                        .commit()
                        .await
                        .map_err(|failure| failure.of_read(self.operation))?;
                }
                return Ok(Read {
                    value: scan.finish(),
                    lane: self.lane,
                    position: found.head,
                });
            }
            rows = CHUNK_ROWS;
            if is_first && !in_snapshot {
                // From the start, for what follows must be read at the same point.
                lease
                    .begin(Transaction::Snapshot)
                    .await
                    .map_err(|failure| failure.of_read(self.operation))?;
                in_snapshot = true;
                scan = Scan::new(self.page, self.direction());
                after = self.page.after.clone();
            }
        }
    }

    async fn ask<R>(
        &self,
        lease: &mut Lease,
        statement: &str,
        sql: &Sql,
        read: impl Fn(&Columns<'_>) -> Result<R>,
    ) -> Result<Chunk<R>> {
        let parameters = sql
            .parameters
            .iter()
            .map(|(value, type_)| (&**value as &(dyn ToSql + Sync), type_.clone()));
        let rows = if self.one_plan {
            let (values, types): (Vec<_>, Vec<_>) = parameters.unzip();
            lease
                .query(&Statement::new(statement, &types), &values)
                .await
        } else {
            let parameters: Vec<_> = parameters.collect();
            lease.query_once(statement, &parameters).await
        };
        let rows = rows.map_err(|failure| failure.of_read(self.operation))?;
        let mut head = None;
        let mut items = Vec::with_capacity(rows.len());
        let mut bytes = 0;
        for row in &rows {
            let columns = Columns {
                row,
                operation: self.operation,
            };
            head = Some(columns.position(0)?);
            let Some(upto) = columns.get::<Option<i64>>(1)? else {
                continue;
            };
            bytes = upto;
            items.push(read(&columns)?);
        }
        let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
        Ok(Chunk {
            head: head.ok_or_else(|| corrupt(self.operation, "a lane is missing"))?,
            items,
            // Neither number nor bytes have kept anything back.
            is_last: count < sql.rows && bytes < CHUNK_BYTES,
        })
    }

    /// The statement around the rows of a chunk: with the lane's head, the bytes up to each row, and no
    /// more rows than [`CHUNK_BYTES`] (but one). `order` is that of the rows, by columns of theirs.
    fn around(&self, sql: &mut Sql, rows: &str, size: &str, columns: &str, order: &str) -> String {
        let lane = sql.bind(i16::from(self.lane.0), Type::INT2);
        let bytes = sql.integer(CHUNK_BYTES);
        let schema = self.schema;
        // Planned for any number of rows, a prepared statement would seem to be dearer than one that is
        // planned anew. One statement does for many numbers.
        let bound = match self.one_plan {
            true => format!(
                "ORDER BY {order} LIMIT {}",
                sql.rows.cast_unsigned().next_power_of_two()
            ),
            false => String::new(),
        };
        format!(
            "SELECT l.head, e.upto, {columns} FROM {schema}.lanes l LEFT JOIN LATERAL ( \
               SELECT * FROM ( \
                 SELECT e.*, row_number() OVER w AS n, sum({size}) OVER w AS upto \
                 FROM (SELECT * FROM ({rows}) e {bound}) e WINDOW w AS (ORDER BY {order} ROWS UNBOUNDED PRECEDING) \
               ) e WHERE e.upto - ({size}) < {bytes} \
             ) e ON true WHERE l.lane = {lane} ORDER BY e.n"
        )
    }
}

/// What the server sorts by: the kind of a value, and the value, each in a column of its own.
struct Order {
    /// What the rows come from, beside the table: the value that the columns are made of.
    value: String,
    rank: String,
    number: String,
    text: String,
}

/// Ranks of the kinds, in their order.
const MISSING: i64 = 0;
const FALSE: i64 = 1;
const TRUE: i64 = 2;
const NUMBER: i64 = 3;
const TEXT: i64 = 4;
const COMPOUND: i64 = 5;

const NO_NUMBER: &str = "0::numeric";
const NO_TEXT: &str = "''::bytea";

impl Order {
    fn constant(rank: i64) -> Self {
        Self {
            value: String::new(),
            rank: format!("{rank}::bigint"),
            number: NO_NUMBER.to_owned(),
            text: NO_TEXT.to_owned(),
        }
    }

    fn of_integer(column: &str) -> Self {
        Self {
            number: format!("{column}::numeric"),
            ..Self::constant(NUMBER)
        }
    }

    fn of_text(column: &str) -> Self {
        Self {
            text: format!("substring(convert_to({column}, 'UTF8') FROM 1 FOR 1024)"),
            ..Self::constant(TEXT)
        }
    }

    /// By what is at `path` in a document.
    fn of_document(sql: &mut Sql, document: &str, path: &Path) -> Self {
        let Some(array) = jsonpath::meets_array(path) else {
            return Self::constant(COMPOUND);
        };
        let array = sql.text(&array);
        let at = sql.text(&jsonpath::accessor("strict $", path));
        // Not merged into the rest of the statement, so that the path is followed once a row.
        let value = format!(
            " CROSS JOIN LATERAL ( \
               SELECT CASE WHEN d.doc @? {array}::text::jsonpath THEN '[]'::jsonb \
                      ELSE jsonb_path_query_first(d.doc, {at}::text::jsonpath, '{{}}', true) END AS value \
               FROM (SELECT {document} AS doc OFFSET 0) d OFFSET 0 \
             ) v"
        );
        Self {
            value,
            rank: format!(
                "(CASE jsonb_typeof(v.value) WHEN 'boolean' THEN CASE WHEN v.value::boolean THEN {TRUE} ELSE {FALSE} END \
                 WHEN 'number' THEN {NUMBER} WHEN 'string' THEN {TEXT} WHEN 'array' THEN {COMPOUND} \
                 WHEN 'object' THEN {COMPOUND} ELSE {MISSING} END)::bigint"
            ),
            number: format!(
                "CASE WHEN jsonb_typeof(v.value) = 'number' THEN v.value::numeric ELSE {NO_NUMBER} END"
            ),
            text: format!(
                "CASE WHEN jsonb_typeof(v.value) = 'string' \
                 THEN substring(convert_to(v.value #>> '{{}}', 'UTF8') FROM 1 FOR 1024) ELSE {NO_TEXT} END"
            ),
        }
    }

    /// The columns, named.
    fn columns(&self) -> String {
        format!(
            "{} AS rank, {} AS number, {} AS text",
            self.rank, self.number, self.text
        )
    }
}

/// A cursor's key as the three columns have it.
fn bind_key(sql: &mut Sql, key: &SortKey) -> String {
    let (rank, number, text) = match key.part() {
        SortPart::Missing => (MISSING, None, &[][..]),
        SortPart::Bool(false) => (FALSE, None, &[][..]),
        SortPart::Bool(true) => (TRUE, None, &[][..]),
        SortPart::Number(number) => {
            let number = json::canonical_value(&Value::Number(number));
            (NUMBER, Some(number), &[][..])
        }
        SortPart::Integer(integer) => (NUMBER, Some(integer.to_string()), &[][..]),
        SortPart::Text(text) => (TEXT, None, text),
        SortPart::Compound => (COMPOUND, None, &[][..]),
    };
    let rank = sql.integer(rank);
    let number = sql.text(&number.unwrap_or_else(|| "0".to_owned()));
    let text = sql.bind(text.to_vec(), Type::BYTEA);
    format!("{rank}, {number}::text::numeric, {text}")
}

fn sign(direction: Direction) -> (&'static str, &'static str) {
    match direction {
        Direction::Forward => (">", "ASC"),
        Direction::Reverse => ("<", "DESC"),
    }
}

/// Searches entities.
pub(super) async fn entities(
    pool: &Pool,
    schema: &str,
    lane: Lane,
    query: &EntityQuery,
) -> Result<Read<Page<Found>>> {
    const OPERATION: &str = "search_entities";
    let narrowing = jsonpath::narrowing(&query.filter, Root::Values);
    let search = Search {
        operation: OPERATION,
        schema,
        lane,
        page: &query.page,
        sort: query.sort.as_ref(),
        // Along the primary key.
        one_plan: query.sort.is_none() && narrowing.is_none(),
    };
    let (domain, kind) = (query.of.domain.as_str(), query.of.kind.as_str());
    let chunk = |sql: &mut Sql, after: Option<&Cursor>, limit: &str| {
        let (domain, kind) = (sql.text(domain), sql.text(kind));
        let mut conditions =
            format!("e.domain = {domain} AND e.type = {kind} AND e.vals IS NOT NULL");
        if let Some(path) = &narrowing {
            let path = sql.text(path);
            conditions.push_str(&format!(" AND e.doc @? {path}::text::jsonpath"));
        }
        let (than, way) = sign(search.direction());
        let key_after = match after {
            Some(Cursor {
                tie: Tie::Key(key), ..
            }) => Some(sql.text(key)),
            _ => None,
        };
        let rows = match search.sort {
            None => {
                if let Some(key) = key_after {
                    conditions.push_str(&format!(" AND e.key {than} {key}"));
                }
                format!(
                    "SELECT e.key, e.version, e.vals FROM {schema}.entities e WHERE {conditions} \
                     ORDER BY e.key {way} LIMIT {limit}"
                )
            }
            Some(sort) => {
                let order = Order::of_document(sql, "e.doc", &sort.path);
                let mut follows = String::new();
                if let (Some(tie), Some(key)) =
                    (key_after, after.and_then(|after| after.key.as_ref()))
                {
                    let key = bind_key(sql, key);
                    follows =
                        format!("WHERE (e.rank, e.number, e.text, e.key) {than} ({key}, {tie})");
                }
                format!(
                    "SELECT * FROM ( \
                       SELECT e.key, e.version, e.vals, {} FROM {schema}.entities e{} WHERE {conditions} OFFSET 0 \
                     ) e {follows} ORDER BY e.rank {way}, e.number {way}, e.text {way}, e.key {way} LIMIT {limit}",
                    order.columns(),
                    order.value
                )
            }
        };
        let order = match search.sort {
            None => format!("e.key {way}"),
            Some(_) => format!("e.rank {way}, e.number {way}, e.text {way}, e.key {way}"),
        };
        search.around(
            sql,
            &rows,
            "octet_length(e.vals)",
            "e.key, e.version, e.vals",
            &order,
        )
    };
    let read = |columns: &Columns<'_>| {
        let entity = EntityRef::new(domain, kind, columns.get(2)?)
            .map_err(|_| corrupt(OPERATION, "a name is not legal"))?;
        Ok(Found {
            entity,
            version: columns.version(3)?,
            values: Values::from_canonical(columns.get::<&str>(4)?),
        })
    };
    let cursor = |found: &Found| {
        let key = match search.sort {
            Some(sort) => Some(SortKey::of_values(
                &sort.path,
                columns::object(OPERATION, &found.values)?,
            )),
            None => None,
        };
        let tie = Tie::Key(found.entity.key().to_owned());
        Ok(Cursor { key, tie })
    };
    let take = |scan: &mut Scan<Found>, at: Cursor, found: Found| {
        let matches = query.filter.is_all()
            || query
                .filter
                .matches_values(columns::object(OPERATION, &found.values)?);
        Ok(!matches || scan.offer(at, found.size(), found).is_continue())
    };
    search.run(pool, chunk, read, cursor, take).await
}

/// Searches events.
pub(super) async fn events(
    pool: &Pool,
    schema: &str,
    lane: Lane,
    query: &EventQuery,
) -> Result<Read<Page<Event>>> {
    const OPERATION: &str = "search_events";
    let search = Search {
        operation: OPERATION,
        schema,
        lane,
        page: &query.page,
        sort: query.sort.as_ref(),
        // Which index is best depends on what is asked for.
        one_plan: false,
    };
    let values = jsonpath::narrowing(&query.filter, Root::Values);
    let claims = jsonpath::narrowing(&query.filter, Root::Claims);
    let key = query.filter.equality(&["entity", "key"]);
    let is_log_order = is_log_order(query.sort.as_ref());
    let chunk = |sql: &mut Sql, after: Option<&Cursor>, limit: &str| {
        let (domain, kind) = (query.of.domain.as_str(), query.of.kind.as_str());
        let mut conditions = vec!["true".to_owned()];
        if let Some(path) = &values {
            let path = sql.text(path);
            conditions.push(format!("{VALUES} @? {path}::text::jsonpath"));
        }
        if let Some(path) = &claims {
            let path = sql.text(path);
            conditions.push(format!("{CLAIMS} @? {path}::text::jsonpath"));
        }
        let conditions = conditions.join(" AND ");
        let seek = |sql: &mut Sql, time: i64| {
            let (lane, time) = (sql.bind(i16::from(lane.0), Type::INT2), sql.integer(time));
            reads::seek(schema, &lane, &time)
        };
        let (than, way) = sign(search.direction());
        let place_after = match after {
            Some(Cursor {
                tie: Tie::Place(_, position),
                ..
            }) => Some(position.as_i64()),
            _ => None,
        };
        let in_log_order = search.sort.is_none() || is_log_order;
        // The first and the last position there may be.
        let (mut first, mut last) = (vec![sql.integer(0)], vec![sql.integer(i64::MAX)]);
        if let Some(Timestamp(min)) = query.min {
            first.push(format!("{} + 1", seek(sql, min)));
        }
        if let Some(Timestamp(max)) = query.max
            && max < i64::MAX
        {
            last.push(seek(sql, max + 1));
        }
        if let Some(position) = place_after.filter(|_| in_log_order) {
            match search.direction() {
                Direction::Forward => first.push(sql.integer(position.saturating_add(1))),
                Direction::Reverse => last.push(sql.integer(position - 1)),
            }
        }
        let first = format!("greatest({})", first.join(", "));
        let last = format!("least({})", last.join(", "));
        // Each in the words of the one index that can serve it. Of a kind, events are asked for as a stretch
        // of that index, not by an equality: the server then never takes them for so few that it reads them
        // all and sorts them.
        let (place, by) = match key {
            Some(key) => {
                let (domain, kind, key) = (sql.text(domain), sql.text(kind), sql.text(key));
                let of = format!("e.domain = {domain} AND e.type = {kind} AND e.key = {key}");
                // An entity's versions run with their positions, and there is an index on them.
                (
                    format!("{of} AND e.position >= {first} AND e.position <= {last}"),
                    "e.version".to_owned(),
                )
            }
            None => {
                let kind = sql.text(&format!("{domain} {kind}"));
                let place = format!("({EVENT_KIND}, e.position)");
                (
                    format!("{place} >= ({kind}, {first}) AND {place} <= ({kind}, {last})"),
                    EVENT_KIND.to_owned(),
                )
            }
        };
        let (rows, order) = match search.sort.filter(|_| !is_log_order) {
            None => (
                format!(
                    "SELECT {EVENT_COLUMNS} FROM {schema}.events e WHERE {place} AND {conditions} \
                     ORDER BY {by} {way}, e.position {way} LIMIT {limit}"
                ),
                format!("e.position {way}"),
            ),
            Some(sort) => {
                let order = event_order(sql, &sort.path);
                let mut follows = String::new();
                if let (Some(tie), Some(key)) =
                    (place_after, after.and_then(|after| after.key.as_ref()))
                {
                    let (key, tie) = (bind_key(sql, key), sql.integer(tie));
                    follows = format!(
                        "WHERE (e.rank, e.number, e.text, e.position) {than} ({key}, {tie})"
                    );
                }
                let by = format!("e.rank {way}, e.number {way}, e.text {way}, e.position {way}");
                (
                    format!(
                        "SELECT * FROM ( \
                           SELECT {EVENT_COLUMNS}, {} FROM {schema}.events e{} \
                           WHERE {place} AND {conditions} OFFSET 0 \
                         ) e {follows} ORDER BY {by} LIMIT {limit}",
                        order.columns(),
                        order.value
                    ),
                    by,
                )
            }
        };
        let size = "octet_length(e.vals) + coalesce(octet_length(e.claims), 0)";
        search.around(sql, &rows, size, EVENT_COLUMNS, &order)
    };
    let read = |columns: &Columns<'_>| {
        debug_assert_eq!(columns.row.len(), 2 + EVENT_WIDTH);
        columns
            .event(2)?
            .ok_or_else(|| corrupt(OPERATION, "an event has no lane"))
    };
    let damaged = |_| corrupt(OPERATION, "values are not an object");
    let cursor = |event: &Event| {
        let key = match search.sort {
            Some(sort) => Some(SortKey::of_event(&sort.path, event).map_err(damaged)?),
            None => None,
        };
        let tie = Tie::Place(event.lane, event.position);
        Ok(Cursor { key, tie })
    };
    let take = |scan: &mut Scan<Event>, at: Cursor, event: Event| {
        let matches =
            query.filter.is_all() || query.filter.matches_event(&event).map_err(damaged)?;
        Ok(!matches || scan.offer(at, event.size(), event).is_continue())
    };
    search.run(pool, chunk, read, cursor, take).await
}

const VALUES: &str = "e.vals::jsonb";
const CLAIMS: &str = "coalesce(e.claims, '{}')::jsonb";

/// Whether an order is that of positions: times increase with them, and a search sees one lane.
fn is_log_order(sort: Option<&Sort>) -> bool {
    sort.is_none_or(|sort| match sort.path.root() {
        Root::Time | Root::Position | Root::Lane | Root::Domain | Root::Kind => true,
        Root::Values | Root::Claims | Root::Key | Root::Method | Root::Id | Root::Version => false,
    })
}

fn event_order(sql: &mut Sql, path: &Path) -> Order {
    match path.root() {
        Root::Values => Order::of_document(sql, VALUES, path),
        Root::Claims => Order::of_document(sql, CLAIMS, path),
        Root::Key => Order::of_text("e.key"),
        Root::Id => Order::of_text("e.id::text"),
        Root::Version => Order::of_integer("e.version"),
        Root::Method => {
            let names: Vec<String> = Method::ALL
                .into_iter()
                .map(|method| {
                    format!(
                        "WHEN {} THEN '{}'",
                        columns::method_code(method),
                        method.as_str()
                    )
                })
                .collect();
            Order::of_text(&format!("CASE e.method {} END", names.join(" ")))
        }
        // These are the order of the log, which is read from an index.
        Root::Time | Root::Position | Root::Lane | Root::Domain | Root::Kind => {
            Order::constant(COMPOUND)
        }
    }
}
