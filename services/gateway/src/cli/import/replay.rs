//! Makes an exported history again, write for write.
//!
//! The events of a domain that stand together become transactions, since those keep the order and
//! cost one commit. Every operation is on condition of the version before it, so that a gateway which
//! has other changes of these entities refuses rather than mixes. The idempotency key of a transaction
//! is that of its place in the log it came from: a second run finds what the first one wrote.

use std::{
    collections::HashSet,
    io::BufRead as _,
    ops::ControlFlow,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
};

use serde_json::json;
use stategate_client::{
    Client, Condition, EntityRef, Error, Event, EventId, Kind, KindRef, Method, Outcome,
    SearchEvents, Transaction, Version,
};
use stategate_model::{Limits, Values, json as strict};
use tokio::sync::mpsc;

use super::{Input, READ_AHEAD, Tally, finished};
use crate::cli::{
    archive::{End, Header, Record},
    failure::{Exit, Failure},
    output::Output,
    signals, text,
};

/// Most operations of a transaction.
const OPERATIONS: usize = 500;
/// Most bytes of a transaction's values; the gateway takes 3 MiB of events.
const BYTES: usize = 1 << 20;

/// A line of the file.
enum Line {
    Event(Box<Past>),
    /// The export came to its end here.
    End,
}

/// An event as it once was.
struct Past {
    /// Where it stands in the file.
    line: u64,
    entity: EntityRef,
    method: Method,
    version: Version,
    values: Values,
    lane: u8,
    position: String,
}

/// Makes the events of a file again.
pub(super) async fn run(
    client: &Client,
    mut input: Input,
    size: Option<u64>,
    read: Arc<AtomicU64>,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut first = String::new();
    let taken = input
        .read_line(&mut first)
        .map_err(|error| Failure::failed(format!("line 1: {error}")))?;
    read.fetch_add(taken as u64, Ordering::Relaxed);
    let header =
        Header::parse(&first).map_err(|problem| Failure::failed(format!("line 1: {problem}")))?;
    let (send, lines) = mpsc::channel(READ_AHEAD);
    let reader = tokio::task::spawn_blocking({
        let read = Arc::clone(&read);
        move || {
            parse(input, &read, |line| match send.blocking_send(line) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            })
        }
    });
    let mut replay = Replay {
        client,
        header,
        tally: Tally::new("events", read, size),
        batch: Vec::new(),
        bytes: 0,
        on_its_way: 0,
        deleted: HashSet::new(),
    };
    let ended = tokio::select! {
        ended = replay.carry(lines) => ended,
        () = signals::stop() => Err(Failure::failed("interrupted; the same again goes on")),
    };
    // Sent, and given up before it was answered.
    replay.tally.left_open(replay.on_its_way);
    replay.tally.finish("exported history", None, output)?;
    output.flush()?;
    let is_whole = ended?;
    if let Some(failed) = finished(reader).await {
        return Err(failed);
    }
    if is_whole {
        return Ok(());
    }
    Err(Failure::failed(
        "the file ends before its export did, and all that is in it was imported; `stategate export --history --resume` completes it, and the same again goes on",
    ))
}

fn parse(
    mut input: Input,
    read: &AtomicU64,
    mut sink: impl FnMut(Line) -> ControlFlow<()>,
) -> Result<(), Failure> {
    let mut text = String::new();
    for number in 2.. {
        text.clear();
        let broken = |problem: String| Failure::failed(format!("line {number}: {problem}"));
        let taken = input
            .read_line(&mut text)
            .map_err(|error| broken(error.to_string()))?;
        if taken == 0 {
            break;
        }
        read.fetch_add(taken as u64, Ordering::Relaxed);
        // A line that was cut off is not one that is wrong.
        if !text.ends_with('\n') {
            break;
        }
        let line = match serde_json::from_str::<End>(&text) {
            Ok(_) => Line::End,
            Err(_) => Line::Event(Box::new(past(number, &text).map_err(broken)?)),
        };
        if sink(line).is_break() {
            break;
        }
    }
    Ok(())
}

