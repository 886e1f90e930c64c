//! The cells of a sheet, as `export` writes them and `import` reads them again.
//!
//! A spreadsheet takes a cell that begins with `=`, `+`, `-`, `@`, a tab or a line break for a formula,
//! and a stored text must not become one. So an apostrophe stands before such a text, and is taken away
//! when the sheet is imported. Before what else would not come back as it was, too: a text that is JSON,
//! one that already looks as if it had such an apostrophe, and the empty one. Numbers are no texts, and
//! stay what they are.
//!
//! CSV does not tell the text `5` from the number, and null from nothing. Quotes do, which readers of CSV
//! make nothing of: `"5"` is a text and `""` null; an empty cell without them is a value that the entity
//! does not have.

use std::borrow::Cow;

use serde_json::Value;
use stategate_model::{self as model, json};

/// The columns that say which entity a row is: where all are of one type, and where they are not.
pub(crate) const OF_ONE: &[&str] = &["@key", "@version"];
pub(crate) const OF_MANY: &[&str] = &["@domain", "@type", "@key", "@version"];

const APOSTROPHE: char = '\'';

/// A cell as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    is_quoted: bool,
}

impl Cell {
    /// Text as it is.
    pub(crate) fn bare(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            is_quoted: false,
        }
    }

    /// Text that is no formula.
    pub(crate) fn text(text: &str) -> Self {
        Self::bare(match is_marked(text) {
            true => format!("{APOSTROPHE}{text}"),
            false => text.to_owned(),
        })
    }

    /// A value, or that there is none.
    pub(crate) fn value(value: Option<&Value>) -> Self {
        match value {
            None => Self::bare(""),
            Some(Value::Null) => Self {
                text: String::new(),
                is_quoted: true,
            },
            Some(Value::String(text)) => Self {
                is_quoted: !is_marked(text) && scalar(text).is_some(),
                ..Self::text(text)
            },
            Some(other) => Self::bare(other.to_string()),
        }
    }

    /// As it stands in a file.
    pub(crate) fn written(&self, delimiter: u8) -> Cow<'_, str> {
        // Other programs may take other characters for the end of a cell.
        let special = |c: char| c == char::from(delimiter) || ",;\t\"\r\n".contains(c);
        if self.is_quoted || self.text.contains(special) {
            Cow::Owned(format!("\"{}\"", self.text.replace('"', "\"\"")))
        } else {
            Cow::Borrowed(&self.text)
        }
    }
}

/// Text as it was before [`Cell::text`].
pub(crate) fn text_of(cell: &str) -> &str {
    unmarked(cell).unwrap_or(cell)
}

/// The value that [`Cell::value`] wrote; `None` where there was none.
pub(crate) fn value_of(cell: &str, is_quoted: bool) -> Option<model::Value> {
    if let Some(text) = unmarked(cell) {
        return Some(model::Value::from(text));
    }
    match (cell, is_quoted) {
        ("", true) => Some(model::Value::Null),
        ("", false) => None,
        _ => Some(
            nested(cell)
                .or_else(|| scalar(cell).filter(|_| !is_quoted))
                .unwrap_or_else(|| model::Value::from(cell)),
        ),
    }
}

/// Whether a text needs an apostrophe: it would be taken for a formula, or for JSON, or for nothing, or
/// for a text that has one.
fn is_marked(text: &str) -> bool {
    let text = text.trim_start_matches(APOSTROPHE);
    match text.chars().next() {
        None => true,
        // The wide ones are taken for the others, where people write in them.
        Some('=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '＝' | '＋' | '－' | '＠') => true,
        Some('{' | '[') => nested(text).is_some(),
        Some(_) => false,
    }
}

fn unmarked(cell: &str) -> Option<&str> {
    let text = cell.strip_prefix(APOSTROPHE)?;
    is_marked(text).then_some(text)
}

fn nested(text: &str) -> Option<model::Value> {
    text.starts_with(['{', '['])
        .then(|| json::parse(text).ok()?.to_value())?
}

/// A number or boolean, as JSON writes them.
fn scalar(text: &str) -> Option<model::Value> {
    let begins = |c: char| c.is_ascii_digit() || matches!(c, '-' | 't' | 'f');
    if !text.starts_with(begins) || text.ends_with(char::is_whitespace) {
        return None;
    }
    json::parse(text).ok()?.to_value()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(value: &Value) {
        let cell = Cell::value(Some(value));
        let read = value_of(&cell.text, cell.is_quoted).unwrap();
        let expected = json::parse(&value.to_string()).unwrap().to_value().unwrap();
        assert_eq!(read, expected, "{value} as {cell:?}");
        if let Value::String(_) = value {
            let first = cell.text.chars().next();
            assert!(
                !first.is_some_and(|c| "=+-@\t\r\n".contains(c)),
                "{value} as {cell:?}"
            );
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for text in [
            "",
            "'",
            "''",
            "x",
            "'x",
            "=1+1",
            "'=1+1",
            "''=1",
            "+1",
            "-5",
            "@x",
            "\tx",
            "\rx",
            "\n=1",
            "5",
            "007",
            "1e5",
            "1E+21",
            "true",
            "false",
            "null",
            "NA",
            "{}",
            "[1]",
            "{\"a\":1}",
            "'[1]",
            "[draft] x",
            "{x",
            "-",
            "=",
            "＝1",
            " =1",
            "5 ",
            "9007199254740993",
        ] {
            round_trip(&Value::from(text));
            assert_eq!(text_of(&Cell::text(text).text), text);
        }
        for json in [
            "null",
            "true",
            "false",
            "0",
            "-5",
            "1.5",
            "1e300",
            "-1e-7",
            "1e21",
            "{}",
            "[]",
            r#"{"a":[null,"=1",{"b":"'"}]}"#,
        ] {
            round_trip(&serde_json::from_str(json).unwrap());
        }
        assert_eq!(value_of("", false), None);
        assert_eq!(
            value_of("9007199254740993", false),
            Some("9007199254740993".into())
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_again(text in "['=+@\\-\\t\\r\\n{}\\[\\]0-9a-z\" ,;]{0,8}") {
            round_trip(&Value::from(text));
        }
    }
}
