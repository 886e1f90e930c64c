//! The edge of the command service: calls in, answers out.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use stategate_channel::Channel;
use stategate_model::{
    Claims, Command, Digest, Domain, EntityRef, Event, EventId, Expect, IdempotencyKey, Invalid,
    Limits, Token, Values, Version, limits, times,
};
use stategate_protocol::{Problem, Transacted, convert, encode_event, headers, pb};
use stategate_server::{CommandApi, Config, Positions, Tasks, Unfit};
use stategate_storage::{Error, Kind, Storage, Work};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tonic::{Request, Response, Status, metadata::MetadataMap};

use crate::{
    conditions,
    lane::{Failure, LaneHandle, LaneWriter, QueueBounds, Write, Written},
    plan::{self, Operation, Refused},
};

/// The bounds an operator may set.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Limits of values.
    pub limits: Limits,
    /// How much may wait in front of each lane.
    pub queue: QueueBounds,
    /// Most bytes of entity states kept in memory, over all lanes.
    pub cache_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            queue: QueueBounds {
                writes: 10_000,
                bytes: 64 << 20,
            },
            cache_bytes: 64 << 20,
        }
    }
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        let defaults = Self::default();
        Self {
            limits: config.limits,
            queue: QueueBounds {
                writes: config.max_queued_writes,
                ..defaults.queue
            },
            ..defaults
        }
    }
}

/// Carries out Set, Edit, Revert, Del and Transact.
#[derive(Debug)]
pub struct CommandService {
    storage: Arc<dyn Storage>,
    limits: Limits,
    /// By lane number; emptied when the service ends, which lets the writers finish.
    lanes: Mutex<Vec<LaneHandle>>,
    /// Told of what was written, if others of the process wait for it.
    positions: Option<Arc<Positions>>,
    /// Hear when their writer has ended, one way or the other.
    writers: Mutex<Vec<oneshot::Receiver<()>>>,
}

/// What a client is told of a read that failed. Nothing was written.
fn failed(error: &Error) -> Problem {
    match (error.kind(), error.trouble()) {
        (Kind::Unavailable | Kind::Unknown, None) => Problem::StorageUnavailable,
        (Kind::Unavailable | Kind::Unknown, Some(trouble)) => Problem::StorageUnable {
            why: trouble.words(),
        },
        _ => Problem::internal(error),
    }
}

/// What a write is made of, read while its caller waits to hear that nothing was written.
async fn read_by<T>(
    until: Instant,
    read: impl Future<Output = Result<T, Error>>,
) -> Result<T, Problem> {
    match timeout_at(until, read).await {
        Ok(read) => read.map_err(|error| failed(&error)),
        Err(_) => Err(Problem::StorageUnavailable),
    }
}

/// A write as its metadata has it.
struct Call {
    expect: Expect,
    key: Option<IdempotencyKey>,
    claims: Claims,
    metadata: MetadataMap,
}

impl CommandService {
    /// Starts one writer for each lane of the storage. Needs a tokio runtime.
    pub fn start(
        storage: Arc<dyn Storage>,
        channel: &Arc<dyn Channel>,
        settings: &Settings,
        tasks: &Tasks,
    ) -> Self {
        let lanes = storage.info().lanes;
        let cache = settings.cache_bytes / usize::from(lanes.get());
        let (handles, writers) = lanes
            .iter()
            .map(|lane| {
                let (writer, handle) = LaneWriter::new(
                    lane,
                    Arc::clone(&storage),
                    Arc::clone(channel),
                    settings.limits,
                    settings.queue,
                    cache,
                );
                let (end, ended) = oneshot::channel();
                // A lane without its writer takes no write any more.
                let run = async move {
                    writer.run().await;
                    drop(end);
                };
                storage.run_writer(Box::pin(
                    tasks.watched(&format!("the writer of lane {lane}"), run),
                ));
                (handle, ended)
            })
            .unzip();
        Self {
            storage,
            limits: settings.limits,
            lanes: Mutex::new(handles),
            positions: None,
            writers: Mutex::new(writers),
        }
    }

