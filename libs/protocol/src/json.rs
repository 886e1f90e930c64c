//! Canonical JSON written as a `google.protobuf.Struct` without a tree in between: what a read
//! answers is stored as the one and sent as the other.

use std::fmt;

use prost::encoding::encode_varint;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use stategate_model::value::Corrupt;

/// How much longer values are on the wire than as JSON, for a first guess.
const GROWTH: usize = 2;

/// The wire form of canonical values.
pub(crate) fn to_wire(json: &str) -> Result<Vec<u8>, Corrupt> {
    let mut out = Vec::with_capacity(json.len() * GROWTH);
    let mut reader = serde_json::Deserializer::from_str(json);
    Fields(&mut out)
        .deserialize(&mut reader)
        .and_then(|()| reader.end())
        .map_err(|_| Corrupt)?;
    Ok(out)
}

/// Begins a field of unknown length; the mark is for [`close`].
fn open(tag: u8, out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(&[tag, 0]);
    out.len()
}

/// Ends a field: writes its length before it. Nearly all are below 128 and have their byte already.
fn close(start: usize, out: &mut Vec<u8>) {
    let len = out.len() - start;
    match u8::try_from(len) {
        Ok(len) if len < 0x80 => out[start - 1] = len,
        _ => {
            let mut varint = Vec::with_capacity(5);
            encode_varint(len as u64, &mut varint);
            out.splice(start - 1..start, varint);
        }
    }
}

fn put(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Writes the fields of a Struct.
struct Fields<'o>(&'o mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(entry) = members.next_key_seed(Key(self.0))? {
            let value = open(0x12, self.0);
            members.next_value_seed(Value(self.0))?;
            close(value, self.0);
            close(entry, self.0);
        }
        Ok(())
    }
}

/// Begins an entry with its key; gives the mark of the entry.
struct Key<'o>(&'o mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<usize, E> {
        let entry = open(0x0a, self.0);
        put(0x0a, key.as_bytes(), self.0);
        Ok(entry)
    }
}

/// Writes the kind of a Value.
struct Value<'o>(&'o mut Vec<u8>);

impl Value<'_> {
    fn number(self, number: f64) {
        self.0.push(0x11);
        self.0.extend_from_slice(&number.to_le_bytes());
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.extend_from_slice(&[0x08, 0]);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.extend_from_slice(&[0x20, u8::from(value)]);
        Ok(())
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "canonical integers are below 2^53"
    )]
    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.number(value as f64);
        Ok(())
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "canonical integers are below 2^53"
    )]
    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.number(value as f64);
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.number(value);
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        put(0x1a, value.as_bytes(), self.0);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let list = open(0x32, self.0);
        loop {
            let item = open(0x0a, self.0);
            if items.next_element_seed(Value(self.0))?.is_none() {
                self.0.truncate(item - 2);
                break;
            }
            close(item, self.0);
        }
        close(list, self.0);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<(), A::Error> {
        let object = open(0x2a, self.0);
        Fields(self.0).visit_map(members)?;
        close(object, self.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_object_is_corrupt() {
        for bad in ["", "[]", "1", "null", "{", "{\"a\":}", "{}{}", "{1:2}"] {
            assert!(to_wire(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lengths_of_every_width_are_written() {
        for len in [0, 1, 120, 127, 128, 129, 16_383, 16_384, 100_000] {
            let text = "x".repeat(len);
            let json = format!("{{\"a\":[{{\"b\":\"{text}\"}}]}}");
            let object = stategate_model::json::parse_object(&json).unwrap();
            let crate::Struct::Wire(tree) = crate::Struct::from_object(&object) else {
                panic!("encoded values are bytes")
            };
            assert_eq!(to_wire(&json).unwrap(), tree, "{len}");
        }
    }
}
