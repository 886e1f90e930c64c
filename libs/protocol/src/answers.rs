//! Answers of services as messages, and as the headers that go with them (contract §3).

use http::{HeaderMap, HeaderValue};
use prost::Message as _;
use stategate_api::{Answer, Entity, EntityPage, EventPage};
use stategate_model::{Event, limits, value::Corrupt};

use crate::{Encoded, Transacted, convert, encode_event, event, headers, pb};

/// The headers of an answer.
pub fn stamp<T>(answer: &Answer<T>, headers: &mut HeaderMap) {
    // Tokens and versions are ASCII.
    let mut put = |name, text: String| {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    };
    if let Some(position) = &answer.position {
        put(headers::POSITION, position.to_string());
    }
    if let Some(version) = answer.version {
        put(headers::ETAG, format!("\"{version}\""));
    }
    if answer.replayed {
        put(headers::REPLAYED, "true".to_owned());
    }
}

/// An entity.
pub fn entity(entity: &Entity) -> Result<pb::Entity, Corrupt> {
    convert::entity_message(&entity.entity, &entity.values, entity.version)
}

/// A page of entities: as many as a page may hold on the wire.
pub fn entities(page: &EntityPage) -> Result<pb::Entities, Corrupt> {
    let messages = page.items().iter().map(entity);
    let entities = fill(messages, pb::Entity::encoded_len)?;
    let next_page_token = page.next(entities.len())?;
    Ok(pb::Entities {
        entities,
        next_page_token: next_page_token.unwrap_or_default(),
    })
}

/// A page of events: as many as a page may hold on the wire.
pub fn events(page: &EventPage) -> Result<event::EventPage, Corrupt> {
    let encoded = page.items().iter();
    let encoded = encoded.map(encode_event);
    let events = fill(encoded, Encoded::encoded_len)?;
    let next_page_token = page.next(events.len())?;
    Ok(event::EventPage {
        events,
        next_page_token: next_page_token.unwrap_or_default(),
    })
}

/// The messages that fit a page, at least one.
fn fill<T>(
    messages: impl Iterator<Item = Result<T, Corrupt>>,
    size: impl Fn(&T) -> usize,
) -> Result<Vec<T>, Corrupt> {
    let mut page = Vec::with_capacity(messages.size_hint().0);
    let mut bytes = 0;
    for message in messages {
        let message = message?;
        bytes += size(&message);
        if bytes > limits::PAGE_BYTES && !page.is_empty() {
            break;
        }
        page.push(message);
    }
    Ok(page)
}

/// An event.
pub fn event(event: &Event) -> Result<Encoded, Corrupt> {
    encode_event(event)
}

/// The events of a transaction.
pub fn transaction(events: &[Event]) -> Result<Transacted, Corrupt> {
    let events = events.iter().map(event);
    Ok(Transacted {
        events: events.collect::<Result<_, _>>()?,
    })
}
