//! A message as bytes.
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | the version, 1 |
//! | 1 | flags: 1 the previous id is there, 2 the frame is authenticated |
//! | 16 | the log |
//! | 1 | the lane |
//! | 8 | the first position |
//! | 16 | the previous id, or zeros |
//! | 4 | how many events |
//! | 4 + n each | an event: its length and its bytes |
//! | 32 | HMAC-SHA-256 over all before it, if authenticated |
//!
//! Numbers are big-endian. Whoever has a key refuses frames that are not authenticated with it; whoever
//! has none takes both kinds, so that a key is given to the command services first and then to the
//! stream services.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use stategate_model::{EventId, Lane, LogId, Position, limits};
use uuid::Uuid;

use crate::{Events, Key, Message};

const VERSION: u8 = 1;
const HAS_PREVIOUS: u8 = 1;
const IS_AUTHENTICATED: u8 = 2;
/// Bytes before the events.
const HEADER: usize = 1 + 1 + 16 + 1 + 8 + 16 + 4;
/// Bytes of a length.
const LENGTH: usize = 4;
/// Bytes of the code at the end.
const CODE: usize = 32;

/// Why bytes are not believed to be a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameError {
    /// They are no frame of this version.
    Malformed,
    /// They are not authenticated, or with another key.
    Unauthenticated,
}

impl FrameError {
    /// As metrics name it.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unauthenticated => "unauthenticated",
        }
    }
}

/// The events of a message; none of one that was not made for other processes.
fn encoded(message: &Message) -> &[Bytes] {
    match &message.events {
        Events::Encoded(events) => events,
        Events::Decoded(_) => &[],
    }
}

/// How many bytes a message takes.
pub(super) fn size(message: &Message, key: Option<&Key>) -> usize {
    let events = encoded(message).iter().map(|event| LENGTH + event.len());
    HEADER + events.sum::<usize>() + key.map_or(0, |_| CODE)
}

/// Writes a message; `None` for one that no frame can hold.
pub(super) fn encode(message: &Message, key: Option<&Key>) -> Option<Bytes> {
    let mut frame = BytesMut::with_capacity(size(message, key));
    let previous = message.previous.map_or(0, |_| HAS_PREVIOUS);
    let authenticated = key.map_or(0, |_| IS_AUTHENTICATED);
    frame.put_u8(VERSION);
    frame.put_u8(previous | authenticated);
    frame.put_slice(message.log_id.0.as_bytes());
    frame.put_u8(message.lane.0);
    frame.put_u64(message.first.get());
    frame.put_slice(message.previous.map_or(Uuid::nil(), |id| id.0).as_bytes());
    let events = encoded(message);
    frame.put_u32(u32::try_from(events.len()).ok()?);
    for event in events {
        frame.put_u32(u32::try_from(event.len()).ok()?);
        frame.put_slice(event);
    }
    if let Some(key) = key {
        let code = code(key, &frame)?.finalize().into_bytes();
        frame.put_slice(&code);
    }
    Some(frame.freeze())
}

/// Reads a message, sharing the bytes of its events.
pub(super) fn decode(frame: Bytes, key: Option<&Key>) -> Result<Message, FrameError> {
    let mut rest = authenticated(frame, key)?;
    // What `authenticated` answers has a whole header.
    rest.advance(1);
    let flags = rest.get_u8();
    let log_id = LogId(Uuid::from_u128(rest.get_u128()));
    let lane = Lane(rest.get_u8());
    let first = rest.get_u64();
    let previous = Uuid::from_u128(rest.get_u128());
    let count = rest.get_u32();
    let has_previous = flags & HAS_PREVIOUS != 0;
    let last = first.checked_add(u64::from(count));
    let is_sound = lane.0 < limits::LANES
        && usize::try_from(count).is_ok_and(|count| count <= limits::BATCH_EVENTS)
        && first > 0
        && last.is_some_and(|last| i64::try_from(last).is_ok())
        && flags & !(HAS_PREVIOUS | IS_AUTHENTICATED) == 0
        && (has_previous || previous.is_nil());
    if !is_sound {
        return Err(FrameError::Malformed);
    }
    let mut events = Vec::new();
    for _ in 0..count {
        let length = rest.try_get_u32().map_err(|_| FrameError::Malformed)?;
        let length = usize::try_from(length).map_err(|_| FrameError::Malformed)?;
        if length > rest.len() {
            return Err(FrameError::Malformed);
        }
        events.push(rest.split_to(length));
    }
    if !rest.is_empty() {
        return Err(FrameError::Malformed);
    }
    Ok(Message {
        log_id,
        lane,
        first: Position::new(first),
        previous: has_previous.then_some(EventId(previous)),
        events: Events::Encoded(events),
    })
}

