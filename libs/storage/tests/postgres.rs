//! What is PostgreSQL's own: the server and its settings, connections that are lost, locks that others
//! hold, poolers, and certificates.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it did"
)]

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::future::{join_all, try_join_all};
use stategate_model::{
    At, Claims, EntityQuery, EntityRef, Event, EventId, Filter, KindRef, Lane, Lanes, Method,
    PageRequest, Position, Timestamp, Values, Version, times,
};
use stategate_servers::{Answers, Missing, PgBouncer, Postgres as Server, Proxy};
use stategate_storage::{
    Appended, Batch, ErrorKind, Identity, Postgres, PostgresConfig, Storage, StorageConfig,
    conformance::{self, CASES, Factory},
};
use uuid::Uuid;

/// How long to wait for what happens soon.
const PATIENCE: Duration = Duration::from_secs(30);

/// The result of getting a server, or the end of the test, said loudly.
macro_rules! server {
    ($server:expr) => {
        match $server {
            Ok(server) => server,
            Err(missing) => return Missing::report(&missing, module_path!()),
        }
    };
}

/// A log of its own.
fn config(address: impl Into<String>) -> PostgresConfig {
    let mut config = PostgresConfig::new(address);
    config.schema = format!("t_{}", Uuid::new_v4().simple());
    config
}

