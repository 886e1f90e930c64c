//! Events on the wire: encoded once, from the model, for every subscriber that gets them.

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{self, DecodeContext, WireType, encoded_len_varint},
};
use stategate_model::{Event, Lane, Position, value::Corrupt};

use crate::{
    Struct, convert, pb,
    structs::{delimited, put_delimited},
};

/// The method of an event that only advances a subscriber's position.
pub const PROGRESS: &str = "stategate.Progress";

/// A `stategate.Event` that is encoded already.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Encoded(pub Bytes);

impl Message for Encoded {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        // Sent only, never received: a receiver decodes a `pb::Event`.
        encoding::skip_field(wire_type, tag, buf, ctx)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// A `stategate.TransactResponse` whose events are encoded already.
#[derive(Clone, PartialEq, Message)]
pub struct Transacted {
    /// One event for each operation, in order.
    #[prost(message, repeated, tag = "1")]
    pub events: Vec<Encoded>,
}

/// A `stategate.Events` whose events are encoded already.
#[derive(Clone, PartialEq, Message)]
pub struct EventPage {
    /// The events of the page, in the order asked for.
    #[prost(message, repeated, tag = "1")]
    pub events: Vec<Encoded>,
    /// Where the next page continues; empty on the last one.
    #[prost(string, tag = "10")]
    pub next_page_token: String,
}

/// Encodes an event.
pub fn encode_event(event: &Event) -> Result<Encoded, Corrupt> {
    let values = Struct::encode(&event.values)?;
    let claims = Struct::encode(event.claims.values())?;
    let id = event.id.0.hyphenated();
    let mut id_text = uuid::Uuid::encode_buffer();
    let id_text = id.encode_lower(&mut id_text);
    let (domain, kind, key) = (
        event.entity.domain(),
        event.entity.kind(),
        event.entity.key(),
    );
    let method = event.method.as_str();

    let entity_len = delimited(domain.len())
        + delimited(kind.len())
        + delimited(key.len())
        + delimited(values.encoded_len());
    let numbers = [
        (0x20, event.time.0),
        (0x50, event.version.as_i64()),
        (0x58, i64::from(event.lane.0)),
        (0x60, event.position.as_i64()),
    ];
    let len = delimited(id_text.len())
        + delimited(entity_len)
        + delimited(claims.encoded_len())
        + delimited(method.len())
        + numbers.iter().map(number_len).sum::<usize>()
        + event
            .trace_parent
            .as_ref()
            .map_or(0, |trace| delimited(trace.as_str().len()));

    let mut out = Vec::with_capacity(len);
    let put = |tag: u8, bytes: &[u8], out: &mut Vec<u8>| {
        put_delimited(tag, bytes.len(), out);
        out.extend_from_slice(bytes);
    };
    put(0x0a, id_text.as_bytes(), &mut out);
    put_delimited(0x12, entity_len, &mut out);
    put(0x0a, domain.as_bytes(), &mut out);
    put(0x12, kind.as_bytes(), &mut out);
    put(0x1a, key.as_bytes(), &mut out);
    put_delimited(0x22, values.encoded_len(), &mut out);
    values.encode_raw(&mut out);
    put_delimited(0x1a, claims.encoded_len(), &mut out);
    claims.encode_raw(&mut out);
    let [time, rest @ ..] = numbers;
    put_number(time, &mut out);
    put(0x2a, method.as_bytes(), &mut out);
    for number in rest {
        put_number(number, &mut out);
    }
    if let Some(trace) = &event.trace_parent {
        put(0x6a, trace.as_str().as_bytes(), &mut out);
    }
    Ok(Encoded(out.into()))
}

/// A number; proto3 leaves zeros out.
fn put_number((tag, number): (u8, i64), out: &mut Vec<u8>) {
    if number != 0 {
        out.push(tag);
        encoding::encode_varint(wire(number), out);
    }
}

fn number_len((_, number): &(u8, i64)) -> usize {
    if *number == 0 {
        0
    } else {
        1 + encoded_len_varint(wire(*number))
    }
}

#[allow(
    clippy::cast_sign_loss,
    reason = "int64 is sent as its two's complement"
)]
fn wire(number: i64) -> u64 {
    number as u64
}

/// An event that only says how far a lane was read for a subscriber.
pub fn encode_progress(lane: Lane, position: Position) -> Encoded {
    let event = pb::Event {
        method: PROGRESS.to_owned(),
        lane: i32::from(lane.0),
        position: position.as_i64(),
        claims: Some(Struct::default()),
        ..pb::Event::default()
    };
    Encoded(event.encode_to_vec().into())
}

/// Decodes what [`encode_event`] encoded; `None` for anything else. Used for messages of a channel,
/// which are hints: one that cannot be read is one that was lost.
pub fn decode_event(bytes: Bytes) -> Option<Event> {
    convert::event(pb::Event::decode(bytes).ok()?)
}

#[cfg(test)]
mod tests {
    use stategate_model::{
        Claims, EntityRef, EventId, Method, Timestamp, TraceParent, Values, Version,
    };

    use super::*;

    fn event(trace_parent: Option<&str>) -> Event {
        Event {
            id: EventId::fresh(Timestamp(0)),
            entity: EntityRef::new("faa", "airport", "JFK").unwrap(),
            values: Values::from_canonical(
                r#"{"name":"John F Kennedy Intl","runways":[4,4],"x":{"y":null}}"#,
            ),
            version: Version::new(300),
            lane: Lane(0),
            position: Position::new(70_000),
            time: Timestamp(1_700_000_000_000_000_000),
            method: Method::Revert,
            claims: Claims::none(),
            trace_parent: trace_parent.map(|text| TraceParent::parse(text).unwrap()),
        }
    }

    #[test]
    fn the_direct_encoding_is_what_prost_reads() {
        for trace in [
            None,
            Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ] {
            let event = event(trace);
            let encoded = encode_event(&event).unwrap();
            let message = pb::Event::decode(encoded.0.clone()).unwrap();
            assert_eq!(message.id, event.id.to_string());
            assert_eq!(
                message.encoded_len(),
                encoded.0.len(),
                "prost would write as many bytes"
            );
            assert_eq!(message.method, "/stategate.EntityService/Revert");
            assert!(message.claims.is_some(), "claims are always set");
            assert_eq!(
                message.entity.as_ref().unwrap().version,
                0,
                "an event's entity has no version"
            );
            assert_eq!(decode_event(encoded.0), Some(event));
        }
    }

    #[test]
    fn damaged_events_are_not_believed() {
        let encoded = encode_event(&event(None)).unwrap();
        for len in 0..encoded.0.len() {
            assert_eq!(decode_event(encoded.0.slice(..len)), None);
        }
    }
}
