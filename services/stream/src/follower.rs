//! Feeds the hub: believes the channel where a message continues what the hub has, and reads
//! everything else from the log.
//!
//! Messages of another log, another order or another history are not believed. A message that comes
//! early is held for a few milliseconds, since the one before it is probably on its way. In case the channel
//! is broken, the lane heads are read from the storage too: seldom while nothing is written or the channel
//! delivers messages, and often while new events are found by these reads alone.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::StreamExt as _;
use stategate_channel::{Carries, Channel, Events, Message, Notice, Subscription};
use stategate_metrics::Counter;
use stategate_model::{EventId, Lane, Position};
use stategate_protocol::{Encoded, decode_event};
use stategate_runtime::LogThrottle;
use stategate_storage::{Error, ReadLimit, Storage};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::hub::{Entry, Hub};

/// How much of the log is read at once.
pub(crate) const READ: ReadLimit = ReadLimit {
    events: 1_000,
    bytes: 4 << 20,
};
/// Between two looks at the lane heads while they alone tell of what is written: streams are that late,
/// and so few events come at once that no subscriber's queue overflows by them.
const OFTEN: Duration = Duration::from_millis(20);
/// How long an early message waits for those before it.
const PATIENCE: Duration = Duration::from_millis(5);
/// Most early messages held for a lane.
const EARLY: usize = 64;
/// Most bytes of them.
const EARLY_BYTES: usize = 16 << 20;
/// Pause before a channel that could not be subscribed to is tried again.
const RECONNECT: Duration = Duration::from_millis(500);

/// Feeds a hub until it is told to end.
pub(crate) struct Follower {
    hub: Arc<Hub>,
    storage: Arc<dyn Storage>,
    channel: Arc<dyn Channel>,
    schedule: PollSchedule,
    end: CancellationToken,
    lanes: Vec<Early>,
    /// Says when it is to be logged again that the log cannot be read.
    unreadable: LogThrottle,
    meters: Meters,
}

/// When the lane heads are looked at.
struct PollSchedule {
    /// The longest pause.
    seldom: Duration,
    /// The pause before the next.
    pause: Duration,
    next: Instant,
    /// Whether the channel said something since the last.
    is_told: bool,
}

impl PollSchedule {
    fn new(seldom: Duration) -> Self {
        Self {
            seldom,
            pause: seldom,
            next: Instant::now() + seldom,
            is_told: false,
        }
    }

    /// Chooses the pause after a look. If the channel delivered something since the last look, it works, and news
    /// that the look found would have come by it too: the pause is the longest. Otherwise it is short after news,
    /// and doubles while there are none.
    fn after(&mut self, found: Found) {
        let is_told = std::mem::take(&mut self.is_told);
        let pause = match found {
            _ if is_told => self.seldom,
            Found::News => OFTEN,
            Found::Nothing => self.pause * 2,
        };
        self.pause = pause.min(self.seldom);
        self.next = Instant::now() + self.pause;
    }
}

/// What a look at the lane heads came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// The log has what the hub did not.
    News,
    /// It has not, as far as is known.
    Nothing,
}

/// Messages of one lane that came before their time.
#[derive(Default)]
struct Early {
    messages: BTreeMap<Position, Arc<Message>>,
    bytes: usize,
    /// How far the lane goes, as they have it and those for which there was no room.
    furthest: Position,
    /// When the holes before them are read from the log.
    until: Option<Instant>,
}

struct Meters {
    believed: Counter,
    strays: Counter,
    holes: Counter,
    read: Counter,
}

impl Follower {
    pub(crate) fn new(
        hub: Arc<Hub>,
        storage: Arc<dyn Storage>,
        channel: Arc<dyn Channel>,
        look: Duration,
        end: CancellationToken,
    ) -> Self {
        let lanes = storage
            .info()
            .lanes
            .iter()
            .map(|_| Early::default())
            .collect();
        Self {
            hub,
            storage,
            channel,
            schedule: PollSchedule::new(look),
            end,
            lanes,
            unreadable: LogThrottle::default(),
            meters: Meters {
                believed: stategate_metrics::CHANNEL_EVENTS.get(),
                strays: stategate_metrics::CHANNEL_STRAYS.get(),
                holes: stategate_metrics::CHANNEL_HOLES.get(),
                read: stategate_metrics::TAIL_EVENTS_READ.get(),
            },
        }
    }

