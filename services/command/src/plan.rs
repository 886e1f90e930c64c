//! What a batch does: every waiting write decided in order, each seeing what the ones before it did.
//!
//! Pure. A write that is refused leaves no trace in the batch, so that it never fails its
//! neighbours; a transaction leaves either all of its changes or none.

use std::{collections::HashMap, ops::Range};

use stategate_model::{
    Change, Claims, Command, Digest, EntityRef, Event, EventId, Expect, IdempotencyKey, Invalid,
    Lane, Limits, Method, Reason, Refusal, State, Timestamp, TraceParent, Values, decide, limits,
    value::Corrupt,
};
use stategate_protocol::Struct;
use stategate_storage::{Batch, Head, KeyRecord, Replay};

use crate::states::States;

/// One operation of a write.
#[derive(Debug, Clone)]
pub struct Operation {
    /// The entity it changes.
    pub entity: EntityRef,
    /// What must hold of the entity.
    pub expect: Expect,
    /// What it does.
    pub command: Command,
}

impl Operation {
    /// Whether it makes its entity if that never was.
    pub(crate) fn makes(&self) -> bool {
        matches!(self.command, Command::Set(_)) && self.expect.holds(&State::default())
    }

    /// Bytes the operation brings along.
    pub(crate) fn size(&self) -> usize {
        self.entity.size() + self.command.size()
    }

    /// Bytes it holds while it waits.
    pub(crate) fn held(&self) -> usize {
        /// What lies around names and values: counts of their owners, the allocator's share.
        const AROUND: usize = 160;
        let versions = match &self.expect {
            Expect::Versions(versions) => size_of_val(versions.as_slice()),
            Expect::Anything | Expect::Exists | Expect::Absent => 0,
        };
        size_of::<Self>() + size_of::<EventId>() + AROUND + versions + self.size()
    }
}

/// A request to write: one operation, or several that happen together.
#[derive(Debug)]
pub struct Write {
    /// What to do, in order; all in the lane's domains.
    pub operations: Vec<Operation>,
    /// What makes copies of the request recognisable.
    pub idempotency: Option<(IdempotencyKey, Digest)>,
    /// Who asks.
    pub claims: Claims,
    /// The trace it belongs to.
    pub trace_parent: Option<TraceParent>,
}

impl Write {
    /// Bytes it brings into a batch, about.
    pub(crate) fn size(&self) -> usize {
        self.operations.iter().map(Operation::size).sum::<usize>() + self.claims.values().size()
    }

    /// Bytes it holds while it waits: values and claims are bytes then, without a tree.
    pub(crate) fn held(&self) -> usize {
        let operations: usize = self.operations.iter().map(Operation::held).sum();
        let key = self.idempotency.as_ref().map_or(0, |(key, _)| key.size());
        size_of::<Self>() + operations + self.claims.values().size() + key
    }
}

/// A write, and the ids that its events get, one for each operation.
#[derive(Clone, Copy)]
pub(crate) struct Proposed<'a> {
    pub(crate) write: &'a Write,
    pub(crate) ids: &'a [EventId],
}

/// A write that is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// One of its operations is not possible.
    Operation {
        /// Which, from 0.
        index: usize,
        /// The entity it was to change.
        entity: EntityRef,
        /// Why not.
        refusal: Refusal,
    },
    /// Its idempotency key stands for another request.
    KeyReused,
}

/// What becomes of a write once the batch is durable.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Done, by these events of the batch.
    Accepted(Range<usize>),
    /// A copy of a request earlier in the batch, which made these events.
    Copy(Range<usize>),
    /// A copy of a request that made these events before.
    Replayed(Vec<Event>),
    /// Not done.
    Refused(Refused),
}

/// What a batch does.
pub(crate) struct Plan {
    /// For each write decided, in order. Fewer than the writes if not all fitted.
    pub(crate) outcomes: Vec<Outcome>,
    /// What to append; without events when nothing was accepted.
    pub(crate) batch: Batch,
    /// The states it leads to.
    pub(crate) states: HashMap<EntityRef, State>,
}

/// Where and when a batch is decided.
pub(crate) struct Setting<'a> {
    pub(crate) lane: Lane,
    pub(crate) head: Head,
    pub(crate) now: Timestamp,
    pub(crate) limits: &'a Limits,
}

