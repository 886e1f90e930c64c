//! What idempotency keys and preconditions cost the writes that use neither.
//!
//! In this process, over the memory storage, without a transport: so a write takes as little as it can,
//! and the share of what is looked at for nothing is as large as it can be. Each round measures, in turn,
//!
//! - `Set` as the service does it;
//! - what the edge does for headers that are not there, alone, and what the lane and its plan do for keys
//!   that are not there, alone: copies of their steps, to be kept like them;
//! - `Set` with an idempotency key, and with `if-match`, for those who do use them.
//!
//! Time is that of the processor where Linux tells it, so that others on the machine do not count.
//!
//! ```sh
//! cargo run --release -p stategate-command --example plain_path [rounds] [writes]
//! ```

use std::{
    collections::{HashMap, HashSet},
    hint::black_box,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use futures::future::join_all;
use stategate_api::Access;
use stategate_channel::{Channel, InMemory, InMemoryConfig};
use stategate_command::{CommandService, Settings};
use stategate_model::{Digest, EntityRef, Expect, IdempotencyKey, Limits, json};
use stategate_protocol::{
    Struct, convert, headers, pb, server::entity_service_server::EntityService as _,
};
use stategate_server::{Drain, Grpc, Services, Tasks};
use stategate_storage::{Memory, MemoryConfig, Replay, Storage};
use tonic::Request;

/// Callers at once.
const CALLERS: usize = 64;
/// Entities of each.
const KEYS: usize = 16;

type Failed = Box<dyn std::error::Error>;

fn message(caller: usize, n: usize) -> Result<pb::Entity, Failed> {
    let values = json::parse_object(&format!(r#"{{"caller":{caller},"n":{n}}}"#))?;
    Ok(pb::Entity {
        domain: "d".to_owned(),
        r#type: "t".to_owned(),
        key: format!("k{caller}-{}", n % KEYS),
        values: Some(Struct::from_object(&values)),
        version: 0,
    })
}

/// Nanoseconds a write of `writes` in all, each made by `call`.
async fn measure<F>(writes: usize, call: impl Fn(pb::Entity) -> F) -> Result<f64, Failed>
where
    F: Future<Output = Result<(), Failed>>,
{
    let begun = processor_time()?;
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
    Ok((processor_time()? - begun) / writes as f64)
}

/// What a Set carries beside its message.
#[derive(Debug, Clone, Copy)]
enum With {
    Nothing,
    Key,
    IfMatch,
}

async fn service(writes: usize, with: With) -> Result<f64, Failed> {
    let storage: Arc<dyn Storage> = Arc::new(Memory::new(&MemoryConfig::default())?);
    let channel: Arc<dyn Channel> = Arc::new(InMemory::new(&InMemoryConfig::default()));
    let service = CommandService::start(
        storage,
        &channel,
        &Settings::default(),
        &Tasks::of(&Drain::new()),
    );
    let command = Arc::new(service);
    let services = Services {
        command: Some(Arc::clone(&command) as _),
        ..Services::default()
    };
    let service = Grpc::new(services, Access::open(), Limits::default());
    let next = AtomicUsize::new(0);
    if let With::IfMatch = with {
        for caller in 0..CALLERS {
            for n in 0..KEYS {
                service.set(Request::new(message(caller, n)?)).await?;
            }
        }
    }
    let set = |message| {
        let (service, next) = (&service, &next);
        async move {
            let mut request = Request::new(message);
            let metadata = request.metadata_mut();
            match with {
                With::Nothing => {}
                With::Key => {
                    let key = format!("key-{}", next.fetch_add(1, Ordering::Relaxed));
                    metadata.insert(headers::IDEMPOTENCY_KEY, key.parse()?);
                }
                With::IfMatch => {
                    metadata.insert(headers::IF_MATCH, "*".parse()?);
                }
            }
            Ok(service.set(request).await.map(drop)?)
        }
    };
    let taken = measure(writes, set).await;
    command.finish().await;
    taken
}

/// The edge's steps for headers, of a request that has other ones.
fn edge(writes: usize) -> Result<f64, Failed> {
    let mut request = Request::new(());
    for (name, value) in [
        ("user-agent", "tonic/0.14"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("grpc-timeout", "10000000u"),
    ] {
        request.metadata_mut().insert(name, value.parse()?);
    }
    let values = convert::entity(message(0, 0)?, &Limits::default())?.1;
    let begun = processor_time()?;
    for _ in 0..writes {
        let metadata = black_box(request.metadata());
        let key = metadata.get_all(headers::IDEMPOTENCY_KEY).iter().next();
        let mut matches = Vec::new();
        for value in metadata.get_all(headers::IF_MATCH) {
            matches.push(value.to_str()?);
        }
        let none = metadata.get_all(headers::IF_NONE_MATCH).iter().next();
        // Kept for a digest that nobody asks for.
        let detail = values.clone();
        black_box((key, matches, none, detail));
    }
    Ok((processor_time()? - begun) / writes as f64)
}

/// Nanoseconds that this thread was given so far.
fn processor_time() -> Result<f64, Failed> {
    match std::fs::read_to_string("/proc/thread-self/schedstat") {
        Ok(stat) => Ok(stat.split(' ').next().unwrap_or_default().parse()?),
        Err(_) => {
            static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
            Ok(BEGUN.elapsed().as_nanos() as f64)
        }
    }
}

/// The lane's and the plan's steps for keys, for batches of [`CALLERS`] writes that have none.
fn keys(writes: usize) -> Result<f64, Failed> {
    type Key = Option<(IdempotencyKey, Digest)>;
    let items: Vec<(Key, Expect)> = vec![(None, Expect::Anything); CALLERS];
    let begun = processor_time()?;
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
    Ok((processor_time()? - begun) / writes as f64)
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
    service(writes, With::Nothing).await?;
    let mut all = [const { Vec::new() }; 6];
    for _ in 0..rounds {
        let plain = service(writes, With::Nothing).await?;
        let (edge, lane) = (edge(writes)?, keys(writes)?);
        all[0].push(plain);
        all[1].push(edge);
        all[2].push(lane);
        all[3].push((edge + lane) / plain * 100.0);
        all[4].push(service(writes, With::Key).await?);
        all[5].push(service(writes, With::IfMatch).await?);
    }
    let [plain, edge, lane, share, key, if_match] = all;
    println!("{rounds} rounds of {writes} writes, {CALLERS} callers at once, one thread");
    spread("Set", plain, "ns");
    spread("  of it for headers not there", edge, "ns");
    spread("  of it for keys not there", lane, "ns");
    spread("  share of both", share, "%");
    spread("Set with an idempotency key", key, "ns");
    spread("Set with if-match", if_match, "ns");
    Ok(())
}
