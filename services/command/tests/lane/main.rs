//! The lane writer against storages that fail on purpose: nothing acknowledged is lost, nothing is
//! written twice, and one bad write never fails its neighbours.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails, with a message"
)]

mod assumed;
mod faulty;
mod large;
mod prefetch;
mod reverts;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use stategate_channel::{Channel, InMemory, InMemoryConfig};
use stategate_command::{
    Operation, Refused,
    lane::{LaneHandle, LaneWriter, QueueBounds, Write, WriteError},
};
use stategate_model::{
    Claims, Command, Digest, EntityRef, Event, Expect, IdempotencyKey, Lane, Limits, Position,
    Refusal, Values, Version, times,
};
use stategate_storage::{ReadLimit, Storage as _};

use faulty::{Fault, Faulty};

fn entity(key: &str) -> EntityRef {
    EntityRef::new("d", "t", key).unwrap()
}

fn write(key: &str, expect: Expect, command: Command) -> Write {
    Write {
        operations: vec![Operation {
            entity: entity(key),
            expect,
            command,
        }],
        idempotency: None,
        claims: Claims::none(),
        trace_parent: None,
    }
}

fn set(key: &str) -> Write {
    write(key, Expect::Anything, Command::Set(Values::empty()))
}

fn with_key(write: Write, key: &str, digest: u8) -> Write {
    let key = IdempotencyKey::new("d", "", "", key).unwrap();
    Write {
        idempotency: Some((key, Digest([digest; 32]))),
        ..write
    }
}

/// A writer that is not running yet, so that what is queued first makes one batch.
fn lane(storage: &Arc<Faulty>) -> (LaneWriter, LaneHandle) {
    let channel: Arc<dyn Channel> = Arc::new(InMemory::new(&InMemoryConfig::default()));
    let bounds = QueueBounds {
        writes: 1_000,
        bytes: 1 << 20,
    };
    LaneWriter::new(
        Lane(0),
        Arc::clone(storage) as _,
        channel,
        Limits::default(),
        bounds,
        1 << 20,
    )
}

/// Two writers at work on one lane of a storage some way off that goes wrong in every way, again and again.
fn contended(way: Duration) -> (Arc<Faulty>, Vec<LaneHandle>) {
    let mut faults = Vec::new();
    for fault in [Fault::Conflict, Fault::WrittenUnknown, Fault::LostUnknown] {
        faults.extend([fault; 8]);
    }
    let storage = Faulty::far(way..way * 4, &faults);
    let handles = (0..2).map(|_| {
        let (writer, handle) = lane(&storage);
        tokio::spawn(writer.run());
        handle
    });
    let handles = handles.collect();
    (storage, handles)
}

async fn log(storage: &Faulty) -> Vec<Event> {
    let limit = ReadLimit {
        events: 10_000,
        bytes: usize::MAX,
    };
    storage
        .inner
        .read_log(Lane(0), Position::ZERO, limit)
        .await
        .unwrap()
}

/// Queues writes as one batch and answers what became of each.
async fn batch(
    storage: &Arc<Faulty>,
    writes: Vec<Write>,
) -> Vec<Result<(Vec<Event>, bool), WriteError>> {
    let (writer, handle) = lane(storage);
    let calls: Vec<_> = writes
        .into_iter()
        .map(|write| {
            let handle = handle.clone();
            async move { handle.write(write).await }
        })
        .collect();
    let mut calls = Box::pin(futures::future::join_all(calls));
    // Polled once, everything is queued.
    assert!(futures::poll!(&mut calls).is_pending());
    drop(handle);
    let writer = tokio::spawn(writer.run());
    let outcomes = calls.await;
    writer.await.unwrap();
    outcomes
        .into_iter()
        .map(|outcome| outcome.map(|written| (written.events().to_vec(), written.replayed)))
        .collect()
}

#[tokio::test]
async fn many_writes_are_one_append() {
    let storage = Faulty::new(&[]);
    let outcomes = batch(
        &storage,
        (0..500).map(|i| set(&format!("k{}", i % 50))).collect(),
    )
    .await;
    let positions: Vec<u64> = outcomes
        .iter()
        .map(|o| o.as_ref().unwrap().0[0].position.get())
        .collect();
    assert_eq!(positions, (1..=500).collect::<Vec<_>>());
    assert_eq!(storage.appends.load(Ordering::SeqCst), 1);
    assert_eq!(
        log(&storage).await.last().unwrap().version,
        Version::new(10)
    );
}

