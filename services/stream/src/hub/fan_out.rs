//! From new events to the queues of the subscribers whose domain, type and filter they match.

use std::{slice, sync::Arc};

use stategate_model::{EntityRef, KindRef};

use super::{
    Hub, State, SubscriberId,
    queue::{Offered, Subscriber},
    tail::Entry,
};
use crate::selection::Looked;

/// Most bytes of events that are filtered together, one event at least: their parsed values take up to a
/// hundred times as much memory meanwhile.
pub(super) const LOOKED_BYTES: usize = 256 << 10;
/// Most (domain, type) pairs whose subscribers are remembered.
const KINDS: usize = 10_000;

/// Subscribers that match a domain and type.
pub(super) type Recipients = Arc<[(SubscriberId, Arc<Subscriber>)]>;

impl Hub {
    /// Hands consecutive events of one (domain, type) to those they concern.
    pub(super) fn fan_out(
        &self,
        state: &mut State,
        run: &[Arc<Entry>],
        woken: &mut Vec<Arc<Subscriber>>,
    ) {
        let Some(first) = run.first() else { return };
        let looked: Vec<_> = run.iter().map(|entry| Looked::at(&entry.event)).collect();
        let mut behind = Vec::new();
        let mut offer = |id: SubscriberId,
                         subscriber: &Arc<Subscriber>,
                         entries: &[Arc<Entry>],
                         looked: &[Looked<'_>]| {
            let delivered = match subscriber.offer(entries, looked) {
                Offered::Queued(0) => return,
                Offered::Queued(delivered) => delivered,
                Offered::TooMuch(delivered) => {
                    behind.push(id);
                    delivered
                }
            };
            self.meters.delivered.increment(delivered);
            woken.push(Arc::clone(subscriber));
        };
        if !state.exact.is_empty() {
            for (entry, looked) in run.iter().zip(&looked) {
                for id in state.exact.get(&entry.event.entity).into_iter().flatten() {
                    if let Some(subscriber) = state.attached.get(id) {
                        let (entry, looked) = (slice::from_ref(entry), slice::from_ref(looked));
                        offer(*id, subscriber, entry, looked);
                    }
                }
            }
        }
        if !state.globs.is_empty() {
            for (id, subscriber) in globs_of(state, &first.event.entity).iter() {
                offer(*id, subscriber, run, &looked);
            }
        }
        for id in behind {
            self.meters.detached.increment(1);
            self.remove(state, id);
        }
    }
}

/// The subscribers with patterns that match a domain and type.
fn globs_of(state: &mut State, entity: &EntityRef) -> Recipients {
    // The names of an entity are valid by construction; nobody could subscribe to others.
    let Ok(kind) = KindRef::new(entity.domain(), entity.kind()) else {
        return Arc::from([]);
    };
    if let Some(recipients) = state.kinds.get(&kind) {
        return Arc::clone(recipients);
    }
    let concerned = state.globs.iter().filter_map(|id| {
        let subscriber = state.attached.get(id)?;
        subscriber
            .selection
            .matches_kind(entity.domain(), entity.kind())
            .then(|| (*id, Arc::clone(subscriber)))
    });
    let recipients: Recipients = concerned.collect();
    if state.kinds.len() >= KINDS {
        state.kinds.clear();
    }
    state.kinds.insert(kind, Arc::clone(&recipients));
    recipients
}