/// The frame without its code, which is checked if there is a key.
fn authenticated(mut frame: Bytes, key: Option<&Key>) -> Result<Bytes, FrameError> {
    if frame.len() < HEADER || frame.first() != Some(&VERSION) {
        return Err(FrameError::Malformed);
    }
    let is_authenticated = frame
        .get(1)
        .is_some_and(|flags| flags & IS_AUTHENTICATED != 0);
    if !is_authenticated {
        return match key {
            Some(_) => Err(FrameError::Unauthenticated),
            None => Ok(frame),
        };
    }
    if frame.len() < HEADER + CODE {
        return Err(FrameError::Malformed);
    }
    let given = frame.split_off(frame.len() - CODE);
    if let Some(key) = key {
        let code = code(key, &frame).ok_or(FrameError::Unauthenticated)?;
        // In constant time.
        code.verify_slice(&given)
            .map_err(|_| FrameError::Unauthenticated)?;
    }
    Ok(frame)
}

/// `None` never happens: the algorithm takes keys of any length.
fn code(key: &Key, bytes: &[u8]) -> Option<Hmac<Sha256>> {
    let mut code = Hmac::<Sha256>::new_from_slice(key.bytes()).ok()?;
    code.update(bytes);
    Some(code)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    fn messages() -> impl Strategy<Value = Message> {
        let events = vec(vec(any::<u8>(), 0..200), 0..20);
        let first = 1..=(i64::MAX as u64 - 100);
        let ids = (any::<u128>(), option::of(any::<u128>()));
        (ids, 0..limits::LANES, first, events).prop_map(|((log, previous), lane, first, events)| {
            Message {
                log_id: LogId(Uuid::from_u128(log)),
                lane: Lane(lane),
                first: Position::new(first),
                previous: previous.map(|id| EventId(Uuid::from_u128(id))),
                events: Events::Encoded(events.into_iter().map(Bytes::from).collect()),
            }
        })
    }

    fn keys() -> impl Strategy<Value = Option<Key>> {
        option::of("[a-z]{16,80}").prop_map(|text| text.map(|text| Key::new(&text)))
    }

    proptest! {
        #[test]
        fn a_message_survives(message in messages(), key in keys()) {
            let frame = encode(&message, key.as_ref()).unwrap();
            prop_assert_eq!(frame.len(), size(&message, key.as_ref()));
            prop_assert_eq!(decode(frame.clone(), key.as_ref()), Ok(message.clone()));
            prop_assert_eq!(decode(frame, None), Ok(message));
        }

        #[test]
        fn a_key_refuses_everything_that_is_not_made_with_it(
            message in messages(), made in keys(), at in any::<prop::sample::Index>(), bit in 0..8_u8,
        ) {
            let key = Key::new("the key of the receiver");
            let frame = encode(&message, made.as_ref()).unwrap();
            prop_assert_eq!(decode(frame, Some(&key)), Err(FrameError::Unauthenticated));
            let mut changed = encode(&message, Some(&key)).unwrap().to_vec();
            let at = at.index(changed.len());
            changed[at] ^= 1_u8 << bit;
            prop_assert!(decode(changed.into(), Some(&key)).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_a_message_or_refused(bytes in vec(any::<u8>(), 0..300), key in keys()) {
            if let Ok(message) = decode(bytes.into(), key.as_ref()) {
                message.head();
            }
        }

        #[test]
        fn a_damaged_frame_is_a_message_or_refused(
            message in messages(), cut in any::<prop::sample::Index>(),
            at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut bytes = encode(&message, None).unwrap().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes.truncate(cut.index(bytes.len() + 1));
            if let Ok(message) = decode(bytes.into(), None) {
                message.head();
            }
        }
    }

    /// Frames of other processes are read during an upgrade, so the bytes are fixed.
    #[test]
    fn version_1_is_frozen() {
        let message = Message {
            log_id: LogId(Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10)),
            lane: Lane(3),
            first: Position::new(258),
            previous: Some(EventId(Uuid::from_u128(7))),
            events: Events::Encoded(vec![Bytes::from_static(b"ab"), Bytes::new()]),
        };
        let plain = "01010102030405060708090a0b0c0d0e0f100300000000000001020000000000000000\
                     00000000000000070000000200000002616200000000";
        let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
        assert_eq!(hex(&encode(&message, None).unwrap()), plain);
        let key = Key::new("0123456789abcdef");
        let keyed = hex(&encode(&message, Some(&key)).unwrap());
        let (body, code) = keyed.split_at(keyed.len() - 2 * CODE);
        assert_eq!(body, plain.replacen("0101", "0103", 1));
        assert_eq!(code, FROZEN_CODE);
    }

    /// As Python's hmac has it.
    const FROZEN_CODE: &str = "64de2be1de2d3bc96972d605d3c939b397b36cb448307d9f06bf83f6a9aebd37";
}
