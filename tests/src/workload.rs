//! Writers that mix all kinds of writes over shared and own entities and remember every outcome, and
//! a tail that reads along.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use stategate_client::was_never_sent;
use stategate_model::{EntityRef, Object, Token, Value};
use stategate_protocol::{Struct, headers, pb};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::{
    Clients, Event, Finding, Log, Outcome, PATIENCE, What, Write,
    check::{self, Delivered, Due},
    clients::{everything, position, reason, request, version},
    history::trace_parent,
};

/// Why a write was surely not carried out that no service has seen.
const NEVER_SENT: &str = "never sent";
/// Entities that all writers change, in each domain.
const SHARED: usize = 6;
/// Entities of each writer's own.
const OWN: usize = 4;
/// Event ids remembered of an entity, for reverts.
const REMEMBERED: usize = 4;

/// What writers write.
#[derive(Debug, Clone)]
pub struct Mix {
    /// The domains they write to.
    pub domains: Vec<String>,
    /// The kind of entity.
    pub kind: String,
    /// Bytes that each Set carries, about.
    pub bytes: usize,
    /// Whether there is more than Sets.
    pub is_mixed: bool,
}

impl Mix {
    /// All kinds of small writes over several domains.
    pub fn small() -> Self {
        Self {
            domains: (0..6).map(|n| format!("domain-{n}")).collect(),
            kind: "thing".to_owned(),
            bytes: 100,
            is_mixed: true,
        }
    }

    /// The same over one domain, so over one lane.
    pub fn one_domain() -> Self {
        Self {
            domains: vec!["domain".to_owned()],
            ..Self::small()
        }
    }

    /// Large Sets.
    pub fn large(bytes: usize) -> Self {
        Self {
            bytes,
            is_mixed: false,
            ..Self::small()
        }
    }
}

/// Ids of recent events, by entity.
#[derive(Debug, Default)]
pub struct Recent(Mutex<HashMap<EntityRef, Vec<Uuid>>>);

impl Recent {
    fn remember(&self, event: &Event) {
        let mut recent = self.0.lock().unwrap();
        let ids = recent.entry(event.entity.clone()).or_default();
        if ids.len() == REMEMBERED {
            ids.remove(0);
        }
        ids.push(event.id);
    }

    fn any(&self, entity: &EntityRef, rng: &mut StdRng) -> Option<Uuid> {
        let recent = self.0.lock().unwrap();
        let ids = recent.get(entity)?;
        ids.get(rng.random_range(0..ids.len())).copied()
    }
}

/// Writers at work.
pub struct Writers {
    tasks: JoinSet<Vec<Write>>,
    stop: Arc<AtomicBool>,
    acknowledged: watch::Sender<usize>,
}

impl Writers {
    /// Starts `count` writers at full speed: each sends its next write when it has the answer to the
    /// one before. A writer ends when it is told to, or when its server is gone.
    pub fn start(
        clients: impl Fn() -> Clients,
        count: usize,
        mix: &Mix,
        recent: &Arc<Recent>,
        seed: u64,
    ) -> Self {
        let writers = Self {
            tasks: JoinSet::new(),
            stop: Arc::default(),
            acknowledged: watch::Sender::default(),
        };
        writers.join(clients, count, mix, recent, seed)
    }

    fn join(
        mut self,
        clients: impl Fn() -> Clients,
        count: usize,
        mix: &Mix,
        recent: &Arc<Recent>,
        seed: u64,
    ) -> Self {
        let mut shared = clients();
        for number in 0..count {
            // A few writers to a connection, so that there are several of both.
            if number % 4 == 3 {
                shared = clients();
            }
            let mut writer = Writer {
                clients: shared.clone(),
                mix: mix.clone(),
                number,
                rng: StdRng::seed_from_u64(seed.wrapping_mul(1_000_003) + number as u64),
                recent: Arc::clone(recent),
                known: HashMap::new(),
            };
            let stop = Arc::clone(&self.stop);
            let acknowledged = self.acknowledged.clone();
            self.tasks.spawn(async move {
                let mut writes = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let write = writer.write().await;
                    let is_gone = match &write.outcome {
                        Outcome::Acknowledged { .. } => {
                            acknowledged.send_modify(|count| *count += 1);
                            false
                        }
                        Outcome::Refused(reason) => {
                            ["SHUTTING_DOWN", NEVER_SENT].contains(&&**reason)
                        }
                        Outcome::Unknown(_) => true,
                    };
                    writes.push(write);
                    if is_gone {
                        break;
                    }
                }
                writes
            });
        }
        self
    }

    /// How many writes were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        *self.acknowledged.borrow()
    }

    /// Waits until so many writes were acknowledged.
    pub async fn reach(&self, count: usize) {
        let mut acknowledged = self.acknowledged.subscribe();
        loop {
            let before = *acknowledged.borrow_and_update();
            if before >= count {
                return;
            }
            let more = timeout(PATIENCE, acknowledged.changed()).await;
            assert!(
                more.is_ok(),
                "writers stopped at {before} acknowledgements of {count}"
            );
        }
    }

    /// Waits until every writer has ended by itself, and answers what they did.
    pub async fn ended(self) -> Vec<Write> {
        let all = timeout(PATIENCE, self.tasks.join_all()).await;
        all.expect("every write has an end")
            .into_iter()
            .flatten()
            .collect()
    }

    /// Ends the writers after the write each is at, and answers what they did.
    pub async fn finish(self) -> Vec<Write> {
        self.stop.store(true, Ordering::Relaxed);
        self.ended().await
    }
}

