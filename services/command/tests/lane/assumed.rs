//! Assuming that what is not in the cache does not exist: it saves a load, and no answer shows it.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::future::join_all;
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use stategate_command::{
    Refused,
    lane::{LaneHandle, Write, WriteError},
};
use stategate_model::{Command, Expect, Refusal, Values, Version};

use crate::{
    contended,
    faulty::{Fault, Faulty},
    lane, log, set, with_key, write,
};

/// More new entities, and keys, than it takes to assume that one more is new.
const PLENTY: usize = 100;

/// A writer that has no reason to think that anything is there already, beside `old`, which was
/// written under the key `used` by a process before it.
async fn assuming(storage: &Arc<Faulty>) -> LaneHandle {
    let (writer, before) = lane(storage);
    tokio::spawn(writer.run());
    before.write(with_key(set("old"), "used", 1)).await.unwrap();
    let (writer, handle) = lane(storage);
    tokio::spawn(writer.run());
    for n in 0..PLENTY {
        let new = with_key(set(&format!("new-{n}")), &format!("new-{n}"), 1);
        handle.write(new).await.unwrap();
    }
    handle
}

fn loads(storage: &Faulty) -> usize {
    storage.loads.load(Ordering::SeqCst)
}

#[tokio::test]
async fn what_is_assumed_absent_is_not_loaded() {
    let storage = Faulty::new(&[]);
    let handle = assuming(&storage).await;
    let before = (loads(&storage), storage.appends.load(Ordering::SeqCst));
    let create = |n: usize| {
        let values = Command::Set(Values::empty());
        let write = write(&format!("newer-{n}"), Expect::Absent, values);
        with_key(write, &format!("newer-{n}"), 1)
    };
    for n in 0..PLENTY {
        handle.write(create(n)).await.unwrap();
    }
    let after = (loads(&storage), storage.appends.load(Ordering::SeqCst));
    // The storage is shared: once in a while a writer looks whether it is alone.
    let looks = after.0 - before.0;
    assert_eq!(after.1 - before.1, PLENTY, "one append each");
    assert!(
        looks <= PLENTY / 10,
        "{looks} questions for {PLENTY} writes"
    );
}

#[tokio::test]
async fn what_is_there_after_all_is_found_out() {
    let absent = |key: &str| write(key, Expect::Absent, Command::Set(Values::empty()));
    let mismatch = |outcome: Result<_, WriteError>| match outcome {
        Err(WriteError::Refused(Refused::Operation { refusal, .. })) => refusal,
        other => panic!("{other:?}"),
    };

    let handle = assuming(&Faulty::new(&[])).await;
    let written = handle.write(set("old")).await.unwrap();
    assert_eq!(written.events()[0].version, Version::new(2));

    let handle = assuming(&Faulty::new(&[])).await;
    let refusal = mismatch(handle.write(absent("old")).await);
    let current = Some(Version::new(1));
    assert_eq!(refusal, Refusal::VersionMismatch { current });

    // What changes something is not assumed to make it.
    let handle = assuming(&Faulty::new(&[])).await;
    let edit = write("old", Expect::Anything, Command::Edit(Values::empty()));
    let written = handle.write(edit).await.unwrap();
    assert_eq!(written.events()[0].version, Version::new(2));
    let nothing = write("nothing", Expect::Anything, Command::Del);
    assert_eq!(
        mismatch(handle.write(nothing).await),
        Refusal::EntityNotFound
    );
}