#[tokio::test]
async fn states_are_kept_while_the_head_is_unmoved() {
    let storage = Faulty::new(&[]);
    let (writer, handle) = lane(&storage);
    tokio::spawn(writer.run());
    for _ in 0..10 {
        handle.write(set("a")).await.unwrap();
    }
    assert_eq!(
        storage.loads.load(Ordering::SeqCst),
        1,
        "one round trip a batch"
    );
    storage.write_of_another(Lane(0)).await;
    let written = handle.write(set("a")).await.unwrap();
    assert_eq!(written.events()[0].version, Version::new(11));
    assert_eq!(written.events()[0].position, Position::new(12));
}

/// That something can be read does not say that it stays: neither the append's own caller nor one who comes
/// again, to this writer or another one, is told that it was written.
#[tokio::test(start_paused = true)]
async fn what_can_be_read_is_not_acknowledged_until_it_is_sure_to_stay() {
    let storage = Faulty::new(&[Fault::WrittenUnknown]);
    storage.is_alone.store(true, Ordering::SeqCst);
    let first = with_key(set("a"), "k", 1);
    let outcomes = batch(&storage, vec![first]).await;
    assert!(
        matches!(outcomes[0], Err(WriteError::Unknown)),
        "{outcomes:?}"
    );
    assert_eq!(log(&storage).await.len(), 1, "it is there to be seen");
    let again = || vec![with_key(set("a"), "k", 1), with_key(set("a"), "k", 2)];
    let outcomes = batch(&storage, again()).await;
    assert!(
        matches!(outcomes[0], Err(WriteError::Unknown)),
        "{outcomes:?}"
    );
    assert!(
        matches!(outcomes[1], Err(WriteError::Refused(_))),
        "{outcomes:?}"
    );
    // A batch that cannot be appended does not unwrite what one of its writes did before.
    storage.fail(&[Fault::Unavailable]);
    let outcomes = batch(&storage, vec![with_key(set("a"), "k", 1), set("b")]).await;
    assert!(
        matches!(outcomes[0], Err(WriteError::Unknown)),
        "{outcomes:?}"
    );
    assert!(
        matches!(outcomes[1], Err(WriteError::Unavailable)),
        "{outcomes:?}"
    );
    // One that is appended says it of what was before it.
    let outcomes = batch(&storage, vec![with_key(set("a"), "k", 1), set("b")]).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    storage.is_alone.store(false, Ordering::SeqCst);
    let outcomes = batch(&storage, again()).await;
    assert!(outcomes[0].is_ok(), "{outcomes:?}");
    assert_eq!(log(&storage).await.len(), 2);
}

#[tokio::test]
async fn an_append_in_doubt_is_found_out() {
    for (faults, appends) in [
        (vec![Fault::WrittenUnknown], 2),
        (vec![Fault::LostUnknown], 2),
        (
            vec![
                Fault::LostUnknown,
                Fault::LostUnknown,
                Fault::WrittenUnknown,
            ],
            4,
        ),
        (vec![Fault::WrittenUnknown, Fault::LostUnknown], 3),
        // In doubt, and another process writes first: surely not written, so decided anew.
        (vec![Fault::LostUnknown, Fault::Conflict], 3),
        (vec![Fault::WrittenUnknown, Fault::Conflict], 2),
        (
            vec![Fault::Conflict, Fault::Conflict, Fault::WrittenUnknown],
            4,
        ),
    ] {
        let storage = Faulty::new(&faults);
        let outcomes = batch(&storage, vec![set("a"), set("b")]).await;
        assert!(
            outcomes.iter().all(Result::is_ok),
            "{faults:?}: {outcomes:?}"
        );
        let log = log(&storage).await;
        for key in ["a", "b"] {
            let events: Vec<_> = log
                .iter()
                .filter(|event| event.entity.key() == key)
                .collect();
            assert_eq!(
                events.len(),
                1,
                "{faults:?}: {key} was written {} times",
                events.len()
            );
        }
        for (outcome, key) in outcomes.iter().zip(["a", "b"]) {
            let (events, _) = outcome.as_ref().unwrap();
            assert!(
                log.contains(&events[0]),
                "{faults:?}: what {key} was told is not what is in the log"
            );
        }
        assert_eq!(
            storage.appends.load(Ordering::SeqCst),
            appends,
            "{faults:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn doubt_that_lasts_is_said() {
    let storage = Faulty::new(&[Fault::LostUnknown; 1_000]);
    let outcomes = batch(&storage, vec![set("a"), set("b")]).await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Err(WriteError::Unknown))),
        "{outcomes:?}"
    );
}

