//! The entities that are written and read: orders and products of about 250 bytes as JSON.

use rand::{Rng, SeedableRng, rngs::SmallRng};
use stategate_model::{
    Claims, EntityRef, Event, EventId, Invalid, Lane, Limits, Method, Object, Position, Timestamp,
    Value, Values, Version,
};
use stategate_protocol::{Encoded, Struct, encode_event, pb};

use crate::scenario;

/// The only domain. One domain is one lane, so all writes go through a single lane: the hardest case for the
/// gateway.
pub(crate) const DOMAIN: &str = "shop";
/// The type of the entities that are written. There are so many keys that nearly every write is to an entity
/// that does not exist yet.
pub(crate) const ORDERS: &str = "order";
/// The type of the entities that are read. Each is written once, before.
pub(crate) const PRODUCTS: &str = "product";
const ORDER_COUNT: u32 = 1_000_000;
/// The key of the order that is written last. No other order has it.
pub(crate) const LAST_ORDER: &str = "the-end";
/// Different values. They are made once and sent over and over, so that making them takes no time from what
/// is measured.
const VALUES: usize = 1_024;

/// Makes entities to write and references to entities to read. It has a fixed seed, so every run has the same
/// ones.
#[derive(Clone)]
pub(crate) struct EntityGenerator {
    random: SmallRng,
    values: std::sync::Arc<[Struct]>,
}

impl EntityGenerator {
    /// A generator with new values.
    pub(crate) fn new() -> Self {
        let mut random = SmallRng::seed_from_u64(1);
        let values = (0..VALUES)
            .map(|_| Struct::from_object(&order(&mut random)))
            .collect();
        Self { random, values }
    }

    /// A generator with the same values and with keys of its own, for the n-th caller.
    pub(crate) fn of_caller(&self, n: usize) -> Self {
        Self {
            random: SmallRng::seed_from_u64(2 + n as u64),
            values: self.values.clone(),
        }
    }

    /// An order with a random key.
    pub(crate) fn order(&mut self) -> pb::Entity {
        let n = self.random.random_range(0..ORDER_COUNT);
        self.entity(ORDERS, format!("order-{n:08}"))
    }

    /// The order that is written last.
    pub(crate) fn last_order(&mut self) -> pb::Entity {
        self.entity(ORDERS, LAST_ORDER.to_owned())
    }

    /// The n-th product.
    pub(crate) fn product(&mut self, n: u32) -> pb::Entity {
        self.entity(PRODUCTS, product_key(n))
    }

    /// A reference to a random product.
    pub(crate) fn product_ref(&mut self) -> pb::EntityRef {
        pb::EntityRef {
            domain: DOMAIN.to_owned(),
            r#type: PRODUCTS.to_owned(),
            key: product_key(self.random.random_range(0..scenario::PRODUCT_COUNT)),
            at: None,
        }
    }

    /// A page of products, as Search answers it.
    pub(crate) fn page(&mut self) -> pb::Entities {
        pb::Entities {
            entities: (0..scenario::PAGE_SIZE).map(|n| self.product(n)).collect(),
            next_page_token: "x".repeat(100),
        }
    }

    fn entity(&mut self, entity_type: &str, key: String) -> pb::Entity {
        let values = self.random.random_range(0..self.values.len());
        pb::Entity {
            domain: DOMAIN.to_owned(),
            r#type: entity_type.to_owned(),
            key,
            values: Some(self.values[values].clone()),
            version: 0,
        }
    }
}

/// The key of the n-th product.
pub(crate) fn product_key(n: u32) -> String {
    format!("product-{n:06}")
}

/// An encoded event, as the gateway sends it.
pub(crate) fn sample_event() -> anyhow::Result<Encoded> {
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
    fn values_have_the_documented_size() {
        let mut generator = EntityGenerator::new();
        for _ in 0..100 {
            let values = generator.order().values.unwrap().into_object();
            let size = Values::new(values, &Limits::default()).unwrap().size();
            assert!((230..290).contains(&size), "{size}");
        }
    }
}
