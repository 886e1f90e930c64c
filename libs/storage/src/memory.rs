//! The reference store: what the contract says, in the plainest way, in the memory of one process.
//!
//! The other storages are judged against it, so it prefers being obviously right to being fast: one
//! lock, ordered maps, and every condition checked on every append. Nothing survives the process.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde::Deserialize;
use stategate_model::{
    At, Cursor, Digest, Direction, EntityQuery, EntityRef, Event, EventId, EventQuery, Heads,
    IdempotencyKey, Lane, Lanes, LogId, PageRequest, Position, Scan, Sort, SortKey, State, Tie,
    Timestamp, Version, value::Corrupt,
};

use crate::{
    Appended, Batch, Capabilities, Error, Found, Head, Identity, Info, KeyRecord, Kind, Loaded,
    Page, Read, ReadLimit, Replay, Result, Storage, Work,
};

/// Settings of [`Memory`]: `{"name": "memory", "lanes": 8}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryConfig {
    /// How many lanes the log has: 1 (the default) to 64.
    #[serde(default = "one_lane")]
    pub lanes: u8,
}

fn one_lane() -> u8 {
    Lanes::ONE.get()
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { lanes: one_lane() }
    }
}

/// A storage in memory. Gone with the process, and visible to no other.
pub struct Memory {
    info: Info,
    /// `None` once closed.
    log: Mutex<Option<Log>>,
}

/// The log and what is derived from it.
#[derive(Default)]
struct Log {
    /// Events of each lane; the one at position `p` is at index `p - 1`.
    lanes: Vec<Vec<Event>>,
    /// Events of each entity; the one of version `v` is at index `v - 1`.
    entities: BTreeMap<EntityRef, Vec<Event>>,
    ids: HashMap<EventId, Event>,
    keys: BTreeMap<IdempotencyKey, (Digest, Vec<Event>)>,
}

impl Memory {
    /// An empty log.
    pub fn new(config: &MemoryConfig) -> Result<Self> {
        let lanes = Lanes::new(config.lanes)
            .map_err(|invalid| Error::new(Kind::Config, "open").because(invalid))?;
        let log_id = LogId::random();
        Ok(Self::create_as(config, Identity { log_id, lanes }))
    }

    /// An empty log under an identity; its number of lanes goes before that of the settings.
    pub fn create_as(_config: &MemoryConfig, Identity { log_id, lanes }: Identity) -> Self {
        Self {
            info: Info {
                provider: "memory",
                log_id,
                lanes,
                capabilities: Capabilities {
                    durable: false,
                    shared: false,
                },
                at_hand: false,
            },
            log: Mutex::new(Some(Log {
                lanes: lanes.iter().map(|_| Vec::new()).collect(),
                ..Log::default()
            })),
        }
    }

    /// Does something with the log, alone.
    fn with<T>(
        &self,
        operation: &'static str,
        then: impl FnOnce(&mut Log) -> Result<T>,
    ) -> Result<T> {
        match &mut *self.log.lock() {
            Some(log) => then(log),
            None => Err(Error::new(Kind::Unavailable, operation).because("the storage is closed")),
        }
    }

    /// Reads something of a domain, with the head of its lane.
    fn read<T>(
        &self,
        operation: &'static str,
        domain: &str,
        then: impl FnOnce(&Log) -> Result<T>,
    ) -> Result<Read<T>> {
        let lane = self.info.lanes.of(domain);
        self.with(operation, |log| {
            Ok(Read {
                value: then(log)?,
                lane,
                position: log.head(lane).position,
            })
        })
    }
}

impl Log {
    fn lane(&self, lane: Lane) -> &[Event] {
        self.lanes.get(lane.index()).map_or(&[], Vec::as_slice)
    }

    fn head(&self, lane: Lane) -> Head {
        self.lane(lane)
            .last()
            .map_or_else(Head::default, |event| Head {
                position: event.position,
                time: event.time,
                id: Some(event.id),
            })
    }

    fn history(&self, entity: &EntityRef) -> &[Event] {
        self.entities.get(entity).map_or(&[], Vec::as_slice)
    }

    fn event(&self, entity: &EntityRef, id: EventId) -> Option<&Event> {
        self.ids.get(&id).filter(|event| event.entity == *entity)
    }

    fn state(&self, entity: &EntityRef) -> State {
        self.history(entity)
            .last()
            .map_or_else(State::default, |event| State {
                version: event.version,
                values: event.state().cloned(),
            })
    }

