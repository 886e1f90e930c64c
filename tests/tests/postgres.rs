//! Several command services on one PostgreSQL, killed at random, and the database under them: nothing
//! acknowledged is missing, nothing is there twice, and nobody is told more or less than is known.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test is made of may fail it too"
)]

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use stategate_model::{EntityRef, Object};
use stategate_servers::{Answers, Postgres, Proxy};
use stategate_tests::{
    Ask, Clients, Form, Gateway, Log, Mix, Options, Outcome, PATIENCE, Process, Role, Store, Tail,
    What, Write, Writers, alone,
    ask::{etag, refused},
    check::{self, Due},
    scale,
    workload::{Recent, send},
};
use tokio::task::{JoinSet, spawn_blocking};
use tonic::Code;
use uuid::Uuid;

/// Command services on the one database.
const SERVICES: usize = 3;
/// Writers at each of them.
const WRITERS: usize = 8;
/// Where a service may be paused when it is killed.
const PAUSES: [Option<&str>; 4] = [None, Some("decided"), Some("appended"), Some("decided")];

/// What may be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Service,
    Database,
}

fn server(what: &str) -> Option<Arc<Postgres>> {
    match Postgres::start(&[]) {
        Ok(server) => Some(Arc::new(server)),
        Err(missing) => {
            missing.report(what);
            None
        }
    }
}

/// A gateway's other services, and command services that come and go.
struct Crowd {
    gateway: Gateway,
    services: Vec<Process>,
}

impl Crowd {
    async fn start(store: Store, lanes: u8) -> Self {
        let options = Options::new(Form::Three).lanes(lanes).store(store);
        let gateway = Gateway::start(options.env("STATEGATE_TEST_STEPS", "1")).await;
        let mut crowd = Self {
            gateway,
            services: Vec::new(),
        };
        for _ in 0..SERVICES {
            let service = crowd.service(None).await;
            crowd.services.push(service);
        }
        crowd
    }

    async fn service(&self, pause: Option<&str>) -> Process {
        let env: Vec<_> = pause
            .map(|step| ("STATEGATE_TEST_PAUSE", format!("{step}:15:100")))
            .into_iter()
            .collect();
        self.gateway.spawn(Role::Command, &env).await
    }

