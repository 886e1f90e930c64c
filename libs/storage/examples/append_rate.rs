//! What the storage costs over SQLite itself: events appended per second in batches of 256, beside a
//! plain loop that inserts the same rows into the same tables with the same durability.
//!
//! `cargo run --release -p stategate-storage --example append_rate [EVENTS] [ENTITIES] [LANES]`
//!
//! Both files grow in turn, round by round, and the ratio of each round's times is what counts: the
//! machine is the same for both. With several lanes their batches are appended at once.

#![allow(clippy::print_stdout, reason = "the figures are the program's output")]

use std::{
    error::Error,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::try_join_all;
use rusqlite::{Connection, params};
use stategate_model::{
    Claims, EntityRef, Event, EventId, Lane, Lanes, Method, Position, Timestamp, Values, Version,
};
use stategate_storage::{Appended, Batch, Sqlite, SqliteConfig, Storage};

type Outcome<T> = Result<T, Box<dyn Error>>;

const BATCH: u64 = 256;
const ROUNDS: u64 = 10;
/// Pages after which the floor moves its write-ahead log to the file: more than SQLite's own 1,000, in
/// the floor's favour.
const CHECKPOINT_PAGES: i32 = 4_000;

/// Makes batches of sets to entities in no order, as many callers do.
struct Source {
    domains: Vec<String>,
    versions: Vec<Vec<u64>>,
    heads: Vec<u64>,
    seed: u64,
}

impl Source {
    fn new(lanes: Lanes, entities: usize) -> Self {
        let domain = |lane| {
            (0..)
                .map(|n| format!("domain-{n}"))
                .find(|domain| lanes.of(domain) == lane)
                .unwrap_or_default()
        };
        let domains: Vec<String> = lanes.iter().map(domain).collect();
        Self {
            versions: vec![vec![0; entities]; domains.len()],
            heads: vec![0; domains.len()],
            domains,
            seed: 0x9e37_79b9_7f4a_7c15,
        }
    }

    fn random(&mut self) -> u64 {
        // xorshift64*: the same keys in every run.
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn batch(&mut self, lane: usize) -> Outcome<Arc<Batch>> {
        let mut events = Vec::new();
        for _ in 0..BATCH {
            let random = self.random();
            let entities = self.versions[lane].len() as u64;
            let n = usize::try_from(random % entities)?;
            self.versions[lane][n] += 1;
            self.heads[lane] += 1;
            let position = self.heads[lane];
            events.push(Event {
                id: EventId::fresh(Timestamp(
                    1_700_000_000_000_000_000 + i64::try_from(position * 1_000)?,
                )),
                entity: EntityRef::new(&self.domains[lane], "invoice", &format!("invoice-{n:08}"))?,
                values: Values::from_canonical(format!(
                    r#"{{"amount":{},"customer":"customer-{}","state":"open","tags":["a","b"]}}"#,
                    random % 10_000,
                    random % 977
                )),
                version: Version::new(self.versions[lane][n]),
                lane: Lane(u8::try_from(lane)?),
                position: Position::new(position),
                time: Timestamp(1_700_000_000_000_000_000 + i64::try_from(position * 1_000)?),
                method: Method::Set,
                claims: Claims::none(),
                trace_parent: None,
            });
        }
        Ok(Arc::new(Batch {
            events,
            keys: Vec::new(),
        }))
    }
}

/// The floor: the statements alone, on a connection with the storage's settings.
struct Plain(Connection);

impl Plain {
    fn open(path: &Path) -> Outcome<Self> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.pragma_update(None, "cache_size", -65_536)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        Ok(Self(connection))
    }

    fn append(&self, batches: &[Arc<Batch>]) -> Outcome<()> {
        self.0.execute_batch("BEGIN IMMEDIATE")?;
        let mut insert = self.0.prepare_cached(
            "INSERT INTO events \
             (seq, id, domain, type, key, version, time, method, claims, trace_parent, vals) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?;
        for event in batches.iter().flat_map(|batch| &batch.events) {
            insert.execute(params![
                i64::from(event.lane.0) << 57 | event.position.as_i64(),
                event.id.0.as_bytes(),
                event.entity.domain(),
                event.entity.kind(),
                event.entity.key(),
                event.version.as_i64(),
                event.time.0,
                0,
                None::<&str>,
                None::<&str>,
                event.values.json(),
            ])?;
        }
        self.0.execute_batch("COMMIT")?;
        Ok(())
    }
}

async fn append(store: &Sqlite, batches: &[Arc<Batch>]) -> Outcome<()> {
    let appends = batches.iter().filter_map(|batch| {
        let first = batch.events.first()?;
        let expected = Position::new(first.position.get() - 1);
        Some(store.append(first.lane, expected, Arc::clone(batch)))
    });
    for outcome in try_join_all(appends).await? {
        assert_eq!(outcome, Appended::Done);
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let mut argument = |default| arguments.next().unwrap_or(Ok(default));
    let events = argument(100_000)?;
    let entities = usize::try_from(argument(100_000)?)?;
    let lanes = Lanes::new(u8::try_from(argument(1)?)?)?;

    let directory = tempfile::tempdir_in(".")?;
    let config = |name: &str| SqliteConfig {
        path: directory.path().join(name),
        lanes: Some(lanes.get()),
    };
    let store = Sqlite::open(&config("store.db")).await?;
    // The storage makes the tables, so that they are the same.
    Sqlite::open(&config("plain.db")).await?.close().await;
    let plain = Plain::open(&config("plain.db").path)?;

    let per_step = BATCH * u64::from(lanes.get());
    let steps = events / per_step / ROUNDS;
    let mut source = Source::new(lanes, entities);
    let mut ratios = Vec::new();
    println!("round    events   storage/s     plain/s   ratio   slowest append");
    for round in 1..=ROUNDS {
        let (mut ours, mut floor) = (Duration::ZERO, Duration::ZERO);
        let mut slowest = Duration::ZERO;
        for step in 0..steps {
            let batches = (0..usize::from(lanes.get()))
                .map(|lane| source.batch(lane))
                .collect::<Outcome<Vec<_>>>()?;
            // In turn, so that neither always finds the disk as the other left it.
            for turn in 0..2 {
                let begun = Instant::now();
                if (step + turn) % 2 == 0 {
                    append(&store, &batches).await?;
                    ours += begun.elapsed();
                    slowest = slowest.max(begun.elapsed());
                } else {
                    plain.append(&batches)?;
                    floor += begun.elapsed();
                }
            }
        }
        let rate = |time: Duration| (steps * per_step) as f64 / time.as_secs_f64();
        let ratio = rate(ours) / rate(floor);
        ratios.push(ratio);
        println!(
            "{round:>5} {:>9} {:>11.0} {:>11.0} {ratio:>7.2} {slowest:>16.1?}",
            round * steps * per_step,
            rate(ours),
            rate(floor),
        );
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.2}", ratios[ratios.len() / 2]);
    store.close().await;
    Ok(())
}