    /// Why the log does not take a batch that is right in itself.
    fn problem(&self, lane: Lane, batch: &Batch) -> Option<&'static str> {
        let first = batch.events.first()?;
        if self.head(lane).id.is_some() && first.time <= self.head(lane).time {
            return Some("times do not increase");
        }
        let mut versions: HashMap<&EntityRef, Version> = HashMap::new();
        for event in &batch.events {
            let version = versions
                .entry(&event.entity)
                .or_insert_with(|| self.state(&event.entity).version);
            *version = version.next();
            if event.version != *version {
                return Some("a version does not continue its entity");
            }
            if self.ids.contains_key(&event.id) {
                return Some("an event id is there already");
            }
        }
        let taken = |record: &KeyRecord| self.keys.contains_key(&record.key);
        batch
            .keys
            .iter()
            .any(taken)
            .then_some("an idempotency key is there already")
    }

    /// Takes a batch that was checked.
    fn take(&mut self, lane: Lane, batch: &Batch) {
        for event in &batch.events {
            self.entities
                .entry(event.entity.clone())
                .or_default()
                .push(event.clone());
            self.ids.insert(event.id, event.clone());
        }
        for record in &batch.keys {
            let events = batch
                .events
                .iter()
                .skip_while(|event| event.position < record.first)
                .take(usize::try_from(record.count).unwrap_or(usize::MAX))
                .cloned()
                .collect();
            self.keys
                .insert(record.key.clone(), (record.digest, events));
        }
        if let Some(events) = self.lanes.get_mut(lane.index()) {
            events.extend(batch.events.iter().cloned());
        }
    }
}

#[async_trait]
impl Storage for Memory {
    fn info(&self) -> &Info {
        &self.info
    }

    async fn load(
        &self,
        lane: Lane,
        entities: &[EntityRef],
        keys: &[IdempotencyKey],
    ) -> Result<Loaded> {
        self.with("load", |log| {
            Ok(Loaded {
                head: log.head(lane),
                states: entities.iter().map(|entity| log.state(entity)).collect(),
                replays: keys
                    .iter()
                    .map(|key| {
                        log.keys.get(key).map(|(digest, events)| Replay {
                            digest: *digest,
                            events: events.clone(),
                        })
                    })
                    .collect(),
            })
        })
    }

    async fn append(&self, lane: Lane, expected: Position, batch: Arc<Batch>) -> Result<Appended> {
        self.with("append", |log| {
            batch.check(self.info.lanes, lane, expected)?;
            if log.head(lane).position != expected {
                return Ok(Appended::HeadMoved);
            }
            if let Some(problem) = log.problem(lane, &batch) {
                return Err(Error::new(Kind::Rejected, "append").because(problem));
            }
            log.take(lane, &batch);
            Ok(Appended::Done)
        })
    }

    fn host(&self, task: BoxFuture<'static, ()>) {
        drop(tokio::spawn(task));
    }

    async fn get(&self, entity: &EntityRef) -> Result<Read<State>> {
        self.read("get", entity.domain(), |log| Ok(log.state(entity)))
    }

    async fn get_at(&self, entity: &EntityRef, at: At) -> Result<Read<Option<Event>>> {
        self.read("get_at", entity.domain(), |log| {
            Ok(log
                .history(entity)
                .iter()
                .rfind(|event| match at {
                    At::Version(version) => event.version == version,
                    At::Time(time) => event.time <= time,
                })
                .cloned())
        })
    }

    async fn search_entities(&self, query: &EntityQuery) -> Result<Read<Page<Found>>> {
        self.read("search_entities", query.of.domain.as_str(), |log| {
            search_entities(log, query)
        })
    }

    async fn get_event(&self, entity: &EntityRef, id: EventId) -> Result<Read<Option<Event>>> {
        self.read("get_event", entity.domain(), |log| {
            Ok(log.event(entity, id).cloned())
        })
    }

    async fn get_events(
        &self,
        events: &[(EntityRef, EventId)],
        bytes: usize,
    ) -> Result<Vec<Option<Event>>> {
        self.with("get_events", |log| {
            let (mut found, mut size) = (Vec::with_capacity(events.len()), 0);
            for (entity, id) in events {
                let event = log.event(entity, *id);
                size += event.map_or(0, Event::size);
                if size > bytes && !found.is_empty() {
                    break;
                }
                found.push(event.cloned());
            }
            Ok(found)
        })
    }

    async fn search_events(&self, query: &EventQuery) -> Result<Read<Page<Event>>> {
        let lane = self.info.lanes.of(query.of.domain.as_str());
        self.read("search_events", query.of.domain.as_str(), |log| {
            search_events(log.lane(lane), query)
        })
    }

