//! The evaluator against answers worked out by hand and against a second, naive evaluator.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::{corpus::Expected, *};
use crate::{
    Limits, Values,
    json::{self, Json},
    limits::FILTER_BYTES,
};

fn object(text: &str) -> Object {
    let object = json::parse_object(text).unwrap();
    Values::new(object, &Limits::default())
        .unwrap()
        .object()
        .unwrap()
        .clone()
}

#[test]
fn the_corpus_is_answered_as_by_hand() {
    let documents: Vec<_> = corpus::documents()
        .into_iter()
        .map(|(key, text)| (key, object(text)))
        .collect();
    let cases = corpus::cases();
    assert!(cases.len() >= 200, "{}", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        match (Filter::parse_entity(case.filter), case.expect) {
            (Ok(filter), Expected::Keys(expected)) => {
                assert!(expected.is_sorted(), "{}", case.filter);
                let mut found: Vec<_> = documents
                    .iter()
                    .filter(|(_, values)| filter.matches_values(values))
                    .map(|(key, _)| *key)
                    .collect();
                found.sort_unstable();
                if found != expected {
                    wrong.push(format!(
                        "{}\n  is {found:?}\n  not {expected:?}",
                        case.filter
                    ));
                }
            }
            (Err(refused), Expected::Refused(fragment)) => {
                if refused.field != "query_string" || !refused.problem.contains(fragment) {
                    wrong.push(format!("{}\n  is refused by {refused}", case.filter));
                }
            }
            (parsed, expected) => {
                wrong.push(format!(
                    "{}\n  is {parsed:?}\n  not {expected:?}",
                    case.filter
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_corpus_of_events_is_answered_as_by_hand() {
    let events = corpus::events().unwrap();
    let mut wrong = Vec::new();
    for case in corpus::event_cases() {
        match (Filter::parse_event(case.filter), case.expect) {
            (Ok(filter), Expected::Keys(expected)) => {
                let found: Vec<_> = events
                    .iter()
                    .filter(|(_, event)| filter.matches_event(event).unwrap())
                    .map(|(name, _)| *name)
                    .collect();
                if found != expected {
                    wrong.push(format!(
                        "{}\n  is {found:?}\n  not {expected:?}",
                        case.filter
                    ));
                }
            }
            (Err(refused), Expected::Refused(fragment))
                if refused.field == "query_string" && refused.problem.contains(fragment) => {}
            (parsed, expected) => {
                wrong.push(format!(
                    "{}\n  is {parsed:?}\n  not {expected:?}",
                    case.filter
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_length_is_bounded() {
    let of = |len: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(len - 8));
    assert!(Filter::parse_entity(&of(FILTER_BYTES)).is_ok());
    let refused = Filter::parse_entity(&of(FILTER_BYTES + 1)).unwrap_err();
    assert_eq!(refused.field, "query_string");
    assert!(refused.problem.contains("at most 16384"), "{refused}");
}

#[test]
fn everything_is_known_as_such() {
    for all in [
        "",
        "{}",
        r#"{"$and":[{}]}"#,
        r#"{"$or":[{"a":1},{}]}"#,
        r#"{"$not":{"$not":{}}}"#,
    ] {
        assert!(Filter::parse_entity(all).unwrap().is_all(), "{all}");
    }
    for some in [r#"{"a":1}"#, r#"{"$not":{}}"#, r#"{"a":{"$exists":false}}"#] {
        assert!(!Filter::parse_entity(some).unwrap().is_all(), "{some}");
    }
    assert!(Filter::all().is_all());
}

#[test]
fn equality_is_answered_only_where_it_narrows() {
    let key = ["entity", "key"];
    for (filter, expected) in [
        (r#"{"entity.key":"k"}"#, Some("k")),
        (r#"{"entity.key":{"$eq":"k"}}"#, Some("k")),
        (r#"{"entity.key":{"$in":["k"]}}"#, Some("k")),
        (r#"{"version":1,"entity.key":"k"}"#, Some("k")),
        (r#"{"$and":[{"version":1},{"entity.key":"k"}]}"#, Some("k")),
        (r#"{"$or":[{"entity.key":"k"}]}"#, Some("k")),
        (r#"{"$not":{"$not":{"entity.key":"k"}}}"#, Some("k")),
        (r#"{"$not":{"entity.key":{"$ne":"k"}}}"#, Some("k")),
        (
            r#"{"$not":{"$or":[{"version":1},{"entity.key":{"$ne":"k"}}]}}"#,
            Some("k"),
        ),
        ("{}", None),
        (r#"{"entity.key":1}"#, None),
        (r#"{"entity.key":{"$ne":"k"}}"#, None),
        (r#"{"$not":{"entity.key":"k"}}"#, None),
        (r#"{"entity.key":{"$in":["k","l"]}}"#, None),
        (r#"{"entity.key":{"$prefix":"k"}}"#, None),
        (r#"{"$or":[{"entity.key":"k"},{"version":1}]}"#, None),
        (
            r#"{"$not":{"$and":[{"entity.key":{"$ne":"k"}},{"version":1}]}}"#,
            None,
        ),
        (r#"{"entity.values.key":"k"}"#, None),
        (r#"{"method":"k"}"#, None),
    ] {
        let filter = Filter::parse_event(filter).unwrap();
        assert_eq!(filter.equality(&key), expected, "{filter:?}");
    }
    // An array's element could be what is equal.
    let filter = Filter::parse_event(r#"{"entity.values.a":"k"}"#).unwrap();
    assert_eq!(filter.equality(&["entity", "values", "a"]), None);
}

/// The contract once more, read off the text: candidates are collected, negation is negation.
mod naive {
    use super::*;

    pub(super) fn matches(filter: &Json, document: &Value) -> bool {
        let Json::Object(members) = filter else {
            panic!("not a filter: {filter:?}");
        };
        members.iter().all(|(key, operand)| match key.as_str() {
            "$and" => items(operand).iter().all(|f| matches(f, document)),
            "$or" => items(operand).iter().any(|f| matches(f, document)),
            "$not" => !matches(operand, document),
            path => holds(&candidates(path, document), operand),
        })
    }

    fn items(json: &Json) -> &[Json] {
        match json {
            Json::Array(items) => items,
            _ => panic!("not an array: {json:?}"),
        }
    }

    fn holds(candidates: &[Value], wanted: &Json) -> bool {
        match wanted {
            Json::Object(members) if members.first().is_some_and(|(k, _)| k.starts_with('$')) => {
                members
                    .iter()
                    .all(|(operator, operand)| holds_one(candidates, operator, operand))
            }
            value => holds_one(candidates, "$eq", value),
        }
    }

    fn holds_one(candidates: &[Value], operator: &str, operand: &Json) -> bool {
        let any = |test: &dyn Fn(&Value) -> bool| candidates.iter().any(test);
        let text = |test: fn(&[u8], &[u8]) -> bool| {
            any(&|candidate| match (candidate, operand) {
                (Value::String(a), Json::String(b)) => test(a.as_bytes(), b.as_bytes()),
                _ => false,
            })
        };
        let ordered = |test: fn(Ordering) -> bool| {
            any(
                &|candidate| match (candidate, operand.to_value().unwrap()) {
                    (Value::Number(a), Value::Number(b)) => test(a.partial_cmp(&b).unwrap()),
                    (Value::String(a), Value::String(b)) => test(a.as_bytes().cmp(b.as_bytes())),
                    _ => false,
                },
            )
        };
        match operator {
            "$eq" => any(&|candidate| Some(candidate) == operand.to_value().as_ref()),
            "$ne" => !holds_one(candidates, "$eq", operand),
            "$in" => items(operand)
                .iter()
                .any(|o| holds_one(candidates, "$eq", o)),
            "$nin" => !holds_one(candidates, "$in", operand),
            "$gt" => ordered(Ordering::is_gt),
            "$gte" => ordered(Ordering::is_ge),
            "$lt" => ordered(Ordering::is_lt),
            "$lte" => ordered(Ordering::is_le),
            "$prefix" => text(|a, b| a.starts_with(b)),
            "$contains" => text(|a, b| b.is_empty() || a.windows(b.len()).any(|w| w == b)),
            "$exists" => candidates.is_empty() != (*operand == Json::Bool(true)),
            "$not" => !holds(candidates, operand),
            _ => panic!("unknown operator {operator}"),
        }
    }

    fn candidates(path: &str, document: &Value) -> Vec<Value> {
        let mut at = vec![document.clone()];
        for key in segments(path) {
            at = at
                .into_iter()
                .flat_map(|value| match value {
                    Value::Array(items) => items,
                    other => vec![other],
                })
                .filter_map(|value| match value {
                    Value::Object(mut members) => members.remove(&key),
                    _ => None,
                })
                .collect();
        }
        let mut all = at.clone();
        for value in at {
            if let Value::Array(items) = value {
                all.extend(items);
            }
        }
        all
    }

    /// Escaped characters are set aside while the rest is split.
    fn segments(path: &str) -> Vec<String> {
        path.replace(r"\\", "\u{1}")
            .replace(r"\.", "\u{2}")
            .replace(r"\$", "$")
            .split('.')
            .map(|s| s.replace('\u{1}', r"\").replace('\u{2}', "."))
            .collect()
    }
}

#[test]
fn both_evaluators_agree() {
    const PAIRS: u32 = 20_000;
    let matched = Cell::new(0u32);
    let mut runner = TestRunner::new(Config {
        cases: PAIRS,
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(
            &(generate::filter(), generate::document()),
            |(text, document)| {
                let filter = Filter::parse_entity(&text).unwrap();
                let answer = filter.matches_values(&document);
                matched.set(matched.get() + u32::from(answer));
                let json = json::parse(&text).unwrap();
                prop_assert_eq!(answer, naive::matches(&json, &Value::Object(document)));
                Ok(())
            },
        )
        .unwrap();
    let percent = matched.get() * 100 / PAIRS;
    println!("{PAIRS} pairs of filter and document, {percent} % match");
    assert!((35..=65).contains(&percent), "{percent} % match");
}

#[test]
fn both_evaluators_agree_on_the_corpus() {
    for case in corpus::cases() {
        let Ok(filter) = Filter::parse_entity(case.filter) else {
            continue;
        };
        let json = match case.filter {
            "" => Json::Object(Vec::new()),
            text => json::parse(text).unwrap(),
        };
        for (key, text) in corpus::documents() {
            let document = object(text);
            assert_eq!(
                filter.matches_values(&document),
                naive::matches(&json, &Value::Object(document)),
                "{} on {key}",
                case.filter
            );
        }
    }
}

/// Every nested `$not` and every long list must cost its nodes and no more, whatever the document.
#[test]
fn hostile_filters_are_evaluated_in_bounded_time() {
    let short = Value::Array(vec![Value::from("a"); 250_000]);
    let long = Value::Array(vec![Value::String("a".repeat(1_000_000))]);
    let nested = (0..23).fold(Value::from("a"), |inner, _| {
        Value::Array(vec![
            Value::Object(Object::from([("a".to_owned(), inner)]));
            1
        ])
    });
    let wide = Value::Array(vec![
        Value::Array(vec![Value::Object(Object::new()); 10]);
        20_000
    ]);
    let document = Object::from([
        ("s".to_owned(), short),
        ("l".to_owned(), long),
        ("n".to_owned(), nested),
        ("w".to_owned(), wide),
    ]);
    let needle = format!("{}b", "a".repeat(16_000));
    let list = vec!["{}"; 60].join(",");
    for filter in [
        format!(r#"{{"s":{{"$contains":"{needle}"}}}}"#),
        format!(r#"{{"l":{{"$contains":"{needle}"}}}}"#),
        format!(r#"{{"l":{{"$prefix":"{needle}"}}}}"#),
        format!(r#"{{"w":{{"$in":[[{list}]]}}}}"#),
        format!(r#"{{"w":{{"$in":[{list}]}}}}"#),
        format!(r#"{{"n{}":"b"}}"#, ".a".repeat(8_000)),
    ] {
        let filter = Filter::parse_entity(&filter).unwrap();
        let started = Instant::now();
        assert!(!filter.matches_values(&document));
        // Unoptimised and on a busy machine; quadratic work would take minutes.
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in r#"[{}\[\]":,$a-c0-9\\. ]{0,40}|.*"#) {
        let _ = Filter::parse_entity(&text);
        let _ = Filter::parse_event(&text);
    }

    /// Entity filters mean the same over the values of an event.
    #[test]
    fn entity_filters_hold_of_an_events_values(text in generate::filter(), document in generate::document()) {
        let filter = Filter::parse_entity(&text).unwrap();
        let (_, event) = corpus::events().unwrap().remove(0);
        let event = Event {
            values: Values::new(document.clone(), &Limits::default()).unwrap(),
            ..event
        };
        prop_assert_eq!(filter.matches_event(&event), Ok(filter.matches_values(&document)));
    }
}
