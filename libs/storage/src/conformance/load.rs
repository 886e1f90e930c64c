//! Loading what the next batch is decided on.

use stategate_model::{EntityRef, IdempotencyKey, State, Version};

use crate::Replay;

use super::world::{World, digest, entity, idempotency, values};

pub(super) async fn answers_come_in_the_order_of_questions(world: World) {
    let entities: Vec<EntityRef> = ["c", "never", "a", "gone", "b"].map(entity).into();
    for key in ["a", "b", "c", "gone"] {
        world
            .set(&entity(key), &format!(r#"{{"key":"{key}"}}"#))
            .await;
    }
    world.set(&entity("b"), r#"{"key":"b","again":true}"#).await;
    world.del(&entity("gone")).await;
    let loaded = world
        .store
        .load(world.lane(), &entities, &[], usize::MAX)
        .await
        .unwrap();
    let state = |version, json: Option<&str>| State {
        version: Version::new(version),
        values: json.map(values),
    };
    assert_eq!(
        loaded.states,
        [
            state(1, Some(r#"{"key":"c"}"#)),
            state(0, None),
            state(1, Some(r#"{"key":"a"}"#)),
            state(2, None),
            state(2, Some(r#"{"key":"b","again":true}"#)),
        ]
    );
    assert_eq!(loaded.head.position.get(), 6);

    let keys = ["never", "k"].map(|key| idempotency("accounting", key));
    let mut draft = world.next().await;
    draft.set(&entity("a"), "{}").await;
    draft.keyed(keys[1].clone(), digest(1), 1);
    draft.commit().await;
    let reversed: Vec<_> = entities.iter().rev().cloned().collect();
    let loaded = world
        .store
        .load(world.lane(), &reversed, &keys, usize::MAX)
        .await
        .unwrap();
    let versions: Vec<_> = loaded
        .states
        .iter()
        .map(|state| state.version.get())
        .collect();
    assert_eq!(versions, [2, 2, 2, 0, 1]);
    assert!(loaded.replays[0].is_none() && loaded.replays[1].is_some());
}

pub(super) async fn tombstones_have_a_version_and_no_values(world: World) {
    let entity = entity("a");
    world.set(&entity, "{}").await;
    world.del(&entity).await;
    let tombstone = State {
        version: Version::new(2),
        values: None,
    };
    assert_eq!(world.state(&entity).await, tombstone);
    let loaded = world
        .store
        .load(world.lane(), &[entity], &[], usize::MAX)
        .await
        .unwrap();
    assert_eq!(loaded.states, [tombstone]);
}

pub(super) async fn replays_tell_what_a_request_did(world: World) {
    let (a, b) = (entity("a"), entity("b"));
    let (one, many) = (
        idempotency("accounting", "one"),
        idempotency("accounting", "many"),
    );
    let mut draft = world.next().await;
    draft.set(&a, r#"{"before":true}"#).await;
    draft.set(&a, r#"{"one":true}"#).await;
    draft.keyed(one.clone(), digest(7), 1);
    draft.set(&a, r#"{"n":1}"#).await;
    draft.set(&b, r#"{"n":2}"#).await;
    draft.del(&a).await;
    draft.keyed(many.clone(), digest(8), 3);
    draft.set(&b, r#"{"after":true}"#).await;
    let written = draft.commit().await;
    // What happens later does not change what was answered.
    world.set(&b, r#"{"later":true}"#).await;

    let keys = [many, one, idempotency("accounting", "none")];
    let loaded = world
        .store
        .load(world.lane(), &[], &keys, usize::MAX)
        .await
        .unwrap();
    let [many, one, none] = loaded.replays.try_into().unwrap();
    assert_eq!(none, None);
    let (one, many) = (one.unwrap(), many.unwrap());
    assert_eq!(
        (one.digest, one.events),
        (digest(7), written[1..2].to_vec())
    );
    assert_eq!(
        (many.digest, many.events),
        (digest(8), written[2..5].to_vec())
    );
}

pub(super) async fn idempotency_keys_are_told_apart(world: World) {
    let near = ["k", "K", "k%", "k_", "k'", "kk"];
    let entity = entity("a");
    for (n, key) in near.iter().enumerate() {
        let mut draft = world.next().await;
        draft.set(&entity, "{}").await;
        draft.keyed(
            idempotency("accounting", key),
            digest(u8::try_from(n).unwrap()),
            1,
        );
        draft.commit().await;
    }
    let keys = near.map(|key| idempotency("accounting", key));
    let loaded = world
        .store
        .load(world.lane(), &[], &keys, usize::MAX)
        .await
        .unwrap();
    for (n, replay) in loaded.replays.iter().enumerate() {
        let replay = replay.as_ref().unwrap();
        assert_eq!(
            replay.digest,
            digest(u8::try_from(n).unwrap()),
            "{}",
            near[n]
        );
        assert_eq!(replay.events[0].position.get(), n as u64 + 1);
    }
    let other_domain = world.domain_in(world.lane(), 0);
    let strangers = [
        idempotency(&other_domain, "k"),
        IdempotencyKey::new("accounting", "issuer", "other", "k").unwrap(),
        IdempotencyKey::new("accounting", "other", "subject", "k").unwrap(),
        IdempotencyKey::new("accounting", "issuer\nsubject", "", "k").unwrap(),
    ];
    let loaded = world
        .store
        .load(world.lane(), &[], &strangers, usize::MAX)
        .await
        .unwrap();
    assert_eq!(loaded.replays, [None, None, None, None]);
    // Each of them can use the key for itself.
    for key in strangers {
        let stranger = EntityRef::new(&key.domain, "user", "b").unwrap();
        let mut draft = world.next().await;
        draft.set(&stranger, "{}").await;
        draft.keyed(key, digest(99), 1);
        draft.commit().await;
    }
}

/// A load is cut where its answers come to more bytes than were asked for, everywhere at the same place.
pub(super) async fn no_more_is_answered_than_asked_for(world: World) {
    let text = |n: usize| format!(r#"{{"text":"{}"}}"#, "é".repeat(n));
    let entities: Vec<EntityRef> = ["never", "a", "gone", "b", "never_either", "c"]
        .map(entity)
        .into();
    for (key, length) in [("a", 100), ("gone", 1), ("b", 3_000), ("c", 10)] {
        world.set(&entity(key), &text(length)).await;
    }
    world.del(&entity("gone")).await;
    let keys = ["one", "none", "many", "last"].map(|key| idempotency("accounting", key));
    let mut draft = world.next().await;
    draft.set(&entity("x"), &text(50)).await;
    draft.signed(
        r#"{"sub":"somebody"}"#,
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    );
    draft.keyed(keys[0].clone(), digest(1), 1);
    draft.set(&entity("y"), &text(2_000)).await;
    draft.set(&entity("z"), &text(2_000)).await;
    draft.set(&entity("x"), &text(1)).await;
    draft.keyed(keys[2].clone(), digest(2), 3);
    draft.set(&entity("y"), &text(1)).await;
    draft.keyed(keys[3].clone(), digest(3), 1);
    draft.commit().await;

    let load = async |entities: &[EntityRef], keys: &[IdempotencyKey], bytes| {
        world
            .store
            .load(world.lane(), entities, keys, bytes)
            .await
            .unwrap()
    };
    let whole = load(&entities, &keys, usize::MAX).await;
    assert_eq!((whole.states.len(), whole.replays.len()), (6, 4));
    let states = whole.states.iter().map(State::size);
    let replays = whole.replays.iter();
    let replays = replays.map(|replay| replay.as_ref().map_or(0, Replay::size));
    let sizes: Vec<usize> = states.chain(replays).collect();
    let total: usize = sizes.iter().sum();
    // At every border, and beside it.
    let mut limits = vec![0, total - 1, total, total + 1];
    let mut sum = 0;
    for size in &sizes {
        sum += size;
        limits.extend([sum.saturating_sub(1), sum, sum + 1]);
    }
    for bytes in limits {
        let loaded = load(&entities, &keys, bytes).await;
        let mut left = bytes;
        let fits = sizes.iter().take_while(|size| {
            let fits = **size <= left;
            left = left.saturating_sub(**size);
            fits
        });
        let count = fits.count().max(1);
        assert_eq!(loaded.head, whole.head);
        assert_eq!(loaded.states, whole.states[..count.min(6)], "{bytes}");
        assert_eq!(
            loaded.replays,
            whole.replays[..count.saturating_sub(6)],
            "{bytes}"
        );
    }
    // At least one, and only as much as is asked.
    for n in 0..entities.len() {
        let loaded = load(&entities[n..], &[], 0).await;
        assert_eq!(loaded.states[0], whole.states[n]);
    }
    for n in 0..keys.len() {
        let loaded = load(&[], &keys[n..], 0).await;
        assert_eq!(loaded.replays[0], whole.replays[n]);
    }
    // Whoever goes on with the rest has all of it in the end.
    let (mut states, mut replays) = (Vec::new(), Vec::new());
    while states.len() < entities.len() || replays.len() < keys.len() {
        let loaded = load(&entities[states.len()..], &keys[replays.len()..], 4_000).await;
        states.extend(loaded.states);
        replays.extend(loaded.replays);
    }
    assert_eq!((states, replays), (whole.states, whole.replays));
}
