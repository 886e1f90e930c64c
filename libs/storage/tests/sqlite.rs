//! What is SQLite's own: the file, its settings, its locks and its damages.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it did"
)]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::future::{join_all, try_join_all};
use rusqlite::Connection;
use stategate_model::{
    Claims, EntityQuery, EntityRef, Event, EventId, Filter, KindRef, Lane, Method, PageRequest,
    Position, Timestamp, Values, Version,
};
use stategate_storage::{
    Appended, Batch, ErrorKind, ReadLimit, Sqlite, SqliteConfig, Storage, StorageConfig, Trouble,
    Work,
};

struct File {
    directory: tempfile::TempDir,
}

impl File {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("log.db")
    }

    async fn open(&self, lanes: Option<u8>) -> stategate_storage::Result<Sqlite> {
        let path = self.path();
        Sqlite::open(&SqliteConfig { path, lanes }).await
    }

    fn raw(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    async fn refused(&self, lanes: Option<u8>) -> String {
        refused(&self.path(), lanes).await
    }
}

async fn refused(path: &Path, lanes: Option<u8>) -> String {
    let path = path.to_owned();
    let error = Sqlite::open(&SqliteConfig { path, lanes })
        .await
        .unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config, "{error}");
    error.to_string()
}

/// The first event of an entity, to stand at a position.
fn event(key: &str, position: u64) -> Event {
    Event {
        id: EventId::fresh(Timestamp(0)),
        entity: EntityRef::new("d", "t", key).unwrap(),
        values: Values::from_canonical(r#"{"n":1}"#),
        version: Version::new(1),
        lane: Lane(0),
        position: Position::new(position),
        time: Timestamp(i64::try_from(position).unwrap()),
        method: Method::Set,
        claims: Claims::none(),
        trace_parent: None,
    }
}

async fn append(store: &Sqlite, events: Vec<Event>) -> stategate_storage::Result<Appended> {
    let expected = Position::new(events[0].position.get() - 1);
    let keys = Vec::new();
    let batch = Arc::new(Batch { events, keys });
    store.append(Lane(0), expected, batch).await
}

fn all(filter: &str) -> EntityQuery {
    EntityQuery {
        of: KindRef::new("d", "t").unwrap(),
        filter: Filter::parse_entity(filter).unwrap(),
        sort: None,
        page: PageRequest::new(0, 0, None).unwrap(),
    }
}

#[test]
fn the_configuration_is_read_strictly() {
    let parse = serde_json::from_str::<StorageConfig>;
    let config = parse(r#"{"name":"sqlite","path":"stategate.db","lanes":8}"#).unwrap();
    let path = PathBuf::from("stategate.db");
    let expected = SqliteConfig {
        path,
        lanes: Some(8),
    };
    assert_eq!(config, StorageConfig::Sqlite(expected));
    assert!(parse(r#"{"name":"sqlite","path":"stategate.db"}"#).is_ok());
    assert!(parse(r#"{"name":"memory"}"#).is_ok());
    assert!(parse(r#"{"name":"memory","lanes":4}"#).is_ok());
    for (bad, named) in [
        (r#"{"name":"sqlite"}"#, "path"),
        (r#"{"name":"sqlite","path":"x","lane":8}"#, "lane"),
        (r#"{"name":"memory","path":"x"}"#, "path"),
        (r#"{"name":"sqlite3","path":"x"}"#, "sqlite3"),
        (r#"{"path":"x"}"#, "name"),
    ] {
        let error = parse(bad).unwrap_err().to_string();
        assert!(error.contains(named), "{bad}: {error}");
    }
}

#[tokio::test]
async fn lanes_are_fixed_when_the_file_is_made() {
    let file = File::new();
    let store = file.open(Some(8)).await.unwrap();
    let log_id = store.info().log_id;
    store.close().await;
    for lanes in [None, Some(8)] {
        let store = file.open(lanes).await.unwrap();
        assert_eq!((store.info().lanes.get(), store.info().log_id), (8, log_id));
        store.close().await;
    }
    let error = file.refused(Some(4)).await;
    assert!(error.contains('4') && error.contains('8'), "{error}");
    for lanes in [0, 65] {
        let error = File::new().refused(Some(lanes)).await;
        assert!(error.contains("must be 1 to 64"), "{error}");
    }
}

#[tokio::test]
async fn what_is_no_log_is_refused_by_name() {
    let file = File::new();
    let error = refused(file.directory.path(), None).await;
    assert!(error.contains("is the directory"), "{error}");
    let error = refused(&file.directory.path().join("missing/log.db"), None).await;
    assert!(error.contains("there is no directory"), "{error}");
    for path in ["", ":memory:"] {
        let error = refused(Path::new(path), None).await;
        assert!(error.contains("must name a file"), "{error}");
    }

    std::fs::write(
        file.path(),
        "this is a text, and long enough to be taken for a header",
    )
    .unwrap();
    let error = file.refused(None).await;
    assert!(error.contains("is not an SQLite file"), "{error}");

    let file = File::new();
    file.raw().execute_batch("CREATE TABLE theirs (x)").unwrap();
    let error = file.refused(None).await;
    assert!(error.contains("another application"), "{error}");

    let file = File::new();
    file.open(None).await.unwrap().close().await;
    file.raw().pragma_update(None, "user_version", 2).unwrap();
    let error = file.refused(None).await;
    assert!(
        error.contains("format 2") && error.contains("newer version"),
        "{error}"
    );

    let file = File::new();
    file.open(None).await.unwrap().close().await;
    file.raw().execute_batch("DELETE FROM meta").unwrap();
    let error = file.open(None).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_that_start_at_once_make_one_log() {
    for round in 0..5 {
        let file = File::new();
        let stores = try_join_all((0..6).map(|_| file.open(Some(4))))
            .await
            .unwrap();
        let log_ids: Vec<_> = stores.iter().map(|store| store.info().log_id).collect();
        assert!(
            log_ids.iter().all(|id| *id == log_ids[0]),
            "round {round}: {log_ids:?}"
        );
        join_all(stores.iter().map(|store| store.close())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_held_elsewhere_is_unavailable_and_nothing_is_written() {
    let file = File::new();
    let store = file.open(None).await.unwrap();
    let other = file.raw();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let events = vec![event("a", 1)];
    let error = append(&store, events.clone()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(error.trouble(), Some(Trouble::Locked), "{error}");
    // Readers are not locked out.
    let entity = EntityRef::new("d", "t", "a").unwrap();
    assert_eq!(
        store.get(&entity).await.unwrap().value.version,
        Version::ZERO
    );
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(append(&store, events).await.unwrap(), Appended::Done);
    // A lock that is let go in time is waited for.
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let release = tokio::task::spawn_blocking(move || {
        std::thread::sleep(Duration::from_millis(300));
        other.execute_batch("ROLLBACK").unwrap();
    });
    assert_eq!(
        append(&store, vec![event("b", 2)]).await.unwrap(),
        Appended::Done
    );
    release.await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn damaged_rows_are_called_corrupt() {
    for (damage, what) in [
        ("UPDATE events SET vals = '[]'", "values that are no object"),
        (
            "UPDATE events SET vals = '{\"n\":'",
            "values that are no JSON",
        ),
        ("UPDATE events SET method = 9", "an unknown method"),
        (
            "UPDATE events SET domain = 'd', type = 't', key = 'a b'",
            "an illegal name",
        ),
        ("UPDATE events SET id = x'00'", "a short id"),
        ("UPDATE events SET trace_parent = 'x'", "a malformed trace"),
        ("ALTER TABLE events RENAME TO gone", "a table that is gone"),
    ] {
        let file = File::new();
        let store = file.open(None).await.unwrap();
        append(&store, vec![event("a", 1)]).await.unwrap();
        file.raw().execute_batch(damage).unwrap();
        let log = store
            .read_log(
                Lane(0),
                Position::ZERO,
                ReadLimit {
                    events: 1,
                    bytes: 1,
                },
            )
            .await;
        let found = store.search_entities(&all(r#"{"n":1}"#)).await;
        let errors: Vec<_> = [log.err(), found.err()].into_iter().flatten().collect();
        assert!(!errors.is_empty(), "{what} was read");
        for error in errors {
            assert_eq!(*error.kind(), ErrorKind::Corrupt, "{what}: {error}");
        }
        store.close().await;
    }
}

/// What a damaged page had is not there to be read, and that is said: nobody is told that it never was.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_page_is_never_an_absent_entity() {
    const PAGE: usize = 4096;
    const ENTITIES: u64 = 300;
    let file = File::new();
    let store = file.open(None).await.unwrap();
    let events = (1..=ENTITIES).map(|n| event(&format!("{n:0>200}"), n));
    append(&store, events.collect()).await.unwrap();
    store.close().await;
    let whole = std::fs::read(file.path()).unwrap();
    let pages = whole.len() / PAGE;
    let (mut damaged, mut unreadable) = (0, 0);
    for page in (1..pages).step_by(pages / 16) {
        for fill in [0x00, 0xff, 0x0d] {
            let mut bytes = whole.clone();
            bytes[page * PAGE..(page + 1) * PAGE].fill(fill);
            std::fs::write(file.path(), bytes).unwrap();
            damaged += 1;
            let store = match file.open(None).await {
                Ok(store) => store,
                Err(error) => {
                    assert!(
                        matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Config),
                        "{error}"
                    );
                    continue;
                }
            };
            for n in 1..=ENTITIES {
                let entity = EntityRef::new("d", "t", &format!("{n:0>200}")).unwrap();
                match store.get(&entity).await {
                    Ok(read) => {
                        assert_eq!(read.value.version, Version::new(1), "{page} {fill}: {n}")
                    }
                    Err(error) => {
                        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{page} {fill}: {error}");
                        unreadable += 1;
                    }
                }
            }
            store.close().await;
        }
    }
    assert!(unreadable > 0, "no page of {damaged} was of any use");
    println!("{damaged} times a page was damaged, {unreadable} reads said so");
}

/// Moves one of the files of an open log away, or puts another in its place, and back.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_not_where_they_were_take_no_append() {
    for ending in ["", "-wal", "-shm"] {
        let file = File::new();
        let store = file.open(None).await.unwrap();
        append(&store, vec![event("a", 1)]).await.unwrap();
        let path = PathBuf::from(format!("{}{ending}", file.path().display()));
        let aside = file.directory.path().join("aside");
        std::fs::rename(&path, &aside).unwrap();
        for replaced in [false, true] {
            if replaced {
                std::fs::copy(&aside, &path).unwrap();
            }
            let error = append(&store, vec![event("b", 2)]).await.unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Unavailable, "{ending}: {error}");
            assert_eq!(error.trouble(), Some(Trouble::Gone), "{ending}: {error}");
            for work in [Work::Read, Work::Write] {
                let error = store.check(work).await.unwrap_err();
                assert_eq!(error.trouble(), Some(Trouble::Gone), "{ending}: {error}");
            }
        }
        std::fs::rename(&aside, &path).unwrap();
        store.check(Work::Write).await.unwrap();
        assert_eq!(
            append(&store, vec![event("b", 2)]).await.unwrap(),
            Appended::Done
        );
        store.close().await;
    }
}

/// Nothing is acknowledged on the strength of pages that only this process still has.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_emptied_takes_no_append() {
    let file = File::new();
    let store = file.open(None).await.unwrap();
    append(&store, vec![event("a", 1)]).await.unwrap();
    std::fs::OpenOptions::new()
        .write(true)
        .open(file.path())
        .unwrap()
        .set_len(0)
        .unwrap();
    let error = append(&store, vec![event("b", 2)]).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(error.trouble(), Some(Trouble::Gone), "{error}");
    let error = store.check(Work::Write).await.unwrap_err();
    assert_eq!(error.trouble(), Some(Trouble::Gone), "{error}");
    store.close().await;
}

/// A file behind a link is the file that the link leads to.
#[tokio::test]
async fn a_link_to_the_file_is_followed_and_watched() {
    let file = File::new();
    let link = file.directory.path().join("link.db");
    std::fs::write(file.path(), "").unwrap();
    std::os::unix::fs::symlink(file.path(), &link).unwrap();
    let config = SqliteConfig {
        path: link.clone(),
        lanes: None,
    };
    let store = Sqlite::open(&config).await.unwrap();
    append(&store, vec![event("a", 1)]).await.unwrap();
    std::fs::remove_file(&link).unwrap();
    let error = append(&store, vec![event("b", 2)]).await.unwrap_err();
    assert_eq!(error.trouble(), Some(Trouble::Gone), "{error}");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_write_ahead_log_stays_short_under_load() {
    let file = File::new();
    let store = file.open(None).await.unwrap();
    let mut longest = 0;
    let mut position = 0;
    for batch in 0..300 {
        let events = (0..200)
            .map(|n| {
                position += 1;
                event(&format!("{}-{n}", (batch * 7_919) % 10_007), position)
            })
            .collect();
        assert_eq!(append(&store, events).await.unwrap(), Appended::Done);
        let wal = file.directory.path().join("log.db-wal");
        longest = longest.max(std::fs::metadata(wal).unwrap().len());
    }
    let written = std::fs::metadata(file.path()).unwrap().len();
    println!(
        "longest write-ahead log {} KiB, file {} KiB",
        longest >> 10,
        written >> 10
    );
    assert!(
        written > 4 << 20,
        "too little was moved to the file to tell"
    );
    assert!(longest < 96 << 20, "{longest} bytes of write-ahead log");
    store.close().await;
    let wal = file.directory.path().join("log.db-wal");
    assert!(!wal.exists(), "the last to close leaves one file");
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_store_ends_its_threads() {
    let file = File::new();
    for round in 0..10 {
        let store = file.open(None).await.unwrap();
        append(&store, vec![event(&format!("e{round}"), round + 1)])
            .await
            .unwrap();
        // Some calls are never waited for.
        let search = store.search_entities(&all("")).await;
        assert_eq!(search.unwrap().value.items.len() as u64, round + 1);
        drop(store);
    }
    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten();
        tasks
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
            .filter(|name| name.starts_with("sqlite-"))
            .count()
    };
    // Other tests of this process have threads, too; these ten would be over 100 more.
    let mut left = threads();
    for _ in 0..200 {
        left = threads();
        if left < 100 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(left < 100, "{left} threads are left");
}

/// A file system that takes no writes any more, as one that found an error in itself: what is there is not
/// opened as a log that could be written to, and is whole when it takes writes again. (A file system whose
/// files are open for writing is not made read-only by asking, so that this is tried between two openings.)
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_file_system_is_named() {
    let at = tempfile::tempdir().unwrap();
    let mount = |options: &str| {
        let mut command = std::process::Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "tmpfs"]);
        command.arg(at.path()).status().is_ok_and(|s| s.success())
    };
    if !mount("size=64m") {
        eprintln!("\n!!!! NOT COVERED: a read-only file system: only root can mount one\n");
        return;
    }
    let path = at.path().join("log.db");
    let config = SqliteConfig {
        path: path.clone(),
        lanes: None,
    };
    let store = Sqlite::open(&config).await.unwrap();
    let appended = append(&store, vec![event("a", 1)]).await.unwrap();
    assert_eq!(appended, Appended::Done);
    store.close().await;
    drop(store);
    assert!(mount("remount,ro"), "nothing has it open");
    let problem = Sqlite::open(&config).await.map(drop).unwrap_err();
    let told = problem.to_string();
    println!("{:?}, {:?}: {told}", problem.kind(), problem.trouble());
    let is_named = problem.trouble() == Some(Trouble::ReadOnly) || told.contains("read-only");
    assert!(is_named, "{told}");
    assert!(mount("remount,rw"));
    let store = Sqlite::open(&config).await.unwrap();
    let appended = append(&store, vec![event("b", 2)]).await.unwrap();
    assert_eq!(appended, Appended::Done);
    store.close().await;
    let _ = std::process::Command::new("umount")
        .arg("--lazy")
        .arg(at.path())
        .status();
}
