//! Copying logs: everything is kept, lanes are dealt anew in order, a copy that was interrupted goes on,
//! and what is no part of a copy is left alone.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test fails by panicking and says what it did, and its numbers are small"
)]

use std::{
    collections::HashMap, future::Future as _, path::PathBuf, pin::pin, sync::Arc, task::Poll,
};

use stategate_model::{
    Claims, Digest, EntityRef, Event, EventId, IdempotencyKey, Lane, Lanes, Method, Position,
    Timestamp, TraceParent, Values, Version,
};
use stategate_storage::{
    Appended, Batch, KeyRecord, ReadLimit, SqliteConfig, Storage, StorageConfig, create_as, open,
    transfer::{self, Copied, Step, TransferError},
};

const ALL: ReadLimit = ReadLimit {
    events: usize::MAX,
    bytes: usize::MAX,
};
/// Events of a log that is copied.
const EVENTS: usize = 3_000;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self, name: &str, lanes: Option<u8>) -> StorageConfig {
        let path = self.path(name);
        StorageConfig::Sqlite(SqliteConfig { path, lanes })
    }

    /// A log with everything that a log can hold.
    async fn source(&self, lanes: u8) -> Arc<dyn Storage> {
        let storage = open(&self.config("source.db", Some(lanes))).await.unwrap();
        let mut author = Author::new(&storage);
        while author.written < EVENTS {
            author.write().await;
        }
        storage
    }

    async fn target(&self, source: &Arc<dyn Storage>, lanes: u8) -> Arc<dyn Storage> {
        let identity = transfer::identity(source.info(), Lanes::new(lanes).unwrap());
        create_as(&self.config("target.db", None), identity)
            .await
            .unwrap()
    }
}

/// Writes to a log, a bit of everything.
struct Author {
    storage: Arc<dyn Storage>,
    versions: HashMap<EntityRef, Version>,
    written: usize,
    /// The time of the next request: two lanes often have the same.
    time: i64,
}

impl Author {
    fn new(storage: &Arc<dyn Storage>) -> Self {
        Self {
            storage: Arc::clone(storage),
            versions: HashMap::new(),
            written: 0,
            time: 1_000,
        }
    }

