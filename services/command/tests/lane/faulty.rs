//! A storage in memory that fails and dawdles on purpose.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::Rng as _;
use stategate_model::{
    At, Claims, EntityQuery, EntityRef, Event, EventId, EventQuery, Heads, IdempotencyKey, Lane,
    Position, State, Timestamp, Values, Version,
};
use stategate_storage::{
    Appended, Batch, Capabilities, Error, ErrorKind, Found, Info, KeyRecord, Loaded, Memory,
    MemoryConfig, Page, Read, ReadLimit, Replay, Result, Storage, Work,
};

use crate::entity;

/// What goes wrong with the next append.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// It is written, but nobody says so.
    WrittenUnknown,
    /// It is not written, and nobody says so.
    LostUnknown,
    /// Nothing is written, for sure.
    Unavailable,
    /// Another process writes first.
    Conflict,
    /// Batches with more than one event are refused for their content.
    RejectedTogether,
}

#[derive(Debug)]
pub(crate) struct Faulty {
    pub(crate) inner: Memory,
    info: Info,
    faults: Mutex<VecDeque<Fault>>,
    /// What is waited for on the way to the storage and on the way back.
    way: Range<Duration>,
    /// How often other tasks run while a batch is appended.
    rounds: usize,
    /// Held by whoever commits, as a database holds the head's row.
    head: tokio::sync::Mutex<()>,
    pub(crate) appends: AtomicUsize,
    pub(crate) loads: AtomicUsize,
    /// Most bytes that one load answered.
    pub(crate) most_loaded: AtomicUsize,
    /// After so many loads another process moves the head.
    pub(crate) moves: AtomicUsize,
    /// Reads of events by their ids, one or several at once.
    pub(crate) lookups: AtomicUsize,
    /// Batches that the storage itself refused, since something in them was not new.
    pub(crate) misfits: AtomicUsize,
    /// What can be read may be on this machine alone.
    pub(crate) is_alone: AtomicBool,
}

impl Faulty {
    pub(crate) fn new(faults: &[Fault]) -> Arc<Self> {
        Self::far(Duration::ZERO..Duration::ZERO, faults)
    }

    /// One that several processes share, so far away that each way takes as long, and a commit too.
    pub(crate) fn far(way: Range<Duration>, faults: &[Fault]) -> Arc<Self> {
        let config: MemoryConfig = serde_json::from_str("{}").unwrap();
        let inner = Memory::new(&config).unwrap();
        let capabilities = Capabilities {
            shared: true,
            ..inner.info().capabilities
        };
        Arc::new(Self {
            info: Info {
                capabilities,
                ..inner.info().clone()
            },
            inner,
            faults: Mutex::new(faults.iter().copied().collect()),
            way,
            rounds: 0,
            head: tokio::sync::Mutex::new(()),
            appends: AtomicUsize::new(0),
            loads: AtomicUsize::new(0),
            most_loaded: AtomicUsize::new(0),
            moves: AtomicUsize::new(0),
            lookups: AtomicUsize::new(0),
            misfits: AtomicUsize::new(0),
            is_alone: AtomicBool::new(false),
        })
    }

    /// One that is done before the tasks of those who were just answered have all had their turn.
    pub(crate) fn quick(rounds: usize) -> Arc<Self> {
        let mut quick = Self::new(&[]);
        Arc::get_mut(&mut quick).unwrap().rounds = rounds;
        quick
    }

    /// Has the next appends fail.
    pub(crate) fn fail(&self, faults: &[Fault]) {
        self.faults.lock().extend(faults);
    }

    async fn travel(&self) {
        if !self.way.is_empty() {
            let way = rand::rng().random_range(self.way.clone());
            tokio::time::sleep(way).await;
        }
    }

    /// A write of another process to the same lane.
    pub(crate) async fn write_of_another(&self, lane: Lane) {
        let head = self
            .inner
            .load(lane, &[], &[], usize::MAX)
            .await
            .unwrap()
            .head;
        let entity = entity(&format!("other-{}", head.position));
        let event = Event {
            id: EventId::fresh(Timestamp(0)),
            entity,
            values: Values::empty(),
            version: Version::new(1),
            lane,
            position: head.position.next(),
            time: Timestamp::following(Timestamp(0), head.time),
            method: stategate_model::Method::Set,
            claims: Claims::none(),
            trace_parent: None,
        };
        let batch = Arc::new(Batch {
            events: vec![event],
            keys: Vec::new(),
        });
        assert_eq!(
            self.inner.append(lane, head.position, batch).await.unwrap(),
            Appended::Done
        );
    }
}

