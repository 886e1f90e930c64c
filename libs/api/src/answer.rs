//! Answers, in the model's types.

use bytes::Bytes;
use futures::stream::BoxStream;
use stategate_model::{
    Cursor, EntityRef, Event, EventId, Lane, Page, Position, Sort, SortKey, Tie, Token, Values,
    Version, value::Corrupt,
};

use crate::{Problem, page_token::Binding};

/// What a call is answered with, and what is said of it beside (contract §3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// The answer itself.
    pub value: T,
    /// What the answer reflects, or where the write was put.
    pub position: Option<Token>,
    /// The version of the one entity that was read or written.
    pub version: Option<Version>,
    /// It is the answer to an earlier copy of the request, and nothing was written now.
    pub replayed: bool,
}

impl<T> Answer<T> {
    /// An answer that reflects the log up to a position.
    pub fn at(value: T, position: Token) -> Self {
        Self {
            value,
            position: Some(position),
            version: None,
            replayed: false,
        }
    }

    /// The same of another value.
    pub fn map<U>(self, of: impl FnOnce(T) -> U) -> Answer<U> {
        Answer {
            value: of(self.value),
            position: self.position,
            version: self.version,
            replayed: self.replayed,
        }
    }
}

/// An entity as it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// Which entity.
    pub entity: EntityRef,
    /// Its values.
    pub values: Values,
    /// Its version, where it was read; an answer to a write has it in [`Answer::version`].
    pub version: Option<Version>,
}

/// A page of entities.
#[derive(Debug)]
pub struct EntityPage {
    page: Page<Entity>,
    sort: Option<Sort>,
    binding: Binding,
}

/// A page of events.
#[derive(Debug)]
pub struct EventPage {
    page: Page<Event>,
    sort: Option<Sort>,
    binding: Binding,
}

impl EntityPage {
    /// What a search in this order, of this binding, found.
    pub fn new(page: Page<Entity>, sort: Option<Sort>, binding: Binding) -> Self {
        Self {
            page,
            sort,
            binding,
        }
    }

    /// The entities, in the order asked for.
    pub fn items(&self) -> &[Entity] {
        &self.page.items
    }

    /// The token of the page that follows the first `count` entities; `None` where nothing does.
    ///
    /// An adapter whose message would be too large with all of them sends fewer.
    pub fn next(&self, count: usize) -> Result<Option<String>, Corrupt> {
        next(&self.page, count, &self.binding, |last| {
            let key = match &self.sort {
                Some(sort) => Some(SortKey::of_values(&sort.path, last.values.object()?)),
                None => None,
            };
            let tie = Tie::Key(last.entity.key().to_owned());
            Ok(Cursor { key, tie })
        })
    }
}

impl EventPage {
    /// What a search in this order, of this binding, found.
    pub fn new(page: Page<Event>, sort: Option<Sort>, binding: Binding) -> Self {
        Self {
            page,
            sort,
            binding,
        }
    }

    /// The events, in the order asked for.
    pub fn items(&self) -> &[Event] {
        &self.page.items
    }

    /// As [`EntityPage::next`].
    pub fn next(&self, count: usize) -> Result<Option<String>, Corrupt> {
        next(&self.page, count, &self.binding, |last| {
            let key = match &self.sort {
                Some(sort) => Some(SortKey::of_event(&sort.path, last)?),
                None => None,
            };
            let tie = Tie::Place(last.lane, last.position);
            Ok(Cursor { key, tie })
        })
    }
}

fn next<T>(
    page: &Page<T>,
    count: usize,
    binding: &Binding,
    cursor: impl FnOnce(&T) -> Result<Cursor, Corrupt>,
) -> Result<Option<String>, Corrupt> {
    let last = count.checked_sub(1).and_then(|last| page.items.get(last));
    match last {
        Some(last) if count < page.items.len() => Ok(Some(binding.token(&cursor(last)?))),
        _ => Ok(page.next.as_ref().map(|next| binding.token(next))),
    }
}

/// A subscription in force.
pub struct Subscription {
    /// What it is sent. Its end is a normal end; a problem is the last item.
    pub deliveries: BoxStream<'static, Result<Delivery, Problem>>,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Subscription")
    }
}

/// What a subscriber is sent.
///
/// A new event gets here only through [`Gate::deliver`](crate::access::Gate::deliver), which has the
/// policy decide; [`Pass::deliver`] repeats one that was decided on before.
#[derive(Debug, Clone)]
pub struct Delivery(pub(crate) Sent);

/// What is in a delivery.
#[derive(Debug, Clone)]
pub enum Sent {
    /// An event.
    Event {
        /// Where it is …
        lane: Lane,
        /// … in the log.
        position: Position,
        /// Its id.
        id: EventId,
        /// It, as a `stategate.Event`: encoded once, however many get it.
        encoded: Bytes,
    },
    /// The first bytes of a large event. Nothing but the rest of it comes next.
    First {
        /// Bytes of the whole event.
        length: usize,
        /// Its first bytes.
        bytes: Bytes,
    },
    /// More bytes of the event that was begun.
    More(Bytes),
    /// How far a lane was read for the subscriber, where nothing in it was for it.
    Progress(Lane, Position),
}

/// Proof that the policy let a subscriber see one event, so that the rest of a large event that was sent in part
/// can follow without a second decision. Only [`Delivery::pass`] makes one.
#[derive(Debug, Clone)]
pub struct Pass {
    lane: Lane,
    position: Position,
    id: EventId,
}

impl Pass {
    /// The id of the event.
    pub fn id(&self) -> EventId {
        self.id
    }

    /// The lane of the event.
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// Where it is in its lane.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The event as it is sent; `None` if it is another.
    pub fn deliver(
        &self,
        event: &Event,
        encode: impl FnOnce() -> Result<Bytes, Corrupt>,
    ) -> Result<Option<Delivery>, Corrupt> {
        let (lane, position, id) = (self.lane, self.position, self.id);
        if (event.lane, event.position, event.id) != (lane, position, id) {
            return Ok(None);
        }
        Ok(Some(Delivery(Sent::Event {
            lane,
            position,
            id,
            encoded: encode()?,
        })))
    }
}

impl Delivery {
    /// How far a lane was read.
    pub fn progress(lane: Lane, position: Position) -> Self {
        Self(Sent::Progress(lane, position))
    }

    /// What is in it.
    pub fn sent(&self) -> &Sent {
        &self.0
    }

    /// The bytes of a whole event; none of anything else.
    pub fn encoded(&self) -> &[u8] {
        match &self.0 {
            Sent::Event { encoded, .. } => encoded,
            Sent::First { .. } | Sent::More(_) | Sent::Progress(..) => &[],
        }
    }

    /// A copy of some bytes of a whole event: `most` at most, from one on.
    #[must_use]
    pub fn piece(&self, from: usize, most: usize) -> Self {
        let encoded = self.encoded();
        let rest = encoded.get(from..).unwrap_or_default();
        let bytes = Bytes::copy_from_slice(rest.get(..most).unwrap_or(rest));
        Self(match from {
            0 => Sent::First {
                length: encoded.len(),
                bytes,
            },
            _ => Sent::More(bytes),
        })
    }

    /// What lets a whole event be delivered again; `None` for anything else.
    pub fn pass(&self) -> Option<Pass> {
        match self.0 {
            Sent::Event {
                lane, position, id, ..
            } => Some(Pass { lane, position, id }),
            Sent::First { .. } | Sent::More(_) | Sent::Progress(..) => None,
        }
    }

    /// The same, to be sent.
    pub fn into_sent(self) -> Sent {
        self.0
    }
}
