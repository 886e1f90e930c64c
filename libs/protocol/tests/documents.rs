//! What policies are shown of requests, answers and events is the proto3 JSON of the message: compared with
//! what a generic printer makes of its bytes, for messages of every shape.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

use std::sync::LazyLock;

use proptest::{collection::vec, option, prelude::*};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value as Json;
use stategate_api::{
    Entity, EntityPage, EventPage, documents as answers,
    operation::{Shown as _, View},
    page_token::Binding,
};
use stategate_model::{
    Claims, Cursor, EntityRef, Event, EventId, Lane, Method, Object, Page, Position, Tie,
    Timestamp, TraceParent, Value, Values, Version, json,
};
use stategate_policy::Document;
use stategate_protocol::{DESCRIPTORS, Struct, answers as wire, documents, pb};

/// What a generic printer of proto3 JSON makes of a message's bytes.
fn printed(message: &str, bytes: &[u8]) -> Json {
    static POOL: LazyLock<DescriptorPool> =
        LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).unwrap());
    let descriptor = POOL.get_message_by_name(message).unwrap();
    let message = DynamicMessage::decode(descriptor, bytes).unwrap();
    let mut text = Vec::new();
    message
        .serialize_with_options(
            &mut serde_json::Serializer::new(&mut text),
            &SerializeOptions::new(),
        )
        .unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Compared by the kinds of JSON: 1 and 1.0 are the same number, "1" is none.
fn same(left: &Json, right: &Json) -> bool {
    match (left, right) {
        (Json::Number(left), Json::Number(right)) => left.as_f64() == right.as_f64(),
        (Json::Array(left), Json::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(l, r)| same(l, r))
        }
        (Json::Object(left), Json::Object(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(key, l)| right.get(key).is_some_and(|r| same(l, r)))
        }
        (left, right) => left == right,
    }
}

fn check(document: &Document, name: &str, bytes: &[u8]) -> Result<(), TestCaseError> {
    let shown: Json = serde_json::from_str(&document.to_json()).unwrap();
    let printed = printed(name, bytes);
    prop_assert!(
        same(&shown, &printed),
        "{name}\nshown   {shown}\nprinted {printed}"
    );
    Ok(())
}

fn text() -> impl Strategy<Value = String> + Clone {
    prop_oneof![
        Just(String::new()),
        "[a-z]{1,5}",
        any::<String>(),
        Just("\u{0}\"\\\u{2028}😀".to_owned())
    ]
}

fn number() -> impl Strategy<Value = i64> + Clone {
    prop_oneof![
        Just(0),
        Just(-1),
        Just(i64::MIN),
        Just(i64::MAX),
        any::<i64>()
    ]
}

fn small() -> impl Strategy<Value = i32> + Clone {
    prop_oneof![Just(0), Just(-1), Just(i32::MIN), any::<i32>()]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        prop_oneof![
            (-1000_i32..1000).prop_map(f64::from),
            prop::num::f64::NORMAL,
            Just(9_007_199_254_740_993.0),
            Just(-0.0),
            Just(1e300),
        ]
        .prop_map(Value::Number),
        text().prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 20, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::btree_map(text(), inner, 0..5).prop_map(Value::Object),
        ]
    })
}

fn object() -> impl Strategy<Value = Object> {
    prop::collection::btree_map(text(), value(), 0..5)
}

fn values() -> impl Strategy<Value = Option<Struct>> {
    // As they are decoded, and as they are made to be sent.
    let both = (object(), any::<bool>()).prop_map(|(object, is_wire)| match is_wire {
        true => Struct::from_object(&object),
        false => Struct::Tree(object),
    });
    option::of(both)
}

