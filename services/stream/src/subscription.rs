//! One subscriber: a cursor that reads the shared tail while it keeps up, and the storage while it
//! does not. Whichever it reads, it passes each position once, in order.

use std::{sync::Arc, time::Duration};

use futures::{Stream, TryStreamExt as _, stream};
use stategate_api::{Delivery, Problem};
use stategate_model::{Heads, Lane, Position};
use stategate_storage::Storage;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::Permit,
    catchup::{ASK_AGAIN, Budget, Part, Reader},
    hub::{Attach, Entry, Hub, Slot, Subscriber, Taken},
};

/// Silence after which a subscriber that asked for it is told how far it is.
const PROGRESS: Duration = Duration::from_secs(10);
/// Most bytes that are taken at once, from the tail or from a page, and so held for a client that
/// does not read; one event may be larger. The rest stays where it can be dropped.
const PART: usize = 32 << 10;

/// What a subscription stands on.
pub(crate) struct Ground {
    pub(crate) hub: Arc<Hub>,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) end: CancellationToken,
}

/// A subscription in force.
pub(crate) struct Subscription {
    ground: Ground,
    subscriber: Arc<Subscriber>,
    reader: Reader,
    lanes: Vec<Lane>,
    /// How far each lane was passed.
    cursor: Heads,
    /// How far each lane was passed as the client knows it, from its start, its events and progress.
    told: Heads,
    epoch: u64,
    _permit: Permit,
    place: Place,
    /// Passed, and about to be delivered.
    ready: Vec<Delivery>,
    progress: bool,
    spoken: Instant,
    ended: bool,
}

enum Place {
    /// Reading the storage.
    Storage,
    /// On the tail.
    Tail(Slot),
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let slot = match self.place {
            Place::Tail(slot) => Some(slot),
            Place::Storage => None,
        };
        self.ground.hub.leave(slot);
    }
}

impl Subscription {
    /// A subscription that was counted in at `epoch`, from `cursor` on.
    pub(crate) fn new(
        ground: Ground,
        subscriber: Subscriber,
        lanes: Vec<Lane>,
        cursor: Heads,
        epoch: u64,
        permit: Permit,
        progress: bool,
    ) -> Self {
        let subscriber = Arc::new(subscriber);
        let reader = Reader::new(
            Arc::clone(&ground.budget),
            Arc::clone(&ground.storage),
            Arc::clone(&subscriber),
        );
        Self {
            ground,
            subscriber,
            reader,
            lanes,
            told: cursor.clone(),
            cursor,
            epoch,
            _permit: permit,
            place: Place::Storage,
            ready: Vec::new(),
            progress,
            spoken: Instant::now(),
            ended: false,
        }
    }

    /// What is to be sent.
    pub(crate) fn into_stream(self) -> impl Stream<Item = Result<Delivery, Problem>> + Send {
        let parts = stream::unfold(self, |mut subscription| async move {
            if subscription.ended {
                return None;
            }
            let part = subscription.next().await;
            subscription.ended = part.is_err();
            let part = part.map(|ready| stream::iter(ready.into_iter().map(Ok)));
            Some((part, subscription))
        });
        parts.try_flatten()
    }

    /// Some events, in order; at least one.
    async fn next(&mut self) -> Result<Vec<Delivery>, Problem> {
        loop {
            if !self.ready.is_empty() {
                self.spoken = Instant::now();
                return Ok(std::mem::take(&mut self.ready));
            }
            if self.ground.end.is_cancelled() {
                return Err(Problem::ShuttingDown);
            }
            if self.ground.hub.epoch() != self.epoch {
                return Err(Problem::LogRewound);
            }
            if self.progress && self.spoken.elapsed() >= PROGRESS {
                self.say_progress();
                continue;
            }
            match self.place {
                Place::Storage => match self.reader.take(PART) {
                    Some(part) => self.pass_part(part),
                    None => self.approach().await?,
                },
                Place::Tail(_) => match self.subscriber.take(PART) {
                    Taken::Nothing => self.wait().await,
                    Taken::Left(entry) => self.pass_selected(&entry)?,
                    Taken::Offered(entries) => {
                        for entry in entries {
                            self.pass(&entry)?;
                        }
                    }
                    // Detached by the hub, which forgot the slot.
                    Taken::FellBehind => self.place = Place::Storage,
                },
            }
        }
    }