/// One event that continues a log in lane 0.
fn next(after: u64, key: &str, version: u64) -> Arc<Batch> {
    let position = Position::new(after + 1);
    Arc::new(Batch {
        events: vec![Event {
            id: EventId::fresh(Timestamp(0)),
            entity: EntityRef::new("d", "t", key).unwrap(),
            values: Values::from_canonical(r#"{"n":1}"#),
            version: Version::new(version),
            lane: Lane(0),
            position,
            time: Timestamp(position.as_i64()),
            method: Method::Set,
            claims: Claims::none(),
            trace_parent: None,
        }],
        keys: Vec::new(),
    })
}

async fn append(store: &Postgres, after: u64, batch: &Arc<Batch>) -> Result<Appended, ErrorKind> {
    let appended = store.append(Lane(0), Position::new(after), Arc::clone(batch));
    appended.await.map_err(|error| error.kind().clone())
}

async fn head(store: &Postgres) -> u64 {
    store.heads().await.unwrap().iter().next().unwrap().1.get()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "never {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn all() -> EntityQuery {
    EntityQuery {
        of: KindRef::new("d", "t").unwrap(),
        filter: Filter::all(),
        sort: None,
        page: PageRequest::new(100, 0, None).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_at_once_make_one_log() {
    let server = server!(Server::shared());
    let config = config(server.url());
    let stores = try_join_all((0..8).map(|_| Postgres::open(&config)))
        .await
        .unwrap();
    let ids: Vec<_> = stores.iter().map(|store| store.info().log_id).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    join_all(stores.iter().map(|store| store.close())).await;
}

async fn refused(config: &PostgresConfig) -> String {
    let error = Postgres::open(config).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config, "{error}");
    error.to_string()
}

#[tokio::test]
async fn what_an_acknowledgement_cannot_rest_on_is_refused_by_name() {
    let server = server!(Server::shared());
    let database = format!("l_{}", Uuid::new_v4().simple());
    server.sql(&format!(
        "CREATE DATABASE {database} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
    ));
    let latin = server.url().replace("/postgres?", &format!("/{database}?"));
    assert!(refused(&config(latin)).await.contains("LATIN1"));

    let careless = format!("{}&options=-c%20synchronous_commit%3Doff", server.url());
    let problem = refused(&config(careless)).await;
    assert!(problem.contains("synchronous_commit=off"), "{problem}");

    for setting in ["fsync=off", "full_page_writes=off"] {
        let careless = server!(Server::start(&[setting]));
        let problem = refused(&config(careless.url())).await;
        assert!(problem.contains(setting), "{problem}");
    }
}

#[tokio::test]
async fn another_number_of_lanes_and_newer_formats_are_refused() {
    let server = server!(Server::shared());
    let mut config = config(server.url());
    config.lanes = Some(4);
    let store = Postgres::open(&config).await.unwrap();
    assert_eq!(store.info().lanes, Lanes::new(4).unwrap());
    store.close().await;
    config.lanes = Some(8);
    assert!(refused(&config).await.contains("`lanes` is 8"));
    config.lanes = None;
    Postgres::open(&config).await.unwrap().close().await;
    server.sql(&format!("UPDATE {}.meta SET format = 999", config.schema));
    assert!(refused(&config).await.contains("format 999"));
}

#[tokio::test]
async fn a_schema_made_beforehand_needs_no_right_to_make_one() {
    let server = server!(Server::shared());
    let mut config = config(server.url());
    let role = format!("r_{}", Uuid::new_v4().simple());
    server.sql(&format!(
        "CREATE ROLE {role} LOGIN; CREATE SCHEMA {} AUTHORIZATION {role}",
        config.schema
    ));
    config.addr = server.url().replace("postgres@", &format!("{role}@"));
    let store = Postgres::open(&config).await.unwrap();
    assert_eq!(
        append(&store, 0, &next(0, "k", 1)).await,
        Ok(Appended::Done)
    );
    store.close().await;
    config.schema = format!("t_{}", Uuid::new_v4().simple());
    let problem = Postgres::open(&config).await.unwrap_err().to_string();
    assert!(problem.contains("permission denied"), "{problem}");
}

#[tokio::test]
async fn secrets_are_not_in_errors() {
    let server = server!(Server::shared());
    let address = server.url().replace("postgres@", "nobody:hunter2@");
    let config = StorageConfig::Postgres(config(address));
    let error = stategate_storage::open(&config).await.unwrap_err();
    let shown = format!("{error} {error:?} {config:?} {}", config.location());
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("nobody"), "who was refused helps: {shown}");
}

/// The append lands, and its answer is lost with the connection.
#[tokio::test(flavor = "multi_thread")]
async fn an_append_whose_answer_is_lost_is_unknown_and_found_by_repeating() {
    let server = server!(Server::shared());
    let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into()).await;
    let direct = config(server.url());
    let mut through = direct.clone();
    through.addr = format!(
        "postgres://postgres@{}/postgres?sslmode=disable",
        proxy.address()
    );
    let store = Arc::new(Postgres::open(&through).await.unwrap());
    let watcher = Postgres::open(&direct).await.unwrap();
    for round in (0..40).step_by(2) {
        // So that there is a connection on which the statement is prepared.
        let before = next(round, "k", round + 1);
        assert_eq!(append(&store, round, &before).await, Ok(Appended::Done));
        let batch = next(round + 1, "k", round + 2);
        proxy.lose_answers(Answers::Lost);
        let lost = tokio::spawn({
            let (store, batch) = (Arc::clone(&store), Arc::clone(&batch));
            async move { append(&store, round + 1, &batch).await }
        });
        while head(&watcher).await == round + 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        proxy.cut();
        proxy.lose_answers(Answers::Passed);
        assert_eq!(lost.await.unwrap(), Err(ErrorKind::Unknown));
        let again = append(&store, round + 1, &batch).await;
        assert_eq!(again, Ok(Appended::HeadMoved), "it had landed");
        let event = &batch.events[0];
        let found = watcher.get_event(&event.entity, event.id).await.unwrap();
        assert_eq!(found.value.as_ref(), Some(event));
        assert_eq!(head(&watcher).await, round + 2, "once");
    }
    store.close().await;
    watcher.close().await;
}

/// The sessions that wait for a standby as they commit.
const WAIT_FOR_STANDBY: &str = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'stategate'";

/// Nobody is there: said with where that is and what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_named() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let address = format!("postgres://me:hunter2@127.0.0.1:{port}/app?sslmode=disable");
    let error = Postgres::open(&config(address)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    let told = error.reason();
    for word in ["127.0.0.1", &port.to_string(), "`addr`"] {
        assert!(told.contains(word), "{told}");
    }
    assert!(!told.contains("hunter2"), "{told}");
}

