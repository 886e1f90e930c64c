//! What was done and what came of it: writes as their clients saw them, and the log as it is.

use std::{fmt, time::Instant};

use stategate_model::{EntityRef, EventId, Lane, Method, Object, Position, Token};
use stategate_protocol::pb::{self, stream_opts::Start};
use tokio::time::timeout;
use uuid::Uuid;

use crate::{Clients, PATIENCE, clients::everything};

/// A write and what its client was told.
#[derive(Debug, Clone)]
pub struct Write {
    /// Names it in the log: the trace id it was sent with.
    pub id: Uuid,
    /// What it was to change.
    pub entity: EntityRef,
    /// How.
    pub what: What,
    /// The version it was conditional on.
    pub if_version: Option<u64>,
    /// Before it was sent.
    pub begun: Instant,
    /// After it was answered, or given up.
    pub ended: Instant,
    /// What the client was told.
    pub outcome: Outcome,
}

/// What a write does.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// Replaces the values.
    Set(Object),
    /// Overwrites some of them.
    Edit(Object),
    /// Removes them.
    Del,
    /// Sets them to those of an event.
    Revert(Uuid),
}

impl What {
    /// The method that events of it carry.
    pub fn method(&self) -> Method {
        match self {
            Self::Set(_) => Method::Set,
            Self::Edit(_) => Method::Edit,
            Self::Del => Method::Del,
            Self::Revert(_) => Method::Revert,
        }
    }
}

/// What the client of a write was told.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Written.
    Acknowledged {
        /// The entity's version after it.
        version: u64,
        /// Its place in the log.
        at: (Lane, u64),
        /// The values answered, where some are.
        values: Option<Object>,
    },
    /// Perhaps written.
    Unknown(String),
    /// Surely not written, for this reason.
    Refused(String),
}

impl Write {
    /// Whether its client was told that it is written.
    pub fn is_acknowledged(&self) -> bool {
        matches!(self.outcome, Outcome::Acknowledged { .. })
    }
}

/// An event as a client gets it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its id.
    pub id: Uuid,
    /// The write that made it, as it called itself.
    pub write: Option<Uuid>,
    /// What it changed.
    pub entity: EntityRef,
    /// How.
    pub method: Method,
    /// The values after it; for a Del before it.
    pub values: Object,
    /// Its lane.
    pub lane: Lane,
    /// Its place there.
    pub position: u64,
    /// The entity's version after it.
    pub version: u64,
    /// When, in nanoseconds.
    pub time: i64,
}

impl Event {
    /// Takes an event apart; fails on one that breaks the contract by itself.
    pub fn of(message: pb::Event) -> Self {
        let entity = message.entity.expect("an event has an entity");
        assert_eq!(entity.version, 0, "an event's entity has no version");
        assert!(message.claims.is_some(), "claims are always set");
        let unsigned = |number: i64| u64::try_from(number).expect("not negative");
        Self {
            id: EventId::parse(&message.id).expect("an event id").0,
            write: trace_id(&message.trace_parent),
            entity: EntityRef::new(&entity.domain, &entity.r#type, &entity.key).expect("a name"),
            method: Method::parse(&message.method).expect("a method"),
            values: entity.values.expect("values").into_object(),
            lane: Lane(u8::try_from(message.lane).expect("a lane")),
            position: unsigned(message.position),
            version: unsigned(message.version),
            time: message.time,
        }
    }
}

/// The `traceparent` header of a write with this id.
pub fn trace_parent(id: Uuid) -> String {
    format!("00-{}-00000000000000e2-01", id.simple())
}

fn trace_id(trace_parent: &str) -> Option<Uuid> {
    Uuid::try_parse(trace_parent.split('-').nth(1)?).ok()
}

/// The whole log, by lane.
#[derive(Clone)]
pub struct Log {
    /// Which log it is, and the heads of its lanes.
    pub heads: Token,
    /// Events of each lane, as they were delivered.
    pub lanes: Vec<Vec<Event>>,
}

impl Log {
    /// Reads everything there is, through a stream from the beginning.
    pub async fn read(clients: &Clients) -> Self {
        let heads = clients.heads().await;
        let start = everything(Some(Start::FromBeginning(true)));
        let (_, mut stream) = clients.stream(start).await.expect("subscribe");
        let count = heads.iter().map(|(lane, _)| lane.index() + 1).max();
        let mut lanes: Vec<Vec<Event>> = vec![Vec::new(); count.unwrap_or_default()];
        let is_whole = |lanes: &[Vec<Event>]| {
            heads.iter().all(|(lane, head)| {
                let last = lanes[lane.index()].last().map_or(0, |event| event.position);
                last >= head.get()
            })
        };
        while !is_whole(&lanes) {
            let next = timeout(PATIENCE, stream.message()).await;
            let reached = || lanes.iter().map(Vec::len).collect::<Vec<_>>();
            let next = next.unwrap_or_else(|_| {
                panic!(
                    "the stream stopped at {:?}, the heads are {heads}",
                    reached()
                )
            });
            let event = Event::of(next.expect("a stream that goes on").expect("another event"));
            lanes[event.lane.index()].push(event);
        }
        Self { heads, lanes }
    }

    /// All events, lane by lane.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.lanes.iter().flatten()
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.lanes.iter().map(Vec::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Events of a lane after a token.
    pub fn after<'a>(&'a self, token: &Token, lane: Lane) -> impl Iterator<Item = &'a Event> {
        let start = token.get(lane).unwrap_or(Position::ZERO).get();
        let events = self.lanes.get(lane.index()).into_iter().flatten();
        events.filter(move |event| event.position > start)
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Log({})", self.heads)
    }
}
