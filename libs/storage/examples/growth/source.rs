//! What is written: one entity of a fixed type in twenty events, and entities of a growing type.

use std::sync::Arc;

use stategate_model::{
    Claims, EntityRef, Event, EventId, Lane, Lanes, Method, Position, Timestamp, Values, Version,
};
use stategate_storage::Batch;

use crate::Outcome;

/// The domain of everything.
pub(crate) const DOMAIN: &str = "shop";
/// The type of which there are always [`FIXED`] entities, and the one that grows.
pub(crate) const CUSTOMER: &str = "customer";
pub(crate) const ORDER: &str = "order";
/// Entities of the fixed type.
pub(crate) const FIXED: usize = 2_000;
/// One event in so many is one of theirs.
const FIXED_SHARE: u64 = 20;
const BEGINNING: i64 = 1_700_000_000_000_000_000;
/// Nanoseconds from one event to the next.
const PACE: i64 = 1_000;

/// Makes batches that continue each other, the same in every run but for the ids.
pub(crate) struct Source {
    lane: Lane,
    head: u64,
    customers: Vec<u64>,
    orders: Vec<u64>,
    seed: u64,
}

impl Source {
    /// When all entities of the fixed type were there.
    pub(crate) fn made() -> Timestamp {
        time(FIXED as u64)
    }

    pub(crate) fn new(lanes: Lanes) -> Self {
        Self {
            lane: lanes.of(DOMAIN),
            head: 0,
            customers: Vec::new(),
            orders: Vec::new(),
            seed: 0x9e37_79b9_7f4a_7c15,
        }
    }

    pub(crate) fn lane(&self) -> Lane {
        self.lane
    }

    /// Events so far.
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// Entities of the growing type so far.
    pub(crate) fn grown(&self) -> usize {
        self.orders.len()
    }

    /// A number below `end`: xorshift64*.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        (self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % end.max(1)
    }

    fn pick(&mut self, entities: usize) -> usize {
        usize::try_from(self.below(entities as u64)).unwrap_or(0)
    }

    /// An entity that there is, and its newest version.
    pub(crate) fn customer(&mut self) -> Outcome<(EntityRef, u64)> {
        let n = self.pick(self.customers.len());
        Ok((customer(n)?, self.customers[n]))
    }

    pub(crate) fn order(&mut self) -> Outcome<(EntityRef, u64)> {
        let n = self.pick(self.orders.len());
        Ok((order(n)?, self.orders[n]))
    }

    /// A position from the first to the last but `before`.
    pub(crate) fn position(&mut self, before: u64) -> Position {
        let end = self.head.saturating_sub(before);
        Position::new(self.below(end))
    }

    /// A time of an event.
    pub(crate) fn time(&mut self) -> Timestamp {
        let end = self.head;
        time(self.below(end) + 1)
    }

    /// The time of the last event.
    pub(crate) fn newest(&self) -> Timestamp {
        time(self.head)
    }

    /// The next batch, and the head it expects.
    pub(crate) fn batch(&mut self, events: u64) -> Outcome<(Position, Arc<Batch>)> {
        let expected = Position::new(self.head);
        let events = (0..events).map(|_| self.event()).collect::<Outcome<_>>()?;
        let keys = Vec::new();
        Ok((expected, Arc::new(Batch { events, keys })))
    }

    fn event(&mut self) -> Outcome<Event> {
        let random = self.below(1 << 40);
        let (entity, version) = if self.customers.len() < FIXED {
            self.customers.push(1);
            (customer(self.customers.len() - 1)?, 1)
        } else if random.is_multiple_of(FIXED_SHARE) {
            let n = self.pick(FIXED);
            self.customers[n] += 1;
            (customer(n)?, self.customers[n])
        } else if random.is_multiple_of(2) || self.orders.is_empty() {
            self.orders.push(1);
            (order(self.orders.len() - 1)?, 1)
        } else {
            let n = self.pick(self.orders.len());
            self.orders[n] += 1;
            (order(n)?, self.orders[n])
        };
        self.head += 1;
        // The same size for both; `mark` is rare in both, and stays with the entity.
        let values = Values::from_canonical(format!(
            r#"{{"amount":{},"mark":"{}","note":"leave it at the back door, please","state":"{}","tags":["a","b"]}}"#,
            random % 10_000,
            entity.key(),
            ["open", "paid", "sent"][usize::try_from(random % 3)?],
        ));
        Ok(Event {
            id: EventId::fresh(time(self.head)),
            entity,
            values,
            version: Version::new(version),
            lane: self.lane,
            position: Position::new(self.head),
            time: time(self.head),
            method: Method::Set,
            claims: Claims::none(),
            trace_parent: None,
        })
    }
}

fn time(position: u64) -> Timestamp {
    Timestamp(BEGINNING + i64::try_from(position).unwrap_or(i64::MAX / PACE) * PACE)
}

fn customer(n: usize) -> Outcome<EntityRef> {
    Ok(EntityRef::new(
        DOMAIN,
        CUSTOMER,
        &format!("customer-{n:08}"),
    )?)
}

fn order(n: usize) -> Outcome<EntityRef> {
    Ok(EntityRef::new(DOMAIN, ORDER, &format!("order-{n:08}"))?)
}
