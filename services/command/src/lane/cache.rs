//! A lane's cache: the head, and states and used idempotency keys as of that head.
//!
//! A load may still be on its way when an append of the writer's own moves the head. Its answer holds all the
//! same if it was read at a head that the writer has been at since it asked: the writer itself moved the head
//! from there, and knows what it changed.
//!
//! If, of late, everything that was not in the cache turned out not to exist, the writer assumes the same of
//! what a write would create, and loads nothing. If the assumption is wrong the append fails, and the batch is
//! decided again on what is loaded then. A caller is never refused because of an assumption.

use std::collections::{HashMap, HashSet};

use stategate_model::{EntityRef, IdempotencyKey, State, Version, limits};
use stategate_storage::{Batch, Head, Loaded, Replay};

use super::Item;
use crate::states::States;

/// Appends after which a load that is still on its way is given up.
const STALE: usize = 16;
/// Answers about keys that are kept for writes that wait.
const REPLAYS: usize = 4_096;
/// Bytes of the events they hold.
const REPLAY_BYTES: usize = 16 << 20;
/// For each entity, or key, that is assumed to be absent, so many before it must have been absent. A wrong
/// assumption costs two round trips and a right one saves one.
const SURE: usize = 8;

/// The head of a lane, and what was read, or written, as of it.
#[derive(Debug)]
pub(crate) struct LaneCache {
    head: Option<Head>,
    states: States,
    replays: HashMap<IdempotencyKey, Option<Replay>>,
    /// All items with a number below this had come in before a load was sent whose answer confirmed the head. So a
    /// refusal of one of them is not based on old states.
    confirmed: u64,
    /// Another process may have moved the head: it is looked at before it is relied on again.
    in_doubt: bool,
    /// How many entities were made since one to be made was found to be there already.
    made: usize,
    /// How many keys were used since one was found to have been used before.
    used: usize,
}

/// What has to be loaded to decide some items.
#[derive(Debug)]
pub(crate) struct LoadRequest {
    /// States that are not known.
    pub(crate) entities: Vec<EntityRef>,
    /// For each of them, whether it is to be made.
    makes: Vec<bool>,
    /// Keys of which it is not known whether they were used.
    pub(crate) keys: Vec<IdempotencyKey>,
    /// Where the head has been since it was asked for; nothing if it was not known then.
    heads: Vec<Head>,
    /// What has changed since.
    changed: HashSet<EntityRef>,
    recorded: HashSet<IdempotencyKey>,
    /// All items before this one had come in.
    before: u64,
}

/// An answer that was read at a head the writer has not been at.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) request: LoadRequest,
    pub(crate) loaded: Loaded,
}

