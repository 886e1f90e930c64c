//! The checker: compares what clients were told with the log, and the log with the present.
//!
//! It knows nothing of how the gateway works. What a Set, Edit, Del and Revert do is written down
//! here once more, naively.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    time::Instant,
};

use stategate_model::{EntityRef, Method, Object, Token};
use stategate_protocol::pb;
use tonic::Code;
use uuid::Uuid;

use crate::{
    Clients, Event, Log, Outcome, What, Write,
    clients::{request, version},
};

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing.
    pub kind: Kind,
    /// What exactly.
    pub what: String,
}

/// Kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An acknowledged write is not in the log, or not where its client was told.
    Lost,
    /// A write is in the log more than once.
    Twice,
    /// A write that was surely not written is in the log, or one that nobody sent.
    Ghost,
    /// Positions are not 1, 2, 3 …
    Position,
    /// Versions of an entity are not 1, 2, 3 …
    Version,
    /// Times do not increase.
    Time,
    /// An event is not what its write makes of what was there before.
    Values,
    /// Two writes are in the log in another order than they happened.
    Order,
    /// A condition did not hold when the write was accepted.
    Condition,
    /// The present is not the fold of the log.
    State,
    /// A search of events is not the log.
    Search,
    /// A stream left out, repeated or reordered something.
    Delivery,
    /// The gateway owned up to a bug.
    Internal,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.what)
    }
}

/// Fails with the first findings, if there are any.
pub fn assert_none(findings: &[Finding]) {
    let shown: Vec<String> = findings.iter().take(20).map(Finding::to_string).collect();
    let count = findings.len();
    assert!(
        findings.is_empty(),
        "{count} findings:\n{}",
        shown.join("\n")
    );
}

/// An entity as the log has it.
#[derive(Debug, Clone, Default, PartialEq)]
struct State {
    version: u64,
    values: Option<Object>,
}

/// Compares writes with the log, and the log with itself. The writes are all that there were.
pub fn history(writes: &[Write], log: &Log) -> Vec<Finding> {
    let mut checker = Checker::default();
    checker.places(log);
    let by_id: HashMap<Uuid, &Write> = writes.iter().map(|write| (write.id, write)).collect();
    assert_eq!(by_id.len(), writes.len(), "write ids are unique");
    checker.outcomes(writes, log);
    checker.contents(log, &by_id);
    checker.order(log, &by_id);
    checker.findings
}

