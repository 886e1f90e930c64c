//! Entity values: a JSON object within the limits of contract §4, and its canonical bytes.
//!
//! The canonical form is the truth that storages keep: keys sorted by their UTF-8 bytes, no white
//! space, whole numbers below 2^53 as digits and every other number in the shortest form that reads
//! back as the same double (with an exponent where it is large, so that it is never an integer that
//! a double cannot hold). Equal values have equal bytes.

use std::{
    fmt,
    sync::{Arc, LazyLock, OnceLock},
};

use crate::{
    Invalid, json,
    limits::{self, Limits},
};

pub use crate::tree::{Object, Value};

/// An entity's values: an object known to be within the limits, cheap to clone.
///
/// Holds the canonical bytes, and the tree once somebody looked at it with [`Values::object`]. The tree
/// of small objects takes up to a hundred times the room of their bytes, so that what waits, is queued or
/// kept is counted in bytes and holds no tree.
#[derive(Clone)]
pub struct Values(Arc<Inner>);

struct Inner {
    json: Arc<str>,
    tree: OnceLock<Object>,
}

/// Stored bytes that are no canonical values: the storage was damaged or written by something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stored values are not a JSON object")]
pub struct Corrupt;

impl Values {
    /// Values within the limits, or what is wrong with them; the field is `values` or a path in it.
    ///
    /// `-0` becomes `0`.
    pub fn new(mut object: Object, limits: &Limits) -> Result<Self, Invalid> {
        let mut path = Trail::default();
        for (key, value) in &mut object {
            path.enter_key(key, |path| settle(value, 1, path))?;
        }
        let values = Self::from_canonical(json::canonical(&object));
        values.check_size(limits)?;
        Ok(values)
    }

    /// Refuses values that are over their size, which may have been another when they were written.
    pub fn check_size(&self, limits: &Limits) -> Result<(), Invalid> {
        let size = self.size();
        if size <= limits.value_bytes {
            return Ok(());
        }
        Err(Invalid::too_large(
            "values",
            format!(
                "are {size} bytes as canonical JSON; at most {} are allowed",
                limits.value_bytes
            ),
        ))
    }

    /// The empty object.
    pub fn empty() -> Self {
        // Every event has claims, and while authentication is off they are empty.
        static EMPTY: LazyLock<Values> = LazyLock::new(|| {
            Values(Arc::new(Inner {
                json: "{}".into(),
                tree: OnceLock::from(Object::new()),
            }))
        });
        EMPTY.clone()
    }

    /// Values from canonical bytes that [`Values::json`] once gave. Not checked here: the bytes are
    /// trusted as far as the storage is, and [`Values::object`] finds those that are no object.
    pub fn from_canonical(json: impl Into<Arc<str>>) -> Self {
        Self(Arc::new(Inner {
            json: json.into(),
            tree: OnceLock::new(),
        }))
    }

    /// The canonical bytes.
    pub fn json(&self) -> &str {
        &self.0.json
    }

    /// The values as a tree of the caller's own, which is not kept here.
    pub fn to_object(&self) -> Result<Object, Corrupt> {
        match self.0.tree.get() {
            Some(tree) => Ok(tree.clone()),
            None => json::from_canonical(&self.0.json).ok_or(Corrupt),
        }
    }

    /// The values as a tree, parsed on first use and kept: for those who look often.
    pub fn object(&self) -> Result<&Object, Corrupt> {
        if let Some(tree) = self.0.tree.get() {
            return Ok(tree);
        }
        let tree = self.to_object()?;
        Ok(self.0.tree.get_or_init(|| tree))
    }

    /// Whether nobody has looked at the tree.
    #[cfg(test)]
    pub(crate) fn holds_no_tree(&self) -> bool {
        self.0.tree.get().is_none()
    }

    /// The same values without the tree that somebody may have looked at: for keeping.
    #[must_use]
    pub fn lean(&self) -> Self {
        Self(Arc::new(Inner {
            json: Arc::clone(&self.0.json),
            tree: OnceLock::new(),
        }))
    }

    /// Whether somebody looked at the values, so that they hold their tree.
    pub fn has_tree(&self) -> bool {
        self.0.tree.get().is_some()
    }

    /// Bytes of the canonical form.
    pub fn size(&self) -> usize {
        self.0.json.len()
    }
}

impl PartialEq for Values {
    fn eq(&self, other: &Self) -> bool {
        self.0.json == other.0.json
    }
}

impl Eq for Values {}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.json)
    }
}

/// The way to the value being checked, to name it when it is refused.
#[derive(Default)]
struct Trail(String);