    /// The same service, which tells of what it wrote.
    #[must_use]
    pub fn telling(self, positions: Arc<Positions>) -> Self {
        let positions = Some(positions);
        Self { positions, ..self }
    }

    /// Takes no more writes, and finishes those that were taken.
    pub async fn finish(&self) {
        self.lanes.lock().clear();
        let writers = std::mem::take(&mut *self.writers.lock());
        for writer in writers {
            // Nothing is sent: the other side is dropped.
            let _ = writer.await;
        }
    }

    /// `refused` makes the status of what is wrong with one operation.
    async fn write(
        &self,
        domain: &str,
        write: Write,
        refused: fn(Problem, usize) -> Status,
    ) -> Result<Written, Status> {
        let lane = self.storage.info().lanes.of(domain);
        let retry_is_safe = write.idempotency.is_some();
        let handle = self.lanes.lock().get(lane.index()).cloned();
        let outcome = match handle {
            Some(handle) => handle.write(write).await,
            None => Err(Failure::Ending),
        };
        outcome.map_err(|failure| {
            let problem = match failure {
                Failure::Refused(Refused::KeyReused) => Problem::KeyReused,
                Failure::Refused(Refused::Operation {
                    index,
                    entity,
                    refusal,
                }) => {
                    let problem = Problem::of_refusal(refusal, || entity.to_string());
                    return refused(problem, index);
                }
                Failure::Busy => Problem::Busy {
                    what: "too many writes are waiting",
                },
                Failure::Unavailable => Problem::StorageUnavailable,
                Failure::Unable(trouble) => Problem::StorageUnable {
                    why: trouble.words(),
                },
                Failure::Unknown => Problem::OutcomeUnknown { retry_is_safe },
                Failure::Ending => Problem::ShuttingDown,
                Failure::Internal(error) => Problem::internal(&error),
            };
            problem.into()
        })
    }

    /// One operation, under the call's preconditions.
    async fn single(
        &self,
        entity: EntityRef,
        command: Command,
        detail: &[u8],
        call: Call,
    ) -> Result<(Written, Response<()>), Status> {
        let names = [entity.domain(), entity.kind(), entity.key()].map(str::as_bytes);
        let parts = [names[0], names[1], names[2], detail];
        let idempotency = call
            .key
            .map(|key| (key, digest(command.method().as_str(), &parts, &call.expect)));
        let write = Write {
            idempotency,
            claims: call.claims,
            trace_parent: conditions::trace_parent(&call.metadata),
            operations: vec![Operation {
                entity: entity.clone(),
                expect: call.expect,
                command,
            }],
        };
        let alone = |problem: Problem, _| problem.into();
        let written = self.write(entity.domain(), write, alone).await?;
        let event = written
            .events()
            .first()
            .ok_or_else(|| Problem::after_write(&"a write without an event"))?;
        let mut response = Response::new(());
        self.stamp(response.metadata_mut(), event, written.replayed);
        insert(
            response.metadata_mut(),
            headers::ETAG,
            &format!("\"{}\"", event.version),
        );
        Ok((written, response))
    }

    fn stamp(&self, metadata: &mut MetadataMap, last: &Event, replayed: bool) {
        if let Some(positions) = &self.positions {
            positions.observe(last.lane, last.position);
        }
        let token = Token::of_lane(self.storage.info().log_id, last.lane, last.position);
        insert(metadata, headers::POSITION, &token.to_string());
        if replayed {
            insert(metadata, headers::REPLAYED, "true");
        }
    }

    /// The values of the event that a Revert names; `None` when it is not one of the entity's.
    async fn target(&self, entity: &EntityRef, id: EventId) -> Result<Option<Values>, Status> {
        let until = Instant::now() + times::WRITE;
        let read = read_by(until, self.storage.get_event(entity, id)).await?;
        Ok(read.value.map(|event| event.values))
    }

