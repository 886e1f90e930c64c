//! Many at once.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use stategate_model::{EntityRef, Position};
use tokio::{sync::oneshot, task::JoinSet};

use super::world::{ALL, World, entity, entity_query, event_query};
use crate::Appended;

/// Appends that are tried by each of the racers.
const TRIES: u64 = 40;

pub(super) async fn of_appends_at_one_head_one_wins(world: World) {
    let mut worlds = vec![world.clone()];
    if world.store.info().capabilities.shared {
        // The other half of the racers are another process, as far as the storage can tell.
        let other = world
            .factory
            .reopen()
            .await
            .expect("a shared store opens again");
        worlds.push(world.through(other));
    }
    let mut racers = JoinSet::new();
    for racer in 0..8 {
        let world = worlds[racer % worlds.len()].clone();
        racers.spawn(async move {
            let mut won = Vec::new();
            let mut lost = 0_u64;
            for n in 0..TRIES {
                let mut draft = world.next().await;
                draft
                    .set(
                        &entity("contended"),
                        &format!(r#"{{"racer":{racer},"n":{n}}}"#),
                    )
                    .await;
                draft.set(&entity(&format!("mine-{racer}")), "{}").await;
                match draft.append().await {
                    Ok(Appended::Done) => won.push(draft.batch.events),
                    Ok(Appended::HeadMoved) => lost += 1,
                    // The draft asked for versions one by one, so they may be those of a later head
                    // than its own; then its head has moved, too, or the versions are refused.
                    Err(error) => panic!("racer {racer}: {error}"),
                }
            }
            (won, lost)
        });
    }
    let outcomes = racers.join_all().await;
    let won: Vec<_> = outcomes.iter().flat_map(|(won, _)| won).flatten().collect();
    let lost: u64 = outcomes.iter().map(|(_, lost)| lost).sum();
    let log = world.log(world.lane()).await;
    assert_eq!(
        log.len(),
        won.len(),
        "exactly what was acknowledged is there"
    );
    assert_eq!(won.len() as u64 / 2 + lost, 8 * TRIES);
    let ids: BTreeSet<_> = won.iter().map(|event| event.id).collect();
    for (n, event) in log.iter().enumerate() {
        assert_eq!(event.position.get(), n as u64 + 1);
        assert!(ids.contains(&event.id));
    }
    let contended: Vec<_> = log
        .iter()
        .filter(|event| event.entity.key() == "contended")
        .collect();
    for (n, event) in contended.iter().enumerate() {
        assert_eq!(event.version.get(), n as u64 + 1);
    }
    assert!(won.len() >= 2 * 8, "only {} won", won.len());
    for other in worlds.iter().skip(1) {
        assert_eq!(other.log(world.lane()).await, log);
        other.store.close().await;
    }
}

pub(super) async fn readers_never_see_a_part_of_a_batch(world: World) {
    const PARTS: usize = 5;
    const BATCHES: u64 = 150;
    let parts: Vec<EntityRef> = (0..PARTS).map(|n| entity(&format!("part-{n}"))).collect();
    let done = Arc::new(AtomicBool::new(false));
    let looks = Arc::new(AtomicU64::new(0));
    let mut readers = JoinSet::new();
    for kind in 0..4 {
        let (world, parts) = (world.clone(), parts.clone());
        let (done, looks) = (Arc::clone(&done), Arc::clone(&looks));
        readers.spawn(async move {
            let lane = world.lane();
            let mut before = 0;
            while !done.load(Ordering::Acquire) {
                // Each look gives the batches it saw, and the position it says it saw them at.
                let (batches, position) = match kind {
                    0 => {
                        let loaded = world
                            .store
                            .load(lane, &parts, &[], usize::MAX)
                            .await
                            .unwrap();
                        let versions: BTreeSet<_> = loaded
                            .states
                            .iter()
                            .map(|state| state.version.get())
                            .collect();
                        assert_eq!(versions.len(), 1, "load saw a part: {versions:?}");
                        (*versions.first().unwrap(), loaded.head.position)
                    }
                    1 => {
                        let read = world
                            .store
                            .search_entities(&entity_query(""))
                            .await
                            .unwrap();
                        let versions: BTreeSet<_> = read
                            .value
                            .items
                            .iter()
                            .map(|found| found.version.get())
                            .collect();
                        assert!(versions.len() <= 1, "a search saw a part: {versions:?}");
                        (versions.first().copied().unwrap_or(0), read.position)
                    }
                    2 => {
                        let read = world.store.search_events(&event_query("")).await.unwrap();
                        let events = read.value.items.len();
                        assert_eq!(events % PARTS, 0, "a search saw a part");
                        ((events / PARTS) as u64, read.position)
                    }
                    _ => {
                        let log = world
                            .store
                            .read_log(lane, Position::ZERO, ALL)
                            .await
                            .unwrap();
                        assert_eq!(log.len() % PARTS, 0, "the log was read in part");
                        ((log.len() / PARTS) as u64, Position::new(log.len() as u64))
                    }
                };
                assert_eq!(
                    batches * PARTS as u64,
                    position.get(),
                    "not what was at that position"
                );
                assert!(batches >= before, "time went back");
                before = batches;
                looks.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
    }
    for batch in 0..BATCHES {
        let mut draft = world.next().await;
        for part in &parts {
            draft.set(part, &format!(r#"{{"batch":{batch}}}"#)).await;
        }
        draft.commit().await;
        // However quick the store, there are looks between the batches.
        while looks.load(Ordering::Relaxed) < batch {
            if let Some(ended) = readers.try_join_next() {
                ended.expect("a reader found what it must not");
            }
            tokio::task::yield_now().await;
        }
    }
    done.store(true, Ordering::Release);
    readers.join_all().await;
}

/// A search that has to look at far more than its page shows, while all of it changes together: it may
/// ask its database several times, but sees the log at one point.
pub(super) async fn a_long_search_sees_no_part_of_a_batch(world: World) {
    const ENTITIES: usize = 100;
    const BYTES: usize = 60_000;
    const FOUND: u32 = 9;
    const BATCHES: usize = 6;
    let entities: Vec<EntityRef> = (0..ENTITIES)
        .map(|n| entity(&format!("long-{n:03}")))
        .collect();
    let text = "x".repeat(BYTES);
    let mut query = entity_query(r#"{"pick":[1]}"#);
    query.page.limit = FOUND;
    for _ in 0..BATCHES {
        let mut draft = world.next().await;
        for (n, entity) in entities.iter().enumerate() {
            // An array, which no database compares as the contract does; one in ten matches.
            let pick = u8::from(n % 10 == 9);
            let values = format!(r#"{{"pick":[{pick}],"text":"{text}"}}"#);
            draft.set(entity, &values).await;
        }
        let committed = tokio::spawn(async move { draft.commit().await });
        loop {
            let is_last = committed.is_finished();
            let read = world.store.search_entities(&query).await.unwrap();
            let versions: BTreeSet<_> = read
                .value
                .items
                .iter()
                .map(|found| found.version.get())
                .collect();
            assert!(versions.len() <= 1, "a search saw a part: {versions:?}");
            let seen = versions.first().copied().unwrap_or(0);
            assert_eq!(read.position.get(), seen * ENTITIES as u64);
            if is_last {
                assert_eq!(read.value.items.len(), FOUND as usize);
                break;
            }
            // A storage in memory is never waited for, and the commit must have its turn.
            tokio::task::yield_now().await;
        }
        committed.await.unwrap();
    }
}

pub(super) async fn lanes_are_written_at_once(world: World) {
    let mut writers = JoinSet::new();
    for lane in world.lanes().iter() {
        let world = world.clone();
        writers.spawn(async move {
            let entity = EntityRef::new(&world.domain_in(lane, 0), "user", "a").unwrap();
            for n in 1..=25 {
                let event = world.set(&entity, &format!(r#"{{"n":{n}}}"#)).await;
                assert_eq!((event.position.get(), event.version.get()), (n, n));
            }
        });
    }
    writers.join_all().await;
    for lane in world.lanes().iter() {
        assert_eq!(world.log(lane).await.len(), 25);
    }
}

pub(super) async fn a_dropped_call_leaves_the_store_usable(world: World) {
    for n in 0..30 {
        let mut draft = world.next().await;
        draft.set(&entity("a"), &format!(r#"{{"n":{n}}}"#)).await;
        // Polled for different lengths of time, then dropped.
        let append = draft.append();
        let query = event_query("");
        let search = world.store.search_events(&query);
        tokio::select! {
            biased;
            outcome = append => drop(outcome),
            found = search => drop(found),
            () = async { for _ in 0..n { tokio::task::yield_now().await } } => {}
        }
    }
    // Whatever became of each of them, the log is whole and goes on.
    let mut last = world.next().await;
    while {
        last.set(&entity("b"), "{}").await;
        last.append().await.unwrap() == Appended::HeadMoved
    } {
        last = world.next().await;
    }
    let log = world.log(world.lane()).await;
    for (n, event) in log.iter().enumerate() {
        assert_eq!(event.position.get(), n as u64 + 1);
    }
    assert_eq!(log.last(), last.batch.events.last());
    let reads = join_all((0..50).map(|_| world.state(&log[0].entity))).await;
    assert!(reads.iter().all(|state| *state == reads[0]));
}

pub(super) async fn hosted_tasks_write_as_all_others_do(world: World) {
    const WINS: usize = 25;
    let mut worlds = vec![world.clone()];
    if world.store.info().capabilities.shared {
        let other = world.factory.reopen().await;
        worlds.push(world.through(other.expect("a shared store opens again")));
    }
    // In each process two hosted tasks and one of the runtime race for one lane.
    let mut ends = Vec::new();
    for (process, world) in worlds.iter().enumerate() {
        world
            .store
            .run_writer(Box::pin(async { panic!("planted: ends this task alone") }));
        for racer in 0..3 {
            let (end, ended) = oneshot::channel();
            ends.push(ended);
            let world_of_task = world.clone();
            let mine = entity(&format!("mine-{process}-{racer}"));
            let task = Box::pin(async move {
                let mut won = Vec::new();
                while won.len() < WINS {
                    let mut draft = world_of_task.next().await;
                    draft.set(&mine, "{}").await;
                    match draft.append().await {
                        Ok(Appended::Done) => won.push(draft.last().id),
                        // A timer and a yield are there for a hosted task, too.
                        Ok(Appended::HeadMoved) => {
                            tokio::time::sleep(Duration::from_micros(1)).await
                        }
                        Err(error) => panic!("{mine}: {error}"),
                    }
                }
                let _ = end.send(won);
            });
            match racer {
                0 => drop(tokio::spawn(task)),
                _ => world.store.run_writer(task),
            }
        }
    }
    let mut won = BTreeSet::new();
    for ended in ends {
        won.extend(ended.await.expect("a task ends"));
    }
    let log = world.log(world.lane()).await;
    assert_eq!(log.len(), worlds.len() * 3 * WINS);
    for (n, event) in log.iter().enumerate() {
        assert_eq!(event.position.get(), n as u64 + 1);
        assert!(won.contains(&event.id));
    }
    for other in worlds.iter().skip(1) {
        other.store.close().await;
    }
}
