//! What cases are written in: a store, and drafts of batches that know where the log stands.

use std::{collections::BTreeMap, sync::Arc};

use stategate_model::{
    Claims, Digest, EntityQuery, EntityRef, Event, EventId, EventQuery, Filter, IdempotencyKey,
    KindRef, Lane, Lanes, Limits, Method, PageRequest, Path, Position, Sort, State, Timestamp,
    TraceParent, Values, json,
};

use super::Factory;
use crate::{Appended, Batch, ErrorKind, Found, Head, KeyRecord, Page, ReadLimit, Storage};

/// Between the times of two events of a draft, so that there are times between them.
pub(super) const TICK: i64 = 10;
/// A read of the log that no case's events exceed.
pub(super) const ALL: ReadLimit = ReadLimit {
    events: usize::MAX,
    bytes: usize::MAX,
};

/// A fresh store and where it came from.
#[derive(Clone)]
pub(super) struct World {
    pub(super) store: Arc<dyn Storage>,
    pub(super) factory: Arc<dyn Factory>,
}

/// Values from JSON.
pub(super) fn values(text: &str) -> Values {
    Values::new(json::parse_object(text).unwrap(), &Limits::default()).unwrap()
}

/// A reference in the domain and type that most cases use.
pub(super) fn entity(key: &str) -> EntityRef {
    EntityRef::new("accounting", "user", key).unwrap()
}

/// An idempotency key of one caller.
pub(super) fn idempotency(domain: &str, key: &str) -> IdempotencyKey {
    IdempotencyKey::new(domain, "issuer", "subject", key).unwrap()
}

/// A digest that is different for each byte.
pub(super) fn digest(byte: u8) -> Digest {
    Digest([byte; 32])
}

impl World {
    pub(super) fn new(store: Arc<dyn Storage>, factory: Arc<dyn Factory>) -> Self {
        Self { store, factory }
    }

    /// The same world, seen through another handle on its store.
    pub(super) fn through(&self, store: Arc<dyn Storage>) -> Self {
        Self::new(store, Arc::clone(&self.factory))
    }

    pub(super) fn lanes(&self) -> Lanes {
        self.store.info().lanes
    }

    pub(super) fn lane_of(&self, entity: &EntityRef) -> Lane {
        self.lanes().of(entity.domain())
    }

    /// The lane of [`entity`].
    pub(super) fn lane(&self) -> Lane {
        self.lane_of(&entity("any"))
    }

    /// Some domain of a lane; another for each `n`.
    pub(super) fn domain_in(&self, lane: Lane, n: usize) -> String {
        (0..)
            .map(|i| format!("domain-{i}"))
            .filter(|domain| self.lanes().of(domain) == lane)
            .nth(n)
            .unwrap()
    }

    /// A draft of the next batch of a lane.
    pub(super) async fn draft(&self, lane: Lane) -> Draft {
        let loaded = self.store.load(lane, &[], &[], usize::MAX).await.unwrap();
        Draft::at(&self.store, lane, loaded.head)
    }

    /// A draft of the next batch of the lane of [`entity`].
    pub(super) async fn next(&self) -> Draft {
        self.draft(self.lane()).await
    }

    /// Sets one entity in a batch of its own.
    pub(super) async fn set(&self, entity: &EntityRef, json: &str) -> Event {
        let mut draft = self.draft(self.lane_of(entity)).await;
        draft.set(entity, json).await;
        draft.commit().await.remove(0)
    }

    /// Deletes one entity in a batch of its own.
    pub(super) async fn del(&self, entity: &EntityRef) -> Event {
        let mut draft = self.draft(self.lane_of(entity)).await;
        draft.del(entity).await;
        draft.commit().await.remove(0)
    }

    /// All of a lane's log.
    pub(super) async fn log(&self, lane: Lane) -> Vec<Event> {
        self.store
            .read_log(lane, Position::ZERO, ALL)
            .await
            .unwrap()
    }

    pub(super) async fn head(&self, lane: Lane) -> Position {
        self.store.heads().await.unwrap().get(lane)
    }

    pub(super) async fn state(&self, entity: &EntityRef) -> State {
        self.store.get(entity).await.unwrap().value
    }

    pub(super) async fn entities(&self, query: &EntityQuery) -> Page<Found> {
        self.store.search_entities(query).await.unwrap().value
    }

    pub(super) async fn events(&self, query: &EventQuery) -> Page<Event> {
        self.store.search_events(query).await.unwrap().value
    }

    /// The keys that a search finds, in order.
    pub(super) async fn keys(&self, query: &EntityQuery) -> Vec<String> {
        let page = self.entities(query).await;
        assert_eq!(page.next, None, "the page holds everything");
        page.items
            .iter()
            .map(|found| found.entity.key().to_owned())
            .collect()
    }
}

/// A search of all entities of the domain and type of [`entity`].
pub(super) fn entity_query(filter: &str) -> EntityQuery {
    EntityQuery {
        of: KindRef::new("accounting", "user").unwrap(),
        filter: Filter::parse_entity(filter).unwrap(),
        sort: None,
        page: page(10_000),
    }
}

/// A search of all events of the domain and type of [`entity`].
pub(super) fn event_query(filter: &str) -> EventQuery {
    EventQuery {
        of: KindRef::new("accounting", "user").unwrap(),
        filter: Filter::parse_event(filter).unwrap(),
        min: None,
        max: None,
        sort: None,
        page: page(10_000),
    }
}

