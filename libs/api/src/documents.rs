//! Answers and events as policies see them: the proto3 JSON of the message that is sent (contract §7).
//!
//! Values and claims are read from their bytes into the document, with no tree that would be kept beside them.
//! A page is shown as it was found; one that is too large for a message is sent in part, so that what is
//! judged may be more than what is sent, never less.

use stategate_model::{EntityRef, Event, Values, Version, value::Corrupt};
use stategate_policy::{Document, Message, names};
use uuid::Uuid;

use crate::{Entity, operation::View};

names! {
    CLAIMS = "claims";
    DOMAIN = "domain";
    ENTITIES = "entities";
    ENTITY = "entity";
    EVENTS = "events";
    ID = "id";
    KEY = "key";
    LANE = "lane";
    METHOD = "method";
    NEXT_PAGE_TOKEN = "nextPageToken";
    POSITION = "position";
    TIME = "time";
    TRACE_PARENT = "traceParent";
    TYPE = "type";
    VALUES = "values";
    VERSION = "version";
}

/// An answer.
pub fn answer(view: View<'_>) -> Result<Document, Corrupt> {
    let of = match view {
        View::Done | View::Subscription => Message::new(),
        View::Entity(entity) => return of_entity(entity),
        View::Event(event) => return self::event(event),
        View::Transaction(events) => list(Message::new(), EVENTS, events, event)?,
        View::Entities(page) => {
            let items = page.items();
            let next = page.next(items.len())?.unwrap_or_default();
            list(Message::new(), ENTITIES, items, of_entity)?.text(NEXT_PAGE_TOKEN, &next)
        }
        View::Events(page) => {
            let items = page.items();
            let next = page.next(items.len())?.unwrap_or_default();
            list(Message::new(), EVENTS, items, event)?.text(NEXT_PAGE_TOKEN, &next)
        }
    };
    Ok(of.done())
}

/// An event, answered or delivered.
pub fn event(event: &Event) -> Result<Document, Corrupt> {
    let mut id = Uuid::encode_buffer();
    let id: &str = event.id.0.hyphenated().encode_lower(&mut id);
    let trace_parent = event.trace_parent.as_ref();
    let trace_parent = trace_parent.map_or("", |trace_parent| trace_parent.as_str());
    let of = Message::new()
        .text(ID, id)
        // An event's entity has no version of its own.
        .member(ENTITY, entity(&event.entity, &event.values, None)?)
        .member(CLAIMS, Document::try_from(event.claims.values())?)
        .int64(TIME, event.time.0)
        .text(METHOD, event.method.as_str())
        .int64(VERSION, event.version.as_i64())
        .int32(LANE, i32::from(event.lane.0))
        .int64(POSITION, event.position.as_i64())
        .text(TRACE_PARENT, trace_parent);
    Ok(of.done())
}

fn of_entity(answer: &Entity) -> Result<Document, Corrupt> {
    entity(&answer.entity, &answer.values, answer.version)
}

fn entity(
    entity: &EntityRef,
    values: &Values,
    version: Option<Version>,
) -> Result<Document, Corrupt> {
    let of = Message::new()
        .text(DOMAIN, entity.domain())
        .text(TYPE, entity.kind())
        .text(KEY, entity.key())
        .member(VALUES, Document::try_from(values)?)
        .int64(VERSION, version.map_or(0, Version::as_i64));
    Ok(of.done())
}

fn list<T>(
    of: Message,
    name: stategate_policy::Name,
    items: &[T],
    print: impl Fn(&T) -> Result<Document, Corrupt>,
) -> Result<Message, Corrupt> {
    let items = items.iter().map(print).collect::<Result<Vec<_>, _>>()?;
    Ok(of.list(name, items.into_iter()))
}
