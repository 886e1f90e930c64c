//! What is written: orders of about 250 bytes as JSON, over many keys.

use rand::{Rng, SeedableRng, rngs::SmallRng};
use stategate_model::{
    Claims, EntityRef, Event, EventId, Invalid, Lane, Limits, Method, Object, Position, Timestamp,
    Value, Values, Version,
};
use stategate_protocol::{Encoded, Struct, encode_event, pb};

/// The one domain of a run: the hardest case, since one lane takes every write.
pub(crate) const DOMAIN: &str = "shop";
/// Entities that are written: so many keys that nearly every write is to one not seen before.
pub(crate) const ORDERS: &str = "order";
/// Entities that are read: written once before.
pub(crate) const PRODUCTS: &str = "product";
const ORDER_KEYS: u32 = 1_000_000;
/// The key of the order that is like no other.
pub(crate) const LAST_ORDER: &str = "the-end";
/// How many products there are.
pub(crate) const PRODUCT_KEYS: u32 = 20_000;
/// Entities of a search's page.
pub(crate) const PAGE: u32 = 20;
/// Different values, made once and sent over and over: making them is not what is measured.
const VALUES: usize = 1_024;

/// Gives entities to write and names to read, the same in every run.
#[derive(Clone)]
pub(crate) struct Source {
    random: SmallRng,
    values: std::sync::Arc<[Struct]>,
}

impl Source {
    /// A source for the caller with this number.
    pub(crate) fn new() -> Self {
        let mut random = SmallRng::seed_from_u64(1);
        let values = (0..VALUES)
            .map(|_| Struct::from_object(&order(&mut random)))
            .collect();
        Self { random, values }
    }

    /// The same values with other keys.
    pub(crate) fn of_caller(&self, caller: usize) -> Self {
        Self {
            random: SmallRng::seed_from_u64(2 + caller as u64),
            values: self.values.clone(),
        }
    }

    /// The key of an order.
    pub(crate) fn order(&mut self) -> pb::Entity {
        let n = self.random.random_range(0..ORDER_KEYS);
        self.entity(ORDERS, format!("order-{n:08}"))
    }

    /// An order that is like no other.
    pub(crate) fn last_order(&mut self) -> pb::Entity {
        self.entity(ORDERS, LAST_ORDER.to_owned())
    }

    /// A product to write, by its number.
    pub(crate) fn product(&mut self, n: u32) -> pb::Entity {
        self.entity(PRODUCTS, product_key(n))
    }

    /// A product to read.
    pub(crate) fn product_ref(&mut self) -> pb::EntityRef {
        pb::EntityRef {
            domain: DOMAIN.to_owned(),
            r#type: PRODUCTS.to_owned(),
            key: product_key(self.random.random_range(0..PRODUCT_KEYS)),
            at: None,
        }
    }

    /// A page of products as a search answers it.
    pub(crate) fn page(&mut self) -> pb::Entities {
        pb::Entities {
            entities: (0..PAGE).map(|n| self.product(n)).collect(),
            next_page_token: "x".repeat(100),
        }
    }

    fn entity(&mut self, kind: &str, key: String) -> pb::Entity {
        let values = self.random.random_range(0..self.values.len());
        pb::Entity {
            domain: DOMAIN.to_owned(),
            r#type: kind.to_owned(),
            key,
            values: Some(self.values[values].clone()),
            version: 0,
        }
    }
}

/// The key of the product with a number.
pub(crate) fn product_key(n: u32) -> String {
    format!("product-{n:06}")
}

/// An event as the gateway would send it, for a floor that sends it ready-made.
pub(crate) fn ready_made_event() -> anyhow::Result<Encoded> {
    let invalid = |invalid: Invalid| anyhow::anyhow!("{invalid}");
    let values = order(&mut SmallRng::seed_from_u64(1));
    let event = Event {
        id: EventId::fresh(Timestamp(1_700_000_000_000_000_000)),
        entity: EntityRef::new(DOMAIN, ORDERS, "order-00000001").map_err(invalid)?,
        values: Values::new(values, &Limits::default()).map_err(invalid)?,
        version: Version::new(1),
        lane: Lane(0),
        position: Position::new(100_000),
        time: Timestamp(1_700_000_000_000_000_000),
        method: Method::Set,
        claims: Claims::none(),
        trace_parent: None,
    };
    Ok(encode_event(&event)?)
}

fn order(random: &mut SmallRng) -> Object {
    let mut item = || {
        Value::Object(Object::from([
            (
                "qty".to_owned(),
                Value::Number(f64::from(random.random_range(1..9_u32))),
            ),
            (
                "sku".to_owned(),
                Value::String(format!("SKU-{:06}", random.random_range(0..999_999_u32))),
            ),
        ]))
    };
    let items = Value::Array(vec![item(), item()]);
    let cents = random.random_range(100..999_999_u32);
    let customer = random.random_range(0..99_999_999_u32);
    let minute = random.random_range(0..60_u32);
    Object::from([
        ("amount".to_owned(), Value::Number(f64::from(cents) / 100.0)),
        ("currency".to_owned(), "EUR".into()),
        (
            "customer".to_owned(),
            Value::Object(Object::from([
                ("id".to_owned(), Value::String(format!("c-{customer:08}"))),
                ("name".to_owned(), "Ada Lovelace".into()),
                ("vip".to_owned(), Value::Bool(customer % 7 == 0)),
            ])),
        ),
        ("items".to_owned(), items),
        ("note".to_owned(), "leave it at the back door".into()),
        ("paid".to_owned(), Value::Bool(cents % 2 == 0)),
        ("status".to_owned(), "shipped".into()),
        (
            "updated".to_owned(),
            Value::String(format!("2024-05-17T09:{minute:02}:00Z")),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_of_the_size_that_is_claimed() {
        let mut source = Source::new();
        for _ in 0..100 {
            let values = source.order().values.unwrap().into_object();
            let size = Values::new(values, &Limits::default()).unwrap().size();
            assert!((230..290).contains(&size), "{size}");
        }
    }
}