    /// As [`Self::target`], for all Reverts of a transaction at once, in order. They are not read beyond
    /// what a transaction may hold.
    async fn targets(
        &self,
        operations: &[(Pending, Expect)],
    ) -> Result<Vec<Option<Values>>, Status> {
        let (mut indices, mut events) = (Vec::new(), Vec::new());
        for (index, (pending, _)) in operations.iter().enumerate() {
            if let Pending::Revert(entity, id) = pending {
                indices.push(index);
                events.push((entity.clone(), *id));
            }
        }
        let (mut targets, mut bytes) = (Vec::with_capacity(events.len()), 0);
        let until = Instant::now() + times::WRITE;
        // Once, but for events with many claims, which count in what is read and not in what is written.
        while targets.len() < events.len() {
            let left = &events[targets.len()..];
            let read = self.storage.get_events(left, limits::TRANSACTION_BYTES);
            let read = read_by(until, read).await?;
            if read.is_empty() {
                return Err(Problem::internal(&"events were asked for and none answered").into());
            }
            for event in read {
                let values = event.map(|event| event.values);
                bytes += values.as_ref().map_or(0, Values::size);
                if bytes > limits::TRANSACTION_BYTES {
                    let index = indices.get(targets.len()).copied().unwrap_or_default();
                    return Err(Problem::from(plan::too_large(index)).of_operation(index));
                }
                targets.push(values);
            }
        }
        Ok(targets)
    }

    fn operation(
        &self,
        index: usize,
        domain: &Domain,
        message: pb::Operation,
    ) -> Result<(Pending, Expect), Invalid> {
        use pb::operation::{Operation as Wire, Precondition};
        let within = |given: String| match given.as_str() {
            "" => Ok(domain.as_str().to_owned()),
            same if same == domain.as_str() => Ok(given),
            _ => Err(Invalid::new(
                "domain",
                "is not that of the transaction; leave it empty or make it equal",
            )),
        };
        let at = |field: &'static str| {
            move |invalid: Invalid| invalid.within(&format!("operations[{index}].{field}"))
        };
        let expect = match message.precondition {
            None => Expect::Anything,
            Some(Precondition::IfAbsent(true)) => Expect::Absent,
            Some(Precondition::IfAbsent(false)) => {
                return Err(Invalid::new(
                    format!("operations[{index}].if_absent"),
                    "must be true when set",
                ));
            }
            Some(Precondition::IfVersion(version)) => match Version::from_i64(version) {
                Some(version) if version > Version::ZERO => Expect::Versions(vec![version]),
                _ => {
                    return Err(Invalid::new(
                        format!("operations[{index}].if_version"),
                        format!("is {version}; versions start at 1"),
                    ));
                }
            },
        };
        let pending = match message.operation {
            None => {
                return Err(Invalid::new(
                    format!("operations[{index}]"),
                    "must be one of set, edit, revert, del",
                ));
            }
            Some(Wire::Set(entity)) => {
                let entity = pb::Entity {
                    domain: within(entity.domain).map_err(at("set"))?,
                    ..entity
                };
                let (entity, values) = convert::entity(entity, &self.limits).map_err(at("set"))?;
                Pending::Ready(entity, Command::Set(values))
            }
            Some(Wire::Edit(entity)) => {
                let entity = pb::Entity {
                    domain: within(entity.domain).map_err(at("edit"))?,
                    ..entity
                };
                let (entity, values) = convert::entity(entity, &self.limits).map_err(at("edit"))?;
                Pending::Ready(entity, Command::Edit(values))
            }
            Some(Wire::Revert(event)) => {
                let event = pb::EventRef {
                    domain: within(event.domain).map_err(at("revert"))?,
                    ..event
                };
                let (entity, id) = convert::event_ref(&event).map_err(at("revert"))?;
                Pending::Revert(entity, id)
            }
            Some(Wire::Del(entity)) => {
                let entity = pb::EntityRef {
                    domain: within(entity.domain).map_err(at("del"))?,
                    ..entity
                };
                if entity.at.is_some() {
                    return Err(at("del")(present_only()));
                }
                Pending::Ready(
                    convert::entity_ref(&entity).map_err(at("del"))?,
                    Command::Del,
                )
            }
        };
        Ok((pending, expect))
    }
}

/// An operation that is parsed, but whose event, for a Revert, is not read yet.
enum Pending {
    Ready(EntityRef, Command),
    Revert(EntityRef, EventId),
}