struct Writer {
    clients: Clients,
    mix: Mix,
    number: usize,
    rng: StdRng,
    recent: Arc<Recent>,
    /// Versions this writer knows of.
    known: HashMap<EntityRef, u64>,
}

impl Writer {
    async fn write(&mut self) -> Write {
        let entity = self.entity();
        let id = Uuid::from_u128(self.rng.random());
        let what = self.what(&entity, id);
        let conditional = self.mix.is_mixed && self.rng.random_ratio(1, 12);
        let if_version = self.known.get(&entity).copied().filter(|_| conditional);
        let begun = Instant::now();
        let outcome = send(&self.clients, &entity, &what, id, if_version).await;
        if let Outcome::Acknowledged { version, .. } = &outcome {
            self.known.insert(entity.clone(), *version);
        }
        Write {
            id,
            entity,
            what,
            if_version,
            begun,
            ended: Instant::now(),
            outcome,
        }
    }

    fn entity(&mut self) -> EntityRef {
        let domain = &self.mix.domains[self.rng.random_range(0..self.mix.domains.len())];
        let key = if self.rng.random_ratio(1, 3) {
            format!("shared-{}", self.rng.random_range(0..SHARED))
        } else {
            format!("own-{}-{}", self.number, self.rng.random_range(0..OWN))
        };
        EntityRef::new(domain, &self.mix.kind, &key).unwrap()
    }

    fn what(&mut self, entity: &EntityRef, id: Uuid) -> What {
        let name = Value::String(id.simple().to_string());
        let choice = match self.mix.is_mixed {
            true => self.rng.random_range(0..100),
            false => 0,
        };
        match choice {
            60..80 => {
                let field = format!("edited-{}", self.rng.random_range(0..4));
                What::Edit(Object::from([
                    ("id".to_owned(), name.clone()),
                    (field, name),
                ]))
            }
            80..88 => What::Del,
            88.. if let Some(event) = self.recent.any(entity, &mut self.rng) => What::Revert(event),
            _ => {
                let size = self
                    .rng
                    .random_range(self.mix.bytes / 2..=self.mix.bytes * 3 / 2);
                let text = name_of_size(&name, size);
                let number = f64::from(self.rng.random_range(-1_000_000..1_000_000)) / 8.0;
                What::Set(Object::from([
                    ("id".to_owned(), name),
                    ("text".to_owned(), Value::String(text)),
                    ("number".to_owned(), Value::Number(number)),
                    (
                        "nested".to_owned(),
                        Value::Array(vec![Value::Null, true.into()]),
                    ),
                ]))
            }
        }
    }
}

fn name_of_size(name: &Value, size: usize) -> String {
    let Value::String(name) = name else {
        return String::new();
    };
    name.chars().cycle().take(size).collect()
}