    async fn write(&mut self) {
        let n = self.written;
        let domain = format!("domain-{}", n % 13);
        let lane = self.storage.info().lanes.of(&domain);
        let head = self
            .storage
            .load(lane, &[], &[], usize::MAX)
            .await
            .unwrap()
            .head;
        self.time += 4 * (n % 3) as i64;
        let count = if n.is_multiple_of(7) { 5 } else { 1 };
        let mut time = head.time;
        let events: Vec<Event> = (0..count)
            .map(|i| {
                let entity =
                    EntityRef::new(&domain, "thing", &format!("k{}", (n + i) % 10)).unwrap();
                let version = self.versions.entry(entity.clone()).or_default();
                *version = version.next();
                time = Timestamp::following(Timestamp(self.time), time);
                Event {
                    id: EventId::fresh(Timestamp(0)),
                    entity,
                    values: Values::from_canonical(format!(r#"{{"n":{n}}}"#)),
                    version: *version,
                    lane,
                    position: head.position.plus(i as u64 + 1),
                    time,
                    method: Method::ALL[n % 4],
                    claims: match n % 2 {
                        0 => Claims::none(),
                        _ => Claims::from_stored(Values::from_canonical(r#"{"sub":"someone"}"#)),
                    },
                    trace_parent: TraceParent::parse(
                        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                    )
                    .filter(|_| n.is_multiple_of(5)),
                }
            })
            .collect();
        let key = KeyRecord {
            key: IdempotencyKey::new(&domain, "issuer", "subject", &format!("key-{n}")).unwrap(),
            digest: Digest([n as u8; 32]),
            first: head.position.next(),
            count: count as u32,
        };
        let keys = Vec::from_iter((n.is_multiple_of(7) || n.is_multiple_of(2)).then_some(key));
        let batch = Arc::new(Batch { events, keys });
        let done = self
            .storage
            .append(lane, head.position, batch)
            .await
            .unwrap();
        assert_eq!(done, Appended::Done);
        self.written += count;
    }
}

async fn log(storage: &Arc<dyn Storage>, lane: Lane) -> Vec<Event> {
    storage.read_log(lane, Position::ZERO, ALL).await.unwrap()
}

async fn logs(storage: &Arc<dyn Storage>) -> Vec<Event> {
    let mut all = Vec::new();
    for lane in storage.info().lanes.iter() {
        all.extend(log(storage, lane).await);
    }
    all
}

async fn keys(storage: &Arc<dyn Storage>) -> Vec<KeyRecord> {
    let mut all = Vec::new();
    for lane in storage.info().lanes.iter() {
        all.extend(
            storage
                .read_keys(lane, Position::ZERO, usize::MAX)
                .await
                .unwrap(),
        );
    }
    all
}

async fn copy(
    source: &Arc<dyn Storage>,
    target: &Arc<dyn Storage>,
) -> Result<Copied, TransferError> {
    transfer::copy(source, target, &mut |_| ()).await
}

#[tokio::test]
async fn a_plain_copy_is_the_same_log() {
    for lanes in [1, 8] {
        let folder = Folder::new();
        let source = folder.source(lanes).await;
        let target = folder.target(&source, lanes).await;
        let mut steps = Vec::new();
        let copied = transfer::copy(&source, &target, &mut |progress| steps.push(progress))
            .await
            .unwrap();
        assert_eq!(target.info(), source.info());
        assert_eq!(logs(&target).await, logs(&source).await);
        assert_eq!(keys(&target).await, keys(&source).await);
        assert_eq!(
            (copied.events, copied.written),
            (copied.written, copied.events)
        );
        assert_eq!(copied.keys as usize, keys(&source).await.len());
        assert!(copied.events >= EVENTS as u64 && copied.keys > 500);
        for (step, total) in [
            (Step::Copying, copied.events),
            (Step::Comparing, 2 * copied.events),
        ] {
            let of: Vec<_> = steps
                .iter()
                .filter(|progress| progress.step == step)
                .collect();
            assert!(of.len() > 2 && of.iter().all(|progress| progress.total == total));
            assert!(of.is_sorted_by_key(|progress| progress.done));
        }
        // What is there is not written again; what is new is.
        let again = copy(&source, &target).await.unwrap();
        assert_eq!((again.written, again.digest), (0, copied.digest));
        let mut author = Author::new(&source);
        for event in logs(&source).await {
            author.versions.insert(event.entity, event.version);
        }
        author.written = 1_000_001;
        author.write().await;
        let more = copy(&source, &target).await.unwrap();
        assert_eq!(more.events, copied.events + more.written);
        assert!(more.written > 0 && more.digest != copied.digest);
        assert_eq!(logs(&target).await, logs(&source).await);
    }
}

#[tokio::test]
async fn lanes_are_dealt_anew() {
    for (from, to) in [(8, 1), (1, 8), (8, 3)] {
        let folder = Folder::new();
        let source = folder.source(from).await;
        let target = folder.target(&source, to).await;
        let copied = copy(&source, &target).await.unwrap();
        assert_ne!(target.info().log_id, source.info().log_id);
        assert_eq!(copied.written, copied.events);
        let before: HashMap<EventId, Event> = logs(&source)
            .await
            .into_iter()
            .map(|event| (event.id, event))
            .collect();
        let mut moved = 0;
        for lane in target.info().lanes.iter() {
            let dealt = log(&target, lane).await;
            let mut last: Option<&Event> = None;
            for (event, position) in dealt.iter().zip(1..) {
                let old = &before[&event.id];
                let kept = Event {
                    lane: old.lane,
                    position: old.position,
                    time: old.time,
                    ..event.clone()
                };
                assert_eq!(&kept, old, "everything but its place");
                assert_eq!(event.position, Position::new(position));
                assert_eq!(event.lane, target.info().lanes.of(event.entity.domain()));
                // The least time that is after the one before.
                let least = last.map_or(old.time, |last| Timestamp::following(old.time, last.time));
                assert_eq!(event.time, least);
                moved += usize::from(event.time != old.time);
                if let Some(last) = last.filter(|last| before[&last.id].lane == old.lane) {
                    assert!(
                        before[&last.id].position < old.position,
                        "old order is kept"
                    );
                }
                last = Some(event);
            }
        }
        assert_eq!(logs(&target).await.len(), before.len());
        assert_eq!(
            moved > 0,
            from > to,
            "times were made different where lanes met"
        );
        // A key stands for the same events.
        let of = async |storage: &Arc<dyn Storage>| -> HashMap<_, _> {
            let mut made = HashMap::new();
            for record in keys(storage).await {
                let lane = storage.info().lanes.of(&record.key.domain);
                let asked = std::slice::from_ref(&record.key);
                let loaded = storage.load(lane, &[], asked, usize::MAX).await.unwrap();
                let replay = loaded.replays.into_iter().next().flatten().unwrap();
                let ids: Vec<_> = replay.events.iter().map(|event| event.id).collect();
                made.insert(record.key, (replay.digest.0, ids));
            }
            made
        };
        assert_eq!(of(&target).await, of(&source).await);
        println!(
            "{from} to {to} lanes: {} events, {moved} got another time",
            copied.events
        );
        assert_eq!(copy(&source, &target).await.unwrap().written, 0);
    }
}

#[tokio::test]
async fn a_copy_that_was_interrupted_goes_on() {
    for (from, to) in [(1, 1), (8, 8), (8, 1), (1, 8)] {
        let folder = Folder::new();
        let source = folder.source(from).await;
        let identity = transfer::identity(source.info(), Lanes::new(to).unwrap());
        let config = folder.config("target.db", None);
        let (mut dropped, mut polls) = (0, 1);
        let copied = loop {
            let target = create_as(&config, identity).await.unwrap();
            let done = {
                let mut says = |_| ();
                let mut copying = pin!(transfer::copy(&source, &target, &mut says));
                let mut left = polls;
                // Dropped at any await, as a process may end at any instant.
                std::future::poll_fn(|context| {
                    let polled = copying.as_mut().poll(context).map(Some);
                    left -= 1;
                    if polled.is_pending() && left == 0 {
                        return Poll::Ready(None);
                    }
                    polled
                })
                .await
            };
            target.close().await;
            match done {
                Some(copied) => break copied.unwrap(),
                None => (dropped, polls) = (dropped + 1, polls + 2),
            }
        };
        assert!(dropped > 5, "it was dropped {dropped} times");
        assert!(copied.written < copied.events, "some was there already");
        println!("{from} to {to} lanes: interrupted {dropped} times");
    }
}

#[tokio::test]
async fn what_is_no_part_of_the_copy_is_refused() {
    let folder = Folder::new();
    let source = folder.source(8).await;
    let refused = async |target: &Arc<dyn Storage>, why: &str| {
        let before = logs(target).await;
        match copy(&source, target).await {
            Err(TransferError::Target(problem)) => assert!(problem.contains(why), "{problem}"),
            other => panic!("{other:?} instead of: {why}"),
        }
        assert_eq!(logs(target).await, before, "it was left alone");
    };
    // Another log, of as many lanes.
    let other = open(&folder.config("other.db", Some(8))).await.unwrap();
    Author::new(&other).write().await;
    refused(&other, "holds another log").await;
    // Another log, of fewer.
    let other = open(&folder.config("fewer.db", Some(1))).await.unwrap();
    Author::new(&other).write().await;
    refused(&other, "something else at position 1 of lane 0").await;
    // A copy that went its own way.
    let target = folder.target(&source, 8).await;
    Author::new(&target).write().await;
    refused(&target, "something else at position").await;
    // A copy that went on.
    let name = folder.config("ahead.db", None);
    let ahead = create_as(
        &name,
        transfer::identity(source.info(), source.info().lanes),
    );
    let ahead = ahead.await.unwrap();
    copy(&source, &ahead).await.unwrap();
    let mut author = Author::new(&ahead);
    author.written = 1_000_001;
    author.versions.clear();
    for event in logs(&ahead).await {
        author.versions.insert(event.entity, event.version);
    }
    author.write().await;
    refused(&ahead, "and the source").await;
}

#[tokio::test]
async fn a_difference_is_found() {
    for (statement, lanes) in [
        (
            "UPDATE events SET vals = '{\"n\":-1}' WHERE rowid = (SELECT min(seq) FROM events)",
            8,
        ),
        (
            "UPDATE events SET claims = '{\"sub\":\"other\"}' WHERE seq = 700",
            1,
        ),
        (
            "UPDATE idempotency SET digest = randomblob(32) WHERE first = 1",
            1,
        ),
        (
            "DELETE FROM idempotency WHERE first = (SELECT max(first) FROM idempotency)",
            8,
        ),
    ] {
        let folder = Folder::new();
        let source = folder.source(lanes).await;
        let target = folder.target(&source, lanes).await;
        copy(&source, &target).await.unwrap();
        let file = rusqlite::Connection::open(folder.path("target.db")).unwrap();
        assert_eq!(file.execute(statement, []).unwrap(), 1, "{statement}");
        match copy(&source, &target).await {
            Err(TransferError::Differs(problem)) => println!("{statement}: {problem}"),
            other => panic!("{statement}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_source_that_lost_or_moved_events_is_damaged() {
    const ONE: &str = "(SELECT seq FROM events ORDER BY seq LIMIT 1 OFFSET 20)";
    const NEXT: &str = "(SELECT seq FROM events ORDER BY seq LIMIT 1 OFFSET 21)";
    for (statements, word) in [
        (format!("DELETE FROM events WHERE seq = {ONE}"), "no event"),
        (
            "DELETE FROM events WHERE seq IN (SELECT seq FROM events ORDER BY seq LIMIT 2)"
                .to_owned(),
            "no event",
        ),
        (
            format!(
                "CREATE TEMP TABLE pair AS SELECT {ONE} AS one, {NEXT} AS next;
                 UPDATE events SET seq = -1 WHERE seq = (SELECT one FROM pair);
                 UPDATE events SET seq = (SELECT one FROM pair) WHERE seq = (SELECT next FROM pair);
                 UPDATE events SET seq = (SELECT next FROM pair) WHERE seq = -1"
            ),
            "does not continue",
        ),
        (
            format!("UPDATE events SET version = version + 1000 WHERE seq = {ONE}"),
            "version",
        ),
    ] {
        for (from, to) in [(1, 1), (8, 8), (8, 3)] {
            let folder = Folder::new();
            folder.source(from).await.close().await;
            let file = rusqlite::Connection::open(folder.path("source.db")).unwrap();
            file.execute_batch(&statements).unwrap();
            drop(file);
            let source = open(&folder.config("source.db", None)).await.unwrap();
            let target = folder.target(&source, to).await;
            match copy(&source, &target).await {
                // A version that does not follow is refused by the target before it is judged here.
                Err(failure @ (TransferError::Damaged(_) | TransferError::Storage { .. })) => {
                    let problem = failure.to_string();
                    println!("{from} to {to}: {problem}");
                    assert!(problem.contains(word), "{problem}");
                }
                other => panic!("{statements}, {from} to {to}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_source_that_is_written_to_is_noticed() {
    for (lanes, plain) in [(8, true), (1, false)] {
        let folder = Folder::new();
        let source = folder.source(8).await;
        let target = folder.target(&source, lanes).await;
        let mut author = Author::new(&source);
        for event in logs(&source).await {
            author.versions.insert(event.entity, event.version);
        }
        author.written = 1_000_001;
        author.time = 1 << 40;
        // One write while it copies: a plain copy takes it along.
        let mut wrote = false;
        let copied = transfer::copy(&source, &target, &mut |progress| {
            if !wrote && progress.step == Step::Copying {
                wrote = true;
                futures::executor::block_on(author.write());
            }
        })
        .await;
        match copied {
            Ok(copied) if plain => {
                assert!(wrote);
                assert_eq!(copied.events as usize, logs(&source).await.len());
            }
            Err(TransferError::Busy(_)) if !plain => {}
            other => panic!("{other:?}"),
        }
    }
}