/// Compares the present, as Search and Get have it, with the fold of the log.
pub async fn state(clients: &Clients, log: &Log) -> Vec<Finding> {
    let mut checker = Checker::default();
    let states = fold(log);
    let kinds: HashSet<(&str, &str)> = states.keys().map(|e| (e.domain(), e.kind())).collect();
    let mut found: HashMap<EntityRef, State> = HashMap::new();
    for (domain, kind) in kinds {
        let mut page_token = String::new();
        loop {
            let opts = pb::SearchEntityOpts {
                domain: domain.to_owned(),
                r#type: kind.to_owned(),
                limit: 1_000,
                page_token,
                ..pb::SearchEntityOpts::default()
            };
            let answer = clients.entities.clone().search(request(opts)).await;
            let page = answer.expect("search").into_inner();
            for entity in page.entities {
                let name = EntityRef::new(&entity.domain, &entity.r#type, &entity.key);
                let state = State {
                    version: entity.version.unsigned_abs(),
                    values: entity.values.map(stategate_protocol::Struct::into_object),
                };
                if found.insert(name.expect("a name"), state).is_some() {
                    checker.find(Kind::State, || {
                        format!("search answers {} twice", entity.key)
                    });
                }
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
    }
    for (entity, state) in &states {
        let searched = found.remove(entity);
        let expected = state.values.is_some().then(|| state.clone());
        if searched != expected {
            checker.find(Kind::State, || {
                format!("{entity} is {expected:?} in the log and {searched:?} in a search")
            });
        }
        let reference = pb::EntityRef {
            domain: entity.domain().to_owned(),
            r#type: entity.kind().to_owned(),
            key: entity.key().to_owned(),
            at: None,
        };
        let got = match clients.entities.clone().get(request(reference)).await {
            Ok(answer) => Some(State {
                version: version(answer.metadata()).expect("an etag"),
                values: answer
                    .into_inner()
                    .values
                    .map(|values| values.into_object()),
            }),
            Err(status) if status.code() == Code::NotFound => None,
            Err(status) => panic!("get {entity}: {status}"),
        };
        if got != expected {
            checker.find(Kind::State, || {
                format!("{entity} is {expected:?} in the log and {got:?} for a get")
            });
        }
    }
    for entity in found.keys() {
        checker.find(Kind::State, || format!("{entity} exists without an event"));
    }
    checker.findings
}

/// Compares searches of events, page by page, with the log.
pub async fn search(clients: &Clients, log: &Log) -> Vec<Finding> {
    let mut checker = Checker::default();
    let mut expected: HashMap<(&str, &str), Vec<&Event>> = HashMap::new();
    for event in log.events() {
        let of = (event.entity.domain(), event.entity.kind());
        expected.entry(of).or_default().push(event);
    }
    for ((domain, kind), events) in expected {
        let mut expected = events.into_iter();
        let mut page_token = String::new();
        loop {
            let opts = pb::SearchEventOpts {
                domain: domain.to_owned(),
                r#type: kind.to_owned(),
                limit: 10_000,
                page_token,
                ..pb::SearchEventOpts::default()
            };
            let answer = clients.events.clone().search(request(opts)).await;
            let page = answer.expect("search").into_inner();
            for event in page.events.into_iter().map(Event::of) {
                let expected = expected.next();
                if expected != Some(&event) {
                    checker.find(Kind::Search, || {
                        format!("found {event:?} where the log has {expected:?}")
                    });
                }
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let missing = expected.count();
        if missing > 0 {
            checker.find(Kind::Search, || {
                format!("a search of {domain}/{kind} misses the last {missing} events")
            });
        }
    }
    checker.findings
}

/// Everything above.
pub async fn everything(clients: &Clients, writes: &[Write], log: &Log) -> Vec<Finding> {
    let mut findings = history(writes, log);
    findings.extend(state(clients, log).await);
    findings.extend(search(clients, log).await);
    findings
}

/// How much of what is due a subscriber must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Everything.
    All,
    /// A beginning of each lane: the stream was cut.
    Beginning,
}

/// A delivered event, as far as it has to be remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// Its lane and place there.
    pub at: (stategate_model::Lane, u64),
    /// Its id.
    pub id: Uuid,
}

impl From<&Event> for Delivered {
    fn from(event: &Event) -> Self {
        Self {
            at: (event.lane, event.position),
            id: event.id,
        }
    }
}

/// Compares what a stream delivered after `start` with the log: each event that `matches` once, in
/// the order of its lane, and nothing else.
pub fn delivery(
    name: &str,
    delivered: &[Delivered],
    start: &Token,
    log: &Log,
    matches: &dyn Fn(&Event) -> bool,
    due: Due,
) -> Vec<Finding> {
    let mut checker = Checker::default();
    let mut by_lane: HashMap<u8, Vec<Delivered>> = HashMap::new();
    for event in delivered {
        by_lane.entry(event.at.0.0).or_default().push(*event);
    }
    for (lane, _) in log.heads.iter() {
        let mut got = by_lane.remove(&lane.0).unwrap_or_default().into_iter();
        for expected in log.after(start, lane).filter(|event| matches(event)) {
            let expected = Delivered::from(expected);
            match got.next() {
                Some(event) if event == expected => {}
                None if due == Due::Beginning => break,
                other => {
                    checker.find(Kind::Delivery, || {
                        format!("{name}: {other:?} where {expected:?} was due")
                    });
                    // The rest of the lane is out of step with the log.
                    got = Vec::new().into_iter();
                    break;
                }
            }
        }
        if let Some(event) = got.next() {
            checker.find(Kind::Delivery, || format!("{name}: {event:?} was not due"));
        }
    }
    for lane in by_lane.keys() {
        checker.find(Kind::Delivery, || {
            format!("{name}: events of the unknown lane {lane}")
        });
    }
    checker.findings
}

/// How many events after `start` match.
pub fn due(start: &Token, log: &Log, matches: &dyn Fn(&Event) -> bool) -> usize {
    let lanes = log.heads.iter();
    lanes
        .map(|(lane, _)| {
            log.after(start, lane)
                .filter(|event| matches(event))
                .count()
        })
        .sum()
}

fn fold(log: &Log) -> HashMap<EntityRef, State> {
    let mut states: HashMap<EntityRef, State> = HashMap::new();
    for event in log.events() {
        let values = (event.method != Method::Del).then(|| event.values.clone());
        let version = event.version;
        states.insert(event.entity.clone(), State { version, values });
    }
    states
}

#[derive(Default)]
struct Checker {
    findings: Vec<Finding>,
}

impl Checker {
    fn find(&mut self, kind: Kind, what: impl FnOnce() -> String) {
        // A log that is wrong throughout needs no complete list.
        if self.findings.len() < 1_000 {
            let what = what();
            self.findings.push(Finding { kind, what });
        }
    }

    /// Positions, versions and times go up one by one, one by one, and at all.
    fn places(&mut self, log: &Log) {
        let mut ids = HashSet::new();
        let mut versions: HashMap<&EntityRef, u64> = HashMap::new();
        for (lane, events) in (0..).zip(&log.lanes) {
            let mut time = 0;
            for (event, position) in events.iter().zip(1..) {
                if event.lane.0 != lane || event.position != position {
                    self.find(Kind::Position, || {
                        format!("{event:?} at place {position} of lane {lane}")
                    });
                }
                if event.time <= time {
                    self.find(Kind::Time, || format!("{event:?} is not after {time}"));
                }
                time = event.time;
                let version = versions.entry(&event.entity).or_default();
                *version += 1;
                if event.version != *version {
                    let expected = *version;
                    self.find(Kind::Version, || format!("{event:?} is change {expected}"));
                }
                if !ids.insert(event.id) {
                    self.find(Kind::Twice, || format!("{event:?} has the id of another"));
                }
            }
        }
    }

    /// Acknowledged: once, where the client was told. Refused: never. Unknown: at most once.
    fn outcomes(&mut self, writes: &[Write], log: &Log) {
        let mut by_write: HashMap<Uuid, Vec<&Event>> = HashMap::new();
        for event in log.events() {
            if let Some(write) = event.write {
                by_write.entry(write).or_default().push(event);
            }
        }
        for write in writes {
            let events = by_write.get(&write.id).map_or(&[][..], Vec::as_slice);
            if events.len() > 1 {
                self.find(Kind::Twice, || format!("{write:?} made {events:?}"));
            }
            match &write.outcome {
                Outcome::Acknowledged {
                    version,
                    at,
                    values,
                } => {
                    let Some(event) = events.first() else {
                        self.find(Kind::Lost, || format!("{write:?} is not in the log"));
                        continue;
                    };
                    if (event.version, (event.lane, event.position)) != (*version, *at) {
                        self.find(Kind::Lost, || format!("{write:?} is {event:?}"));
                    }
                    if values
                        .as_ref()
                        .is_some_and(|values| *values != event.values)
                    {
                        self.find(Kind::Values, || format!("{write:?} is {event:?}"));
                    }
                }
                Outcome::Refused(reason) => {
                    if !events.is_empty() {
                        self.find(Kind::Ghost, || format!("{write:?} made {events:?}"));
                    }
                    if reason == "INTERNAL" {
                        self.find(Kind::Internal, || format!("{write:?}"));
                    }
                }
                Outcome::Unknown(_) => {}
            }
        }
    }

    /// Each event is what its write makes of what was there before.
    fn contents(&mut self, log: &Log, writes: &HashMap<Uuid, &Write>) {
        let mut states: HashMap<&EntityRef, State> = HashMap::new();
        let mut by_id: HashMap<Uuid, &Event> = HashMap::new();
        for event in log.events() {
            by_id.insert(event.id, event);
            let state = states.entry(&event.entity).or_default();
            let before = std::mem::replace(
                state,
                State {
                    version: event.version,
                    values: (event.method != Method::Del).then(|| event.values.clone()),
                },
            );
            let Some(write) = event.write.and_then(|id| writes.get(&id)) else {
                self.find(Kind::Ghost, || format!("nobody wrote {event:?}"));
                continue;
            };
            if write.entity != event.entity || write.what.method() != event.method {
                self.find(Kind::Ghost, || format!("{write:?} made {event:?}"));
                continue;
            }
            let expected = match &write.what {
                What::Set(values) => Some(values.clone()),
                What::Edit(changes) => before.values.clone().map(|mut values| {
                    values.extend(changes.clone());
                    values
                }),
                What::Del => before.values.clone(),
                What::Revert(id) => {
                    let target = by_id.get(id).filter(|target| target.entity == event.entity);
                    target.map(|target| target.values.clone())
                }
            };
            if expected.as_ref() != Some(&event.values) {
                self.find(Kind::Values, || {
                    format!("{event:?} is not what {write:?} makes of {before:?}")
                });
            }
            let current = before.values.is_some().then_some(before.version);
            if write.if_version.is_some() && write.if_version != current {
                self.find(Kind::Condition, || {
                    format!("{write:?} was accepted at version {current:?}")
                });
            }
        }
    }

    /// A write that was answered before another was sent comes before it in their lane.
    fn order(&mut self, log: &Log, writes: &HashMap<Uuid, &Write>) {
        for events in &log.lanes {
            let mut earliest: Option<(Instant, &Event)> = None;
            for event in events.iter().rev() {
                let Some(write) = event.write.and_then(|id| writes.get(&id)) else {
                    continue;
                };
                if let Some((ended, later)) = earliest
                    && ended < write.begun
                {
                    self.find(Kind::Order, || {
                        format!("{later:?} was answered before {event:?} was asked for")
                    });
                }
                if write.is_acknowledged() && earliest.is_none_or(|(ended, _)| write.ended < ended)
                {
                    earliest = Some((write.ended, event));
                }
            }
        }
    }
}
