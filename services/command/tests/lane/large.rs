//! Large states and large answers given before: they are read in parts, and no more is held than a part.

use std::sync::{Arc, atomic::Ordering};

use stategate_command::{
    Operation,
    lane::{Write, WriteError},
};
use stategate_model::{Command, Expect, Values, Version, limits};

use crate::{batch, entity, faulty::Faulty, lane, log, set, with_key, write};

const MIB: usize = 1 << 20;
/// More than one answer of the storage holds.
const ENTITIES: usize = 20;

fn key(n: usize) -> String {
    format!("large-{n}")
}

/// Makes entities of almost 1 MiB, each under an idempotency key of its own.
async fn large() -> Arc<Faulty> {
    let storage = Faulty::new(&[]);
    for n in 0..ENTITIES {
        let text = "x".repeat(MIB * 9 / 10);
        let values = Values::from_canonical(format!(r#"{{"text":"{text}"}}"#));
        let (writer, handle) = lane(&storage);
        tokio::spawn(writer.run());
        handle.write(make(n, values)).await.unwrap();
    }
    storage.most_loaded.store(0, Ordering::SeqCst);
    storage.loads.store(0, Ordering::SeqCst);
    storage
}

fn make(n: usize, values: Values) -> Write {
    let write = write(&key(n), Expect::Anything, Command::Set(values));
    with_key(write, &key(n), 1)
}

fn edit(n: usize) -> Write {
    let values = Values::from_canonical(r#"{"n":1}"#);
    write(&key(n), Expect::Exists, Command::Edit(values))
}

/// One part, and the one item that may be larger.
fn assert_bounded(storage: &Faulty) {
    let (most, loads) = (
        storage.most_loaded.load(Ordering::SeqCst),
        storage.loads.load(Ordering::SeqCst),
    );
    println!("{loads} loads of at most {most} bytes");
    assert!(most <= limits::BATCH_BYTES, "{most} bytes at once");
    assert!(loads >= 2, "{loads} loads are no parts");
}

#[tokio::test]
async fn a_batch_on_large_states_reads_them_in_parts() {
    for moves in [0, 1, 3] {
        let storage = large().await;
        storage.moves.store(moves, Ordering::SeqCst);
        let writes = (0..ENTITIES).flat_map(|n| [edit(n), set(&format!("small-{n}"))]);
        let outcomes = batch(&storage, writes.collect()).await;
        for (n, outcome) in outcomes.iter().enumerate() {
            let (events, _) = outcome.as_ref().unwrap();
            let version = if n % 2 == 0 { 2 } else { 1 };
            assert_eq!(events[0].version, Version::new(version), "{n}");
        }
        assert_bounded(&storage);
        let log = log(&storage).await;
        assert_eq!(log.len(), ENTITIES * 3 + moves);
    }
}

#[tokio::test]
async fn copies_of_large_requests_are_answered_in_parts() {
    let storage = large().await;
    let copies = (0..ENTITIES).map(|n| make(n, Values::empty()));
    let outcomes = batch(&storage, copies.collect()).await;
    let log = log(&storage).await;
    for (n, outcome) in outcomes.into_iter().enumerate() {
        let (events, replayed) = outcome.unwrap();
        assert!(replayed, "{n}");
        assert_eq!(events, log[n..=n]);
    }
    assert_eq!(log.len(), ENTITIES);
    assert_bounded(&storage);
}

#[tokio::test]
async fn a_transaction_on_large_states_is_still_all_or_nothing() {
    let storage = large().await;
    storage.moves.store(2, Ordering::SeqCst);
    let operation = |n, expect| Operation {
        entity: entity(&key(n)),
        expect,
        command: Command::Set(Values::empty()),
    };
    let all = |last| {
        let operations = (0..ENTITIES).map(|n| operation(n, Expect::Exists));
        Write {
            operations: operations.chain([operation(ENTITIES - 1, last)]).collect(),
            ..set("unused")
        }
    };
    let bad = all(Expect::Versions(vec![Version::new(9)]));
    let good = all(Expect::Versions(vec![Version::new(2)]));
    let outcomes = batch(&storage, vec![bad, good, set("after")]).await;
    assert!(
        matches!(outcomes[0], Err(WriteError::Refused(_))),
        "{:?}",
        outcomes[0].as_ref().err()
    );
    let (events, _) = outcomes[1].as_ref().unwrap();
    assert_eq!(events.len(), ENTITIES + 1);
    assert!(outcomes[2].is_ok());
    assert_bounded(&storage);
}
