//! A log in PostgreSQL, which many services may share. See `README.md` beside this file.

mod address;
mod check;
mod config;
mod durability;
mod failure;
mod gets;
mod jsonpath;
mod passfile;
mod pool;
mod reads;
mod rows;
mod schema;
mod search;
mod tls;
mod write;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures::future::BoxFuture;
use stategate_model::{
    At, EntityQuery, EntityRef, Event, EventId, EventQuery, Heads, IdempotencyKey, Lane, Position,
    State, Timestamp,
};
use tokio::sync::Semaphore;

pub use self::config::PostgresConfig;
use self::{
    check::Check, durability::Watch, failure::closed, gets::Gets, pool::Pool, reads::Reads,
    write::Writes,
};
use crate::{
    Appended, Batch, Capabilities, Found, Identity, Info, KeyRecord, Loaded, Page, Read, ReadLimit,
    Result, Storage, Work, ended::Ended,
};

/// Of the connections, one in so many may be searching.
const SEARCH_SHARE: usize = 2;
/// Of the connections, one in so many may be reading the log.
const LOG_SHARE: usize = 4;

/// A log in PostgreSQL.
pub struct Postgres {
    info: Info,
    schema: String,
    pool: Arc<Pool>,
    gets: Gets,
    reads: Reads,
    writes: Writes,
    check: Check,
    ended: Ended,
    watch: Watch,
    /// How many may search at once, so that writes and point reads find a connection.
    searches: Semaphore,
    /// How many may read the log at once.
    log_reads: Semaphore,
}

impl Postgres {
    /// Connects, and makes or migrates the tables.
    pub async fn open(config: &PostgresConfig) -> Result<Self> {
        Self::connect(config, None).await
    }

    /// Connects, and makes the tables with a log of this identity, or migrates them.
    pub async fn create_as(config: &PostgresConfig, identity: Identity) -> Result<Self> {
        Self::connect(config, Some(identity)).await
    }

    async fn connect(config: &PostgresConfig, identity: Option<Identity>) -> Result<Self> {
        let pool = Arc::new(Pool::new(config)?);
        let (meta, found) = schema::initialise(&pool, config, identity).await?;
        let connections = usize::from(config.connections);
        let ended = Ended::default();
        Ok(Self {
            info: Info {
                provider: "postgres",
                log_id: meta.log_id,
                lanes: meta.lanes,
                capabilities: Capabilities {
                    durable: true,
                    shared: true,
                },
                is_local: false,
            },
            schema: config.schema.clone(),
            gets: Gets::start(&pool, &config.schema, &ended),
            check: Check::new(&config.schema),
            watch: Watch::start(&pool, &config.schema, found, &ended),
            ended,
            pool,
            reads: Reads::new(&config.schema),
            writes: Writes::new(&config.schema),
            searches: Semaphore::new((connections / SEARCH_SHARE).max(1)),
            log_reads: Semaphore::new((connections / LOG_SHARE).max(1)),
        })
    }

    fn lane_of(&self, domain: &str) -> Lane {
        self.info.lanes.of(domain)
    }
}

#[async_trait]
impl Storage for Postgres {
    fn info(&self) -> &Info {
        &self.info
    }

    async fn load(
        &self,
        lane: Lane,
        entities: &[EntityRef],
        keys: &[IdempotencyKey],
        bytes: usize,
    ) -> Result<Loaded> {
        self.writes
            .load(&self.pool, lane, entities, keys, bytes)
            .await
    }

    async fn append(&self, lane: Lane, expected: Position, batch: Arc<Batch>) -> Result<Appended> {
        batch.check(self.info.lanes, lane, expected)?;
        let appended = self
            .writes
            .append(&self.pool, lane, expected, Arc::clone(&batch));
        let appended = appended.await;
        self.check.note(&batch, &appended);
        appended
    }

    async fn confirm(&self) -> Result<()> {
        self.writes.confirm(&self.pool).await
    }

    fn run_writer(&self, task: BoxFuture<'static, ()>) {
        drop(tokio::spawn(task));
    }

    async fn get(&self, entity: &EntityRef) -> Result<Read<State>> {
        self.gets.get(self.lane_of(entity.domain()), entity).await
    }

    async fn get_at(&self, entity: &EntityRef, at: At) -> Result<Read<Option<Event>>> {
        let lane = self.lane_of(entity.domain());
        self.reads.get_at(&self.pool, lane, entity, at).await
    }

    async fn search_entities(&self, query: &EntityQuery) -> Result<Read<Page<Found>>> {
        let lane = self.lane_of(query.of.domain.as_str());
        let _turn = self
            .searches
            .acquire()
            .await
            .map_err(|_| closed("search_entities"))?;
        search::entities(&self.pool, &self.schema, lane, query).await
    }

    async fn get_event(&self, entity: &EntityRef, id: EventId) -> Result<Read<Option<Event>>> {
        let lane = self.lane_of(entity.domain());
        self.reads.get_event(&self.pool, lane, entity, id).await
    }

    async fn get_events(
        &self,
        events: &[(EntityRef, EventId)],
        bytes: usize,
    ) -> Result<Vec<Option<Event>>> {
        self.reads.get_events(&self.pool, events, bytes).await
    }

    async fn search_events(&self, query: &EventQuery) -> Result<Read<Page<Event>>> {
        let lane = self.lane_of(query.of.domain.as_str());
        let _turn = self
            .searches
            .acquire()
            .await
            .map_err(|_| closed("search_events"))?;
        search::events(&self.pool, &self.schema, lane, query).await
    }

    async fn read_log(&self, lane: Lane, after: Position, limit: ReadLimit) -> Result<Vec<Event>> {
        let _turn = self
            .log_reads
            .acquire()
            .await
            .map_err(|_| closed("read_log"))?;
        self.reads.read_log(&self.pool, lane, after, limit).await
    }

    async fn read_keys(&self, lane: Lane, after: Position, most: usize) -> Result<Vec<KeyRecord>> {
        let _turn = self
            .log_reads
            .acquire()
            .await
            .map_err(|_| closed("read_keys"))?;
        self.reads.read_keys(&self.pool, lane, after, most).await
    }

    async fn seek(&self, lane: Lane, time: Timestamp) -> Result<Position> {
        self.reads.seek(&self.pool, lane, time).await
    }

    async fn heads(&self) -> Result<Heads> {
        self.reads.heads(&self.pool, self.info.lanes).await
    }

    async fn check(&self, work: Work) -> Result<()> {
        self.ended.check("check")?;
        self.check.ask(&self.pool, work).await
    }

    fn concerns(&self) -> Vec<String> {
        self.watch.seen()
    }

    async fn close(&self) {
        self.searches.close();
        self.log_reads.close();
        self.watch.close().await;
        self.gets.close().await;
        self.pool.close().await;
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("info", &self.info)
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}
