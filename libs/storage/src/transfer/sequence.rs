//! What must hold of a log's events one after the other, whoever wrote them down: whether some are
//! missing, doubled, moved or altered.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::Hasher as _,
};

use sha2::{Digest as _, Sha256};
use stategate_model::{EntityRef, Event, Lane, Lanes, Method, Position, Timestamp, Version};

/// Which events of a log are there to be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All of them: positions have no hole, and a domain's events are in its lane.
    Whole(Lanes),
    /// All events of some entities: their versions have no hole.
    Entities,
    /// Any of them: what there is, is in order.
    Some,
}

/// The events of a log so far. Holds some 50 bytes of each entity.
#[derive(Debug)]
pub struct Sequence {
    scope: Scope,
    judges_writes: bool,
    lanes: HashMap<Lane, (Position, Timestamp)>,
    entities: HashMap<Name, Newest>,
}

/// What an entity is known by: half of its name's SHA-256, which no two names share.
type Name = [u8; 16];

/// The newest event of an entity.
#[derive(Debug, Clone, Copy)]
struct Newest {
    version: Version,
    is_deleted: bool,
    values: u64,
}

impl Sequence {
    /// Before the first event.
    pub fn new(scope: Scope) -> Self {
        Self {
            scope,
            judges_writes: false,
            lanes: HashMap::new(),
            entities: HashMap::new(),
        }
    }

    /// Also looks whether an event is one that a write could have made, after those before it: what was
    /// altered by hand is told so, as far as it can be.
    #[must_use]
    pub fn judging_writes(mut self) -> Self {
        self.judges_writes = true;
        self
    }

    /// How far a lane has come.
    pub fn position(&self, lane: Lane) -> Position {
        self.lanes
            .get(&lane)
            .map_or(Position::ZERO, |(position, _)| *position)
    }

    /// The next event, if it can be; else why it cannot, as the end of a sentence about it.
    pub fn take(&mut self, event: &Event) -> Result<(), String> {
        self.of_its_lane(event)?;
        self.of_its_entity(event)
    }

    fn of_its_lane(&mut self, event: &Event) -> Result<(), String> {
        let lane = event.lane;
        if let Scope::Whole(lanes) = self.scope {
            if !lanes.contains(lane) {
                return Err(format!(
                    "is in lane {lane}, and the log has {} lanes",
                    lanes.get()
                ));
            }
            let right = lanes.of(event.entity.domain());
            if right != lane {
                return Err(format!(
                    "is in lane {lane}, and events of its domain are in lane {right}"
                ));
            }
        }
        let (position, time) = self
            .lanes
            .get(&lane)
            .copied()
            .unwrap_or((Position::ZERO, Timestamp(i64::MIN)));
        if event.position <= position {
            return Err(format!(
                "does not continue its lane: position {} of lane {lane} stands after position {position}, so events are doubled or out of order",
                event.position
            ));
        }
        if matches!(self.scope, Scope::Whole(_)) && event.position != position.next() {
            return Err(format!(
                "does not continue its lane: an event before it is missing, for position {} of lane {lane} stands after position {position}",
                event.position
            ));
        }
        if event.time <= time {
            return Err(format!(
                "does not continue its lane: its time, {}, is not after that of position {position}",
                event.time.0
            ));
        }
        self.lanes.insert(lane, (event.position, event.time));
        Ok(())
    }

    fn of_its_entity(&mut self, event: &Event) -> Result<(), String> {
        let name = name(&event.entity);
        let before = self.entities.get(&name).copied();
        let version = before.map_or(Version::ZERO, |newest| newest.version);
        let stands = |what: &str| {
            Err(format!(
                "does not continue its entity: version {} stands after version {version}, so {what}",
                event.version
            ))
        };
        if event.version <= version {
            return stands("events are doubled, altered or out of order");
        }
        let values = digest(event.values.json());
        let is_next = event.version == version.next();
        if !is_next && self.scope != Scope::Some {
            return stands("an event before it is missing or altered");
        }
        if is_next && self.judges_writes {
            let is_absent = before.is_none_or(|newest| newest.is_deleted);
            if is_absent && matches!(event.method, Method::Edit | Method::Del)
                || before.is_none() && event.method == Method::Revert
            {
                return Err(format!(
                    "cannot be: its method is {}, and its entity is absent before it",
                    event.method.as_str()
                ));
            }
            // Its values are those that were deleted.
            let is_other = before.is_some_and(|newest| newest.values != values);
            if event.method == Method::Del && is_other {
                return Err(
                    "cannot be: a Del holds the values before it, and these are others".to_owned(),
                );
            }
        }
        let newest = Newest {
            version: event.version,
            is_deleted: event.method == Method::Del,
            values,
        };
        self.entities.insert(name, newest);
        Ok(())
    }
}

