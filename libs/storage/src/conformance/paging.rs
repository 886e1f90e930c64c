//! Pages: together they are the whole result, whatever else happens between them.

use std::collections::{BTreeMap, BTreeSet};

use stategate_model::{Cursor, EntityQuery, EntityRef, EventQuery, PageRequest};

use super::world::{World, by_event, by_value, entity, entity_query, event_query};
use crate::Found;

/// The next page; cursors go through their encoding, as they do in a page token.
fn continued(next: Option<Cursor>, limit: i32) -> Option<PageRequest> {
    let next = Cursor::decode(&next?.encode()).expect("a cursor survives its encoding");
    Some(PageRequest::new(limit, 0, Some(next)).unwrap())
}

/// All pages of a search of entities, each of at most `limit` items.
async fn pages(world: &World, mut query: EntityQuery, limit: i32) -> Vec<Vec<Found>> {
    let mut pages = Vec::new();
    query.page.limit = limit.unsigned_abs();
    loop {
        let page = world.entities(&query).await;
        assert!(page.items.len() <= query.page.limit as usize);
        assert!(!page.items.is_empty() || page.next.is_none());
        pages.push(page.items);
        let max_bytes = query.page.max_bytes;
        match continued(page.next, limit) {
            Some(next) => query.page = PageRequest { max_bytes, ..next },
            None => return pages,
        }
    }
}

