//! The floors of PostgreSQL, by tokio-postgres: prepared statements, one round trip a transaction.

use std::{
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::json;
use stategate_storage::{Postgres, PostgresConfig, Storage as _};
use tokio::{runtime::Handle, task::JoinSet};
use tokio_postgres::{Client, NoTls, Row, Statement};
use uuid::Uuid;

use crate::data::{DOMAIN, ORDERS, PAGE, PRODUCT_KEYS, PRODUCTS, product_key};

use super::{BATCH, Kept, ROWS, SCANNED, Words, readers, warm_up};

pub(super) const WORDS: Words = Words {
    clients: "a connection each; each waits its turn for the head's row",
    durability: "fsync, full_page_writes and synchronous_commit are on, and a Set took longer than the quickest \
        sync of the disk (checked with set-one); every acknowledged event was there at the end, without a hole",
};

/// The schema that rows are inserted into.
const PLAIN: &str = "plain";
/// What a server must not do without.
const SETTINGS: [&str; 3] = ["fsync", "full_page_writes", "synchronous_commit"];

/// A server with its default settings.
pub(crate) struct Server {
    server: stategate_servers::Postgres,
    version: String,
}

impl Server {
    pub(super) fn start(directory: &Path) -> anyhow::Result<Self> {
        let server = stategate_servers::Postgres::start_in(directory, &[])
            .map_err(|missing| anyhow::anyhow!("{missing}"))?;
        let version = server.sql("SELECT current_setting('server_version')");
        Ok(Self { server, version })
    }

    /// A connection, as a plain client makes it.
    async fn connect(&self) -> anyhow::Result<Client> {
        let (client, connection) = tokio_postgres::connect(&self.server.url(), NoTls)
            .await
            .context("cannot connect to PostgreSQL")?;
        // It ends with its client, who hears of what went wrong.
        tokio::spawn(connection);
        Ok(client)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL {}, default settings", self.version)
    }
}

/// A gateway's schema.
pub(super) struct Disk<'s> {
    server: &'s Server,
    schema: String,
    runtime: Handle,
}

impl<'s> Disk<'s> {
    pub(super) fn new(server: &'s Server, number: usize, runtime: &Handle) -> Self {
        let schema = |number| format!("round_{number}");
        server.server.sql(&format!(
            "SET client_min_messages = error; DROP SCHEMA IF EXISTS {} CASCADE",
            schema(number.saturating_sub(1))
        ));
        Self {
            server,
            schema: schema(number),
            runtime: runtime.clone(),
        }
    }

    /// A connection for each processor, with a statement prepared.
    async fn readers(&self, sql: &str) -> anyhow::Result<Vec<(Client, Statement)>> {
        let mut clients = Vec::new();
        for _ in 0..readers() {
            let client = self.server.connect().await?;
            let select = client.prepare(sql).await?;
            clients.push((client, select));
        }
        Ok(clients)
    }
}

