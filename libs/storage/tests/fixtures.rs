//! Logs that version 1 made: every later version opens them and reads back exactly what was written.
//!
//! `fixtures/sqlite-v1.sql` and `fixtures/postgres-v1.sql` are such logs as text. They never change; a new
//! format gets a file of its own beside them.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking and says what it did"
)]

use std::{path::Path, sync::Arc};

use rusqlite::Connection;
use stategate_model::{
    At, Claims, Digest, EntityQuery, EntityRef, Event, EventId, Filter, IdempotencyKey, KindRef,
    Lane, Lanes, Limits, LogId, Method, PageRequest, Position, State, Timestamp, TraceParent,
    Values, Version, json,
};
use stategate_servers::Postgres as Server;
use stategate_storage::{
    Appended, Batch, Identity, KeyRecord, Postgres, PostgresConfig, ReadLimit, Replay, Sqlite,
    SqliteConfig, Storage,
};
use uuid::Uuid;

const V1: &str = include_str!("fixtures/sqlite-v1.sql");
const POSTGRES_V1: &str = include_str!("fixtures/postgres-v1.sql");
/// The schema that `POSTGRES_V1` makes.
const POSTGRES_SCHEMA: &str = "fixture_v1";
const LOG_ID: &str = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";
const LANES: u8 = 4;
const ALL: ReadLimit = ReadLimit {
    events: usize::MAX,
    bytes: usize::MAX,
};

/// Domain, type, key, version, method, values, claims, trace.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    u64,
    Method,
    &'static str,
    &'static str,
    &'static str,
);

/// What was written.
fn events() -> Vec<Event> {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let claims = r#"{"iss":"https://issuer","roles":["a",1.5e300],"sub":"some\"one"}"#;
    let awkward = r#"{"":{"a.b":[]},"$x":1e300,"deep":[[{"n":5e-324}]],"é":"e\u0301'%_\\"}"#;
    let rows: [Row; 7] = [
        (
            "accounting",
            "user",
            "alice",
            1,
            Method::Set,
            r#"{"n":1}"#,
            "{}",
            "",
        ),
        (
            "accounting",
            "user",
            "Alice",
            1,
            Method::Set,
            awkward,
            claims,
            trace,
        ),
        (
            "accounting",
            "user",
            "alice",
            2,
            Method::Edit,
            r#"{"m":null,"n":1}"#,
            claims,
            "",
        ),
        (
            "accounting",
            "group",
            "alice",
            1,
            Method::Set,
            "{}",
            "{}",
            "",
        ),
        (
            "accounting",
            "user",
            "Alice",
            2,
            Method::Del,
            awkward,
            claims,
            trace,
        ),
        (
            "accounting",
            "user",
            "alice",
            3,
            Method::Revert,
            r#"{"n":1}"#,
            "{}",
            trace,
        ),
        (
            "日本",
            "e\u{301}",
            "'%_\\",
            1,
            Method::Set,
            r#"{"n":-0.5}"#,
            "{}",
            "",
        ),
    ];
    let lanes = Lanes::new(LANES).unwrap();
    let values = |text| Values::new(json::parse_object(text).unwrap(), &Limits::default()).unwrap();
    let mut heads = [0; LANES as usize];
    let rows = rows.into_iter().zip(1_u8..);
    rows.map(
        |((domain, kind, key, version, method, json, claims, trace), n)| {
            let entity = EntityRef::new(domain, kind, key).unwrap();
            let lane = lanes.of(domain);
            heads[lane.index()] += 1;
            Event {
                id: EventId(Uuid::from_bytes([
                    n, 0, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, n,
                ])),
                entity,
                values: values(json),
                version: Version::new(version),
                lane,
                position: Position::new(heads[lane.index()]),
                time: Timestamp(1_700_000_000_000_000_000 + i64::from(n)),
                method,
                claims: Claims::from_stored(values(claims)),
                trace_parent: TraceParent::parse(trace),
            }
        },
    )
    .collect()
}

fn key() -> IdempotencyKey {
    IdempotencyKey::new("accounting", "https://issuer", "some\"one", "key-1").unwrap()
}

fn digest() -> Digest {
    Digest(std::array::from_fn(|n| u8::try_from(n).unwrap() * 8))
}

fn of_lane(lane: Lane) -> Vec<Event> {
    let events = events().into_iter();
    events.filter(|event| event.lane == lane).collect()
}

async fn open(path: &Path) -> Sqlite {
    let config = SqliteConfig {
        path: path.to_owned(),
        lanes: Some(LANES),
    };
    Sqlite::open(&config).await.unwrap()
}

/// The file that version 1 made.
fn restore(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(V1).unwrap();
    connection
}

/// Writes all of it into an empty log.
async fn fill(store: &dyn Storage) {
    for lane in store.info().lanes.iter() {
        let events = of_lane(lane);
        let keys = if lane == store.info().lanes.of("accounting") {
            vec![KeyRecord {
                key: key(),
                digest: digest(),
                first: Position::new(2),
                count: 2,
            }]
        } else {
            Vec::new()
        };
        if !events.is_empty() {
            let batch = Arc::new(Batch { events, keys });
            let appended = store.append(lane, Position::ZERO, batch).await.unwrap();
            assert_eq!(appended, Appended::Done);
        }
    }
}

/// A file made by this version, with the same content.
async fn write(path: &Path) {
    let store = open(path).await;
    fill(&store).await;
    store.close().await;
    let identity = Connection::open(path).unwrap();
    let log_id = LOG_ID.parse::<Uuid>().unwrap();
    identity
        .execute(
            "UPDATE meta SET log_id = ?1, created = 1",
            [log_id.as_bytes()],
        )
        .unwrap();
}

