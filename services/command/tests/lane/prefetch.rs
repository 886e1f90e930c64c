//! Prefetching: what the next batch needs is read while an append is on its way, nothing is decided
//! on what does not hold any more, and nobody is kept from the head.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use rand::Rng as _;
use stategate_command::lane::{LaneHandle, WriteError};
use stategate_model::{Command, Expect, Position, Values, Version};
use stategate_storage::Storage as _;
use tokio::time::Instant;

use crate::{contended, entity, faulty::Faulty, lane, log, set, with_key, write};

const WAY: Duration = Duration::from_millis(1);

/// Adds one to the number of an entity, trying again whenever somebody else was there first.
async fn increment(handle: &LaneHandle, storage: &Faulty, key: &str) {
    loop {
        let state = storage.inner.get(&entity(key)).await.unwrap().value;
        let number: u64 = match &state.values {
            Some(values) => values.json()[5..values.json().len() - 1].parse().unwrap(),
            None => 0,
        };
        let expect = match &state.values {
            Some(_) => Expect::Versions(vec![state.version]),
            None => Expect::Absent,
        };
        let values = Values::from_canonical(format!(r#"{{"n":{}}}"#, number + 1));
        match handle.write(write(key, expect, Command::Set(values))).await {
            Ok(_) => return,
            Err(WriteError::Refused(_)) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// Two processes, three entities that everybody wants, keys sent twice, conflicts and unheard appends:
/// no increment is lost, and a key is one event.
#[tokio::test(start_paused = true)]
async fn nothing_is_decided_on_what_does_not_hold_any_more() {
    const CALLERS: usize = 24;
    const INCREMENTS: usize = 40;
    let (storage, handles) = contended(WAY);
    let caller = |caller: usize| {
        let (storage, handles) = (&storage, &handles);
        async move {
            for round in 0..INCREMENTS {
                let handle = &handles[(caller + round / 10) % 2];
                increment(handle, storage, &format!("n{}", round % 3)).await;
                let once = || {
                    with_key(
                        set(&format!("once-{caller}")),
                        &format!("{caller}-{round}"),
                        1,
                    )
                };
                let (first, copy) =
                    futures::join!(handles[0].write(once()), handles[1].write(once()));
                assert_eq!(first.unwrap().events(), copy.unwrap().events());
            }
        }
    };
    join_all((0..CALLERS).map(caller)).await;
    let log = log(&storage).await;
    for n in 0..3 {
        let mut events = log
            .iter()
            .filter(|event| event.entity.key() == format!("n{n}"));
        let last = events.next_back().unwrap();
        let due = CALLERS * (0..INCREMENTS).filter(|round| round % 3 == n).count();
        assert_eq!(last.values.json(), format!(r#"{{"n":{due}}}"#));
        assert_eq!(last.version, Version::new(due as u64));
    }
    let once = log
        .iter()
        .filter(|event| event.entity.key().starts_with("once-"));
    assert_eq!(once.count(), CALLERS * INCREMENTS, "one event a key");
}

/// While writes come in without pause, a lane appends one batch after the other: what they need is read
/// on the side.
#[tokio::test(start_paused = true)]
async fn reading_costs_a_busy_lane_no_time() {
    const CALLERS: usize = 64;
    const EACH: usize = 50;
    let storage = Faulty::far(WAY * 2..WAY * 2 + Duration::from_nanos(1), &[]);
    let (writer, handle) = lane(&storage);
    tokio::spawn(writer.run());
    let begun = Instant::now();
    join_all((0..CALLERS).map(|caller| {
        let handle = &handle;
        async move {
            for n in 0..EACH {
                let pause = rand::rng().random_range(WAY * 2..WAY * 10);
                tokio::time::sleep(pause).await;
                handle.write(set(&format!("{caller}-{n}"))).await.unwrap();
            }
        }
    }))
    .await;
    let appends = storage.appends.load(Ordering::SeqCst);
    // There, the commit, and back.
    let trips = begun.elapsed().as_micros() / (6 * WAY.as_micros());
    println!("{appends} appends in the time of {trips}");
    // One batch of a run reads for itself.
    assert!(
        trips < appends as u128 * 5 / 4,
        "{appends} appends took the time of {trips}"
    );
    assert_eq!(log(&storage).await.len(), CALLERS * EACH);
}

/// A process whose lane is never idle lets others write to it too.
#[tokio::test(start_paused = true)]
async fn a_busy_writer_keeps_nobody_from_the_head() {
    // The clock counts whole milliseconds: ways are long, so that who comes first is left to chance.
    let storage = Faulty::far(WAY * 5..WAY * 10, &[]);
    let (writer, busy) = lane(&storage);
    tokio::spawn(writer.run());
    let (writer, other) = lane(&storage);
    tokio::spawn(writer.run());
    let over = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..64)
        .map(|caller| {
            let (busy, over, written) = (busy.clone(), Arc::clone(&over), Arc::clone(&written));
            tokio::spawn(async move {
                for n in 0.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    // New entities and old ones.
                    busy.write(set(&format!("{caller}-{}", n / 2)))
                        .await
                        .unwrap();
                    written.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut longest = 0;
    let mut last = Position::ZERO;
    for n in 0..50 {
        let before = storage.appends.load(Ordering::SeqCst);
        let position = other
            .write(set(&format!("other-{n}")))
            .await
            .unwrap()
            .events()[0]
            .position;
        assert!(position > last);
        last = position;
        longest = longest.max(storage.appends.load(Ordering::SeqCst) - before);
    }
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    let written = written.load(Ordering::Relaxed);
    let all = storage.appends.load(Ordering::SeqCst);
    println!("50 writes beside {written}: {all} appends of both; the longest took {longest}");
    assert!(written > 1_000, "{written} writes are not much of a load");
    assert!(
        longest <= 400,
        "one of 50 writes had to wait for {longest} appends"
    );
}

/// Callers who write again when they hear of their last write, each after a little work of its own, come
/// together in few batches: hardly any of a few while most are just being answered.
#[tokio::test(start_paused = true)]
async fn callers_who_come_back_share_a_batch() {
    const CALLERS: usize = 64;
    const ROUNDS: usize = 50;
    let storage = Faulty::quick(3);
    let (writer, handle) = lane(&storage);
    tokio::spawn(writer.run());
    let callers = (0..CALLERS).map(|caller| {
        let handle = handle.clone();
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                for _ in 0..caller % 4 {
                    tokio::task::yield_now().await;
                }
                handle
                    .write(set(&format!("{caller}-{round}")))
                    .await
                    .unwrap();
            }
        })
    });
    for caller in join_all(callers).await {
        caller.unwrap();
    }
    let appends = storage.appends.load(Ordering::SeqCst);
    println!("{appends} batches");
    assert!(
        appends < ROUNDS * 11 / 4,
        "{appends} batches of {ROUNDS} rounds"
    );
}
