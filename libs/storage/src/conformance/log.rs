//! Reading the log itself.

use stategate_model::{EntityRef, Event, Position, Timestamp};

use super::world::{ALL, World, digest, entity, idempotency};
use crate::ReadLimit;

async fn filled(world: &World, events: usize) -> Vec<Event> {
    let mut draft = world.next().await;
    for n in 0..events {
        let json = format!(r#"{{"n":{n},"text":"{}"}}"#, "x".repeat(n * 7));
        draft.set(&entity(&format!("e{}", n % 3)), &json).await;
    }
    draft.commit().await
}

pub(super) async fn events_come_in_order_without_holes(world: World) {
    let mut written = filled(&world, 30).await;
    written.extend(filled(&world, 1).await);
    written.extend(filled(&world, 9).await);
    for after in [0, 1, 29, 30, 31, 39, 40, 41, 1_000, u64::MAX] {
        let read = world
            .store
            .read_log(world.lane(), Position::new(after), ALL)
            .await
            .unwrap();
        let expected = written.get(usize::try_from(after).unwrap_or(usize::MAX)..);
        assert_eq!(read, expected.unwrap_or_default(), "after {after}");
    }
    for (n, event) in written.iter().enumerate() {
        assert_eq!(event.position.get(), n as u64 + 1);
    }
}

pub(super) async fn reads_end_at_their_limits(world: World) {
    let written = filled(&world, 40).await;
    let read = async |after: usize, events, bytes| {
        let after = Position::new(after as u64);
        let limit = ReadLimit { events, bytes };
        let read = world.store.read_log(world.lane(), after, limit).await;
        read.unwrap()
    };
    for (after, events) in [(0, 1), (0, 7), (33, 7), (33, 8), (39, 1), (40, 1)] {
        let expected = &written[after..(after + events).min(40)];
        assert_eq!(read(after, events, usize::MAX).await, expected);
    }
    // Page through by bytes: never more than asked for, never less than fits.
    for bytes in [600, 1_500, 4_000] {
        let mut after = 0;
        while after < written.len() {
            let part = read(after, usize::MAX, bytes).await;
            assert_eq!(part, written[after..after + part.len()]);
            let size: usize = part.iter().map(Event::size).sum();
            assert!(part.len() == 1 || size <= bytes, "{size} of {bytes} bytes");
            after += part.len();
            if let Some(next) = written.get(after) {
                assert!(size + next.size() > bytes, "one more would have fitted");
            }
        }
    }
}

pub(super) async fn a_read_gives_at_least_one_event(world: World) {
    let written = filled(&world, 3).await;
    for limit in [
        ReadLimit {
            events: 0,
            bytes: 0,
        },
        ReadLimit {
            events: 5,
            bytes: 0,
        },
        ReadLimit {
            events: 0,
            bytes: usize::MAX,
        },
        ReadLimit {
            events: 1,
            bytes: 1,
        },
    ] {
        let read = world
            .store
            .read_log(world.lane(), Position::new(1), limit)
            .await;
        assert_eq!(read.unwrap(), written[1..2], "{limit:?}");
    }
}

pub(super) async fn idempotency_keys_come_in_the_order_of_their_events(world: World) {
    let mut expected = Vec::new();
    for lane in world.lanes().iter() {
        let domains = [0, 1].map(|n| world.domain_in(lane, n));
        let mut records = Vec::new();
        // Names whose order is another than that of the events.
        for (n, name) in ["z", "b", "y", "a"].into_iter().enumerate() {
            let domain = &domains[n % 2];
            let entity = EntityRef::new(domain, "user", name).unwrap();
            let mut draft = world.draft(lane).await;
            draft.set(&entity, "{}").await;
            for _ in 0..=n {
                draft.set(&entity, "{}").await;
            }
            let key = idempotency(domain, name);
            draft.keyed(key, digest(lane.0 * 4 + u8::try_from(n).unwrap()), n + 1);
            draft.set(&entity, "{}").await;
            draft.keyed(idempotency(domain, &format!("{name}-after")), digest(9), 1);
            records.extend(draft.batch.keys.clone());
            draft.commit().await;
        }
        assert!(records.is_sorted_by_key(|record| record.first));
        expected.push((lane, records));
    }
    for (lane, records) in expected {
        let read = async |after, most| world.store.read_keys(lane, after, most).await.unwrap();
        assert_eq!(read(Position::ZERO, 1_000).await, records);
        assert_eq!(read(Position::ZERO, 3).await, records[..3]);
        for (n, record) in records.iter().enumerate() {
            assert_eq!(
                read(record.first, 2).await,
                records[n + 1..].iter().take(2).cloned().collect::<Vec<_>>()
            );
        }
        let head = world.head(lane).await;
        assert_eq!(read(head, 1_000).await, []);
    }
}

pub(super) async fn seek_finds_the_place_of_a_time(world: World) {
    let seek = async |nanos| {
        world
            .store
            .seek(world.lane(), Timestamp(nanos))
            .await
            .unwrap()
    };
    for time in [i64::MIN, 0, 1, i64::MAX] {
        assert_eq!(seek(time).await, Position::ZERO, "an empty lane");
    }
    let written = filled(&world, 23).await;
    for event in &written {
        let before = event.position.get() - 1;
        assert_eq!(seek(event.time.0).await.get(), before, "exactly at it");
        assert_eq!(seek(event.time.0 - 1).await.get(), before, "just before it");
        assert_eq!(
            seek(event.time.0 + 1).await,
            event.position,
            "just after it"
        );
    }
    assert_eq!(seek(i64::MIN).await, Position::ZERO);
    assert_eq!(seek(i64::MAX).await.get(), 23);
}

pub(super) async fn heads_follow_appends(world: World) {
    for n in 1..=5 {
        world.set(&entity("a"), "{}").await;
        let heads = world.store.heads().await.unwrap();
        assert_eq!(heads.iter().count(), usize::from(world.lanes().get()));
        for (lane, head) in heads.iter() {
            let expected = if lane == world.lane() { n } else { 0 };
            assert_eq!(head.get(), expected);
        }
        // Asked again without a change in between.
        assert_eq!(world.store.heads().await.unwrap(), heads);
    }
}
