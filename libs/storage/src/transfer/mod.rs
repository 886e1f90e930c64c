//! Copying a log from one storage to another, whatever they are.
//!
//! What is copied is what the log is: events with their ids, times, versions, positions and claims, and
//! the idempotency keys. A plain copy has the log's identity too, so that clients' tokens stay good; one
//! that deals the lanes anew is another log. Either is decided by what the source holds alone, so a copy
//! that was interrupted is gone on with by beginning again: what is there already is compared, not
//! written.

mod deal;
mod digest;
mod sequence;

use std::sync::Arc;

use stategate_model::{Event, Heads, Lanes, LogId, Position, limits};

pub use self::sequence::{Scope, Sequence};
use self::{deal::Deal, digest::LogDigest};
use crate::{Appended, Batch, Error, ErrorKind, Identity, Info, KeyRecord, ReadLimit, Storage};

/// How often what was written to the source meanwhile is copied after it, before that is given up.
const ROUNDS: usize = 10;
/// Times that an append whose outcome is not known is repeated.
const REPEATS: usize = 3;

/// Why a copy was not made, or not ended.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The target is neither empty nor a part of this copy.
    #[error("the target {0}; a copy needs a target that is empty or a part of the same copy")]
    Target(String),
    /// The source is being written to.
    #[error("the source is being written to; {0}")]
    Busy(&'static str),
    /// The source is no log, for events are missing in it, doubled, moved or altered.
    #[error("the source is damaged: {0}; go back to a backup of it")]
    Damaged(String),
    /// What was read back differs.
    #[error("the copy differs from the source: {0}")]
    Differs(String),
    /// A storage failed.
    #[error("{side}: {error}")]
    Storage {
        /// Which of the two.
        side: Side,
        /// What it said.
        error: Error,
    },
}

/// One of the two storages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Where the log is.
    Source,
    /// Where it is copied to.
    Target,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Target => "target",
        })
    }
}

impl Side {
    fn failed(self) -> impl Fn(Error) -> TransferError {
        move |error| TransferError::Storage { side: self, error }
    }
}

/// The result of a step of a copy.
pub type Result<T> = std::result::Result<T, TransferError>;

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// Events of the source that it was done with.
    pub done: u64,
    /// Events of the source.
    pub total: u64,
}

/// What a copy is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Writing what the target lacks.
    Copying,
    /// Reading both sides back.
    Comparing,
}

/// What a copy came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// The log's identity on the target.
    pub identity: Identity,
    /// Events on the target.
    pub events: u64,
    /// How many of them this run wrote.
    pub written: u64,
    /// Idempotency keys on the target.
    pub keys: u64,
    /// SHA-256 over the log and the keys, as read back from both sides.
    pub digest: [u8; 32],
}

/// The identity that a copy of a log is made under: the log's own, or a fresh one where its lanes are
/// dealt anew.
pub fn identity(source: &Info, lanes: Lanes) -> Identity {
    let log_id = match lanes == source.lanes {
        true => source.log_id,
        false => LogId::random(),
    };
    Identity { log_id, lanes }
}

/// Copies the log of `source` to `target`, which was made by [`create_as`](crate::create_as) with an
/// [`identity`], or is such a copy already; `says` is told how far it is. Compares both at the end.
///
/// The source should not be written to meanwhile. A plain copy goes on with what was written, some
/// times; lanes are dealt anew from a source at rest alone.
pub async fn copy(
    source: &Arc<dyn Storage>,
    target: &Arc<dyn Storage>,
    says: &mut (dyn FnMut(Progress) + Send),
) -> Result<Copied> {
    let copier = Copier {
        source,
        target,
        is_plain: source.info().lanes == target.info().lanes,
    };
    copier.check_identity()?;
    let mut heads = copier.heads(Side::Source).await?;
    let mut written = 0;
    let mut rounds = 0;
    loop {
        written += copier.write(&heads, says).await?;
        let now = copier.heads(Side::Source).await?;
        if now == heads {
            break;
        }
        rounds += 1;
        if !copier.is_plain {
            return Err(TransferError::Busy(
                "end what writes to it, and copy to an empty target",
            ));
        }
        if rounds == ROUNDS {
            return Err(TransferError::Busy(
                "end what writes to it, and begin again: what was copied stays",
            ));
        }
        heads = now;
    }
    let (digest, keys) = copier.compare(&heads, says).await?;
    if copier.heads(Side::Source).await? != heads {
        return Err(TransferError::Busy(
            "end what writes to it, and begin again: what was copied stays",
        ));
    }
    // What was found there may be of an append that nobody has heard the end of.
    target.confirm().await.map_err(Side::Target.failed())?;
    Ok(Copied {
        identity: Identity {
            log_id: target.info().log_id,
            lanes: target.info().lanes,
        },
        events: sum(&heads),
        written,
        keys,
        digest,
    })
}

