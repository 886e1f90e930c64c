//! The order of results, and the cursors that continue it (contract §5).

use std::cmp::Ordering;

use crate::{
    Event, Lane, Object, Path, Position, Value,
    filter::Root,
    limits::{LANES, NAME_BYTES, SORT_STRING_BYTES},
    value::Corrupt,
};

/// An order of results: by the value at a path.
#[derive(Debug, Clone, PartialEq)]
pub struct Sort {
    /// The path, in values for entities, in the event for events.
    pub path: Path,
    /// Whether everything is reversed, ties included.
    pub reverse: bool,
}

/// What an item sorts by: null/missing < false < true < numbers < strings < arrays and objects.
///
/// Strings count by their first 1,024 bytes, arrays and objects are all equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SortKey(Rank);

/// The declared order of the variants is the order of the kinds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Missing,
    Bool(bool),
    Number(Double),
    /// An int64 field of an event, exact. A path leads to such a field in every event or in none, so
    /// these never meet the other kinds.
    Integer(i64),
    /// The first bytes of a string; they may end within a character.
    Text(Box<[u8]>),
    Compound,
}

/// What an item sorts by, taken apart. The order of the variants is the order of the kinds; numbers
/// and integers never meet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SortPart<'k> {
    /// Null or missing.
    Missing,
    /// `false` before `true`.
    Bool(bool),
    /// A double.
    Number(f64),
    /// An int64 field of an event.
    Integer(i64),
    /// The first 1,024 bytes of a string.
    Text(&'k [u8]),
    /// An array or object; all are equal.
    Compound,
}

/// A finite double, never `-0`.
#[derive(Debug, Clone, Copy)]
struct Double(f64);

impl Ord for Double {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Double {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Double {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Double {}

impl SortKey {
    /// What it is, for a storage that sorts by itself.
    pub fn part(&self) -> SortPart<'_> {
        match &self.0 {
            Rank::Missing => SortPart::Missing,
            Rank::Bool(value) => SortPart::Bool(*value),
            Rank::Number(Double(number)) => SortPart::Number(*number),
            Rank::Integer(integer) => SortPart::Integer(*integer),
            Rank::Text(bytes) => SortPart::Text(bytes),
            Rank::Compound => SortPart::Compound,
        }
    }

    /// The key of an entity's values at a path. A path that meets an array, along the way or at its
    /// end, sorts as an array.
    pub fn of_values(path: &Path, values: &Object) -> Self {
        match path.root() {
            Root::Values => Self::within(values, path.below()),
            Root::Claims
            | Root::Domain
            | Root::Kind
            | Root::Key
            | Root::Method
            | Root::Id
            | Root::Time
            | Root::Version
            | Root::Position
            | Root::Lane => Self(Rank::Missing),
        }
    }

    /// The key of an event at a path. Fails only if the stored values or claims that the path leads
    /// into are damaged.
    pub fn of_event(path: &Path, event: &Event) -> Result<Self, Corrupt> {
        Ok(match path.root() {
            Root::Values => Self::within(event.values.object()?, path.below()),
            Root::Claims => Self::within(event.claims.values().object()?, path.below()),
            Root::Domain => Self::text(event.entity.domain()),
            Root::Kind => Self::text(event.entity.kind()),
            Root::Key => Self::text(event.entity.key()),
            Root::Method => Self::text(event.method.as_str()),
            Root::Id => Self::text(event.id.0.hyphenated().encode_lower(&mut [0; 36])),
            Root::Time => Self(Rank::Integer(event.time.0)),
            Root::Version => Self(Rank::Integer(event.version.as_i64())),
            Root::Position => Self(Rank::Integer(event.position.as_i64())),
            Root::Lane => Self(Rank::Integer(i64::from(event.lane.0))),
        })
    }

    fn within(object: &Object, below: &[String]) -> Self {
        let Some((first, rest)) = below.split_first() else {
            return Self(Rank::Compound);
        };
        let mut at = object.get(first);
        for key in rest {
            at = match at {
                Some(Value::Object(members)) => members.get(key),
                Some(Value::Array(_)) => return Self(Rank::Compound),
                _ => None,
            };
        }
        match at {
            None | Some(Value::Null) => Self(Rank::Missing),
            Some(Value::Bool(value)) => Self(Rank::Bool(*value)),
            // Adding zero turns `-0` into `0`.
            Some(Value::Number(number)) => Self(Rank::Number(Double(number + 0.0))),
            Some(Value::String(text)) => Self::text(text),
            Some(Value::Array(_) | Value::Object(_)) => Self(Rank::Compound),
        }
    }

