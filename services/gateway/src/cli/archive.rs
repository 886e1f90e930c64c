//! The file that `export --history` writes and `import` makes again: NDJSON with a header, a line an
//! event, and a last line that says the export came to its end.
//!
//! An event stands in it with everything it has, ids, times, claims and positions included, though no
//! call can write those: whoever restores a log from such a file misses nothing.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::json::Event;

/// The version of the format.
const FORMAT: u32 = 1;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    stategate_history: u32,
    /// The log that the events are of.
    pub(crate) log_id: String,
    /// How many lanes it has.
    pub(crate) lanes: usize,
    /// Which of its events these are.
    #[serde(flatten)]
    pub(crate) selection: Selection,
}

/// Which events of a log: all of them, unless somebody asked for less.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Selection {
    pub(crate) domain: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) key: String,
    pub(crate) filter: String,
}

impl Selection {
    /// Whether it is the whole log.
    pub(crate) fn is_everything(&self) -> bool {
        [&self.domain, &self.kind, &self.key]
            .iter()
            .all(|glob| *glob == "*")
            && self.filter.is_empty()
    }
}

impl Header {
    pub(crate) fn new(log_id: String, lanes: usize, selection: Selection) -> Self {
        Self {
            stategate_history: FORMAT,
            log_id,
            lanes,
            selection,
        }
    }

    /// Reads a header, or says what it is instead.
    pub(crate) fn parse(line: &str) -> Result<Self, String> {
        let header: Self = serde_json::from_str(line)
            .map_err(|error| format!("is no header of an exported history: {error}"))?;
        if header.stategate_history != FORMAT {
            return Err(format!(
                "is an exported history of format {}, and this program knows {FORMAT}; a newer one may know it",
                header.stategate_history
            ));
        }
        Ok(header)
    }
}

/// Whether a file that begins so is an exported history.
pub(crate) fn is_history(first: &[u8]) -> bool {
    first.starts_with(b"{\"stategate_history\":")
}

/// The last line of a whole export.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct End {
    /// How far the log was read.
    pub(crate) end: String,
}

/// An event as it is written.
pub(crate) type Line = Event;

/// An event as it is read: what makes it again, and where it was.
#[derive(Debug, Deserialize)]
pub(crate) struct Record<'l> {
    #[serde(borrow)]
    pub(crate) entity: Named<'l>,
    pub(crate) method: String,
    pub(crate) version: String,
    #[serde(default)]
    pub(crate) lane: u8,
    pub(crate) position: String,
}

/// An event as it is read, with everything it has.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Restored<'l> {
    pub(crate) id: String,
    #[serde(borrow)]
    pub(crate) entity: Named<'l>,
    #[serde(borrow, default)]
    pub(crate) claims: Option<&'l RawValue>,
    pub(crate) time: String,
    pub(crate) method: String,
    pub(crate) version: String,
    #[serde(default)]
    pub(crate) lane: u8,
    pub(crate) position: String,
    #[serde(default)]
    pub(crate) trace_parent: String,
}

/// The entity of an event.
#[derive(Debug, Deserialize)]
pub(crate) struct Named<'l> {
    pub(crate) domain: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) key: String,
    #[serde(borrow)]
    pub(crate) values: &'l RawValue,
}

#[cfg(test)]
mod tests {
    use stategate_client::Method;

    use super::*;
    use crate::cli::json::tests::event;

    fn selection() -> Selection {
        Selection {
            domain: "*".to_owned(),
            kind: "*".to_owned(),
            key: "*".to_owned(),
            filter: String::new(),
        }
    }

    /// What was once written must be read for ever.
    #[test]
    fn the_format_is_frozen() {
        let header = Header::new("6f96".to_owned(), 1, selection());
        let line = r#"{"stategate_history":1,"log_id":"6f96","lanes":1,"domain":"*","type":"*","key":"*","filter":""}"#;
        assert_eq!(serde_json::to_string(&header).unwrap(), line);
        assert_eq!(Header::parse(line).unwrap(), header);
        assert!(is_history(line.as_bytes()));
        let newer = line.replace("\"stategate_history\":1", "\"stategate_history\":2");
        assert!(Header::parse(&newer).unwrap_err().contains("format 2"));

        let line = Line::from(&event(2, Method::Edit, r#"{"alt":14}"#));
        let line = serde_json::to_string(&line).unwrap();
        let record: Record<'_> = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (record.version.as_str(), record.position.as_str()),
            ("2", "8")
        );
        assert_eq!(
            (record.lane, record.entity.values.get()),
            (0, r#"{"alt":14}"#)
        );
        assert_eq!(record.method, Method::Edit.as_str());
    }
}
