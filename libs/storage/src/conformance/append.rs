//! Appending: what is written, and that it is written whole or not at all.

use stategate_model::{Method, Position, State, Version};

use super::world::{World, by_value, entity, entity_query, event_query, values};
use crate::{Appended, Head};

pub(super) async fn a_fresh_log_is_empty(world: World) {
    for lane in world.lanes().iter() {
        assert_eq!(world.log(lane).await, []);
        let loaded = world.store.load(lane, &[], &[], usize::MAX).await.unwrap();
        assert_eq!(loaded.head, Head::default());
        assert_eq!(world.head(lane).await, Position::ZERO);
    }
    let read = world.store.get(&entity("none")).await.unwrap();
    assert_eq!(read.value, State::default());
    assert_eq!((read.lane, read.position), (world.lane(), Position::ZERO));
    assert_eq!(world.keys(&entity_query("")).await, Vec::<String>::new());
    assert_eq!(world.events(&event_query("")).await.items, []);
}

pub(super) async fn positions_and_versions_count_from_one(world: World) {
    let (a, b) = (entity("a"), entity("b"));
    let mut draft = world.next().await;
    draft.set(&a, r#"{"n":1}"#).await;
    draft.set(&b, r#"{"n":2}"#).await;
    draft.set(&a, r#"{"n":3}"#).await;
    let written = draft.commit().await;
    let log = world.log(world.lane()).await;
    assert_eq!(log, written);
    let seen: Vec<_> = log
        .iter()
        .map(|event| (event.position.get(), event.version.get()))
        .collect();
    assert_eq!(seen, [(1, 1), (2, 1), (3, 2)]);
    let loaded = world
        .store
        .load(world.lane(), &[], &[], usize::MAX)
        .await
        .unwrap();
    let last = &written[2];
    assert_eq!(
        loaded.head,
        Head {
            position: last.position,
            time: last.time,
            id: Some(last.id)
        }
    );
}

pub(super) async fn everything_of_an_event_is_kept(world: World) {
    let entity = entity("a");
    for (n, method) in Method::ALL.into_iter().enumerate() {
        let mut draft = world.next().await;
        let json = format!(r#"{{"n":{n}}}"#);
        draft.event(method, &entity, values(&json)).await;
        draft.signed(
            r#"{"iss":"https://issuer","roles":["a","b"],"sub":"someone"}"#,
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        );
        let event = draft.commit().await.remove(0);
        assert!(event.trace_parent.is_some());
        assert_eq!(world.log(world.lane()).await.last(), Some(&event));
        let found = world.store.get_event(&entity, event.id).await.unwrap();
        assert_eq!(found.value.as_ref(), Some(&event));
    }
}

pub(super) async fn a_moved_head_writes_nothing(world: World) {
    let entity = entity("a");
    let mut behind = world.next().await;
    behind.set(&entity, r#"{"by":"the slow one"}"#).await;
    world.set(&entity, r#"{"by":"the quick one"}"#).await;
    world.set(&entity, r#"{"by":"the quick one again"}"#).await;
    let log = world.log(world.lane()).await;
    assert_eq!(behind.append().await.unwrap(), Appended::HeadMoved);

    let mut ahead = world.next().await;
    ahead.set(&entity, r#"{"by":"a prophet"}"#).await;
    ahead.head.position = ahead.head.position.plus(5);
    ahead.last().position = ahead.head.position.next();
    assert_eq!(ahead.append().await.unwrap(), Appended::HeadMoved);

    assert_eq!(world.log(world.lane()).await, log);
    let state = world.state(&entity).await;
    assert_eq!(state.version, Version::new(2));
}

/// The way out of an unknown outcome: ask again, and the head tells.
pub(super) async fn a_repeated_append_is_known_by_its_moved_head(world: World) {
    let mut draft = world.next().await;
    draft.set(&entity("a"), "{}").await;
    assert_eq!(draft.append().await.unwrap(), Appended::Done);
    assert_eq!(draft.append().await.unwrap(), Appended::HeadMoved);
    world.set(&entity("b"), "{}").await;
    assert_eq!(draft.append().await.unwrap(), Appended::HeadMoved);
    assert_eq!(world.log(world.lane()).await.len(), 2);
}

pub(super) async fn one_entity_changes_many_times_in_a_batch(world: World) {
    let entity = entity("a");
    world.set(&entity, r#"{"n":0}"#).await;
    let mut draft = world.next().await;
    draft.set(&entity, r#"{"n":1}"#).await;
    draft.del(&entity).await;
    draft.set(&entity, r#"{"n":2}"#).await;
    draft.set(&entity, r#"{"n":3}"#).await;
    let written = draft.commit().await;
    assert_eq!(written.last().unwrap().version, Version::new(5));
    let state = world.state(&entity).await;
    assert_eq!(state.version, Version::new(5));
    assert_eq!(state.values, Some(values(r#"{"n":3}"#)));
    assert_eq!(world.log(world.lane()).await[1..], written);
}

pub(super) async fn a_full_batch_is_taken(world: World) {
    let mut draft = world.next().await;
    for n in 0..stategate_model::limits::BATCH_EVENTS {
        let entity = entity(&format!("e{}", n % 700));
        draft.set(&entity, &format!(r#"{{"n":{n}}}"#)).await;
    }
    let written = draft.commit().await;
    assert_eq!(world.log(world.lane()).await, written);
    assert_eq!(world.keys(&entity_query("")).await.len(), 700);
}

pub(super) async fn acknowledged_writes_are_seen_by_every_read(world: World) {
    let entity = entity("a");
    for n in 1..=20 {
        let event = world.set(&entity, &format!(r#"{{"n":{n}}}"#)).await;
        let store = &world.store;
        let head = event.position;
        let state = store.get(&entity).await.unwrap();
        assert_eq!(
            (state.value.version.get(), state.position),
            (event.version.get(), head)
        );
        let found = store.get_event(&entity, event.id).await.unwrap();
        assert_eq!((found.value.as_ref(), found.position), (Some(&event), head));
        let at = stategate_model::At::Version(event.version);
        let found = store.get_at(&entity, at).await.unwrap();
        assert_eq!((found.value.as_ref(), found.position), (Some(&event), head));
        let found = store.search_entities(&entity_query("")).await.unwrap();
        assert_eq!(found.value.items[0].version, event.version);
        assert_eq!(found.position, head);
        let mut sorted = entity_query("");
        sorted.sort = by_value("n", true);
        let found = store.search_entities(&sorted).await.unwrap();
        assert_eq!(found.value.items[0].version, event.version);
        let found = store.search_events(&event_query("")).await.unwrap();
        assert_eq!(
            (found.value.items.last(), found.position),
            (Some(&event), head)
        );
        assert_eq!(world.head(world.lane()).await, head);
        assert_eq!(world.log(world.lane()).await.last(), Some(&event));
    }
}

pub(super) async fn versions_survive_deletion(world: World) {
    let entity = entity("a");
    for round in 0..3 {
        let event = world.set(&entity, r#"{"alive":true}"#).await;
        assert_eq!(event.version, Version::new(round * 2 + 1));
        let event = world.del(&entity).await;
        assert_eq!(event.version, Version::new(round * 2 + 2));
        assert_eq!(event.values, values(r#"{"alive":true}"#));
        let state = world.state(&entity).await;
        assert_eq!(
            state,
            State {
                version: event.version,
                values: None
            }
        );
        assert_eq!(world.keys(&entity_query("")).await, Vec::<String>::new());
    }
}