fn past(line: u64, text: &str) -> Result<Past, String> {
    let record: Record<'_> = serde_json::from_str(text)
        .map_err(|error| format!("is no event of an exported history: {error}"))?;
    let entity = &record.entity;
    let values = strict::parse_object(entity.values.get())?;
    let limits = Limits {
        value_bytes: usize::MAX,
    };
    Ok(Past {
        line,
        values: Values::new(values, &limits).map_err(|invalid| invalid.to_string())?,
        method: Method::parse(&record.method)
            .ok_or_else(|| format!("has the method `{}`, which is none", record.method))?,
        version: record
            .version
            .parse()
            .map(Version::new)
            .map_err(|_| format!("has the version `{}`, which is no number", record.version))?,
        entity: EntityRef::new(&entity.domain, &entity.kind, &entity.key)
            .map_err(|invalid| invalid.to_string())?,
        lane: record.lane,
        position: record.position,
    })
}

struct Replay<'c> {
    client: &'c Client,
    header: Header,
    tally: Tally,
    batch: Vec<Past>,
    bytes: usize,
    /// Events that were sent, and of which it is not known what became of them.
    on_its_way: u64,
    /// Entities that are deleted at this point of the history.
    deleted: HashSet<EntityRef>,
}

impl Replay<'_> {
    /// Makes every event there is; whether the export had come to its end.
    async fn carry(&mut self, mut lines: mpsc::Receiver<Line>) -> Result<bool, Failure> {
        let mut is_whole = false;
        while let Some(line) = lines.recv().await {
            let Line::Event(past) = line else {
                is_whole = true;
                continue;
            };
            is_whole = false;
            let is_full = self.batch.len() >= OPERATIONS
                || self.bytes + past.values.size() > BYTES
                || self
                    .batch
                    .first()
                    .is_some_and(|first| first.entity.domain() != past.entity.domain());
            // What a revert goes back to must have been made.
            if is_full || past.method == Method::Revert {
                self.flush().await?;
            }
            self.bytes += past.values.size();
            self.batch.push(*past);
        }
        self.flush().await?;
        Ok(is_whole)
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        let conditions: Vec<_> = batch.iter().map(|past| self.condition(past)).collect();
        match self.make(&batch, &conditions).await {
            Ok(()) => Ok(()),
            // Part of it may be there: an export that was cut, or grew, is parted elsewhere.
            Err(Stopped::Call(error)) if is_mismatch(&error) => {
                for (past, condition) in batch.iter().zip(conditions) {
                    self.make_one(past, condition).await?;
                }
                Ok(())
            }
            Err(stopped) => Err(stopped.into()),
        }
    }

    /// What must hold of an entity for its history to go on with this event.
    fn condition(&mut self, past: &Past) -> Condition {
        let before = Version::new(past.version.get().saturating_sub(1));
        let is_absent = before == Version::ZERO || self.deleted.contains(&past.entity);
        if past.method == Method::Del {
            self.deleted.insert(past.entity.clone());
        } else if is_absent {
            self.deleted.remove(&past.entity);
        }
        if is_absent {
            Condition::Absent
        } else {
            Condition::Version(before)
        }
    }

    /// Makes events in one transaction.
    async fn make(&mut self, batch: &[Past], conditions: &[Condition]) -> Result<(), Stopped> {
        let Some(first) = batch.first() else {
            return Ok(());
        };
        let key = format!(
            "history-{}-{}-{}-{}",
            self.header.log_id,
            first.lane,
            first.position,
            batch.len()
        );
        let mut transaction = Transaction::new(first.entity.domain()).key(key);
        for (past, condition) in batch.iter().zip(conditions) {
            transaction = self.add(transaction, past, *condition).await?;
        }
        let count = batch.len() as u64;
        self.on_its_way = count;
        let done = self.client.transact(transaction).await;
        let outcome = done
            .as_ref()
            .map_or_else(Error::outcome, |_| Outcome::Written);
        if outcome != Outcome::MayBeWritten {
            self.on_its_way = 0;
        }
        if done.is_err() && outcome == Outcome::Written {
            self.tally.many_written(count, None, false)?;
        }
        let done = done?;
        // Counted first: whatever they came out as, they are there.
        self.tally
            .many_written(count, done.token.as_ref(), done.replayed)?;
        for (past, event) in batch.iter().zip(&done.events) {
            past.came_out_as(event)?;
        }
        Ok(())
    }

    /// Makes one event, if it is not there.
    async fn make_one(&mut self, past: &Past, condition: Condition) -> Result<(), Failure> {
        let there = self
            .client
            .event_of_version(&past.entity, past.version)
            .await;
        match there {
            Ok(event) => {
                past.came_out_as(&event)?;
                self.tally.many_written(1, None, true)
            }
            Err(error) if error.is_not_found() => {
                let made = self.make(std::slice::from_ref(past), &[condition]).await;
                match made {
                    Err(Stopped::Call(error)) if is_mismatch(&error) => {
                        Err(past.is_elsewhere(&error.to_string()))
                    }
                    made => Ok(made?),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn add(
        &self,
        transaction: Transaction,
        past: &Past,
        condition: Condition,
    ) -> Result<Transaction, Stopped> {
        let entity = &past.entity;
        let values = || past.values.object().cloned().unwrap_or_default();
        Ok(match past.method {
            Method::Set => transaction.set_if(condition, entity, values())?,
            // With all values: an edit takes none away, so those it did not name are as they were.
            Method::Edit => transaction.edit_if(condition, entity, values())?,
            Method::Del => transaction.del_if(condition, entity)?,
            Method::Revert => {
                let event = self.reverted_to(past).await?;
                transaction.revert_if(condition, entity, event)?
            }
        })
    }

    /// The event here that a revert goes back to: the earliest of the entity with the same values.
    async fn reverted_to(&self, past: &Past) -> Result<EventId, Stopped> {
        let of = KindRef::new(past.entity.domain(), past.entity.kind()).map_err(Error::from)?;
        let filter = json!({"entity.key": {"$eq": past.entity.key()}});
        let mut search = SearchEvents::new(&of).filter(&filter).limit(1_000);
        loop {
            let page = self.client.search_events(&search).await?;
            let found = page.items.iter().find(|event| {
                event.entity == past.entity
                    && event.version < past.version
                    && event.values == past.values
            });
            if let Some(event) = found {
                return Ok(event.id);
            }
            let Some(token) = page.next else {
                let why = "no earlier version has the values that it was reverted to";
                return Err(past.is_elsewhere(why).into());
            };
            search = search.page(token);
        }
    }
}

impl Past {
    /// Fails unless an event is this one again.
    fn came_out_as(&self, event: &Event) -> Result<(), Failure> {
        let is_same = event.version == self.version
            && event.method == self.method
            && event.values == self.values;
        if is_same {
            return Ok(());
        }
        Err(self.is_elsewhere(&format!(
            "version {} was made here by another change",
            self.version
        )))
    }

    fn is_elsewhere(&self, why: &str) -> Failure {
        Failure::new(
            Exit::Refused,
            format!(
                "line {}: {} cannot become version {} as in the history: {}; import into a gateway without these entities",
                self.line,
                text::plain(&self.entity.to_string()),
                self.version,
                text::plain(why)
            ),
        )
    }
}

/// Whether the entities are not as the history has them.
fn is_mismatch(error: &Error) -> bool {
    matches!(error.kind(), Kind::VersionMismatch { .. } | Kind::NotFound)
}

/// Why events could not be made.
enum Stopped {
    Call(Error),
    Failed(Failure),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Call(error) => error.into(),
            Stopped::Failed(failure) => failure,
        }
    }
}