fn sum(heads: &Heads) -> u64 {
    heads.iter().map(|(_, position)| position.get()).sum()
}

/// What waits to be appended to a lane.
#[derive(Default)]
struct Pending {
    events: Vec<Event>,
    keys: Vec<KeyRecord>,
    bytes: usize,
}

impl Pending {
    fn has_room(&self, events: usize, bytes: usize) -> bool {
        self.events.is_empty()
            || self.events.len() + events <= limits::BATCH_EVENTS
                && self.bytes + bytes <= limits::BATCH_BYTES / 2
    }
}

struct Copier<'a> {
    source: &'a Arc<dyn Storage>,
    target: &'a Arc<dyn Storage>,
    /// Whether lanes stay what they are.
    is_plain: bool,
}

impl Copier<'_> {
    fn check_identity(&self) -> Result<()> {
        let (source, target) = (self.source.info(), self.target.info());
        if self.is_plain != (source.log_id == target.log_id) {
            return Err(TransferError::Target(format!(
                "holds another log ({} with {} lanes; the source is {} with {})",
                target.log_id,
                target.lanes.get(),
                source.log_id,
                source.lanes.get()
            )));
        }
        Ok(())
    }

    async fn heads(&self, side: Side) -> Result<Heads> {
        let storage = match side {
            Side::Source => self.source,
            Side::Target => self.target,
        };
        storage.heads().await.map_err(side.failed())
    }

    /// Everything of the source between these heads, dealt to the target's lanes.
    fn deal(&self, from: &Heads, to: &Heads) -> Deal {
        Deal::new(
            self.source,
            Side::Source,
            from,
            to,
            self.target.info().lanes,
        )
    }

    /// Writes what the target lacks of the source up to `heads`; answers how many events.
    async fn write(&self, heads: &Heads, says: &mut (dyn FnMut(Progress) + Send)) -> Result<u64> {
        let there = self.heads(Side::Target).await?;
        let beginning = Heads::beginning(self.source.info().lanes);
        // Of a plain copy the rest is known by its positions; lanes that are dealt anew are dealt from
        // the beginning, to find it.
        let from = match self.is_plain {
            true => &there,
            false => &beginning,
        };
        if self.is_plain {
            self.check_ends(&there, heads).await?;
        }
        let mut deal = self.deal(from, heads);
        let mut compared = Deal::new(
            self.target,
            Side::Target,
            &Heads::beginning(self.target.info().lanes),
            &there,
            self.target.info().lanes,
        );
        let (mut done, total) = (sum(from), sum(heads));
        let mut written = 0;
        let mut batches: Vec<Pending> = Vec::new();
        batches.resize_with(there.iter().count(), Pending::default);
        says(Progress {
            step: Step::Copying,
            done,
            total,
        });
        while let Some(group) = deal.next().await? {
            let before = done;
            done += group.events.len() as u64;
            if done / 1_000 > before / 1_000 {
                says(Progress {
                    step: Step::Copying,
                    done,
                    total,
                });
            }
            let (Some(first), Some(last)) = (group.events.first(), group.events.last()) else {
                continue;
            };
            let lane = last.lane;
            if last.position <= there.get(lane) {
                let same = compared.next_of(lane).await?;
                if same.as_ref() != Some(&group) {
                    return Err(other(first));
                }
                continue;
            }
            if first.position <= there.get(lane) {
                return Err(other(first));
            }
            let Some(batch) = batches.get_mut(lane.index()) else {
                return Err(other(first));
            };
            let bytes = group.events.iter().map(Event::size).sum::<usize>();
            if !batch.has_room(group.events.len(), bytes) {
                written += self.append(batch).await?;
            }
            batch.bytes += bytes;
            batch.events.extend(group.events);
            batch.keys.extend(group.key);
        }
        for batch in &mut batches {
            written += self.append(batch).await?;
        }
        let ends = deal.ends();
        if there.iter().any(|(lane, head)| head > ends.get(lane)) {
            return Err(TransferError::Target(
                "holds more than the source".to_owned(),
            ));
        }
        says(Progress {
            step: Step::Copying,
            done,
            total,
        });
        Ok(written)
    }

    /// Looks whether a plain copy ends where the source has the same event.
    async fn check_ends(&self, there: &Heads, heads: &Heads) -> Result<()> {
        const ONE: ReadLimit = ReadLimit {
            events: 1,
            bytes: 0,
        };
        for (lane, head) in there.iter().filter(|(_, head)| *head > Position::ZERO) {
            if head > heads.get(lane) {
                return Err(TransferError::Target(format!(
                    "holds {head} events in lane {lane}, and the source {}",
                    heads.get(lane)
                )));
            }
            let before = Position::new(head.get() - 1);
            let source = self.source.read_log(lane, before, ONE).await;
            let target = self.target.read_log(lane, before, ONE).await;
            let target = target.map_err(Side::Target.failed())?;
            if source.map_err(Side::Source.failed())? != target {
                return Err(target.first().map_or_else(
                    || TransferError::Target("lost its last event".to_owned()),
                    other,
                ));
            }
        }
        Ok(())
    }

    /// Appends a batch, and empties it; answers how many events it had.
    async fn append(&self, batch: &mut Pending) -> Result<u64> {
        let Some(first) = batch.events.first() else {
            return Ok(0);
        };
        let (lane, id, count) = (first.lane, first.id, batch.events.len() as u64);
        let expected = Position::new(first.position.get() - 1);
        let Pending { events, keys, .. } = std::mem::take(batch);
        let full = Arc::new(Batch { events, keys });
        let mut repeats = 0;
        loop {
            match self.target.append(lane, expected, Arc::clone(&full)).await {
                Ok(Appended::Done) => return Ok(count),
                Ok(Appended::HeadMoved) => {
                    // It may be this batch, of an append whose outcome was not known.
                    let limit = ReadLimit {
                        events: 1,
                        bytes: 0,
                    };
                    let there = self.target.read_log(lane, expected, limit).await;
                    let there = there.map_err(Side::Target.failed())?;
                    if repeats > 0 && there.first().is_some_and(|event| event.id == id) {
                        return Ok(count);
                    }
                    return Err(TransferError::Target("is being written to".to_owned()));
                }
                Err(error) if *error.kind() == ErrorKind::Unknown && repeats < REPEATS => {
                    repeats += 1
                }
                Err(error) => return Err(Side::Target.failed()(error)),
            }
        }
    }

    /// Reads both sides back; answers their digest and how many keys there are.
    async fn compare(
        &self,
        heads: &Heads,
        says: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<([u8; 32], u64)> {
        let lanes = self.target.info().lanes;
        let total = sum(heads) * 2;
        let mut done = 0;
        let mut digest = async |mut deal: Deal, mut sequence: Option<Sequence>| {
            let mut digest = LogDigest::new(lanes);
            while let Some(group) = deal.next().await? {
                let before = done;
                done += group.events.len() as u64;
                if done / 1_000 > before / 1_000 {
                    says(Progress {
                        step: Step::Comparing,
                        done,
                        total,
                    });
                }
                if let Some(sequence) = &mut sequence {
                    for event in &group.events {
                        sequence.take(event).map_err(|why| {
                            TransferError::Damaged(format!("an event of {} {why}", event.entity))
                        })?;
                    }
                }
                digest.take(&group);
            }
            Ok::<_, TransferError>(digest)
        };
        let beginning = Heads::beginning(self.source.info().lanes);
        // From the first event on; a target that compares equal is as whole.
        let sequence = Sequence::new(Scope::Whole(lanes));
        let expected = digest(self.deal(&beginning, heads), Some(sequence)).await?;
        let there = self.heads(Side::Target).await?;
        let beginning = Heads::beginning(lanes);
        let there = Deal::new(self.target, Side::Target, &beginning, &there, lanes);
        let found = digest(there, None).await?;
        let keys = found.keys();
        match expected.difference(&found) {
            None => Ok((found.finish(), keys)),
            Some(lane) => Err(TransferError::Differs(format!(
                "lane {lane} of the target was read back otherwise than it was written; copy to an empty target"
            ))),
        }
    }
}

fn other(event: &Event) -> TransferError {
    TransferError::Target(format!(
        "holds something else at position {} of lane {}",
        event.position, event.lane
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_that_stay_keep_the_identity() {
        let source = Info {
            provider: "memory",
            log_id: LogId::random(),
            lanes: Lanes::ONE,
            capabilities: crate::Capabilities {
                durable: false,
                shared: false,
            },
            is_local: false,
        };
        assert_eq!(identity(&source, Lanes::ONE).log_id, source.log_id);
        let eight = Lanes::new(8).expect("a number of lanes");
        assert_ne!(identity(&source, eight).log_id, source.log_id);
    }
}
