//! JSON values as trees, with the numbers that stategate has.

use std::collections::BTreeMap;

/// A JSON object.
pub type Object = BTreeMap<String, Value>;

/// A JSON value with proto3's numbers: doubles.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A finite double, never `-0`.
    Number(f64),
    /// A string without U+0000.
    String(String),
    /// An array.
    Array(Vec<Value>),
    /// An object.
    Object(Object),
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}
