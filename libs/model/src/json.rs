//! JSON text in and out, strictly: what a double cannot hold, duplicate keys and nesting that no
//! decoder survives are refused rather than bent.
//!
//! The parsing itself is serde_json's; this module adds what JSON leaves open and stategate does not.

use std::fmt;

use serde::{
    de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor},
    ser::{SerializeMap, SerializeSeq},
};

use crate::{
    limits::{MESSAGE_BYTES, VALUE_DEPTH},
    tree::{Object, Value},
};

/// Deepest nesting the parser enters. Above what values and filters allow, so that those can name
/// the level they refuse; far below what would exhaust a stack.
const PARSE_DEPTH: usize = 64;
const _: () = assert!(PARSE_DEPTH > VALUE_DEPTH);

/// A JSON document as it was written: members in order, whole numbers exact.
///
/// The form filters are read from, where the first member decides and an `int64` must not pass
/// through a double.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number written without fraction or exponent, that an `i64` holds.
    Integer(i64),
    /// Any other number.
    Number(f64),
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object: its members in order, no key twice.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// As a value. `None` for an integer (or one within) that a double does not hold.
    pub fn to_value(&self) -> Option<Value> {
        Some(match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Integer(value) => Value::Number(exact(*value)?),
            Self::Number(value) => Value::Number(if *value == 0.0 { 0.0 } else { *value }),
            Self::String(text) => Value::String(text.clone()),
            Self::Array(items) => {
                Value::Array(items.iter().map(Self::to_value).collect::<Option<_>>()?)
            }
            Self::Object(members) => Value::Object(
                members
                    .iter()
                    .map(|(key, item)| Some((key.clone(), item.to_value()?)))
                    .collect::<Option<_>>()?,
            ),
        })
    }
}

/// The double equal to an integer, if there is one.
pub fn exact(value: i64) -> Option<f64> {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "the comparison finds any loss"
    )]
    {
        let double = value as f64;
        (double as i128 == i128::from(value)).then_some(double)
    }
}

/// Parses a JSON document.
///
/// The error says what is wrong and where, without a field name: duplicate keys, integers that
/// neither an `i64` nor a double holds, nesting beyond 64 levels, and whatever is not JSON.
pub fn parse(text: &str) -> Result<Json, String> {
    if text.len() > MESSAGE_BYTES {
        return Err(format!(
            "is {} bytes long; at most {MESSAGE_BYTES} are allowed",
            text.len()
        ));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let json = Strict { depth: 0 }
        .deserialize(&mut reader)
        .and_then(|json| reader.end().map(|()| json))
        .map_err(|error| format!("is not JSON: {error}"))?;
    match inexact_integer(text) {
        Some(digits) => Err(format!(
            "has the integer {digits}, which a double cannot hold; send it as a string"
        )),
        None => Ok(json),
    }
}

/// Parses a JSON object as values, with every integer one that a double holds.
pub fn parse_object(text: &str) -> Result<Object, String> {
    match parse(text)? {
        Json::Object(members) => {
            let mut object = Object::new();
            for (key, member) in members {
                let Some(value) = member.to_value() else {
                    return Err(format!(
                        "has an integer at `{key}` that a double cannot hold; send it as a string"
                    ));
                };
                object.insert(key, value);
            }
            Ok(object)
        }
        _ => Err("is not a JSON object".to_owned()),
    }
}

/// Writes an object in canonical form (see [`crate::value`]).
pub fn canonical(object: &Object) -> String {
    let mut out = Vec::with_capacity(256);
    let mut writer = serde_json::Serializer::new(&mut out);
    // Neither the tree (whose keys are strings) nor a vector can fail to be written.
    let written = serde::Serialize::serialize(&Members(object), &mut writer);
    debug_assert!(written.is_ok());
    String::from_utf8(out).unwrap_or_default()
}

/// Writes a value in canonical form.
pub fn canonical_value(value: &Value) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Reads canonical bytes back; `None` when they are no object.
pub(crate) fn from_canonical(text: &str) -> Option<Object> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}

/// The first integer literal of a valid document beyond `i64` that no double equals.
///
/// The parser hands such literals on as rounded doubles, so they are looked for in the text.
fn inexact_integer(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += 1;
                while let Some(&inner) = bytes.get(at) {
                    match inner {
                        b'\\' => at += 2,
                        b'"' => break,
                        _ => at += 1,
                    }
                }
                at += 1;
            }
            b'0'..=b'9' => {
                let start = at;
                while bytes
                    .get(at)
                    .is_some_and(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'))
                {
                    at += 1;
                }
                let literal = &text[start..at];
                let whole = literal.bytes().all(|b| b.is_ascii_digit());
                if whole && literal.len() >= 19 && literal.parse::<i64>().is_err() {
                    let held = literal
                        .parse::<f64>()
                        .is_ok_and(|double| exact_digits(double) == literal);
                    if !held {
                        return Some(literal);
                    }
                }
            }
            _ => at += 1,
        }
    }
    None
}

