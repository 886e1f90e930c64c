//! What idempotency keys and preconditions cost the writes that use neither.
//!
//! In this process, over the memory storage, without a transport: so a write takes as little as it can,
//! and the share of what is looked at for nothing is as large as it can be. Each round measures, in turn,
//!
//! - `Set` as the service does it: the three headers are looked for, the lane gathers keys;
//! - the same by an edge that knows no headers, straight to the lane;
//! - what the lane and its plan do for keys that are not there, alone (a copy of their steps).
//!
//! ```sh
//! cargo run --release -p stategate-command --example plain_path [rounds] [writes]
//! ```

use std::{
    collections::{HashMap, HashSet},
    hint::black_box,
    sync::Arc,
    time::Instant,
};

use futures::future::join_all;
use stategate_channel::{Channel, InMemory, InMemoryConfig};
use stategate_command::{
    CommandService, Operation, Settings,
    lane::{LaneHandle, LaneWriter, Write},
};
use stategate_model::{
    Claims, Command, Digest, EntityRef, Expect, IdempotencyKey, Lane, Limits, Token, TraceParent,
    json,
};
use stategate_protocol::{Struct, convert, headers, pb};
use stategate_server::CommandApi as _;
use stategate_storage::{Memory, MemoryConfig, Replay, Storage};
use tonic::{Request, Response};

/// Callers at once.
const CALLERS: usize = 64;

type Failed = Box<dyn std::error::Error>;

fn message(caller: usize, n: usize) -> Result<pb::Entity, Failed> {
    let values = json::parse_object(&format!(r#"{{"caller":{caller},"n":{n}}}"#))?;
    Ok(pb::Entity {
        domain: "d".to_owned(),
        r#type: "t".to_owned(),
        key: format!("k{caller}-{}", n % 16),
        values: Some(Struct::from_object(&values)),
        version: 0,
    })
}

/// Nanoseconds a write of `writes` in all, each made by `call`.
async fn measure<F>(writes: usize, call: impl Fn(pb::Entity) -> F) -> Result<f64, Failed>
where
    F: Future<Output = Result<(), Failed>>,
{
    let begun = Instant::now();
    let callers = (0..CALLERS).map(|caller| {
        let call = &call;
        async move {
            for n in 0..writes / CALLERS {
                call(message(caller, n)?).await?;
            }
            Ok::<_, Failed>(())
        }
    });
    for done in join_all(callers).await {
        done?;
    }
    Ok(begun.elapsed().as_nanos() as f64 / writes as f64)
}

fn log() -> Result<(Arc<dyn Storage>, Arc<dyn Channel>), Failed> {
    Ok((
        Arc::new(Memory::new(&MemoryConfig::default())?),
        Arc::new(InMemory::new(&InMemoryConfig::default())),
    ))
}

async fn service(writes: usize) -> Result<f64, Failed> {
    let (storage, channel) = log()?;
    let service = CommandService::start(storage, &channel, &Settings::default());
    let set = |message| async { Ok(service.set(Request::new(message)).await.map(drop)?) };
    let taken = measure(writes, set).await;
    service.finish().await;
    taken
}

/// What the service does, but for what it looks for in headers.
async fn bare(writes: usize) -> Result<f64, Failed> {
    let (storage, channel) = log()?;
    let log_id = storage.info().log_id;
    let settings = Settings::default();
    let limits = Limits::default();
    let (writer, lane) = LaneWriter::new(
        Lane(0),
        storage,
        channel,
        limits,
        settings.queue,
        settings.cache_bytes,
    );
    let writer = tokio::spawn(writer.run());
    let set = |message| {
        let lane: LaneHandle = lane.clone();
        async move {
            let (metadata, _, message) = Request::new(message).into_parts();
            let (entity, values) = convert::entity(message, &limits)?;
            let trace_parent = metadata.get(headers::TRACEPARENT);
            let write = Write {
                operations: vec![Operation {
                    entity: entity.clone(),
                    expect: Expect::Anything,
                    command: Command::Set(values),
                }],
                idempotency: None,
                claims: Claims::none(),
                trace_parent: trace_parent
                    .and_then(|trace| TraceParent::parse(trace.to_str().ok()?)),
            };
            let written = lane.write(write).await;
            let written = written.map_err(|failure| format!("{failure:?}"))?;
            let event = written.events.first().cloned().ok_or("no event")?;
            let mut response = Response::new(());
            let token = Token::of_lane(log_id, event.lane, event.position);
            let metadata = response.metadata_mut();
            metadata.insert(headers::POSITION, token.to_string().parse()?);
            metadata.insert(headers::ETAG, format!("\"{}\"", event.version).parse()?);
            black_box(response);
            Ok(())
        }
    };
    let taken = measure(writes, set).await;
    drop(lane);
    writer.await?;
    taken
}

/// The lane's and the plan's steps for keys, for batches of [`CALLERS`] writes that have none.
fn keys(writes: usize) -> f64 {
    type Key = Option<(IdempotencyKey, Digest)>;
    let items: Vec<(Key, Expect)> = vec![(None, Expect::Anything); CALLERS];
    let begun = Instant::now();
    for _ in 0..writes / CALLERS {
        let items = black_box(&items);
        let mut seen = HashSet::new();
        let asked = items.iter().filter_map(|(key, _)| key.as_ref());
        let keys: Vec<&IdempotencyKey> = asked
            .map(|(key, _)| key)
            .filter(|key| seen.insert(*key))
            .collect();
        let replays: HashMap<IdempotencyKey, Option<Replay>> = HashMap::new();
        let mut taken: HashMap<EntityRef, Digest> = HashMap::new();
        for (key, expect) in items {
            if key.is_some() {
                taken.clear();
            }
            black_box(matches!(expect, Expect::Anything));
        }
        black_box((keys, replays, taken));
    }
    begun.elapsed().as_nanos() as f64 / writes as f64
}

fn spread(name: &str, mut figures: Vec<f64>, unit: &str) {
    figures.sort_by(f64::total_cmp);
    let (least, most) = (figures.first(), figures.last());
    if let (Some(least), Some(most)) = (least, most) {
        let median = (figures[(figures.len() - 1) / 2] + figures[figures.len() / 2]) / 2.0;
        println!("{name:<34} median {median:>9.2} {unit:<3} ({least:.2} to {most:.2})");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |otherwise: usize| match arguments.next() {
        Some(text) => text.parse(),
        None => Ok(otherwise),
    };
    let (rounds, writes) = (number(10)?, number(64_000)?);
    service(writes).await?;
    bare(writes).await?;
    let mut all = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for round in 0..rounds {
        // Who goes first changes from round to round.
        let (with, without) = if round % 2 == 0 {
            let with = service(writes).await?;
            (with, bare(writes).await?)
        } else {
            let without = bare(writes).await?;
            (service(writes).await?, without)
        };
        let lane = keys(writes);
        all[0].push(with);
        all[1].push(without);
        all[2].push(lane);
        all[3].push((with - without + lane) / with * 100.0);
    }
    let [with, without, lane, share] = all;
    println!("{rounds} rounds of {writes} writes, {CALLERS} callers at once, one thread");
    spread("Set, through the service", with, "ns");
    spread("Set, by an edge without headers", without, "ns");
    spread("keys that are not there, in the lane", lane, "ns");
    spread("share of the plain path", share, "%");
    Ok(())
}
