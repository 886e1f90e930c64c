//! Random documents and filters over few keys and values, so that they often meet.
//!
//! About half of the pairs match. Every filter is within the limits and valid.

use proptest::{collection::vec, prelude::*, sample::select};

use super::Filter;
use crate::{Object, Value, json};

/// Keys of documents, and segments of paths as they are written. Early ones are likelier.
const KEYS: [(&str, &str); 10] = [
    ("a", "a"),
    ("a", "a"),
    ("a", "a"),
    ("a", "a"),
    ("b", "b"),
    ("b", "b"),
    ("é", "é"),
    ("", ""),
    ("a.b", r"a\.b"),
    ("$a", r"\$a"),
];

const NUMBERS: [f64; 9] = [
    0.0,
    1.0,
    1.0,
    2.0,
    -1.5,
    0.1,
    5e-324,
    1e300,
    9_007_199_254_740_992.0,
];

const STRINGS: [&str; 11] = [
    "",
    "a",
    "a",
    "ab",
    "b",
    "A",
    "é",
    "e\u{301}",
    "～",
    "😀",
    "1%_\\\"'\n",
];

fn key() -> impl Strategy<Value = String> + Clone {
    select(&KEYS[..]).prop_map(|(key, _)| key.to_owned())
}

fn number() -> impl Strategy<Value = Value> + Clone {
    select(&NUMBERS[..]).prop_map(Value::Number)
}

fn text() -> impl Strategy<Value = Value> + Clone {
    select(&STRINGS[..]).prop_map(Value::from)
}

fn scalar() -> impl Strategy<Value = Value> + Clone {
    prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::Bool),
        3 => number(),
        3 => text(),
    ]
}

/// A value such as documents have.
pub fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            2 => vec(inner.clone(), 0..4).prop_map(Value::Array),
            3 => members(inner).prop_map(Value::Object),
        ]
    })
}

fn members(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Object> {
    vec((key(), inner), 0..4).prop_map(|members| members.into_iter().collect())
}

/// An entity's values. Most have something at `a`, which most filters look at.
pub fn document() -> impl Strategy<Value = Object> {
    let first = prop::option::weighted(0.8, value());
    (first, vec((key(), value()), 0..6)).prop_map(|(first, members)| {
        let mut object: Object = members.into_iter().collect();
        object.extend(first.map(|value| ("a".to_owned(), value)));
        object
    })
}

/// The text of an entity filter.
pub fn filter() -> impl Strategy<Value = String> {
    condition()
        .prop_recursive(2, 6, 3, |inner| {
            let filters = vec(inner.clone(), 1..4).prop_map(|filters| {
                let filters: Vec<_> = filters.iter().map(|f| format!("{{{f}}}")).collect();
                filters.join(",")
            });
            let two = (inner.clone(), condition());
            prop_oneof![
                1 => filters.clone().prop_map(|f| format!("\"$and\":[{f}]")),
                3 => filters.prop_map(|f| format!("\"$or\":[{f}]")),
                1 => inner.prop_map(|f| format!("\"$not\":{{{f}}}")),
                1 => two.prop_map(|(f, g)| format!("{f},{g}")),
            ]
        })
        .prop_map(|members| format!("{{{members}}}"))
        .prop_filter("over a limit, or a member twice", |text| {
            Filter::parse_entity(text).is_ok()
        })
}

/// A member of a filter: a path and what must hold there.
fn condition() -> impl Strategy<Value = String> + Clone {
    // Mostly short, since each further segment halves what it can meet.
    let length = select(&[1, 1, 1, 1, 2, 2, 3][..]);
    let path = length
        .prop_flat_map(|length| vec(select(&KEYS[..]), length))
        .prop_map(|keys| {
            let segments: Vec<_> = keys.into_iter().map(|(_, segment)| segment).collect();
            json::canonical_value(&Value::String(segments.join(".")))
        });
    let count = select(&[1, 1, 1, 2][..]);
    let several = count
        .prop_flat_map(|count| vec(operator(), count))
        .prop_map(|operators| operators.join(","));
    let wanted = prop_oneof![
        1 => operand(),
        5 => several.clone().prop_map(|operators| format!("{{{operators}}}")),
        2 => several.prop_map(|operators| format!("{{\"$not\":{{{operators}}}}}")),
    ];
    (path, wanted).prop_map(|(path, wanted)| format!("{path}:{wanted}"))
}

/// A value as text, never one that would be taken for operators.
fn operand() -> impl Strategy<Value = String> + Clone {
    prop_oneof![
        4 => scalar().boxed(),
        1 => vec(scalar(), 0..3).prop_map(Value::Array).boxed(),
        1 => members(scalar()).prop_map(Value::Object).boxed(),
    ]
    .prop_filter("starts like operators", |value| match value {
        Value::Object(members) => members
            .keys()
            .next()
            .is_none_or(|key| !key.starts_with('$')),
        _ => true,
    })
    .prop_map(|value| json::canonical_value(&value))
}

fn operator() -> impl Strategy<Value = String> + Clone {
    let list = vec(operand(), 0..7).prop_map(|operands| format!("[{}]", operands.join(",")));
    let ordered = prop_oneof![number(), text()].prop_map(|value| json::canonical_value(&value));
    let part = text().prop_map(|value| json::canonical_value(&value));
    prop_oneof![
        2 => operand().prop_map(|operand| format!("\"$eq\":{operand}")),
        2 => operand().prop_map(|operand| format!("\"$ne\":{operand}")),
        2 => list.clone().prop_map(|list| format!("\"$in\":{list}")),
        2 => list.prop_map(|list| format!("\"$nin\":{list}")),
        4 => (select(&["$gt", "$gte", "$lt", "$lte"][..]), ordered)
            .prop_map(|(operator, bound)| format!("\"{operator}\":{bound}")),
        2 => (select(&["$prefix", "$contains"][..]), part)
            .prop_map(|(operator, part)| format!("\"{operator}\":{part}")),
        2 => any::<bool>().prop_map(|exists| format!("\"$exists\":{exists}")),
    ]
}