#[tokio::test]
async fn a_key_that_was_used_is_found_out() {
    let handle = assuming(&Faulty::new(&[])).await;
    let copy = handle.write(with_key(set("old"), "used", 1)).await.unwrap();
    assert!(copy.replayed);
    assert_eq!(copy.events()[0].version, Version::new(1));

    // Known to be there, so that without its key it would be refused.
    let handle = assuming(&Faulty::new(&[])).await;
    handle.write(set("old")).await.unwrap();
    let create = write("old", Expect::Absent, Command::Set(Values::empty()));
    let copy = handle.write(with_key(create, "used", 1)).await.unwrap();
    assert!(copy.replayed);

    let handle = assuming(&Faulty::new(&[])).await;
    match handle.write(with_key(set("other"), "used", 2)).await {
        Err(WriteError::Refused(Refused::KeyReused)) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_failed_assumption_in_doubt_is_found_out() {
    for faults in [
        vec![Fault::LostUnknown],
        vec![Fault::LostUnknown, Fault::Conflict],
        vec![Fault::Conflict],
    ] {
        let storage = Faulty::new(&[]);
        let handle = assuming(&storage).await;
        storage.fail(&faults);
        let written = handle.write(set("old")).await.unwrap();
        assert_eq!(written.events()[0].version, Version::new(2), "{faults:?}");
    }
}

/// Two processes, entities of which some are there and keys of which some were used, nothing kept in
/// memory for long: every answer is the one that a model gives.
#[tokio::test(start_paused = true)]
async fn no_answer_shows_what_was_assumed() {
    const CALLERS: usize = 4;
    const EACH: usize = 800;
    const WAY: Duration = Duration::from_millis(1);
    let (storage, handles) = contended(WAY);
    // Each caller has entities and keys of its own, so that it knows what has to come.
    let caller = |caller: usize| {
        let handles = &handles;
        async move {
            let mut random = SmallRng::seed_from_u64(caller as u64);
            let mut versions: HashMap<String, u64> = HashMap::new();
            let mut requests: Vec<(usize, String, bool, u64)> = Vec::new();
            let (mut copies, mut refusals) = (0, 0);
            for n in 0..EACH {
                // Now most write by one process, then by the other.
                let handle = &handles[(n / 200) % 2];
                let (id, key, creates, due) = match requests.len() {
                    0 => (n, format!("{caller}-{n}"), false, None),
                    // Once more what was done before, under its key.
                    some if random.random_ratio(1, 80) => {
                        let (id, key, creates, version) =
                            requests[random.random_range(0..some)].clone();
                        (id, key, creates, Some(version))
                    }
                    // To something that is there.
                    some if random.random_ratio(1, 80) => {
                        let key = requests[random.random_range(0..some)].1.clone();
                        (n, key, random.random_ratio(1, 2), None)
                    }
                    _ => (n, format!("{caller}-{n}"), random.random_ratio(1, 2), None),
                };
                let expect = if creates {
                    Expect::Absent
                } else {
                    Expect::Anything
                };
                let write = write(&key, expect, Command::Set(Values::empty()));
                let write: Write = with_key(write, &format!("{caller}-{id}"), 1);
                let outcome = handle.write(write).await;
                let current = versions.get(&key).copied().unwrap_or_default();
                match (outcome, due) {
                    (Ok(written), Some(version)) => {
                        assert!(written.replayed);
                        assert_eq!(written.events()[0].version, Version::new(version));
                        copies += 1;
                    }
                    (Ok(written), None) => {
                        assert!(!written.replayed);
                        assert!(!creates || current == 0);
                        assert_eq!(written.events()[0].version, Version::new(current + 1));
                        versions.insert(key.clone(), current + 1);
                        requests.push((id, key, creates, current + 1));
                    }
                    (Err(WriteError::Refused(Refused::Operation { refusal, .. })), None) => {
                        assert!(creates && current > 0);
                        let current = Some(Version::new(current));
                        assert_eq!(refusal, Refusal::VersionMismatch { current });
                        refusals += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
            (requests.len(), copies, refusals)
        }
    };
    let done = join_all((0..CALLERS).map(caller)).await;
    let events: usize = done.iter().map(|(events, ..)| events).sum();
    let copies: usize = done.iter().map(|(_, copies, _)| copies).sum();
    let refusals: usize = done.iter().map(|(.., refusals)| refusals).sum();
    let loads = loads(&storage);
    let appends = storage.appends.load(Ordering::SeqCst);
    let misfits = storage.misfits.load(Ordering::SeqCst);
    println!(
        "{events} events, {copies} copies, {refusals} refusals; {appends} appends, {misfits} of them \
         on a failed assumption; {loads} loads"
    );
    assert!(copies > 20 && refusals > 10 && misfits > 10);
    let log = log(&storage).await;
    let others = log
        .iter()
        .filter(|event| event.entity.key().starts_with("other-"));
    assert_eq!(log.len() - others.count(), events);
}