/// Decides writes in order on the states in the cache, until the batch is full. At least one is decided.
pub(crate) fn plan<'a>(
    writes: impl ExactSizeIterator<Item = Proposed<'a>>,
    setting: &Setting<'_>,
    known: &States,
    replays: &HashMap<IdempotencyKey, Option<Replay>>,
) -> Plan {
    let mut building = Building {
        setting,
        known,
        changed: HashMap::new(),
        batch: Batch {
            events: Vec::with_capacity(writes.len()),
            keys: Vec::new(),
        },
        bytes: 0,
        keys: HashMap::new(),
        time: setting.head.time,
    };
    let mut outcomes = Vec::with_capacity(writes.len());
    for proposed in writes {
        match building.outcome(proposed, replays) {
            Some(outcome) => outcomes.push(outcome),
            None => break,
        }
    }
    Plan {
        outcomes,
        batch: building.batch,
        states: building.changed,
    }
}

/// Most bytes of an event's message beside its names, values and claims.
const EVENT_BYTES: usize = 256;
/// Most bytes of values on the wire: a message with room for names and claims around them, so that
/// whatever was written can be answered and streamed (contract §4).
const VALUES_BYTES: usize = limits::MESSAGE_BYTES - (128 << 10);
/// How much longer than as JSON values may be on the wire, where `1,` is eleven bytes.
const GROWTH: usize = 6;

/// Bytes of values as JSON or on the wire, whichever is more.
fn wire_size(values: &Values) -> Result<usize, Corrupt> {
    Ok(Struct::wire_len(&values.to_object()?).max(values.size()))
}

/// Bytes of a transaction's events as JSON or on the wire, whichever is more.
enum TransactionSize {
    /// At most this: nearly all transactions are far from the limit and need no measuring.
    Guessed(usize),
    /// Exactly this.
    Measured(usize),
}

impl TransactionSize {
    /// Adds an event's; `before` are those that were added.
    fn add(
        &mut self,
        entity: &EntityRef,
        values: &Values,
        claims: &Values,
        before: &[Event],
    ) -> Result<(), Corrupt> {
        let measure = |entity: &EntityRef, values: &Values| {
            Ok(entity.size() + EVENT_BYTES + wire_size(values)? + wire_size(claims)?)
        };
        match self {
            Self::Measured(bytes) => *bytes += measure(entity, values)?,
            Self::Guessed(bytes) => {
                *bytes += (values.size() + claims.size()) * GROWTH + entity.size() + EVENT_BYTES;
                if self.is_too_large() {
                    let mut bytes = measure(entity, values)?;
                    for event in before {
                        bytes += measure(&event.entity, &event.values)?;
                    }
                    *self = Self::Measured(bytes);
                }
            }
        }
        Ok(())
    }

    fn is_too_large(&self) -> bool {
        let (Self::Guessed(bytes) | Self::Measured(bytes)) = self;
        *bytes > limits::TRANSACTION_BYTES
    }
}

/// An operation that there is no more room for in its transaction.
pub(crate) fn too_large(index: usize) -> Invalid {
    Invalid {
        field: format!("operations[{index}]").into(),
        problem: format!(
            "takes the transaction's events over {} bytes; split the transaction",
            limits::TRANSACTION_BYTES
        )
        .into(),
        reason: Reason::TransactionTooLarge,
    }
}

/// Refuses values that could be stored but would not fit one gRPC message. A Del is not checked: its event holds
/// the values that the entity has already.
fn fits_a_message(change: &Change) -> Result<(), Refusal> {
    // Nearly all values are far from it, and need no measuring.
    let is_small = change.values.size() <= VALUES_BYTES / GROWTH;
    if is_small || change.method == Method::Del {
        return Ok(());
    }
    let size = wire_size(&change.values)?;
    if size <= VALUES_BYTES {
        return Ok(());
    }
    let problem = format!("are {size} bytes as protobuf; at most {VALUES_BYTES} fit a message");
    Err(Invalid::too_large("values", problem).into())
}

