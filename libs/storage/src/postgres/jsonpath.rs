//! Filters as far as PostgreSQL can judge them: one `jsonpath` for all conditions on one document.
//!
//! It may match more than the filter and never less; the model's evaluator decides every row. A
//! path is a bound parameter as a whole, never a part of a statement's text, and keys and strings stand in
//! it as JSON strings. They stand in it, rather than beside it as variables, because an index serves
//! only paths without variables.
//!
//! The lax mode of `jsonpath` is what contract §5 says of arrays: a key asked of an array is asked of
//! its elements, one level deep, and so is a test. (A comparison within a test would go one level deeper
//! still, hence the tests of types.) What it cannot say is equality with an array or object.

use std::fmt::Write as _;

use stategate_model::{
    Path, Value,
    filter::{Bound, Condition, Expr, Filter, Relation, Root, Test},
    json,
};

/// Longest `$contains` that is handed over: the server makes an automaton of it.
const CONTAINS_BYTES: usize = 256;
const IS_STRING: &str = "@.type() == \"string\"";

/// The `jsonpath` that finds something in each document at `root` that `filter` matches; `None` if it
/// would find something in all of them, as far as one can see.
pub(super) fn narrowing(filter: &Filter, root: Root) -> Option<String> {
    Some(format!("$ ? ({})", predicate(filter.expr(), root)?))
}

/// `None` stands for what is always true.
fn predicate(expr: &Expr, root: Root) -> Option<String> {
    match expr {
        Expr::All(parts) => {
            let parts: Vec<String> = parts
                .iter()
                .filter_map(|part| predicate(part, root))
                .collect();
            (!parts.is_empty()).then(|| parts.join(" && "))
        }
        Expr::Any(parts) => {
            let parts: Option<Vec<String>> =
                parts.iter().map(|part| predicate(part, root)).collect();
            match parts? {
                parts if parts.is_empty() => Some("1 == 0".to_owned()),
                parts => Some(format!("({})", parts.join(" || "))),
            }
        }
        Expr::Leaf(condition) => leaf(condition, root),
    }
}

fn leaf(condition: &Condition, root: Root) -> Option<String> {
    if condition.path.root() != root {
        return None;
    }
    let at = accessor("@", &condition.path);
    let (test, is_exact) = test(&condition.test)?;
    let exists = match test {
        Some(test) => format!("exists({at} ? ({test}))"),
        None => format!("exists({at})"),
    };
    match (condition.negated, is_exact) {
        (false, _) => Some(exists),
        (true, true) => Some(format!("!({exists})")),
        (true, false) => None,
    }
}

/// What a candidate must pass (nothing: to be there), and whether that is all there is to the test.
/// `None` where nothing can be said.
fn test(test: &Test) -> Option<(Option<String>, bool)> {
    let exact = |test| Some((Some(test), true));
    match test {
        Test::Exists => Some((None, true)),
        Test::In(values) => {
            let equals: Option<Vec<String>> = values.iter().map(equal).collect();
            match equals {
                Some(equals) => exact(format!(
                    "@.type() != \"array\" && ({})",
                    equals.join(" || ")
                )),
                None => Some((None, false)),
            }
        }
        Test::Compare(relation, bound) => {
            let sign = match relation {
                Relation::Above => ">",
                Relation::AtLeast => ">=",
                Relation::Below => "<",
                Relation::AtMost => "<=",
            };
            exact(match bound {
                Bound::Number(number) => {
                    let number = json::canonical_value(&Value::Number(*number));
                    format!("@.type() == \"number\" && @ {sign} {number}")
                }
                Bound::Text(text) => format!("{IS_STRING} && @ {sign} {}", string(text)),
            })
        }
        Test::Prefix(prefix) => exact(format!("{IS_STRING} && @ starts with {}", string(prefix))),
        Test::Contains(part) if part.is_empty() || part.len() > CONTAINS_BYTES => {
            Some((Some(IS_STRING.to_owned()), part.is_empty()))
        }
        Test::Contains(part) => exact(format!(
            "{IS_STRING} && @ like_regex {} flag \"q\"",
            string(part)
        )),
        // Of fields of an event that are no documents.
        Test::IntegerIn(_) | Test::IntegerCompare(..) => None,
    }
}

/// Equality with a scalar; arrays and objects are never equal to anything in a `jsonpath`.
fn equal(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            Some(format!("@ == {}", json::canonical_value(value)))
        }
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// The way from `start` along the path's keys.
pub(super) fn accessor(start: &str, path: &Path) -> String {
    keys(start, path.below())
}

fn keys(start: &str, segments: &[String]) -> String {
    let mut accessor = start.to_owned();
    for segment in segments {
        let _ = write!(accessor, ".{}", string(segment));
    }
    accessor
}

/// Finds something if the path, or a part of it, leads to an array; `None` for a path without keys.
pub(super) fn meets_array(path: &Path) -> Option<String> {
    let segments = path.below();
    let tests: Vec<String> = (1..=segments.len())
        .filter_map(|n| segments.get(..n))
        .map(|part| format!("{}.type() == \"array\"", keys("@", part)))
        .collect();
    (!tests.is_empty()).then(|| format!("$ ? ({})", tests.join(" || ")))
}

/// A string as `jsonpath` reads it, which is as JSON writes it.
fn string(text: &str) -> String {
    json::canonical_value(&Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(filter: &str) -> Option<String> {
        narrowing(&Filter::parse_entity(filter).unwrap(), Root::Values)
    }

    #[test]
    fn strings_stay_strings() {
        assert_eq!(
            entity(r#"{"a\\.b\".c":"\" || true || \""}"#).unwrap(),
            r#"$ ? (exists(@."a.b\""."c" ? (@.type() != "array" && (@ == "\" || true || \""))))"#
        );
    }

    #[test]
    fn what_cannot_be_said_exactly_says_more_and_never_less() {
        assert_eq!(entity("{}"), None);
        assert_eq!(
            entity(r#"{"a":[1]}"#).unwrap(),
            r#"$ ? (exists(@."a"))"#,
            "it must at least be there"
        );
        assert_eq!(entity(r#"{"a":{"$ne":[1]}}"#), None);
        assert_eq!(entity(r#"{"$or":[{"a":1},{"b":{"$ne":{}}}]}"#), None);
        assert_eq!(
            entity(r#"{"a":{"$ne":1},"b":{"$ne":[]}}"#).unwrap(),
            r#"$ ? (!(exists(@."a" ? (@.type() != "array" && (@ == 1)))))"#
        );
    }

    #[test]
    fn conditions_on_other_documents_count_as_true() {
        let filter = Filter::parse_event(
            r#"{"entity.values.a":1,"claims.sub":"x","version":3,"method":{"$contains":"Set"}}"#,
        )
        .unwrap();
        assert_eq!(
            narrowing(&filter, Root::Values).unwrap(),
            r#"$ ? (exists(@."a" ? (@.type() != "array" && (@ == 1))))"#
        );
        assert_eq!(
            narrowing(&filter, Root::Claims).unwrap(),
            r#"$ ? (exists(@."sub" ? (@.type() != "array" && (@ == "x"))))"#
        );
    }
}
