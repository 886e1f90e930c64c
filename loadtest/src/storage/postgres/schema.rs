//! A gateway's schema, and the floors that read it.

use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::json;
use tokio::{runtime::Handle, task::JoinSet};
use tokio_postgres::{Client, Statement};

use crate::{
    scenario::{PAGE_SIZE, PRODUCT_COUNT},
    storage::database::{
        Database, InsertFloors, LogState, MAX_COPIED_ROWS, SCAN_ROWS, reader_count,
    },
    workload::{DOMAIN, ORDERS, PRODUCTS, product_key},
};

use super::{
    inserts::{Inserts, sum_of_tasks},
    rows::{EVENT_COLUMNS, EventRow},
    server::Server,
};

/// Settings without which a server may lose acknowledged writes.
const DURABILITY_SETTINGS: [&str; 3] = ["fsync", "full_page_writes", "synchronous_commit"];

/// The schema of a round's gateway.
pub(crate) struct Schema<'s> {
    server: &'s Server,
    name: String,
    runtime: Handle,
}

impl<'s> Schema<'s> {
    /// The gateway creates it. The schema of the round before is dropped.
    pub(in crate::storage) fn new(server: &'s Server, round: usize, runtime: &Handle) -> Self {
        let name = |round| format!("round_{round}");
        server.execute(&format!(
            "SET client_min_messages = error; DROP SCHEMA IF EXISTS {} CASCADE",
            name(round.saturating_sub(1))
        ));
        Self {
            server,
            name: name(round),
            runtime: runtime.clone(),
        }
    }

    /// A connection for each processor, each with the statement prepared.
    async fn readers(&self, sql: &str) -> anyhow::Result<Vec<(Client, Statement)>> {
        let mut clients = Vec::new();
        for _ in 0..reader_count() {
            let client = self.server.connect().await?;
            let statement = client.prepare(sql).await?;
            clients.push((client, statement));
        }
        Ok(clients)
    }
}

impl Database for Schema<'_> {
    fn settings(&self) -> serde_json::Value {
        json!({"name": "postgres", "addr": self.server.url(), "schema": self.name})
    }

    fn insert_floors(&self) -> anyhow::Result<Box<dyn InsertFloors + '_>> {
        let events: Vec<EventRow> = self.runtime.block_on(async {
            let sql = format!(
                "SELECT {EVENT_COLUMNS} FROM {}.events WHERE type = $1 ORDER BY position LIMIT {MAX_COPIED_ROWS}",
                self.name
            );
            let client = self.server.connect().await?;
            let rows = client.query(&sql, &[&ORDERS]).await?;
            anyhow::Ok(rows.iter().map(EventRow::read).collect::<Result<_, _>>()?)
        })?;
        if events.is_empty() {
            bail!("the gateway wrote no rows");
        }
        Ok(Box::new(Inserts::new(self.server, events, &self.runtime)))
    }

    fn select_rate(&self, duration: Duration) -> anyhow::Result<f64> {
        self.runtime.block_on(async {
            let sql = format!(
                "SELECT version, vals FROM {}.entities WHERE domain = $1 AND type = $2 AND key = $3",
                self.name
            );
            let clients = self.readers(&sql).await?;
            let begun = Instant::now();
            let mut tasks = JoinSet::new();
            for (client, statement) in clients {
                tasks.spawn(async move {
                    let (mut done, mut n) = (0, 0);
                    while begun.elapsed() < duration {
                        // The step and the number of products have no common divisor, so every product is
                        // selected, in an order that is not that of the keys.
                        n = (n + 7_919) % PRODUCT_COUNT;
                        let found = client
                            .query_opt(&statement, &[&DOMAIN, &PRODUCTS, &product_key(n)])
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
            let done = sum_of_tasks(tasks).await?;
            Ok(done as f64 / begun.elapsed().as_secs_f64())
        })
    }

    fn page_rate(&self, duration: Duration) -> anyhow::Result<f64> {
        self.runtime.block_on(async {
            let sql = format!(
                "SELECT key, version, vals FROM {}.entities \
                 WHERE domain = $1 AND type = $2 AND key > $3 ORDER BY key LIMIT $4",
                self.name
            );
            let clients = self.readers(&sql).await?;
            let begun = Instant::now();
            let mut tasks = JoinSet::new();
            for (client, statement) in clients {
                tasks.spawn(async move {
                    let mut done = 0;
                    let mut after = String::new();
                    while begun.elapsed() < duration {
                        let rows = client
                            .query(
                                &statement,
                                &[&DOMAIN, &PRODUCTS, &after, &i64::from(PAGE_SIZE)],
                            )
                            .await?;
                        if rows.len() != PAGE_SIZE as usize {
                            bail!("a page has {} products", rows.len());
                        }
                        for row in &rows {
                            let (key, _, _): (String, i64, String) =
                                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
                            after = key;
                        }
                        if after == product_key(PRODUCT_COUNT - 1) {
                            after.clear();
                        }
                        done += 1;
                    }
                    anyhow::Ok(done)
                });
            }
            let done = sum_of_tasks(tasks).await?;
            Ok(done as f64 / begun.elapsed().as_secs_f64())
        })
    }

    fn scan_rate(&self, duration: Duration) -> anyhow::Result<f64> {
        self.runtime.block_on(async {
            let sql = format!(
                "SELECT {EVENT_COLUMNS} FROM {}.events WHERE lane = 0 AND position > $1 ORDER BY position LIMIT $2",
                self.name
            );
            let client = self.server.connect().await?;
            let statement = client.prepare(&sql).await?;
            let begun = Instant::now();
            let (mut done, mut after) = (0, 0);
            while begun.elapsed() < duration {
                let rows = client.query(&statement, &[&after, &SCAN_ROWS]).await?;
                for row in &rows {
                    after = EventRow::read(row)?.position;
                }
                let found = i64::try_from(rows.len())?;
                if found < SCAN_ROWS {
                    after = 0;
                }
                done += found;
            }
            Ok(done as f64 / begun.elapsed().as_secs_f64())
        })
    }

    fn log_state(&self) -> anyhow::Result<LogState> {
        self.runtime.block_on(async {
            let client = self.server.connect().await?;
            let mut weak_durability = None;
            for setting in DURABILITY_SETTINGS {
                let row = client
                    .query_one("SELECT current_setting($1)", &[&setting])
                    .await?;
                let value: String = row.try_get(0)?;
                if value != "on" {
                    weak_durability = Some(format!("{setting} is {value}"));
                }
            }
            let sql = format!(
                "SELECT count(*), coalesce(max(position), 0) FROM {}.events",
                self.name
            );
            let row = client.query_one(&sql, &[]).await?;
            Ok(LogState {
                weak_durability,
                events: u64::try_from(row.try_get::<_, i64>(0)?)?,
                head: u64::try_from(row.try_get::<_, i64>(1)?)?,
            })
        })
    }
}
