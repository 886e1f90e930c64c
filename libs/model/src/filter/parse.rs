//! From a filter's text to its tree, refusing by name whatever the contract does not give a meaning.
//!
//! Negations are pushed to the leaves on the way, so that the tree has none above them.

use super::{Bound, Condition, Expr, Path, Relation, Test, path::shown};
use crate::{
    Invalid, Value,
    json::{self, Json},
    limits::{FILTER_BYTES, FILTER_DEPTH, FILTER_NODES},
};

const FIELD: &str = "query_string";
const AT_THE_TOP: &str = "`$and`, `$or` and `$not`";
const BELOW_A_PATH: &str = "`$eq`, `$ne`, `$gt`, `$gte`, `$lt`, `$lte`, `$in`, `$nin`, `$exists`, `$not`, `$prefix` and `$contains`";

/// How the paths of a filter are read.
pub(super) type PathParser = fn(&'static str, &str) -> Result<Path, Invalid>;

/// Parses a filter.
pub(super) fn filter(text: &str, path: PathParser) -> Result<Expr, Invalid> {
    if text.len() > FILTER_BYTES {
        return Err(refuse(format!(
            "is {} bytes long; at most {FILTER_BYTES} are allowed",
            text.len()
        )));
    }
    if text.is_empty() {
        return Ok(Expr::All(Vec::new()));
    }
    let json = json::parse(text).map_err(refuse)?;
    Measure::default().take(&json, 1)?;
    match &json {
        Json::Object(members) => Parser { path }.filter(members, Sign::Plain),
        _ => Err(refuse(
            "is not a JSON object; a filter looks like {\"a.b\": 1}",
        )),
    }
}

fn refuse(problem: impl Into<String>) -> Invalid {
    Invalid::new(FIELD, problem.into())
}

/// Counts what the limits are about.
#[derive(Default)]
struct Measure {
    nodes: usize,
}

impl Measure {
    /// Takes in a value that, if it is a container, is at this level.
    fn take(&mut self, json: &Json, level: usize) -> Result<(), Invalid> {
        let nodes = match json {
            Json::Array(items) => items.len(),
            Json::Object(members) => members.len(),
            Json::Null | Json::Bool(_) | Json::Integer(_) | Json::Number(_) | Json::String(_) => {
                return Ok(());
            }
        };
        if level > FILTER_DEPTH {
            return Err(refuse(format!(
                "is nested deeper than {FILTER_DEPTH} levels, the outermost object being the first"
            )));
        }
        self.nodes += nodes;
        if self.nodes > FILTER_NODES {
            return Err(refuse(format!(
                "has more than {FILTER_NODES} nodes; every member and array element is one"
            )));
        }
        match json {
            Json::Array(items) => items.iter().try_for_each(|item| self.take(item, level + 1)),
            Json::Object(members) => members
                .iter()
                .try_for_each(|(_, item)| self.take(item, level + 1)),
            Json::Null | Json::Bool(_) | Json::Integer(_) | Json::Number(_) | Json::String(_) => {
                Ok(())
            }
        }
    }
}

/// Whether what is being read stands below an odd number of negations.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    Plain,
    Negated,
}

impl Sign {
    fn flipped(self) -> Self {
        match self {
            Self::Plain => Self::Negated,
            Self::Negated => Self::Plain,
        }
    }

    /// A conjunction under this sign: the negation of "all" is "any not".
    fn all(self, parts: Vec<Expr>) -> Expr {
        match self {
            Self::Plain => single_or(parts, Expr::All),
            Self::Negated => single_or(parts, Expr::Any),
        }
    }

    /// What nothing matches, under this sign.
    fn nothing(self) -> Expr {
        match self {
            Self::Plain => Expr::Any(Vec::new()),
            Self::Negated => Expr::All(Vec::new()),
        }
    }

    fn leaf(self, path: &Path, test: Test) -> Expr {
        Expr::Leaf(Condition {
            path: path.clone(),
            test,
            negated: self == Self::Negated,
        })
    }
}

/// One part stands for itself.
fn single_or(mut parts: Vec<Expr>, join: fn(Vec<Expr>) -> Expr) -> Expr {
    if parts.len() == 1
        && let Some(only) = parts.pop()
    {
        return only;
    }
    join(parts)
}

struct Parser {
    path: PathParser,
}

