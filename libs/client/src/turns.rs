//! Turns: updates of one entity by one client go one after the other, since those that went at once
//! would only make each other fail and try again.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use stategate_model::EntityRef;

/// Entries after which those that nobody waits for are swept out.
const SWEEP: usize = 1_024;

/// Who is next, by entity.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<EntityRef, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// The queue of an entity: first come, first served.
    pub(crate) fn of(&self, entity: &EntityRef) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.0.lock();
        if let Some(turn) = turns.get(entity).and_then(Weak::upgrade) {
            return turn;
        }
        if turns.len() >= SWEEP {
            turns.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        turns.insert(entity.clone(), Arc::downgrade(&turn));
        turn
    }
}