/// A standby that is away: a commit that waits for it is done here as soon as its wait is ended, whoever ends
/// it, and that is not yet what an acknowledgement says. We never end it ourselves.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_no_standby_has_is_not_acknowledged() {
    let server = server!(Server::start(&[]));
    let config = config(server.url());
    let store = Arc::new(Postgres::open(&config).await.unwrap());
    let watcher = Postgres::open(&config).await.unwrap();
    let standby = server.standby();
    for (round, end) in (0..).zip(["pg_cancel_backend", "pg_terminate_backend"]) {
        let after = round * 3;
        let batch = next(after, "k", after + 1);
        assert_eq!(append(&store, after, &batch).await, Ok(Appended::Done));
        assert!(store.confirm().await.is_ok(), "the standby is there");

        standby.freeze();
        let batch = next(after + 1, "k", after + 2);
        let waiting = tokio::spawn({
            let (store, batch) = (Arc::clone(&store), Arc::clone(&batch));
            async move { append(&store, after + 1, &batch).await }
        });
        until("waits for the standby", || {
            !server.sql(WAIT_FOR_STANDBY).is_empty()
        })
        .await;
        server.sql(&format!("SELECT {end}(pid) FROM ({WAIT_FOR_STANDBY}) w"));
        assert_eq!(waiting.await.unwrap(), Err(ErrorKind::Unknown), "{end}");
        // It is to be seen, and on no standby.
        assert_eq!(
            append(&store, after + 1, &batch).await,
            Ok(Appended::HeadMoved)
        );
        assert_eq!(head(&watcher).await, after + 2);
        assert!(watcher.confirm().await.is_err(), "no standby has it");
        standby.thaw();
        assert!(watcher.confirm().await.is_ok());

        // Met by silence, as its standby is away for longer, or let go of: not ended by us.
        standby.freeze();
        let batch = next(after + 2, "k", after + 3);
        let abandoned = tokio::spawn({
            let (store, batch) = (Arc::clone(&store), Arc::clone(&batch));
            async move { append(&store, after + 2, &batch).await }
        });
        until("waits for the standby", || {
            !server.sql(WAIT_FOR_STANDBY).is_empty()
        })
        .await;
        if round == 0 {
            assert_eq!(abandoned.await.unwrap(), Err(ErrorKind::Unknown));
        } else {
            abandoned.abort();
            assert!(abandoned.await.is_err());
        }
        // Takes as long as silence does, in which a cancelled commit would long be there.
        assert!(store.confirm().await.is_err());
        // Who asks in vain, again and again, takes no more and more of the server's connections.
        until("the append alone waits", || {
            server.sql(WAIT_FOR_STANDBY).lines().count() == 1
        })
        .await;
        assert_eq!(
            head(&watcher).await,
            after + 2,
            "it still waits for the standby"
        );
        standby.thaw();
        let begun = Instant::now();
        while head(&watcher).await != after + 3 {
            assert!(begun.elapsed() < PATIENCE, "it never landed");
        }
        let again = append(&store, after + 2, &batch).await;
        assert_eq!(again, Ok(Appended::HeadMoved), "it had landed");
    }
    store.close().await;
    watcher.close().await;
}

/// A reload never makes an acknowledgement weaker, and may make it stronger.
#[tokio::test(flavor = "multi_thread")]
async fn each_commit_asks_for_its_own_durability() {
    let server = server!(Server::start(&[]));
    let pooler = server!(PgBouncer::start(&server));
    let direct = config(server.url());
    let mut pooled = config(pooler.url());
    pooled.pooler = true;
    let stores = [
        Postgres::open(&direct).await.unwrap(),
        Postgres::open(&pooled).await.unwrap(),
    ];
    for config in [&direct, &pooled] {
        // What a commit is done under is what a trigger that runs last, before it, sees.
        let schema = &config.schema;
        server.sql(&format!(
            "CREATE TABLE {schema}.seen (setting text); \
             CREATE FUNCTION {schema}.see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
               INSERT INTO {schema}.seen VALUES (current_setting('synchronous_commit') || '/' || \
                 current_setting('client_min_messages')); RETURN NULL; END $$; \
             CREATE CONSTRAINT TRIGGER see AFTER INSERT ON {schema}.events DEFERRABLE INITIALLY DEFERRED \
               FOR EACH ROW EXECUTE FUNCTION {schema}.see()"
        ));
    }
    server.sql("ALTER ROLE postgres SET client_min_messages = error");
    for (after, (set, done)) in (0..).zip([
        ("off", "on"),
        ("local", "on"),
        ("remote_write", "on"),
        ("remote_apply", "remote_apply"),
        ("on", "on"),
        ("off", "on"),
    ]) {
        server.sql(&format!("ALTER SYSTEM SET synchronous_commit = {set}"));
        server.sql("SELECT pg_reload_conf()");
        until("is set", || server.sql("SHOW synchronous_commit") == set).await;
        for (store, config) in stores.iter().zip([&direct, &pooled]) {
            // Sessions take a reload in before their next statement.
            let schema = &config.schema;
            let batch = next(after, "k", after + 1);
            assert_eq!(append(store, after, &batch).await, Ok(Appended::Done));
            let seen = server.sql(&format!("SELECT setting FROM {schema}.seen"));
            assert_eq!(seen, format!("{done}/warning"), "{set}");
            server.sql(&format!("DELETE FROM {schema}.seen"));
        }
    }
    // A server that is set to less starts a gateway all the same.
    Postgres::open(&direct).await.unwrap().close().await;

    // What cannot be asked for is looked at.
    assert_eq!(stores[0].concerns(), Vec::<String>::new());
    for (setting, word) in [
        ("fsync", "fsync=off"),
        ("full_page_writes", "full_page_writes=off"),
    ] {
        server.sql(&format!("ALTER SYSTEM SET {setting} = off"));
        server.sql("SELECT pg_reload_conf()");
        until("is noticed", || {
            stores[0]
                .concerns()
                .iter()
                .any(|concern| concern.contains(word))
        })
        .await;
        server.sql(&format!("ALTER SYSTEM SET {setting} = on"));
        server.sql("SELECT pg_reload_conf()");
        until("is over", || stores[0].concerns().is_empty()).await;
    }
    let events = format!("{}.events", direct.schema);
    server.sql(&format!("ALTER TABLE {events} SET UNLOGGED"));
    until("is noticed", || {
        stores[0]
            .concerns()
            .iter()
            .any(|concern| concern.contains("unlogged"))
    })
    .await;
    assert!(refused(&direct).await.contains("unlogged"));
    for store in stores {
        store.close().await;
    }
}