#[tokio::test]
async fn what_was_surely_not_written_is_said() {
    let storage = Faulty::new(&[Fault::Unavailable]);
    let outcomes = batch(&storage, vec![set("a"), set("b")]).await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Err(WriteError::Unavailable)))
    );
    assert!(log(&storage).await.is_empty());
}

#[tokio::test]
async fn a_bad_write_fails_alone() {
    let storage = Faulty::new(&[Fault::RejectedTogether]);
    let outcomes = batch(&storage, vec![set("a"), set("poison"), set("b"), set("a")]).await;
    assert!(matches!(outcomes[1], Err(WriteError::Internal(_))));
    for index in [0, 2, 3] {
        assert!(outcomes[index].is_ok(), "{index}: {outcomes:?}");
    }
    assert_eq!(log(&storage).await.len(), 3);
}

#[tokio::test]
async fn refusals_leave_no_trace() {
    let storage = Faulty::new(&[]);
    let edit = || Command::Edit(Values::from_canonical(r#"{"x":1}"#));
    let outcomes = batch(
        &storage,
        vec![
            write("absent", Expect::Anything, edit()),
            set("a"),
            write("a", Expect::Versions(vec![Version::new(2)]), edit()),
            write("a", Expect::Versions(vec![Version::new(1)]), edit()),
            write("a", Expect::Absent, Command::Set(Values::empty())),
            write("a", Expect::Anything, Command::Del),
            write("a", Expect::Anything, Command::Del),
            write("a", Expect::Absent, Command::Set(Values::empty())),
        ],
    )
    .await;
    let refusal = |index: usize| match &outcomes[index] {
        Err(WriteError::Refused(Refused::Operation { refusal, .. })) => refusal.clone(),
        other => panic!("{index}: {other:?}"),
    };
    assert_eq!(refusal(0), Refusal::EntityNotFound);
    assert_eq!(
        refusal(2),
        Refusal::VersionMismatch {
            current: Some(Version::new(1))
        }
    );
    assert_eq!(
        refusal(4),
        Refusal::VersionMismatch {
            current: Some(Version::new(2))
        }
    );
    assert_eq!(refusal(6), Refusal::EntityNotFound);
    let versions: Vec<u64> = log(&storage)
        .await
        .iter()
        .map(|event| event.version.get())
        .collect();
    assert_eq!(versions, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_refusal_is_not_given_on_old_states() {
    let storage = Faulty::new(&[]);
    let (writer, handle) = lane(&storage);
    tokio::spawn(writer.run());
    // Now known: `b` does not exist.
    let absent = handle
        .write(write("b", Expect::Anything, Command::Del))
        .await;
    assert!(matches!(absent, Err(WriteError::Refused(_))));
    // Another process creates it, and its caller knows.
    let head = storage
        .inner
        .load(Lane(0), &[], &[], usize::MAX)
        .await
        .unwrap()
        .head;
    let (other, other_handle) = lane(&storage);
    tokio::spawn(other.run());
    other_handle.write(set("b")).await.unwrap();
    assert_eq!(head.position, Position::ZERO);
    let found = handle
        .write(write("b", Expect::Exists, Command::Del))
        .await
        .unwrap();
    assert_eq!(found.events()[0].version, Version::new(2));
}

#[tokio::test]
async fn transactions_are_all_or_nothing() {
    let storage = Faulty::new(&[]);
    let operation = |key: &str, expect, command| Operation {
        entity: entity(key),
        expect,
        command,
    };
    let edit = Command::Edit(Values::from_canonical(r#"{"x":1}"#));
    let good = Write {
        operations: vec![
            operation("a", Expect::Absent, Command::Set(Values::empty())),
            operation("a", Expect::Versions(vec![Version::new(1)]), edit.clone()),
            operation("b", Expect::Anything, Command::Set(Values::empty())),
        ],
        ..set("a")
    };
    let bad = Write {
        operations: vec![
            operation("c", Expect::Anything, Command::Set(Values::empty())),
            operation("b", Expect::Versions(vec![Version::new(7)]), edit),
        ],
        ..set("c")
    };
    let outcomes = batch(&storage, vec![bad, good, set("c")]).await;
    assert!(matches!(
        &outcomes[0],
        Err(WriteError::Refused(Refused::Operation { index: 1, .. }))
    ));
    assert_eq!(outcomes[1].as_ref().unwrap().0.len(), 3);
    assert_eq!(
        outcomes[2].as_ref().unwrap().0[0].version,
        Version::new(1),
        "the refused transaction left nothing"
    );
}

#[tokio::test]
async fn copies_of_a_request_are_one_event() {
    let storage = Faulty::new(&[]);
    // In one batch.
    let outcomes = batch(
        &storage,
        vec![
            with_key(set("a"), "k", 1),
            with_key(set("a"), "k", 1),
            with_key(set("b"), "k", 2),
        ],
    )
    .await;
    let first = outcomes[0].as_ref().unwrap();
    let copy = outcomes[1].as_ref().unwrap();
    assert_eq!((first.1, copy.1), (false, true));
    assert_eq!(first.0, copy.0);
    assert!(matches!(
        &outcomes[2],
        Err(WriteError::Refused(Refused::KeyReused))
    ));
    // In another process, later, looked up before the precondition that no longer holds.
    let again = Write {
        operations: set("a").operations,
        ..with_key(set("a"), "k", 1)
    };
    let outcomes = batch(&storage, vec![again, with_key(set("b"), "k", 2)]).await;
    let replay = outcomes[0].as_ref().unwrap();
    assert!(replay.1);
    assert_eq!(replay.0, first.0);
    assert!(matches!(
        &outcomes[1],
        Err(WriteError::Refused(Refused::KeyReused))
    ));
    assert_eq!(log(&storage).await.len(), 1);
    // A failed call consumes no key.
    let absent = || with_key(write("z", Expect::Anything, Command::Del), "free", 3);
    assert!(batch(&storage, vec![absent()]).await[0].is_err());
    assert!(batch(&storage, vec![with_key(set("z"), "free", 4)]).await[0].is_ok());
}

/// A key is its caller's and its domain's (contract §3).
#[tokio::test]
async fn keys_of_other_callers_and_domains_are_other_keys() {
    let storage = Faulty::new(&[]);
    let of = |domain: &str, issuer: &str, subject: &str, key: &str| {
        let claims = format!(r#"{{"iss":"{issuer}","sub":"{subject}"}}"#);
        let entity = EntityRef::new(domain, "t", "a").unwrap();
        let idempotency = IdempotencyKey::new(domain, issuer, subject, key).unwrap();
        Write {
            operations: vec![Operation {
                entity,
                expect: Expect::Anything,
                command: Command::Set(Values::empty()),
            }],
            idempotency: Some((idempotency, Digest([1; 32]))),
            claims: Claims::from_stored(Values::from_canonical(claims)),
            trace_parent: None,
        }
    };
    let callers = [
        ("d", "issuer", "one"),
        ("d", "issuer", "two"),
        ("d", "other", "one"),
        ("d", "", ""),
        ("e", "issuer", "one"),
    ];
    let writes = || callers.map(|(domain, issuer, subject)| of(domain, issuer, subject, "k"));
    // In one batch, and once more in another process.
    let first = batch(&storage, writes().into()).await;
    let again = batch(&storage, writes().into()).await;
    for (first, again) in first.iter().zip(&again) {
        let (first, again) = (first.as_ref().unwrap(), again.as_ref().unwrap());
        assert_eq!((first.1, again.1), (false, true));
        assert_eq!(first.0, again.0, "each gets its own answer");
    }
    let log = log(&storage).await;
    assert_eq!(log.len(), callers.len());
    for (event, (domain, issuer, subject)) in log.iter().zip(callers) {
        let claims = event.claims.values().json();
        assert_eq!(event.entity.domain(), domain);
        assert!(claims.contains(issuer) && claims.contains(subject));
    }
}

#[tokio::test]
async fn the_queue_is_bounded() {
    let storage = Faulty::new(&[]);
    let channel: Arc<dyn Channel> = Arc::new(InMemory::new(&InMemoryConfig::default()));
    let bounds = QueueBounds {
        writes: 3,
        bytes: 1 << 20,
    };
    let (_writer, handle) = LaneWriter::new(
        Lane(0),
        Arc::clone(&storage) as _,
        channel,
        Limits::default(),
        bounds,
        1 << 20,
    );
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut call = Box::pin(handle.write(set("a")));
        assert!(futures::poll!(&mut call).is_pending());
        waiting.push(call);
    }
    assert!(matches!(
        handle.write(set("a")).await,
        Err(WriteError::Busy)
    ));
    let big = Values::from_canonical(format!("{{\"a\":\"{}\"}}", "x".repeat(2 << 20)));
    assert!(matches!(
        handle
            .write(write("a", Expect::Anything, Command::Set(big)))
            .await,
        Err(WriteError::Busy)
    ));
}

/// What a write is decided on takes longer to read than its caller waits: it is told in time, and that nothing
/// was written, since nothing was sent.
#[tokio::test(start_paused = true)]
async fn a_read_that_takes_too_long_is_not_waited_for() {
    let way = Duration::from_secs(4);
    let storage = Faulty::far(way..way + Duration::from_nanos(1), &[]);
    let begun = tokio::time::Instant::now();
    let outcomes = batch(&storage, vec![set("a")]).await;
    assert!(
        matches!(outcomes[..], [Err(WriteError::Unavailable)]),
        "{outcomes:?}"
    );
    assert!(begun.elapsed() < times::CALL, "{:?}", begun.elapsed());
    assert_eq!(storage.appends.load(Ordering::SeqCst), 0);
    assert!(log(&storage).await.is_empty());
}

/// Each caller hears in the time that a write may take, counted from its own call, however long the batch before
/// it took: what is in doubt is said of those that were sent, and that nothing was written of the others.
#[tokio::test(start_paused = true)]
async fn every_caller_hears_in_its_own_time() {
    let storage = Faulty::new(&[Fault::LostUnknown; 10_000]);
    let (writer, handle) = lane(&storage);
    tokio::spawn(writer.run());
    let callers = (0..30).map(|caller| {
        let handle = handle.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(500) * caller).await;
            let begun = tokio::time::Instant::now();
            let outcome = handle.write(set(&format!("{caller}"))).await;
            (outcome, begun.elapsed())
        })
    });
    let mut longest = Duration::ZERO;
    for caller in futures::future::join_all(callers).await {
        let (outcome, took) = caller.unwrap();
        assert!(
            matches!(outcome, Err(WriteError::Unknown | WriteError::Unavailable)),
            "{outcome:?}"
        );
        longest = longest.max(took);
    }
    println!("the longest heard after {longest:?}");
    assert!(
        longest <= times::WRITE + Duration::from_millis(10),
        "{longest:?}"
    );
    assert!(log(&storage).await.is_empty());
}

/// A caller who is told before the others of its batch changes nothing for them.
#[tokio::test(start_paused = true)]
async fn one_who_hears_early_leaves_the_others_their_time() {
    // 100 attempts, each 50 ms after the one before: the first batch is in doubt until its time is up, and the
    // second is written 3 s later.
    let storage = Faulty::new(&[Fault::LostUnknown; 210]);
    let (writer, handle) = lane(&storage);
    tokio::spawn(writer.run());
    let call = |after: u64, key: &'static str| {
        let handle = handle.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(after)).await;
            let begun = tokio::time::Instant::now();
            (handle.write(set(key)).await, begun.elapsed())
        })
    };
    let calls = [call(0, "a"), call(100, "b"), call(6_000, "c")];
    let [a, b, c] = calls.map(|call| async { call.await.unwrap() });
    let ((a, _), (b, took), (c, _)) = futures::join!(a, b, c);
    assert!(matches!(a, Err(WriteError::Unknown)), "{a:?}");
    assert!(matches!(b, Err(WriteError::Unknown)), "{b:?}");
    assert!(took <= times::WRITE + Duration::from_millis(10), "{took:?}");
    let written = c.unwrap();
    let log = log(&storage).await;
    assert!(log.contains(&written.events()[0]));
    for key in ["a", "b", "c"] {
        let times = log.iter().filter(|event| event.entity.key() == key).count();
        assert!(times <= 1, "{key}: {times}");
    }
}
