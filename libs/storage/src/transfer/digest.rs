//! What two logs are compared by: SHA-256 over everything an event and a key are.

use sha2::{Digest as _, Sha256};
use stategate_model::{Event, Lane, Lanes};

use super::deal::Group;

/// A digest for each lane, so that lanes may be read in any order.
pub(super) struct LogDigest {
    lanes: Vec<Sha256>,
    keys: u64,
}

impl LogDigest {
    pub(super) fn new(lanes: Lanes) -> Self {
        Self {
            lanes: lanes.iter().map(|_| Sha256::new()).collect(),
            keys: 0,
        }
    }

    /// How many keys were taken in.
    pub(super) fn keys(&self) -> u64 {
        self.keys
    }

    /// Takes in the next group of its lane.
    pub(super) fn take(&mut self, group: &Group) {
        let Some(lane) = group.events.first().map(|event| event.lane) else {
            return;
        };
        let Some(hash) = self.lanes.get_mut(lane.index()) else {
            return;
        };
        for event in &group.events {
            take_event(hash, event);
        }
        if let Some(record) = &group.key {
            self.keys += 1;
            part(hash, record.key.domain.as_bytes());
            part(hash, record.key.caller.as_bytes());
            part(hash, record.key.key.as_bytes());
            part(hash, &record.digest.0);
            part(hash, &record.first.get().to_be_bytes());
            part(hash, &record.count.to_be_bytes());
        }
    }

    /// The first lane in which another digest differs.
    pub(super) fn difference(&self, other: &Self) -> Option<Lane> {
        let pairs = self.lanes.iter().zip(&other.lanes);
        let equal = pairs.map(|(one, other)| one.clone().finalize() == other.clone().finalize());
        (0..)
            .map(Lane)
            .zip(equal)
            .find(|(_, equal)| !equal)
            .map(|(lane, _)| lane)
    }

    /// One digest for all lanes.
    pub(super) fn finish(self) -> [u8; 32] {
        let mut all = Sha256::new();
        for lane in self.lanes {
            all.update(lane.finalize());
        }
        all.finalize().into()
    }
}

/// The length goes before the bytes, so that no two parts run into one another.
fn part(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

fn take_event(hash: &mut Sha256, event: &Event) {
    part(hash, event.id.0.as_bytes());
    part(hash, event.entity.domain().as_bytes());
    part(hash, event.entity.kind().as_bytes());
    part(hash, event.entity.key().as_bytes());
    part(hash, &event.version.get().to_be_bytes());
    part(hash, &[event.lane.0]);
    part(hash, &event.position.get().to_be_bytes());
    part(hash, &event.time.0.to_be_bytes());
    part(hash, event.method.as_str().as_bytes());
    part(hash, event.values.json().as_bytes());
    part(hash, event.claims.values().json().as_bytes());
    let trace = event.trace_parent.as_ref();
    part(hash, trace.map_or("", |trace| trace.as_str()).as_bytes());
}
