//! Batches that break the contract: refused, with nothing written.

use futures::future::join_all;
use stategate_model::{EntityRef, EventId, Lane, Timestamp, Version};

use super::world::{World, digest, entity, idempotency};
use crate::{Appended, ErrorKind};

pub(super) async fn batches_that_are_wrong_in_themselves(world: World) {
    let (a, b) = (entity("a"), entity("b"));
    world.set(&a, "{}").await;

    world.next().await.refused("an empty batch").await;

    let mut draft = world.next().await;
    draft.set(&a, "{}").await;
    draft.last().position = draft.head.position.plus(2);
    draft.refused("a batch that leaves a hole").await;

    let mut draft = world.next().await;
    draft.set(&a, "{}").await;
    draft.set(&b, "{}").await;
    let first = draft.batch.events[0].position;
    draft.last().position = first;
    draft.refused("two events at one position").await;

    let mut draft = world.next().await;
    draft.set(&a, "{}").await;
    draft.set(&b, "{}").await;
    draft.batch.events.swap(0, 1);
    draft.refused("events out of order").await;

    let mut draft = world.next().await;
    draft.set(&a, "{}").await;
    draft.last().lane = Lane(draft.lane.0 + 1);
    draft.refused("an event that names another lane").await;

    for lane in world.lanes().iter().filter(|lane| *lane != world.lane()) {
        let mut draft = world.draft(lane).await;
        let stranger = EntityRef::new("accounting", "user", "stranger").unwrap();
        draft.set(&stranger, "{}").await;
        draft
            .refused("an event in a lane that is not its domain's")
            .await;
    }

    let mut draft = world.next().await;
    draft.set(&a, "{}").await;
    draft.set(&b, "{}").await;
    let id = draft.batch.events[0].id;
    draft.last().id = id;
    draft.refused("one id for two events").await;

    let mut draft = world.next().await;
    draft.set(&a, "{}").await;
    draft.keyed(idempotency("accounting", "k"), digest(1), 1);
    draft.batch.keys[0].first = draft.head.position;
    draft.refused("a key for an event before the batch").await;
    draft.batch.keys[0].first = draft.head.position.next();
    draft.batch.keys[0].count = 2;
    draft.refused("a key for an event after the batch").await;
    draft.batch.keys[0].count = 0;
    draft.refused("a key for nothing").await;

    let mut draft = world.next().await;
    draft.set(&a, "{}").await;
    draft.keyed(idempotency("accounting", "k"), digest(1), 1);
    draft.set(&a, "{}").await;
    draft.keyed(idempotency("accounting", "k"), digest(2), 1);
    draft.refused("one key for two requests").await;
}

pub(super) async fn versions_that_do_not_continue(world: World) {
    let (old, new) = (entity("old"), entity("new"));
    world.set(&old, "{}").await;
    world.set(&old, "{}").await;
    for (entity, version) in [
        (&old, 0),
        (&old, 1),
        (&old, 2),
        (&old, 4),
        (&new, 0),
        (&new, 2),
    ] {
        let mut draft = world.next().await;
        draft.set(entity, "{}").await;
        draft.last().version = Version::new(version);
        draft
            .refused_either_way(&format!("{entity} at version {version}"))
            .await;
    }
    world.del(&old).await;
    for version in [1, 3, 5] {
        let mut draft = world.next().await;
        draft.set(&old, "{}").await;
        draft.last().version = Version::new(version);
        draft
            .refused_either_way(&format!("a deleted entity at version {version}"))
            .await;
    }
    for second in [1, 3] {
        let mut draft = world.next().await;
        draft.set(&new, "{}").await;
        draft.set(&new, "{}").await;
        draft.last().version = Version::new(second);
        draft
            .refused_either_way("versions that do not continue within a batch")
            .await;
    }
}

pub(super) async fn times_that_go_back(world: World) {
    let entity = entity("a");
    let last = world.set(&entity, "{}").await;
    for back in [0, 1, last.time.0 + 1] {
        let mut draft = world.next().await;
        draft.set(&entity, "{}").await;
        draft.last().time = Timestamp(last.time.0 - back);
        draft
            .refused_either_way("a time that is not after the one before")
            .await;
    }
    let mut draft = world.next().await;
    draft.set(&entity, "{}").await;
    draft.set(&entity, "{}").await;
    let time = draft.batch.events[0].time;
    draft.last().time = time;
    draft.refused("one time for two events").await;
}