    fn clients(&self, service: usize) -> Clients {
        let address = self.services[service].grpc();
        Clients {
            commands: Clients::new(address, address, address).commands,
            ..self.gateway.clients()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_whoever_is_killed() {
    let _alone = alone().await;
    let Some(server) = server("killed services and databases on PostgreSQL") else {
        return;
    };
    let begun = Instant::now();
    let (least_kills, least_acknowledged) = (scale(20, 300), scale(20_000, 300_000));
    let mut crowd = Crowd::start(Store::Postgres(server.url()), 2).await;
    let mut rng = StdRng::seed_from_u64(0x9057);
    let recent = Arc::<Recent>::default();
    let tail = Tail::start(&crowd.gateway.clients(), &recent).await;
    let mut writes: Vec<Write> = Vec::new();
    let mut steps: BTreeMap<String, usize> = BTreeMap::new();
    let mut kills: BTreeMap<Victim, usize> = BTreeMap::new();
    let (mut acknowledged, mut pause, mut paused) = (0, None, 0);
    for round in 0.. {
        let mut writers = Vec::new();
        for service in 0..SERVICES {
            let (mix, seed) = (Mix::small(), rng.random());
            let clients = || crowd.clients(service);
            writers.push(Writers::start(clients, WRITERS, &mix, &recent, seed));
        }
        let share = least_acknowledged / least_kills / SERVICES;
        for writers in &writers {
            writers.reach(rng.random_range(share / 4..=share)).await;
        }
        let victim = match round % 4 {
            3 => Victim::Database,
            _ => Victim::Service,
        };
        *kills.entry(victim).or_default() += 1;
        match victim {
            Victim::Service => {
                let killed = match pause {
                    Some(_) => {
                        let process = &crowd.services[paused];
                        let from = process.written();
                        let is_pause = |line: &str| line.starts_with("pause ");
                        process.line(from, "paused", is_pause).await;
                        paused
                    }
                    None => rng.random_range(0..SERVICES),
                };
                crowd.services[killed].kill().await;
                let step = crowd.services[killed].last_step();
                *steps.entry(step.unwrap_or_default()).or_default() += 1;
                for writers in writers {
                    writes.extend(writers.finish().await);
                }
                pause = *PAUSES.choose(&mut rng).unwrap();
                paused = killed;
                crowd.services[killed] = crowd.service(pause).await;
            }
            Victim::Database => {
                let database = Arc::clone(&server);
                spawn_blocking(move || {
                    database.kill();
                    database.restart();
                })
                .await
                .unwrap();
                // Those that were told nothing certain have ended; the others go on by themselves.
                for writers in writers {
                    writes.extend(writers.finish().await);
                }
            }
        }
        acknowledged = writes
            .iter()
            .filter(|write| write.is_acknowledged())
            .count();
        if kills.values().sum::<usize>() >= least_kills && acknowledged >= least_acknowledged {
            break;
        }
    }
    let clients = crowd.gateway.clients();
    let log = Log::read(&clients).await;
    let mut findings = check::everything(&clients, &writes, &log).await;
    findings.extend(tail.finish(&log).await.check(&log, Due::All));
    check::assert_none(&findings);
    let unknown = writes
        .iter()
        .filter(|write| matches!(write.outcome, Outcome::Unknown(_)))
        .count();
    let of = |step: &str| steps.get(step).copied().unwrap_or_default();
    let proven = of("decided") + of("appended");
    println!(
        "{SERVICES} services, {WRITERS} writers each: {} writes, {acknowledged} acknowledged, {unknown} with an unknown \
         outcome, kills {kills:?}, last steps of services {steps:?}, {proven} between load and acknowledgement, {} events in \
         the log, {:.1?}",
        writes.len(),
        log.len(),
        begun.elapsed()
    );
    assert!(
        proven >= scale(5, 60),
        "{proven} proven kills prove too little"
    );
    assert!(
        of("decided") >= scale(5, 60),
        "hardly any between load and append"
    );
}

/// Connections are cut while appends are on them, and answers lost before that: whoever wrote is
/// told so, once.
#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_lose_and_double_nothing() {
    let _alone = alone().await;
    let Some(server) = server("cut connections to PostgreSQL") else {
        return;
    };
    let begun = Instant::now();
    let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into()).await;
    let address = format!(
        "postgres://postgres@{}/postgres?sslmode=disable",
        proxy.address()
    );
    let gateway = Gateway::start(
        Options::new(Form::Three)
            .lanes(2)
            .store(Store::Postgres(address)),
    )
    .await;
    let recent = Arc::<Recent>::default();
    let tail = Tail::start(&gateway.clients(), &recent).await;
    let writers = Writers::start(|| gateway.clients(), 24, &Mix::small(), &recent, 7);
    let cuts = scale(40, 400);
    let heads = format!("SELECT sum(head) FROM {}.lanes", gateway.schema());
    let mut landed = 0;
    for cut in 0..cuts {
        writers.reach(writers.acknowledged() + 50).await;
        if cut % 2 == 0 {
            let before = server.sql(&heads);
            proxy.lose_answers(Answers::Lost);
            // What is on its way lands; nobody hears of it.
            let since = Instant::now();
            while server.sql(&heads) == before && since.elapsed() < Duration::from_millis(500) {}
            landed += usize::from(server.sql(&heads) != before);
        }
        proxy.cut();
        proxy.lose_answers(Answers::Passed);
    }
    let writes = writers.finish().await;
    let acknowledged = writes
        .iter()
        .filter(|write| write.is_acknowledged())
        .count();
    for write in &writes {
        // The database was there again at once, so that what became of every write could be found out.
        let is_fair = match &write.outcome {
            Outcome::Acknowledged { .. } => true,
            Outcome::Refused(reason) => !["INTERNAL"].contains(&reason.as_str()),
            Outcome::Unknown(_) => false,
        };
        assert!(is_fair, "{write:?}");
    }
    let clients = gateway.clients();
    let log = Log::read(&clients).await;
    let mut findings = check::everything(&clients, &writes, &log).await;
    findings.extend(tail.finish(&log).await.check(&log, Due::All));
    check::assert_none(&findings);
    println!(
        "{cuts} cuts, {landed} of them after an append landed unheard: {acknowledged} writes acknowledged, {} events in the log, {:.1?}",
        log.len(),
        begun.elapsed()
    );
    assert!(
        landed >= cuts / 8,
        "{landed} unheard appends prove too little"
    );
}

/// A database that is away: what was sent to it is unknown, what was not is surely not written.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_is_named_only_where_it_is_one() {
    let _alone = alone().await;
    let Some(server) = server("a PostgreSQL that is away") else {
        return;
    };
    let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into()).await;
    let address = format!(
        "postgres://postgres@{}/postgres?sslmode=disable",
        proxy.address()
    );
    let gateway = Gateway::start(Options::new(Form::Three).store(Store::Postgres(address))).await;
    let clients = gateway.clients();
    let write = async |key: &str| {
        let entity = EntityRef::new("domain", "thing", key).unwrap();
        let what = What::Set(Object::from([("n".to_owned(), 1.0.into())]));
        let (id, begun) = (Uuid::new_v4(), Instant::now());
        let outcome = send(&clients, &entity, &what, id, None).await;
        Write {
            id,
            entity,
            what,
            if_version: None,
            begun,
            ended: Instant::now(),
            outcome,
        }
    };
    let acknowledged = async |key: &str| loop {
        let written = write(key).await;
        match &written.outcome {
            Outcome::Refused(reason) if reason == "STORAGE_UNAVAILABLE" => {}
            _ => break written,
        }
    };
    let mut writes = vec![write("warm").await];

    // On its way when the database goes, with the answer lost: nobody can know. (The lane knows this
    // entity, so that the append is all it asks of the database.)
    let heads = format!("SELECT sum(head) FROM {}.lanes", gateway.schema());
    let nowhere = ([127, 0, 0, 1], stategate_servers::free_port()).into();
    let lost = loop {
        let before = server.sql(&heads);
        proxy.lose_answers(Answers::Lost);
        let mut warm = pin!(write("warm"));
        tokio::select! {
            () = landed(&server, &heads, &before) => {
                proxy.point_at(nowhere);
                proxy.cut();
                break warm.await;
            }
            // The answers that were lost were others, which the append waited for: it was never sent.
            not_sent = &mut warm => {
                assert!(
                    matches!(&not_sent.outcome, Outcome::Refused(reason) if reason == "STORAGE_UNAVAILABLE"),
                    "{not_sent:?}"
                );
                proxy.cut();
                proxy.lose_answers(Answers::Passed);
                writes.push(not_sent);
                writes.push(acknowledged("warm").await);
            }
        }
    };
    assert!(
        matches!(&lost.outcome, Outcome::Unknown(told) if told.contains("OUTCOME_UNKNOWN") || told.contains("may have")),
        "{lost:?}"
    );
    writes.push(lost);

    // Never sent: surely not written.
    let mut tasks = JoinSet::new();
    for n in 0..20 {
        let key = format!("later-{n}");
        tasks.spawn({
            let clients = clients.clone();
            async move {
                let entity = EntityRef::new("domain", "thing", &key).unwrap();
                let what = What::Set(Object::from([("n".to_owned(), 2.0.into())]));
                send(&clients, &entity, &what, Uuid::new_v4(), None).await
            }
        });
    }
    for outcome in tasks.join_all().await {
        assert!(
            matches!(&outcome, Outcome::Refused(reason) if reason == "STORAGE_UNAVAILABLE"),
            "{outcome:?}"
        );
    }

    proxy.lose_answers(Answers::Passed);
    proxy.point_at(([127, 0, 0, 1], server.port()).into());
    let again = acknowledged("again").await;
    assert!(again.is_acknowledged(), "{again:?}");
    writes.push(again);
    let log = Log::read(&clients).await;
    check::assert_none(&check::everything(&clients, &writes, &log).await);
    let landed = writes
        .iter()
        .filter(|write| !matches!(write.outcome, Outcome::Refused(_)));
    assert_eq!(
        log.len(),
        landed.count(),
        "the one that was lost had landed, once"
    );
}