impl Parser {
    fn filter(&self, members: &[(String, Json)], sign: Sign) -> Result<Expr, Invalid> {
        let parts = members
            .iter()
            .map(|(key, json)| self.member(key, json, sign))
            .collect::<Result<_, _>>()?;
        Ok(sign.all(parts))
    }

    fn member(&self, key: &str, json: &Json, sign: Sign) -> Result<Expr, Invalid> {
        match key {
            "$and" => Ok(sign.all(self.filters(key, json, sign)?)),
            // "Any" is "not all not": under the other sign the same join.
            "$or" => Ok(sign.flipped().all(self.filters(key, json, sign)?)),
            "$not" => match json {
                Json::Object(members) => self.filter(members, sign.flipped()),
                _ => Err(refuse(
                    "has a `$not` that is no filter; it takes an object, as in {\"$not\": {\"a\": 1}}",
                )),
            },
            _ if is_path_operator(key) => Err(refuse(format!(
                "has the operator `{key}` where a path belongs; it stands below one, as in {{\"a\": {{\"{key}\": …}}}}"
            ))),
            _ if key.starts_with('$') => Err(refuse(format!(
                "has the unknown operator `{}`; at the top of a filter stand {AT_THE_TOP}, and a path whose first key starts with `$` is written `\\$…`",
                shown(key)
            ))),
            _ => {
                let path = (self.path)(FIELD, key)?;
                let place = Place {
                    path: &path,
                    shown: shown(key),
                };
                match json {
                    Json::Object(members) if are_operators(members) => {
                        place.operators(members, sign)
                    }
                    value => Ok(sign.leaf(&path, place.equal(value)?)),
                }
            }
        }
    }

    /// The filters that `$and` and `$or` take.
    fn filters(&self, operator: &str, json: &Json, sign: Sign) -> Result<Vec<Expr>, Invalid> {
        let wrong = || {
            refuse(format!(
                "has an `{operator}` that is no non-empty array of filters, as in {{\"{operator}\": [{{\"a\": 1}}]}}"
            ))
        };
        match json {
            Json::Array(items) if !items.is_empty() => items
                .iter()
                .map(|item| match item {
                    Json::Object(members) => self.filter(members, sign),
                    _ => Err(wrong()),
                })
                .collect(),
            _ => Err(wrong()),
        }
    }
}

/// An object is operators if its first member starts with `$`.
fn are_operators(members: &[(String, Json)]) -> bool {
    members.first().is_some_and(|(key, _)| key.starts_with('$'))
}

fn is_path_operator(key: &str) -> bool {
    matches!(
        key,
        "$eq"
            | "$ne"
            | "$gt"
            | "$gte"
            | "$lt"
            | "$lte"
            | "$in"
            | "$nin"
            | "$exists"
            | "$prefix"
            | "$contains"
    )
}

/// A path, and how the caller wrote it.
struct Place<'a> {
    path: &'a Path,
    shown: String,
}

