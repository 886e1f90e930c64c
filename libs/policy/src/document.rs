//! JSON as policies see it: the input of a decision, built part by part and shared between decisions.

use std::sync::Arc;

use stategate_model::{Object, Value};

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

impl From<bool> for Document {
    fn from(value: bool) -> Self {
        Self(regorus::Value::Bool(value))
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

/// Its contents are somebody's: a log has no use for them.
impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Document")
    }
}
