//! JSON as policies see it: the input of a decision, built part by part and shared between decisions.

use std::{fmt, sync::Arc};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use stategate_model::{Object, Value, Values, value::Corrupt};

/// A JSON document for a policy. Cheap to clone.
#[derive(Clone, PartialEq)]
pub struct Document(regorus::Value);

impl Document {
    /// `null`.
    pub fn null() -> Self {
        Self(regorus::Value::Null)
    }

    /// An object of these members; the later of two of one name counts.
    pub fn object<K: Into<Arc<str>>>(members: impl IntoIterator<Item = (K, Self)>) -> Self {
        let mut object = regorus::Value::new_object();
        if let Ok(map) = object.as_object_mut() {
            for (key, Self(value)) in members {
                map.insert(regorus::Value::String(key.into()), value);
            }
        }
        Self(object)
    }

    /// An array of these items.
    pub fn array(items: impl IntoIterator<Item = Self>) -> Self {
        let items: Vec<_> = items.into_iter().map(|Self(item)| item).collect();
        Self(regorus::Value::from(items))
    }

    /// As JSON text.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// What the engine has.
    pub(crate) fn of(value: regorus::Value) -> Self {
        Self(value)
    }

    /// A member of an object.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<Self> {
        let members = self.0.as_object().ok()?;
        let member = members.get(&regorus::Value::from(name))?;
        Some(Self(member.clone()))
    }

    /// What the engine takes.
    pub(crate) fn into_value(self) -> regorus::Value {
        self.0
    }
}

impl From<&str> for Document {
    fn from(text: &str) -> Self {
        Self(regorus::Value::from(text))
    }
}

impl From<Arc<str>> for Document {
    fn from(text: Arc<str>) -> Self {
        Self(regorus::Value::String(text))
    }
}

impl From<bool> for Document {
    fn from(value: bool) -> Self {
        Self(regorus::Value::Bool(value))
    }
}

impl From<i32> for Document {
    fn from(number: i32) -> Self {
        Self(regorus::Value::from(i64::from(number)))
    }
}

impl From<f64> for Document {
    /// A whole number that a double tells from its neighbours is an integer to a policy.
    fn from(number: f64) -> Self {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if number.fract() == 0.0 && number.abs() < EXACT {
            #[allow(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
            return Self(regorus::Value::from(number as i64));
        }
        Self(regorus::Value::from(number))
    }
}

impl From<&Value> for Document {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::null(),
            Value::Bool(value) => Self::from(*value),
            Value::Number(number) => Self::from(*number),
            Value::String(text) => Self::from(text.as_str()),
            Value::Array(items) => Self::array(items.iter().map(Self::from)),
            Value::Object(members) => Self::from(members),
        }
    }
}

impl From<&Object> for Document {
    fn from(members: &Object) -> Self {
        Self::object(
            members
                .iter()
                .map(|(key, value)| (key.as_str(), Self::from(value))),
        )
    }
}

/// Read from their bytes: no tree is made beside the document.
impl TryFrom<&Values> for Document {
    type Error = Corrupt;

    fn try_from(values: &Values) -> Result<Self, Corrupt> {
        let document: Self = serde_json::from_str(values.json()).map_err(|_| Corrupt)?;
        match document.0 {
            regorus::Value::Object(_) => Ok(document),
            _ => Err(Corrupt),
        }
    }
}

/// With the numbers of the model: doubles.
impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Document;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Document, E> {
                Ok(Document::null())
            }

            fn visit_bool<E>(self, value: bool) -> Result<Document, E> {
                Ok(value.into())
            }

            #[allow(
                clippy::cast_precision_loss,
                reason = "numbers are doubles, as everywhere in values"
            )]
            fn visit_i64<E>(self, value: i64) -> Result<Document, E> {
                Ok((value as f64).into())
            }

            #[allow(
                clippy::cast_precision_loss,
                reason = "numbers are doubles, as everywhere in values"
            )]
            fn visit_u64<E>(self, value: u64) -> Result<Document, E> {
                Ok((value as f64).into())
            }

            fn visit_f64<E>(self, value: f64) -> Result<Document, E> {
                Ok(value.into())
            }

            fn visit_str<E>(self, value: &str) -> Result<Document, E> {
                Ok(value.into())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Document, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Document::array(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
                let mut members: Vec<(Key, Document)> = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Document::object(members))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

/// A member's name, read into where it stays.
struct Key(Arc<str>);

impl From<Key> for Arc<str> {
    fn from(key: Key) -> Self {
        key.0
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E>(self, text: &str) -> Result<Key, E> {
                Ok(Key(text.into()))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// Its contents are somebody's: a log has no use for them.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Document")
    }
}
