//! The storage contract: what a storage has to guarantee, and the providers that do: SQLite, PostgreSQL, memory.
//!
//! The log is the truth. A storage appends events to lanes on condition that the lane's head has not
//! moved, together with the entity states that follow from them, and reads them back. It decides
//! nothing: what a write does is decided by [`stategate_model::decide`] before the storage is asked,
//! so every storage gives the same answer.
//!
//! A provider is one folder here, behind a cargo feature, that shares nothing with the others but
//! this trait. The module `conformance` (a feature) lists the cases that every provider passes.

mod answer;
mod batch;
mod columns;
mod config;
mod ended;
mod error;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
mod prefix;
mod sqlite;
pub mod transfer;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures::future::BoxFuture;
use stategate_model::{
    At, Digest, EntityQuery, EntityRef, Event, EventId, EventQuery, Heads, IdempotencyKey, Lane,
    Lanes, LogId, Position, State, Timestamp, Values, Version,
};

#[cfg(feature = "postgres")]
pub use self::postgres::{Postgres, PostgresConfig};
pub use self::{
    config::{StorageConfig, create_as, open},
    error::{Error, ErrorKind, Result, Trouble},
    memory::{Memory, MemoryConfig},
    sqlite::{Sqlite, SqliteConfig},
};
pub use stategate_model::Page;

