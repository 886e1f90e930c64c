//! The file that `export --history` writes and `import` makes again: NDJSON with a header, a line an
//! event, and a last line that says the export came to its end.
//!
//! An event stands in it with everything it has, ids, times, claims and positions included, though no
//! call can write those: whoever restores a log from such a file misses nothing.

use std::io::{BufRead, Read as _};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use stategate_model::{
    Claims, EntityRef, Event, EventId, Lane, Lanes, Limits, LogId, Method, Position, Timestamp,
    Token, TraceParent, Values, Version, json as strict,
};
use stategate_storage::transfer::{Scope, Sequence};
use uuid::Uuid;

use super::{failure::Failure, json};

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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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

    /// Which log it is of.
    pub(crate) fn identity(&self) -> Option<(LogId, Lanes)> {
        let log_id = Uuid::parse_str(&self.log_id).ok()?;
        let lanes = Lanes::new(u8::try_from(self.lanes).ok()?).ok()?;
        Some((LogId(log_id), lanes))
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
pub(crate) type Line = json::Event;

/// An event as it is read, with everything it has.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written<'l> {
    id: String,
    #[serde(borrow)]
    entity: Named<'l>,
    #[serde(borrow, default)]
    claims: Option<&'l RawValue>,
    time: String,
    method: String,
    version: String,
    #[serde(default)]
    lane: u8,
    position: String,
    #[serde(default)]
    trace_parent: String,
}

/// The entity of an event.
#[derive(Debug, Deserialize)]
struct Named<'l> {
    domain: String,
    #[serde(rename = "type")]
    kind: String,
    key: String,
    #[serde(borrow)]
    values: &'l RawValue,
}

/// An event from its line.
fn event(line: &str) -> Result<Event, String> {
    let written: Written<'_> = serde_json::from_str(line)
        .map_err(|error| format!("is no event of an exported history: {error}"))?;
    let is_not = |field: &'static str| format!("has no legal `{field}`");
    let position: u64 = written.position.parse().map_err(|_| is_not("position"))?;
    let version: u64 = written.version.parse().map_err(|_| is_not("version"))?;
    let entity = &written.entity;
    Ok(Event {
        id: EventId::parse(&written.id).map_err(|_| is_not("id"))?,
        entity: EntityRef::new(&entity.domain, &entity.kind, &entity.key)
            .map_err(|invalid| format!("has no legal `entity`: {invalid}"))?,
        values: values(entity.values)
            .map_err(|problem| format!("has no legal `entity.values`: {problem}"))?,
        version: Version::new(version),
        lane: Lane(written.lane),
        position: Position::new(position),
        time: written
            .time
            .parse()
            .map(Timestamp)
            .map_err(|_| is_not("time"))?,
        method: Method::parse(&written.method).ok_or_else(|| is_not("method"))?,
        claims: match written.claims {
            Some(claims) => Claims::from_stored(
                values(claims).map_err(|problem| format!("has no legal `claims`: {problem}"))?,
            ),
            None => Claims::none(),
        },
        trace_parent: match written.trace_parent.as_str() {
            "" => None,
            text => Some(TraceParent::parse(text).ok_or_else(|| is_not("traceParent"))?),
        },
    })
}

/// Values as they were, whatever the limits were then.
fn values(json: &RawValue) -> Result<Values, String> {
    let object = strict::parse_object(json.get())?;
    let limits = Limits {
        value_bytes: usize::MAX,
    };
    Values::new(object, &limits).map_err(|invalid| invalid.to_string())
}

/// Most bytes of a line: the largest values and claims with every byte written as an escape. A file that
/// is not what it seems must not be read into memory to its end.
const LINE_BYTES: u64 = 32 << 20;

/// What a line of a history is.
#[derive(Debug)]
pub(crate) enum Item {
    Event(Box<Event>),
    /// The export came to its end here.
    End(Token),
}

