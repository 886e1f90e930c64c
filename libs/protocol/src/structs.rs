//! `google.protobuf.Struct` decoded straight into the model's tree, and encoded straight from it.
//!
//! The messages of the well-known type would be a second tree to build, walk and drop on the way of
//! every read and write. Decoding is lenient (NaN passes, U+0000 passes) so that
//! [`stategate_model::Values::new`] can name the path of what it refuses.

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{self, DecodeContext, WireType, encoded_len_varint},
};
use stategate_model::{Object, Value, Values, value::Corrupt};

use crate::json;

/// Entity values or claims on the wire.
#[derive(Clone)]
pub enum Struct {
    /// As they were decoded: not checked against any limit.
    Tree(Object),
    /// As they will be sent.
    Wire(Bytes),
}

impl Struct {
    /// Encodes values for sending: straight from their bytes, which are read in half the time that a
    /// walk over their tree takes, should they have one.
    pub fn encode(values: &Values) -> Result<Self, Corrupt> {
        json::to_wire(values.json()).map(|wire| Self::Wire(wire.into()))
    }

    /// Encodes an object for sending.
    pub fn from_object(object: &Object) -> Self {
        let mut sizes = Sizes::default();
        let len = sizes.object(object);
        let mut wire = Vec::with_capacity(len);
        put_object(object, &mut sizes.in_order(), &mut wire);
        Self::Wire(wire.into())
    }

    /// Bytes that an object takes on the wire.
    pub fn wire_len(object: &Object) -> usize {
        Sizes::default().object(object)
    }

    /// The decoded tree. Values that were encoded here are decoded again.
    pub fn into_object(self) -> Object {
        match self {
            Self::Tree(object) => object,
            Self::Wire(wire) => match Self::decode(wire) {
                Ok(Self::Tree(object)) => object,
                _ => Object::new(),
            },
        }
    }

    fn wire(&self) -> Bytes {
        match self {
            Self::Wire(wire) => wire.clone(),
            Self::Tree(object) => match Self::from_object(object) {
                Self::Wire(wire) => wire,
                Self::Tree(_) => Bytes::new(),
            },
        }
    }
}

impl Default for Struct {
    fn default() -> Self {
        Self::Tree(Object::new())
    }
}

impl PartialEq for Struct {
    fn eq(&self, other: &Self) -> bool {
        self.clone().into_object() == other.clone().into_object()
    }
}

impl std::fmt::Debug for Struct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&stategate_model::json::canonical(
            &self.clone().into_object(),
        ))
    }
}

impl Message for Struct {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put(self.wire());
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        if let Self::Wire(_) = self {
            *self = Self::Tree(std::mem::take(self).into_object());
        }
        let Self::Tree(object) = self else {
            return Ok(());
        };
        if tag != 1 {
            return encoding::skip_field(wire_type, tag, buf, ctx);
        }
        let mut entry = Entry::default();
        encoding::message::merge(wire_type, &mut entry, buf, ctx)?;
        object.insert(entry.key, entry.value.0);
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        match self {
            Self::Wire(wire) => wire.len(),
            Self::Tree(object) => Self::wire_len(object),
        }
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// A decode-only message. These stand inside a [`Struct`] and are never sent by themselves.
macro_rules! decode_only {
    ($name:ident) => {
        fn encode_raw(&self, _: &mut impl BufMut) {}

        fn encoded_len(&self) -> usize {
            0
        }

        fn clear(&mut self) {
            *self = $name::default();
        }
    };
}

#[derive(Debug, Default)]
struct Entry {
    key: String,
    value: Slot,
}

impl Message for Entry {
    decode_only!(Entry);

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => encoding::string::merge(wire_type, &mut self.key, buf, ctx),
            2 => encoding::message::merge(wire_type, &mut self.value, buf, ctx),
            _ => encoding::skip_field(wire_type, tag, buf, ctx),
        }
    }
}

/// A `google.protobuf.Value`; one without a kind is null.
#[derive(Debug)]
struct Slot(Value);

impl Default for Slot {
    fn default() -> Self {
        Self(Value::Null)
    }
}

impl Message for Slot {
    decode_only!(Slot);

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        self.0 = match tag {
            1 => {
                let mut ignored = 0;
                encoding::int32::merge(wire_type, &mut ignored, buf, ctx)?;
                Value::Null
            }
            2 => {
                let mut number = 0.0;
                encoding::double::merge(wire_type, &mut number, buf, ctx)?;
                Value::Number(number)
            }
            3 => {
                let mut text = String::new();
                encoding::string::merge(wire_type, &mut text, buf, ctx)?;
                Value::String(text)
            }
            4 => {
                let mut value = false;
                encoding::bool::merge(wire_type, &mut value, buf, ctx)?;
                Value::Bool(value)
            }
            5 => {
                let mut nested = Struct::default();
                encoding::message::merge(wire_type, &mut nested, buf, ctx)?;
                Value::Object(nested.into_object())
            }
            6 => {
                let mut list = List::default();
                encoding::message::merge(wire_type, &mut list, buf, ctx)?;
                Value::Array(list.0)
            }
            _ => return encoding::skip_field(wire_type, tag, buf, ctx),
        };
        Ok(())
    }
}

#[derive(Debug, Default)]
struct List(Vec<Value>);

impl Message for List {
    decode_only!(List);

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag != 1 {
            return encoding::skip_field(wire_type, tag, buf, ctx);
        }
        let mut item = Slot::default();
        encoding::message::merge(wire_type, &mut item, buf, ctx)?;
        self.0.push(item.0);
        Ok(())
    }
}

