//! One filter, one answer: what a database finds is what the model's evaluator finds, for filters and
//! documents made at random. (The hand-checked corpus is a case of the conformance suite.)
//!
//! `STATEGATE_TEST_LONG=1` asks twenty times as many.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it did"
)]

use std::sync::Arc;

use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use stategate_model::{
    Claims, EntityQuery, EntityRef, Event, EventId, EventQuery, Filter, KindRef, Lane, Limits,
    Method, Object, PageRequest, Path, Position, Sort, Timestamp, Values, Version,
    filter::generate,
};
use stategate_servers::Postgres as Server;
use stategate_storage::{Appended, Batch, Postgres, PostgresConfig, Sqlite, SqliteConfig, Storage};
use uuid::Uuid;

/// Pairs of a document and a filter in a normal run.
const PAIRS: usize = 10_000;
/// Documents that each filter is asked of.
const DOCUMENTS: usize = 100;
/// Every document is written over twice, and every so many are deleted.
const DELETED: usize = 10;

fn runner(seed: u8) -> TestRunner {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    TestRunner::new_with_rng(Config::default(), rng)
}

fn random<S: Strategy>(strategy: &S, runner: &mut TestRunner) -> S::Value {
    strategy.new_tree(runner).unwrap().current()
}

fn key(n: usize) -> String {
    format!("d{n:03}")
}

/// A history of all documents in one batch; those that are there at the end.
async fn fill(store: &dyn Storage, runner: &mut TestRunner) -> Vec<(String, Object)> {
    let documents: Vec<Object> = (0..DOCUMENTS)
        .map(|_| random(&generate::document(), runner))
        .collect();
    let mut events = Vec::new();
    let mut add = |n: usize, version, method, document: &Object| {
        let position = Position::new(events.len() as u64 + 1);
        events.push(Event {
            id: EventId::fresh(Timestamp(0)),
            entity: EntityRef::new("d", "t", &key(n)).unwrap(),
            values: Values::new(document.clone(), &Limits::default()).unwrap(),
            version: Version::new(version),
            lane: Lane(0),
            position,
            time: Timestamp(position.as_i64()),
            method,
            claims: Claims::none(),
            trace_parent: None,
        });
    };
    let mut left = Vec::new();
    for (n, document) in documents.iter().enumerate() {
        add(n, 1, Method::Set, &documents[DOCUMENTS - 1 - n]);
        add(n, 2, Method::Set, document);
        if n % DELETED == 0 {
            add(n, 3, Method::Del, document);
        } else {
            left.push((key(n), document.clone()));
        }
    }
    let batch = Arc::new(Batch {
        events,
        keys: Vec::new(),
    });
    let appended = store.append(Lane(0), Position::ZERO, batch).await.unwrap();
    assert_eq!(appended, Appended::Done);
    left
}

/// Makes empty stores.
enum Stores {
    Sqlite(tempfile::TempDir),
    Postgres(&'static Server),
}

impl Stores {
    fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    /// `None`, said loudly, where there is no server.
    fn postgres() -> Option<Self> {
        match Server::shared() {
            Ok(server) => Some(Self::Postgres(server)),
            Err(missing) => {
                missing.report("generated filters on postgres");
                None
            }
        }
    }

