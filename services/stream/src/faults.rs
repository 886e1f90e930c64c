//! A channel that keeps its contract as badly as it may, for tests: it loses half, repeats, holds back,
//! and brings messages of another log and forged ones of this. In no release.
//!
//! It stands behind whatever a provider checks, so what it brings only the follower can refuse.

use std::{env, io::Write as _, sync::Arc};

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use stategate_channel::{Channel, Error, Events, Info, Message, Notice, Reach, Subscription};
use stategate_model::{Event, EventId, Lane, LogId, Position, Timestamp};
use stategate_protocol::{decode_event, encode_event};

/// Most messages held back at once.
const HELD: usize = 8;
/// How far ahead of the log a message from a time to come is.
const AHEAD: u64 = 1_000_000;

/// What is done to a message, or beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// It never comes.
    Lost,
    /// It comes twice.
    Repeated,
    /// It comes after later ones.
    HeldBack,
    /// Before it comes one that another log has in its place.
    Stranger,
    /// Before it comes one in its place, with another predecessor.
    Usurper,
    /// Before it comes one in its place, whose events belong elsewhere.
    Garbled,
    /// Before it comes one of a far future.
    Early,
}

/// Told of each trouble as it is made.
pub type Tell = Arc<dyn Fn(Trouble, &Message) + Send + Sync>;

/// The channel that `STATEGATE_TEST_CHANNEL` asks for: `lossy`, which writes a line
/// `trouble <what> <lane> <first> <last>` to standard error for each, or the one given.
pub(crate) fn wanted(channel: Arc<dyn Channel>) -> Arc<dyn Channel> {
    if !env::var("STATEGATE_TEST_CHANNEL").is_ok_and(|wanted| wanted == "lossy") {
        return channel;
    }
    let tell = |trouble: Trouble, message: &Message| {
        let what = format!("{trouble:?}").to_lowercase();
        let (lane, first, last) = (message.lane, message.first, message.head());
        // One write, so that lines do not mix.
        let line = format!("trouble {what} {lane} {first} {last}\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
    };
    Arc::new(Lossy::new(channel, Arc::new(tell)))
}

/// A channel and its troubles.
pub struct Lossy {
    channel: Arc<dyn Channel>,
    tell: Tell,
}

impl Lossy {
    /// Troubles whoever listens to a channel.
    pub fn new(channel: Arc<dyn Channel>, tell: Tell) -> Self {
        Self { channel, tell }
    }
}

impl std::fmt::Debug for Lossy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Lossy").field(&self.channel).finish()
    }
}

#[async_trait]
impl Channel for Lossy {
    fn info(&self) -> Info {
        self.channel.info()
    }

    fn publish(&self, message: Message) {
        self.channel.publish(message);
    }

    async fn subscribe(&self) -> Result<Subscription, Error> {
        let mut troubled = Troubled {
            tell: Arc::clone(&self.tell),
            rng: fastrand::Rng::new(),
            held: Vec::new(),
        };
        let notices = self.channel.subscribe().await?;
        let notices = notices.flat_map(move |notice| {
            stream::iter(match notice {
                Notice::Message(message) => troubled.pass(message),
                Notice::Lagged => vec![Notice::Lagged],
            })
        });
        Ok(Box::pin(notices))
    }

    fn reach(&self) -> Reach {
        self.channel.reach()
    }

    async fn close(&self) {
        self.channel.close().await;
    }
}

/// The way to one listener.
struct Troubled {
    tell: Tell,
    rng: fastrand::Rng,
    held: Vec<Notice>,
}

impl Troubled {
    /// What comes of a message.
    fn pass(&mut self, message: Arc<Message>) -> Vec<Notice> {
        let mut notices = Vec::new();
        // Whoever believed one of these would have no place left for the message itself.
        if self.rng.u8(..5) == 0 {
            let kinds = [
                Trouble::Stranger,
                Trouble::Usurper,
                Trouble::Garbled,
                Trouble::Early,
            ];
            let kind = kinds[self.rng.usize(..kinds.len())];
            if let Some(forged) = forged(&message, kind) {
                (self.tell)(kind, &message);
                notices.push(Notice::Message(Arc::new(forged)));
            }
        }
        if self.rng.bool() {
            (self.tell)(Trouble::Lost, &message);
            return notices;
        }
        if self.rng.u8(..5) == 0 {
            (self.tell)(Trouble::Repeated, &message);
            notices.push(Notice::Message(Arc::clone(&message)));
        }
        if self.rng.u8(..4) == 0 {
            (self.tell)(Trouble::HeldBack, &message);
            self.held.push(Notice::Message(message));
        } else {
            notices.push(Notice::Message(message));
        }
        if self.held.len() > self.rng.usize(..HELD) {
            self.rng.shuffle(&mut self.held);
            notices.append(&mut self.held);
        }
        notices
    }
}

/// A message that is believable but for what its kind says; `None` for a bare head.
fn forged(message: &Message, kind: Trouble) -> Option<Message> {
    let (mut log_id, mut previous, mut first) = (message.log_id, message.previous, message.first);
    let mut elsewhere = message.lane;
    match kind {
        Trouble::Stranger => log_id = LogId::random(),
        Trouble::Usurper => previous = Some(EventId::fresh(Timestamp(0))),
        // In the wrong place of their lane they would not continue the tail either.
        Trouble::Garbled => elsewhere = Lane(elsewhere.0 ^ 1),
        _ => first = Position::new(first.get() + AHEAD),
    }
    let moved = |(mut event, offset): (Event, u64)| {
        event.id = EventId::fresh(Timestamp(0));
        event.lane = elsewhere;
        event.position = first.plus(offset);
        event
    };
    let events = match &message.events {
        Events::Encoded(events) => {
            let decoded = events.iter().cloned().filter_map(decode_event);
            let moved = decoded.zip(0..).map(moved);
            let encoded = moved.filter_map(|event| Some(encode_event(&event).ok()?.0));
            Events::Encoded(encoded.collect())
        }
        Events::Decoded(events) => {
            Events::Decoded(events.iter().cloned().zip(0..).map(moved).collect())
        }
    };
    (!events.is_empty()).then_some(Message {
        log_id,
        lane: message.lane,
        first,
        previous,
        events,
    })
}