impl super::Disk for Disk<'_> {
    fn provider(&self) -> serde_json::Value {
        json!({"name": "postgres", "addr": self.server.server.url(), "schema": self.schema})
    }

    fn rows(&self) -> anyhow::Result<Box<dyn super::Rows + '_>> {
        let events: Vec<Event> = self.runtime.block_on(async {
            let sql = format!(
                "SELECT {EVENT} FROM {}.events WHERE type = $1 ORDER BY position LIMIT {ROWS}",
                self.schema
            );
            let client = self.server.connect().await?;
            let rows = client.query(&sql, &[&ORDERS]).await?;
            anyhow::Ok(rows.iter().map(Event::of).collect::<Result<_, _>>()?)
        })?;
        if events.is_empty() {
            bail!("the gateway wrote no rows");
        }
        Ok(Box::new(Rows {
            server: self.server,
            events: events.into(),
            runtime: self.runtime.clone(),
        }))
    }

    fn select(&self, during: Duration) -> anyhow::Result<f64> {
        self.runtime.block_on(async {
            let sql = format!(
                "SELECT version, vals FROM {}.entities WHERE domain = $1 AND type = $2 AND key = $3",
                self.schema
            );
            let clients = self.readers(&sql).await?;
            let begun = Instant::now();
            let mut tasks = JoinSet::new();
            for (client, select) in clients {
                tasks.spawn(async move {
                    let (mut done, mut n) = (0, 0);
                    while begun.elapsed() < during {
                        // A step that meets every product in an order that is not theirs.
                        n = (n + 7_919) % PRODUCT_KEYS;
                        let found = client
                            .query_opt(&select, &[&DOMAIN, &PRODUCTS, &product_key(n)])
                            .await?;
                        let Some(row) = found else {
                            bail!("product {n} is missing");
                        };
                        let _: (i64, String) = (row.try_get(0)?, row.try_get(1)?);
                        done += 1;
                    }
                    anyhow::Ok(done)
                });
            }
            let done = sum(tasks).await?;
            Ok(done as f64 / begun.elapsed().as_secs_f64())
        })
    }

    fn pages(&self, during: Duration) -> anyhow::Result<f64> {
        self.runtime.block_on(async {
            let sql = format!(
                "SELECT key, version, vals FROM {}.entities \
                 WHERE domain = $1 AND type = $2 AND key > $3 ORDER BY key LIMIT $4",
                self.schema
            );
            let clients = self.readers(&sql).await?;
            let begun = Instant::now();
            let mut tasks = JoinSet::new();
            for (client, select) in clients {
                tasks.spawn(async move {
                    let mut done = 0;
                    let mut after = String::new();
                    while begun.elapsed() < during {
                        let rows = client
                            .query(&select, &[&DOMAIN, &PRODUCTS, &after, &i64::from(PAGE)])
                            .await?;
                        if rows.len() != PAGE as usize {
                            bail!("a page has {} products", rows.len());
                        }
                        for row in &rows {
                            let (key, _, _): (String, i64, String) =
                                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
                            after = key;
                        }
                        if after == product_key(PRODUCT_KEYS - 1) {
                            after.clear();
                        }
                        done += 1;
                    }
                    anyhow::Ok(done)
                });
            }
            let done = sum(tasks).await?;
            Ok(done as f64 / begun.elapsed().as_secs_f64())
        })
    }

    fn scan(&self, during: Duration) -> anyhow::Result<f64> {
        self.runtime.block_on(async {
            let sql = format!(
                "SELECT {EVENT} FROM {}.events WHERE lane = 0 AND position > $1 ORDER BY position LIMIT $2",
                self.schema
            );
            let client = self.server.connect().await?;
            let select = client.prepare(&sql).await?;
            let begun = Instant::now();
            let (mut done, mut after) = (0, 0);
            while begun.elapsed() < during {
                let rows = client.query(&select, &[&after, &SCANNED]).await?;
                for row in &rows {
                    after = Event::of(row)?.position;
                }
                let found = i64::try_from(rows.len())?;
                if found < SCANNED {
                    after = 0;
                }
                done += found;
            }
            Ok(done as f64 / begun.elapsed().as_secs_f64())
        })
    }

    fn kept(&self) -> anyhow::Result<Kept> {
        self.runtime.block_on(async {
            let client = self.server.connect().await?;
            let mut lowered = None;
            for setting in SETTINGS {
                let row = client
                    .query_one("SELECT current_setting($1)", &[&setting])
                    .await?;
                let value: String = row.try_get(0)?;
                if value != "on" {
                    lowered = Some(format!("{setting} is {value}"));
                }
            }
            let sql = format!(
                "SELECT count(*), coalesce(max(position), 0) FROM {}.events",
                self.schema
            );
            let row = client.query_one(&sql, &[]).await?;
            Ok(Kept {
                lowered,
                events: u64::try_from(row.try_get::<_, i64>(0)?)?,
                head: u64::try_from(row.try_get::<_, i64>(1)?)?,
            })
        })
    }
}

/// The columns of an event, in the order of [`Event`].
const EVENT: &str =
    "lane, position, id, domain, type, key, version, time, method, claims, trace_parent, vals";

