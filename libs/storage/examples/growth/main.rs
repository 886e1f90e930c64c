//! Whether reads and appends stay as quick as they are while the log grows: the same questions at
//! 10,000 events, at 100,000 and so on, and the ratio of the last to the first.
//!
//! `cargo run --release -p stategate-storage --example growth -- --storage sqlite|postgres
//! [--events 1000000] [--gin] [--buffers 2GB] [--explain]`
//!
//! A search is as dear as what it is over, so both are measured: a type of which there are always the same
//! entities, whose histories grow with the log, and a type that grows with it. Only the first has to stay
//! as quick. `--buffers` is how much of the log the server keeps at hand (`shared_buffers`): with the default
//! of 128 MB a log of a million events is read from the system's cache. `--explain` prints how PostgreSQL carries out each statement at the end, planned
//! once for all parameters, with the settings the storage makes for its connections and without.

#![allow(clippy::print_stdout, reason = "the figures are the program's output")]

mod questions;
mod source;

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use stategate_servers::Postgres as Server;
use stategate_storage::{
    Appended, Postgres, PostgresConfig, Sqlite, SqliteConfig, Storage, StorageConfig,
};
use tempfile::TempDir;

use self::{
    questions::{QUESTIONS, Question},
    source::{FIXED, Source},
};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Where the log is looked at first, and how much longer it is each time after.
const FIRST: u64 = 10_000;
const STEP: u64 = 10;
/// Events of a batch while the log is filled.
const BATCH: u64 = 256;
/// How much slower an answer may be at the end than at the beginning.
const AIM: f64 = 1.3;
/// Longest that one question is asked again and again at one length of the log.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the program is told.
struct Told {
    is_postgres: bool,
    events: u64,
    gin: bool,
    buffers: Option<String>,
    explain: bool,
}

impl Told {
    fn read() -> Outcome<Self> {
        let mut told = Self {
            is_postgres: false,
            events: 1_000_000,
            gin: false,
            buffers: None,
            explain: false,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .ok_or_else(|| format!("{argument} needs a value"))
            };
            match argument.as_str() {
                "--storage" => {
                    told.is_postgres = match value()?.as_str() {
                        "sqlite" => false,
                        "postgres" => true,
                        other => return Err(format!("no storage is called {other}").into()),
                    }
                }
                "--events" => told.events = value()?.parse()?,
                "--gin" => told.gin = true,
                "--buffers" => told.buffers = Some(value()?),
                "--explain" => told.explain = true,
                _ => return Err(format!("{argument} is not known").into()),
            }
        }
        if (told.gin || told.explain || told.buffers.is_some()) && !told.is_postgres {
            return Err("--gin, --buffers and --explain go with --storage postgres".into());
        }
        Ok(told)
    }
}

/// Where the log is kept.
enum Place {
    Folder(TempDir),
    Server(Server, Box<PostgresConfig>),
}

impl Place {
    fn new(told: &Told) -> Outcome<Self> {
        if !told.is_postgres {
            return Ok(Self::Folder(tempfile::tempdir_in(".")?));
        }
        let buffers = told.buffers.as_ref();
        let settings: Vec<String> = buffers
            .map(|size| format!("shared_buffers={size}"))
            .into_iter()
            .collect();
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let server = Server::start(&settings).map_err(|missing| missing.to_string())?;
        let mut config = PostgresConfig::new(server.url());
        config.gin = told.gin;
        Ok(Self::Server(server, Box::new(config)))
    }

    async fn open(&self) -> Outcome<Arc<dyn Storage>> {
        Ok(match self {
            Self::Folder(folder) => Arc::new(
                Sqlite::open(&SqliteConfig {
                    path: folder.path().join("log.db"),
                    lanes: None,
                })
                .await?,
            ),
            Self::Server(_, config) => Arc::new(Postgres::open(config).await?),
        })
    }

    /// What the server does by itself within a minute or two is done before the questions.
    fn settle(&self) {
        if let Self::Server(server, _) = self {
            server.sql("VACUUM ANALYZE");
            server.sql("CHECKPOINT");
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Folder(_) => "SQLite".to_owned(),
            Self::Server(server, _) => format!(
                "{}, shared_buffers {}, otherwise default settings",
                server.sql("SELECT split_part(version(), ' on ', 1)"),
                server.sql("SHOW shared_buffers")
            ),
        }
    }
}

/// How long an answer took, of all that were asked for.
#[derive(Clone, Copy)]
struct Latency {
    p50: Duration,
    p99: Duration,
}

async fn fill(store: &dyn Storage, source: &mut Source, events: u64) -> Outcome<()> {
    while source.head() < events {
        let most = BATCH.min(events - source.head());
        append(store, source, most).await?;
    }
    Ok(())
}

