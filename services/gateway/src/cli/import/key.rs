//! How the key of a row is made of its columns.

use std::{borrow::Cow, str::FromStr};

use stategate_model::{Object, Value, json};

use super::row::RowError;

/// A column, or a text with columns in it: `tailnum`, `{carrier}{flight}-{origin}-{time_hour}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Column(String),
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err(
                "is empty; name a column, or a template such as {carrier}{flight}".to_owned(),
            );
        }
        if !text.contains(['{', '}']) {
            return Ok(Self(vec![Part::Column(text.to_owned())]));
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let found = &rest[at..];
            if let Some(after) = found
                .strip_prefix("{{")
                .or_else(|| found.strip_prefix("}}"))
            {
                literal.push_str(&found[..1]);
                rest = after;
                continue;
            }
            let column = found
                .strip_prefix('{')
                .and_then(|inner| inner.split_once('}'))
                .filter(|(column, _)| !column.contains('{'));
            let Some((column, after)) = column else {
                return Err(format!(
                    "`{text}` has a brace without its partner; write {{{{ or }}}} for a brace itself"
                ));
            };
            if column.is_empty() {
                return Err(format!("`{text}` has {{}}, which names no column"));
            }
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Column(column.to_owned()));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        if !parts.iter().any(|part| matches!(part, Part::Column(_))) {
            return Err(format!(
                "`{text}` names no column, so every row would be the same entity"
            ));
        }
        Ok(Self(parts))
    }
}

impl Template {
    /// One column.
    pub(crate) fn column(name: &str) -> Self {
        Self(vec![Part::Column(name.to_owned())])
    }

    /// The columns that a key is made of.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Column(column) => Some(column.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The key of a row. `column` answers the text of a column as the file has it, or why there is
    /// none.
    ///
    /// A name may not hold white space (contract §1). It is refused by its column, unless the user
    /// named what to put in its place: two rows must not become one entity unasked.
    pub(crate) fn render<'r>(
        &self,
        space: Option<&str>,
        mut column: impl FnMut(&str) -> Result<Cow<'r, str>, &'static str>,
    ) -> Result<String, RowError> {
        let mut key = String::new();
        for part in &self.0 {
            let name = match part {
                Part::Text(text) => {
                    key.push_str(text);
                    continue;
                }
                Part::Column(name) => name,
            };
            let text = column(name)
                .map_err(|why| RowError::column(name, format!("{why}; the key needs it")))?;
            match space {
                Some(space) if text.contains(char::is_whitespace) => {
                    let words: Vec<_> = text.split_whitespace().collect();
                    key.push_str(&words.join(space));
                }
                _ => key.push_str(&text),
            }
            let bad = text
                .chars()
                .find(|c| c.is_control() || (space.is_none() && c.is_whitespace()));
            if let Some(c) = bad {
                let what = if c.is_whitespace() {
                    "has white space, which a key may not hold; --key-space _ puts _ in its place"
                } else {
                    "has a control character, which a key may not hold"
                };
                return Err(RowError::column(name, what));
            }
        }
        Ok(key)
    }
}

/// The text of a JSON row's column in a key.
pub(crate) fn of_json<'r>(row: &'r Object, column: &str) -> Result<Cow<'r, str>, &'static str> {
    match row.get(column) {
        None => Err("is missing"),
        Some(Value::Null) => Err("is null"),
        Some(Value::Array(_) | Value::Object(_)) => Err("is neither a string nor a number"),
        Some(Value::String(text)) if text.is_empty() => Err("is empty"),
        Some(Value::String(text)) => Ok(Cow::Borrowed(text)),
        Some(other) => Ok(Cow::Owned(json::canonical_value(other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(template: &str, space: Option<&str>, row: &str) -> Result<String, String> {
        let template: Template = template.parse()?;
        let row = json::parse_object(row).unwrap();
        template
            .render(space, |column| of_json(&row, column))
            .map_err(|refused| refused.to_string())
    }

    #[test]
    fn a_key_is_a_column_or_a_template() {
        let row = r#"{"faa":"04G","carrier":"UA","flight":1545,"origin":"EWR","time_hour":"2013-01-01T10:00:00Z"}"#;
        for (template, expected) in [
            ("faa", "04G"),
            ("{faa}", "04G"),
            ("flight", "1545"),
            (
                "{carrier}{flight}-{origin}-{time_hour}",
                "UA1545-EWR-2013-01-01T10:00:00Z",
            ),
            ("{{{faa}}}", "{04G}"),
            ("x{{y}}{faa}z", "x{y}04Gz"),
        ] {
            assert_eq!(
                key(template, None, row).as_deref(),
                Ok(expected),
                "{template}"
            );
        }
    }

    #[test]
    fn templates_that_cannot_be_meant_are_refused() {
        for wrong in [
            "",
            "{",
            "}",
            "{faa",
            "faa}",
            "{}",
            "{{faa}}",
            "a{b{c}}",
            "plain}{x}",
        ] {
            assert!(wrong.parse::<Template>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn rows_without_a_key_are_refused_by_their_column() {
        let row = r#"{"a":null,"b":[1],"c":"","d":"x y","e":"x\u0001y"}"#;
        for (template, why) in [
            ("z", "column `z`: is missing; the key needs it"),
            ("a", "column `a`: is null; the key needs it"),
            (
                "b",
                "column `b`: is neither a string nor a number; the key needs it",
            ),
            ("c", "column `c`: is empty; the key needs it"),
            (
                "{d}",
                "column `d`: has white space, which a key may not hold; --key-space _ puts _ in its place",
            ),
            (
                "{e}",
                "column `e`: has a control character, which a key may not hold",
            ),
        ] {
            assert_eq!(key(template, None, row).unwrap_err(), why);
        }
    }

    #[test]
    fn white_space_is_replaced_only_when_asked() {
        assert_eq!(
            key("{t}-{n}", Some("_"), r#"{"t":"2013-01-01  05:00 ","n":1}"#).as_deref(),
            Ok("2013-01-01_05:00-1")
        );
        assert_eq!(key("t", Some(""), r#"{"t":"a b"}"#).as_deref(), Ok("ab"));
    }
}
