//! Searching current states: what is found, and in which order.

use stategate_model::{EntityRef, KindRef, PageRequest, limits};

use super::world::{World, by_value, entity, entity_query, page, values};
use crate::ErrorKind;

pub(super) async fn finds_its_kind_alone_in_order_of_keys(world: World) {
    for key in ["b", "a", "c", "B", "aa", "é", "z"] {
        world
            .set(&entity(key), &format!(r#"{{"key":"{key}"}}"#))
            .await;
    }
    for (domain, kind) in [
        ("accounting", "group"),
        ("accounting", "use"),
        ("accounting", "users"),
        ("account", "user"),
    ] {
        world
            .set(&EntityRef::new(domain, kind, "stranger").unwrap(), "{}")
            .await;
    }
    assert_eq!(
        world.keys(&entity_query("")).await,
        ["B", "a", "aa", "b", "c", "z", "é"]
    );
    for found in world.entities(&entity_query("")).await.items {
        assert_eq!(
            found.values,
            values(&format!(r#"{{"key":"{}"}}"#, found.entity.key()))
        );
        assert_eq!(
            (found.entity.domain(), found.entity.kind()),
            ("accounting", "user")
        );
        assert_eq!(found.version.get(), 1);
    }
    let mut query = entity_query("");
    query.of = KindRef::new("accounting", "nothing").unwrap();
    assert_eq!(world.keys(&query).await, Vec::<String>::new());
}

pub(super) async fn sees_the_newest_values_alone(world: World) {
    let query = entity_query(r#"{"state":"open"}"#);
    let a = entity("a");
    world.set(&a, r#"{"state":"open"}"#).await;
    world.set(&entity("b"), r#"{"state":"closed"}"#).await;
    assert_eq!(world.keys(&query).await, ["a"]);
    world.set(&a, r#"{"state":"closed"}"#).await;
    assert_eq!(world.keys(&query).await, Vec::<String>::new());
    world.set(&a, r#"{"state":"open"}"#).await;
    assert_eq!(world.keys(&query).await, ["a"]);
    assert_eq!(world.entities(&query).await.items[0].version.get(), 3);
    world.del(&a).await;
    assert_eq!(world.keys(&query).await, Vec::<String>::new());
    assert_eq!(world.keys(&entity_query("")).await, ["b"]);
}

pub(super) async fn many_versions_do_not_hide_an_entity(world: World) {
    for (key, changes) in [
        ("a", 1),
        ("b", 100),
        ("c", 16),
        ("d", 17),
        ("e", 18),
        ("f", 2),
        ("g", 250),
        ("h", 8),
        ("i", 9),
        ("j", 10),
    ] {
        let mut draft = world.next().await;
        for n in 1..=changes {
            draft.set(&entity(key), &format!(r#"{{"n":{n}}}"#)).await;
        }
        draft.commit().await;
    }
    world.del(&entity("b")).await;
    world.del(&entity("f")).await;
    let found = world.entities(&entity_query("")).await.items;
    let found: Vec<_> = found
        .iter()
        .map(|found| (found.entity.key(), found.version.get()))
        .collect();
    assert_eq!(
        found,
        [
            ("a", 1),
            ("c", 16),
            ("d", 17),
            ("e", 18),
            ("g", 250),
            ("h", 8),
            ("i", 9),
            ("j", 10)
        ]
    );
    assert_eq!(world.keys(&entity_query(r#"{"n":250}"#)).await, ["g"]);
    assert_eq!(
        world.keys(&entity_query(r#"{"n":99}"#)).await,
        Vec::<String>::new()
    );
}

/// Keys and values in their order, ties by key.
const MIXED: [(&str, &str); 22] = [
    ("a-missing", r#"{}"#),
    ("b-null", r#"{"v":null}"#),
    ("c-missing", r#"{"w":1}"#),
    ("d-false", r#"{"v":false}"#),
    ("a-true", r#"{"v":true}"#),
    ("z-number", r#"{"v":-1e300}"#),
    ("y-number", r#"{"v":-1}"#),
    ("w-zero", r#"{"v":0}"#),
    ("x-zero", r#"{"v":-0.0}"#),
    ("v-number", r#"{"v":0.5}"#),
    ("u-number", r#"{"v":9}"#),
    ("t-number", r#"{"v":10}"#),
    ("b-empty", r#"{"v":""}"#),
    ("r-text", r#"{"v":"10"}"#),
    ("q-text", r#"{"v":"9"}"#),
    ("p-text", r#"{"v":"Z"}"#),
    ("o-text", r#"{"v":"a"}"#),
    ("n-text", r#"{"v":"é"}"#),
    ("m-text", r#"{"v":"～"}"#),
    ("l-text", r#"{"v":"😀"}"#),
    ("a-array", r#"{"v":[0]}"#),
    ("b-object", r#"{"v":{"a":1}}"#),
];

pub(super) async fn sorts_mixed_kinds(world: World) {
    let mut order: Vec<&(&str, &str)> = MIXED.iter().collect();
    // Written in another order than they are found in.
    order.sort_by_key(|(key, json)| (json.len(), *key));
    for (key, json) in order {
        world.set(&entity(key), json).await;
    }
    let expected: Vec<&str> = MIXED.iter().map(|(key, _)| *key).collect();
    let mut query = entity_query("");
    query.sort = by_value("v", false);
    assert_eq!(world.keys(&query).await, expected);
    query.sort = by_value("v", true);
    let reversed: Vec<&str> = expected.iter().rev().copied().collect();
    assert_eq!(world.keys(&query).await, reversed);
    for found in world.entities(&query).await.items {
        let json = MIXED
            .iter()
            .find(|(key, _)| *key == found.entity.key())
            .unwrap()
            .1;
        assert_eq!(found.values, values(json));
    }
    // Long strings count by their first 1,024 bytes.
    let same = "s".repeat(limits::SORT_STRING_BYTES);
    for (key, tail) in [("1", "z"), ("2", ""), ("3", "a")] {
        world
            .set(&entity(key), &format!(r#"{{"long":"{same}{tail}"}}"#))
            .await;
    }
    let mut query = entity_query(r#"{"long":{"$exists":true}}"#);
    query.sort = by_value("long", false);
    assert_eq!(world.keys(&query).await, ["1", "2", "3"]);
    query.sort = by_value("long", true);
    assert_eq!(world.keys(&query).await, ["3", "2", "1"]);
}

pub(super) async fn limits_and_offsets_cut_the_same_order(world: World) {
    let mut draft = world.next().await;
    for n in 0..60 {
        let json = format!(r#"{{"n":{},"odd":{}}}"#, (n * 37) % 60 / 4, n % 2 == 1);
        draft.set(&entity(&format!("e{n:02}")), &json).await;
    }
    draft.commit().await;
    for filter in ["", r#"{"odd":true}"#] {
        for sort in [
            None,
            by_value("n", false),
            by_value("n", true),
            by_value("odd", true),
        ] {
            let mut query = entity_query(filter);
            query.sort = sort;
            let all = world.keys(&query).await;
            assert_eq!(all.len(), if filter.is_empty() { 60 } else { 30 });
            for (limit, offset) in [
                (1, 0),
                (7, 0),
                (7, 7),
                (10, 25),
                (5, 58),
                (5, 60),
                (5, 1_000),
                (60, 0),
            ] {
                query.page = PageRequest::new(limit, offset, None).unwrap();
                let page = world.entities(&query).await;
                let from = usize::try_from(offset).unwrap().min(all.len());
                let to = (from + usize::try_from(limit).unwrap()).min(all.len());
                let keys: Vec<_> = page.items.iter().map(|found| found.entity.key()).collect();
                assert_eq!(
                    keys,
                    all[from..to],
                    "limit {limit} offset {offset} of {query:?}"
                );
                assert_eq!(
                    page.next.is_some(),
                    to < all.len(),
                    "limit {limit} offset {offset}"
                );
            }
        }
    }
}

pub(super) async fn a_window_that_is_too_large_is_refused(world: World) {
    world.set(&entity("a"), "{}").await;
    let mut query = entity_query("");
    let above = i32::try_from(limits::SORT_WINDOW).unwrap();
    query.page = PageRequest::new(100, above, None).unwrap();
    assert_eq!(
        world.entities(&query).await.items,
        [],
        "without a sort nothing is held"
    );
    query.sort = by_value("n", false);
    let error = world.store.search_entities(&query).await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Invalid(invalid) if invalid.field == "offset"),
        "{error}"
    );
    query.page = PageRequest::new(100, above - 100, None).unwrap();
    assert_eq!(world.entities(&query).await.items, []);
    query.page = page(1);
    assert_eq!(world.entities(&query).await.items.len(), 1);
}