/// A row of events, which is also what becomes of its entity and of the lane's head.
struct Event {
    lane: i16,
    position: i64,
    id: Uuid,
    domain: String,
    kind: String,
    key: String,
    version: i64,
    time: i64,
    method: i16,
    claims: Option<String>,
    trace_parent: Option<String>,
    vals: String,
}

impl Event {
    fn of(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            lane: row.try_get(0)?,
            position: row.try_get(1)?,
            id: row.try_get(2)?,
            domain: row.try_get(3)?,
            kind: row.try_get(4)?,
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

/// Rows of a gateway, and schemas to insert them into.
struct Rows<'s> {
    server: &'s Server,
    events: Arc<[Event]>,
    runtime: Handle,
}

impl super::Rows for Rows<'_> {
    fn in_batches(&mut self, during: Duration) -> anyhow::Result<f64> {
        self.runtime.block_on(self.fill(during, Writer::in_batches))
    }

    fn one_by_one(&mut self, during: Duration) -> anyhow::Result<f64> {
        self.runtime.block_on(self.fill(during, Writer::one_by_one))
    }

    fn by_clients(&mut self, during: Duration, clients: usize) -> anyhow::Result<f64> {
        self.runtime.block_on(async {
            self.fresh().await?;
            let first = self.warm_up().await?;
            let mut writers = Vec::new();
            for _ in 0..clients {
                writers.push(Writer::new(self.server).await?);
            }
            let next = Arc::new(AtomicUsize::new(first));
            let begun = Instant::now();
            let mut tasks = JoinSet::new();
            for writer in writers {
                let (events, next) = (Arc::clone(&self.events), Arc::clone(&next));
                tasks.spawn(async move {
                    let mut done = 0;
                    while begun.elapsed() < during {
                        let Some(event) = events.get(next.fetch_add(1, Relaxed)) else {
                            break;
                        };
                        writer.insert_one(event).await?;
                        done += 1;
                    }
                    anyhow::Ok(done)
                });
            }
            let done = sum(tasks).await?;
            Ok(done as f64 / begun.elapsed().as_secs_f64())
        })
    }
}

impl Rows<'_> {
    /// Inserts rows into fresh schemas until the time is over; making the schemas does not count.
    async fn fill(
        &self,
        during: Duration,
        write: impl AsyncFn(&Writer, &[Event], Instant) -> anyhow::Result<usize>,
    ) -> anyhow::Result<f64> {
        let (mut done, mut taken) = (0, Duration::ZERO);
        while taken < during {
            self.fresh().await?;
            let first = self.warm_up().await?;
            let writer = Writer::new(self.server).await?;
            let begun = Instant::now();
            let rest = self.events.get(first..).unwrap_or_default();
            done += write(&writer, rest, begun + (during - taken)).await?;
            taken += begun.elapsed();
        }
        Ok(done as f64 / taken.as_secs_f64())
    }

    /// A fresh schema with the gateway's tables and indexes. What was measured on the one before is over.
    async fn fresh(&self) -> anyhow::Result<()> {
        let client = self.server.connect().await?;
        client
            .batch_execute(&format!(
                "SET client_min_messages = error; DROP SCHEMA IF EXISTS {PLAIN} CASCADE"
            ))
            .await?;
        let mut config = PostgresConfig::new(self.server.server.url());
        PLAIN.clone_into(&mut config.schema);
        Postgres::open(&config).await?.close().await;
        Ok(())
    }

    /// Inserts the first rows; answers how many.
    async fn warm_up(&self) -> anyhow::Result<usize> {
        let first = warm_up(self.events.len());
        let writer = Writer::new(self.server).await?;
        for events in self.events.get(..first).unwrap_or_default().chunks(BATCH) {
            writer.insert(events).await?;
        }
        Ok(first)
    }
}

/// A plain client that writes.
struct Writer {
    client: Client,
    many: Statement,
    one: Statement,
}