prop_compose! {
    fn entity()(domain in text(), r#type in text(), key in text(), values in values(), version in number()) -> pb::Entity {
        pb::Entity { domain, r#type, key, values, version }
    }
}

prop_compose! {
    fn entity_ref()(domain in text(), r#type in text(), key in text(), at in option::of((any::<bool>(), number()))) -> pb::EntityRef {
        let at = at.map(|(is_version, at)| match is_version {
            true => pb::entity_ref::At::AtVersion(at),
            false => pb::entity_ref::At::AtTime(at),
        });
        pb::EntityRef { domain, r#type, key, at }
    }
}

prop_compose! {
    fn event_ref()(domain in text(), r#type in text(), key in text(), id in text()) -> pb::EventRef {
        pb::EventRef { domain, r#type, key, id }
    }
}

prop_compose! {
    fn sort()(field in text(), reverse in any::<bool>()) -> pb::Sort {
        pb::Sort { field, reverse }
    }
}

prop_compose! {
    fn search()(names in [text(), text(), text(), text(), text(), text()], limit in small(), offset in small(), sort in option::of(sort()), facets in vec(text(), 0..3), highlight in any::<bool>()) -> pb::SearchEntityOpts {
        let [domain, r#type, query_string, page_token, text, key] = names;
        pb::SearchEntityOpts { domain, r#type, query_string, limit, offset, sort, page_token, text, facets, highlight, key }
    }
}

prop_compose! {
    fn search_events()(names in [text(), text(), text(), text(), text()], min in number(), max in number(), limit in small(), offset in small(), sort in option::of(sort())) -> pb::SearchEventOpts {
        let [domain, r#type, query_string, page_token, key] = names;
        pb::SearchEventOpts { domain, r#type, query_string, min, max, limit, offset, sort, page_token, key }
    }
}

fn start() -> impl Strategy<Value = Option<pb::stream_opts::Start>> {
    use pb::stream_opts::Start;
    option::of(prop_oneof![
        any::<bool>().prop_map(Start::FromBeginning),
        text().prop_map(Start::After),
        number().prop_map(Start::Since),
    ])
}

prop_compose! {
    fn subscribe()(names in [text(), text(), text(), text(), text()], methods in vec(text(), 0..3), progress in any::<bool>(), start in start()) -> pb::StreamOpts {
        let [domain, r#type, consumer_group, key, query_string] = names;
        pb::StreamOpts { domain, r#type, consumer_group, key, query_string, methods, progress, start }
    }
}

fn operation() -> impl Strategy<Value = pb::Operation> {
    use pb::operation::{Operation as Wire, Precondition};
    let operation = option::of(prop_oneof![
        entity().prop_map(Wire::Set),
        entity().prop_map(Wire::Edit),
        event_ref().prop_map(Wire::Revert),
        entity_ref().prop_map(Wire::Del),
    ]);
    let precondition = option::of(prop_oneof![
        number().prop_map(Precondition::IfVersion),
        any::<bool>().prop_map(Precondition::IfAbsent),
    ]);
    (operation, precondition, text(), values()).prop_map(|(operation, precondition, name, data)| {
        pb::Operation {
            name,
            data,
            operation,
            precondition,
        }
    })
}

/// The entity of a request: its version is ignored.
fn requested(entity: pb::Entity) -> pb::Entity {
    pb::Entity {
        version: 0,
        ..entity
    }
}

/// An operation with the domain of its transaction.
fn filled_in(operation: pb::Operation, of: &str) -> pb::Operation {
    use pb::operation::Operation as Wire;
    let within = |domain: String| match domain.is_empty() {
        true => of.to_owned(),
        false => domain,
    };
    let wire = operation.operation.map(|wire| match wire {
        Wire::Set(entity) => Wire::Set(pb::Entity {
            domain: within(entity.domain.clone()),
            ..requested(entity)
        }),
        Wire::Edit(entity) => Wire::Edit(pb::Entity {
            domain: within(entity.domain.clone()),
            ..requested(entity)
        }),
        Wire::Revert(event) => Wire::Revert(pb::EventRef {
            domain: within(event.domain),
            ..event
        }),
        Wire::Del(entity) => Wire::Del(pb::EntityRef {
            domain: within(entity.domain),
            ..entity
        }),
    });
    pb::Operation {
        operation: wire,
        ..operation
    }
}

fn reference() -> impl Strategy<Value = EntityRef> {
    let name = || "[a-zA-Z0-9é😀%._-]{1,8}x";
    (name(), name(), name())
        .prop_map(|(domain, kind, key)| EntityRef::new(&domain, &kind, &key).unwrap())
}

fn stored() -> impl Strategy<Value = Values> {
    object().prop_map(|object| Values::from_canonical(json::canonical(&object)))
}

prop_compose! {
    fn event()(
        entity in reference(), values in stored(), claims in stored(), version in 1_u64..1 << 60, lane in 0_u8..64,
        position in 1_u64..1 << 60, time in number(), method in 0_usize..4, is_traced in any::<bool>(),
    ) -> Event {
        let trace_parent = TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        Event {
            id: EventId::fresh(Timestamp(time.saturating_abs())),
            entity,
            values,
            version: Version::new(version),
            lane: Lane(lane),
            position: Position::new(position),
            time: Timestamp(time),
            method: Method::ALL[method],
            claims: Claims::from_stored(claims),
            trace_parent: trace_parent.filter(|_| is_traced),
        }
    }
}

prop_compose! {
    fn answered()(entity in reference(), values in stored(), version in option::of(1_u64..1 << 60)) -> Entity {
        Entity { entity, values, version: version.map(Version::new) }
    }
}

fn cursor() -> impl Strategy<Value = Option<Cursor>> {
    option::of("[a-z]{1,5}").prop_map(|key| {
        key.map(|key| Cursor {
            key: None,
            tie: Tie::Key(key),
        })
    })
}

fn binding() -> Binding {
    Binding::new("EntityService/Search", &[b"d"])
}

proptest! {
    #[test]
    fn requests_are_shown_as_their_messages(
        entity in entity(), entity_ref in entity_ref(), event_ref in event_ref(), search in search(),
        search_events in search_events(), subscribe in subscribe(),
    ) {
        let written = requested(entity.clone()).encode_to_vec();
        check(&documents::set(&entity), "stategate.Entity", &written)?;
        check(&documents::edit(&entity), "stategate.Entity", &written)?;
        check(&documents::revert(&event_ref), "stategate.EventRef", &event_ref.encode_to_vec())?;
        check(&documents::del(&entity_ref), "stategate.EntityRef", &entity_ref.encode_to_vec())?;
        check(&documents::get(&entity_ref), "stategate.EntityRef", &entity_ref.encode_to_vec())?;
        check(&documents::get_event(&event_ref), "stategate.EventRef", &event_ref.encode_to_vec())?;
        check(&documents::search(&search), "stategate.SearchEntityOpts", &search.encode_to_vec())?;
        check(&documents::search_events(&search_events), "stategate.SearchEventOpts", &search_events.encode_to_vec())?;
        check(&documents::subscribe(&subscribe), "stategate.StreamOpts", &subscribe.encode_to_vec())?;
    }

    #[test]
    fn transactions_are_shown_whole_and_as_the_calls_they_stand_for(
        domain in text(), operations in vec(operation(), 0..5),
    ) {
        use pb::operation::Operation as Wire;
        let sent = pb::TransactRequest { domain: domain.clone(), operations: operations.clone() };
        let filled: Vec<_> = operations.into_iter().map(|operation| filled_in(operation, &domain)).collect();
        let whole = pb::TransactRequest { domain, operations: filled.clone() };
        check(&documents::transact(&sent), "stategate.TransactRequest", &whole.encode_to_vec())?;
        let shown = documents::operations(&sent);
        prop_assert_eq!(shown.len(), filled.len());
        for (shown, operation) in shown.iter().zip(filled) {
            match operation.operation {
                None => prop_assert_eq!(shown.to_json(), "{}"),
                Some(Wire::Set(entity) | Wire::Edit(entity)) => check(shown, "stategate.Entity", &entity.encode_to_vec())?,
                Some(Wire::Revert(event)) => check(shown, "stategate.EventRef", &event.encode_to_vec())?,
                Some(Wire::Del(entity)) => check(shown, "stategate.EntityRef", &entity.encode_to_vec())?,
            }
        }
    }

    #[test]
    fn answers_are_shown_as_the_messages_that_are_sent(
        entity in answered(), entities in vec(answered(), 0..4), event in event(), events in vec(event(), 0..4), next in cursor(),
    ) {
        let shown = answers::answer(entity.view()).unwrap();
        check(&shown, "stategate.Entity", &wire::entity(&entity).unwrap().encode_to_vec())?;
        let shown = answers::answer(event.view()).unwrap();
        prop_assert!(shown == answers::event(&event).unwrap());
        check(&shown, "stategate.Event", &wire::event(&event).unwrap().encode_to_vec())?;
        let shown = answers::answer(events.view()).unwrap();
        check(&shown, "stategate.TransactResponse", &wire::transaction(&events).unwrap().encode_to_vec())?;
        let page = EventPage::new(Page { items: events, next: next.clone() }, None, binding());
        let shown = answers::answer(page.view()).unwrap();
        check(&shown, "stategate.Events", &wire::events(&page).unwrap().encode_to_vec())?;
        let page = EntityPage::new(Page { items: entities, next }, None, binding());
        let shown = answers::answer(page.view()).unwrap();
        check(&shown, "stategate.Entities", &wire::entities(&page).unwrap().encode_to_vec())?;
        // Nothing that is kept by the thousand holds a tree of what it was shown as.
        prop_assert!(page.items().iter().all(|entity| !entity.values.has_tree()));
        prop_assert!(!event.values.has_tree() && !event.claims.values().has_tree());
    }
}

#[test]
fn what_has_nothing_in_it_is_shown_as_an_empty_object() {
    for view in [View::Done, View::Subscription] {
        assert_eq!(answers::answer(view).unwrap().to_json(), "{}");
    }
}

#[test]
fn numbers_that_json_does_not_have_are_shown_as_null() {
    let object = Object::from([
        ("a".to_owned(), Value::Number(f64::NAN)),
        ("b".to_owned(), Value::Number(f64::INFINITY)),
    ]);
    let message = pb::Entity {
        values: Some(Struct::Tree(object)),
        ..pb::Entity::default()
    };
    assert_eq!(
        documents::set(&message).to_json(),
        r#"{"values":{"a":null,"b":null}}"#
    );
}

#[test]
fn stored_bytes_that_are_no_values_are_no_document() {
    for damaged in ["", "x", "[]", "1", "{\"a\":}", "{} {}"] {
        let entity = Entity {
            entity: EntityRef::new("d", "t", "k").unwrap(),
            values: Values::from_canonical(damaged),
            version: None,
        };
        assert!(answers::answer(entity.view()).is_err(), "{damaged}");
    }
}
