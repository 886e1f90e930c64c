//! Searching the history: what is found, and in which order.

use stategate_model::{EntityRef, Event, EventQuery, KindRef, PageRequest, Timestamp, limits};

use super::world::{TICK, World, by_event, entity, event_query, values};
use crate::ErrorKind;

async fn positions(world: &World, query: &EventQuery) -> Vec<u64> {
    let page = world.events(query).await;
    assert_eq!(page.next, None, "the page holds everything");
    let log = world.log(world.lane()).await;
    for event in &page.items {
        assert_eq!(log.iter().find(|logged| logged.id == event.id), Some(event));
    }
    page.items
        .iter()
        .map(|event| event.position.get())
        .collect()
}

pub(super) async fn finds_its_kind_alone_in_order_of_positions(world: World) {
    let neighbour = EntityRef::new("accounting", "group", "a").unwrap();
    let other = EntityRef::new(&world.domain_in(world.lane(), 0), "user", "a").unwrap();
    for key in ["b", "a", "b"] {
        world.set(&entity(key), "{}").await;
        world.set(&neighbour, "{}").await;
        world.set(&other, "{}").await;
    }
    world.del(&entity("a")).await;
    assert_eq!(positions(&world, &event_query("")).await, [1, 4, 7, 10]);
    let mut query = event_query("");
    query.of = KindRef::new("accounting", "group").unwrap();
    assert_eq!(positions(&world, &query).await, [2, 5, 8]);
    query.of = KindRef::new("accounting", "nothing").unwrap();
    assert_eq!(positions(&world, &query).await, Vec::<u64>::new());
}

