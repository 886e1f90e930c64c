//! Reads rows out of CSV, NDJSON and JSON, one at a time: a file may be larger than the memory.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    collections::HashSet,
    fmt,
    io::{self, BufRead, BufReader, Read},
    ops::ControlFlow,
    rc::Rc,
};

use stategate_client::{EntityRef, Payload};
use stategate_model::{Object, Value, json, limits::MESSAGE_BYTES};

use super::{
    array,
    columns::Selection,
    csv_rows::{self, Sheet},
    key::{self, Template},
    row::{Parsed, Place, Refused, Row},
};
use crate::cli::{
    failure::{Failure, words},
    input::unpacked_name,
    text,
};

/// Most bytes of one row. No gateway takes a larger message, and a file that is not what it seems (a
/// quote that is never closed) must not be read into memory to its end.
const ROW_BYTES: u64 = MESSAGE_BYTES as u64;

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
    /// What stands between the cells, where there are any.
    pub(super) fn delimiter(self) -> u8 {
        match self {
            Self::Tsv => b'\t',
            Self::Csv | Self::Json | Self::Ndjson => b',',
        }
    }

    /// By the end of a file's name, compressed or not.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let (_, extension) = unpacked_name(name).rsplit_once('.')?;
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
    /// The CSV cells that are null, where the user says so.
    pub(crate) nulls: Option<HashSet<String>>,
    /// The CSV columns whose cells are strings, whatever they look like.
    pub(crate) texts: HashSet<String>,
    /// Which columns are values, and under which names.
    pub(crate) selection: Selection,
    /// What those options name that no row of JSON had yet.
    pub(crate) sought: RefCell<Vec<String>>,
    /// Whether one was looked at.
    pub(crate) has_rows: Cell<bool>,
    pub(crate) format: Format,
    pub(crate) delimiter: Option<u8>,
    /// Whether quotes of a CSV file are characters like others.
    pub(crate) no_quotes: bool,
    /// Whether `export` wrote the CSV file.
    pub(crate) sheet: Sheet,
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

/// Reads a file to its end, or as far as it can be read.
pub(crate) fn read(input: Box<dyn Read>, plan: &Plan, sink: Sink<'_>) -> Result<(), Failure> {
    let row = RowBytes::default();
    let input = Metered {
        input,
        row: row.clone(),
    };
    match plan.format {
        Format::Csv | Format::Tsv => csv_rows::read(input, plan.delimiter(), plan, &row, sink),
        Format::Ndjson => {
            lines(BufReader::new(input), plan, &row, sink)?;
            plan.found_all()
        }
        Format::Json => {
            array::read(BufReader::new(input), plan, &row, sink)?;
            plan.found_all()
        }
    }
}

impl Plan {
    /// What stands between the cells.
    fn delimiter(&self) -> u8 {
        self.delimiter.unwrap_or(self.format.delimiter())
    }

    /// A row out of an object that JSON text stood for.
    pub(super) fn of_json(&self, place: Place, object: &Object) -> Parsed {
        match &self.names {
            Names::Made { key, space, .. } => {
                let key = key
                    .render(space.as_deref(), |column| key::of_json(object, column))
                    .map_err(|refused| (place, refused))?;
                let values = self.selected(object).map_err(|refused| (place, refused))?;
                self.row(place, &key, &values)
            }
            Names::Told => self.told(place, object).map_err(|refused| (place, refused)),
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

    fn selected<'o>(&self, object: &'o Object) -> Result<Cow<'o, Object>, Refused> {
        if self.selection.is_everything() {
            return Ok(Cow::Borrowed(object));
        }
        self.has_rows.set(true);
        let mut sought = self.sought.borrow_mut();
        sought.retain(|name| !object.contains_key(name));
        let selected = self.selection.of(object).map_err(Refused::row)?;
        Ok(Cow::Owned(selected))
    }

    /// Rows of JSON need not be alike, so that only their end says that a name is in none of them.
    fn found_all(&self) -> Result<(), Failure> {
        let sought = self.sought.borrow();
        let Some(name) = sought.first().filter(|_| self.has_rows.get()) else {
            return Ok(());
        };
        Err(Failure::usage(format!(
            "--columns, --without or --rename names `{}`, which no row has; the rows were imported without it",
            text::plain(name)
        )))
    }

    /// A row that says which entity it is.
    fn told(&self, place: Place, object: &Object) -> Result<Row, Refused> {
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
            values: Payload::from(&*self.selected(values)?),
        })
    }
}

/// Why a row that should say which entity it is does not.
const NOT_EXPORTED: &str =
    "is not as `export` writes it; give --domain, --type and --key for rows of another kind";

/// A failure to read on, after `line`.
pub(super) fn unreadable(line: u64, error: &io::Error) -> Failure {
    let why = words(error);
    Failure::failed(format!("cannot read on after line {line}: {why}"))
}

fn lines(
    mut input: BufReader<Metered>,
    plan: &Plan,
    row: &RowBytes,
    sink: Sink<'_>,
) -> Result<(), Failure> {
    let mut number = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        row.begin();
        let is_there =
            read_line(&mut input, &mut line).map_err(|error| unreadable(number, &error))?;
        if !is_there {
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

/// Reads a line; whether there is one. It ends in a line feed, a carriage return or both, neither of which
/// JSON has within a text.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        let bytes = match input.fill_buf() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if bytes.is_empty() {
            return Ok(!line.is_empty());
        }
        let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let Some(end) = end else {
            let all = bytes.len();
            line.extend_from_slice(bytes);
            input.consume(all);
            continue;
        };
        let is_return = bytes.get(end) == Some(&b'\r');
        line.extend_from_slice(bytes.get(..end).unwrap_or_default());
        input.consume(end + 1);
        if is_return && input.fill_buf()?.first() == Some(&b'\n') {
            input.consume(1);
        }
        // A blank line is one, too.
        line.push(b'\n');
        return Ok(true);
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

/// A file that refuses to go on within a row that has no end.
pub(super) struct Metered {
    input: Box<dyn Read>,
    row: RowBytes,
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let since = self.row.0.get();
        if since > ROW_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!(
                    "the next row is longer than {ROW_BYTES} bytes; is a quote or bracket never closed?"
                ),
            ));
        }
        let read = self.input.read(buffer)?;
        let count = u64::try_from(read).unwrap_or(u64::MAX);
        self.row.0.set(since.saturating_add(count));
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
        assert_eq!(Format::of_name("b.CSV.gz"), Some(Format::Csv));
        assert_eq!(Format::of_name("b.ndjson.zst"), Some(Format::Ndjson));
        assert_eq!(Format::of_name("b.gz"), None);
        assert_eq!(Format::of_name("b.txt"), None);
        assert_eq!(Format::of_name("-"), None);
    }
}
