//! Which indexes PostgreSQL reads, on tables of which it has no statistics: each question is answered
//! through the one that has all of it.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it did"
)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use stategate_model::{
    At, Claims, EntityRef, Event, EventId, EventQuery, Filter, KindRef, Lane, Method, PageRequest,
    Position, Timestamp, Values, Version,
};
use stategate_servers::Postgres as Server;
use stategate_storage::{Appended, Batch, Postgres, PostgresConfig, ReadLimit, Storage};

const PATIENCE: Duration = Duration::from_secs(30);
const BATCHES: u64 = 20;
const EVENTS: u64 = 500;
const ENTITIES: u64 = 100;
/// How often each question is asked.
const TIMES: u64 = 20;
/// Results of a page.
const PAGE: u64 = 50;

fn entity(n: u64) -> EntityRef {
    EntityRef::new("d", "t", &format!("key-{n}")).unwrap()
}

fn batch(number: u64) -> Arc<Batch> {
    let event = |n: u64| Event {
        id: EventId::fresh(Timestamp(0)),
        entity: entity(n % ENTITIES),
        values: Values::from_canonical(r#"{"n":1}"#),
        version: Version::new(n / ENTITIES + 1),
        lane: Lane(0),
        position: Position::new(n + 1),
        time: Timestamp(i64::try_from(n).unwrap() + 1),
        method: Method::Set,
        claims: Claims::none(),
        trace_parent: None,
    };
    let first = number * EVENTS;
    Arc::new(Batch {
        events: (first..first + EVENTS).map(event).collect(),
        keys: Vec::new(),
    })
}

async fn fill(store: &Postgres) {
    for number in 0..BATCHES {
        let expected = Position::new(number * EVENTS);
        let appended = store.append(Lane(0), expected, batch(number)).await;
        assert_eq!(appended.unwrap(), Appended::Done);
    }
}

async fn ask(store: &Postgres) {
    for n in 1..=TIMES {
        let of = entity(n);
        let version = store.get_at(&of, At::Version(Version::new(n))).await;
        let event = version.unwrap().value.unwrap();
        let by_id = store.get_event(&of, event.id).await.unwrap().value;
        assert_eq!(by_id.as_ref(), Some(&event));
        let by_time = store.get_at(&of, At::Time(event.time)).await.unwrap().value;
        assert_eq!(by_time, Some(event));
        let limit = ReadLimit {
            events: usize::try_from(PAGE).unwrap(),
            bytes: usize::MAX,
        };
        let log = store.read_log(Lane(0), Position::new(n), limit).await;
        assert_eq!(log.unwrap().len() as u64, PAGE);
        let query = EventQuery {
            of: KindRef::new("d", "t").unwrap(),
            filter: Filter::all(),
            min: None,
            max: None,
            sort: None,
            page: PageRequest::new(i32::try_from(PAGE).unwrap(), 0, None).unwrap(),
        };
        let found = store.search_events(&query).await.unwrap().value.items;
        assert_eq!(found.len() as u64, PAGE);
    }
}

/// Closes it and waits for the end of its connections, at which they tell what they did.
async fn close(server: &Server, store: Postgres) {
    store.close().await;
    let begun = Instant::now();
    let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stategate'";
    while server.sql(open) != "0" {
        assert!(begun.elapsed() < PATIENCE, "connections stay open");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How many rows an index of the events led to.
fn read(server: &Server, index: &str) -> u64 {
    let sql =
        format!("SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = '{index}'");
    server.sql(&sql).parse().unwrap()
}

#[tokio::test]
async fn each_question_reads_what_it_answers_and_no_more() {
    let server = match Server::start(&["autovacuum=off"]) {
        Ok(server) => server,
        Err(missing) => return missing.report("the indexes that PostgreSQL reads"),
    };
    for pooler in [false, true] {
        let mut config = PostgresConfig::new(server.url());
        config.pooler = pooler;
        config.schema = format!("pooler_{pooler}");
        let store = Postgres::open(&config).await.unwrap();
        fill(&store).await;
        close(&server, store).await;
        server.sql("SELECT pg_stat_reset()");
        let store = Postgres::open(&config).await.unwrap();
        ask(&store).await;
        close(&server, store).await;
        let read = |index| read(&server, index);
        let (id, kind, entity, log) = (
            read("events_id"),
            read("events_kind"),
            read("events_entity"),
            read("events_pkey"),
        );
        println!(
            "pooler {pooler}: {id} rows by id, {kind} by kind, {entity} by entity, {log} by position"
        );
        assert_eq!(id, TIMES);
        assert_eq!(log, TIMES * PAGE);
        assert!(
            (TIMES * PAGE..=TIMES * (PAGE + 1)).contains(&kind),
            "{kind}"
        );
        // One for the version, and as many as halving takes for the time.
        assert!((TIMES * 2..TIMES * 12).contains(&entity), "{entity}");
        let scans = server.sql(&format!(
            "SELECT seq_scan FROM pg_stat_user_tables WHERE schemaname = '{}' AND relname = 'events'",
            config.schema
        ));
        assert_eq!(scans, "0", "scans of the whole log");
        server.sql(&format!("DROP SCHEMA {} CASCADE", config.schema));
    }
}

#[tokio::test]
async fn the_index_on_values_comes_and_goes_with_its_setting() {
    let server = match Server::shared() {
        Ok(server) => server,
        Err(missing) => return missing.report("the index on values"),
    };
    let mut config = PostgresConfig::new(server.url());
    config.schema = "gin".to_owned();
    for gin in [false, true, true, false] {
        config.gin = gin;
        Postgres::open(&config).await.unwrap().close().await;
        let there = server.sql("SELECT to_regclass('gin.entities_doc') IS NOT NULL");
        assert_eq!(there, if gin { "t" } else { "f" });
    }
}
