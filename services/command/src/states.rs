//! The entity states in the cache of a lane, valid as of the head that the cache knows.

use std::collections::HashMap;

use lru::LruCache;
use stategate_model::{EntityRef, State, Values, Version};

/// States by entity. When they take too many bytes, those that were loaded or written longest ago are dropped first.
///
/// Nothing is dropped while a batch is being decided, which may need what was just read, but when it is over.
#[derive(Debug)]
pub(crate) struct States {
    known: LruCache<EntityRef, State>,
    bytes: usize,
    most: usize,
}

/// Bytes of an entry beside its names and values.
const ENTRY: usize = 200;

fn size(entity: &EntityRef, state: &State) -> usize {
    ENTRY + entity.size() + state.size()
}

impl States {
    /// Keeps at most `most` bytes between batches.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            known: LruCache::unbounded(),
            bytes: 0,
            most,
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.known.clear();
        self.bytes = 0;
    }

    /// What is known of an entity.
    pub(crate) fn get(&self, entity: &EntityRef) -> Option<&State> {
        self.known.peek(entity)
    }

    /// Takes in states as they were read.
    pub(crate) fn learn(&mut self, states: impl IntoIterator<Item = (EntityRef, State)>) {
        for (entity, state) in states {
            self.put(entity, state);
        }
    }

    /// Takes in the states a durable batch led to, and makes room. Answers how many entities were not
    /// known to be there before.
    pub(crate) fn replace(&mut self, changed: HashMap<EntityRef, State>) -> usize {
        let mut new = 0;
        for (entity, state) in changed {
            let values = state.values.as_ref().map(Values::lean);
            let before = self.put(entity, State { values, ..state });
            new += usize::from(before.is_none_or(|version| version == Version::ZERO));
        }
        self.make_room();
        new
    }

    /// Drops what is too much. Nothing that is about to be decided on may be left to it.
    pub(crate) fn make_room(&mut self) {
        while self.bytes > self.most {
            let Some((entity, state)) = self.known.pop_lru() else {
                break;
            };
            self.bytes -= size(&entity, &state);
        }
    }

    /// Whether there is more than is kept between batches, by more than so many bytes.
    pub(crate) fn exceeds_by(&self, bytes: usize) -> bool {
        self.bytes > self.most.saturating_add(bytes)
    }

    /// Answers the version known before.
    fn put(&mut self, entity: EntityRef, state: State) -> Option<Version> {
        self.bytes += size(&entity, &state);
        let (entity, old) = self.known.push(entity, state)?;
        self.bytes -= size(&entity, &old);
        Some(old.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(key: &str) -> EntityRef {
        EntityRef::new("d", "t", key).unwrap()
    }

    fn state(version: u64) -> State {
        State {
            version: Version::new(version),
            values: Some(Values::empty()),
        }
    }

    #[test]
    fn room_is_bounded_between_batches_only() {
        let mut states = States::new(600);
        let entities: Vec<_> = (0..10).map(|i| entity(&format!("k{i}"))).collect();
        states.learn(entities.iter().map(|entity| (entity.clone(), state(1))));
        let unknown = |states: &States| {
            let known = |entity: &&EntityRef| states.get(entity).is_none();
            entities.iter().filter(known).count()
        };
        assert_eq!(unknown(&states), 0, "a batch keeps all it read");
        let new = states.replace(HashMap::from([(entity("k3"), state(2))]));
        assert_eq!(new, 0);
        assert_eq!(states.get(&entity("k3")), Some(&state(2)));
        assert_eq!(unknown(&states), 8);
        states.clear();
        assert_eq!(states.bytes, 0);
    }
}