/// The lengths of nested messages, measured once in the order in which they are written: computing
/// them while writing would measure what is deep again at every level above it.
#[derive(Default)]
struct Sizes(Vec<usize>);

impl Sizes {
    fn in_order(self) -> impl Iterator<Item = usize> {
        self.0.into_iter()
    }

    fn nested(&mut self, measure: impl FnOnce(&mut Self) -> usize) -> usize {
        let at = self.0.len();
        self.0.push(0);
        let size = measure(self);
        self.0[at] = size;
        size
    }

    fn object(&mut self, object: &Object) -> usize {
        let mut total = 0;
        for (key, value) in object {
            let entry = self.nested(|sizes| {
                let value = sizes.nested(|sizes| sizes.value(value));
                delimited(key.len()) + delimited(value)
            });
            total += delimited(entry);
        }
        total
    }

    fn value(&mut self, value: &Value) -> usize {
        match value {
            Value::Null | Value::Bool(_) => 2,
            Value::Number(_) => 9,
            Value::String(text) => delimited(text.len()),
            Value::Object(object) => delimited(self.nested(|sizes| sizes.object(object))),
            Value::Array(items) => delimited(self.nested(|sizes| {
                let mut total = 0;
                for item in items {
                    total += delimited(sizes.nested(|sizes| sizes.value(item)));
                }
                total
            })),
        }
    }
}

/// A field of one tag byte, its length and `len` bytes.
pub(crate) fn delimited(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

pub(crate) fn put_delimited(tag: u8, len: usize, out: &mut Vec<u8>) {
    out.push(tag);
    encoding::encode_varint(len as u64, out);
}

fn put_object(object: &Object, sizes: &mut impl Iterator<Item = usize>, out: &mut Vec<u8>) {
    for (key, value) in object {
        put_delimited(0x0a, sizes.next().unwrap_or_default(), out);
        let size = sizes.next().unwrap_or_default();
        put_delimited(0x0a, key.len(), out);
        out.extend_from_slice(key.as_bytes());
        put_delimited(0x12, size, out);
        put_value(value, sizes, out);
    }
}

fn put_value(value: &Value, sizes: &mut impl Iterator<Item = usize>, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(&[0x08, 0]),
        Value::Number(number) => {
            out.push(0x11);
            out.extend_from_slice(&number.to_le_bytes());
        }
        Value::String(text) => {
            put_delimited(0x1a, text.len(), out);
            out.extend_from_slice(text.as_bytes());
        }
        Value::Bool(value) => out.extend_from_slice(&[0x20, u8::from(*value)]),
        Value::Object(object) => {
            put_delimited(0x2a, sizes.next().unwrap_or_default(), out);
            put_object(object, sizes, out);
        }
        Value::Array(items) => {
            put_delimited(0x32, sizes.next().unwrap_or_default(), out);
            for item in items {
                put_delimited(0x0a, sizes.next().unwrap_or_default(), out);
                put_value(item, sizes, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost_types::value::Kind;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            prop::num::f64::NORMAL.prop_map(Value::Number),
            any::<String>().prop_map(Value::String),
        ];
        leaf.prop_recursive(6, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                prop::collection::btree_map(any::<String>(), inner, 0..6).prop_map(Value::Object),
            ]
        })
    }

    fn reference(value: &Value) -> prost_types::Value {
        let kind = match value {
            Value::Null => Kind::NullValue(0),
            Value::Bool(value) => Kind::BoolValue(*value),
            Value::Number(number) => Kind::NumberValue(*number),
            Value::String(text) => Kind::StringValue(text.clone()),
            Value::Array(items) => Kind::ListValue(prost_types::ListValue {
                values: items.iter().map(reference).collect(),
            }),
            Value::Object(object) => Kind::StructValue(reference_struct(object)),
        };
        prost_types::Value { kind: Some(kind) }
    }

    fn reference_struct(object: &Object) -> prost_types::Struct {
        prost_types::Struct {
            fields: object
                .iter()
                .map(|(k, v)| (k.clone(), reference(v)))
                .collect(),
        }
    }

    proptest! {
        #[test]
        fn the_way_around_the_tree_leads_to_the_same_bytes(object in prop::collection::btree_map(any::<String>(), value(), 0..6)) {
            let tree = Struct::from_object(&object);
            let bytes = Values::from_canonical(stategate_model::json::canonical(&object));
            prop_assert_eq!(Struct::encode(&bytes).unwrap().encode_to_vec(), tree.encode_to_vec());
        }

        #[test]
        fn the_wire_is_that_of_the_well_known_type(object in prop::collection::btree_map(any::<String>(), value(), 0..6)) {
            let ours = Struct::from_object(&object);
            let bytes = ours.encode_to_vec();
            prop_assert_eq!(bytes.len(), ours.encoded_len());
            let theirs = prost_types::Struct::decode(bytes.as_slice()).unwrap();
            prop_assert_eq!(&theirs, &reference_struct(&object));
            let back = Struct::decode(theirs.encode_to_vec().as_slice()).unwrap();
            prop_assert_eq!(back.encoded_len(), bytes.len());
            prop_assert_eq!(back.into_object(), object);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Struct::decode(bytes.as_slice());
        }
    }

    #[test]
    fn nesting_beyond_the_decoder_is_an_error() {
        let mut value = Value::Null;
        for _ in 0..200 {
            value = Value::Array(vec![value]);
        }
        let deep = Struct::from_object(&Object::from([("a".to_owned(), value)]));
        assert!(Struct::decode(deep.encode_to_vec().as_slice()).is_err());
    }
}