    async fn open(&self) -> Arc<dyn Storage> {
        let name = Uuid::new_v4().simple().to_string();
        match self {
            Self::Sqlite(directory) => {
                let path = directory.path().join(name);
                let config = SqliteConfig { path, lanes: None };
                Arc::new(Sqlite::open(&config).await.unwrap())
            }
            Self::Postgres(server) => {
                let mut config = PostgresConfig::new(server.url());
                config.schema = format!("t_{name}");
                // Whether an index helps must not show in what is found.
                config.gin = name.ends_with(|c: char| c.is_ascii_digit());
                Arc::new(Postgres::open(&config).await.unwrap())
            }
        }
    }
}

#[tokio::test]
async fn sqlite_finds_entities_as_the_evaluator_does() {
    entities(&Stores::sqlite()).await;
}

#[tokio::test]
async fn sqlite_finds_events_as_the_evaluator_does() {
    events(&Stores::sqlite()).await;
}

#[tokio::test]
async fn postgres_finds_entities_as_the_evaluator_does() {
    if let Some(stores) = Stores::postgres() {
        entities(&stores).await;
    }
}

#[tokio::test]
async fn postgres_finds_events_as_the_evaluator_does() {
    if let Some(stores) = Stores::postgres() {
        events(&stores).await;
    }
}

async fn entities(stores: &Stores) {
    let long = std::env::var_os("STATEGATE_TEST_LONG").is_some();
    let wanted = if long { PAIRS * 20 } else { PAIRS };
    let (mut pairs, mut matched, mut filters) = (0, 0, 0);
    for seed in 0.. {
        let mut runner = runner(seed);
        let store = stores.open().await;
        let documents = fill(&*store, &mut runner).await;
        for _ in 0..50 {
            let text = random(&generate::filter(), &mut runner);
            let filter = Filter::parse_entity(&text).unwrap();
            let expected: Vec<&str> = documents
                .iter()
                .filter(|(_, document)| filter.matches_values(document))
                .map(|(key, _)| key.as_str())
                .collect();
            let mut query = EntityQuery {
                of: KindRef::new("d", "t").unwrap(),
                filter,
                sort: None,
                page: PageRequest::new(10_000, 0, None).unwrap(),
            };
            for sorted in [false, true] {
                query.sort = sorted.then(|| Sort {
                    path: Path::parse_entity("sort", "a").unwrap(),
                    reverse: filters % 2 == 0,
                });
                let found = store.search_entities(&query).await.unwrap().value.items;
                let mut found: Vec<&str> = found.iter().map(|found| found.entity.key()).collect();
                found.sort_unstable();
                assert_eq!(found, expected, "seed {seed}, sorted {sorted}: {text}");
            }
            pairs += documents.len();
            matched += expected.len();
            filters += 1;
        }
        store.close().await;
        if pairs >= wanted {
            break;
        }
    }
    let share = matched * 100 / pairs;
    println!("{pairs} pairs of a document and one of {filters} filters, {share} % matched");
    assert!(pairs >= wanted, "only {pairs} pairs");
    assert!(
        (10..=90).contains(&share),
        "{share} % matched, which proves little"
    );
}

async fn events(stores: &Stores) {
    let mut runner = runner(200);
    let store = stores.open().await;
    fill(&*store, &mut runner).await;
    let all = stategate_storage::ReadLimit {
        events: usize::MAX,
        bytes: usize::MAX,
    };
    let log = store.read_log(Lane(0), Position::ZERO, all).await.unwrap();
    let (mut pairs, mut matched) = (0, 0);
    while pairs < PAIRS {
        let n = pairs / log.len();
        let value = random(&generate::value(), &mut runner);
        let value = stategate_model::json::canonical_value(&value);
        let text = match n % 5 {
            0 => format!(r#"{{"entity.values.a":{{"$ne":{value}}}}}"#),
            1 => format!(
                r#"{{"entity.key":"{}","version":{{"$lte":2}}}}"#,
                key(n % DOCUMENTS)
            ),
            2 => format!(r#"{{"position":{{"$gt":{}}}}}"#, n * 7 % log.len()),
            3 => format!(
                r#"{{"$or":[{{"entity.values.a":{{"$in":[{value}]}}}},{{"version":"2"}}]}}"#
            ),
            _ => r#"{"method":{"$contains":"Set"},"entity.values.a":{"$exists":true}}"#.to_owned(),
        };
        let Ok(filter) = Filter::parse_event(&text) else {
            continue;
        };
        let mut query = EventQuery {
            of: KindRef::new("d", "t").unwrap(),
            filter,
            min: (n % 3 == 1).then_some(Timestamp(20)),
            max: (n % 4 == 1).then_some(Timestamp(250)),
            sort: None,
            page: PageRequest::new(10_000, 0, None).unwrap(),
        };
        let mut expected: Vec<&Event> = log
            .iter()
            .filter(|event| {
                query.min.is_none_or(|min| event.time >= min)
                    && query.max.is_none_or(|max| event.time <= max)
                    && query.filter.matches_event(event).unwrap()
            })
            .collect();
        let found = store.search_events(&query).await.unwrap().value.items;
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{text}");
        query.sort = Some(Sort {
            path: Path::parse_event("sort", "time").unwrap(),
            reverse: true,
        });
        expected.reverse();
        let found = store.search_events(&query).await.unwrap().value.items;
        assert_eq!(
            found.iter().collect::<Vec<_>>(),
            expected,
            "{text}, newest first"
        );
        pairs += log.len();
        matched += expected.len();
    }
    let share = matched * 100 / pairs;
    println!("{pairs} pairs of an event and a filter, {share} % matched");
    assert!(
        (10..=90).contains(&share),
        "{share} % matched, which proves little"
    );
    store.close().await;
}
