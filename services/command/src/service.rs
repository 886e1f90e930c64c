//! The command service: typed writes in, what they led to out.

use std::{future::Future, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use stategate_api::{
    Action, Answer, Command as CommandApi, Context, Del, Edit, Entity, Operation as _, Permitted,
    Problem, Revert, Set, Step, Transact,
};
use stategate_channel::Channel;
use stategate_model::{
    Command, Digest, EntityRef, Event, EventId, Expect, IdempotencyKey, Lane, Limits, Position,
    Token, Values, limits, times,
};
use stategate_runtime::{Config, Positions, Tasks, of_read};
use stategate_storage::{Error, Storage};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::{
    lane::{LaneHandle, LaneWriter, QueueBounds, Write, WriteError, Written},
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
    /// By lane number; emptied when the service ends, which lets the writers finish.
    lanes: Mutex<Vec<LaneHandle>>,
    /// Told of what was written, if others of the process wait for it.
    positions: Option<Arc<Positions>>,
    /// Hear when their writer has ended, one way or the other.
    writers: Mutex<Vec<oneshot::Receiver<()>>>,
}

/// Reads what a write needs before it is queued (the event that a Revert names). At this point nothing can have
/// been written, so when the time is up the caller is told `StorageUnavailable` and not `OutcomeUnknown`.
async fn read_by<T>(
    until: Instant,
    read: impl Future<Output = Result<T, Error>>,
) -> Result<T, Problem> {
    match timeout_at(until, read).await {
        Ok(read) => read.map_err(|error| of_read(&error)),
        Err(_) => Err(Problem::StorageUnavailable),
    }
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

    /// `refused` makes the problem of what is wrong with one operation.
    async fn write(
        &self,
        domain: &str,
        write: Write,
        since: Instant,
        refused: fn(Problem, usize) -> Problem,
    ) -> Result<Written, Problem> {
        let lane = self.storage.info().lanes.of(domain);
        let retry_is_safe = write.idempotency.is_some();
        let handle = self.lanes.lock().get(lane.index()).cloned();
        let outcome = match handle {
            // The writer tells each caller in time, but not while the storage keeps the thread that it runs on, as a
            // disk that does not answer does.
            Some(handle) => {
                let until = since + times::WRITE + times::WRITE_MARGIN;
                let written = timeout_at(until, handle.write_since(write, since)).await;
                written.unwrap_or(Err(WriteError::Unknown))
            }
            None => Err(WriteError::Ending),
        };
        outcome.map_err(|failure| match failure {
            WriteError::Refused(Refused::KeyReused) => Problem::KeyReused,
            WriteError::Refused(Refused::Operation {
                index,
                entity,
                refusal,
            }) => {
                let problem = Problem::of_refusal(refusal, || entity.to_string());
                refused(problem, index)
            }
            WriteError::Busy => Problem::Busy {
                what: "too many writes are waiting",
            },
            WriteError::Unavailable => Problem::StorageUnavailable,
            WriteError::Unable(trouble) => Problem::StorageUnable {
                why: trouble.words(),
            },
            WriteError::Unknown => Problem::OutcomeUnknown { retry_is_safe },
            WriteError::Ending => Problem::ShuttingDown,
            WriteError::Internal(error) => match error.panic() {
                Some(id) => Problem::Internal { id: id.to_string() },
                None => Problem::internal(&error),
            },
        })
    }

    /// One operation, under the call's preconditions; `detail` is what tells it from others of its method
    /// on the entity.
    async fn single(
        &self,
        entity: EntityRef,
        command: Command,
        detail: &[u8],
        context: &Context,
        since: Instant,
    ) -> Result<(Answer<()>, Written), Problem> {
        let expect = context.precondition.clone();
        let identity = || identity(command.method().as_str(), &entity, detail, &expect);
        let idempotency = key(context, entity.domain())?.map(|key| (key, identity()));
        let domain = entity.domain().to_owned();
        let write = Write {
            idempotency,
            claims: context.claims(),
            trace_parent: context.trace.clone(),
            operations: vec![Operation {
                entity,
                expect,
                command,
            }],
        };
        let written = self
            .write(&domain, write, since, |problem, _| problem)
            .await?;
        let event = the_one(&written)?;
        let mut answer = self.answer(event.lane, event.position, written.replayed);
        answer.version = Some(event.version);
        Ok((answer, written))
    }

    /// An answer to what was written up to a position.
    fn answer(&self, lane: Lane, position: Position, replayed: bool) -> Answer<()> {
        if let Some(positions) = &self.positions {
            positions.observe(lane, position);
        }
        let token = Token::of_lane(self.storage.info().log_id, lane, position);
        Answer {
            replayed,
            ..Answer::at((), token)
        }
    }

    /// The values of the event that a Revert names; `None` when it is not one of the entity's.
    async fn target(
        &self,
        entity: &EntityRef,
        id: EventId,
        until: Instant,
    ) -> Result<Option<Values>, Problem> {
        let read = read_by(until, self.storage.get_event(entity, id)).await?;
        Ok(read.value.map(|event| event.values))
    }

    /// As [`Self::target`], for all Reverts of a transaction at once, in order. They are not read beyond
    /// what a transaction may hold.
    async fn targets(
        &self,
        steps: &[Step],
        until: Instant,
    ) -> Result<Vec<Option<Values>>, Problem> {
        let (mut indices, mut events) = (Vec::new(), Vec::new());
        for (index, step) in steps.iter().enumerate() {
            if let Action::Revert(revert) = &step.action {
                indices.push(index);
                events.push((revert.entity.clone(), revert.event));
            }
        }
        let (mut targets, mut bytes) = (Vec::with_capacity(events.len()), 0);
        // One read is enough as a rule. It takes more if the events have large claims: the storage counts claims
        // in its limit, but only values count here, since the new events get the caller's claims.
        while targets.len() < events.len() {
            let left = &events[targets.len()..];
            let read = self.storage.get_events(left, limits::TRANSACTION_BYTES);
            let read = read_by(until, read).await?;
            if read.is_empty() {
                return Err(Problem::internal(
                    &"events were asked for and none answered",
                ));
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
}

/// The idempotency key of a call, which is one of a domain and a caller.
fn key(context: &Context, domain: &str) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(key) = &context.idempotency_key else {
        return Ok(None);
    };
    let (issuer, subject) = context.name().unwrap_or_default();
    Ok(Some(IdempotencyKey::new(domain, issuer, subject, key)?))
}

/// What an idempotency key stands for: a write of one entity.
fn identity(method: &str, entity: &EntityRef, detail: &[u8], expect: &Expect) -> Digest {
    let names = [entity.domain(), entity.kind(), entity.key()].map(str::as_bytes);
    digest(method, &[names[0], names[1], names[2], detail], expect)
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

/// The event of a write of one operation.
fn the_one(written: &Written) -> Result<&Event, Problem> {
    let event = written.events().first();
    event.ok_or_else(|| Problem::after_write(&"a write without an event"))
}

/// The state that a write of one operation led to.
fn state(event: &Event) -> Entity {
    Entity {
        entity: event.entity.clone(),
        values: event.values.clone(),
        version: None,
    }
}

#[async_trait]
impl CommandApi for CommandService {
    async fn set(&self, call: Permitted<'_, Set>) -> Result<Answer<()>, Problem> {
        let (Set { entity, values }, context) = call.into_parts();
        let (command, detail) = (Command::Set(values.clone()), values.json().as_bytes());
        let (answer, _) = self
            .single(entity, command, detail, &context, Instant::now())
            .await?;
        Ok(answer)
    }

    async fn edit(&self, call: Permitted<'_, Edit>) -> Result<Answer<Entity>, Problem> {
        let (Edit { entity, values }, context) = call.into_parts();
        let (command, detail) = (Command::Edit(values.clone()), values.json().as_bytes());
        let (answer, written) = self
            .single(entity, command, detail, &context, Instant::now())
            .await?;
        let state = state(the_one(&written)?);
        Ok(answer.map(|()| state))
    }

    async fn revert(&self, call: Permitted<'_, Revert>) -> Result<Answer<Entity>, Problem> {
        let (Revert { entity, event }, context) = call.into_parts();
        // Events never change, so that reading this one before the lane decides is as good as then.
        let since = Instant::now();
        let values = self.target(&entity, event, since + times::WRITE).await?;
        let (command, detail) = (Command::Revert(values), event.0.as_bytes());
        let (answer, written) = self
            .single(entity, command, detail, &context, since)
            .await?;
        let state = state(the_one(&written)?);
        Ok(answer.map(|()| state))
    }

    async fn del(&self, call: Permitted<'_, Del>) -> Result<Answer<()>, Problem> {
        let (Del { entity }, context) = call.into_parts();
        let (answer, _) = self
            .single(entity, Command::Del, &[], &context, Instant::now())
            .await?;
        Ok(answer)
    }

    async fn transact(&self, call: Permitted<'_, Transact>) -> Result<Answer<Vec<Event>>, Problem> {
        let (Transact { domain, steps }, context) = call.into_parts();
        let key = key(&context, domain.as_str())?;
        let since = Instant::now();
        let targets = self.targets(&steps, since + times::WRITE).await?;
        let mut targets = targets.into_iter();
        let mut operations = Vec::with_capacity(steps.len());
        // What the idempotency key stands for, if there is one.
        let mut details = Vec::new();
        for Step {
            action,
            precondition: expect,
        } in steps
        {
            let (entity, command, reverted) = match action {
                Action::Set(Set { entity, values }) => (entity, Command::Set(values), None),
                Action::Edit(Edit { entity, values }) => (entity, Command::Edit(values), None),
                Action::Del(Del { entity }) => (entity, Command::Del, None),
                Action::Revert(Revert { entity, event }) => {
                    let values = targets.next().flatten();
                    (entity, Command::Revert(values), Some(event))
                }
            };
            if key.is_some() {
                let detail = match (&command, &reverted) {
                    (Command::Set(values) | Command::Edit(values), _) => values.json().as_bytes(),
                    (_, Some(id)) => id.0.as_bytes(),
                    (Command::Revert(_) | Command::Del, None) => &[],
                };
                details.push(identity(command.method().as_str(), &entity, detail, &expect).0);
            }
            operations.push(Operation {
                entity,
                expect,
                command,
            });
        }
        let idempotency = key.map(|key| {
            let parts: Vec<&[u8]> = details.iter().map(<[u8; 32]>::as_slice).collect();
            (key, digest(Transact::METHOD, &parts, &Expect::Anything))
        });
        let write = Write {
            operations,
            idempotency,
            claims: context.claims(),
            trace_parent: context.trace.clone(),
        };
        let written = self
            .write(domain.as_str(), write, since, Problem::of_operation)
            .await?;
        let events = written.events().to_vec();
        let last = events.last();
        let last = last.ok_or_else(|| Problem::after_write(&"a write without an event"))?;
        let answer = self.answer(last.lane, last.position, written.replayed);
        Ok(answer.map(|()| events))
    }
}