/// Index builds and migrations take as long as they take, and keep nobody from writing.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_log_gets_its_index_while_others_write() {
    const ENTITIES: u64 = 1_000_000;
    let server = server!(Server::start(&[
        "fsync=on",
        "max_wal_size=4GB",
        "maintenance_work_mem=256MB"
    ]));
    let mut config = config(server.url());
    let store = Arc::new(Postgres::open(&config).await.unwrap());
    let schema = config.schema.clone();
    server.sql(&format!(
        "INSERT INTO {schema}.entities (domain, type, key, version, vals) \
         SELECT 'd', 't', 'e' || n, 1, '{{\"n\":' || n || ',\"a\":\"' || md5(n::text) || '\"}}' \
         FROM generate_series(1, {ENTITIES}) n"
    ));
    config.statement_timeout_ms = 300.try_into().unwrap();
    config.gin = true;
    let begun = Instant::now();
    let replicas: Vec<_> = (0..2)
        .map(|_| {
            let config = config.clone();
            tokio::spawn(async move { Postgres::open(&config).await })
        })
        .collect();
    let (mut written, mut slowest) = (0, Duration::ZERO);
    while !replicas.iter().all(|replica| replica.is_finished()) {
        let since = Instant::now();
        let batch = next(written, "k", written + 1);
        assert_eq!(append(&store, written, &batch).await, Ok(Appended::Done));
        written += 1;
        slowest = slowest.max(since.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = begun.elapsed();
    println!(
        "{ENTITIES} entities: {took:.1?}, {written} writes meanwhile, the slowest {slowest:.1?}"
    );
    assert!(
        took > Duration::from_millis(2_300),
        "too little to show anything: {took:?}"
    );
    // The lock that an ordinary build takes would have kept the first write until its end.
    assert!(
        written > 20 && slowest < took / 2,
        "{written} writes, {slowest:?} of {took:?}"
    );
    for replica in replicas {
        replica.await.unwrap().unwrap().close().await;
    }
    let ready = format!(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = '{schema}.entities_doc'::regclass"
    );
    assert_eq!(server.sql(&ready), "t");

    // One that was left half built is built anew.
    server.sql(&format!(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{schema}.entities_doc'::regclass"
    ));
    Postgres::open(&config).await.unwrap().close().await;
    assert_eq!(server.sql(&ready), "t");
    config.gin = false;
    Postgres::open(&config).await.unwrap().close().await;
    let left = format!(
        "SELECT count(*) FROM pg_indexes WHERE schemaname = '{schema}' AND indexname = 'entities_doc'"
    );
    assert_eq!(server.sql(&left), "0");
    store.close().await;
}

/// An append that is met by silence is in doubt long before its caller goes, whatever a statement may take.
#[tokio::test(flavor = "multi_thread")]
async fn silence_is_noticed_before_callers_go() {
    let server = server!(Server::shared());
    let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into()).await;
    let mut config = config(format!(
        "postgres://postgres@{}/postgres?sslmode=disable",
        proxy.address()
    ));
    config.statement_timeout_ms = 60_000.try_into().unwrap();
    let store = Arc::new(Postgres::open(&config).await.unwrap());
    let first = next(0, "k", 1);
    assert_eq!(append(&store, 0, &first).await, Ok(Appended::Done));
    proxy.lose_answers(Answers::Lost);
    let begun = Instant::now();
    let second = next(1, "k", 2);
    assert_eq!(append(&store, 1, &second).await, Err(ErrorKind::Unknown));
    assert!(begun.elapsed() < times::WRITE / 2, "{:?}", begun.elapsed());
    proxy.lose_answers(Answers::Passed);
    assert_eq!(append(&store, 1, &second).await, Ok(Appended::HeadMoved));

    // A read of a few rows is given up too, while its caller is still there to be told.
    let entity = EntityRef::new("d", "t", "k").unwrap();
    store.get(&entity).await.unwrap();
    proxy.lose_answers(Answers::Lost);
    let begun = Instant::now();
    let id = second.events[0].id;
    let reads = futures::join!(
        store.get(&entity),
        store.get_at(&entity, At::Version(Version::new(1))),
        store.get_event(&entity, id),
        store.heads(),
    );
    let errors = [reads.0.err(), reads.1.err(), reads.2.err(), reads.3.err()];
    for error in errors.map(Option::unwrap) {
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    }
    println!("reads are given up after {:?}", begun.elapsed());
    assert!(
        begun.elapsed() < times::READ + times::SILENCE,
        "{:?}",
        begun.elapsed()
    );
    proxy.lose_answers(Answers::Passed);
    store.get(&entity).await.unwrap();
    store.close().await;
}