impl Trail {
    fn enter_key<T>(
        &mut self,
        key: &str,
        then: impl FnOnce(&mut Self) -> Result<T, Invalid>,
    ) -> Result<T, Invalid> {
        let mark = self.0.len();
        self.0.push('.');
        // A key may be 4 MiB long; its beginning is enough to find it by.
        self.0.extend(key.chars().take(64).filter(|c| *c != '\0'));
        if key.contains('\0') {
            return Err(self.refuse("has a key with the character U+0000, which is not allowed"));
        }
        let out = then(self);
        self.0.truncate(mark);
        out
    }

    fn enter_index<T>(
        &mut self,
        index: usize,
        then: impl FnOnce(&mut Self) -> Result<T, Invalid>,
    ) -> Result<T, Invalid> {
        use fmt::Write as _;
        let mark = self.0.len();
        let _ = write!(self.0, "[{index}]");
        let out = then(self);
        self.0.truncate(mark);
        out
    }

    fn refuse(&self, problem: &'static str) -> Invalid {
        Invalid::new(format!("values{}", self.0), problem)
    }
}

/// Checks one value found inside a container at `level`, and turns `-0` into `0`.
fn settle(value: &mut Value, level: usize, path: &mut Trail) -> Result<(), Invalid> {
    match value {
        Value::Null | Value::Bool(_) => Ok(()),
        Value::Number(number) if !number.is_finite() => {
            Err(path.refuse("is NaN or infinite, which JSON cannot hold"))
        }
        Value::Number(number) => {
            if *number == 0.0 {
                *number = 0.0;
            }
            Ok(())
        }
        Value::String(text) if text.contains('\0') => {
            Err(path.refuse("has the character U+0000, which is not allowed"))
        }
        Value::String(_) => Ok(()),
        Value::Array(_) | Value::Object(_) if level >= limits::VALUE_DEPTH => Err(path
            .refuse("is nested too deep: at most 24 levels are allowed, `values` being the first")),
        Value::Array(items) => items
            .iter_mut()
            .enumerate()
            .try_for_each(|(i, item)| path.enter_index(i, |path| settle(item, level + 1, path))),
        Value::Object(members) => members
            .iter_mut()
            .try_for_each(|(key, item)| path.enter_key(key, |path| settle(item, level + 1, path))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object {
        json::parse_object(text).unwrap()
    }

    fn nested(levels: usize) -> Object {
        let mut value = Value::Null;
        for _ in 1..levels {
            value = Value::Array(vec![value]);
        }
        Object::from([("a".to_owned(), value)])
    }

    #[test]
    fn canonical_bytes_are_stable() {
        let values = Values::new(
            object(r#"{"b":[1,2.5,-0,1e300,1152921504606846976,0.1],"a":{"":null,"é":"\u0007\n\"\\"},"z":true}"#),
            &Limits::default(),
        )
        .unwrap();
        assert_eq!(
            values.json(),
            "{\"a\":{\"\":null,\"é\":\"\\u0007\\n\\\"\\\\\"},\"b\":[1,2.5,0,1e+300,1.152921504606847e+18,0.1],\"z\":true}"
        );
        let again = Values::from_canonical(values.json());
        assert_eq!(again.object().unwrap(), values.object().unwrap());
    }

    #[test]
    fn depth_is_capped_at_24() {
        assert!(Values::new(nested(24), &Limits::default()).is_ok());
        let refused = Values::new(nested(25), &Limits::default()).unwrap_err();
        assert!(refused.problem.contains("nested too deep"), "{refused}");
        assert!(refused.field.starts_with("values.a[0]"), "{refused}");
    }

    #[test]
    fn what_json_cannot_hold_is_refused_by_path() {
        for (value, field) in [
            (Value::Number(f64::NAN), "values.x.y"),
            (Value::Number(f64::INFINITY), "values.x.y"),
            (Value::String("a\0".into()), "values.x.y"),
            (
                Value::Object(Object::from([("k\0".into(), Value::Null)])),
                "values.x.y.k",
            ),
        ] {
            let object = Object::from([(
                "x".to_owned(),
                Value::Object(Object::from([("y".to_owned(), value)])),
            )]);
            assert_eq!(
                Values::new(object, &Limits::default()).unwrap_err().field,
                field
            );
        }
    }

    #[test]
    fn size_is_that_of_the_canonical_form() {
        let limits = Limits { value_bytes: 10 };
        assert!(Values::new(object(r#"{"a": "12" }"#), &limits).is_ok());
        let refused = Values::new(object(r#"{"a":"123"}"#), &limits).unwrap_err();
        assert_eq!(refused.reason, crate::Reason::RequestTooLarge);
    }
}