/// Sends one write and reads what became of it.
pub async fn send(
    clients: &Clients,
    entity: &EntityRef,
    what: &What,
    id: Uuid,
    if_version: Option<u64>,
) -> Outcome {
    let mut commands = clients.commands.clone();
    let message = |values: &Object| pb::Entity {
        domain: entity.domain().to_owned(),
        r#type: entity.kind().to_owned(),
        key: entity.key().to_owned(),
        values: Some(Struct::Tree(values.clone())),
        ..pb::Entity::default()
    };
    let answer: Result<Response<Option<pb::Entity>>, Status> = match what {
        What::Set(values) => {
            let request = named(message(values), id, if_version);
            commands
                .set(request)
                .await
                .map(|answer| answer.map(|_| None))
        }
        What::Edit(values) => {
            let request = named(message(values), id, if_version);
            commands.edit(request).await.map(|answer| answer.map(Some))
        }
        What::Del => {
            let reference = pb::EntityRef {
                domain: entity.domain().to_owned(),
                r#type: entity.kind().to_owned(),
                key: entity.key().to_owned(),
                at: None,
            };
            let request = named(reference, id, if_version);
            commands
                .del(request)
                .await
                .map(|answer| answer.map(|_| None))
        }
        What::Revert(event) => {
            let reference = pb::EventRef {
                domain: entity.domain().to_owned(),
                r#type: entity.kind().to_owned(),
                key: entity.key().to_owned(),
                id: event.to_string(),
            };
            let request = named(reference, id, if_version);
            commands
                .revert(request)
                .await
                .map(|answer| answer.map(Some))
        }
    };
    match answer {
        Ok(answer) => {
            let token = position(answer.metadata()).expect("a write says where it is");
            let (lane, position) = token.iter().next().expect("the lane of the write");
            let version = version(answer.metadata()).expect("a write says its version");
            let values = answer.into_inner().and_then(|entity| entity.values);
            Outcome::Acknowledged {
                version,
                at: (lane, position.get()),
                values: values.map(Struct::into_object),
            }
        }
        Err(status) => match reason(&status) {
            Some(reason) if !["OUTCOME_UNKNOWN", "DEADLINE_EXCEEDED"].contains(&&*reason) => {
                Outcome::Refused(reason)
            }
            _ if was_never_sent(&status) => Outcome::Refused(NEVER_SENT.to_owned()),
            _ => Outcome::Unknown(status.to_string()),
        },
    }
}

fn named<T>(message: T, id: Uuid, if_version: Option<u64>) -> Request<T> {
    let mut request = request(message);
    let metadata = request.metadata_mut();
    metadata.insert(headers::TRACEPARENT, trace_parent(id).parse().unwrap());
    if let Some(version) = if_version {
        metadata.insert(headers::IF_MATCH, format!("\"{version}\"").parse().unwrap());
    }
    request
}

/// A live subscription to everything that remembers what it got.
pub struct Tail {
    start: Token,
    goal: watch::Sender<usize>,
    task: JoinHandle<(Vec<Delivered>, Option<Status>)>,
}

impl Tail {
    /// Subscribes from now on, telling `recent` of what comes.
    pub async fn start(clients: &Clients, recent: &Arc<Recent>) -> Self {
        let (start, mut stream) = clients.stream(everything(None)).await.expect("subscribe");
        let recent = Arc::clone(recent);
        let goal = watch::Sender::new(usize::MAX);
        let mut goals = goal.subscribe();
        let task = tokio::spawn(async move {
            let mut delivered = Vec::new();
            while delivered.len() < *goals.borrow_and_update() {
                let next = tokio::select! {
                    next = stream.message() => next,
                    _ = goals.changed() => continue,
                };
                match next {
                    Ok(Some(message)) => {
                        let event = Event::of(message);
                        recent.remember(&event);
                        delivered.push(Delivered::from(&event));
                    }
                    Ok(None) => return (delivered, None),
                    Err(status) => return (delivered, Some(status)),
                }
            }
            (delivered, None)
        });
        Self { start, goal, task }
    }

    /// Waits until the stream was cut, and answers what it was and how it ended.
    pub async fn ended(self) -> (Heard, Option<Status>) {
        let ended = timeout(PATIENCE, self.task).await;
        let (delivered, status) = ended.expect("a cut stream ends").expect("a tail");
        let heard = Heard {
            start: self.start,
            delivered,
        };
        (heard, status)
    }

    /// Waits until everything in the log was delivered, and answers what was.
    pub async fn finish(self, log: &Log) -> Heard {
        self.goal
            .send_replace(check::due(&self.start, log, &|_| true));
        self.ended().await.0
    }
}

/// What a tail was told.
#[derive(Debug)]
pub struct Heard {
    /// Where it began.
    pub start: Token,
    /// What it got.
    pub delivered: Vec<Delivered>,
}

impl Heard {
    /// Compares it with the log.
    pub fn check(&self, log: &Log, due: Due) -> Vec<Finding> {
        check::delivery("a tail", &self.delivered, &self.start, log, &|_| true, due)
    }
}