impl LaneCache {
    /// Nothing yet; at most `bytes` of states are kept.
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            head: None,
            states: States::new(bytes),
            replays: HashMap::new(),
            confirmed: 0,
            in_doubt: false,
            made: 0,
            used: 0,
        }
    }

    /// The head, if it is known.
    pub(crate) fn head(&self) -> Option<Head> {
        self.head
    }

    /// The states as of the head.
    pub(crate) fn states(&self) -> &States {
        &self.states
    }

    /// Drops states that are too much, once a batch is over that led to none.
    pub(crate) fn make_room(&mut self) {
        self.states.make_room();
    }

    /// Whether states are held that are too much already, by more than one load.
    pub(crate) fn is_overfull(&self) -> bool {
        self.states.exceeds_by(limits::BATCH_BYTES)
    }

    /// Whether an earlier copy of the item was seen in the log.
    pub(crate) fn is_copy(&self, item: &Item) -> bool {
        let key = item.write.idempotency.as_ref().map(|(key, _)| key);
        let replay = key.and_then(|key| self.replays.get(key));
        replay.is_some_and(Option::is_some)
    }

    /// What became of requests under keys, as of the head.
    pub(crate) fn replays(&self) -> &HashMap<IdempotencyKey, Option<Replay>> {
        &self.replays
    }

    /// Whether everything is known that the item is decided on.
    pub(crate) fn covers(&self, item: &Item) -> bool {
        self.covers_states(item) && !self.is_key_unknown(item)
    }

    /// Whether every state is known that the item is decided on.
    pub(crate) fn covers_states(&self, item: &Item) -> bool {
        let mut operations = item.write.operations.iter();
        self.is_sure_of_the_head()
            && operations.all(|operation| self.states.get(&operation.entity).is_some())
    }

    /// How many entities and keys have to be assumed to be absent to decide items without a load; `None` if it
    /// takes a load.
    pub(crate) fn assumed_absent<'a>(
        &self,
        items: impl Iterator<Item = &'a Item>,
    ) -> Option<usize> {
        if !self.is_sure_of_the_head() {
            return None;
        }
        let (mut entities, mut keys) = (0, 0);
        for item in items {
            for operation in &item.write.operations {
                if self.states.get(&operation.entity).is_none() {
                    if !operation.makes() {
                        return None;
                    }
                    entities += 1;
                }
            }
            keys += usize::from(self.is_key_unknown(item));
            if entities * SURE > self.made || keys * SURE > self.used {
                return None;
            }
        }
        Some(entities + keys)
    }

    fn is_key_unknown(&self, item: &Item) -> bool {
        let key = item.write.idempotency.as_ref().map(|(key, _)| key);
        key.is_some_and(|key| !self.replays.contains_key(key))
    }

    /// Whether the head is known, and may be relied on.
    pub(crate) fn is_sure_of_the_head(&self) -> bool {
        self.head.is_some() && !self.in_doubt
    }

    /// Has the head looked at before it is relied on again.
    pub(crate) fn doubt_the_head(&mut self) {
        self.in_doubt = true;
    }

    /// Whether the head is known to have been where it is after the item came in.
    pub(crate) fn is_confirmed_since(&self, item: &Item) -> bool {
        item.number < self.confirmed
    }

    /// What is not known and items are decided on, in their order. `before` is the number the next item
    /// will have.
    pub(crate) fn request<'a>(
        &self,
        items: impl Iterator<Item = &'a Item> + Clone,
        before: u64,
    ) -> Option<LoadRequest> {
        let mut seen = HashSet::new();
        let (mut entities, mut makes) = (Vec::new(), Vec::new());
        for operation in items.clone().flat_map(|item| &item.write.operations) {
            let entity = &operation.entity;
            if self.states.get(entity).is_none() && seen.insert(entity) {
                entities.push(entity.clone());
                makes.push(operation.makes());
            }
        }
        let mut seen = HashSet::new();
        let keys = items.filter_map(|item| item.write.idempotency.as_ref().map(|(key, _)| key));
        let unknown = keys.filter(|key| !self.replays.contains_key(*key) && seen.insert(*key));
        let keys: Vec<_> = unknown.cloned().collect();
        if self.is_sure_of_the_head() && entities.is_empty() && keys.is_empty() {
            return None;
        }
        Some(LoadRequest {
            entities,
            makes,
            keys,
            heads: self.head.into_iter().collect(),
            changed: HashSet::new(),
            recorded: HashSet::new(),
            before,
        })
    }

    /// Takes in an answer, which may be to the first of what was asked alone, unless it was read at another
    /// head.
    pub(crate) fn learn(
        &mut self,
        request: LoadRequest,
        loaded: Loaded,
    ) -> Result<(), Box<Answered>> {
        let is_of_ours = match self.head {
            None => request.heads.is_empty(),
            Some(_) => request.heads.contains(&loaded.head),
        };
        if !is_of_ours {
            return Err(Box::new(Answered { request, loaded }));
        }
        if self.head.is_none() {
            self.head = Some(loaded.head);
        }
        self.in_doubt = false;
        let mut made = loaded.states.iter().zip(&request.makes);
        if made.any(|(state, makes)| *makes && state.version != Version::ZERO) {
            self.made = 0;
        }
        if loaded.replays.iter().any(Option::is_some) {
            self.used = 0;
        }
        let states = request.entities.into_iter().zip(loaded.states);
        self.states
            .learn(states.filter(|(entity, _)| !request.changed.contains(entity)));
        let replays = request.keys.into_iter().zip(loaded.replays);
        self.replays
            .extend(replays.filter(|(key, _)| !request.recorded.contains(key)));
        self.confirmed = self.confirmed.max(request.before);
        Ok(())
    }

    /// Moves on to where a durable batch of the writer's own led, and a load that is on its way with it. False
    /// if the load is too old to be worth its answer.
    pub(crate) fn advance(
        &mut self,
        batch: &Batch,
        changed: HashMap<EntityRef, State>,
        loading: Option<&mut LoadRequest>,
    ) -> bool {
        let Some(last) = batch.events.last() else {
            return true;
        };
        let head = Head {
            position: last.position,
            time: last.time,
            id: Some(last.id),
        };
        let mut is_worth_it = true;
        if let Some(request) = loading {
            request.heads.push(head);
            request.changed.extend(changed.keys().cloned());
            let recorded = batch.keys.iter().map(|record| record.key.clone());
            request.recorded.extend(recorded);
            is_worth_it = request.heads.len() < STALE;
        }
        self.head = Some(head);
        self.made = self.made.saturating_add(self.states.replace(changed));
        self.used = self.used.saturating_add(batch.keys.len());
        if self.replays.len() > REPLAYS || self.replay_bytes() > REPLAY_BYTES {
            // Of writes whose callers went away, most likely; what is still needed is read again.
            self.replays.clear();
        }
        for record in &batch.keys {
            self.replays.remove(&record.key);
        }
        is_worth_it
    }

    fn replay_bytes(&self) -> usize {
        let replays = self.replays.values().flatten();
        replays.map(Replay::size).sum()
    }

    /// Drops the answers about the keys of items that are decided.
    pub(crate) fn decided(&mut self, items: &[Item]) {
        for (key, _) in items
            .iter()
            .filter_map(|item| item.write.idempotency.as_ref())
        {
            self.replays.remove(key);
        }
    }

    /// Forgets everything.
    pub(crate) fn forget(&mut self) {
        self.head = None;
        self.in_doubt = false;
        self.states.clear();
        self.replays.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stategate_model::{
        Claims, Command, Digest, Event, EventId, Expect, Lane, Method, Position, Timestamp, Values,
    };
    use stategate_storage::KeyRecord;
    use tokio::{
        sync::{Semaphore, oneshot},
        time::Instant,
    };

    use super::{
        super::{Answer, Write},
        *,
    };
    use crate::Operation;

    fn entity(key: &str) -> EntityRef {
        EntityRef::new("d", "t", key).unwrap()
    }

    fn key(key: &str) -> IdempotencyKey {
        IdempotencyKey::new("d", "", "", key).unwrap()
    }

    fn item(number: u64, of: &str, under: Option<&str>) -> Item {
        let room = Arc::new(Semaphore::new(1));
        Item {
            write: Write {
                operations: vec![Operation {
                    entity: entity(of),
                    expect: Expect::Anything,
                    command: Command::Set(Values::empty()),
                }],
                idempotency: under.map(|under| (key(under), Digest([1; 32]))),
                claims: Claims::none(),
                trace_parent: None,
            },
            ids: vec![EventId::fresh(Timestamp(0))],
            number,
            answer: Answer::to(oneshot::channel().0),
            since: Instant::now(),
            _room: room.try_acquire_owned().unwrap(),
        }
    }

    fn state(version: u64) -> State {
        State {
            version: Version::new(version),
            values: Some(Values::empty()),
        }
    }

    fn head(position: u64) -> Head {
        Head {
            position: Position::new(position),
            time: Timestamp(1),
            id: None,
        }
    }

    fn loaded(head: Head, states: usize, replays: usize) -> Loaded {
        Loaded {
            head,
            states: vec![state(1); states],
            replays: vec![None; replays],
        }
    }

    /// A batch that changes an entity under a key, and where it leads.
    fn batch(position: u64, of: &str, under: &str) -> (Batch, HashMap<EntityRef, State>, Head) {
        let event = Event {
            id: EventId::fresh(Timestamp(0)),
            entity: entity(of),
            values: Values::empty(),
            version: Version::new(2),
            lane: Lane(0),
            position: Position::new(position),
            time: Timestamp(2),
            method: Method::Set,
            claims: Claims::none(),
            trace_parent: None,
        };
        let head = Head {
            position: event.position,
            time: event.time,
            id: Some(event.id),
        };
        let record = KeyRecord {
            key: key(under),
            digest: Digest([1; 32]),
            first: event.position,
            count: 1,
        };
        let batch = Batch {
            events: vec![event],
            keys: vec![record],
        };
        (batch, HashMap::from([(entity(of), state(2))]), head)
    }

    /// What is known at head 5: nothing else.
    fn at_five() -> LaneCache {
        let mut cache = LaneCache::new(1 << 20);
        let request = cache.request([].iter(), 0).unwrap();
        cache.learn(request, loaded(head(5), 0, 0)).unwrap();
        cache
    }

    #[test]
    fn what_an_own_append_changed_is_not_taken_from_an_answer_before_it() {
        let items = [item(0, "a", Some("k")), item(1, "b", Some("l"))];
        let mut cache = at_five();
        let mut request = cache.request(items.iter(), 2).unwrap();
        let (batch, changed, at_six) = batch(6, "a", "k");
        assert!(cache.advance(&batch, changed, Some(&mut request)));
        // Read before the append, heard after it.
        cache.learn(request, loaded(head(5), 2, 2)).unwrap();
        assert_eq!(cache.head(), Some(at_six));
        assert_eq!(cache.states().get(&entity("a")), Some(&state(2)));
        assert_eq!(cache.states().get(&entity("b")), Some(&state(1)));
        assert!(
            !cache.replays().contains_key(&key("k")),
            "it was used since"
        );
        assert!(cache.replays().contains_key(&key("l")));
        assert!(!cache.covers(&items[0]) && cache.covers(&items[1]));
        assert!(cache.is_confirmed_since(&items[1]));
        assert!(!cache.is_confirmed_since(&item(2, "b", None)));
    }

    #[test]
    fn what_was_read_ahead_of_an_own_append_is_changed_by_it() {
        let items = [item(0, "a", Some("k"))];
        let mut cache = at_five();
        let request = cache.request(items.iter(), 1).unwrap();
        cache.learn(request, loaded(head(5), 1, 1)).unwrap();
        assert!(cache.covers(&items[0]));
        let (batch, changed, _) = batch(6, "a", "k");
        cache.advance(&batch, changed, None);
        assert_eq!(cache.states().get(&entity("a")), Some(&state(2)));
        assert!(!cache.covers(&items[0]), "the key has been used");
    }

    #[test]
    fn an_answer_at_another_head_is_kept_out_until_the_append_leads_there() {
        let items = [item(0, "b", None)];
        let mut cache = at_five();
        let mut request = cache.request(items.iter(), 1).unwrap();
        let (batch, changed, at_six) = batch(6, "a", "k");
        // The append has landed, and its answer is still on the way.
        let answered = *cache
            .learn(request, loaded(at_six, 1, 0))
            .expect_err("the writer has not been there");
        assert!(!cache.covers(&items[0]));
        let loaded_there = answered.loaded;
        request = answered.request;
        cache.advance(&batch, changed, Some(&mut request));
        cache.learn(request, loaded_there).unwrap();
        assert!(cache.covers(&items[0]));
        // Nobody who leads elsewhere is believed.
        let more = [item(1, "c", None)];
        let request = cache.request(more.iter(), 2).unwrap();
        assert!(cache.learn(request, loaded(head(7), 1, 0)).is_err());
    }

    #[test]
    fn after_forgetting_everything_is_asked() {
        let items = [item(0, "a", Some("k"))];
        let mut cache = at_five();
        let request = cache.request(items.iter(), 1).unwrap();
        cache.learn(request, loaded(head(5), 1, 1)).unwrap();
        assert!(cache.request(items.iter(), 1).is_none());
        cache.forget();
        assert!(!cache.covers(&items[0]));
        let request = cache.request(items.iter(), 1).unwrap();
        assert_eq!((request.entities.len(), request.keys.len()), (1, 1));
        // It is not bound to where the head was.
        cache.learn(request, loaded(head(9), 1, 1)).unwrap();
        assert_eq!(cache.head(), Some(head(9)));
    }
}