/// A first page.
pub(super) fn page(limit: i32) -> PageRequest {
    PageRequest::new(limit, 0, None).unwrap()
}

/// A sort of entities.
pub(super) fn by_value(path: &str, reverse: bool) -> Option<Sort> {
    let path = Path::parse_entity("sort", path).unwrap();
    Some(Sort { path, reverse })
}

/// A sort of events.
pub(super) fn by_event(path: &str, reverse: bool) -> Option<Sort> {
    let path = Path::parse_event("sort", path).unwrap();
    Some(Sort { path, reverse })
}

/// A batch in the making: events get the positions, times and versions that follow what is stored.
pub(super) struct Draft {
    store: Arc<dyn Storage>,
    pub(super) lane: Lane,
    pub(super) head: Head,
    states: BTreeMap<EntityRef, State>,
    pub(super) batch: Batch,
}

impl Draft {
    pub(super) fn at(store: &Arc<dyn Storage>, lane: Lane, head: Head) -> Self {
        Self {
            store: Arc::clone(store),
            lane,
            head,
            states: BTreeMap::new(),
            batch: Batch {
                events: Vec::new(),
                keys: Vec::new(),
            },
        }
    }

    async fn state(&mut self, entity: &EntityRef) -> State {
        if let Some(state) = self.states.get(entity) {
            return state.clone();
        }
        let asked = std::slice::from_ref(entity);
        let mut loaded = self
            .store
            .load(self.lane, asked, &[], usize::MAX)
            .await
            .unwrap();
        loaded.states.remove(0)
    }

    /// Adds an event.
    pub(super) async fn event(&mut self, method: Method, entity: &EntityRef, values: Values) {
        let before = self.state(entity).await;
        let last = self.batch.events.last();
        let event = Event {
            id: EventId::fresh(self.head.time),
            entity: entity.clone(),
            values,
            version: before.version.next(),
            lane: self.lane,
            position: last
                .map_or(self.head.position, |event| event.position)
                .next(),
            time: Timestamp(last.map_or(self.head.time, |event| event.time).0 + TICK),
            method,
            claims: Claims::none(),
            trace_parent: None,
        };
        self.states.insert(
            entity.clone(),
            State {
                version: event.version,
                values: event.state().cloned(),
            },
        );
        self.batch.events.push(event);
    }

    pub(super) async fn set(&mut self, entity: &EntityRef, json: &str) {
        self.event(Method::Set, entity, values(json)).await;
    }

    pub(super) async fn del(&mut self, entity: &EntityRef) {
        let values = self.state(entity).await.values.expect("it exists");
        self.event(Method::Del, entity, values).await;
    }

    /// The event added last.
    pub(super) fn last(&mut self) -> &mut Event {
        self.batch.events.last_mut().unwrap()
    }

    /// Gives the last event claims and a trace.
    pub(super) fn signed(&mut self, claims: &str, trace: &str) {
        let last = self.last();
        last.claims = Claims::new(json::parse_object(claims).unwrap()).unwrap();
        last.trace_parent = TraceParent::parse(trace);
    }

    /// Makes the last `count` events those of one request with a key.
    pub(super) fn keyed(&mut self, key: IdempotencyKey, digest: Digest, count: usize) {
        let first = self.batch.events.len() - count;
        self.batch.keys.push(KeyRecord {
            key,
            digest,
            first: self.batch.events[first].position,
            count: u32::try_from(count).unwrap(),
        });
    }

    /// Appends, and says what became of it.
    pub(super) async fn append(&self) -> crate::Result<Appended> {
        let batch = Arc::new(self.batch.clone());
        self.store
            .append(self.lane, self.head.position, batch)
            .await
    }

    /// Appends; the events.
    pub(super) async fn commit(self) -> Vec<Event> {
        assert_eq!(self.append().await.unwrap(), Appended::Done);
        self.batch.events
    }

    /// Appends, which is refused for the content and changes nothing.
    pub(super) async fn refused(&self, why: &str) {
        let before = self.trace().await;
        match self.append().await {
            Err(error) => assert_eq!(*error.kind(), ErrorKind::Rejected, "{why}: {error}"),
            Ok(outcome) => panic!("{why}: {outcome:?} instead of a refusal"),
        }
        assert_eq!(self.trace().await, before, "{why}: something was written");
    }

    /// [`Draft::refused`], by itself and with a neighbour that nothing is wrong with: one event may be
    /// written in another way than several.
    pub(super) async fn refused_either_way(mut self, why: &str) {
        self.refused(why).await;
        let domain = self.batch.events[0].entity.domain();
        let neighbour = EntityRef::new(domain, "user", "neighbour").unwrap();
        self.set(&neighbour, "{}").await;
        self.refused(&format!("{why}, and a neighbour")).await;
    }

    /// What an append of this draft could change.
    async fn trace(&self) -> (Vec<Event>, crate::Loaded) {
        let mut entities: Vec<_> = self
            .batch
            .events
            .iter()
            .map(|event| event.entity.clone())
            .collect();
        entities.sort();
        entities.dedup();
        let mut keys: Vec<_> = self
            .batch
            .keys
            .iter()
            .map(|record| record.key.clone())
            .collect();
        keys.sort();
        keys.dedup();
        let log = self.store.read_log(self.lane, Position::ZERO, ALL).await;
        let loaded = self
            .store
            .load(self.lane, &entities, &keys, usize::MAX)
            .await;
        (log.unwrap(), loaded.unwrap())
    }
}