pub(super) async fn times_are_inclusive(world: World) {
    let mut draft = world.next().await;
    for n in 0..9 {
        draft
            .set(&entity(&format!("e{}", n % 2)), &format!(r#"{{"n":{n}}}"#))
            .await;
    }
    let events = draft.commit().await;
    let find = async |min: Option<i64>, max: Option<i64>, filter: &str| {
        let mut query = event_query(filter);
        query.min = min.map(Timestamp);
        query.max = max.map(Timestamp);
        positions(&world, &query).await
    };
    let (third, sixth) = (events[2].time.0, events[5].time.0);
    let all: Vec<u64> = (1..=9).collect();
    assert_eq!(find(None, None, "").await, all);
    assert_eq!(find(Some(third), Some(sixth), "").await, [3, 4, 5, 6]);
    assert_eq!(find(Some(third + 1), Some(sixth - 1), "").await, [4, 5]);
    assert_eq!(
        find(Some(third - 1), Some(sixth + 1), "").await,
        [3, 4, 5, 6]
    );
    assert_eq!(find(Some(third), Some(third), "").await, [3]);
    assert_eq!(
        find(Some(third + 1), Some(third + TICK - 1), "").await,
        Vec::<u64>::new()
    );
    assert_eq!(find(Some(sixth), Some(third), "").await, Vec::<u64>::new());
    assert_eq!(find(Some(sixth), None, "").await, [6, 7, 8, 9]);
    assert_eq!(find(None, Some(third), "").await, [1, 2, 3]);
    assert_eq!(find(Some(i64::MIN), Some(i64::MAX), "").await, all);
    assert_eq!(find(Some(i64::MAX), None, "").await, Vec::<u64>::new());
    assert_eq!(find(None, Some(i64::MIN), "").await, Vec::<u64>::new());
    // Together with a filter, one that an index may answer included.
    let by_key = r#"{"entity.key":"e0"}"#;
    assert_eq!(find(Some(third), Some(sixth), by_key).await, [3, 5]);
    assert_eq!(find(Some(third + 1), Some(sixth), by_key).await, [5]);
    let by_value = r#"{"entity.values.n":{"$gte":4}}"#;
    assert_eq!(find(Some(third), Some(sixth), by_value).await, [5, 6]);
}

pub(super) async fn one_entitys_events_are_found_by_its_key(world: World) {
    let (a, b) = (entity("a"), entity("b"));
    for n in 0..12 {
        let entity = if n % 3 == 0 { &b } else { &a };
        world.set(entity, &format!(r#"{{"n":{n}}}"#)).await;
    }
    world.del(&b).await;
    for (filter, expected) in [
        (r#"{"entity.key":"b"}"#, vec![1, 4, 7, 10, 13]),
        (
            r#"{"entity.key":"b","entity.values.n":{"$lt":6}}"#,
            vec![1, 4],
        ),
        (
            r#"{"entity.key":"b","method":"/stategate.EntityService/Del"}"#,
            vec![13],
        ),
        (r#"{"entity.key":{"$in":["b"]}}"#, vec![1, 4, 7, 10, 13]),
        (
            r#"{"$and":[{"entity.key":"b"},{"version":{"$gt":3}}]}"#,
            vec![10, 13],
        ),
        (
            r#"{"$or":[{"entity.key":"b"},{"entity.values.n":1}]}"#,
            vec![1, 2, 4, 7, 10, 13],
        ),
        (r#"{"entity.key":{"$ne":"a"}}"#, vec![1, 4, 7, 10, 13]),
        (
            r#"{"$not":{"entity.key":"b"}}"#,
            vec![2, 3, 5, 6, 8, 9, 11, 12],
        ),
        (r#"{"entity.key":"never"}"#, vec![]),
        (r#"{"entity.key":"B"}"#, vec![]),
        (r#"{"entity.key":5}"#, vec![]),
        (r#"{"entity.key":"a","entity.values.n":1}"#, vec![2]),
        (
            r#"{"$and":[{"entity.key":"a"},{"entity.key":"b"}]}"#,
            vec![],
        ),
    ] {
        let mut query = event_query(filter);
        assert_eq!(positions(&world, &query).await, expected, "{filter}");
        query.sort = by_event("time", true);
        let reversed: Vec<u64> = expected.iter().rev().copied().collect();
        assert_eq!(
            positions(&world, &query).await,
            reversed,
            "{filter}, newest first"
        );
        query.sort = by_event("entity.values.n", true);
        let mut found = positions(&world, &query).await;
        found.sort_unstable();
        assert_eq!(found, expected, "{filter}, sorted");
    }
}

pub(super) async fn sorts_by_any_path(world: World) {
    let mut draft = world.next().await;
    for (key, n, sub) in [
        ("c", 2, "x"),
        ("a", 1, "z"),
        ("b", 2, "y"),
        ("a", 3, "x"),
        ("c", 1, "w"),
    ] {
        draft.set(&entity(key), &format!(r#"{{"n":{n}}}"#)).await;
        draft.signed(&format!(r#"{{"sub":"{sub}"}}"#), "");
    }
    draft.del(&entity("b")).await;
    draft.commit().await;
    for (path, expected) in [
        ("time", [1, 2, 3, 4, 5, 6]),
        ("position", [1, 2, 3, 4, 5, 6]),
        ("lane", [1, 2, 3, 4, 5, 6]),
        ("entity.domain", [1, 2, 3, 4, 5, 6]),
        ("entity.key", [2, 4, 3, 6, 1, 5]),
        ("version", [1, 2, 3, 4, 5, 6]),
        ("method", [6, 1, 2, 3, 4, 5]),
        ("claims.sub", [6, 5, 1, 4, 3, 2]),
        ("entity.values.n", [2, 5, 1, 3, 6, 4]),
        ("entity.values.nothing", [1, 2, 3, 4, 5, 6]),
    ] {
        let mut query = event_query("");
        query.sort = by_event(path, false);
        assert_eq!(positions(&world, &query).await, expected, "by {path}");
        query.sort = by_event(path, true);
        let reversed: Vec<u64> = expected.iter().rev().copied().collect();
        assert_eq!(
            positions(&world, &query).await,
            reversed,
            "by {path} reversed"
        );
    }
    let mut query = event_query("");
    query.sort = by_event("id", false);
    let found = world.events(&query).await.items;
    assert!(found.is_sorted_by_key(|event| event.id.to_string()));
    assert_eq!(found.len(), 6);
}

pub(super) async fn newest_first_is_the_reverse_order(world: World) {
    let mut draft = world.next().await;
    for n in 0..30 {
        draft
            .set(&entity(&format!("e{}", n % 4)), &format!(r#"{{"n":{n}}}"#))
            .await;
    }
    let events = draft.commit().await;
    for path in ["time", "position"] {
        let mut query = event_query("");
        query.sort = by_event(path, true);
        query.min = Some(events[3].time);
        query.max = Some(events[20].time);
        query.page = PageRequest::new(5, 2, None).unwrap();
        let page = world.events(&query).await;
        let expected: Vec<&Event> = events[..19].iter().rev().take(5).collect();
        assert_eq!(page.items.iter().collect::<Vec<_>>(), expected);
        assert!(page.next.is_some());
    }
    let mut query = event_query("");
    query.sort = by_event("time", true);
    let above = i32::try_from(limits::SORT_WINDOW).unwrap();
    query.page = PageRequest::new(1, above, None).unwrap();
    let error = world.store.search_events(&query).await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Invalid(invalid) if invalid.field == "offset"),
        "{error}"
    );
}

pub(super) async fn whole_numbers_are_compared_exactly(world: World) {
    // Beyond 2^53 neighbours are the same double.
    let base = (1_i64 << 53) + 1_000;
    let mut draft = world.next().await;
    for n in 0..4 {
        draft
            .event(
                stategate_model::Method::Set,
                &entity("a"),
                values(&format!(r#"{{"n":{n}}}"#)),
            )
            .await;
        draft.last().time = Timestamp(base + n);
    }
    draft.commit().await;
    for (filter, expected) in [
        (format!(r#"{{"time":{}}}"#, base + 1), vec![2]),
        (format!(r#"{{"time":"{}"}}"#, base + 1), vec![2]),
        (format!(r#"{{"time":{{"$gt":{}}}}}"#, base + 1), vec![3, 4]),
        (format!(r#"{{"time":{{"$lte":{}}}}}"#, base), vec![1]),
        (r#"{"position":{"$in":[1,4]}}"#.to_owned(), vec![1, 4]),
        (r#"{"version":{"$ne":2}}"#.to_owned(), vec![1, 3, 4]),
        (format!(r#"{{"lane":{}}}"#, world.lane()), vec![1, 2, 3, 4]),
        (format!(r#"{{"lane":{}}}"#, world.lane().0 + 1), vec![]),
    ] {
        assert_eq!(
            positions(&world, &event_query(&filter)).await,
            expected,
            "{filter}"
        );
    }
    let mut query = event_query("");
    query.sort = by_event("time", true);
    assert_eq!(positions(&world, &query).await, [4, 3, 2, 1]);
}