    /// Waits until something is queued, or there is something else to say.
    async fn wait(&self) {
        let silence = async {
            if self.progress {
                sleep_until(self.spoken + PROGRESS).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = self.subscriber.changed.notified() => {}
            () = self.ground.end.cancelled() => {}
            () = silence => {}
        }
    }

    /// Comes closer to the tail, or attaches to it.
    async fn approach(&mut self) -> Result<(), Problem> {
        match self
            .ground
            .hub
            .attach(&self.subscriber, &self.lanes, &self.cursor, PART)
        {
            Attach::Attached(slot) => {
                self.place = Place::Tail(slot);
                Ok(())
            }
            Attach::ReadOn(entries) => entries
                .iter()
                .try_for_each(|entry| self.pass_selected(entry)),
            Attach::Behind(lane) => self.read(lane).await,
        }
    }

    /// Passes an event of the tail that may not be wanted.
    fn pass_selected(&mut self, entry: &Entry) -> Result<(), Problem> {
        let selected = self.subscriber.selection.matches(&entry.event);
        if selected.map_err(|corrupt| Problem::internal(&corrupt))? {
            return self.pass(entry);
        }
        self.move_to(entry.event.lane, entry.event.position);
        Ok(())
    }

    /// Passes an event that is to be delivered, unless it was passed before.
    fn pass(&mut self, entry: &Entry) -> Result<(), Problem> {
        let (lane, position) = (entry.event.lane, entry.event.position);
        if self.move_to(lane, position) {
            let delivery = self
                .subscriber
                .deliver(&entry.event, || entry.encoded())
                .map_err(|corrupt| Problem::internal(&corrupt))?;
            if let Some(delivery) = delivery {
                self.deliver(lane, position, delivery);
            }
        }
        Ok(())
    }

    /// Passes what was read of the storage.
    fn pass_part(&mut self, part: Part) {
        for (position, delivery) in part.events {
            if self.move_to(part.lane, position) {
                self.deliver(part.lane, position, delivery);
            }
        }
        self.move_to(part.lane, part.reached);
    }

    fn deliver(&mut self, lane: Lane, position: Position, delivery: Delivery) {
        self.told.set(lane, position);
        self.ready.push(delivery);
    }

    /// Moves the cursor to a position; `false` if it is there already.
    fn move_to(&mut self, lane: Lane, position: Position) -> bool {
        let ahead = position > self.cursor.get(lane);
        if ahead {
            self.cursor.set(lane, position);
        }
        ahead
    }

    /// Reads a page of a lane from the storage.
    async fn read(&mut self, lane: Lane) -> Result<(), Problem> {
        let after = self.cursor.get(lane);
        let part = tokio::select! {
            () = self.ground.end.cancelled() => return Err(Problem::ShuttingDown),
            read = self.reader.read(lane, after, PART) => read?,
        };
        match part {
            Some(part) => self.pass_part(part),
            // The tail has what the log does not: the log went back, and the follower is about to see it.
            None => sleep(ASK_AGAIN).await,
        }
        Ok(())
    }

    /// Says how far the subscriber is: every lane that is further than the client knows, or one of
    /// them at least.
    fn say_progress(&mut self) {
        if let (Place::Tail(_), Some(seen)) = (&self.place, self.ground.hub.seen(&self.subscriber))
        {
            for lane in &self.lanes {
                if seen.get(*lane) > self.cursor.get(*lane) {
                    self.cursor.set(*lane, seen.get(*lane));
                }
            }
        }
        let news = self
            .lanes
            .iter()
            .filter(|lane| self.cursor.get(**lane) != self.told.get(**lane));
        let mut news: Vec<Lane> = news.copied().collect();
        if news.is_empty() {
            news.extend(self.lanes.first());
        }
        for lane in news {
            let position = self.cursor.get(lane);
            self.told.set(lane, position);
            self.ready.push(Delivery::progress(lane, position));
        }
        self.spoken = Instant::now();
    }
}
