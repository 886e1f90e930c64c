//! What a lane writer knows of its lane: the head, and states and used keys as of that head.
//!
//! A question to the storage may still be on its way when an append of the writer's own moves the
//! head. Its answer holds all the same if it was read at a head that the writer has been at since it
//! asked, for it is the writer itself that moved the head from there, and knows what it changed.
//!
//! Where all of late was new that was not known, what a write makes is presumed to be new as well, and
//! nothing is asked: the append is refused if that is wrong, and then the storage is asked after all.
//! A refusal is never given on a presumption.

use std::collections::{HashMap, HashSet};

use stategate_model::{EntityRef, IdempotencyKey, State, Version};
use stategate_storage::{Batch, Head, Loaded, Replay};

use super::{Item, States};
use crate::plan;

/// Appends after which a question that is still on its way is given up.
const STALE: usize = 16;
/// Answers about keys that are kept for writes that wait.
const REPLAYS: usize = 4_096;
/// Bytes of the events they hold.
const REPLAY_BYTES: usize = 16 << 20;
/// For each entity, or key, that is presumed to be new, so many before it must have been. A wrong
/// presumption costs two round trips and a right one saves one.
const SURE: usize = 8;

/// The head of a lane, and what is known as of it.
#[derive(Debug)]
pub(crate) struct Known {
    head: Option<Head>,
    states: States,
    replays: HashMap<IdempotencyKey, Option<Replay>>,
    /// The storage has said that the head is where it is after all items before this one came in.
    confirmed: u64,
    /// Another process may have moved the head: it is looked at before it is relied on again.
    in_doubt: bool,
    /// How many entities were made since one to be made was found to be there already.
    made: usize,
    /// How many keys were used since one was found to have been used before.
    used: usize,
}

/// What has to be read to decide some items.
#[derive(Debug)]
pub(crate) struct Question {
    /// States that are not known.
    pub(crate) entities: Vec<EntityRef>,
    /// For each of them, whether it is to be made.
    makes: Vec<bool>,
    /// Keys of which it is not known whether they were used.
    pub(crate) keys: Vec<IdempotencyKey>,
    /// Where the head has been since the question was asked; nothing if it was not known then.
    heads: Vec<Head>,
    /// What has changed since.
    changed: HashSet<EntityRef>,
    recorded: HashSet<IdempotencyKey>,
    /// All items before this one had come in.
    before: u64,
}

/// An answer that was read at a head the writer has not been at.
#[derive(Debug)]
pub(crate) struct Elsewhere(pub(crate) Question, pub(crate) Loaded);

impl Known {
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