    async fn read_log(&self, lane: Lane, after: Position, limit: ReadLimit) -> Result<Vec<Event>> {
        self.with("read_log", |log| {
            let mut bytes = 0;
            let mut events = Vec::new();
            let skip = usize::try_from(after.get()).unwrap_or(usize::MAX);
            for event in log.lane(lane).iter().skip(skip) {
                bytes += event.size();
                let full = events.len() >= limit.events || bytes > limit.bytes;
                if full && !events.is_empty() {
                    break;
                }
                events.push(event.clone());
            }
            Ok(events)
        })
    }

    async fn read_keys(&self, lane: Lane, after: Position, most: usize) -> Result<Vec<KeyRecord>> {
        self.with("read_keys", |log| {
            let mut records: Vec<KeyRecord> = log
                .keys
                .iter()
                .filter_map(|(key, (digest, events))| {
                    let first = events.first()?;
                    (first.lane == lane && first.position > after).then(|| KeyRecord {
                        key: key.clone(),
                        digest: *digest,
                        first: first.position,
                        count: u32::try_from(events.len()).unwrap_or(u32::MAX),
                    })
                })
                .collect();
            records.sort_by_key(|record| record.first);
            records.truncate(most);
            Ok(records)
        })
    }

    async fn seek(&self, lane: Lane, time: Timestamp) -> Result<Position> {
        self.with("seek", |log| {
            Ok(log
                .lane(lane)
                .iter()
                .rfind(|event| event.time < time)
                .map_or(Position::ZERO, |event| event.position))
        })
    }

    async fn heads(&self) -> Result<Heads> {
        self.with("heads", |log| {
            let heads = self.info.lanes.iter().map(|lane| log.head(lane).position);
            Ok(Heads::new(heads.collect()))
        })
    }

    async fn check(&self, _work: Work) -> Result<()> {
        self.with("check", |_| Ok(()))
    }

    async fn close(&self) {
        *self.log.lock() = None;
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

fn corrupt(operation: &'static str) -> impl Fn(Corrupt) -> Error {
    move |corrupt| Error::new(Kind::Corrupt, operation).because(corrupt)
}

fn search_entities(log: &Log, query: &EntityQuery) -> Result<Page<Found>> {
    let entities = log.entities.iter().filter(|(entity, _)| {
        entity.domain() == query.of.domain.as_str() && entity.kind() == query.of.kind.as_str()
    });
    let mut found = Vec::new();
    for (entity, events) in entities {
        let Some((version, values)) = events
            .last()
            .and_then(|event| Some((event.version, event.state()?)))
        else {
            continue;
        };
        let object = values.object().map_err(corrupt("search_entities"))?;
        if query.filter.matches_values(object) {
            let key = query
                .sort
                .as_ref()
                .map(|sort| SortKey::of_values(&sort.path, object));
            let tie = Tie::Key(entity.key().to_owned());
            let item = Found {
                entity: entity.clone(),
                version,
                values: values.clone(),
            };
            found.push((Cursor { key, tie }, item.size(), item));
        }
    }
    page(&query.page, query.sort.as_ref(), found, "search_entities")
}

fn search_events(events: &[Event], query: &EventQuery) -> Result<Page<Event>> {
    let inside = events.iter().filter(|event| {
        event.entity.domain() == query.of.domain.as_str()
            && event.entity.kind() == query.of.kind.as_str()
            && query.min.is_none_or(|min| event.time >= min)
            && query.max.is_none_or(|max| event.time <= max)
    });
    let corrupt = corrupt("search_events");
    let mut found = Vec::new();
    for event in inside {
        if query.filter.matches_event(event).map_err(&corrupt)? {
            let key = match &query.sort {
                Some(sort) => Some(SortKey::of_event(&sort.path, event).map_err(&corrupt)?),
                None => None,
            };
            let tie = Tie::Place(event.lane, event.position);
            found.push((Cursor { key, tie }, event.size(), event.clone()));
        }
    }
    page(&query.page, query.sort.as_ref(), found, "search_events")
}

/// Sorts everything that matches and cuts the page out.
fn page<T>(
    request: &PageRequest,
    sort: Option<&Sort>,
    mut found: Vec<(Cursor, usize, T)>,
    operation: &'static str,
) -> Result<Page<T>> {
    if sort.is_some() {
        request
            .check_sort_window()
            .map_err(|invalid| Error::new(Kind::Invalid(invalid), operation))?;
    }
    let direction = Direction::of(sort);
    found.sort_by(|(a, ..), (b, ..)| direction.compare(a, b));
    let mut scan = Scan::new(request, direction);
    for (cursor, size, item) in found {
        if scan.offer(cursor, size, item).is_break() {
            break;
        }
    }
    Ok(scan.finish())
}