    /// Follows until the end.
    pub(crate) async fn run(mut self) {
        let end = self.end.clone();
        while !end.is_cancelled() {
            let mut subscription = tokio::select! {
                () = end.cancelled() => return,
                subscription = self.subscribe() => subscription,
            };
            #[cfg(feature = "faults")]
            stategate_faults::pass("follower");
            // What was written before the subscription was in force.
            self.look_at_heads().await;
            // A channel that reads the lane heads itself is not polled while there are no subscribers, so that it
            // does not read them. Any other channel is always polled, or its messages would pile up in its queue.
            let looks_itself = self.channel.info().carries == Carries::Heads;
            let mut listened_to = self.hub.listened_to();
            loop {
                if looks_itself {
                    tokio::select! {
                        () = end.cancelled() => return,
                        _ = listened_to.wait_for(|is_listened_to| *is_listened_to) => {}
                    }
                }
                let until = self.lanes.iter().filter_map(|lane| lane.until).min();
                let patience = async {
                    match until {
                        Some(until) => sleep_until(until).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = end.cancelled() => return,
                    notice = subscription.next() => match notice {
                        Some(Notice::Message(message)) => {
                            self.schedule.is_told = true;
                            self.take(message).await;
                        }
                        Some(Notice::Lagged) => {
                            self.look_at_heads().await;
                        }
                        None => break,
                    },
                    () = sleep_until(self.schedule.next) => {
                        let found = self.look_at_heads().await;
                        self.schedule.after(found);
                    }
                    () = patience => self.fill_holes().await,
                    _ = listened_to.changed(), if looks_itself => {}
                }
            }
        }
    }

    /// Listens to the channel, trying until it works; the heads are looked at meanwhile.
    async fn subscribe(&self) -> Subscription {
        loop {
            match self.channel.subscribe().await {
                Ok(subscription) => return subscription,
                Err(error) => {
                    tracing::warn!(%error, "cannot subscribe to the channel; reading the log meanwhile")
                }
            }
            self.look_at_heads().await;
            sleep(RECONNECT).await;
        }
    }

    async fn take(&mut self, message: Arc<Message>) {
        if self.hub.is_idle() {
            // Nobody listens; whoever comes starts from the log.
            return;
        }
        let info = self.storage.info();
        if message.log_id != info.log_id || !info.lanes.contains(message.lane) {
            self.meters.strays.increment(1);
            return;
        }
        let lane = message.lane;
        let (head, head_id) = self.hub.head(lane);
        if message.head() <= head {
            return;
        }
        if continues(&message, head, head_id) && !message.events.is_empty() {
            if !self.believe(&message) {
                self.meters.strays.increment(1);
                return self.catch_up(lane, message.head()).await;
            }
            return self.release(lane).await;
        }
        if message.events.is_empty() || message.first <= head.next() {
            // A bare head, or one whose predecessor is not what the hub has: the log decides.
            return self.catch_up(lane, message.head()).await;
        }
        let Some(early) = self.lanes.get_mut(lane.index()) else {
            return;
        };
        early.furthest = early.furthest.max(message.head());
        if early.messages.len() < EARLY && early.bytes + message.size() <= EARLY_BYTES {
            early.bytes += message.size();
            if let Some(replaced) = early.messages.insert(message.first, message) {
                early.bytes -= replaced.size();
            }
        }
        early.until.get_or_insert_with(|| Instant::now() + PATIENCE);
    }

    /// Adds a message's events to the hub, if they are what the message says they are.
    fn believe(&self, message: &Message) -> bool {
        let entries: Option<Vec<_>> = match &message.events {
            Events::Encoded(events) => {
                let entries = events.iter().map(|bytes| {
                    let event = decode_event(bytes.clone())?;
                    Some(Entry::new(event, Some(Encoded(bytes.clone()))))
                });
                entries.collect()
            }
            Events::Decoded(events) => {
                let entries = events.iter().map(|event| Entry::new(event.clone(), None));
                Some(entries.collect())
            }
        };
        let Some(entries) = entries else {
            return false;
        };
        let is_in_place = |(entry, offset): (&Entry, u64)| {
            let event = &entry.event;
            event.lane == message.lane && event.position == message.first.plus(offset)
        };
        if !entries.iter().zip(0..).all(is_in_place) {
            return false;
        }
        self.meters.believed.increment(entries.len() as u64);
        self.hub.extend(message.lane, entries);
        true
    }

    /// Takes early messages whose time has come.
    async fn release(&mut self, lane: Lane) {
        loop {
            let (head, head_id) = self.hub.head(lane);
            let Some(early) = self.lanes.get_mut(lane.index()) else {
                return;
            };
            let Some((first, message)) = early.messages.first_key_value() else {
                if early.furthest <= head {
                    *early = Early::default();
                }
                return;
            };
            if *first > head.next() {
                return;
            }
            let message = Arc::clone(message);
            early.messages.pop_first();
            early.bytes -= message.size();
            if message.head() <= head {
                continue;
            }
            if !(continues(&message, head, head_id) && self.believe(&message)) {
                self.meters.strays.increment(1);
                self.read(lane, Some(message.head())).await;
            }
        }
    }

    /// Reads the holes that nobody filled in time, all those of a lane at once.
    async fn fill_holes(&mut self) {
        let now = Instant::now();
        for lane in self.storage.info().lanes.iter() {
            let Some(early) = self.lanes.get(lane.index()) else {
                continue;
            };
            if early.until.is_none_or(|until| until > now) {
                continue;
            }
            self.meters.holes.increment(1);
            let is_read = self.read(lane, Some(early.furthest)).await;
            if is_read {
                self.release(lane).await;
            }
            let early = &mut self.lanes[lane.index()];
            if is_read {
                // The log was read after these came, so what it does not have was never written.
                self.meters.strays.increment(early.messages.len() as u64);
                *early = Early::default();
            } else {
                early.until = Some(Instant::now() + self.schedule.seldom);
            }
        }
    }

    async fn catch_up(&mut self, lane: Lane, head: Position) {
        self.read(lane, Some(head)).await;
        self.release(lane).await;
    }

    /// Reads a lane from the log up to `to`, or to its end; `false` if the log cannot be read. A
    /// message that promises more than the log has is not believed.
    async fn read(&self, lane: Lane, to: Option<Position>) -> bool {
        while !self.hub.is_idle() {
            let (head, _) = self.hub.head(lane);
            if to.is_some_and(|to| head >= to) {
                return true;
            }
            match self.storage.read_log(lane, head, READ).await {
                Ok(events) if events.is_empty() => return true,
                Ok(events) => {
                    self.meters.read.increment(events.len() as u64);
                    self.hub.extend(
                        lane,
                        events
                            .into_iter()
                            .map(|event| Entry::new(event, None))
                            .collect(),
                    );
                    if self.hub.head(lane).0 == head {
                        return true;
                    }
                }
                Err(error) => {
                    self.tell(&error, "cannot read the log; trying again");
                    return false;
                }
            }
        }
        true
    }

    fn tell(&self, error: &Error, what: &str) {
        if let Some(left_out) = self.unreadable.is_due() {
            tracing::warn!(%error, left_out, "{what}");
        }
    }

    async fn look_at_heads(&self) -> Found {
        if self.hub.is_idle() {
            return Found::Nothing;
        }
        #[cfg(feature = "faults")]
        stategate_faults::pass("follower-look");
        let restarts = self.hub.restarts();
        let heads = match self.storage.heads().await {
            Ok(heads) => heads,
            Err(error) => {
                self.tell(&error, "cannot read the lane heads; trying again");
                return Found::Nothing;
            }
        };
        // The hub is fed by this task alone, from what was committed before the heads were read; only
        // tails that started anew meanwhile, from younger heads, may be ahead of them.
        let back = heads
            .iter()
            .any(|(lane, head)| head < self.hub.head(lane).0);
        if back && restarts == self.hub.restarts() {
            tracing::error!("the log went back; ending every stream");
            self.hub.rewind(&heads);
            return Found::Nothing;
        }
        let mut found = Found::Nothing;
        for (lane, head) in heads.iter() {
            if head > self.hub.head(lane).0 {
                found = Found::News;
                self.read(lane, Some(head)).await;
            }
        }
        found
    }
}

/// Whether a message follows what the hub has: its place alone is not enough, for another history has
/// the same places.
fn continues(message: &Message, head: Position, head_id: Option<EventId>) -> bool {
    message.first == head.next() && head_id.is_some() && message.previous == head_id
}