#[async_trait]
impl Storage for Faulty {
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
        self.loads.fetch_add(1, Ordering::SeqCst);
        self.travel().await;
        let loaded = self.inner.load(lane, entities, keys, bytes).await;
        if let Ok(Loaded {
            states, replays, ..
        }) = &loaded
        {
            let states: usize = states.iter().map(State::size).sum();
            let replays: usize = replays.iter().flatten().map(Replay::size).sum();
            self.most_loaded
                .fetch_max(states + replays, Ordering::SeqCst);
        }
        let moves = &self.moves;
        let take_one = |left: usize| left.checked_sub(1);
        if moves
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take_one)
            .is_ok()
        {
            self.write_of_another(lane).await;
        }
        self.travel().await;
        loaded
    }

    async fn append(&self, lane: Lane, expected: Position, batch: Arc<Batch>) -> Result<Appended> {
        self.appends.fetch_add(1, Ordering::SeqCst);
        for _ in 0..self.rounds {
            tokio::task::yield_now().await;
        }
        let fault = self.faults.lock().pop_front();
        match fault {
            None => {
                self.travel().await;
                let appended = {
                    let _head = self.head.lock().await;
                    let head = self.inner.load(lane, &[], &[], usize::MAX).await?.head;
                    // Only who finds the head where it was expected has something to commit.
                    if head.position == expected {
                        self.travel().await;
                    }
                    self.inner.append(lane, expected, batch).await
                };
                if matches!(&appended, Err(error) if *error.kind() == ErrorKind::Rejected) {
                    self.misfits.fetch_add(1, Ordering::SeqCst);
                }
                self.travel().await;
                appended
            }
            Some(Fault::WrittenUnknown) => {
                self.inner.append(lane, expected, batch).await?;
                Err(Error::new(ErrorKind::Unknown, "append"))
            }
            Some(Fault::LostUnknown) => Err(Error::new(ErrorKind::Unknown, "append")),
            Some(Fault::Unavailable) => Err(Error::new(ErrorKind::Unavailable, "append")),
            Some(Fault::Conflict) => {
                self.write_of_another(lane).await;
                self.inner.append(lane, expected, batch).await
            }
            Some(Fault::RejectedTogether) if batch.events.len() > 1 => {
                self.faults.lock().push_front(Fault::RejectedTogether);
                Err(Error::new(ErrorKind::Rejected, "append"))
            }
            Some(Fault::RejectedTogether) => {
                self.faults.lock().push_front(Fault::RejectedTogether);
                if batch
                    .events
                    .iter()
                    .any(|event| event.entity.key() == "poison")
                {
                    return Err(Error::new(ErrorKind::Rejected, "append"));
                }
                self.inner.append(lane, expected, batch).await
            }
        }
    }

    async fn confirm(&self) -> Result<()> {
        match self.is_alone.load(Ordering::SeqCst) {
            true => Err(Error::new(ErrorKind::Unavailable, "confirm")),
            false => Ok(()),
        }
    }

    fn run_writer(&self, task: BoxFuture<'static, ()>) {
        self.inner.run_writer(task);
    }

    async fn get(&self, entity: &EntityRef) -> Result<Read<State>> {
        self.inner.get(entity).await
    }

    async fn get_at(&self, entity: &EntityRef, at: At) -> Result<Read<Option<Event>>> {
        self.inner.get_at(entity, at).await
    }

    async fn search_entities(&self, query: &EntityQuery) -> Result<Read<Page<Found>>> {
        self.inner.search_entities(query).await
    }

    async fn get_event(&self, entity: &EntityRef, id: EventId) -> Result<Read<Option<Event>>> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        self.inner.get_event(entity, id).await
    }

    async fn get_events(
        &self,
        events: &[(EntityRef, EventId)],
        bytes: usize,
    ) -> Result<Vec<Option<Event>>> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        self.inner.get_events(events, bytes).await
    }

    async fn search_events(&self, query: &EventQuery) -> Result<Read<Page<Event>>> {
        self.inner.search_events(query).await
    }

    async fn read_log(&self, lane: Lane, after: Position, limit: ReadLimit) -> Result<Vec<Event>> {
        self.inner.read_log(lane, after, limit).await
    }

    async fn read_keys(&self, lane: Lane, after: Position, most: usize) -> Result<Vec<KeyRecord>> {
        self.inner.read_keys(lane, after, most).await
    }

    async fn seek(&self, lane: Lane, time: Timestamp) -> Result<Position> {
        self.inner.seek(lane, time).await
    }

    async fn heads(&self) -> Result<Heads> {
        self.inner.heads().await
    }

    async fn check(&self, work: Work) -> Result<()> {
        self.inner.check(work).await
    }

    fn concerns(&self) -> Vec<String> {
        self.inner.concerns()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