/// What a database behind stategate does.
///
/// # Order
///
/// Positions of a lane are 1, 2, 3 … without a hole, and so are the versions of an entity. An event
/// becomes readable only after every lower position of its lane is. Times strictly increase along a
/// lane. The caller assigns all three; the storage keeps them and refuses what would break them.
///
/// # Durability and atomicity
///
/// When [`append`](Storage::append) answers [`Appended::Done`], all events of the batch, the entity
/// states they lead to, the idempotency keys and the new head are on stable storage as one atomic
/// change. A crash at any instant, of the gateway, the database or the machine, leaves all of them
/// or none.
///
/// # Reads
///
/// Every read reflects each append that was acknowledged before the read began, whichever process
/// made it. Reads that answer a [`Read`] are consistent: the value is that of the lane at exactly
/// the position given. No read ever sees a part of a batch.
///
/// # Errors
///
/// See [`ErrorKind`]. Only `append` and `confirm` may answer [`ErrorKind::Unknown`].
///
/// # Cancellation
///
/// A future of this trait may be dropped at any point. A dropped `append` has the outcome of an
/// unknown one; a dropped read leaves nothing behind.
#[async_trait]
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// What was fixed when the log was initialised.
    fn info(&self) -> &Info;

    /// Reads what the next batch of a lane is decided on: its head, the states of `entities` and
    /// what became of requests with `keys` before, all at one point in the log.
    ///
    /// The answers are in the order of the questions. An entity may be asked for once only.
    ///
    /// Ends where the answers come to more than `bytes`, as [`State::size`] and [`Replay::size`] count them,
    /// and so answers the first questions alone: entities before keys, and at least one question, if there
    /// is one. Whoever asks for the rest sees by the head whether it is of the same point in the log.
    async fn load(
        &self,
        lane: Lane,
        entities: &[EntityRef],
        keys: &[IdempotencyKey],
        bytes: usize,
    ) -> Result<Loaded>;

    /// Appends a batch if the lane's head is still at `expected`.
    ///
    /// The batch has at least one event; its events stand at `expected + 1`, `expected + 2` … and
    /// continue the versions of their entities. A batch that does not fit what is there is refused as
    /// [`ErrorKind::Rejected`]: one with a first version of an entity that the log has already, or with an
    /// idempotency key or an event id that it has. A caller may count on it instead of looking with
    /// `load` for what is most likely not there.
    ///
    /// [`Appended::HeadMoved`] means that nothing was written and that this append can never be
    /// written later. [`ErrorKind::Unknown`] means that it may be, or may yet be, written; repeating the
    /// call with the same arguments is the way to find out: it answers `Done` if it now wrote the
    /// batch, and `HeadMoved` if the batch, or another, is there.
    ///
    /// That a batch can be read does not say that it is on stable storage, of an append that did not answer
    /// `Done`: see [`confirm`](Storage::confirm).
    async fn append(&self, lane: Lane, expected: Position, batch: Arc<Batch>) -> Result<Appended>;

    /// Makes sure that whatever could be read when this was called is on stable storage, as what an append
    /// answered [`Appended::Done`] for is. Asked before somebody is told on the strength of a read that a
    /// write is done: of an append whose outcome was not known, or of a request that was carried out before.
    ///
    /// A failure means that this is not known yet. A storage where nothing can be read before it is on stable
    /// storage has nothing to do; a database that waits for its standbys shows a commit whose wait was ended.
    async fn confirm(&self) -> Result<()>;

    /// Runs a task that writes a lane, on the thread where its calls of this storage cost least. It is polled
    /// until it ends or the storage is closed; a panic ends that task alone. What the task holds is dropped with
    /// it, so that the caller can notice its end.
    ///
    /// Called within a tokio runtime, whose timers and tasks are there for it.
    fn run_writer(&self, task: BoxFuture<'static, ()>);

    /// An entity's current state.
    async fn get(&self, entity: &EntityRef) -> Result<Read<State>>;

    /// The event that an entity's state followed from at a point in its past: the one with exactly
    /// that version, or the last one at or before that time. `None` when there is none.
    async fn get_at(&self, entity: &EntityRef, at: At) -> Result<Read<Option<Event>>>;

    /// Searches current states. Ordered by the query's sort, then by key; by key without one.
    async fn search_entities(&self, query: &EntityQuery) -> Result<Read<Page<Found>>>;

    /// One event of an entity by its id; `None` if the id is not one of this entity's.
    async fn get_event(&self, entity: &EntityRef, id: EventId) -> Result<Read<Option<Event>>>;

    /// Several events by their entities and ids, in the order of the questions; `None` where the id is
    /// not one of that entity's. One round trip, whatever their number.
    ///
    /// Ends where the events found come to more than `bytes`, as [`Event::size`] counts them, and so
    /// answers the first questions alone: at least one, if there is one. One event may be asked for more
    /// than once, and counts each time.
    async fn get_events(
        &self,
        events: &[(EntityRef, EventId)],
        bytes: usize,
    ) -> Result<Vec<Option<Event>>>;

    /// Searches the history. Ordered by the query's sort, then by position; by position without one.
    async fn search_events(&self, query: &EventQuery) -> Result<Read<Page<Event>>>;

    /// Events of a lane after a position, in order and without a hole; at least one if there is one,
    /// and no more than `limit` asks for.
    async fn read_log(&self, lane: Lane, after: Position, limit: ReadLimit) -> Result<Vec<Event>>;

    /// The idempotency keys of a lane whose first events stand after a position, in the order of those
    /// events, at most so many. For those who copy a log: a call may read all the keys there are.
    async fn read_keys(&self, lane: Lane, after: Position, most: usize) -> Result<Vec<KeyRecord>>;

    /// The position after which a lane's events are at `time` or later.
    async fn seek(&self, lane: Lane, time: Timestamp) -> Result<Position>;

    /// The head of every lane.
    async fn heads(&self) -> Result<Heads>;

    /// Whether the storage can do such work at the moment, and if not, why. Asked all the time, so it
    /// costs little and changes nothing that a reader can see.
    ///
    /// [`ErrorKind::Bug`] means that a part of it has ended in this process and does not come back: whoever
    /// asks ends the process, in good order.
    async fn check(&self, work: Work) -> Result<()>;

    /// What whoever operates the storage has to know while it works: settings by which acknowledged writes are
    /// less safe than this contract has it, each with what to do. Told in the text of readiness.
    fn concerns(&self) -> Vec<String>;

    /// Finishes what is under way and lets go of files and connections. Calls made afterwards
    /// answer [`ErrorKind::Unavailable`].
    async fn close(&self);
}