/// A write whose commit no standby has, since its wait for one was ended, is acknowledged to nobody until one
/// has it: not to its caller, nor to the caller that comes again, to this process or to another one.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_standby_has_is_not_acknowledged() {
    let _alone = alone().await;
    let Some(server) = server("a PostgreSQL whose standby is away") else {
        return;
    };
    let store = Store::Postgres(server.url());
    let mut gateway = Gateway::start(Options::new(Form::One).store(store)).await;
    let ask = Ask::new(&mut gateway);
    ask.set("d/t/k", r#"{"n":0}"#).await.unwrap();
    let standby = spawn_blocking({
        let server = Arc::clone(&server);
        move || server.standby()
    });
    let standby = standby.await.unwrap();
    for (n, end) in (1..).zip(["pg_cancel_backend", "pg_terminate_backend"]) {
        let ask = Ask::new(&mut gateway).with("idempotency-key", format!("key-{n}"));
        let values = format!(r#"{{"n":{n}}}"#);
        standby.freeze();
        let set = ask.set("d/t/k", &values);
        let ending = async {
            let waits = "pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            let begun = Instant::now();
            while server.sql(&format!("SELECT {waits}")).is_empty() {
                assert!(begun.elapsed() < PATIENCE, "it waits for no standby");
                tokio::task::yield_now().await;
            }
            server.sql(&format!("SELECT {end}(pid) FROM (SELECT {waits}) w"));
        };
        let (answer, ()) = tokio::join!(set, ending);
        refused(answer, Code::Unavailable, "OUTCOME_UNKNOWN");
        let seen = ask.get("d/t/k").await.unwrap();
        assert_eq!(etag(&seen), Some(n + 1), "{end}: it is there to be seen");
        let again = ask.set("d/t/k", &values).await;
        refused(again, Code::Unavailable, "OUTCOME_UNKNOWN");

        gateway.process(Role::Everything).kill().await;
        gateway.restart(Role::Everything, &[]).await;
        let ask = Ask::new(&mut gateway).with("idempotency-key", format!("key-{n}"));
        let again = ask.set("d/t/k", &values).await;
        refused(again, Code::Unavailable, "OUTCOME_UNKNOWN");

        standby.thaw();
        let again = ask.set("d/t/k", &values).await.unwrap();
        assert_eq!(etag(&again), Some(n + 1), "once");
    }
}

/// An append met by silence is repeated while its caller waits, however long a statement may take.
#[tokio::test(flavor = "multi_thread")]
async fn an_append_met_by_silence_is_repeated() {
    let _alone = alone().await;
    let Some(server) = server("a PostgreSQL whose answers are lost") else {
        return;
    };
    let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into()).await;
    let address = format!(
        "postgres://postgres@{}/postgres?sslmode=disable",
        proxy.address()
    );
    let mut gateway = Gateway::start(Options::new(Form::One).store(Store::Postgres(address))).await;
    let ask = Ask::new(&mut gateway);
    ask.set("d/t/k", r#"{"n":1}"#).await.unwrap();
    let heads = format!("SELECT sum(head) FROM {}.lanes", gateway.schema());
    let answer = loop {
        let before = server.sql(&heads);
        proxy.lose_answers(Answers::Lost);
        let mut set = pin!(ask.set("d/t/k", r#"{"n":2}"#));
        tokio::select! {
            () = landed(&server, &heads, &before) => {
                // It has landed unheard, and nothing says that it has not: neither an error nor an end.
                proxy.lose_answers(Answers::Passed);
                break set.await;
            }
            // The answers that were lost were others, which the append waited for: it was never sent.
            not_sent = &mut set => {
                refused(not_sent, Code::Unavailable, "STORAGE_UNAVAILABLE");
                proxy.cut();
                proxy.lose_answers(Answers::Passed);
                while ask.set("d/t/k", r#"{"n":1}"#).await.is_err() {}
            }
        }
    };
    let head = server.sql(&heads).parse().unwrap();
    assert_eq!(etag(&answer.unwrap()), Some(head), "once");
}

/// Waits until something was appended.
async fn landed(server: &Postgres, heads: &str, before: &str) {
    while server.sql(heads) == before {
        tokio::task::yield_now().await;
    }
}

/// A session that holds a lane for longer than a statement waits for it delays a write, and fails none.
#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_is_held_for_a_while_is_waited_for() {
    const HELD: Duration = Duration::from_secs(3);
    let _alone = alone().await;
    let Some(server) = server("a lane in PostgreSQL that another session holds") else {
        return;
    };
    let store = Store::Postgres(server.url());
    let mut gateway = Gateway::start(Options::new(Form::One).store(store)).await;
    let ask = Ask::new(&mut gateway);
    ask.set("d/t/k", r#"{"n":1}"#).await.unwrap();
    let hold = format!(
        "SELECT FROM {}.lanes FOR UPDATE; SELECT pg_sleep({})",
        gateway.schema(),
        HELD.as_secs()
    );
    let holding = spawn_blocking({
        let server = Arc::clone(&server);
        move || server.sql(&hold)
    });
    let holds = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    while server.sql(holds) == "0" {
        assert!(!holding.is_finished(), "it held nothing");
    }
    let begun = Instant::now();
    let written = ask.set("d/t/k", r#"{"n":2}"#).await.unwrap();
    assert!(begun.elapsed() > HELD / 2, "nothing was held");
    assert_eq!(etag(&written), Some(2));
    holding.await.unwrap();
    gateway.assert_no_errors();
}