fn name(entity: &EntityRef) -> Name {
    let mut hash = Sha256::new();
    // No part of a name holds white space.
    for part in [entity.domain(), entity.kind(), entity.key()] {
        hash.update(part.as_bytes());
        hash.update(b" ");
    }
    let mut name = Name::default();
    name.copy_from_slice(&hash.finalize()[..16]);
    name
}

fn digest(json: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(json.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use stategate_model::{Claims, EventId, Limits, Values, json};

    use super::*;

    fn event(position: u64, key: &str, version: u64, method: Method, values: &str) -> Event {
        let time = Timestamp(1_000 + i64::try_from(position).unwrap());
        let limits = Limits {
            value_bytes: usize::MAX,
        };
        Event {
            id: EventId::fresh(time),
            entity: EntityRef::new("d", "t", key).unwrap(),
            values: Values::new(json::parse_object(values).unwrap(), &limits).unwrap(),
            version: Version::new(version),
            lane: Lane(0),
            position: Position::new(position),
            time,
            method,
            claims: Claims::none(),
            trace_parent: None,
        }
    }

    fn log() -> Vec<Event> {
        vec![
            event(1, "a", 1, Method::Set, r#"{"n":1}"#),
            event(2, "b", 1, Method::Set, r#"{"n":2}"#),
            event(3, "a", 2, Method::Edit, r#"{"n":3}"#),
            event(4, "a", 3, Method::Del, r#"{"n":3}"#),
            event(5, "b", 2, Method::Del, r#"{"n":2}"#),
            event(6, "a", 4, Method::Revert, r#"{"n":1}"#),
            event(7, "b", 3, Method::Set, r#"{"n":7}"#),
        ]
    }

    fn judge(scope: Scope, events: &[Event]) -> Result<(), String> {
        let mut sequence = Sequence::new(scope).judging_writes();
        events.iter().try_for_each(|event| sequence.take(event))
    }

    const ALL: [Scope; 3] = [Scope::Whole(Lanes::ONE), Scope::Entities, Scope::Some];

    #[test]
    fn a_log_is_in_order_and_so_are_its_parts() {
        for scope in ALL {
            judge(scope, &log()).unwrap();
        }
        let mut of_a = log();
        of_a.retain(|event| event.entity.key() == "a");
        judge(Scope::Entities, &of_a).unwrap();
        judge(Scope::Whole(Lanes::ONE), &of_a).unwrap_err();
        let mut some = log();
        some.remove(2);
        some.remove(3);
        judge(Scope::Some, &some).unwrap();
    }

    #[test]
    fn no_event_can_be_taken_out_doubled_or_moved() {
        for scope in ALL {
            for at in 0..log().len() {
                let mut events = log();
                let event = events.remove(at);
                // The last of an entity can be: only the end of the log says so.
                let is_told = match scope {
                    Scope::Whole(_) => at + 1 < log().len(),
                    Scope::Entities => at < 5,
                    Scope::Some => false,
                };
                assert_eq!(judge(scope, &events).is_err(), is_told, "{scope:?} {at}");
                for to in 0..log().len() {
                    let mut moved = events.clone();
                    moved.insert(to, event.clone());
                    assert_eq!(judge(scope, &moved).is_err(), to != at, "{at} to {to}");
                }
                let mut doubled = log();
                doubled.insert(at, event);
                judge(scope, &doubled).unwrap_err();
            }
        }
    }

    #[test]
    fn what_was_altered_is_told_where_it_can_be() {
        let alter = |at: usize, change: fn(&mut Event)| {
            let mut events = log();
            change(&mut events[at]);
            judge(Scope::Whole(Lanes::ONE), &events).unwrap_err()
        };
        for (at, change, word) in [
            (
                2,
                (|e| e.version = Version::new(3)) as fn(&mut Event),
                "version",
            ),
            (2, |e| e.version = Version::new(1), "version"),
            (2, |e| e.position = Position::new(9), "position"),
            (2, |e| e.time = Timestamp(1), "time"),
            (2, |e| e.lane = Lane(1), "lane"),
            (0, |e| e.method = Method::Edit, "absent"),
            (0, |e| e.method = Method::Revert, "absent"),
            (6, |e| e.method = Method::Edit, "absent"),
            (4, |e| e.values = Values::empty(), "values before it"),
            (1, |e| e.values = Values::empty(), "values before it"),
            (
                2,
                |e| e.entity = EntityRef::new("d", "t", "c").unwrap(),
                "version",
            ),
        ] {
            let why = alter(at, change);
            assert!(why.contains(word), "{at} {word}: {why}");
        }
        let four = Lanes::new(4).unwrap();
        let mut events = log();
        events[0].lane = Lane((four.of("d").0 + 1) % 4);
        let why = judge(Scope::Whole(four), &events).unwrap_err();
        assert!(why.contains("of its domain"), "{why}");
    }
}
