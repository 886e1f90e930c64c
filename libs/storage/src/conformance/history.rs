//! Reading what was.

use stategate_model::{At, EntityRef, Event, EventId, Timestamp, Version, limits};

use super::world::{TICK, World, entity};

async fn at(world: &World, entity: &EntityRef, at: At) -> Option<Event> {
    let read = world.store.get_at(entity, at).await.unwrap();
    assert_eq!(read.lane, world.lane_of(entity));
    assert_eq!(read.position, world.head(read.lane).await);
    read.value
}

/// A history with neighbours: set, set, deleted, set again.
async fn history(world: &World, entity: &EntityRef, neighbour: &EntityRef) -> Vec<Event> {
    let mut events = Vec::new();
    world.set(neighbour, "{}").await;
    events.push(world.set(entity, r#"{"n":1}"#).await);
    world.set(neighbour, "{}").await;
    events.push(world.set(entity, r#"{"n":2}"#).await);
    events.push(world.del(entity).await);
    world.set(neighbour, "{}").await;
    events.push(world.set(entity, r#"{"n":3}"#).await);
    world.set(neighbour, "{}").await;
    events
}

pub(super) async fn an_entity_at_a_version(world: World) {
    let a = entity("a");
    let events = history(&world, &a, &entity("a0")).await;
    for event in &events {
        let found = at(&world, &a, At::Version(event.version)).await;
        assert_eq!(found.as_ref(), Some(event));
    }
    for version in [Version::ZERO, Version::new(5), Version::new(u64::MAX)] {
        assert_eq!(at(&world, &a, At::Version(version)).await, None);
    }
    let never = at(&world, &entity("never"), At::Version(Version::new(1))).await;
    assert_eq!(never, None);
}

pub(super) async fn an_entity_at_a_time(world: World) {
    let a = entity("a");
    let events = history(&world, &a, &entity("a0")).await;
    let time = |nanos| At::Time(Timestamp(nanos));
    let first = events[0].time.0;
    for before in [i64::MIN, -1, 0, 1, first - TICK, first - 1] {
        assert_eq!(at(&world, &a, time(before)).await, None, "{before}");
    }
    for (n, event) in events.iter().enumerate() {
        let found = at(&world, &a, time(event.time.0)).await;
        assert_eq!(found.as_ref(), Some(event), "exactly at {n}");
        let found = at(&world, &a, time(event.time.0 + 1)).await;
        assert_eq!(found.as_ref(), Some(event), "just after {n}");
        let found = at(&world, &a, time(event.time.0 - 1)).await;
        assert_eq!(
            found.as_ref(),
            n.checked_sub(1).map(|n| &events[n]),
            "just before {n}"
        );
    }
    // Deleted then: the event says so, and holds what was.
    let deleted = at(&world, &a, time(events[2].time.0)).await.unwrap();
    assert!(deleted.state().is_none());
    // A time to come is the present.
    for later in [events[3].time.0 + 1_000_000, i64::MAX] {
        assert_eq!(at(&world, &a, time(later)).await.as_ref(), events.last());
    }
    assert_eq!(at(&world, &entity("never"), time(i64::MAX)).await, None);
}

pub(super) async fn a_long_history_is_searched_exactly(world: World) {
    let (a, b) = (entity("a"), entity("b"));
    let mut events = Vec::new();
    for round in 0..5_i64 {
        let mut draft = world.next().await;
        for n in 0..41 {
            // Steps of different lengths, so that halving meets every kind of gap.
            let entity = if (n * round) % 3 == 1 { &b } else { &a };
            draft.set(entity, &format!(r#"{{"n":{n}}}"#)).await;
        }
        events.extend(draft.commit().await);
    }
    let mine: Vec<&Event> = events.iter().filter(|event| event.entity == a).collect();
    for (n, event) in events.iter().enumerate() {
        let found = at(&world, &a, At::Time(event.time)).await;
        let expected = mine.iter().rfind(|mine| mine.time <= event.time);
        assert_eq!(found.as_ref(), expected.copied(), "at event {n}");
        let before = world.store.seek(world.lane(), event.time).await.unwrap();
        assert_eq!(before.next(), event.position);
    }
    for event in mine {
        let found = at(&world, &a, At::Version(event.version)).await;
        assert_eq!(found.as_ref(), Some(event));
    }
}

pub(super) async fn events_are_found_by_id_for_their_entity_alone(world: World) {
    let (a, b) = (entity("a"), entity("b"));
    let first = world.set(&a, r#"{"n":1}"#).await;
    let second = world.set(&b, r#"{"n":2}"#).await;
    let other_type = EntityRef::new("accounting", "group", "a").unwrap();
    let other_domain = EntityRef::new(&world.domain_in(world.lane(), 0), "user", "a").unwrap();
    let find = async |entity: &EntityRef, id| {
        let read = world.store.get_event(entity, id).await.unwrap();
        assert_eq!(read.lane, world.lane_of(entity));
        assert_eq!(read.position, world.head(read.lane).await);
        read.value
    };
    assert_eq!(find(&a, first.id).await.as_ref(), Some(&first));
    assert_eq!(find(&b, second.id).await.as_ref(), Some(&second));
    for entity in [&b, &other_type, &other_domain, &entity("never")] {
        assert_eq!(find(entity, first.id).await, None, "{entity}");
    }
    assert_eq!(find(&a, EventId::fresh(Timestamp(0))).await, None);
}

pub(super) async fn several_events_are_found_at_once_in_the_order_asked_for(world: World) {
    let (a, b) = (entity("a"), entity("b"));
    let elsewhere = EntityRef::new(&world.domain_in(world.lane(), 0), "user", "a").unwrap();
    let mut events = Vec::new();
    for n in 0..5 {
        events.push(world.set(&a, &format!(r#"{{"n":{n}}}"#)).await);
        events.push(world.set(&b, &format!(r#"{{"n":{n}}}"#)).await);
        events.push(world.set(&elsewhere, "{}").await);
    }
    events.push(world.del(&a).await);
    let nobody = EventId::fresh(Timestamp(0));
    let mut questions = vec![(a.clone(), nobody), (entity("never"), nobody)];
    let mut expected = vec![None, None];
    for event in events.iter().rev().chain(&events) {
        questions.push((event.entity.clone(), event.id));
        expected.push(Some(event.clone()));
        // Of another entity's events none is found.
        for other in [&a, &b, &elsewhere] {
            questions.push((other.clone(), event.id));
            expected.push((event.entity == *other).then(|| event.clone()));
        }
    }
    // As many as a transaction may ask for.
    while questions.len() < limits::TRANSACTION_OPERATIONS {
        questions.push((a.clone(), events[0].id));
        expected.push(Some(events[0].clone()));
    }
    let found = world
        .store
        .get_events(&questions, usize::MAX)
        .await
        .unwrap();
    assert_eq!(found, expected);
    let nothing = world.store.get_events(&[], usize::MAX).await.unwrap();
    assert_eq!(nothing, Vec::new());
}

pub(super) async fn several_events_end_at_their_bytes(world: World) {
    let a = entity("a");
    let mut questions = Vec::new();
    let mut sizes = Vec::new();
    for n in 0..6 {
        let text = "x".repeat(n * 1_000);
        let event = world.set(&a, &format!(r#"{{"text":"{text}"}}"#)).await;
        questions.push((a.clone(), event.id));
        sizes.push(event.size());
    }
    questions.insert(2, (a.clone(), EventId::fresh(Timestamp(0))));
    sizes.insert(2, 0);
    let count = async |bytes| {
        let found = world.store.get_events(&questions, bytes).await.unwrap();
        for (found, (_, id)) in found.iter().zip(&questions) {
            assert!(found.as_ref().is_none_or(|event| event.id == *id));
        }
        found.len()
    };
    // One at least, whatever its size, and then as many as fit.
    assert_eq!(count(0).await, 1);
    for n in 1..=questions.len() {
        let bytes = sizes[..n].iter().sum::<usize>();
        let next = sizes.get(n).is_some_and(|size| *size == 0);
        assert_eq!(count(bytes).await, n + usize::from(next), "{n} fit");
        if n > 1 && sizes[n - 1] > 0 {
            assert_eq!(count(bytes - 1).await, n - 1, "{n} do not fit");
        }
    }
    // One large event asked for a thousand times is not answered a thousand times.
    let large = world
        .set(&a, &format!(r#"{{"text":"{}"}}"#, "x".repeat(900_000)))
        .await;
    let again = vec![(a.clone(), large.id); limits::TRANSACTION_OPERATIONS];
    let found = world.store.get_events(&again, 3 << 20).await.unwrap();
    assert_eq!(found.len(), (3 << 20) / large.size());
}