impl Place<'_> {
    fn operators(&self, members: &[(String, Json)], sign: Sign) -> Result<Expr, Invalid> {
        let parts = members
            .iter()
            .map(|(key, json)| self.operator(key, json, sign))
            .collect::<Result<_, _>>()?;
        Ok(sign.all(parts))
    }

    fn operator(&self, key: &str, json: &Json, sign: Sign) -> Result<Expr, Invalid> {
        let leaf = |sign: Sign, test| Ok(sign.leaf(self.path, test));
        match key {
            "$eq" => leaf(sign, self.equal(json)?),
            "$ne" => leaf(sign.flipped(), self.equal(json)?),
            "$in" => self.one_of(key, json, sign),
            "$nin" => self.one_of(key, json, sign.flipped()),
            "$gt" => leaf(sign, self.compare(key, Relation::Above, json)?),
            "$gte" => leaf(sign, self.compare(key, Relation::AtLeast, json)?),
            "$lt" => leaf(sign, self.compare(key, Relation::Below, json)?),
            "$lte" => leaf(sign, self.compare(key, Relation::AtMost, json)?),
            "$prefix" => leaf(sign, Test::Prefix(self.text(key, json)?)),
            "$contains" => leaf(sign, Test::Contains(self.text(key, json)?)),
            "$exists" => match json {
                Json::Bool(true) => leaf(sign, Test::Exists),
                Json::Bool(false) => leaf(sign.flipped(), Test::Exists),
                _ => Err(self.refuse(key, "takes true or false")),
            },
            "$not" => match json {
                Json::Object(members) if are_operators(members) => {
                    self.operators(members, sign.flipped())
                }
                _ => Err(self.refuse(
                    key,
                    "takes an object of operators below a path; not equal is `$ne`",
                )),
            },
            "$and" | "$or" => Err(self.refuse(
                key,
                "stands at the top of a filter and joins filters, not operators",
            )),
            _ if key.starts_with('$') => Err(refuse(format!(
                "has the unknown operator `{}` at `{}`; below a path stand {BELOW_A_PATH}, and a value whose first key starts with `$` goes under `$eq`",
                shown(key),
                self.shown
            ))),
            _ => Err(refuse(format!(
                "has `{}` among the operators at `{}`; when the first member starts with `$`, all must",
                shown(key),
                self.shown
            ))),
        }
    }

    fn equal(&self, json: &Json) -> Result<Test, Invalid> {
        if self.path.root().is_integer() {
            Ok(Test::IntegerIn(vec![self.integer(json)?]))
        } else {
            Ok(Test::In(vec![self.value(json)?]))
        }
    }

    fn one_of(&self, key: &str, json: &Json, sign: Sign) -> Result<Expr, Invalid> {
        let Json::Array(items) = json else {
            return Err(self.refuse(key, "takes an array"));
        };
        if items.is_empty() {
            // Lists are built by programs, and sometimes have nothing in them. Nothing is one of
            // those, wherever the path leads.
            return Ok(sign.nothing());
        }
        let test = if self.path.root().is_integer() {
            let integers = items.iter().map(|item| self.integer(item));
            Test::IntegerIn(integers.collect::<Result<_, _>>()?)
        } else {
            let values = items.iter().map(|item| self.value(item));
            Test::In(values.collect::<Result<_, _>>()?)
        };
        Ok(sign.leaf(self.path, test))
    }

    fn compare(&self, key: &str, relation: Relation, json: &Json) -> Result<Test, Invalid> {
        if self.path.root().is_integer() {
            return Ok(Test::IntegerCompare(relation, self.integer(json)?));
        }
        match self.value(json)? {
            Value::Number(number) => Ok(Test::Compare(relation, Bound::Number(number))),
            Value::String(text) => Ok(Test::Compare(relation, Bound::Text(text))),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                Err(self.refuse(key, "takes a number or a string"))
            }
        }
    }

    fn text(&self, key: &str, json: &Json) -> Result<String, Invalid> {
        if self.path.root().is_integer() {
            return Err(self.refuse(key, "is about strings, and this is an int64 field"));
        }
        match self.value(json)? {
            Value::String(text) => Ok(text),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => Err(self.refuse(key, "takes a string")),
        }
    }

    /// An operand as a value such as could be stored.
    fn value(&self, json: &Json) -> Result<Value, Invalid> {
        if has_nul(json) {
            return Err(refuse(format!(
                "has the character U+0000 at `{}`, which no value has",
                self.shown
            )));
        }
        json.to_value().ok_or_else(|| {
            refuse(format!(
                "has an integer at `{}` that a double cannot hold",
                self.shown
            ))
        })
    }

    /// An operand at an int64 field.
    fn integer(&self, json: &Json) -> Result<i64, Invalid> {
        let integer = match json {
            Json::Integer(integer) => Some(*integer),
            Json::String(text) => decimal(text),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => None,
        };
        integer.ok_or_else(|| {
            refuse(format!(
                "compares `{}` with something other than an int64; give a whole number without fraction or exponent, or its decimal digits as a string",
                self.shown
            ))
        })
    }

    fn refuse(&self, operator: &str, problem: &str) -> Invalid {
        refuse(format!(
            "has `{operator}` at `{}`, which {problem}",
            self.shown
        ))
    }
}

/// The int64 of plain decimal digits, negative or not.
fn decimal(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// Whether U+0000 stands in any key or string. Some databases cannot be handed it even to compare
/// with, and no stored value has it.
fn has_nul(json: &Json) -> bool {
    match json {
        Json::String(text) => text.contains('\0'),
        Json::Array(items) => items.iter().any(has_nul),
        Json::Object(members) => members
            .iter()
            .any(|(key, item)| key.contains('\0') || has_nul(item)),
        Json::Null | Json::Bool(_) | Json::Integer(_) | Json::Number(_) => false,
    }
}
