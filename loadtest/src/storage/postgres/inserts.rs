//! The insert floors: plain clients that insert a gateway's rows again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use stategate_storage::{Postgres, PostgresConfig, Storage as _};
use tokio::{runtime::Handle, task::JoinSet};
use tokio_postgres::{Client, Statement};

use crate::storage::database::{BATCH_ROWS, InsertFloors, warm_up_rows};

use super::{
    rows::{EVENT_COLUMNS, EventRow},
    server::Server,
};

/// The schema that rows are inserted into.
const SCHEMA: &str = "plain";

/// Inserts a gateway's rows into the schema [`SCHEMA`], which is created anew for each measurement.
pub(super) struct Inserts<'s> {
    server: &'s Server,
    events: Arc<[EventRow]>,
    runtime: Handle,
}

impl InsertFloors for Inserts<'_> {
    fn batch_rate(&mut self, duration: Duration) -> anyhow::Result<f64> {
        self.runtime
            .block_on(self.rate(duration, PlainWriter::insert_in_batches))
    }

    fn single_rate(&mut self, duration: Duration) -> anyhow::Result<f64> {
        self.runtime
            .block_on(self.rate(duration, PlainWriter::insert_one_by_one))
    }

    fn concurrent_rate(&mut self, duration: Duration, clients: usize) -> anyhow::Result<f64> {
        self.runtime.block_on(async {
            self.create_schema().await?;
            let first = self.warm_up().await?;
            let mut writers = Vec::new();
            for _ in 0..clients {
                writers.push(PlainWriter::new(self.server).await?);
            }
            let next = Arc::new(AtomicUsize::new(first));
            let begun = Instant::now();
            let mut tasks = JoinSet::new();
            for writer in writers {
                let (events, next) = (Arc::clone(&self.events), Arc::clone(&next));
                tasks.spawn(async move {
                    let mut done = 0;
                    while begun.elapsed() < duration {
                        let Some(event) = events.get(next.fetch_add(1, Relaxed)) else {
                            break;
                        };
                        writer.insert_row(event).await?;
                        done += 1;
                    }
                    anyhow::Ok(done)
                });
            }
            let done = sum_of_tasks(tasks).await?;
            Ok(done as f64 / begun.elapsed().as_secs_f64())
        })
    }
}

impl<'s> Inserts<'s> {
    pub(super) fn new(server: &'s Server, events: Vec<EventRow>, runtime: &Handle) -> Self {
        Self {
            server,
            events: events.into(),
            runtime: runtime.clone(),
        }
    }

    /// Rows a second. If all rows are inserted before the time is over, it goes on with an empty schema. The
    /// time to create schemas and to warm up does not count.
    async fn rate(
        &self,
        duration: Duration,
        insert: impl AsyncFn(&PlainWriter, &[EventRow], Instant) -> anyhow::Result<usize>,
    ) -> anyhow::Result<f64> {
        let (mut done, mut taken) = (0, Duration::ZERO);
        while taken < duration {
            self.create_schema().await?;
            let first = self.warm_up().await?;
            let writer = PlainWriter::new(self.server).await?;
            let begun = Instant::now();
            let rest = self.events.get(first..).unwrap_or_default();
            done += insert(&writer, rest, begun + (duration - taken)).await?;
            taken += begun.elapsed();
        }
        Ok(done as f64 / taken.as_secs_f64())
    }

    /// Replaces the schema by an empty one with the gateway's tables and indexes.
    async fn create_schema(&self) -> anyhow::Result<()> {
        let client = self.server.connect().await?;
        client
            .batch_execute(&format!(
                "SET client_min_messages = error; DROP SCHEMA IF EXISTS {SCHEMA} CASCADE"
            ))
            .await?;
        let mut config = PostgresConfig::new(self.server.url());
        SCHEMA.clone_into(&mut config.schema);
        Postgres::open(&config).await?.close().await;
        Ok(())
    }

    /// Inserts the first rows, and answers how many they were.
    async fn warm_up(&self) -> anyhow::Result<usize> {
        let first = warm_up_rows(self.events.len());
        let writer = PlainWriter::new(self.server).await?;
        for events in self
            .events
            .get(..first)
            .unwrap_or_default()
            .chunks(BATCH_ROWS)
        {
            writer.insert_batch(events).await?;
        }
        Ok(first)
    }
}