/// Everything in a file: its header, its tables and their rows, as text.
fn contents(connection: &Connection) -> Vec<String> {
    let mut contents = Vec::new();
    for pragma in ["application_id", "user_version", "encoding"] {
        let sql = format!("SELECT '{pragma} ' || {pragma} FROM pragma_{pragma}");
        contents.push(connection.query_row(&sql, [], |row| row.get(0)).unwrap());
    }
    let mut rows = |sql: &str| {
        let mut statement = connection.prepare(sql).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let cells = (0..columns).map(|n| format!("{:?}", row.get_ref(n).unwrap()));
            contents.push(cells.collect::<Vec<_>>().join(" | "));
        }
    };
    rows("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name");
    rows("SELECT * FROM meta");
    rows("SELECT * FROM events ORDER BY seq");
    rows("SELECT * FROM idempotency ORDER BY domain, caller, key");
    contents
}

#[tokio::test]
async fn what_version_1_wrote_reads_back_exactly() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("v1.db");
    restore(&path).close().unwrap();
    let store = open(&path).await;
    check(&store).await;
    store.close().await;
}

async fn check(store: &dyn Storage) {
    assert_eq!(store.info().log_id, LogId(LOG_ID.parse().unwrap()));
    assert_eq!(store.info().lanes.get(), LANES);

    let written = events();
    for lane in store.info().lanes.iter() {
        let log = store.read_log(lane, Position::ZERO, ALL).await.unwrap();
        assert_eq!(log, of_lane(lane));
        let head = store.heads().await.unwrap().get(lane);
        assert_eq!(head.get(), log.len() as u64);
    }
    for event in &written {
        let found = store.get_event(&event.entity, event.id).await.unwrap();
        assert_eq!(found.value.as_ref(), Some(event));
        let found = store
            .get_at(&event.entity, At::Version(event.version))
            .await;
        assert_eq!(found.unwrap().value.as_ref(), Some(event));
        let found = store.get_at(&event.entity, At::Time(event.time)).await;
        assert_eq!(found.unwrap().value.as_ref(), Some(event));
        let newest = written
            .iter()
            .rfind(|other| other.entity == event.entity)
            .unwrap();
        let state = store.get(&event.entity).await.unwrap().value;
        let expected = State {
            version: newest.version,
            values: newest.state().cloned(),
        };
        assert_eq!(state, expected);
    }
    let lane = store.info().lanes.of("accounting");
    let loaded = store.load(lane, &[], &[key()], usize::MAX).await.unwrap();
    let replay = Replay {
        digest: digest(),
        events: of_lane(lane)[1..3].to_vec(),
    };
    assert_eq!(loaded.replays, [Some(replay)]);
    assert_eq!(loaded.head.id, of_lane(lane).last().map(|event| event.id));
    let query = EntityQuery {
        of: KindRef::new("accounting", "user").unwrap(),
        filter: Filter::all(),
        sort: None,
        page: PageRequest::new(0, 0, None).unwrap(),
    };
    let found = store.search_entities(&query).await.unwrap().value.items;
    let keys: Vec<_> = found.iter().map(|found| found.entity.key()).collect();
    assert_eq!(keys, ["alice"], "the other one is deleted");
}

#[tokio::test]
async fn this_version_writes_what_version_1_wrote() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (
        directory.path().join("v1.db"),
        directory.path().join("new.db"),
    );
    let old = restore(&old);
    write(&new).await;
    let new = Connection::open(&new).unwrap();
    assert_eq!(contents(&new), contents(&old));
}

/// The format's tables and the rows in a schema, as text without its name.
fn postgres_contents(server: &Server, schema: &str) -> String {
    let mut contents = Vec::new();
    for sql in [
        "SELECT table_name, ordinal_position, column_name, data_type, is_nullable, column_default, collation_name, \
         generation_expression FROM information_schema.columns WHERE table_schema = '{}' ORDER BY 1, 2",
        "SELECT indexdef FROM pg_indexes WHERE schemaname = '{}' ORDER BY indexname",
        "SELECT relname, reloptions FROM pg_class WHERE relnamespace = '{}'::regnamespace AND relkind = 'r' ORDER BY 1",
        "SELECT one, format, log_id, lanes FROM {}.meta",
        "SELECT * FROM {}.lanes ORDER BY lane",
        "SELECT * FROM {}.events ORDER BY lane, position",
        "SELECT * FROM {}.entities ORDER BY domain, type, key",
        "SELECT * FROM {}.idempotency ORDER BY domain, key",
    ] {
        let rows = server.sql(&sql.replace("{}", schema));
        contents.push(rows.replace(schema, "SCHEMA"));
    }
    contents.join("\n\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_reads_and_writes_what_version_1_wrote() {
    let server = match Server::start(&[]) {
        Ok(server) => server,
        Err(missing) => return missing.report("the frozen log of PostgreSQL"),
    };
    server.sql(POSTGRES_V1);
    let mut config = PostgresConfig::new(server.url());
    config.schema = POSTGRES_SCHEMA.to_owned();
    let store = Postgres::open(&config).await.unwrap();
    check(&store).await;
    store.close().await;

    config.schema = "fixture_new".to_owned();
    let identity = Identity {
        log_id: LogId(LOG_ID.parse().unwrap()),
        lanes: Lanes::new(LANES).unwrap(),
    };
    let store = Postgres::create_as(&config, identity).await.unwrap();
    fill(&store).await;
    store.close().await;
    if let Some(file) = std::env::var_os("STATEGATE_TEST_DUMP") {
        std::fs::write(file, server.dump("fixture_new")).unwrap();
    }
    assert_eq!(
        postgres_contents(&server, "fixture_new"),
        postgres_contents(&server, POSTGRES_SCHEMA)
    );
}
