//! What waits in front of a lane holds no more memory than its bound says, whatever the writes look like.
//!
//! Alone in its process, whose memory is what is measured.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails, with a message"
)]

use std::sync::Arc;

use stategate_channel::{Channel, InMemory, InMemoryConfig};
use stategate_command::{
    Operation,
    lane::{LaneWriter, QueueBounds, Write, WriteError},
};
use stategate_model::{
    Claims, Command, EntityRef, Expect, Lane, Limits, Object, Values, Version, json,
};
use stategate_storage::{Memory, MemoryConfig, Storage};

const MIB: usize = 1 << 20;
const BOUND: usize = 16 * MIB;

/// Memory that this process holds.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: usize = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kib * 1_024
}

fn write(operations: impl Iterator<Item = (Expect, Command)>) -> Write {
    let operations = operations
        .enumerate()
        .map(|(n, (expect, command))| Operation {
            entity: EntityRef::new("d", "t", &n.to_string()).unwrap(),
            expect,
            command,
        });
    Write {
        operations: operations.collect(),
        idempotency: None,
        claims: Claims::none(),
        trace_parent: None,
    }
}

fn values(object: Object) -> Values {
    Values::new(object, &Limits::default()).unwrap()
}

/// Queues writes until there is no more room, or so many; answers how many waited and what they held.
fn queue(most: usize, make: impl Fn() -> Write) -> (usize, usize) {
    let storage: Arc<dyn Storage> = Arc::new(Memory::new(&MemoryConfig::default()).unwrap());
    let channel: Arc<dyn Channel> = Arc::new(InMemory::new(&InMemoryConfig::default()));
    let bounds = QueueBounds {
        writes: 100_000,
        bytes: BOUND,
    };
    let (_writer, handle) =
        LaneWriter::new(Lane(0), storage, channel, Limits::default(), bounds, MIB);
    // Made once before, so that what the allocator keeps of it is not counted.
    drop(make());
    let before = resident();
    let mut waiting = Vec::new();
    for _ in 0..most {
        let write = make();
        let handle = handle.clone();
        let mut call = Box::pin(async move { handle.write(write).await });
        match futures::executor::block_on(async { futures::poll!(&mut call) }) {
            std::task::Poll::Pending => waiting.push(call),
            std::task::Poll::Ready(Err(WriteError::Busy)) => break,
            std::task::Poll::Ready(other) => panic!("{other:?}"),
        }
    }
    let held = resident().saturating_sub(before);
    (waiting.len(), held)
}

/// A kind of write by its name: how many are tried, what each holds at least, and how one is made.
type Kind<'a> = (&'a str, usize, usize, Box<dyn Fn() -> Write + 'a>);

#[test]
fn what_waits_holds_no_more_than_its_bound() {
    // Their tree is a hundred times as large as their bytes.
    let text = format!(r#"{{"a":[{}]}}"#, vec![r#"{"":0}"#; 9_000].join(","));
    let nested = json::parse_object(&text).unwrap();
    let one = |expect, command| write(std::iter::once((expect, command)));
    let edit = || Command::Edit(values(Object::new()));
    // What is kept by the allocator of one kind hides what the next one holds, so that each is also
    // known to hold at least so much; the one that holds most comes last.
    let kinds: [Kind; 4] = [
        (
            "many small writes",
            60_000,
            size_of::<Write>() + size_of::<Operation>(),
            Box::new(|| one(Expect::Anything, edit())),
        ),
        (
            "long preconditions",
            60_000,
            100 * size_of::<Version>(),
            Box::new(|| {
                let versions = (0..100).map(Version::new).collect();
                one(Expect::Versions(versions), Command::Del)
            }),
        ),
        (
            "many small operations",
            400,
            1_000 * size_of::<Operation>(),
            Box::new(|| write((0..1_000).map(|_| (Expect::Anything, edit())))),
        ),
        (
            "values of many small objects",
            40,
            text.len(),
            Box::new(|| one(Expect::Anything, Command::Set(values(nested.clone())))),
        ),
    ];
    for (what, most, least, make) in kinds {
        let (waited, held) = queue(most, make);
        println!("{what}: {waited} waited and held {} KiB", held / 1_024);
        assert!(waited >= 20, "{what}: only {waited} waited");
        assert!(waited * least <= BOUND, "{what}: {waited} waited");
        assert!(held <= BOUND * 3 / 2, "{what}: {} MiB are held", held / MIB);
    }
}