/// All digits of a whole double of 2^63 or more.
fn exact_digits(double: f64) -> String {
    // `{:.0}` prints the exact decimal expansion.
    format!("{double:.0}")
}

struct Strict {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Json;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Strict {
    fn deeper<E: de::Error>(&self) -> Result<Self, E> {
        if self.depth >= PARSE_DEPTH {
            return Err(E::custom(format_args!(
                "nested deeper than {PARSE_DEPTH} levels"
            )));
        }
        Ok(Self {
            depth: self.depth + 1,
        })
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        // Beyond `i64`, `inexact_integer` refuses what the conversion would round.
        #[allow(
            clippy::cast_precision_loss,
            reason = "inexact integers are refused by text"
        )]
        Ok(i64::try_from(value).map_or(Json::Number(value as f64), Json::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self.deeper()?)? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        let mut seen = std::collections::HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                let shown: String = key.chars().take(64).collect();
                return Err(de::Error::custom(format_args!(
                    "the key `{shown}` stands twice in one object"
                )));
            }
            members.push((key, map.next_value_seed(self.deeper()?)?));
        }
        Ok(Json::Object(members))
    }
}

struct Members<'a>(&'a Object);

impl serde::Serialize for Members<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// The canonical form of a value.
impl serde::Serialize for Value {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// Whole doubles below this are written as digits.
        const WHOLE: f64 = 9_007_199_254_740_992.0;
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            #[allow(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
            Self::Number(n) if n.fract() == 0.0 && n.abs() < WHOLE => {
                serializer.serialize_i64(*n as i64)
            }
            Self::Number(number) => serializer.serialize_f64(*number),
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(items) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    seq.serialize_element(item)?;
                }
                seq.end()
            }
            Self::Object(members) => Members(members).serialize(serializer),
        }
    }
}

impl<'de> de::Deserialize<'de> for Value {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Plain;
        impl<'de> Visitor<'de> for Plain {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }

            #[allow(
                clippy::cast_precision_loss,
                reason = "canonical integers are below 2^53"
            )]
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Number(value as f64))
            }

            #[allow(
                clippy::cast_precision_loss,
                reason = "canonical integers are below 2^53"
            )]
            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value::Number(value as f64))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::Number(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::String(value.to_owned()))
            }

            fn visit_string<E>(self, value: String) -> Result<Value, E> {
                Ok(Value::String(value))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Value::Array(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut members = Object::new();
                while let Some((key, value)) = map.next_entry()? {
                    members.insert(key, value);
                }
                Ok(Value::Object(members))
            }
        }
        deserializer.deserialize_any(Plain)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers_that_no_double_holds_are_refused() {
        for good in [
            "9007199254740992",
            "1152921504606846976",
            "18446744073709551616",
            "100000000000000000000",
            "1e22",
            "-9223372036854775808",
            "9007199254740993.0",
        ] {
            assert!(parse_object(&format!("{{\"a\":{good}}}")).is_ok(), "{good}");
        }
        for bad in [
            "9007199254740993",
            "18446744073709551615",
            "123456789012345678901",
            "-9223372036854775809",
            "9223372036854775807",
            "1e400",
        ] {
            assert!(
                parse_object(&format!("{{\"a\":[{bad}]}}")).is_err(),
                "{bad}"
            );
        }
        // Digits inside strings are no numbers.
        assert!(parse_object(r#"{"a\\":"123456789012345678901\"123456789012345678901"}"#).is_ok());
    }

    #[test]
    fn duplicates_depth_and_rubbish_are_refused() {
        assert!(parse(r#"{"a":1,"a":1}"#).unwrap_err().contains("twice"));
        assert!(parse(&"[".repeat(100_000)).unwrap_err().contains("nested"));
        for bad in [
            "",
            "{",
            "nul",
            "{}{}",
            "{\"a\":NaN}",
            "{\"a\":01}",
            "'a'",
            "{\"a\":\"\u{1}\"}",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            prop::num::f64::NORMAL.prop_map(Value::Number),
            any::<i32>().prop_map(|n| Value::Number(f64::from(n))),
            any::<String>().prop_map(Value::String),
        ];
        leaf.prop_recursive(5, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                prop::collection::btree_map(any::<String>(), inner, 0..6).prop_map(Value::Object),
            ]
        })
    }

    proptest! {
        #[test]
        fn canonical_form_reads_back_equal(members in prop::collection::btree_map(any::<String>(), value(), 0..6)) {
            let text = canonical(&members);
            let read = from_canonical(&text);
            prop_assert_eq!(read.as_ref(), Some(&members));
            prop_assert_eq!(parse_object(&text), Ok(members));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = parse(&text);
        }
    }
}