    fn text(text: &str) -> Self {
        let bytes = text.as_bytes();
        let first = bytes.get(..SORT_STRING_BYTES).unwrap_or(bytes);
        Self(Rank::Text(first.into()))
    }
}

/// Which way results run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the least.
    Forward,
    /// From the greatest, among items that sort alike too.
    Reverse,
}

impl Direction {
    /// The direction of a search with this sort, if any.
    pub fn of(sort: Option<&Sort>) -> Self {
        match sort {
            Some(Sort { reverse: true, .. }) => Self::Reverse,
            Some(Sort { reverse: false, .. }) | None => Self::Forward,
        }
    }

    /// How `a` and `b` stand in results that run this way: less comes first.
    pub fn compare<T: Ord>(self, a: &T, b: &T) -> Ordering {
        match self {
            Self::Forward => a.cmp(b),
            Self::Reverse => b.cmp(a),
        }
    }
}

/// The place of an item in an ordered result: what a page continues after.
///
/// Cursors of one search are totally ordered, by what the items sort by and then by the tie; that is
/// the order of results that run forward. [`Direction::compare`] gives it either way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// What the item sorted by; `None` when there was no sort.
    pub key: Option<SortKey>,
    /// What tells it from items that sort alike.
    pub tie: Tie,
}

/// The last word between items that sort alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tie {
    /// An entity's key.
    Key(String),
    /// An event's place.
    Place(Lane, Position),
}

// The encoding: a version, a tag and body for the key, a tag and body for the tie. Whole numbers are
// big-endian; page tokens outlive a process, so none of these ever changes its meaning.
const FORMAT: u8 = 1;
const KEY_NONE: u8 = 0;
const KEY_MISSING: u8 = 1;
const KEY_FALSE: u8 = 2;
const KEY_TRUE: u8 = 3;
/// 8 bytes: the double's bits.
const KEY_NUMBER: u8 = 4;
/// 8 bytes.
const KEY_INTEGER: u8 = 5;
/// 2 bytes of length, then the bytes.
const KEY_TEXT: u8 = 6;
const KEY_COMPOUND: u8 = 7;
/// The rest of the bytes.
const TIE_KEY: u8 = 0;
/// 1 byte of lane, 8 of position.
const TIE_PLACE: u8 = 1;

impl Cursor {
    /// The cursor as opaque bytes for a page token. Versioned: [`Cursor::decode`] of a later release
    /// reads it or refuses it, and never takes it for something else.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        match self.key.as_ref().map(|SortKey(rank)| rank) {
            None => out.push(KEY_NONE),
            Some(Rank::Missing) => out.push(KEY_MISSING),
            Some(Rank::Bool(false)) => out.push(KEY_FALSE),
            Some(Rank::Bool(true)) => out.push(KEY_TRUE),
            Some(Rank::Number(Double(number))) => {
                out.push(KEY_NUMBER);
                out.extend(number.to_bits().to_be_bytes());
            }
            Some(Rank::Integer(integer)) => {
                out.push(KEY_INTEGER);
                out.extend(integer.to_be_bytes());
            }
            Some(Rank::Text(bytes)) => {
                out.push(KEY_TEXT);
                // At most 1,024 bytes are ever kept.
                out.extend(u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
                out.extend_from_slice(bytes);
            }
            Some(Rank::Compound) => out.push(KEY_COMPOUND),
        }
        match &self.tie {
            Tie::Key(key) => {
                out.push(TIE_KEY);
                out.extend_from_slice(key.as_bytes());
            }
            Tie::Place(lane, position) => {
                out.push(TIE_PLACE);
                out.push(lane.0);
                out.extend(position.get().to_be_bytes());
            }
        }
        out
    }

    /// Reads what [`Cursor::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        if byte(&mut rest)? != FORMAT {
            return None;
        }
        let key = match byte(&mut rest)? {
            KEY_NONE => None,
            KEY_MISSING => Some(Rank::Missing),
            KEY_FALSE => Some(Rank::Bool(false)),
            KEY_TRUE => Some(Rank::Bool(true)),
            KEY_NUMBER => {
                let number = f64::from_bits(u64::from_be_bytes(array(&mut rest)?));
                let minus_zero = number == 0.0 && number.is_sign_negative();
                if !number.is_finite() || minus_zero {
                    return None;
                }
                Some(Rank::Number(Double(number)))
            }
            KEY_INTEGER => Some(Rank::Integer(i64::from_be_bytes(array(&mut rest)?))),
            KEY_TEXT => {
                let len = usize::from(u16::from_be_bytes(array(&mut rest)?));
                if len > SORT_STRING_BYTES {
                    return None;
                }
                Some(Rank::Text(take(&mut rest, len)?.into()))
            }
            KEY_COMPOUND => Some(Rank::Compound),
            _ => return None,
        };
        let tie = match byte(&mut rest)? {
            TIE_KEY => {
                let key = std::mem::take(&mut rest);
                if key.len() > NAME_BYTES {
                    return None;
                }
                Tie::Key(std::str::from_utf8(key).ok()?.to_owned())
            }
            TIE_PLACE => {
                let lane = byte(&mut rest)?;
                let position = Position::from_i64(i64::from_be_bytes(array(&mut rest)?))?;
                if lane >= LANES {
                    return None;
                }
                Tie::Place(Lane(lane), position)
            }
            _ => return None,
        };
        rest.is_empty().then(|| Self {
            key: key.map(SortKey),
            tie,
        })
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    Some(taken)
}