/// A row that another session holds: the append is sent again and again, and gives up, surely unwritten. A
/// session that an administrator ends: nobody knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_lane_is_waited_for_and_given_up() {
    const LIMIT: Duration = Duration::from_millis(300);
    let server = server!(Server::shared());
    let config = config(format!(
        "{}&options=-c%20lock_timeout%3D{}",
        server.url(),
        LIMIT.as_millis()
    ));
    let store = Arc::new(Postgres::open(&config).await.unwrap());
    assert_eq!(
        append(&store, 0, &next(0, "k", 1)).await,
        Ok(Appended::Done)
    );

    let schema = &config.schema;
    let (driver, connection) = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let hold = format!("BEGIN; SELECT FROM {schema}.lanes FOR UPDATE");
    driver.batch_execute(&hold).await.unwrap();
    let batch = next(1, "k", 2);
    let begun = Instant::now();
    assert_eq!(append(&store, 1, &batch).await, Err(ErrorKind::Unavailable));
    let waited = begun.elapsed();
    assert!(waited >= LIMIT * 4 && waited < PATIENCE, "{waited:?}");
    assert_eq!(head(&store).await, 1);

    let try_append = || {
        let (store, batch) = (Arc::clone(&store), Arc::clone(&batch));
        tokio::spawn(async move { append(&store, 1, &batch).await })
    };
    let waiting = try_append();
    let blocked = format!(
        "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{schema}.entities%'"
    );
    until("waits for the lane", || !server.sql(&blocked).is_empty()).await;
    server.sql(&format!("SELECT pg_terminate_backend(({blocked}))"));
    assert_eq!(waiting.await.unwrap(), Err(ErrorKind::Unknown));

    // Let go after the limit.
    let waiting = try_append();
    let begun = Instant::now();
    until("waits again", || {
        begun.elapsed() > LIMIT * 2 && !server.sql(&blocked).is_empty()
    })
    .await;
    driver.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(waiting.await.unwrap(), Ok(Appended::Done));

    // Let go with the head moved: another one of what waits gets it.
    driver.batch_execute(&hold).await.unwrap();
    let batches = [next(2, "k", 3), next(2, "other", 1)];
    let racing = batches.map(|batch| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { append(&store, 2, &batch).await })
    });
    let begun = Instant::now();
    until("wait again", || {
        begun.elapsed() > LIMIT * 2 && server.sql(&blocked).lines().count() == 2
    })
    .await;
    driver.batch_execute("ROLLBACK").await.unwrap();
    let mut answers = join_all(racing).await;
    answers.sort_by_key(|answer| matches!(answer, Ok(Ok(Appended::HeadMoved))));
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers, [Ok(Appended::Done), Ok(Appended::HeadMoved)]);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_takes_its_statement_along() {
    let server = server!(Server::shared());
    let config = config(server.url());
    let schema = &config.schema;
    let store = Arc::new(Postgres::open(&config).await.unwrap());
    let (driver, connection) = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let hold = format!("BEGIN; LOCK TABLE {schema}.entities IN ACCESS EXCLUSIVE MODE");
    driver.batch_execute(&hold).await.unwrap();
    let search = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.search_entities(&all()).await }
    });
    let active = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND application_name = 'stategate' \
         AND query LIKE '%{schema}.entities%'"
    );
    until("searches", || server.sql(&active) == "1").await;
    let begun = Instant::now();
    search.abort();
    until("stops searching", || server.sql(&active) == "0").await;
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "the lock timeout ended it"
    );
    driver.batch_execute("ROLLBACK").await.unwrap();
    assert!(store.search_entities(&all()).await.is_ok());
    store.close().await;
}

