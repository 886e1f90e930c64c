//! Places in the log: lanes, positions, versions, times, and the tokens that clients hold.

use std::{collections::BTreeMap, fmt, str::FromStr};

use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use crate::{Invalid, limits};

/// Identifies a log: a UUID made when a storage is initialised or restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogId(pub Uuid);

impl LogId {
    /// A fresh random id, for a storage that is being initialised.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// How many lanes a log has: 1 to 64, fixed when the storage is initialised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lanes(u8);

impl Lanes {
    /// One lane: a total order over everything. The default.
    pub const ONE: Self = Self(1);

    /// Parses a number of lanes; the field it is refused by is `lanes`.
    pub fn new(lanes: u8) -> Result<Self, Invalid> {
        if (1..=limits::LANES).contains(&lanes) {
            Ok(Self(lanes))
        } else {
            Err(Invalid::new(
                "lanes",
                format!("is {lanes}; it must be 1 to {}", limits::LANES),
            ))
        }
    }

    /// The number of lanes.
    pub fn get(self) -> u8 {
        self.0
    }

    /// The lane of a domain: `XXH3-64(domain, seed 0) mod lanes` (contract §1).
    pub fn of(self, domain: &str) -> Lane {
        let lane = xxh3_64(domain.as_bytes()) % u64::from(self.0);
        Lane(u8::try_from(lane).unwrap_or(0))
    }

    /// Every lane, in order.
    pub fn iter(self) -> impl Iterator<Item = Lane> + Clone {
        (0..self.0).map(Lane)
    }

    /// Whether `lane` is one of these.
    pub fn contains(self, lane: Lane) -> bool {
        lane.0 < self.0
    }
}

/// One totally ordered part of the log, numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane(pub u8);

impl Lane {
    /// The lane as an index.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(u64);

        impl $name {
            /// Before the first.
            pub const ZERO: Self = Self(0);

            /// From a count. Counts above `i64::MAX`, which neither the wire nor any database
            /// holds, become `i64::MAX`.
            pub fn new(value: u64) -> Self {
                Self(value.min(i64::MAX as u64))
            }

            /// From a stored or received signed number; `None` when it is negative.
            pub fn from_i64(value: i64) -> Option<Self> {
                u64::try_from(value).ok().map(Self)
            }

            /// The number.
            pub fn get(self) -> u64 {
                self.0
            }

            /// The number as the wire and databases hold it.
            pub fn as_i64(self) -> i64 {
                i64::try_from(self.0).unwrap_or(i64::MAX)
            }

            /// The one after this.
            #[must_use]
            pub fn next(self) -> Self {
                self.plus(1)
            }

            /// This plus `n`.
            #[must_use]
            pub fn plus(self, n: u64) -> Self {
                Self::new(self.0.saturating_add(n))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

counter! {
    /// An event's place in its lane: 1, 2, 3 … without a hole, assigned in commit order.
    /// Zero is the beginning, before the first event.
    Position
}
counter! {
    /// An entity's change counter: 1, 2, 3 … without a hole, surviving Del and re-creation.
    /// Zero is an entity that never was.
    Version
}

/// A point in time, in nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The time of the next event in a lane: strictly after the one before (contract §3).
    #[must_use]
    pub fn following(now: Self, previous: Self) -> Self {
        Self(now.0.max(previous.0.saturating_add(1)))
    }
}

/// The head of every lane: the position of its last event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heads(Vec<Position>);

impl Heads {
    /// Heads by lane number.
    pub fn new(heads: Vec<Position>) -> Self {
        Self(heads)
    }

    /// The beginning of every lane.
    pub fn beginning(lanes: Lanes) -> Self {
        Self(vec![Position::ZERO; usize::from(lanes.get())])
    }

    /// The head of one lane; the beginning for a lane that is not there.
    pub fn get(&self, lane: Lane) -> Position {
        self.0.get(lane.index()).copied().unwrap_or_default()
    }

    /// Sets the head of a lane, if there is such a lane.
    pub fn set(&mut self, lane: Lane, position: Position) {
        if let Some(head) = self.0.get_mut(lane.index()) {
            *head = position;
        }
    }

    /// Lanes with their heads, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Lane, Position)> + '_ {
        (0u8..).map(Lane).zip(self.0.iter().copied())
    }
}

/// A position for some or all lanes of one log: `log_id/0:12,1:55` (contract §1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The log that the positions belong to.
    pub log_id: LogId,
    positions: BTreeMap<Lane, Position>,
}

impl Token {
    /// A token for one lane, as writes, Get and Search answer it.
    pub fn of_lane(log_id: LogId, lane: Lane, position: Position) -> Self {
        Self {
            log_id,
            positions: BTreeMap::from([(lane, position)]),
        }
    }

