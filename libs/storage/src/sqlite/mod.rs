//! A log in an SQLite file, for one machine. See `README.md` beside this file.

mod append;
mod checkpoint;
mod config;
mod failure;
mod place;
mod queue;
mod readers;
mod reads;
mod rows;
mod schema;
mod search;
mod threads;
mod writer;
mod writer_thread;

use std::{fmt, sync::Arc, thread};

use async_trait::async_trait;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use stategate_model::{
    At, EntityQuery, EntityRef, Event, EventId, EventQuery, Heads, IdempotencyKey, Lane, Position,
    State, Timestamp,
};

pub use self::config::SqliteConfig;
use self::{
    checkpoint::Checkpoints,
    place::Place,
    readers::{Readers, Turn},
    schema::Role,
    threads::Threads,
    writer::Writer,
};
use crate::{
    Appended, Batch, Capabilities, Error, ErrorKind, Found, Identity, Info, KeyRecord, Loaded,
    Page, Read, ReadLimit, Result, Storage, Work, ended::Ended,
};

/// Point reads that may wait for a thread.
const READS_WAITING: usize = 4_096;
/// Reads of the log that may wait for a thread.
const LOG_READS_WAITING: usize = 1_024;
/// Searches that may wait for a thread.
const SEARCHES_WAITING: usize = 1_024;
/// Threads for searches: how many may be long at once before others wait.
const SEARCH_THREADS: usize = 4;
/// Threads for reads of the log.
const LOG_THREADS: usize = 2;
/// Threads for point reads: one a processor, within these.
const READ_THREADS: std::ops::RangeInclusive<usize> = 2..=8;

/// A log in an SQLite file.
pub struct Sqlite {
    info: Info,
    writer: Writer,
    /// For reads of a few rows.
    reads: Readers,
    /// For reads of the log: streams that catch up wait for no search, and point reads not for them.
    log: Readers,
    /// For reads of any length.
    searches: Readers,
    threads: Mutex<Threads>,
    ended: Ended,
    place: Arc<Place>,
}

impl Sqlite {
    /// Opens the file, or makes it.
    pub async fn open(config: &SqliteConfig) -> Result<Self> {
        let config = config.clone();
        blocking("open", move || Self::open_blocking(&config, None)).await?
    }

    /// Opens the file, or makes it with a log of this identity.
    pub async fn create_as(config: &SqliteConfig, identity: Identity) -> Result<Self> {
        let config = config.clone();
        let open = move || Self::open_blocking(&config, Some(identity));
        blocking("open", open).await?
    }

    fn open_blocking(config: &SqliteConfig, identity: Option<Identity>) -> Result<Self> {
        let meta = schema::initialise(config, identity)?;
        let connect = |count: usize| {
            (0..count)
                .map(|_| schema::connect(&config.path, Role::Reader))
                .collect::<Result<Vec<_>>>()
        };
        let processors = thread::available_parallelism().map_or(2, usize::from);
        let read_threads = processors.clamp(*READ_THREADS.start(), *READ_THREADS.end());
        let mut threads = Threads::default();
        let cannot_start =
            |error: std::io::Error| Error::new(ErrorKind::Config, "open").because(error);
        let reads = Readers::start(
            "sqlite-reader",
            connect(read_threads)?,
            meta.lanes,
            READS_WAITING,
            Turn::Many,
            &mut threads,
        )
        .map_err(cannot_start)?;
        let log = Readers::start(
            "sqlite-log",
            connect(LOG_THREADS)?,
            meta.lanes,
            LOG_READS_WAITING,
            Turn::One,
            &mut threads,
        )
        .map_err(cannot_start)?;
        let searches = Readers::start(
            "sqlite-search",
            connect(SEARCH_THREADS)?,
            meta.lanes,
            SEARCHES_WAITING,
            Turn::One,
            &mut threads,
        )
        .map_err(cannot_start)?;
        let connection = schema::connect(&config.path, Role::Writer)?;
        let checkpoints = Checkpoints::start(
            schema::connect(&config.path, Role::Checkpoints)?,
            &mut threads,
        )
        .map_err(cannot_start)?;
        // A connection has the files beside the log made when it first reads.
        reads::head(&connection, "open", Lane(0))?;
        let place = Arc::new(Place::of(&config.path).map_err(cannot_start)?);
        place.sync().map_err(|error| {
            let what = format!("{} cannot be synced: {error}", config.path.display());
            Error::new(ErrorKind::Unavailable, "open").because(what)
        })?;
        let writer = Writer::start(connection, checkpoints, Arc::clone(&place), &mut threads)
            .map_err(cannot_start)?;
        Ok(Self {
            info: Info {
                provider: "sqlite",
                log_id: meta.log_id,
                lanes: meta.lanes,
                capabilities: Capabilities {
                    durable: true,
                    shared: true,
                },
                is_local: true,
            },
            writer,
            reads,
            log,
            searches,
            ended: threads.ended(),
            threads: Mutex::new(threads),
            place,
        })
    }
}