impl Writer {
    async fn new(server: &Server) -> anyhow::Result<Self> {
        let client = server.connect().await?;
        let kept = "ON CONFLICT (domain, type, key) \
                    DO UPDATE SET version = excluded.version, vals = excluded.vals";
        let many = client
            .prepare(&format!(
                "WITH new AS ( \
                   SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[], \
                                        $7::bigint[], $8::smallint[], $9::text[], $10::text[], $11::text[], $12::bool[]) \
                     AS new (position, id, domain, type, key, version, time, method, claims, trace_parent, vals, is_last) \
                 ), logged AS ( \
                   INSERT INTO {PLAIN}.events ({EVENT}) \
                   SELECT $13::smallint, position, id, domain, type, key, version, time, method, claims, trace_parent, vals \
                   FROM new \
                 ), kept AS ( \
                   INSERT INTO {PLAIN}.entities (domain, type, key, version, vals) \
                   SELECT domain, type, key, version, vals FROM new WHERE is_last {kept} \
                 ) UPDATE {PLAIN}.lanes SET head = $14, time = $15, id = $16 WHERE lane = $13"
            ))
            .await?;
        let one = client
            .prepare(&format!(
                "WITH logged AS ( \
                   INSERT INTO {PLAIN}.events ({EVENT}) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
                 ), kept AS ( \
                   INSERT INTO {PLAIN}.entities (domain, type, key, version, vals) \
                   VALUES ($4, $5, $6, $7, $12) {kept} \
                 ) UPDATE {PLAIN}.lanes SET head = $2, time = $8, id = $3 WHERE lane = $1"
            ))
            .await?;
        Ok(Self { client, many, one })
    }

    async fn in_batches(&self, events: &[Event], end: Instant) -> anyhow::Result<usize> {
        let mut done = 0;
        for events in events.chunks(BATCH) {
            self.insert(events).await?;
            done += events.len();
            if Instant::now() >= end {
                break;
            }
        }
        Ok(done)
    }

    async fn one_by_one(&self, events: &[Event], end: Instant) -> anyhow::Result<usize> {
        let mut done = 0;
        for event in events {
            self.insert_one(event).await?;
            done += 1;
            if Instant::now() >= end {
                break;
            }
        }
        Ok(done)
    }

    /// Inserts rows in a transaction.
    async fn insert(&self, events: &[Event]) -> anyhow::Result<()> {
        fn column<'e, T>(events: &'e [Event], of: impl Fn(&'e Event) -> T) -> Vec<T> {
            events.iter().map(of).collect()
        }
        let Some(last) = events.last() else {
            return Ok(());
        };
        let mut seen = std::collections::HashSet::new();
        let mut is_last: Vec<bool> = events
            .iter()
            .rev()
            .map(|event| seen.insert((&event.domain, &event.kind, &event.key)))
            .collect();
        is_last.reverse();
        self.client
            .execute(
                &self.many,
                &[
                    &column(events, |event| event.position),
                    &column(events, |event| event.id),
                    &column(events, |event| &*event.domain),
                    &column(events, |event| &*event.kind),
                    &column(events, |event| &*event.key),
                    &column(events, |event| event.version),
                    &column(events, |event| event.time),
                    &column(events, |event| event.method),
                    &column(events, |event| event.claims.as_deref()),
                    &column(events, |event| event.trace_parent.as_deref()),
                    &column(events, |event| &*event.vals),
                    &is_last,
                    &last.lane,
                    &last.position,
                    &last.time,
                    &last.id,
                ],
            )
            .await?;
        Ok(())
    }

    /// Inserts a row in a transaction of its own.
    async fn insert_one(&self, event: &Event) -> anyhow::Result<()> {
        self.client
            .execute(
                &self.one,
                &[
                    &event.lane,
                    &event.position,
                    &event.id,
                    &event.domain,
                    &event.kind,
                    &event.key,
                    &event.version,
                    &event.time,
                    &event.method,
                    &event.claims,
                    &event.trace_parent,
                    &event.vals,
                ],
            )
            .await?;
        Ok(())
    }
}

async fn sum(mut tasks: JoinSet<anyhow::Result<usize>>) -> anyhow::Result<usize> {
    let mut done = 0;
    while let Some(ended) = tasks.join_next().await {
        done += ended??;
    }
    Ok(done)
}