async fn filled(world: &World, items: usize) {
    let mut draft = world.next().await;
    for n in 0..items {
        // Many sort alike, and of several kinds.
        let v = match n % 5 {
            0 => "null".to_owned(),
            1 => format!("{}", n % 3),
            2 => format!(r#""t{}""#, n % 4),
            3 => "[1]".to_owned(),
            _ => "true".to_owned(),
        };
        let json = format!(r#"{{"n":{n},"v":{v},"third":{}}}"#, n % 3 == 0);
        draft
            .set(&entity(&format!("e{:03}", (n * 61) % items)), &json)
            .await;
    }
    draft.commit().await;
}

pub(super) async fn pages_neither_skip_nor_repeat_entities(world: World) {
    filled(&world, 83).await;
    for filter in ["", r#"{"third":true}"#] {
        for sort in [
            None,
            by_value("v", false),
            by_value("v", true),
            by_value("n", true),
            by_value("none", true),
        ] {
            let mut query = entity_query(filter);
            query.sort = sort;
            let whole = world.keys(&query).await;
            for limit in [1, 7, 40, 83] {
                let pages = pages(&world, query.clone(), limit).await;
                let keys: Vec<_> = pages
                    .concat()
                    .iter()
                    .map(|found| found.entity.key().to_owned())
                    .collect();
                assert_eq!(keys, whole, "pages of {limit} of {query:?}");
                let full = usize::try_from(limit).unwrap();
                assert!(pages.iter().rev().skip(1).all(|page| page.len() == full));
            }
        }
    }
}

pub(super) async fn pages_neither_skip_nor_repeat_events(world: World) {
    filled(&world, 60).await;
    world
        .set(&EntityRef::new("accounting", "group", "x").unwrap(), "{}")
        .await;
    filled(&world, 23).await;
    let sorts = [
        "time",
        "position",
        "entity.values.v",
        "entity.key",
        "version",
        "id",
        "lane",
        "method",
    ];
    let sorts = sorts
        .iter()
        .flat_map(|path| [by_event(path, false), by_event(path, true)]);
    for sort in std::iter::once(None).chain(sorts) {
        for filter in [
            "",
            r#"{"entity.values.third":true}"#,
            r#"{"entity.key":"e000"}"#,
        ] {
            let mut query = event_query(filter);
            query.sort = sort.clone();
            let whole: Vec<_> = world.events(&query).await.items;
            assert_eq!(
                whole.len(),
                match filter {
                    "" => 83,
                    r#"{"entity.key":"e000"}"# => 2,
                    _ => 28,
                }
            );
            for limit in [1, 9, 83] {
                let mut found = Vec::new();
                query.page = PageRequest::new(limit, 0, None).unwrap();
                loop {
                    let page = world.events(&query).await;
                    found.extend(page.items);
                    match continued(page.next, limit) {
                        Some(next) => query.page = next,
                        None => break,
                    }
                }
                assert_eq!(found, whole, "pages of {limit} of {query:?}");
            }
        }
    }
}

/// What does not change is found exactly once, while everything around it changes.
pub(super) async fn pages_continue_while_other_items_change(world: World) {
    for sort in [None, by_value("n", false), by_value("n", true)] {
        let mut draft = world.next().await;
        for n in 0..60 {
            draft
                .set(
                    &entity(&format!("e{n:02}")),
                    &format!(r#"{{"n":{}}}"#, n / 4),
                )
                .await;
        }
        draft.commit().await;
        let mut query = entity_query("");
        query.sort = sort;
        query.page = PageRequest::new(7, 0, None).unwrap();
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        let mut changed = BTreeSet::new();
        for round in 0.. {
            let page = world.entities(&query).await;
            for item in &page.items {
                *found.entry(item.entity.key().to_owned()).or_default() += 1;
            }
            let Some(next) = continued(page.next, 7) else {
                break;
            };
            query.page = next;
            // The item the page ended with goes, one is made before and one behind it, others move.
            let last = page.items.last().unwrap().entity.clone();
            world.del(&last).await;
            world
                .set(&entity(&format!("a{round:02}")), r#"{"n":-1}"#)
                .await;
            world
                .set(&entity(&format!("z{round:02}")), r#"{"n":99}"#)
                .await;
            for n in [round * 5 % 60, round * 11 % 60] {
                let moved = entity(&format!("e{n:02}"));
                world
                    .set(&moved, &format!(r#"{{"n":{}}}"#, (n * 7) % 15))
                    .await;
                changed.insert(moved.key().to_owned());
            }
            changed.insert(last.key().to_owned());
            assert!(round < 100, "the pages do not end");
        }
        let mut unchanged = 0;
        for n in 0..60 {
            let key = format!("e{n:02}");
            if !changed.contains(&key) {
                unchanged += 1;
                assert_eq!(found.get(&key), Some(&1), "{key} of {:?}", query.sort);
            }
        }
        assert!(unchanged >= 15, "only {unchanged} items did not change");
        // Clear for the next order.
        for item in world.entities(&entity_query("")).await.items {
            world.del(&item.entity).await;
        }
    }
}

pub(super) async fn pages_end_at_their_bytes(world: World) {
    let mut draft = world.next().await;
    for n in 0..40 {
        let text = "x".repeat(if n == 20 { 5_000 } else { n * 20 });
        draft
            .set(
                &entity(&format!("e{n:02}")),
                &format!(r#"{{"n":{n},"text":"{text}"}}"#),
            )
            .await;
    }
    draft.commit().await;
    for sort in [None, by_value("n", true)] {
        let mut query = entity_query("");
        query.sort = sort;
        query.page.max_bytes = 2_000;
        let pages = pages(&world, query, 1_000).await;
        let all: Vec<Found> = pages.concat();
        assert_eq!(all.len(), 40);
        assert!(pages.len() > 8 && pages.len() < 40, "{} pages", pages.len());
        for (page, next) in pages.iter().zip(pages.iter().skip(1)) {
            let bytes: usize = page.iter().map(Found::size).sum();
            assert!(page.len() == 1 || bytes <= 2_000);
            assert!(bytes + next[0].size() > 2_000, "one more would have fitted");
        }
    }
    for sort in [
        None,
        by_event("time", true),
        by_event("entity.values.n", true),
    ] {
        let mut query: EventQuery = event_query("");
        query.sort = sort;
        query.page.max_bytes = 1;
        let page = world.events(&query).await;
        assert_eq!(page.items.len(), 1, "a page holds at least one item");
        assert!(page.next.is_some());
    }
}
