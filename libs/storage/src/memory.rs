//! The reference store: what the contract says, in the plainest way, in the memory of one process.
//!
//! The other storages are judged against it, so it prefers being obviously right to being fast: one
//! lock, ordered maps, and every condition checked on every append. A question looks at what it is
//! about and nothing else, so that it costs the same whatever other domains and types hold. Nothing
//! survives the process.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    ops::{Bound, ControlFlow},
    sync::Arc,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde::Deserialize;
use stategate_model::{
    At, Claims, Cursor, Direction, EntityQuery, EntityRef, Event, EventId, EventQuery, Heads,
    IdempotencyKey, Lane, Lanes, LogId, PageRequest, Position, Scan, Sort, SortKey, State, Tie,
    Timestamp, Version, value::Corrupt,
};

use crate::{
    Appended, Batch, Capabilities, Error, ErrorKind, Found, Head, Identity, Info, KeyRecord,
    Loaded, Page, Read, ReadLimit, Replay, Result, Storage, Work, error::closed, prefix::Prefix,
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

/// The log, and what finds things in it.
#[derive(Default)]
struct Log {
    lanes: Vec<LaneLog>,
    /// By domain, then by type, so that no question looks at what it is not about.
    kinds: HashMap<Box<str>, HashMap<Box<str>, OfKind>>,
    ids: HashMap<EventId, (Lane, Position)>,
    keys: HashMap<IdempotencyKey, KeyRecord>,
    /// How many events were looked at.
    #[cfg(test)]
    looked_at: std::cell::Cell<usize>,
}

/// One lane: the truth.
#[derive(Default)]
struct LaneLog {
    /// The event at position `p` is at index `p - 1`. Times increase.
    events: Vec<Event>,
    /// In the order of the events they stand for.
    keys: Vec<KeyRecord>,
}

/// What a domain has of one type, as positions of its lane.
#[derive(Default)]
struct OfKind {
    /// By key; the event of version `v` is at index `v - 1`.
    entities: BTreeMap<Box<str>, Vec<Position>>,
    /// All events, in the order of positions.
    events: Vec<Position>,
}

impl Memory {
    /// An empty log.
    pub fn new(config: &MemoryConfig) -> Result<Self> {
        let lanes = Lanes::new(config.lanes)
            .map_err(|invalid| Error::new(ErrorKind::Config, "open").because(invalid))?;
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
                is_local: false,
            },
            log: Mutex::new(Some(Log {
                lanes: lanes.iter().map(|_| LaneLog::default()).collect(),
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
            None => Err(closed(operation)),
        }
    }

    /// Reads something of a domain, with the head of its lane.
    fn read<T>(
        &self,
        operation: &'static str,
        domain: &str,
        then: impl FnOnce(&Log, Lane) -> Result<T>,
    ) -> Result<Read<T>> {
        let lane = self.info.lanes.of(domain);
        self.with(operation, |log| {
            Ok(Read {
                value: then(log, lane)?,
                lane,
                position: log.head(lane).position,
            })
        })
    }
}

impl Log {
    fn lane(&self, lane: Lane) -> &[Event] {
        let of_lane = self.lanes.get(lane.index());
        of_lane.map_or(&[], |lane| lane.events.as_slice())
    }

    /// The event at a position. Everything that looks at events goes through here.
    fn at(&self, lane: Lane, position: Position) -> Option<&Event> {
        #[cfg(test)]
        self.looked_at.set(self.looked_at.get() + 1);
        let before = position.get().checked_sub(1)?;
        self.lane(lane).get(usize::try_from(before).ok()?)
    }

    /// How many of these positions, which are in order, come before the first event that `is_before`
    /// does not hold of.
    fn count(
        &self,
        lane: Lane,
        positions: &[Position],
        is_before: impl Fn(&Event) -> bool,
    ) -> usize {
        positions.partition_point(|position| self.at(lane, *position).is_some_and(&is_before))
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

    fn kind(&self, domain: &str, kind: &str) -> Option<&OfKind> {
        self.kinds.get(domain)?.get(kind)
    }

    /// An event of an entity by its id.
    fn event(&self, entity: &EntityRef, id: EventId) -> Option<&Event> {
        let (lane, position) = self.ids.get(&id)?;
        self.at(*lane, *position)
            .filter(|event| event.entity == *entity)
    }

    /// The positions of an entity's versions.
    fn history(&self, entity: &EntityRef) -> &[Position] {
        self.kind(entity.domain(), entity.kind())
            .and_then(|kind| kind.entities.get(entity.key()))
            .map_or(&[], Vec::as_slice)
    }

    fn state(&self, lane: Lane, entity: &EntityRef) -> State {
        let newest = self.history(entity).last();
        newest
            .and_then(|position| self.at(lane, *position))
            .map_or_else(State::default, |event| State {
                version: event.version,
                values: event.state().cloned(),
            })
    }

    /// The event that an entity's state followed from.
    fn state_at(&self, lane: Lane, entity: &EntityRef, at: At) -> Option<&Event> {
        let history = self.history(entity);
        let last = match at {
            At::Version(version) => usize::try_from(version.as_i64()).ok()?,
            At::Time(time) => self.count(lane, history, |event| event.time <= time),
        };
        self.at(lane, *history.get(last.checked_sub(1)?)?)
    }

    /// Why the log does not take a batch that is right in itself.
    fn problem(&self, lane: Lane, batch: &Batch) -> Option<&'static str> {
        let first = batch.events.first()?;
        let head = self.head(lane);
        if head.id.is_some() && first.time <= head.time {
            return Some("times do not increase");
        }
        let mut versions: HashMap<&EntityRef, Version> = HashMap::new();
        for event in &batch.events {
            let version = versions
                .entry(&event.entity)
                .or_insert_with(|| self.state(lane, &event.entity).version);
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
            let (domain, kind) = (event.entity.domain(), event.entity.kind());
            let of_domain = self.kinds.entry(domain.into()).or_default();
            let of_kind = of_domain.entry(kind.into()).or_default();
            let versions = of_kind.entities.entry(event.entity.key().into());
            versions.or_default().push(event.position);
            of_kind.events.push(event.position);
            self.ids.insert(event.id, (lane, event.position));
        }
        let mut records = batch.keys.clone();
        records.sort_by_key(|record| record.first);
        for record in &records {
            self.keys.insert(record.key.clone(), record.clone());
        }
        if let Some(of_lane) = self.lanes.get_mut(lane.index()) {
            of_lane.events.extend(batch.events.iter().map(lean));
            of_lane.keys.extend(records);
        }
    }

    /// What became of the request that a key stands for.
    fn replay(&self, lane: Lane, key: &IdempotencyKey) -> Option<Replay> {
        let record = self.keys.get(key)?;
        let positions = (0..u64::from(record.count)).map(|n| record.first.plus(n));
        Some(Replay {
            digest: record.digest,
            events: positions
                .filter_map(|position| self.at(lane, position).cloned())
                .collect(),
        })
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
        bytes: usize,
    ) -> Result<Loaded> {
        self.with("load", |log| {
            let mut prefix = Prefix::new(bytes);
            let states = entities.iter().map(|entity| log.state(lane, entity));
            let states: Vec<_> = states
                .take_while(|state| prefix.takes(state.size()))
                .collect();
            let is_whole = states.len() == entities.len();
            let replays = keys.iter().map(|key| log.replay(lane, key));
            let replays = replays.take_while(|replay| {
                is_whole && prefix.takes(replay.as_ref().map_or(0, Replay::size))
            });
            Ok(Loaded {
                head: log.head(lane),
                replays: replays.collect(),
                states,
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
                return Err(Error::new(ErrorKind::Rejected, "append").because(problem));
            }
            log.take(lane, &batch);
            Ok(Appended::Done)
        })
    }

    async fn confirm(&self) -> Result<()> {
        // What can be read is on stable storage, or there is none.
        Ok(())
    }

    fn run_writer(&self, task: BoxFuture<'static, ()>) {
        drop(tokio::spawn(task));
    }

    async fn get(&self, entity: &EntityRef) -> Result<Read<State>> {
        self.read("get", entity.domain(), |log, lane| {
            Ok(log.state(lane, entity))
        })
    }

    async fn get_at(&self, entity: &EntityRef, at: At) -> Result<Read<Option<Event>>> {
        self.read("get_at", entity.domain(), |log, lane| {
            Ok(log.state_at(lane, entity, at).cloned())
        })
    }

    async fn search_entities(&self, query: &EntityQuery) -> Result<Read<Page<Found>>> {
        self.read("search_entities", query.of.domain.as_str(), |log, lane| {
            search_entities(log, lane, query)
        })
    }

    async fn get_event(&self, entity: &EntityRef, id: EventId) -> Result<Read<Option<Event>>> {
        self.read("get_event", entity.domain(), |log, _| {
            Ok(log.event(entity, id).cloned())
        })
    }

    async fn get_events(
        &self,
        events: &[(EntityRef, EventId)],
        bytes: usize,
    ) -> Result<Vec<Option<Event>>> {
        self.with("get_events", |log| {
            let mut prefix = Prefix::new(bytes);
            let found = events.iter().map(|(entity, id)| log.event(entity, *id));
            let found = found.take_while(|event| prefix.takes(event.map_or(0, Event::size)));
            Ok(found.map(Option::<&Event>::cloned).collect())
        })
    }

    async fn search_events(&self, query: &EventQuery) -> Result<Read<Page<Event>>> {
        self.read("search_events", query.of.domain.as_str(), |log, lane| {
            search_events(log, lane, query)
        })
    }

    async fn read_log(&self, lane: Lane, after: Position, limit: ReadLimit) -> Result<Vec<Event>> {
        self.with("read_log", |log| {
            let mut prefix = Prefix::new(limit.bytes);
            let skip = usize::try_from(after.get()).unwrap_or(usize::MAX);
            let events = log.lane(lane).iter().skip(skip).take(limit.events.max(1));
            let events = events.take_while(|event| prefix.takes(event.size()));
            Ok(events.cloned().collect())
        })
    }

    async fn read_keys(&self, lane: Lane, after: Position, most: usize) -> Result<Vec<KeyRecord>> {
        self.with("read_keys", |log| {
            let records = log.lanes.get(lane.index());
            let records = records.map_or(&[][..], |of_lane| &of_lane.keys);
            let from = records.partition_point(|record| record.first <= after);
            Ok(records.iter().skip(from).take(most).cloned().collect())
        })
    }

    async fn seek(&self, lane: Lane, time: Timestamp) -> Result<Position> {
        self.with("seek", |log| {
            let before = log.lane(lane).partition_point(|event| event.time < time);
            Ok(Position::new(before as u64))
        })
    }

    async fn heads(&self) -> Result<Heads> {
        self.with("heads", |log| {
            let heads = self.info.lanes.iter().map(|lane| log.head(lane).position);
            Ok(Heads::new(heads.collect()))
        })
    }

    fn concerns(&self) -> Vec<String> {
        Vec::new()
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
    move |corrupt| Error::new(ErrorKind::Corrupt, operation).because(corrupt)
}

fn search_entities(log: &Log, lane: Lane, query: &EntityQuery) -> Result<Page<Found>> {
    const OPERATION: &str = "search_entities";
    let kind = log.kind(query.of.domain.as_str(), query.of.kind.as_str());
    let sort = query.sort.as_ref();
    // In the order of keys, a page begins behind the one before it.
    let after = match &query.page.after {
        Some(Cursor {
            tie: Tie::Key(key), ..
        }) if sort.is_none() => Bound::Excluded(key.as_str()),
        _ => Bound::Unbounded,
    };
    let entities = kind.map(|kind| kind.entities.range::<str, _>((after, Bound::Unbounded)));
    let mut gathered = Gathered::new(&query.page, sort);
    for (_, versions) in entities.into_iter().flatten() {
        let newest = versions.last().and_then(|newest| log.at(lane, *newest));
        let Some((event, values)) = newest.and_then(|event| Some((event, event.state()?))) else {
            continue;
        };
        // A tree that is not kept with what is stored.
        let object = values.to_object().map_err(corrupt(OPERATION))?;
        if !query.filter.matches_values(&object) {
            continue;
        }
        let key = sort.map(|sort| SortKey::of_values(&sort.path, &object));
        let tie = Tie::Key(event.entity.key().to_owned());
        let item = Found {
            entity: event.entity.clone(),
            version: event.version,
            values: values.clone(),
        };
        let offered = gathered.offer(Cursor { key, tie }, item.size(), item);
        if offered.is_break() {
            break;
        }
    }
    gathered.page(&query.page, sort, OPERATION)
}

/// The event with trees of its own: what looks at them leaves none with what is stored.
fn lean(event: &Event) -> Event {
    Event {
        values: event.values.lean(),
        claims: Claims::from_stored(event.claims.values().lean()),
        ..event.clone()
    }
}

fn search_events(log: &Log, lane: Lane, query: &EventQuery) -> Result<Page<Event>> {
    const OPERATION: &str = "search_events";
    let corrupt = corrupt(OPERATION);
    let (domain, kind) = (query.of.domain.as_str(), query.of.kind.as_str());
    let of_kind = log.kind(domain, kind);
    // An entity's own events are asked for by name: the others need not be looked at.
    let positions = match query.filter.equality(&["entity", "key"]) {
        Some(key) => of_kind.and_then(|kind| kind.entities.get(key)),
        None => of_kind.map(|kind| &kind.events),
    };
    let positions = positions.map_or(&[][..], Vec::as_slice);
    let mut from = match query.min {
        Some(min) => log.count(lane, positions, |event| event.time < min),
        None => 0,
    };
    let to = match query.max {
        Some(max) => log.count(lane, positions, |event| event.time <= max),
        None => positions.len(),
    };
    let sort = query.sort.as_ref();
    if let Some(Cursor {
        tie: Tie::Place(at, after),
        ..
    }) = &query.page.after
        && sort.is_none()
        && *at == lane
    {
        from = from.max(positions.partition_point(|position| position <= after));
    }
    let mut gathered = Gathered::new(&query.page, sort);
    for position in positions.get(from..to).unwrap_or_default() {
        let Some(event) = log.at(lane, *position).map(lean) else {
            continue;
        };
        let event = &event;
        if !query.filter.matches_event(event).map_err(&corrupt)? {
            continue;
        }
        let key = match sort {
            Some(sort) => Some(SortKey::of_event(&sort.path, event).map_err(&corrupt)?),
            None => None,
        };
        let tie = Tie::Place(event.lane, event.position);
        let offered = gathered.offer(Cursor { key, tie }, event.size(), lean(event));
        if offered.is_break() {
            break;
        }
    }
    gathered.page(&query.page, sort, OPERATION)
}

/// Takes what matches in the order in which it is stored, and makes the page of it.
enum Gathered<T> {
    /// It is the order that was asked for, so a full page is the end.
    InOrder(Scan<T>),
    /// It is not, so everything is sorted at the end.
    ToSort(Vec<(Cursor, usize, T)>),
}

impl<T> Gathered<T> {
    fn new(request: &PageRequest, sort: Option<&Sort>) -> Self {
        match sort {
            None => Self::InOrder(Scan::new(request, Direction::of(None))),
            Some(_) => Self::ToSort(Vec::new()),
        }
    }

    fn offer(&mut self, cursor: Cursor, size: usize, item: T) -> ControlFlow<()> {
        match self {
            Self::InOrder(scan) => scan.offer(cursor, size, item),
            Self::ToSort(found) => {
                found.push((cursor, size, item));
                ControlFlow::Continue(())
            }
        }
    }

    fn page(
        self,
        request: &PageRequest,
        sort: Option<&Sort>,
        operation: &'static str,
    ) -> Result<Page<T>> {
        let mut found = match self {
            Self::InOrder(scan) => return Ok(scan.finish()),
            Self::ToSort(found) => found,
        };
        request
            .check_sort_window()
            .map_err(|invalid| Error::new(ErrorKind::Invalid(invalid), operation))?;
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
}

#[cfg(test)]
mod tests {
    use stategate_model::{Filter, KindRef, Method, Path, Values};

    use super::*;

    const MINE: usize = 20;
    const OTHERS: usize = 2_000;

    /// Appends a first version of an entity.
    async fn write(storage: &Memory, domain: &str, kind: &str, key: &str, version: u64) {
        let lane = storage.info.lanes.of(domain);
        let head = storage.heads().await.unwrap().get(lane);
        let position = head.next();
        let time = Timestamp(position.as_i64() * 10);
        let event = Event {
            id: EventId::fresh(time),
            entity: EntityRef::new(domain, kind, key).unwrap(),
            values: Values::from_canonical(r#"{"a":1}"#),
            version: Version::new(version),
            lane,
            position,
            time,
            method: Method::Set,
            claims: Claims::none(),
            trace_parent: None,
        };
        let record = KeyRecord {
            key: IdempotencyKey::new(domain, "", "", &position.to_string()).unwrap(),
            digest: stategate_model::Digest([0; 32]),
            first: position,
            count: 1,
        };
        let batch = Arc::new(Batch {
            events: vec![event],
            keys: vec![record],
        });
        let appended = storage.append(lane, head, batch).await.unwrap();
        assert_eq!(appended, Appended::Done);
    }

    fn entities(sort: Option<Sort>) -> EntityQuery {
        EntityQuery {
            of: KindRef::new("mine", "t").unwrap(),
            filter: Filter::parse_entity(r#"{"a":1}"#).unwrap(),
            sort,
            page: PageRequest::new(0, 0, None).unwrap(),
        }
    }

    fn events(filter: &str) -> EventQuery {
        EventQuery {
            of: KindRef::new("mine", "t").unwrap(),
            filter: Filter::parse_event(filter).unwrap(),
            min: None,
            max: None,
            sort: None,
            page: PageRequest::new(0, 0, None).unwrap(),
        }
    }

    /// Puts every question there is, and answers how many events each had to look at.
    async fn work(storage: &Memory) -> Vec<(&'static str, usize)> {
        let looked_at = || storage.log.lock().as_ref().unwrap().looked_at.take();
        let mut work = Vec::new();
        let mut done = |what| work.push((what, looked_at()));
        let entity = EntityRef::new("mine", "t", "k3").unwrap();
        let key = IdempotencyKey::new("mine", "", "", "1").unwrap();
        let lane = storage.info.lanes.of("mine");
        looked_at();

        let state = storage.get(&entity).await.unwrap().value;
        assert_eq!(state.version, Version::new(2));
        done("get");
        let asked = std::slice::from_ref(&entity);
        let loaded = storage.load(lane, asked, &[key], usize::MAX).await.unwrap();
        assert!(loaded.replays[0].is_some());
        done("load");
        for at in [At::Version(Version::new(2)), At::Time(Timestamp(i64::MAX))] {
            let event = storage.get_at(&entity, at).await.unwrap().value.unwrap();
            assert_eq!(event.version, Version::new(2));
            done("get_at");
            let got = storage.get_event(&entity, event.id).await.unwrap().value;
            assert_eq!(got, Some(event));
            done("get_event");
        }
        let sort = Sort {
            path: Path::parse_entity("sort", "a").unwrap(),
            reverse: true,
        };
        for query in [entities(None), entities(Some(sort))] {
            let found = storage.search_entities(&query).await.unwrap().value;
            assert_eq!(found.items.len(), MINE);
            done("search_entities");
        }
        let mut page = entities(None);
        page.page.limit = 2;
        page.page.after = Some(Cursor {
            key: None,
            tie: Tie::Key("k3".to_owned()),
        });
        let found = storage.search_entities(&page).await.unwrap().value;
        assert_eq!(found.items.len(), 2);
        done("a page of entities");
        let found = storage.search_events(&events("{}")).await.unwrap().value;
        assert_eq!(found.items.len(), MINE * 2);
        done("search_events");
        let of_one = events(r#"{"entity.key":"k3"}"#);
        let found = storage.search_events(&of_one).await.unwrap().value;
        assert_eq!(found.items.len(), 2);
        done("events of one entity");
        let mut newest = events("{}");
        newest.min = Some(found.items[1].time);
        newest.max = newest.min;
        let found = storage.search_events(&newest).await.unwrap().value;
        assert_eq!(found.items.len(), 1);
        done("events of a time");
        let records = storage.read_keys(lane, Position::ZERO, 3).await.unwrap();
        let firsts: Vec<u64> = records.iter().map(|record| record.first.get()).collect();
        assert_eq!(firsts, [1, 2, 3]);
        done("read_keys");
        work
    }

    #[tokio::test]
    async fn a_search_leaves_no_tree_with_what_is_stored() {
        let storage = Memory::new(&MemoryConfig::default()).unwrap();
        write(&storage, "mine", "t", "k", 1).await;
        write(&storage, "mine", "t", "k", 2).await;
        let sort = |path| {
            Some(Sort {
                path,
                reverse: true,
            })
        };
        let mut query = entities(sort(Path::parse_entity("sort", "a").unwrap()));
        query.filter = Filter::parse_entity(r#"{"a":{"$gte":1}}"#).unwrap();
        let found = storage.search_entities(&query).await.unwrap().value;
        let mut query = events(r#"{"entity.values.a":1}"#);
        query.sort = sort(Path::parse_event("sort", "claims.sub").unwrap());
        let found_events = storage.search_events(&query).await.unwrap().value;
        assert_eq!((found.items.len(), found_events.items.len()), (1, 2));
        let log = storage.log.lock();
        for event in log.as_ref().unwrap().lane(storage.info.lanes.of("mine")) {
            assert!(!event.values.has_tree() && !event.claims.values().has_tree());
        }
        let answered = found.items.iter().map(|found| &found.values);
        let of_events = found_events.items.iter().map(|event| &event.values);
        assert!(answered.chain(of_events).all(|values| !values.has_tree()));
    }

    #[tokio::test]
    async fn a_question_looks_at_what_it_is_about_and_nothing_else() {
        let storage = Memory::new(&MemoryConfig::default()).unwrap();
        for version in 1..=2 {
            for n in 0..MINE {
                write(&storage, "mine", "t", &format!("k{n}"), version).await;
            }
        }
        let alone = work(&storage).await;
        for n in 0..OTHERS {
            // Before and after in the order of names, other domains and other types.
            let (domain, kind) = [("a", "t"), ("z", "t"), ("mine", "s"), ("mine", "u")][n % 4];
            write(&storage, domain, kind, &format!("k{n}"), 1).await;
        }
        let beside = work(&storage).await;
        println!("events looked at: {beside:?}");
        assert_eq!(beside, alone);
        for (what, looked_at) in beside {
            assert!(looked_at <= MINE * 2, "{what}: {looked_at}");
        }
    }
}