    /// A token for every lane, as a stream starts with.
    pub fn of_heads(log_id: LogId, heads: &Heads) -> Self {
        Self {
            log_id,
            positions: heads.iter().collect(),
        }
    }

    /// The position of a lane, if the token has one.
    pub fn get(&self, lane: Lane) -> Option<Position> {
        self.positions.get(&lane).copied()
    }

    /// Lanes and positions, in order of lanes.
    pub fn iter(&self) -> impl Iterator<Item = (Lane, Position)> + '_ {
        self.positions
            .iter()
            .map(|(lane, position)| (*lane, *position))
    }

    /// Moves one lane forward to `position`; a position behind is ignored, since tokens only advance.
    pub fn advance(&mut self, lane: Lane, position: Position) {
        let entry = self.positions.entry(lane).or_default();
        *entry = position.max(*entry);
    }

    /// Takes over the later position of each lane of `other`, if it is of the same log.
    pub fn merge(&mut self, other: &Self) {
        if self.log_id == other.log_id {
            for (lane, position) in other.iter() {
                self.advance(lane, position);
            }
        }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.log_id)?;
        for (i, (lane, position)) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{lane}:{position}")?;
        }
        Ok(())
    }
}

/// Parses the text form. The error says what is wrong, without a field name: the caller knows where
/// the token stood.
impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const SHAPE: &str = "is not a token; a token looks like `<log id>/0:12,1:55`";
        let (log_id, rest) = text.split_once('/').ok_or(SHAPE)?;
        // The hyphenated form alone, so that a token has one spelling.
        if log_id.len() != 36 {
            return Err(SHAPE.to_owned());
        }
        let log_id = LogId(Uuid::try_parse(log_id).map_err(|_| SHAPE)?);
        let mut positions = BTreeMap::new();
        for part in rest.split(',') {
            let (lane, position) = part.split_once(':').ok_or(SHAPE)?;
            let number = |digits: &str| {
                let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
                plain
                    .then(|| digits.parse::<i64>().ok())
                    .flatten()
                    .ok_or(SHAPE)
            };
            let lane = u8::try_from(number(lane)?)
                .map_err(|_| format!("names the unknown lane {lane}"))?;
            if lane >= limits::LANES {
                return Err(format!("names the unknown lane {lane}"));
            }
            let position = Position::from_i64(number(position)?).ok_or(SHAPE)?;
            if positions.insert(Lane(lane), position).is_some() {
                return Err(format!("names lane {lane} twice"));
            }
        }
        Ok(Self { log_id, positions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_follow_the_published_hash() {
        // XXH3-64 of the empty and of a short input with seed 0, from the reference implementation's
        // published vectors: the lane of a domain must never change between releases.
        assert_eq!(xxh3_64(b""), 0x2d06_8005_38d3_94c2);
        let lanes = Lanes::new(8).unwrap();
        assert_eq!(lanes.of("faa").0, (xxh3_64(b"faa") % 8) as u8);
        assert_eq!(Lanes::ONE.of("anything"), Lane(0));
        assert!(Lanes::new(0).is_err() && Lanes::new(65).is_err() && Lanes::new(64).is_ok());
    }

    #[test]
    fn tokens_round_trip() {
        let text = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff/0:12,1:55";
        let token: Token = text.parse().unwrap();
        assert_eq!(token.to_string(), text);
        assert_eq!(token.get(Lane(1)), Some(Position::new(55)));
        assert_eq!(token.get(Lane(2)), None);
    }

    #[test]
    fn malformed_tokens_are_refused() {
        let id = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";
        for bad in [
            String::new(),
            id.to_owned(),
            format!("{id}/"),
            format!("{id}/0"),
            format!("{id}/0:"),
            format!("{id}/:1"),
            format!("{id}/0:-1"),
            format!("{id}/0:+1"),
            format!("{id}/0:1,"),
            format!("{id}/0:1,0:2"),
            format!("{id}/64:1"),
            format!("{id}/999:1"),
            format!("{id}/0:9223372036854775808"),
            "nonsense/0:1".to_owned(),
            format!("{}/0:1", id.replace('-', "")),
        ] {
            assert!(bad.parse::<Token>().is_err(), "{bad}");
        }
    }

    #[test]
    fn times_never_repeat_or_go_back() {
        assert_eq!(
            Timestamp::following(Timestamp(5), Timestamp(5)),
            Timestamp(6)
        );
        assert_eq!(
            Timestamp::following(Timestamp(3), Timestamp(9)),
            Timestamp(10)
        );
        assert_eq!(
            Timestamp::following(Timestamp(30), Timestamp(9)),
            Timestamp(30)
        );
    }
}
