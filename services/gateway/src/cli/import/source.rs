//! Reads rows out of CSV, NDJSON and JSON, one at a time: a file may be larger than the memory.

use std::{
    cell::Cell,
    collections::HashSet,
    fmt,
    io::{self, BufRead, BufReader, Read},
    ops::ControlFlow,
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
};

use stategate_client::{EntityRef, Payload};
use stategate_model::{Object, Value, json, limits::MESSAGE_BYTES};

use super::{
    array, csv_rows,
    key::{self, Template},
    row::{Parsed, Place, Refused, Row},
};
use crate::cli::failure::Failure;

/// Most bytes of one row. No gateway takes a larger message, and a file that is not what it seems (a
/// quote that is never closed) must not be read into memory to its end.
const ROW_BYTES: u64 = MESSAGE_BYTES as u64;

/// A byte order mark, which some programs begin a file with.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// What kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Comma-separated values, the first line naming the columns
    Csv,
    /// Tab-separated values, the first line naming the columns
    Tsv,
    /// An array of objects, or objects one after another
    Json,
    /// An object a line
    Ndjson,
}

impl Format {
    /// By the end of a file's name.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "tsv" => Some(Self::Tsv),
            "json" => Some(Self::Json),
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            _ => None,
        }
    }
}

/// How rows become entities.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) names: Names,
    /// The CSV cells that are null.
    pub(crate) nulls: HashSet<String>,
    /// The CSV columns whose cells are strings, whatever they look like.
    pub(crate) texts: HashSet<String>,
    pub(crate) format: Format,
    pub(crate) delimiter: Option<u8>,
}

/// What says which entity a row is.
#[derive(Debug)]
pub(crate) enum Names {
    /// The user: the kind, and what its keys are made of.
    Made {
        domain: String,
        kind: String,
        key: Template,
        /// What stands in a key in the place of white space.
        space: Option<String>,
    },
    /// The row itself, as `export` wrote it.
    Told,
}

/// `domain/type`, for people.
impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Made { domain, kind, .. } => write!(f, "{domain}/{kind}"),
            Self::Told => f.write_str("exported state"),
        }
    }
}

/// Takes rows; `Break` ends the reading.
pub(crate) type Sink<'s> = &'s mut dyn FnMut(Parsed) -> ControlFlow<()>;

/// Reads a file to its end, or as far as it can be read. `progress` counts its bytes.
pub(crate) fn read(
    input: Box<dyn Read>,
    plan: &Plan,
    progress: &AtomicU64,
    sink: Sink<'_>,
) -> Result<(), Failure> {
    let row = RowBytes::default();
    let input = Metered {
        input,
        progress,
        row: row.clone(),
    };
    match plan.format {
        Format::Csv => csv_rows::read(input, b',', plan, &row, sink),
        Format::Tsv => csv_rows::read(input, b'\t', plan, &row, sink),
        Format::Ndjson => lines(BufReader::new(input), plan, &row, sink),
        Format::Json => array::read(BufReader::new(input), plan, &row, sink),
    }
}

impl Plan {
    /// A row out of an object that JSON text stood for.
    pub(super) fn of_json(&self, place: Place, object: &Object) -> Parsed {
        match &self.names {
            Names::Made { key, space, .. } => {
                let key = key
                    .render(space.as_deref(), |column| key::of_json(object, column))
                    .map_err(|refused| (place, refused))?;
                self.row(place, &key, object)
            }
            Names::Told => told(place, object).map_err(|refused| (place, refused)),
        }
    }

    /// A row, if its key is one.
    pub(super) fn row(&self, place: Place, key: &str, values: &Object) -> Parsed {
        let Names::Made { domain, kind, .. } = &self.names else {
            return Err((place, Refused::row("names no entity")));
        };
        let entity = EntityRef::new(domain, kind, key).map_err(|invalid| {
            let shown: String = key.chars().take(80).collect();
            let why = format!("the key `{shown}` {}", invalid.problem);
            (place, Refused::row(why))
        })?;
        Ok(Row {
            place,
            number: 0,
            entity,
            values: Payload::from(values),
        })
    }
}