/// A plain client with a connection of its own.
struct PlainWriter {
    client: Client,
    batch_statement: Statement,
    row_statement: Statement,
}

impl PlainWriter {
    async fn new(server: &Server) -> anyhow::Result<Self> {
        let client = server.connect().await?;
        let upsert = "ON CONFLICT (domain, type, key) \
                    DO UPDATE SET version = excluded.version, vals = excluded.vals";
        let batch_statement = client
            .prepare(&format!(
                "WITH new AS ( \
                   SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[], \
                                        $7::bigint[], $8::smallint[], $9::text[], $10::text[], $11::text[], $12::bool[]) \
                     AS new (position, id, domain, type, key, version, time, method, claims, trace_parent, vals, is_last) \
                 ), logged AS ( \
                   INSERT INTO {SCHEMA}.events ({EVENT_COLUMNS}) \
                   SELECT $13::smallint, position, id, domain, type, key, version, time, method, claims, trace_parent, vals \
                   FROM new \
                 ), upserted AS ( \
                   INSERT INTO {SCHEMA}.entities (domain, type, key, version, vals) \
                   SELECT domain, type, key, version, vals FROM new WHERE is_last {upsert} \
                 ) UPDATE {SCHEMA}.lanes SET head = $14, time = $15, id = $16 WHERE lane = $13"
            ))
            .await?;
        let row_statement = client
            .prepare(&format!(
                "WITH logged AS ( \
                   INSERT INTO {SCHEMA}.events ({EVENT_COLUMNS}) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
                 ), upserted AS ( \
                   INSERT INTO {SCHEMA}.entities (domain, type, key, version, vals) \
                   VALUES ($4, $5, $6, $7, $12) {upsert} \
                 ) UPDATE {SCHEMA}.lanes SET head = $2, time = $8, id = $3 WHERE lane = $1"
            ))
            .await?;
        Ok(Self {
            client,
            batch_statement,
            row_statement,
        })
    }

    async fn insert_in_batches(&self, events: &[EventRow], end: Instant) -> anyhow::Result<usize> {
        let mut done = 0;
        for events in events.chunks(BATCH_ROWS) {
            self.insert_batch(events).await?;
            done += events.len();
            if Instant::now() >= end {
                break;
            }
        }
        Ok(done)
    }

    async fn insert_one_by_one(&self, events: &[EventRow], end: Instant) -> anyhow::Result<usize> {
        let mut done = 0;
        for event in events {
            self.insert_row(event).await?;
            done += 1;
            if Instant::now() >= end {
                break;
            }
        }
        Ok(done)
    }

    /// Inserts rows in one transaction.
    async fn insert_batch(&self, events: &[EventRow]) -> anyhow::Result<()> {
        fn column<'e, T>(events: &'e [EventRow], of: impl Fn(&'e EventRow) -> T) -> Vec<T> {
            events.iter().map(of).collect()
        }
        let Some(last) = events.last() else {
            return Ok(());
        };
        let mut seen = std::collections::HashSet::new();
        let mut is_last: Vec<bool> = events
            .iter()
            .rev()
            .map(|event| seen.insert((&event.domain, &event.entity_type, &event.key)))
            .collect();
        is_last.reverse();
        self.client
            .execute(
                &self.batch_statement,
                &[
                    &column(events, |event| event.position),
                    &column(events, |event| event.id),
                    &column(events, |event| &*event.domain),
                    &column(events, |event| &*event.entity_type),
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

    /// Inserts a row in its own transaction.
    async fn insert_row(&self, event: &EventRow) -> anyhow::Result<()> {
        self.client
            .execute(
                &self.row_statement,
                &[
                    &event.lane,
                    &event.position,
                    &event.id,
                    &event.domain,
                    &event.entity_type,
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

/// The sum of what the tasks return.
pub(super) async fn sum_of_tasks(
    mut tasks: JoinSet<anyhow::Result<usize>>,
) -> anyhow::Result<usize> {
    let mut done = 0;
    while let Some(ended) = tasks.join_next().await {
        done += ended??;
    }
    Ok(done)
}
