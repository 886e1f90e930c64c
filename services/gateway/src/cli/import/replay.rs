//! Makes an exported history again, write for write.
//!
//! The events of a domain that stand together become transactions, since those keep the order and
//! cost one commit. Every operation is on condition of the version before it, so that a gateway which
//! has other changes of these entities refuses rather than mixes. The idempotency key of a transaction
//! is that of its place in the log it came from: a second run finds what the first one wrote.

use std::{collections::HashSet, pin::Pin};

use serde_json::json;
use stategate_client::{
    Client, Condition, EntityRef, Error, ErrorKind, Event, EventId, KindRef, Method, Outcome,
    SearchEvents, Transaction, Version,
};
use tokio::sync::{mpsc, oneshot};

use super::{READ_AHEAD, Tally, finished};
use crate::cli::{
    archive::{Item, Reader},
    failure::{Exit, Failure},
    input::Opened,
    output::Output,
    text,
};

/// Most operations of a transaction.
const OPERATIONS: usize = 500;
/// Most bytes of a transaction's values; the gateway takes 3 MiB of events.
const BYTES: usize = 1 << 20;

/// An event as it once was.
struct Past {
    /// Where it stands in the file.
    line: u64,
    event: Event,
}

/// Makes the events of a file again.
pub(super) async fn run(
    client: &Client,
    opened: Opened,
    stop: Pin<&mut impl Future<Output = ()>>,
    output: &mut Output,
) -> Result<(), Failure> {
    let Opened {
        text, size, read, ..
    } = opened;
    let (send, mut items) = mpsc::channel(READ_AHEAD);
    let (tell, told) = oneshot::channel();
    let reader = tokio::task::spawn_blocking(move || {
        let Some(mut reader) = Reader::begin(text, "")? else {
            return Ok(());
        };
        // Whoever does not hear it has ended.
        let _ = tell.send(reader.header().clone());
        while let Some(item) = reader.next()? {
            if send.blocking_send(item).is_err() {
                break;
            }
        }
        Ok(())
    });
    let mut replay = Replay {
        client,
        log_id: String::new(),
        tally: Tally::new("events", read, size),
        batch: Vec::new(),
        bytes: 0,
        on_its_way: 0,
        deleted: HashSet::new(),
    };
    let ended = tokio::select! {
        ended = async {
            if let Ok(header) = told.await {
                replay.log_id = header.log_id;
            }
            replay.carry(&mut items).await
        } => ended,
        () = stop => Err(Failure::failed("interrupted; the same again goes on")),
    };
    // Sent, and given up before it was answered.
    replay.tally.left_open(replay.on_its_way);
    // Nor does it matter to how it ended whether anybody reads the counts.
    let told = replay.tally.finish("exported history", None, output);
    let told = told.and_then(|()| output.flush());
    let is_whole = ended?;
    if let Some(failed) = finished(reader).await {
        return Err(failed);
    }
    if is_whole {
        return told;
    }
    Err(Failure::failed(
        "the file ends before its export did, and all that is in it was imported; `stategate export --history --resume` completes it, and the same again goes on",
    ))
}

struct Replay<'c> {
    client: &'c Client,
    log_id: String,
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
    async fn carry(&mut self, items: &mut mpsc::Receiver<(u64, Item)>) -> Result<bool, Failure> {
        let mut is_whole = false;
        while let Some((line, item)) = items.recv().await {
            let Item::Event(event) = item else {
                is_whole = true;
                continue;
            };
            is_whole = false;
            let past = Past {
                line,
                event: *event,
            };
            let is_full = self.batch.len() >= OPERATIONS
                || self.bytes + past.event.values.size() > BYTES
                || self
                    .batch
                    .first()
                    .is_some_and(|first| first.event.entity.domain() != past.event.entity.domain());
            // What a revert goes back to must have been made.
            if is_full || past.event.method == Method::Revert {
                self.flush().await?;
            }
            self.bytes += past.event.values.size();
            self.batch.push(past);
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
        let before = Version::new(past.event.version.get().saturating_sub(1));
        let is_absent = before == Version::ZERO || self.deleted.contains(&past.event.entity);
        if past.event.method == Method::Del {
            self.deleted.insert(past.event.entity.clone());
        } else if is_absent {
            self.deleted.remove(&past.event.entity);
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
            self.log_id,
            first.event.lane,
            first.event.position,
            batch.len()
        );
        let mut transaction = Transaction::new(first.event.entity.domain()).key(key);
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
            .event_of_version(&past.event.entity, past.event.version)
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
        let entity = &past.event.entity;
        let values = || past.event.values.object().cloned().unwrap_or_default();
        Ok(match past.event.method {
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
        let of = KindRef::new(past.event.entity.domain(), past.event.entity.kind())
            .map_err(Error::from)?;
        let filter = json!({"entity.key": {"$eq": past.event.entity.key()}});
        let mut search = SearchEvents::new(&of).filter(&filter).limit(1_000);
        loop {
            let page = self.client.search_events(&search).await?;
            let found = page.items.iter().find(|event| {
                event.entity == past.event.entity
                    && event.version < past.event.version
                    && event.values == past.event.values
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
        let is_same = event.version == self.event.version
            && event.method == self.event.method
            && event.values == self.event.values;
        if is_same {
            return Ok(());
        }
        Err(self.is_elsewhere(&format!(
            "version {} was made here by another change",
            self.event.version
        )))
    }

    fn is_elsewhere(&self, why: &str) -> Failure {
        Failure::new(
            Exit::Refused,
            format!(
                "line {}: {} cannot become version {} as in the history: {}; import into a gateway without these entities",
                self.line,
                text::plain(&self.event.entity.to_string()),
                self.event.version,
                text::plain(why)
            ),
        )
    }
}

/// Whether the entities are not as the history has them.
fn is_mismatch(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::VersionMismatch { .. } | ErrorKind::NotFound
    )
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