fn array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    take(rest, N)?.try_into().ok()
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    array(rest).map(|[byte]: [u8; 1]| byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        filter::{corpus, generate},
        json,
    };

    fn key(path: &str, values: &str) -> SortKey {
        let path = Path::parse_entity("sort.field", path).unwrap();
        SortKey::of_values(&path, &json::parse_object(values).unwrap())
    }

    #[test]
    fn kinds_stand_in_the_order_of_the_contract() {
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(1_023));
        let ascending = [
            &["{}", r#"{"a":null}"#][..],
            &[r#"{"a":false}"#],
            &[r#"{"a":true}"#],
            &[r#"{"a":-1e300}"#],
            &[r#"{"a":-5e-324}"#],
            &[r#"{"a":0}"#, r#"{"a":-0.0}"#],
            &[r#"{"a":5e-324}"#],
            &[r#"{"a":2}"#, r#"{"a":2.0}"#],
            &[r#"{"a":10}"#],
            &[r#"{"a":""}"#],
            &[r#"{"a":"10"}"#],
            &[r#"{"a":"2"}"#],
            &[r#"{"a":"A"}"#],
            &[r#"{"a":"a"}"#],
            &[r#"{"a":"aa"}"#],
            &[&long],
            &[r#"{"a":"é"}"#],
            &[r#"{"a":"～"}"#],
            &[r#"{"a":"😀"}"#],
            &[
                r#"{"a":[]}"#,
                r#"{"a":{}}"#,
                r#"{"a":[1]}"#,
                r#"{"a":{"b":1}}"#,
            ],
        ];
        for (i, group) in ascending.iter().enumerate() {
            for values in *group {
                for (j, others) in ascending.iter().enumerate() {
                    for other in *others {
                        assert_eq!(
                            key("a", values).cmp(&key("a", other)),
                            i.cmp(&j),
                            "{values} {other}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn strings_count_by_their_first_1024_bytes() {
        let of =
            |len: usize, end: &str| key("a", &format!(r#"{{"a":"{}{end}"}}"#, "x".repeat(len)));
        assert!(of(1_023, "a") < of(1_023, "b"));
        assert_eq!(of(1_024, "a"), of(1_024, "b"));
        assert_eq!(of(1_024, ""), of(1_024, "b"));
        // The first byte of a character counts although the second does not.
        assert_eq!(of(1_023, "é"), of(1_023, "è"));
        assert!(of(1_023, "z") < of(1_023, "é"));
    }

    #[test]
    fn a_path_that_meets_an_array_sorts_as_one() {
        let array = key("a", r#"{"a":[]}"#);
        for values in [
            r#"{"a":{"b":[1]}}"#,
            r#"{"a":[{"b":1}]}"#,
            r#"{"a":[]}"#,
            r#"{"a":{"b":{}}}"#,
        ] {
            assert_eq!(key("a.b", values), array, "{values}");
        }
        for values in [
            "{}",
            r#"{"a":1}"#,
            r#"{"a":"b"}"#,
            r#"{"a":{}}"#,
            r#"{"a":null}"#,
        ] {
            assert_eq!(key("a.b", values), key("a", "{}"), "{values}");
        }
        assert_eq!(key(r"a\.b", r#"{"a.b":1}"#), key("a", r#"{"a":1}"#));
    }

    #[test]
    fn int64_fields_of_events_sort_exactly() {
        let events = corpus::events().unwrap();
        let sorted = |field| {
            let path = Path::parse_event("sort.field", field).unwrap();
            let mut names: Vec<_> = events
                .iter()
                .map(|(name, event)| (SortKey::of_event(&path, event).unwrap(), *name))
                .collect();
            names.sort();
            names.into_iter().map(|(_, name)| name).collect::<Vec<_>>()
        };
        assert_eq!(sorted("version"), ["e0", "e3", "e1", "e2"]);
        assert_eq!(sorted("time"), ["e0", "e1", "e2", "e3"]);
        assert_eq!(sorted("position"), ["e0", "e1", "e2", "e3"]);
        assert_eq!(sorted("entity.key"), ["e3", "e0", "e1", "e2"]);
        assert_eq!(sorted("id"), ["e0", "e1", "e2", "e3"]);
        // Missing, then "Alice", "Bob".
        assert_eq!(sorted("entity.values.name"), ["e2", "e3", "e0", "e1"]);
        assert_eq!(sorted("claims.sub"), ["e0", "e1", "e3", "e2"]);
        // All objects are alike.
        assert_eq!(sorted("claims"), ["e0", "e1", "e2", "e3"]);
    }

    /// Page tokens that clients hold across an upgrade.
    #[test]
    fn encodings_are_frozen() {
        let by_key = |key: Option<SortKey>| Cursor {
            key,
            tie: Tie::Key("é".to_owned()),
        };
        let place = Tie::Place(Lane(63), Position::new(258));
        for (cursor, hex) in [
            (by_key(None), "010000c3a9"),
            (by_key(Some(key("a", "{}"))), "010100c3a9"),
            (by_key(Some(key("a", r#"{"a":false}"#))), "010200c3a9"),
            (by_key(Some(key("a", r#"{"a":true}"#))), "010300c3a9"),
            (
                by_key(Some(key("a", r#"{"a":-1.5}"#))),
                "0104bff800000000000000c3a9",
            ),
            (
                Cursor {
                    key: Some(SortKey(Rank::Integer(-2))),
                    tie: place.clone(),
                },
                "0105fffffffffffffffe013f0000000000000102",
            ),
            (
                by_key(Some(key("a", r#"{"a":"xy"}"#))),
                "01060002787900c3a9",
            ),
            (by_key(Some(key("a", r#"{"a":[]}"#))), "010700c3a9"),
            (
                Cursor {
                    key: None,
                    tie: place,
                },
                "0100013f0000000000000102",
            ),
        ] {
            let bytes = cursor.encode();
            let written: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(written, hex, "{cursor:?}");
            assert_eq!(Cursor::decode(&bytes), Some(cursor));
        }
    }

    #[test]
    fn other_bytes_are_no_cursor() {
        let good = Cursor {
            key: Some(key("a", r#"{"a":"xy"}"#)),
            tie: Tie::Place(Lane(0), Position::new(1)),
        }
        .encode();
        for len in 0..good.len() {
            assert_eq!(Cursor::decode(&good[..len]), None);
        }
        let number = |number: f64| [&[1, 4][..], &number.to_bits().to_be_bytes(), &[0]].concat();
        assert!(Cursor::decode(&number(1.0)).is_some());
        for bad in [
            [&good[..], &[0]].concat(),
            [&[2], &good[1..]].concat(),
            vec![1, 8, 0],
            vec![1, 0, 2],
            vec![1, 0, 0, 0xff],
            number(f64::NAN),
            number(f64::INFINITY),
            number(-0.0),
            [&[1, 6, 4, 1][..], &[b'x'; 1_025], &[0]].concat(),
            [&[1, 0, 0][..], &[b'x'; 256]].concat(),
            vec![1, 0, 1, 64, 0, 0, 0, 0, 0, 0, 0, 1],
            vec![1, 0, 1, 0, 0x80, 0, 0, 0, 0, 0, 0, 1],
        ] {
            assert_eq!(Cursor::decode(&bad), None, "{bad:?}");
        }
    }

    fn cursor() -> impl Strategy<Value = Cursor> {
        let path = Path::parse_entity("sort.field", "a").unwrap();
        let key = generate::document().prop_map(move |values| SortKey::of_values(&path, &values));
        let tie = prop_oneof![
            "[abé]{0,3}".prop_map(Tie::Key),
            (0..64u8, any::<u64>()).prop_map(|(l, p)| Tie::Place(Lane(l), Position::new(p))),
        ];
        (prop::option::of(key), tie).prop_map(|(key, tie)| Cursor { key, tie })
    }

    proptest! {
        #[test]
        fn cursors_round_trip(cursor in cursor()) {
            prop_assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        }

        #[test]
        fn no_bytes_panic_and_each_cursor_has_one_spelling(
            bytes in prop::collection::vec(prop_oneof![0..9u8, any::<u8>()], 0..24),
        ) {
            let bytes = [&[FORMAT], &bytes[..]].concat();
            if let Some(cursor) = Cursor::decode(&bytes) {
                prop_assert_eq!(cursor.encode(), bytes);
            }
        }

        #[test]
        fn the_order_is_total(a in cursor(), b in cursor(), c in cursor()) {
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            prop_assert_eq!(a.cmp(&b).is_eq(), a == b);
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
            prop_assert_eq!(Direction::Reverse.compare(&a, &b), Direction::Forward.compare(&b, &a));
        }
    }
}
