//! Whether a document matches: the one meaning of every filter.
//!
//! Nothing is allocated, and the work is bounded by the filter's nodes times the document's size: for
//! each condition the document is walked once along its path.

use std::cmp::Ordering;

use super::{Bound, Condition, Expr, Root, Test};
use crate::{Event, Object, Value, value::Corrupt};

pub(super) fn matches_values(expr: &Expr, values: &Object) -> bool {
    match expr {
        Expr::All(parts) => parts.iter().all(|part| matches_values(part, values)),
        Expr::Any(parts) => parts.iter().any(|part| matches_values(part, values)),
        Expr::Leaf(Condition {
            path,
            test,
            negated,
        }) => {
            let found = path.root() == Root::Values && within(values, path.below(), test);
            found != *negated
        }
    }
}

pub(super) fn matches_event(expr: &Expr, event: &Event) -> Result<bool, Corrupt> {
    match expr {
        Expr::All(parts) => {
            for part in parts {
                if !matches_event(part, event)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Expr::Any(parts) => {
            for part in parts {
                if matches_event(part, event)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Expr::Leaf(condition) => Ok(found(condition, event)? != condition.negated),
    }
}

fn found(condition: &Condition, event: &Event) -> Result<bool, Corrupt> {
    let (path, test) = (&condition.path, &condition.test);
    Ok(match path.root() {
        Root::Values => within(event.values.object()?, path.below(), test),
        Root::Claims => within(event.claims.values().object()?, path.below(), test),
        Root::Domain => test.of_text(event.entity.domain()),
        Root::Kind => test.of_text(event.entity.kind()),
        Root::Key => test.of_text(event.entity.key()),
        Root::Method => test.of_text(event.method.as_str()),
        Root::Id => test.of_text(event.id.0.hyphenated().encode_lower(&mut [0; 36])),
        Root::Time => test.of_integer(event.time.0),
        Root::Version => test.of_integer(event.version.as_i64()),
        Root::Position => test.of_integer(event.position.as_i64()),
        Root::Lane => test.of_integer(i64::from(event.lane.0)),
    })
}

/// Whether any candidate at `below` in an object passes.
fn within(object: &Object, below: &[String], test: &Test) -> bool {
    match below.split_first() {
        Some((key, rest)) => object
            .get(key)
            .is_some_and(|member| candidates(member, rest, test)),
        None => test.of_object(object),
    }
}

/// Whether any candidate at `below` in a value passes. An array is entered here and nowhere else, so
/// an array in an array is not.
fn candidates(value: &Value, below: &[String], test: &Test) -> bool {
    match (value, below.is_empty()) {
        (Value::Array(items), true) => {
            test.of_value(value) || items.iter().any(|item| test.of_value(item))
        }
        (_, true) => test.of_value(value),
        (Value::Object(members), false) => within(members, below, test),
        (Value::Array(items), false) => items.iter().any(|item| match item {
            Value::Object(members) => within(members, below, test),
            _ => false,
        }),
        (_, false) => false,
    }
}

impl Test {
    fn of_value(&self, candidate: &Value) -> bool {
        match self {
            Self::Exists => true,
            Self::In(values) => values.contains(candidate),
            Self::Compare(relation, Bound::Number(bound)) => match candidate {
                Value::Number(number) => number
                    .partial_cmp(bound)
                    .is_some_and(|ordering| relation.holds(ordering)),
                _ => false,
            },
            Self::Compare(_, Bound::Text(_)) | Self::Prefix(_) | Self::Contains(_) => {
                match candidate {
                    Value::String(text) => self.of_text(text),
                    _ => false,
                }
            }
            Self::IntegerIn(_) | Self::IntegerCompare(..) => false,
        }
    }

    fn of_object(&self, candidate: &Object) -> bool {
        match self {
            Self::Exists => true,
            Self::In(values) => values
                .iter()
                .any(|value| matches!(value, Value::Object(members) if members == candidate)),
            Self::Compare(..)
            | Self::Prefix(_)
            | Self::Contains(_)
            | Self::IntegerIn(_)
            | Self::IntegerCompare(..) => false,
        }
    }

    fn of_text(&self, candidate: &str) -> bool {
        match self {
            Self::Exists => true,
            Self::In(values) => values
                .iter()
                .any(|value| matches!(value, Value::String(text) if text == candidate)),
            // `str` compares by bytes.
            Self::Compare(relation, Bound::Text(bound)) => {
                relation.holds(candidate.cmp(bound.as_str()))
            }
            Self::Prefix(prefix) => candidate.starts_with(prefix.as_str()),
            // The searcher prepares itself in the length of what is sought; many short candidates
            // must not each pay that for a long one.
            Self::Contains(part) => match candidate.len().cmp(&part.len()) {
                Ordering::Less => false,
                Ordering::Equal => candidate == part,
                Ordering::Greater => candidate.contains(part.as_str()),
            },
            Self::Compare(_, Bound::Number(_)) | Self::IntegerIn(_) | Self::IntegerCompare(..) => {
                false
            }
        }
    }

    fn of_integer(&self, candidate: i64) -> bool {
        match self {
            Self::Exists => true,
            Self::IntegerIn(values) => values.contains(&candidate),
            Self::IntegerCompare(relation, bound) => relation.holds(candidate.cmp(bound)),
            Self::In(_) | Self::Compare(..) | Self::Prefix(_) | Self::Contains(_) => false,
        }
    }
}