/// A server that gives statements up in favour of others, as it does with deadlocks.
#[tokio::test]
async fn a_batch_that_the_server_gives_up_is_sent_again() {
    let server = server!(Server::shared());
    let config = config(server.url());
    let schema = &config.schema;
    let store = Postgres::open(&config).await.unwrap();
    server.sql(&format!(
        "CREATE SEQUENCE {schema}.tries; \
         CREATE FUNCTION {schema}.give_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
           CASE nextval('{schema}.tries') \
             WHEN 1 THEN RAISE EXCEPTION 'planted' USING ERRCODE = 'deadlock_detected'; \
             WHEN 2 THEN RAISE EXCEPTION 'planted' USING ERRCODE = 'serialization_failure'; \
             ELSE RETURN NEW; \
           END CASE; \
         END $$; \
         CREATE TRIGGER give_up BEFORE INSERT ON {schema}.events FOR EACH ROW EXECUTE FUNCTION {schema}.give_up()"
    ));
    assert_eq!(
        append(&store, 0, &next(0, "k", 1)).await,
        Ok(Appended::Done)
    );
    assert_eq!(
        server.sql(&format!("SELECT last_value FROM {schema}.tries")),
        "3"
    );
    assert_eq!(head(&store).await, 1);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_is_found_again() {
    let server = server!(Server::start(&["log_statement=all"]));
    let store = Arc::new(Postgres::open(&config(server.url())).await.unwrap());
    for round in 0..3 {
        let batch = next(round, "k", round + 1);
        assert_eq!(append(&store, round, &batch).await, Ok(Appended::Done));
        if round == 1 {
            server.stop();
        } else {
            server.kill();
        }
        let entity = EntityRef::new("d", "t", "k").unwrap();
        let kind = |error: stategate_storage::Error| error.kind().clone();
        assert_eq!(
            store.get(&entity).await.map_err(kind),
            Err(ErrorKind::Unavailable)
        );
        let later = next(round + 1, "k", round + 2);
        let outcome = append(&store, round + 1, &later).await;
        // On a connection whose end nobody has noticed yet it may have been sent.
        assert!(
            matches!(outcome, Err(ErrorKind::Unavailable | ErrorKind::Unknown)),
            "{outcome:?}"
        );
        server.restart();
        let read = store.get(&entity).await.unwrap();
        assert_eq!(
            read.position,
            Position::new(round + 1),
            "acknowledged, so there"
        );
    }

    // While two queries are on their way, all others that arrive wait for one.
    let asked = || server.log().matches("unnest($1::smallint[]").count();
    let schema = server.sql("SELECT nspname FROM pg_namespace WHERE nspname LIKE 't\\_%'");
    let (driver, connection) = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let hold = format!("BEGIN; LOCK TABLE {schema}.entities IN ACCESS EXCLUSIVE MODE");
    driver.batch_execute(&hold).await.unwrap();
    let before = asked();
    let gets: Vec<_> = (0..200)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let entity = EntityRef::new("d", "t", &format!("k{}", n % 7)).unwrap();
                store.get(&entity).await
            })
        })
        .collect();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    until("asks", || server.sql(waits) != "0").await;
    driver.batch_execute("ROLLBACK").await.unwrap();
    for get in gets {
        get.await.unwrap().unwrap();
    }
    let queries = asked() - before;
    println!("200 reads at once: {queries} queries");
    assert!(queries <= 20, "{queries} queries");
    store.close().await;
}