    /// How many presumptions it takes to decide items without asking; `None` if it takes asking.
    pub(crate) fn presumptions<'a>(&self, items: impl Iterator<Item = &'a Item>) -> Option<usize> {
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
    pub(crate) fn question<'a>(
        &self,
        items: impl Iterator<Item = &'a Item> + Clone,
        before: u64,
    ) -> Option<Question> {
        let mut seen = HashSet::new();
        let (mut entities, mut makes) = (Vec::new(), Vec::new());
        for operation in items.clone().flat_map(|item| &item.write.operations) {
            let entity = &operation.entity;
            if self.states.get(entity).is_none() && seen.insert(entity) {
                entities.push(entity.clone());
                makes.push(operation.makes());
            }
        }
        let mut keys = plan::keys(items);
        keys.retain(|key| !self.replays.contains_key(key));
        if self.is_sure_of_the_head() && entities.is_empty() && keys.is_empty() {
            return None;
        }
        Some(Question {
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
        question: Question,
        loaded: Loaded,
    ) -> Result<(), Box<Elsewhere>> {
        let at_home = match self.head {
            None => question.heads.is_empty(),
            Some(_) => question.heads.contains(&loaded.head),
        };
        if !at_home {
            return Err(Box::new(Elsewhere(question, loaded)));
        }
        if self.head.is_none() {
            self.head = Some(loaded.head);
        }
        self.in_doubt = false;
        let mut made = loaded.states.iter().zip(&question.makes);
        if made.any(|(state, makes)| *makes && state.version != Version::ZERO) {
            self.made = 0;
        }
        if loaded.replays.iter().any(Option::is_some) {
            self.used = 0;
        }
        let states = question.entities.into_iter().zip(loaded.states);
        self.states
            .learn(states.filter(|(entity, _)| !question.changed.contains(entity)));
        let replays = question.keys.into_iter().zip(loaded.replays);
        self.replays
            .extend(replays.filter(|(key, _)| !question.recorded.contains(key)));
        self.confirmed = self.confirmed.max(question.before);
        Ok(())
    }

    /// Moves on to where a durable batch of the writer's own led, and what is asked with it. False
    /// if the question is too old to be worth its answer.
    pub(crate) fn advance(
        &mut self,
        batch: &Batch,
        changed: HashMap<EntityRef, State>,
        asked: Option<&mut Question>,
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
        if let Some(question) = asked {
            question.heads.push(head);
            question.changed.extend(changed.keys().cloned());
            let recorded = batch.keys.iter().map(|record| record.key.clone());
            question.recorded.extend(recorded);
            is_worth_it = question.heads.len() < STALE;
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
    fn at_five() -> Known {
        let mut known = Known::new(1 << 20);
        let question = known.question([].iter(), 0).unwrap();
        known.learn(question, loaded(head(5), 0, 0)).unwrap();
        known
    }

    #[test]
    fn what_an_own_append_changed_is_not_taken_from_an_answer_before_it() {
        let items = [item(0, "a", Some("k")), item(1, "b", Some("l"))];
        let mut known = at_five();
        let mut question = known.question(items.iter(), 2).unwrap();
        let (batch, changed, at_six) = batch(6, "a", "k");
        assert!(known.advance(&batch, changed, Some(&mut question)));
        // Read before the append, heard after it.
        known.learn(question, loaded(head(5), 2, 2)).unwrap();
        assert_eq!(known.head(), Some(at_six));
        assert_eq!(known.states().get(&entity("a")), Some(&state(2)));
        assert_eq!(known.states().get(&entity("b")), Some(&state(1)));
        assert!(
            !known.replays().contains_key(&key("k")),
            "it was used since"
        );
        assert!(known.replays().contains_key(&key("l")));
        assert!(!known.covers(&items[0]) && known.covers(&items[1]));
        assert!(known.is_confirmed_since(&items[1]));
        assert!(!known.is_confirmed_since(&item(2, "b", None)));
    }

    #[test]
    fn what_was_read_ahead_of_an_own_append_is_changed_by_it() {
        let items = [item(0, "a", Some("k"))];
        let mut known = at_five();
        let question = known.question(items.iter(), 1).unwrap();
        known.learn(question, loaded(head(5), 1, 1)).unwrap();
        assert!(known.covers(&items[0]));
        let (batch, changed, _) = batch(6, "a", "k");
        known.advance(&batch, changed, None);
        assert_eq!(known.states().get(&entity("a")), Some(&state(2)));
        assert!(!known.covers(&items[0]), "the key has been used");
    }

    #[test]
    fn an_answer_of_another_head_is_kept_out_until_the_append_leads_there() {
        let items = [item(0, "b", None)];
        let mut known = at_five();
        let mut question = known.question(items.iter(), 1).unwrap();
        let (batch, changed, at_six) = batch(6, "a", "k");
        // The append has landed, and its answer is still on the way.
        let elsewhere = known
            .learn(question, loaded(at_six, 1, 0))
            .expect_err("the writer has not been there");
        assert!(!known.covers(&items[0]));
        let loaded_there = elsewhere.1;
        question = elsewhere.0;
        known.advance(&batch, changed, Some(&mut question));
        known.learn(question, loaded_there).unwrap();
        assert!(known.covers(&items[0]));
        // Nobody who leads elsewhere is believed.
        let more = [item(1, "c", None)];
        let question = known.question(more.iter(), 2).unwrap();
        assert!(known.learn(question, loaded(head(7), 1, 0)).is_err());
    }

    #[test]
    fn after_forgetting_everything_is_asked() {
        let items = [item(0, "a", Some("k"))];
        let mut known = at_five();
        let question = known.question(items.iter(), 1).unwrap();
        known.learn(question, loaded(head(5), 1, 1)).unwrap();
        assert!(known.question(items.iter(), 1).is_none());
        known.forget();
        assert!(!known.covers(&items[0]));
        let question = known.question(items.iter(), 1).unwrap();
        assert_eq!((question.entities.len(), question.keys.len()), (1, 1));
        // It is not bound to where the head was.
        known.learn(question, loaded(head(9), 1, 1)).unwrap();
        assert_eq!(known.head(), Some(head(9)));
    }
}
