//! Reading a log in the order of its times, dealt to lanes.
//!
//! Lanes that stay what they are come out as they were. Otherwise the old lanes are merged in the order
//! of their times (at equal times, of their numbers) and dealt to the new ones, where positions count
//! from one again and a time that is not after the one before it becomes the least that is. The events
//! of one request with an idempotency key stay together, for the key stands for consecutive events.

use std::{collections::VecDeque, sync::Arc};

use stategate_model::{Event, Heads, Lane, Lanes, Position, Timestamp};

use super::{Result, Side, TransferError};
use crate::{KeyRecord, ReadLimit, Storage};

/// How much of a lane is read at once.
const READ: ReadLimit = ReadLimit {
    events: 1_000,
    bytes: 1 << 20,
};
/// How many keys are read at once: many, for a storage may have to look through all of them.
const KEYS: usize = 50_000;

/// Events that belong together, with the key they were asked for under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) events: Vec<Event>,
    pub(super) key: Option<KeyRecord>,
}

/// A log on its way to lanes.
pub(super) struct Deal {
    sources: Vec<Reader>,
    lanes: Lanes,
    /// The end of each new lane so far.
    ends: Vec<(Position, Timestamp)>,
}

impl Deal {
    /// What stands after `from` and not after `to`. Lanes that do not begin at the beginning stay what
    /// they are.
    pub(super) fn new(
        storage: &Arc<dyn Storage>,
        side: Side,
        from: &Heads,
        to: &Heads,
        lanes: Lanes,
    ) -> Self {
        let stays = storage.info().lanes == lanes;
        let start = |lane| match stays {
            true => from.get(lane),
            false => Position::ZERO,
        };
        Self {
            ends: lanes
                .iter()
                .map(|lane| (start(lane), Timestamp(i64::MIN)))
                .collect(),
            sources: to
                .iter()
                .map(|(lane, end)| Reader::new(storage, side, lane, from.get(lane), end))
                .collect(),
            lanes,
        }
    }

    /// The next group, as it stands in its new lane.
    pub(super) async fn next(&mut self) -> Result<Option<Group>> {
        let mut earliest: Option<(Timestamp, usize)> = None;
        for (index, source) in self.sources.iter_mut().enumerate() {
            if let Some(time) = source.time().await?
                && earliest.is_none_or(|(before, _)| time < before)
            {
                earliest = Some((time, index));
            }
        }
        let Some(source) = earliest.and_then(|(_, index)| self.sources.get_mut(index)) else {
            return Ok(None);
        };
        let group = source.group().await?;
        Ok(group.map(|group| self.place(group)))
    }

    /// The next group of a lane, of lanes that stay what they are.
    pub(super) async fn next_of(&mut self, lane: Lane) -> Result<Option<Group>> {
        match self.sources.get_mut(lane.index()) {
            Some(source) => source.group().await,
            None => Ok(None),
        }
    }

    /// Where the new lanes end so far.
    pub(super) fn ends(&self) -> Heads {
        Heads::new(self.ends.iter().map(|(position, _)| *position).collect())
    }

    fn place(&mut self, mut group: Group) -> Group {
        let mut first = None;
        for event in &mut group.events {
            event.lane = self.lanes.of(event.entity.domain());
            let Some((position, time)) = self.ends.get_mut(event.lane.index()) else {
                continue;
            };
            *position = position.next();
            *time = Timestamp::following(event.time, *time);
            (event.position, event.time) = (*position, *time);
            first.get_or_insert(event.position);
        }
        if let (Some(key), Some(first)) = (&mut group.key, first) {
            key.first = first;
        }
        group
    }
}

/// A lane that is read from one position to another.
struct Reader {
    storage: Arc<dyn Storage>,
    side: Side,
    lane: Lane,
    end: Position,
    events: VecDeque<Event>,
    read: Position,
    /// When the last event was that was read.
    time: Timestamp,
    keys: VecDeque<KeyRecord>,
    /// The event up to which the keys are read; `None` once all are.
    keys_read: Option<Position>,
}

impl Reader {
    fn new(
        storage: &Arc<dyn Storage>,
        side: Side,
        lane: Lane,
        from: Position,
        end: Position,
    ) -> Self {
        Self {
            storage: Arc::clone(storage),
            side,
            lane,
            end,
            events: VecDeque::new(),
            read: from,
            time: Timestamp(i64::MIN),
            keys: VecDeque::new(),
            keys_read: Some(from),
        }
    }

    /// The time of the next event.
    async fn time(&mut self) -> Result<Option<Timestamp>> {
        self.fill().await?;
        Ok(self.events.front().map(|event| event.time))
    }

    async fn fill(&mut self) -> Result<()> {
        if !self.events.is_empty() || self.read >= self.end {
            return Ok(());
        }
        let events = self.storage.read_log(self.lane, self.read, READ).await;
        let events = events.map_err(self.side.failed())?;
        for event in events {
            if self.read >= self.end {
                break;
            }
            self.is_next(&event)?;
            (self.read, self.time) = (event.position, event.time);
            self.events.push_back(event);
        }
        if self.events.is_empty() {
            return Err(self.missing());
        }
        Ok(())
    }

    /// Fails unless an event follows the last one that was read. Here, for its place in another lane is
    /// made to follow.
    fn is_next(&self, event: &Event) -> Result<()> {
        if event.position != self.read.next() {
            return Err(self.missing());
        }
        if event.time <= self.time {
            let (lane, position) = (self.lane, event.position);
            return Err(self.damaged(format!(
                "lane {lane} does not continue at position {position}: its time is not after that of the event before it"
            )));
        }
        Ok(())
    }

    fn missing(&self) -> TransferError {
        let (lane, next) = (self.lane, self.read.next());
        self.damaged(format!(
            "lane {lane} has no event at position {next}, and should have"
        ))
    }

    fn damaged(&self, what: String) -> TransferError {
        match self.side {
            Side::Source => TransferError::Damaged(what),
            Side::Target => TransferError::Target(format!("is damaged: {what}")),
        }
    }

    async fn next(&mut self) -> Result<Option<Event>> {
        self.fill().await?;
        Ok(self.events.pop_front())
    }

    async fn group(&mut self) -> Result<Option<Group>> {
        let Some(first) = self.next().await? else {
            return Ok(None);
        };
        let key = self.key_of(first.position).await?;
        let mut events = vec![first];
        let count = key.as_ref().map_or(1, |key| key.count as usize);
        while events.len() < count {
            match self.next().await? {
                Some(event) => events.push(event),
                None => break,
            }
        }
        Ok(Some(Group { events, key }))
    }

    /// The key that stands for the events from a position on.
    async fn key_of(&mut self, first: Position) -> Result<Option<KeyRecord>> {
        if let (true, Some(after)) = (self.keys.is_empty(), self.keys_read) {
            let read = self.storage.read_keys(self.lane, after, KEYS).await;
            let read = read.map_err(self.side.failed())?;
            self.keys_read = match read.len() {
                KEYS => read.last().map(|last| last.first),
                _ => None,
            };
            self.keys.extend(read);
        }
        // A key of no event that was read is found by its absence on the other side.
        while self.keys.front().is_some_and(|key| key.first < first) {
            self.keys.pop_front();
        }
        match self.keys.front() {
            Some(key) if key.first == first => Ok(self.keys.pop_front()),
            _ => Ok(None),
        }
    }
}
