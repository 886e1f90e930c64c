//! The filter language (contract §5): one parser, one closed tree, one evaluator.
//!
//! Every search and every stream of every backend is decided by [`Filter::matches_values`] and
//! [`Filter::matches_event`]. A storage may read the tree ([`Filter::expr`]) to narrow what it
//! fetches, as long as it fetches no less than what matches.

#[cfg(any(test, feature = "corpus"))]
pub mod corpus;
mod eval;
#[cfg(any(test, feature = "corpus"))]
pub mod generate;
mod parse;
mod path;
#[cfg(test)]
mod tests;

use std::{cmp::Ordering, fmt, sync::Arc};

pub use path::{Path, Root};

use crate::{Event, Invalid, Object, Value, value::Corrupt};

/// A parsed filter, cheap to clone.
#[derive(Clone, PartialEq)]
pub struct Filter(Arc<Expr>);

/// What a filter asks, negations already pushed to the leaves.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// All must hold; with none of them, everything matches.
    All(Vec<Expr>),
    /// One must hold; with none of them, nothing matches.
    Any(Vec<Expr>),
    /// One test at one path.
    Leaf(Condition),
}

/// One test at one path.
///
/// A path has candidates: what it leads to, where an array along the way stands for its elements
/// (one level), and an array at the end for itself and its elements (one level). The condition holds
/// if any candidate passes the test, or, when negated, if none does.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// Where to look.
    pub path: Path,
    /// What a candidate must be.
    pub test: Test,
    /// Whether no candidate may pass, instead of any.
    pub negated: bool,
}

/// What a candidate must be.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// Anything at all, `null` included.
    Exists,
    /// Equal to one of these. Never empty; `$eq` is one of one.
    In(Vec<Value>),
    /// A number or string, whichever the bound is, on one side of it.
    Compare(Relation, Bound),
    /// A string that starts with these bytes.
    Prefix(String),
    /// A string that has these bytes somewhere.
    Contains(String),
    /// At an int64 field only: equal to one of these. Never empty.
    IntegerIn(Vec<i64>),
    /// At an int64 field only: on one side of this.
    IntegerCompare(Relation, i64),
}

/// What an ordering compares with.
#[derive(Debug, Clone, PartialEq)]
pub enum Bound {
    /// Compares with numbers alone.
    Number(f64),
    /// Compares with strings alone, by UTF-8 bytes.
    Text(String),
}

/// On which side of a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    /// `$gt`
    Above,
    /// `$gte`
    AtLeast,
    /// `$lt`
    Below,
    /// `$lte`
    AtMost,
}

impl Relation {
    /// Whether it holds for a candidate that compares with the bound as `ordering`.
    pub fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Above => ordering.is_gt(),
            Self::AtLeast => ordering.is_ge(),
            Self::Below => ordering.is_lt(),
            Self::AtMost => ordering.is_le(),
        }
    }
}

impl Filter {
    /// The filter that matches everything.
    pub fn all() -> Self {
        Self(Arc::new(Expr::All(Vec::new())))
    }

    /// Parses a filter over an entity's values. The field it is refused by is `query_string`.
    pub fn parse_entity(text: &str) -> Result<Self, Invalid> {
        Self::parse(text, Path::parse_entity)
    }

    /// Parses a filter over an event. The field it is refused by is `query_string`.
    ///
    /// Paths are those of [`Path::parse_event`]: one that no event has is refused.
    pub fn parse_event(text: &str) -> Result<Self, Invalid> {
        Self::parse(text, Path::parse_event)
    }

    fn parse(text: &str, path: parse::PathParser) -> Result<Self, Invalid> {
        Ok(Self(Arc::new(parse::filter(text, path)?)))
    }

    /// The tree, for a storage to narrow its search by.
    pub fn expr(&self) -> &Expr {
        &self.0
    }

    /// Whether everything matches, as far as the form of the filter shows.
    pub fn is_all(&self) -> bool {
        self.0.is_all()
    }

    /// Whether an entity's values match. Conditions on anything else of an event find nothing there.
    pub fn matches_values(&self, values: &Object) -> bool {
        eval::matches_values(&self.0, values)
    }

    /// Whether an event matches. Fails only if the event's stored values or claims are damaged and
    /// the answer depends on them.
    pub fn matches_event(&self, event: &Event) -> Result<bool, Corrupt> {
        eval::matches_event(&self.0, event)
    }

    /// The string that everything matching has at exactly this path, as far as a condition that must
    /// hold says so.
    ///
    /// Only paths that hold one string in every event are answered (`entity.key`, `method`, …): at a
    /// path into values, an array's element could be what is equal.
    pub fn equality(&self, path: &[&str]) -> Option<&str> {
        self.0.equality(path)
    }
}

impl Expr {
    fn is_all(&self) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(Self::is_all),
            Self::Any(parts) => parts.iter().any(Self::is_all),
            Self::Leaf(_) => false,
        }
    }

    fn equality(&self, path: &[&str]) -> Option<&str> {
        match self {
            Self::All(parts) => parts.iter().find_map(|part| part.equality(path)),
            Self::Leaf(Condition {
                path: at,
                test: Test::In(values),
                negated: false,
            }) if at.root().is_text() && at.segments() == path => match values.as_slice() {
                [Value::String(text)] => Some(text),
                _ => None,
            },
            Self::Any(_) | Self::Leaf(_) => None,
        }
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self::all()
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
