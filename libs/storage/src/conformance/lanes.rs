//! Lanes: each an order of its own.

use stategate_model::{EntityRef, Position};

use super::world::World;

pub(super) async fn each_lane_counts_for_itself(world: World) {
    for lane in world.lanes().iter() {
        let entity = EntityRef::new(&world.domain_in(lane, 0), "user", "a").unwrap();
        // Lane n gets n + 1 events.
        for n in 1..=u64::from(lane.0) + 1 {
            let event = world.set(&entity, "{}").await;
            assert_eq!((event.position.get(), event.version.get()), (n, n));
        }
    }
    let heads = world.store.heads().await.unwrap();
    for lane in world.lanes().iter() {
        let expected = Position::new(u64::from(lane.0) + 1);
        assert_eq!(heads.get(lane), expected);
        let log = world.log(lane).await;
        assert_eq!(log.len() as u64, expected.get());
        assert!(log.iter().all(|event| event.lane == lane));
        let entity = EntityRef::new(&world.domain_in(lane, 0), "user", "a").unwrap();
        let read = world.store.get(&entity).await.unwrap();
        assert_eq!((read.lane, read.position), (lane, expected));
        let time = log.last().unwrap().time;
        assert_eq!(world.store.seek(lane, time).await.unwrap().next(), expected);
        let loaded = world
            .store
            .load(lane, &[entity], &[], usize::MAX)
            .await
            .unwrap();
        assert_eq!(loaded.head.position, expected);
        assert_eq!(loaded.head.id, log.last().map(|event| event.id));
    }
}

pub(super) async fn domains_of_one_lane_share_its_order(world: World) {
    let lane = world.lane();
    let domains = [0, 1, 2].map(|n| world.domain_in(lane, n));
    let mut draft = world.draft(lane).await;
    for n in 0..9 {
        let entity = EntityRef::new(&domains[n % 3], "user", "same-key").unwrap();
        draft.set(&entity, &format!(r#"{{"n":{n}}}"#)).await;
    }
    let written = draft.commit().await;
    assert_eq!(world.log(lane).await, written);
    for (n, domain) in domains.iter().enumerate() {
        let entity = EntityRef::new(domain, "user", "same-key").unwrap();
        let state = world.state(&entity).await;
        assert_eq!(state.version.get(), 3);
        assert_eq!(state.values.unwrap(), written[n + 6].values);
    }
}