/// Runs what blocks where it may.
async fn blocking<T: Send + 'static>(
    operation: &'static str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(run)
        .await
        .map_err(|error| Error::new(ErrorKind::Unavailable, operation).because(error))
}

#[async_trait]
impl Storage for Sqlite {
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
        if let Some(loaded) = self.writer.load(lane, entities, keys, bytes) {
            return loaded;
        }
        let (entities, keys) = (entities.to_vec(), keys.to_vec());
        self.reads
            .run("load", move |snapshot, _| {
                reads::load(snapshot.connection(), lane, &entities, &keys, bytes)
            })
            .await
    }

    async fn append(&self, lane: Lane, expected: Position, batch: Arc<Batch>) -> Result<Appended> {
        batch.check(self.info.lanes, lane, expected)?;
        self.writer.append(lane, expected, batch).await
    }

    async fn confirm(&self) -> Result<()> {
        // What can be read is on stable storage: it was synced before it could be, or as the file was opened.
        Ok(())
    }

    fn run_writer(&self, task: BoxFuture<'static, ()>) {
        self.writer.run_task(task);
    }

    async fn get(&self, entity: &EntityRef) -> Result<Read<State>> {
        let entity = entity.clone();
        self.reads
            .run("get", move |snapshot, _| {
                let state = reads::state(snapshot.connection(), "get", &entity)?;
                snapshot.read("get", entity.domain(), state)
            })
            .await
    }

    async fn get_at(&self, entity: &EntityRef, at: At) -> Result<Read<Option<Event>>> {
        let entity = entity.clone();
        self.reads
            .run("get_at", move |snapshot, _| {
                let event = reads::event_at(snapshot, &entity, at)?;
                snapshot.read("get_at", entity.domain(), event)
            })
            .await
    }

    async fn search_entities(&self, query: &EntityQuery) -> Result<Read<Page<Found>>> {
        let query = query.clone();
        self.searches
            .run("search_entities", move |snapshot, caller| {
                let page = search::entities(snapshot, &query, &|| caller.is_gone())?;
                snapshot.read("search_entities", query.of.domain.as_str(), page)
            })
            .await
    }

    async fn get_event(&self, entity: &EntityRef, id: EventId) -> Result<Read<Option<Event>>> {
        let entity = entity.clone();
        self.reads
            .run("get_event", move |snapshot, _| {
                let event = reads::event_by_id(snapshot, "get_event", &entity, id)?;
                snapshot.read("get_event", entity.domain(), event)
            })
            .await
    }

    async fn get_events(
        &self,
        events: &[(EntityRef, EventId)],
        bytes: usize,
    ) -> Result<Vec<Option<Event>>> {
        let events = events.to_vec();
        self.reads
            .run("get_events", move |snapshot, _| {
                reads::events_by_id(snapshot, &events, bytes)
            })
            .await
    }

    async fn search_events(&self, query: &EventQuery) -> Result<Read<Page<Event>>> {
        let query = query.clone();
        let lane = self.info.lanes.of(query.of.domain.as_str());
        self.searches
            .run("search_events", move |snapshot, caller| {
                let page = search::events(snapshot, lane, &query, &|| caller.is_gone())?;
                snapshot.read("search_events", query.of.domain.as_str(), page)
            })
            .await
    }

    async fn read_log(&self, lane: Lane, after: Position, limit: ReadLimit) -> Result<Vec<Event>> {
        self.log
            .run("read_log", move |snapshot, _| {
                reads::read_log(snapshot, lane, after, limit)
            })
            .await
    }

    async fn read_keys(&self, lane: Lane, after: Position, most: usize) -> Result<Vec<KeyRecord>> {
        self.log
            .run("read_keys", move |snapshot, _| {
                reads::read_keys(snapshot, lane, after, most)
            })
            .await
    }

    async fn seek(&self, lane: Lane, time: Timestamp) -> Result<Position> {
        self.reads
            .run("seek", move |snapshot, _| {
                reads::seek(snapshot, "seek", lane, time)
            })
            .await
    }

    async fn heads(&self) -> Result<Heads> {
        self.reads
            .run("heads", |snapshot, _| snapshot.heads())
            .await
    }

    fn concerns(&self) -> Vec<String> {
        Vec::new()
    }

    async fn check(&self, work: Work) -> Result<()> {
        const OPERATION: &str = "check";
        self.ended.check(OPERATION)?;
        self.place.check(OPERATION)?;
        let read = |snapshot: &readers::Snapshot<'_>| snapshot.head(OPERATION, Lane(0));
        self.reads
            .run(OPERATION, move |snapshot, _| read(snapshot))
            .await?;
        match work {
            Work::Read => Ok(()),
            Work::Write => self.writer.check().await,
        }
    }

    async fn close(&self) {
        self.writer.close();
        self.reads.close();
        self.log.close();
        self.searches.close();
        let mut threads = std::mem::take(&mut *self.threads.lock());
        let ended = blocking("close", move || threads.join());
        if !matches!(ended.await, Ok(true)) {
            tracing::error!("a thread of the storage had died before it was closed");
        }
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}