pub(super) async fn event_ids_that_are_there(world: World) {
    let first = world.set(&entity("a"), "{}").await;
    let mut draft = world.next().await;
    draft.set(&entity("b"), "{}").await;
    draft.last().id = first.id;
    draft
        .refused_either_way("an id that another entity's event has")
        .await;
    let mut draft = world.next().await;
    draft.set(&entity("a"), "{}").await;
    draft.last().id = first.id;
    draft
        .refused_either_way("an id that the entity's event has")
        .await;
    // In another lane too: the log has it.
    for lane in world.lanes().iter() {
        let stranger = EntityRef::new(&world.domain_in(lane, 0), "user", "a").unwrap();
        let mut draft = world.draft(lane).await;
        draft.set(&stranger, "{}").await;
        draft.last().id = first.id;
        draft
            .refused_either_way("an id that is in another lane")
            .await;
    }
}

pub(super) async fn idempotency_keys_that_are_there(world: World) {
    let entity = entity("a");
    let key = idempotency("accounting", "k");
    let mut draft = world.next().await;
    draft.set(&entity, "{}").await;
    draft.keyed(key.clone(), digest(1), 1);
    draft.commit().await;
    for digest in [digest(1), digest(2)] {
        let mut draft = world.next().await;
        draft.set(&entity, "{}").await;
        draft.keyed(key.clone(), digest, 1);
        draft.refused_either_way("a key that was used").await;
    }
    // The key was not consumed by being refused, and the entity can still change.
    world.set(&entity, "{}").await;
}

pub(super) async fn a_refused_batch_leaves_nothing(world: World) {
    let (a, b, c) = (entity("a"), entity("b"), entity("c"));
    let first = world.set(&a, r#"{"n":1}"#).await;
    let mut draft = world.next().await;
    draft.set(&b, "{}").await;
    draft.keyed(idempotency("accounting", "good"), digest(1), 1);
    draft.set(&a, r#"{"n":2}"#).await;
    draft.set(&c, "{}").await;
    draft.last().id = first.id;
    draft.refused("good events before a bad one").await;
    // The same batch with its fault mended goes through.
    draft.last().id = EventId::fresh(Timestamp(0));
    assert_eq!(draft.append().await.unwrap(), Appended::Done);
    assert_eq!(world.log(world.lane()).await.len(), 4);
}

pub(super) async fn neighbours_of_a_refused_batch_are_written(world: World) {
    let first = world.set(&entity("taken"), "{}").await;
    for round in 0..10 {
        let mut drafts = Vec::new();
        for lane in world.lanes().iter() {
            let neighbour = EntityRef::new(&world.domain_in(lane, 0), "user", "a").unwrap();
            let mut good = world.draft(lane).await;
            good.set(&neighbour, &format!(r#"{{"round":{round}}}"#))
                .await;
            let mut bad = world.draft(lane).await;
            bad.set(&neighbour, r#"{"bad":true}"#).await;
            bad.last().id = first.id;
            drafts.extend([(bad, false), (good, true)]);
        }
        let outcomes = join_all(drafts.iter().map(|(draft, _)| draft.append())).await;
        for ((draft, good), outcome) in drafts.iter().zip(outcomes) {
            match outcome {
                Ok(Appended::Done) => assert!(*good, "round {round}: a bad batch was written"),
                // The bad one may also find that the good one was there before it.
                Ok(Appended::HeadMoved) => assert!(!*good),
                Err(error) => {
                    assert!(!*good, "round {round}, {:?}: {error}", draft.lane);
                    assert_eq!(*error.kind(), ErrorKind::Rejected, "{error}");
                }
            }
        }
    }
    for lane in world.lanes().iter() {
        let events = world.log(lane).await;
        assert!(
            events
                .iter()
                .all(|event| event.values.json() != r#"{"bad":true}"#)
        );
    }
}