fn present_only() -> Invalid {
    Invalid::new("at", "is for Get alone; a write changes the present")
}

fn call<T>(request: Request<T>, domain: impl FnOnce(&T) -> String) -> Result<(T, Call), Invalid> {
    let (metadata, extensions, message) = request.into_parts();
    let claims = extensions
        .get::<Claims>()
        .cloned()
        .unwrap_or_else(Claims::none);
    let key = match conditions::idempotency_key(&metadata)? {
        Some(key) => {
            let text = |name| claims.text(name).unwrap_or_default();
            Some(IdempotencyKey::new(
                &domain(&message),
                text("iss"),
                text("sub"),
                key,
            )?)
        }
        None => None,
    };
    Ok((
        message,
        Call {
            expect: Expect::Anything,
            key,
            // They wait with the write.
            claims: claims.lean(),
            metadata,
        },
    ))
}

fn plain_call<T>(
    request: Request<T>,
    domain: impl FnOnce(&T) -> String,
) -> Result<(T, Call), Status> {
    let (message, call) = call(request, domain).map_err(Problem::from)?;
    let expect = conditions::expect(&call.metadata).map_err(Problem::from)?;
    Ok((message, Call { expect, ..call }))
}

/// SHA-256 over length-prefixed parts, so that no two requests run into one another.
fn digest(method: &str, parts: &[&[u8]], expect: &Expect) -> Digest {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(method.as_bytes());
    for bytes in parts {
        part(bytes);
    }
    part(&expect_bytes(expect));
    Digest(hash.finalize().into())
}

/// A precondition as bytes that never change between releases: digests outlive them.
fn expect_bytes(expect: &Expect) -> Vec<u8> {
    match expect {
        Expect::Anything => vec![0],
        Expect::Exists => vec![1],
        Expect::Absent => vec![2],
        Expect::Versions(versions) => {
            let mut bytes = vec![3];
            bytes.extend(
                versions
                    .iter()
                    .flat_map(|version| version.get().to_be_bytes()),
            );
            bytes
        }
    }
}

fn insert(metadata: &mut MetadataMap, name: &'static str, value: &str) {
    // Tokens and versions are ASCII.
    if let Ok(value) = value.parse() {
        metadata.insert(name, value);
    }
}

/// The state that a write of one operation led to.
fn answer(written: &Written, response: Response<()>) -> Result<Response<pb::Entity>, Status> {
    let event = written.events().first();
    let event = event.ok_or_else(|| Problem::after_write(&"a write without an event"))?;
    let entity = convert::entity_message(&event.entity, &event.values, None)
        .map_err(|corrupt| Problem::after_write(&corrupt))?;
    let (metadata, (), extensions) = response.into_parts();
    Ok(Response::from_parts(metadata, entity, extensions))
}

#[async_trait]
impl CommandApi for CommandService {
    async fn check(&self) -> Result<(), Unfit> {
        let checked = self.storage.check(Work::Write).await;
        checked.map_err(|error| Unfit {
            why: format!("storage: {}", error.words()),
            is_for_good: *error.kind() == Kind::Bug,
            cause: error.to_string(),
        })
    }

    fn concerns(&self) -> Vec<String> {
        self.storage.concerns()
    }

    async fn set(&self, request: Request<pb::Entity>) -> Result<Response<()>, Status> {
        let (message, call) = plain_call(request, |entity| entity.domain.clone())?;
        let (entity, values) = convert::entity(message, &self.limits).map_err(Problem::from)?;
        let detail = values.clone();
        let (_, response) = self
            .single(entity, Command::Set(values), detail.json().as_bytes(), call)
            .await?;
        Ok(response)
    }

    async fn edit(&self, request: Request<pb::Entity>) -> Result<Response<pb::Entity>, Status> {
        let (message, call) = plain_call(request, |entity| entity.domain.clone())?;
        let (entity, values) = convert::entity(message, &self.limits).map_err(Problem::from)?;
        let detail = values.clone();
        let (written, response) = self
            .single(
                entity,
                Command::Edit(values),
                detail.json().as_bytes(),
                call,
            )
            .await?;
        answer(&written, response)
    }