async fn append(store: &dyn Storage, source: &mut Source, events: u64) -> Outcome<Duration> {
    let (expected, batch) = source.batch(events)?;
    let begun = Instant::now();
    let appended = store.append(source.lane(), expected, batch).await?;
    assert_eq!(appended, Appended::Done);
    Ok(begun.elapsed())
}

async fn latency(
    store: &dyn Storage,
    source: &mut Source,
    question: &Question,
) -> Outcome<Latency> {
    // The first answers pay for what the later ones find ready.
    for _ in 0..question.times.div_ceil(10) {
        question.ask(store, source).await?;
    }
    let mut taken = Vec::new();
    let begun = Instant::now();
    while taken.len() < question.times && begun.elapsed() < PATIENCE {
        taken.push(question.ask(store, source).await?);
    }
    taken.sort();
    let at = |share: usize| taken[(taken.len() - 1) * share / 100];
    Ok(Latency {
        p50: at(50),
        p99: at(99),
    })
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let told = Told::read()?;
    let place = Place::new(&told)?;
    let store = place.open().await?;
    let mut source = Source::new(store.info().lanes);
    let mut columns: Vec<(u64, Vec<Latency>)> = Vec::new();
    let mut length = FIRST.min(told.events);
    println!(
        "{}{}; load {}",
        place.name(),
        if told.gin { ", with the GIN index" } else { "" },
        load()
    );
    loop {
        let (begun, before) = (Instant::now(), source.head());
        fill(&*store, &mut source, length).await?;
        println!(
            "{length} events; {:.0} appended a second in batches of {BATCH}; \
             entities: {FIXED} of the fixed type, {} of the growing one; load {}",
            (length - before) as f64 / begun.elapsed().as_secs_f64(),
            source.grown(),
            load()
        );
        place.settle();
        let mut column = Vec::new();
        for question in QUESTIONS {
            column.push(latency(&*store, &mut source, question).await?);
        }
        columns.push((length, column));
        if length == told.events {
            break;
        }
        length = (length * STEP).min(told.events);
    }
    print(&columns);
    store.close().await;
    if let (Place::Server(server, config), true) = (&place, told.explain) {
        explain(server, config, &mut source).await?;
    }
    Ok(())
}

fn load() -> String {
    let read = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    read.split(' ').next().unwrap_or_default().to_owned()
}

fn print(columns: &[(u64, Vec<Latency>)]) {
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
    print!("\n{:<48}", "p50 and p99 in ms, at events:");
    for (length, _) in columns {
        print!(" {length:>17}");
    }
    println!("    last ÷ first");
    for (n, question) in QUESTIONS.iter().enumerate() {
        print!("{:<48}", question.name);
        for (_, column) in columns {
            let latency = column[n];
            print!(
                " {:>8.2} {:>8.2}",
                milliseconds(latency.p50),
                milliseconds(latency.p99)
            );
        }
        let (Some((_, first)), Some((_, last))) = (columns.first(), columns.last()) else {
            continue;
        };
        let ratio = last[n].p50.as_secs_f64() / first[n].p50.as_secs_f64();
        let verdict = match (question.grows, ratio <= AIM) {
            (true, _) => "grows with what it is over",
            (false, true) => "",
            (false, false) => "ABOVE 1.3",
        };
        println!("    {ratio:.2} {verdict}");
    }
}

/// Asks every question once more through connections that write their plans into the server's log: in
/// the worst case, in which a plan is made for all parameters at once, and as a pooler has it.
async fn explain(server: &Server, config: &PostgresConfig, source: &mut Source) -> Outcome<()> {
    const LOUD: &str = "-c session_preload_libraries=auto_explain -c auto_explain.log_min_duration=0 \
                        -c auto_explain.log_analyze=on -c auto_explain.log_buffers=on";
    const GENERIC: &str = "-c plan_cache_mode=force_generic_plan";
    const UNSET: &str = "-c enable_seqscan=on -c enable_hashjoin=on -c enable_mergejoin=on";
    for (name, pooler, options) in [
        (
            "planned for all parameters, the storage's settings",
            false,
            format!("{LOUD} {GENERIC}"),
        ),
        (
            "planned for all parameters, the server's settings",
            false,
            format!("{LOUD} {GENERIC} {UNSET}"),
        ),
        (
            "unprepared, the server's settings",
            true,
            format!("{LOUD} {UNSET}"),
        ),
    ] {
        let mut config = config.clone();
        config.pooler = pooler;
        config.addr = format!("{}&options={}", config.addr, options.replace(' ', "%20"));
        let store = stategate_storage::open(&StorageConfig::Postgres(config)).await?;
        for question in QUESTIONS {
            let before = server.log().len();
            question.ask(&*store, source).await?;
            let log = server.log();
            println!("\n==== {}: {name}", question.name);
            println!("{}", log.get(before..).unwrap_or_default());
        }
        store.close().await;
    }
    Ok(())
}