/// The suite, behind a pooler that may give every statement another connection.
#[tokio::test(flavor = "multi_thread")]
async fn everything_holds_behind_a_pooler() {
    struct Behind(PostgresConfig);

    #[async_trait]
    impl Factory for Behind {
        async fn open(&self, lanes: Lanes) -> Arc<dyn Storage> {
            let mut config = self.0.clone();
            config.lanes = Some(lanes.get());
            Arc::new(Postgres::open(&config).await.unwrap())
        }

        async fn reopen(&self) -> Option<Arc<dyn Storage>> {
            Some(Arc::new(Postgres::open(&self.0).await.unwrap()))
        }

        async fn create_as(&self, identity: Identity) -> Arc<dyn Storage> {
            let mut config = self.0.clone();
            config.schema = format!("{}_other", config.schema);
            Arc::new(Postgres::create_as(&config, identity).await.unwrap())
        }
    }

    let server = server!(Server::shared());
    let pooler = server!(PgBouncer::start(server));
    for case in CASES {
        let mut config = config(pooler.url());
        config.pooler = true;
        conformance::run(case, Arc::new(Behind(config)), Lanes::new(3).unwrap()).await;
    }
    println!("{} cases behind PgBouncer in transaction mode", CASES.len());
}

#[tokio::test]
async fn certificates_are_checked_as_far_as_asked() {
    let made = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        rcgen::generate_simple_self_signed(names).unwrap()
    };
    let certificate = made(&["localhost"]);
    let folder = tempfile::tempdir().unwrap();
    let own = |name: &str, text: String| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let trusted = own("trusted.pem", certificate.cert.pem());
    let other = own("other.pem", made(&["localhost"]).cert.pem());
    let key = own("key.pem", certificate.signing_key.serialize_pem());
    // The server reads its key as whoever it runs as, and wants nobody else to.
    let (server_key, server_cert) = (
        format!("ssl_key_file={}", key.display()),
        format!("ssl_cert_file={}", trusted.display()),
    );
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    if let Some(group) = stategate_servers::postgres_group() {
        chown(&key, None, Some(group)).unwrap();
    }
    let server = server!(Server::start(&["ssl=on", &server_cert, &server_key]));
    let try_open = async |host: &str, mode: &str, ca: Option<&std::path::Path>| {
        let address = format!(
            "postgres://postgres@{host}:{}/postgres?sslmode={mode}",
            server.port()
        );
        let mut config = config(address);
        config.ca_file = ca.map(Into::into);
        let opened = Postgres::open(&config).await;
        if let Ok(store) = &opened {
            store.close().await;
        }
        opened.map(|_| ()).map_err(|error| error.to_string())
    };
    let encrypted = || server.sql("SELECT count(*) FROM pg_stat_ssl WHERE ssl");
    assert_eq!(encrypted(), "0");
    assert_eq!(
        try_open("localhost", "verify-full", Some(&trusted)).await,
        Ok(())
    );
    assert_eq!(
        try_open("127.0.0.1", "verify-ca", Some(&trusted)).await,
        Ok(())
    );
    assert_eq!(try_open("localhost", "require", None).await, Ok(()));
    for (host, mode, ca) in [
        ("localhost", "verify-full", &other),
        ("localhost", "verify-ca", &other),
        // The name is not in the certificate.
        ("127.0.0.1", "verify-full", &trusted),
    ] {
        let problem = try_open(host, mode, Some(ca)).await.unwrap_err();
        assert!(problem.contains("certificate"), "{mode}: {problem}");
    }
    let missing = folder.path().join("none.pem");
    let problem = try_open("localhost", "verify-full", Some(&missing)).await;
    assert!(problem.unwrap_err().contains("`ca_file`"));
    // A server without TLS is refused where encryption is asked for.
    let plain = server!(Server::shared());
    let address = plain.url().replace("disable", "require");
    assert!(Postgres::open(&config(address)).await.is_err());
}