struct Building<'a> {
    setting: &'a Setting<'a>,
    known: &'a States,
    changed: HashMap<EntityRef, State>,
    batch: Batch,
    bytes: usize,
    /// Keys of writes accepted into this batch.
    keys: HashMap<IdempotencyKey, (Digest, Range<usize>)>,
    time: Timestamp,
}

impl Building<'_> {
    /// Decides one write; `None` when it does not fit any more.
    fn outcome(
        &mut self,
        proposed: Proposed<'_>,
        replays: &HashMap<IdempotencyKey, Option<Replay>>,
    ) -> Option<Outcome> {
        // The key is looked up before preconditions (contract §3).
        if let Some((key, digest)) = &proposed.write.idempotency {
            if let Some(Some(replay)) = replays.get(key) {
                let same = replay.digest == *digest;
                return Some(if same {
                    Outcome::Replayed(replay.events.clone())
                } else {
                    Outcome::Refused(Refused::KeyReused)
                });
            }
            if let Some((first, range)) = self.keys.get(key) {
                let same = first == digest;
                return Some(if same {
                    Outcome::Copy(range.clone())
                } else {
                    Outcome::Refused(Refused::KeyReused)
                });
            }
        }
        let (events, states) = match self.decide(proposed) {
            Ok(decided) => decided,
            Err(refused) => return Some(Outcome::Refused(refused)),
        };
        let bytes: usize = events.iter().map(Event::size).sum();
        let full = self.batch.events.len() + events.len() > limits::BATCH_EVENTS
            || self.bytes + bytes > limits::BATCH_BYTES;
        if full && !self.batch.events.is_empty() {
            return None;
        }
        self.bytes += bytes;
        if let Some(last) = events.last() {
            self.time = last.time;
        }
        let start = self.batch.events.len();
        let range = start..start + events.len();
        if let (Some((key, digest)), Some(first)) = (&proposed.write.idempotency, events.first()) {
            self.batch.keys.push(KeyRecord {
                key: key.clone(),
                digest: *digest,
                first: first.position,
                count: u32::try_from(events.len()).unwrap_or(u32::MAX),
            });
            self.keys.insert(key.clone(), (*digest, range.clone()));
        }
        self.batch.events.extend(events);
        self.changed.extend(states);
        Some(Outcome::Accepted(range))
    }

    /// Decides all operations of a write, or none.
    fn decide(
        &self,
        Proposed { write, ids }: Proposed<'_>,
    ) -> Result<(Vec<Event>, HashMap<EntityRef, State>), Refused> {
        let absent = State::default();
        let mut states: HashMap<EntityRef, State> = HashMap::new();
        let mut events: Vec<Event> = Vec::with_capacity(write.operations.len());
        let mut time = self.time;
        let mut position = self
            .setting
            .head
            .position
            .plus(self.batch.events.len() as u64);
        let mut size = TransactionSize::Guessed(0);
        let transaction = write.operations.len() > 1;
        let claims = write.claims.values();
        for (index, (operation, id)) in write.operations.iter().zip(ids).enumerate() {
            let entity = &operation.entity;
            let refused = |refusal| Refused::Operation {
                index,
                entity: entity.clone(),
                refusal,
            };
            let state = states
                .get(entity)
                .or_else(|| self.changed.get(entity))
                .or_else(|| self.known.get(entity))
                .unwrap_or(&absent);
            let change = decide(
                state,
                &operation.expect,
                &operation.command,
                self.setting.limits,
            )
            .map_err(refused)?;
            fits_a_message(&change).map_err(refused)?;
            if transaction {
                size.add(entity, &change.values, claims, &events)
                    .map_err(|corrupt| refused(corrupt.into()))?;
            }
            if size.is_too_large() {
                return Err(refused(Refusal::Invalid(too_large(index))));
            }
            time = Timestamp::following(self.setting.now, time);
            position = position.next();
            states.insert(entity.clone(), change.state());
            events.push(Event {
                id: *id,
                entity: entity.clone(),
                values: change.values,
                version: change.version,
                lane: self.setting.lane,
                position,
                time,
                method: change.method,
                claims: write.claims.clone(),
                trace_parent: write.trace_parent.clone(),
            });
        }
        Ok((events, states))
    }
}