/// An exported history as it is read: a line at a time, each in its place after those before it.
pub(crate) struct Reader<R> {
    input: R,
    header: Header,
    /// What it is called where something is wrong with it.
    name: String,
    number: u64,
    line: Vec<u8>,
    /// How many bytes the lines had that were whole.
    whole: u64,
    sequence: Sequence,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header; `None` where not even that is whole.
    pub(crate) fn begin(input: R, name: &str) -> Result<Option<Self>, Failure> {
        let mut reader = Self {
            input,
            header: Header::new(String::new(), 0, Selection::default()),
            name: name.to_owned(),
            number: 0,
            line: Vec::new(),
            whole: 0,
            sequence: Sequence::new(Scope::Some),
        };
        if !reader.fill()? {
            return Ok(None);
        }
        let Some(text) = reader.text()? else {
            return Ok(None);
        };
        let header = match Header::parse(text) {
            Ok(header) => header,
            Err(_) if !reader.is_ended() => return Ok(None),
            Err(problem) => return Err(reader.refuse(problem)),
        };
        reader.sequence = Sequence::new(match header.identity() {
            _ if !header.selection.filter.is_empty() => Scope::Some,
            _ if !header.selection.is_everything() => Scope::Entities,
            Some((_, lanes)) => Scope::Whole(lanes),
            None => return Err(reader.refuse("names no log: `log_id` or `lanes` cannot be")),
        })
        .judging_writes();
        reader.header = header;
        reader.pass();
        Ok(Some(reader))
    }

    /// The first line.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// How many bytes the lines have that were read to their ends.
    pub(crate) fn whole(&self) -> u64 {
        self.whole
    }

    /// The next line and its number; `None` where the file ends, or is cut off within a line.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Item)>, Failure> {
        loop {
            if !self.fill()? {
                return Ok(None);
            }
            let Some(text) = self.text()? else {
                return Ok(None);
            };
            let text = text.trim();
            if text.is_empty() {
                self.pass();
                continue;
            }
            let item = if is_history(text.as_bytes()) {
                Err("begins another exported history, so two were put into one file; each is read by itself".to_owned())
            } else if let Ok(End { end }) = serde_json::from_str(text) {
                self.end(&end).map(Item::End)
            } else {
                event(text).map(|event| Item::Event(Box::new(event)))
            };
            let item = match item {
                Ok(item) => item,
                // A line that was cut off is not one that is wrong.
                Err(_) if !self.is_ended() => return Ok(None),
                Err(problem) => return Err(self.refuse(problem)),
            };
            if let Item::Event(event) = &item
                && let Err(problem) = self.sequence.take(event)
            {
                return Err(self.refuse(problem));
            }
            self.pass();
            return Ok(Some((self.number, item)));
        }
    }

    /// Whether the last line has its end, and so more can stand after it.
    pub(crate) fn is_ended(&self) -> bool {
        self.line.ends_with(b"\n")
    }

    fn pass(&mut self) {
        if self.is_ended() {
            self.whole += self.line.len() as u64;
        }
    }

    /// An end, if everything before it is there.
    fn end(&self, end: &str) -> Result<Token, String> {
        let token: Token = end
            .parse()
            .map_err(|problem| format!("ends at `{end}`: {problem}"))?;
        if token.log_id.to_string() != self.header.log_id {
            return Err("is the end of another log's history".to_owned());
        }
        let is_everything = self.header.selection.is_everything();
        for lane in (0..=u8::MAX).map(Lane) {
            let (there, end) = (self.sequence.position(lane), token.get(lane));
            let end = end.unwrap_or_default();
            if there > end || is_everything && there < end {
                return Err(format!(
                    "ends lane {lane} at position {end}, and the file has it up to {there}: events are missing in the file or do not belong to it"
                ));
            }
        }
        Ok(token)
    }

    /// Reads a line; whether there is one.
    fn fill(&mut self) -> Result<bool, Failure> {
        self.line.clear();
        self.number += 1;
        let read = (&mut self.input)
            .take(LINE_BYTES)
            .read_until(b'\n', &mut self.line)
            .map_err(|error| self.refuse(format_args!("cannot be read: {error}")))?;
        if read as u64 == LINE_BYTES && !self.is_ended() {
            return Err(self.refuse("is longer than any event"));
        }
        Ok(read > 0)
    }

    /// The line; `None` where it was cut off within a character.
    fn text(&self) -> Result<Option<&str>, Failure> {
        match std::str::from_utf8(&self.line) {
            Ok(text) => Ok(Some(text)),
            Err(_) if !self.is_ended() => Ok(None),
            Err(_) => Err(self.refuse("is not UTF-8")),
        }
    }

    fn refuse(&self, problem: impl std::fmt::Display) -> Failure {
        let name = match self.name.as_str() {
            "" => String::new(),
            name => format!("{name}, "),
        };
        Failure::failed(format!("{name}line {} {problem}", self.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::json::tests::event as as_is;

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

        let line = Line::from(&as_is(2, Method::Edit, r#"{"alt":14}"#));
        let line = serde_json::to_string(&line).unwrap();
        let read = event(&line).unwrap();
        assert_eq!(read, as_is(2, Method::Edit, r#"{"alt":14}"#));
    }
}