/// What a storage may be asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Reads.
    Read,
    /// Reads and appends.
    Write,
}

/// Reads the head of every lane, for those who are told of a log without knowing its storage; `None`
/// while they cannot be read.
pub fn heads_of(
    storage: &Arc<dyn Storage>,
) -> impl Fn() -> BoxFuture<'static, Option<Heads>> + Send + Sync + 'static {
    let storage = Arc::clone(storage);
    move || {
        let storage = Arc::clone(&storage);
        Box::pin(async move { storage.heads().await.ok() })
    }
}

/// What is fixed when a log is initialised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The log's identity.
    pub log_id: LogId,
    /// The number of lanes.
    pub lanes: Lanes,
}

/// What is fixed when a log is initialised, and what the provider can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// The provider's name, as in its configuration.
    pub provider: &'static str,
    /// The log's identity.
    pub log_id: LogId,
    /// The number of lanes.
    pub lanes: Lanes,
    /// What the provider can do.
    pub capabilities: Capabilities,
    /// A call costs a task that is [run by the storage](Storage::run_writer) no round trip: it waits for the disk
    /// at most, and the task cannot do anything else meanwhile. So nothing is gained by reading ahead.
    pub is_local: bool,
}

/// What a provider may be unable to do. A missing capability is refused by name where it is needed,
/// never emulated by ignoring it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// What was acknowledged survives a crash of the process.
    pub durable: bool,
    /// Several processes may use the storage at once.
    pub shared: bool,
}

/// A value, and the position of its lane that it was read at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read<T> {
    /// What was read.
    pub value: T,
    /// The lane it belongs to.
    pub lane: Lane,
    /// The lane's head at that moment.
    pub position: Position,
}

/// The end of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// The position of the last event; zero for an empty lane.
    pub position: Position,
    /// The time of the last event; zero for an empty lane.
    pub time: Timestamp,
    /// The id of the last event; `None` for an empty lane.
    pub id: Option<EventId>,
}

/// What the next batch of a lane is decided on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The lane's head.
    pub head: Head,
    /// The states of the entities asked for, in order: of all of them, or of the first ones.
    pub states: Vec<State>,
    /// What became of the keys asked for, in order: of all of them, or of the first ones. `None` for a key
    /// not used yet.
    pub replays: Vec<Option<Replay>>,
}

/// A request that was carried out before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// What it asked for.
    pub digest: Digest,
    /// The events it made, in order.
    pub events: Vec<Event>,
}

impl Replay {
    /// Bytes of its events, as [`Event::size`] counts them.
    pub fn size(&self) -> usize {
        self.events.iter().map(Event::size).sum()
    }
}

/// Events to append, with the idempotency keys of the requests that made them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Consecutive events of one lane.
    pub events: Vec<Event>,
    /// Keys of those requests that had one.
    pub keys: Vec<KeyRecord>,
}

/// An idempotency key and what it stands for, kept as long as the events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// The key.
    pub key: IdempotencyKey,
    /// What the request asked for.
    pub digest: Digest,
    /// The position of the first event it made.
    pub first: Position,
    /// How many consecutive events it made.
    pub count: u32,
}

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// The batch is on stable storage.
    Done,
    /// The lane's head is not where it was expected; nothing was, or ever will be, written.
    HeadMoved,
}

/// An entity found by a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which entity.
    pub entity: EntityRef,
    /// Its version.
    pub version: Version,
    /// Its values.
    pub values: Values,
}

impl Found {
    /// Bytes that count against a page: everything of variable length and a fixed share for the rest.
    pub fn size(&self) -> usize {
        Self::size_of(self.entity.size(), self.values.size())
    }

    /// [`Found::size`] from the sizes of the entity's names and values.
    pub(crate) fn size_of(names: usize, values: usize) -> usize {
        const FIXED: usize = 64;
        FIXED + names + values
    }
}

/// How much of the log to read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimit {
    /// Most events.
    pub events: usize,
    /// Most bytes, as [`Event::size`] counts them; one event may exceed it.
    pub bytes: usize,
}