/// A row that says which entity it is.
fn told(place: Place, object: &Object) -> Result<Row, Refused> {
    let text = |name: &str| match object.get(name) {
        Some(Value::String(text)) => Ok(text.as_str()),
        _ => Err(Refused::column(name, NOT_EXPORTED)),
    };
    let entity = EntityRef::new(text("domain")?, text("type")?, text("key")?)
        .map_err(|invalid| Refused::row(invalid.to_string()))?;
    let Some(Value::Object(values)) = object.get("values") else {
        return Err(Refused::column("values", NOT_EXPORTED));
    };
    Ok(Row {
        place,
        number: 0,
        entity,
        values: Payload::from(values),
    })
}

/// Why a row that should say which entity it is does not.
const NOT_EXPORTED: &str =
    "is not as `export` writes it; give --domain, --type and --key for rows of another kind";

/// A failure to read on, after `line`.
pub(super) fn unreadable(line: u64, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot read on after line {line}: {error}"))
}

/// Passes over a byte order mark.
pub(super) fn skip_bom(input: &mut impl BufRead) -> io::Result<()> {
    if input.fill_buf()?.starts_with(BOM) {
        input.consume(BOM.len());
    }
    Ok(())
}

fn lines(
    mut input: BufReader<Metered<'_>>,
    plan: &Plan,
    row: &RowBytes,
    sink: Sink<'_>,
) -> Result<(), Failure> {
    let mut number = 0;
    let mut line = Vec::new();
    skip_bom(&mut input).map_err(|error| unreadable(number, &error))?;
    loop {
        line.clear();
        row.begin();
        let read = input
            .read_until(b'\n', &mut line)
            .map_err(|error| unreadable(number, &error))?;
        if read == 0 {
            return Ok(());
        }
        number += 1;
        let place = Place::line(number);
        let parsed = match std::str::from_utf8(&line).map(str::trim) {
            Ok("") => continue,
            Ok(text) => match json::parse_object(text) {
                Ok(object) => plan.of_json(place, &object),
                // A line is a document of its own, but not the first of the file.
                Err(problem) => Err(Refused::row(
                    problem.replace(" at line 1 column", " at column"),
                ))
                .map_err(|refused| (place, refused)),
            },
            Err(_) => Err((place, Refused::row("is not UTF-8"))),
        };
        if sink(parsed).is_break() {
            return Ok(());
        }
    }
}

/// Counts the bytes that were read since a row began.
#[derive(Debug, Clone, Default)]
pub(super) struct RowBytes(Rc<Cell<u64>>);

impl RowBytes {
    /// A row begins.
    pub(super) fn begin(&self) {
        self.0.set(0);
    }
}

/// A file with a count of what was read, that refuses to go on within a row that has no end.
pub(super) struct Metered<'p> {
    input: Box<dyn Read>,
    progress: &'p AtomicU64,
    row: RowBytes,
}

impl Read for Metered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let since = self.row.0.get();
        if since > ROW_BYTES {
            return Err(io::Error::other(format!(
                "the next row is longer than {ROW_BYTES} bytes; is a quote or bracket never closed?"
            )));
        }
        let read = self.input.read(buffer)?;
        let count = u64::try_from(read).unwrap_or(u64::MAX);
        self.row.0.set(since.saturating_add(count));
        self.progress.fetch_add(count, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_go_by_name() {
        assert_eq!(Format::of_name("a/b.CSV"), Some(Format::Csv));
        assert_eq!(Format::of_name("b.jsonl"), Some(Format::Ndjson));
        assert_eq!(Format::of_name("b.csv.json"), Some(Format::Json));
        assert_eq!(Format::of_name("b.txt"), None);
        assert_eq!(Format::of_name("-"), None);
    }
}
