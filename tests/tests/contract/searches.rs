//! Searches of entities and events: filters, order, limits (contract §5).

use stategate_protocol::pb::{self, Sort};
use stategate_tests::{
    Ask,
    ask::{etag, invalid, refused},
};
use tonic::Code;

use crate::in_every_form;

const PLANES: &[(&str, &str)] = &[
    (
        "a",
        r#"{"maker":"EMBRAER","seats":55,"tags":["x","y"],"owner":{"name":"Ada"}}"#,
    ),
    (
        "b",
        r#"{"maker":"EMBRAER","seats":20,"tags":[],"owner":null}"#,
    ),
    ("c", r#"{"maker":"BOEING","seats":149,"tags":"x"}"#),
    ("d", r#"{"maker":"AIRBUS","seats":"182","a.b":1}"#),
    (
        "e",
        r#"{"maker":null,"seats":55.5,"tags":[["x"]],"owner":[{"name":"Bob"},{"name":"Ada"}]}"#,
    ),
    ("f", r#"{"seats":true}"#),
];

async fn fill(ask: &Ask) {
    for (key, values) in PLANES {
        ask.set(&format!("faa/plane/{key}"), values).await.unwrap();
        // Neighbours that no search of faa/plane may find.
        ask.set(&format!("faa/planes/{key}"), values).await.unwrap();
        ask.set(&format!("fa/plane/{key}"), values).await.unwrap();
    }
    ask.set("faa/plane/gone", r#"{"maker":"EMBRAER","seats":99}"#)
        .await
        .unwrap();
    ask.del("faa/plane/gone").await.unwrap();
}

fn planes(filter: &str) -> pb::SearchEntityOpts {
    pb::SearchEntityOpts {
        domain: "faa".into(),
        r#type: "plane".into(),
        query_string: filter.into(),
        ..pb::SearchEntityOpts::default()
    }
}

fn sorted(field: &str, reverse: bool) -> pb::SearchEntityOpts {
    pb::SearchEntityOpts {
        sort: Some(Sort {
            field: field.into(),
            reverse,
        }),
        ..planes("")
    }
}

/// The keys found, one letter each.
async fn keys(ask: &Ask, opts: pb::SearchEntityOpts) -> String {
    let found = ask.search(opts).await.unwrap();
    assert_eq!(etag(&found), None);
    let found = found.into_inner();
    assert!(found.next_page_token.is_empty());
    found
        .entities
        .into_iter()
        .map(|entity| entity.key)
        .collect()
}

#[tokio::test]
async fn a_filter_has_one_meaning() {
    in_every_form(async |ask| {
        fill(&ask).await;
        for (filter, expected) in [
            ("", "abcdef"),
            ("{}", "abcdef"),
            (r#"{"maker":"EMBRAER"}"#, "ab"),
            (r#"{"maker":"EMBRAER","seats":{"$gte":50}}"#, "a"),
            (r#"{"seats":{"$gt":20,"$lte":55.5}}"#, "ae"),
            // Numbers with numbers, strings with strings, nothing else.
            (r#"{"seats":{"$gte":"0"}}"#, "d"),
            (r#"{"seats":{"$lt":1000}}"#, "abce"),
            // Missing is not null, and matches what it is not.
            (r#"{"maker":null}"#, "e"),
            (r#"{"maker":{"$exists":false}}"#, "f"),
            (r#"{"maker":{"$ne":"EMBRAER"}}"#, "cdef"),
            (r#"{"maker":{"$nin":["EMBRAER",null]}}"#, "cdf"),
            (r#"{"maker":{"$in":["BOEING","AIRBUS"]}}"#, "cd"),
            // Of an empty list nothing is one, and everything is none.
            (r#"{"maker":{"$in":[]}}"#, ""),
            (r#"{"maker":{"$nin":[]}}"#, "abcdef"),
            (r#"{"$not":{"maker":{"$in":[]}}}"#, "abcdef"),
            (r#"{"seats":{"$not":{"$nin":[]}}}"#, ""),
            (r#"{"$or":[{"maker":{"$in":[]}},{"seats":20}]}"#, "b"),
            // An array is entered one level; the whole is a candidate too.
            (r#"{"tags":"x"}"#, "ac"),
            (r#"{"tags":["x"]}"#, "e"),
            (r#"{"tags":["x","y"]}"#, "a"),
            (r#"{"tags":[]}"#, "b"),
            (r#"{"owner.name":"Ada"}"#, "ae"),
            (r#"{"owner.name":{"$exists":true}}"#, "ae"),
            (r#"{"a\\.b":1}"#, "d"),
            (r#"{"a.b":1}"#, ""),
            (r#"{"maker":{"$prefix":"EMB"}}"#, "ab"),
            (r#"{"maker":{"$contains":"B"}}"#, "abcd"),
            (r#"{"$or":[{"seats":20},{"maker":"BOEING"}]}"#, "bc"),
            (r#"{"$and":[{"seats":20},{"maker":"BOEING"}]}"#, ""),
            (r#"{"$not":{"maker":"EMBRAER"}}"#, "cdef"),
            (r#"{"seats":{"$not":{"$gt":20}}}"#, "bdf"),
            (r#"{"owner":{"name":"Ada"}}"#, "ae"),
        ] {
            assert_eq!(keys(&ask, planes(filter)).await, expected, "{filter}");
        }
        for bad in [
            "x",
            "[]",
            "null",
            "1",
            "{",
            r#"{"a":1,"a":2}"#,
            r#"{"$where":"1"}"#,
            r#"{"a":{"$regex":"x"}}"#,
            r#"{"a":{"$gt":null}}"#,
            r#"{"a":{"$in":1}}"#,
            r#"{"a":{"$nin":{}}}"#,
            r#"{"$or":[]}"#,
            r#"{"$not":[]}"#,
            r#"{"a":{"$exists":1}}"#,
            r#"{"a":{"$eq":1,"b":1}}"#,
            r#"{"a":9007199254740993}"#,
            r#"{"a":"\u0000"}"#,
            r#"{"a":{"$prefix":1}}"#,
            r#"{"a\\x":1}"#,
        ] {
            invalid(ask.search(planes(bad)).await, "query_string");
        }
        let text = pb::SearchEntityOpts {
            text: "embraer".into(),
            ..planes("")
        };
        let disabled = ask.search(text).await;
        refused(disabled, Code::FailedPrecondition, "INDEX_DISABLED");
    })
    .await;
}

#[tokio::test]
async fn found_entities_are_whole() {
    in_every_form(async |ask| {
        fill(&ask).await;
        ask.edit("faa/plane/c", r#"{"seats":150}"#).await.unwrap();
        let found = ask
            .search(planes(r#"{"seats":150}"#))
            .await
            .unwrap()
            .into_inner();
        let got = ask.get("faa/plane/c").await.unwrap().into_inner();
        assert_eq!(got.version, 2);
        assert_eq!(found.entities, [got], "version and all");
    })
    .await;
}

#[tokio::test]
async fn results_are_in_order() {
    in_every_form(async |ask| {
        fill(&ask).await;
        for (field, forward) in [
            // Missing, false, true, numbers, strings; ties by key.
            ("seats", "fbaecd"),
            ("maker", "efdcab"),
            // What meets an array sorts as an array, and these are all equal.
            ("tags", "dfcabe"),
            ("owner.name", "bcdfae"),
            ("nothing", "abcdef"),
        ] {
            assert_eq!(keys(&ask, sorted(field, false)).await, forward, "{field}");
            let backward: String = forward.chars().rev().collect();
            assert_eq!(
                keys(&ask, sorted(field, true)).await,
                backward,
                "all is reversed"
            );
        }
        let part = pb::SearchEntityOpts {
            limit: 2,
            offset: 3,
            ..sorted("seats", false)
        };
        let part = ask.search(part).await.unwrap().into_inner();
        let part: String = part.entities.into_iter().map(|entity| entity.key).collect();
        assert_eq!(part, "ec");
        assert_eq!(
            keys(
                &ask,
                pb::SearchEntityOpts {
                    offset: 4,
                    ..planes("")
                }
            )
            .await,
            "ef"
        );
        assert_eq!(
            keys(
                &ask,
                pb::SearchEntityOpts {
                    offset: i32::MAX,
                    ..planes("")
                }
            )
            .await,
            ""
        );
        // A Sort with nothing set is what generated clients send for none.
        assert_eq!(keys(&ask, sorted("", false)).await, "abcdef");
        invalid(ask.search(sorted("", true)).await, "sort.field");
    })
    .await;
}

#[tokio::test]
async fn limits_are_what_they_say() {
    in_every_form(async |ask| {
        for n in 0..120 {
            ask.set(&format!("faa/plane/{n:03}"), "{}").await.unwrap();
        }
        let count = async |limit| {
            let opts = pb::SearchEntityOpts {
                limit,
                ..planes("")
            };
            let found = ask.search(opts).await.unwrap().into_inner();
            (found.entities.len(), !found.next_page_token.is_empty())
        };
        assert_eq!(count(0).await, (100, true), "0 means 100");
        assert_eq!(count(1).await, (1, true));
        assert_eq!(count(119).await, (119, true));
        assert_eq!(count(120).await, (120, false), "the last page says so");
        assert_eq!(count(10_000).await, (120, false));
        let of_events = |limit, offset| pb::SearchEventOpts {
            domain: "faa".into(),
            r#type: "plane".into(),
            limit,
            offset,
            ..pb::SearchEventOpts::default()
        };
        for limit in [-1, 10_001, i32::MIN, i32::MAX] {
            let opts = pb::SearchEntityOpts {
                limit,
                ..planes("")
            };
            invalid(ask.search(opts).await, "limit");
            invalid(ask.history(of_events(limit, 0)).await, "limit");
        }
        for offset in [-1, i32::MIN] {
            let opts = pb::SearchEntityOpts {
                offset,
                ..planes("")
            };
            invalid(ask.search(opts).await, "offset");
            invalid(ask.history(of_events(0, offset)).await, "offset");
        }
        let events = ask.history(of_events(0, 115)).await.unwrap().into_inner();
        let positions = events.events.iter().map(|event| event.position);
        assert_eq!(positions.collect::<Vec<_>>(), [116, 117, 118, 119, 120]);
    })
    .await;
}

fn events(filter: &str) -> pb::SearchEventOpts {
    pb::SearchEventOpts {
        domain: "d".into(),
        r#type: "t".into(),
        query_string: filter.into(),
        ..pb::SearchEventOpts::default()
    }
}

/// The versions of the events found of `d/t`, one digit each.
async fn versions(ask: &Ask, opts: pb::SearchEventOpts) -> String {
    let found = ask.history(opts).await.unwrap().into_inner().events;
    let names = found.iter().map(|event| {
        let key = &event.entity.as_ref().unwrap().key;
        format!("{key}{}", event.version)
    });
    names.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn events_are_found_by_what_they_hold() {
    in_every_form(async |ask| {
        ask.set("d/t/j", r#"{"n":1}"#).await.unwrap();
        ask.set("d/t/k", r#"{"n":2}"#).await.unwrap();
        ask.edit("d/t/j", r#"{"m":["x"]}"#).await.unwrap();
        ask.del("d/t/k").await.unwrap();
        ask.set("d/u/j", "{}").await.unwrap();
        let all = ask.history(events("")).await.unwrap().into_inner().events;
        let time = |n: usize| all[n].time;
        let (lane, id) = (all[0].lane, all[1].id.clone());
        for (filter, expected) in [
            ("", "j1 k1 j2 k2".to_owned()),
            (r#"{"entity.key":"j"}"#, "j1 j2".to_owned()),
            (r#"{"entity.values.n":1}"#, "j1 j2".to_owned()),
            (r#"{"entity.values.m":"x"}"#, "j2".to_owned()),
            (
                r#"{"method":"/stategate.EntityService/Del"}"#,
                "k2".to_owned(),
            ),
            (
                r#"{"claims.sub":{"$exists":false}}"#,
                "j1 k1 j2 k2".to_owned(),
            ),
            // int64 fields: exact integers, or their digits.
            (r#"{"version":2}"#, "j2 k2".to_owned()),
            (r#"{"version":"2"}"#, "j2 k2".to_owned()),
            (r#"{"position":{"$gt":1,"$lt":"4"}}"#, "k1 j2".to_owned()),
            (&format!(r#"{{"time":{}}}"#, time(1)), "k1".to_owned()),
            (&format!(r#"{{"time":"{}"}}"#, time(1)), "k1".to_owned()),
            // Never through a double, which would not tell these apart.
            (
                &format!(
                    r#"{{"time":{{"$in":[{},"{}"]}}}}"#,
                    time(2) - 1,
                    time(2) + 1
                ),
                String::new(),
            ),
            (
                &format!(r#"{{"time":{{"$gte":{}}}}}"#, time(2) + 1),
                "k2".to_owned(),
            ),
            (&format!(r#"{{"lane":{lane}}}"#), "j1 k1 j2 k2".to_owned()),
            (&format!(r#"{{"lane":{{"$ne":{lane}}}}}"#), String::new()),
            (r#"{"position":9007199254740993}"#, String::new()),
            (
                r#"{"position":{"$lte":9223372036854775807}}"#,
                "j1 k1 j2 k2".to_owned(),
            ),
            (&format!(r#"{{"id":"{id}"}}"#), "k1".to_owned()),
        ] {
            assert_eq!(versions(&ask, events(filter)).await, expected, "{filter}");
        }
        for bad in [
            r#"{"version":1.0}"#,
            r#"{"version":1e0}"#,
            r#"{"version":"1.0"}"#,
            r#"{"version":"x"}"#,
            r#"{"version":null}"#,
            r#"{"time":9223372036854775808}"#,
            r#"{"position":{"$prefix":"1"}}"#,
            r#"{"nothing":1}"#,
            r#"{"entity.version":1}"#,
        ] {
            invalid(ask.history(events(bad)).await, "query_string");
        }

        for (min, max, expected) in [
            (0, 0, "j1 k1 j2 k2"),
            (time(1), 0, "k1 j2 k2"),
            (time(1), time(2), "k1 j2"),
            (0, time(1), "j1 k1"),
            (0, time(1) - 1, "j1"),
            (time(1) + 1, 0, "j2 k2"),
            (time(2), time(1), ""),
            (i64::MAX, 0, ""),
        ] {
            let opts = pb::SearchEventOpts {
                min,
                max,
                ..events("")
            };
            assert_eq!(versions(&ask, opts).await, expected, "both are inclusive");
        }
        for (field, reverse, expected) in [
            ("position", true, "k2 j2 k1 j1"),
            ("entity.key", false, "j1 j2 k1 k2"),
            ("entity.key", true, "k2 k1 j2 j1"),
            ("version", false, "j1 k1 j2 k2"),
            ("method", false, "k2 j2 j1 k1"),
        ] {
            let field = field.into();
            let sort = Some(Sort { field, reverse });
            let opts = pb::SearchEventOpts { sort, ..events("") };
            assert_eq!(versions(&ask, opts).await, expected);
        }
    })
    .await;
}