    async fn revert(&self, request: Request<pb::EventRef>) -> Result<Response<pb::Entity>, Status> {
        let (message, call) = plain_call(request, |event| event.domain.clone())?;
        let (entity, id) = convert::event_ref(&message).map_err(Problem::from)?;
        // Events never change, so that reading this one before the lane decides is as good as then.
        let values = self.target(&entity, id).await?;
        let (written, response) = self
            .single(entity, Command::Revert(values), id.0.as_bytes(), call)
            .await?;
        answer(&written, response)
    }

    async fn del(&self, request: Request<pb::EntityRef>) -> Result<Response<()>, Status> {
        let (message, call) = plain_call(request, |entity| entity.domain.clone())?;
        let entity = convert::entity_ref(&message).map_err(Problem::from)?;
        if message.at.is_some() {
            return Err(Problem::from(present_only()).into());
        }
        let (_, response) = self.single(entity, Command::Del, &[], call).await?;
        Ok(response)
    }

    async fn transact(
        &self,
        request: Request<pb::TransactRequest>,
    ) -> Result<Response<Transacted>, Status> {
        let (message, call) =
            call(request, |transaction| transaction.domain.clone()).map_err(Problem::from)?;
        conditions::none_for_transact(&call.metadata).map_err(Problem::from)?;
        let domain = Domain::new(&message.domain).map_err(Problem::from)?;
        let count = message.operations.len();
        if !(1..=limits::TRANSACTION_OPERATIONS).contains(&count) {
            let problem = format!(
                "are {count}; a transaction has 1 to {}",
                limits::TRANSACTION_OPERATIONS
            );
            return Err(Problem::from(Invalid::new("operations", problem)).into());
        }
        // All of it is parsed before anything is waited for: a decoded message takes far more room than
        // what is kept of it.
        let mut parsed = Vec::with_capacity(count);
        for (index, operation) in message.operations.into_iter().enumerate() {
            let operation = self.operation(index, &domain, operation);
            parsed.push(operation.map_err(|invalid| Problem::from(invalid).of_operation(index))?);
        }
        let mut targets = self.targets(&parsed).await?.into_iter();
        let mut operations = Vec::with_capacity(count);
        // What the idempotency key stands for, if there is one.
        let mut details = Vec::new();
        for (pending, expect) in parsed {
            let (entity, command, reverted) = match pending {
                Pending::Ready(entity, command) => (entity, command, None),
                Pending::Revert(entity, id) => {
                    let values = targets.next().flatten();
                    (entity, Command::Revert(values), Some(id))
                }
            };
            if call.key.is_some() {
                let detail = match (&command, &reverted) {
                    (Command::Set(values) | Command::Edit(values), _) => values.json().as_bytes(),
                    (_, Some(id)) => id.0.as_bytes(),
                    (Command::Revert(_) | Command::Del, None) => &[],
                };
                let method = command.method().as_str();
                let names = [entity.domain(), entity.kind(), entity.key()].map(str::as_bytes);
                details.push(digest(method, &[names[0], names[1], names[2], detail], &expect).0);
            }
            operations.push(Operation {
                entity,
                expect,
                command,
            });
        }
        let idempotency = call.key.map(|key| {
            let parts: Vec<&[u8]> = details.iter().map(<[u8; 32]>::as_slice).collect();
            (key, digest(TRANSACT, &parts, &Expect::Anything))
        });
        let write = Write {
            operations,
            idempotency,
            claims: call.claims,
            trace_parent: conditions::trace_parent(&call.metadata),
        };
        let written = self
            .write(domain.as_str(), write, Problem::of_operation)
            .await?;
        let events = written.events().iter().map(encode_event);
        let events: Result<_, _> = events.collect();
        let events = events.map_err(|corrupt| Problem::after_write(&corrupt))?;
        let mut response = Response::new(Transacted { events });
        if let Some(last) = written.events().last() {
            self.stamp(response.metadata_mut(), last, written.replayed);
        }
        Ok(response)
    }
}

/// What a Transact is called in digests.
const TRANSACT: &str = "/stategate.EntityService/Transact";
