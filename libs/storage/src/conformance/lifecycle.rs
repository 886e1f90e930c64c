//! Closing and opening again.

use futures::future::join_all;
use stategate_model::{At, EventId, LogId, Position, Timestamp, Version};

use super::world::{ALL, World, digest, entity, entity_query, event_query, idempotency};
use crate::{Appended, ErrorKind, Identity, Work};

pub(super) async fn a_closed_store_refuses_calls(world: World) {
    let a = entity("a");
    let event = world.set(&a, "{}").await;
    let mut draft = world.next().await;
    draft.set(&a, "{}").await;
    let store = &world.store;
    store.close().await;
    let lane = world.lane();
    let outcomes = [
        store.load(lane, &[], &[], usize::MAX).await.err(),
        draft.append().await.err(),
        store.get(&a).await.err(),
        store.get_at(&a, At::Version(Version::new(1))).await.err(),
        store.get_event(&a, event.id).await.err(),
        store
            .get_event(&a, EventId::fresh(Timestamp(0)))
            .await
            .err(),
        store.search_entities(&entity_query("")).await.err(),
        store.search_events(&event_query("")).await.err(),
        store.read_log(lane, Position::ZERO, ALL).await.err(),
        store.read_keys(lane, Position::ZERO, 1).await.err(),
        store.seek(lane, Timestamp(0)).await.err(),
        store.heads().await.err(),
        store.check(Work::Read).await.err(),
        store.check(Work::Write).await.err(),
    ];
    for (n, outcome) in outcomes.into_iter().enumerate() {
        let error = outcome.unwrap_or_else(|| panic!("call {n} was answered"));
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "call {n}: {error}");
    }
    // Closing twice is closing.
    store.close().await;
}

pub(super) async fn closing_finishes_what_is_under_way(world: World) {
    let mut drafts = Vec::new();
    for lane in world.lanes().iter() {
        let domain = world.domain_in(lane, 0);
        let entity = stategate_model::EntityRef::new(&domain, "user", "a").unwrap();
        let mut draft = world.draft(lane).await;
        for _ in 0..50 {
            draft.set(&entity, "{}").await;
        }
        drafts.push(draft);
    }
    let appends = join_all(drafts.iter().map(|draft| draft.append()));
    let (outcomes, ()) = tokio::join!(appends, world.store.close());
    let reopened = if world.store.info().capabilities.durable {
        world.factory.reopen().await
    } else {
        None
    };
    for (draft, outcome) in drafts.iter().zip(outcomes) {
        // Done, or surely not: closing leaves no outcome unknown.
        let written = match outcome {
            Ok(Appended::Done) => 50,
            Ok(Appended::HeadMoved) => panic!("nobody else appended"),
            Err(error) => {
                assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
                0
            }
        };
        if let Some(store) = &reopened {
            let log = store
                .read_log(draft.lane, Position::ZERO, ALL)
                .await
                .unwrap();
            assert_eq!(log.len(), written);
        }
    }
    if let Some(store) = reopened {
        store.close().await;
    }
}

pub(super) async fn everything_is_there_after_a_restart(world: World) {
    let (a, b, gone) = (entity("a"), entity("b"), entity("gone"));
    let key = idempotency("accounting", "k");
    world.set(&gone, r#"{"n":0}"#).await;
    let mut draft = world.next().await;
    draft.set(&a, r#"{"n":1}"#).await;
    draft.signed(
        r#"{"sub":"someone"}"#,
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    );
    draft.set(&b, r#"{"n":2}"#).await;
    draft.keyed(key.clone(), digest(3), 2);
    draft.del(&gone).await;
    draft.commit().await;
    let entities = [a, b, gone];
    let look = async |world: &World| {
        let loaded = world
            .store
            .load(
                world.lane(),
                &entities,
                std::slice::from_ref(&key),
                usize::MAX,
            )
            .await;
        (
            world.store.info().clone(),
            world.log(world.lane()).await,
            world.store.heads().await.unwrap(),
            loaded.unwrap(),
            world.entities(&entity_query("")).await,
            world.events(&event_query("")).await,
        )
    };
    let before = look(&world).await;
    world.store.close().await;
    let reopened = world.factory.reopen().await;
    if !world.store.info().capabilities.durable {
        assert!(
            reopened.is_none(),
            "a store that is not durable does not pretend to be"
        );
        return;
    }
    let reopened = world.through(reopened.expect("a durable store opens again"));
    assert_eq!(look(&reopened).await, before);
    let event = reopened.set(&entities[2], r#"{"n":3}"#).await;
    assert_eq!((event.version.get(), event.position.get()), (3, 5));
    reopened.store.close().await;
}

pub(super) async fn a_log_is_made_under_an_identity(world: World) {
    let identity = || Identity {
        log_id: LogId::random(),
        lanes: world.lanes(),
    };
    let asked = identity();
    let made = world.through(world.factory.create_as(asked).await);
    let info = made.store.info();
    assert_eq!((info.log_id, info.lanes), (asked.log_id, asked.lanes));
    assert_ne!(info.log_id, world.store.info().log_id);
    let event = made.set(&entity("a"), "{}").await;
    assert_eq!(event.position, Position::new(1));
    assert_eq!(world.log(event.lane).await, [], "it is another store");
    made.store.close().await;
    if world.store.info().capabilities.durable {
        // What is fixed stays, whatever is asked for.
        let again = world.through(world.factory.create_as(identity()).await);
        assert_eq!(again.store.info().log_id, asked.log_id);
        assert_eq!(again.log(event.lane).await, [event]);
        again.store.close().await;
    }
}

pub(super) async fn several_processes_share_a_log(world: World) {
    if !world.store.info().capabilities.shared {
        assert!(
            world.factory.reopen().await.is_none(),
            "a store that is not shared opens once"
        );
        return;
    }
    let other = world.through(
        world
            .factory
            .reopen()
            .await
            .expect("a shared store opens again"),
    );
    assert_eq!(other.store.info(), world.store.info());
    let a = entity("a");
    for n in 0..10 {
        let (writer, reader) = if n % 2 == 0 {
            (&world, &other)
        } else {
            (&other, &world)
        };
        let mut stale = reader.next().await;
        stale.set(&a, r#"{"stale":true}"#).await;
        let event = writer.set(&a, &format!(r#"{{"n":{n}}}"#)).await;
        // Each sees at once what the other did, heads and all.
        assert_eq!(reader.head(world.lane()).await, event.position);
        assert_eq!(reader.state(&a).await.version, event.version);
        assert_eq!(reader.log(world.lane()).await.last(), Some(&event));
        assert_eq!(
            reader.events(&event_query("")).await.items.last(),
            Some(&event)
        );
        assert_eq!(stale.append().await.unwrap(), Appended::HeadMoved);
    }
    other.store.close().await;
    // One leaving does not disturb the other.
    world.set(&a, "{}").await;
    assert_eq!(world.log(world.lane()).await.len(), 11);
}
