//! What the user asks of an import: how a file is read, and how its rows become entities.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    collections::HashSet,
    fmt,
    ops::ControlFlow,
};

use stategate_client::{EntityRef, Payload};
use stategate_model::{Object, Value};

use super::{
    columns::Selection,
    key::{self, Template},
    row::{Parsed, Place, Row, RowError},
};
use crate::cli::{
    failure::Failure,
    input::unpacked_name,
    sheet::{OF_MANY, OF_ONE},
    text,
};

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

/// Whether `export` wrote the sheet, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sheet {
    None,
    /// Of one type.
    Keys {
        is_exact: bool,
    },
    /// Of several types, which its rows name.
    Names {
        is_exact: bool,
    },
}

impl Sheet {
    /// By the first line.
    pub(super) fn of(first: &[u8], delimiter: u8, is_exact: bool) -> Self {
        let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
        let line = first.split(is_end).next().unwrap_or_default();
        let cells = line.split(|byte| *byte == delimiter);
        // A program that wrote it anew may have put quotes around its cells.
        let cells: Vec<&[u8]> = cells
            .take(OF_MANY.len())
            .map(|cell| {
                let inner = cell.strip_prefix(b"\"");
                inner
                    .and_then(|cell| cell.strip_suffix(b"\""))
                    .unwrap_or(cell)
            })
            .collect();
        let begins = |names: &[&str]| {
            cells.len() >= names.len()
                && names
                    .iter()
                    .zip(&cells)
                    .all(|(name, cell)| name.as_bytes() == *cell)
        };
        if begins(OF_MANY) {
            Self::Names { is_exact }
        } else if begins(OF_ONE) {
            Self::Keys { is_exact }
        } else {
            Self::None
        }
    }

    /// How many columns say which entity a row is.
    pub(super) fn columns(self) -> usize {
        match self {
            Self::None => 0,
            Self::Keys { .. } => OF_ONE.len(),
            Self::Names { .. } => OF_MANY.len(),
        }
    }

    /// Whether texts in it were kept from being formulas.
    pub(super) fn is_escaped(self) -> bool {
        match self {
            Self::None => false,
            Self::Keys { is_exact } | Self::Names { is_exact } => !is_exact,
        }
    }
}

/// Takes rows; `Break` ends the reading.
pub(crate) type Sink<'s> = &'s mut dyn FnMut(Parsed) -> ControlFlow<()>;

impl Plan {
    /// What stands between the cells.
    pub(super) fn delimiter(&self) -> u8 {
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
            return Err((place, RowError::row("names no entity")));
        };
        let entity = EntityRef::new(domain, kind, key).map_err(|invalid| {
            let shown: String = key.chars().take(80).collect();
            let why = format!("the key `{shown}` {}", invalid.problem);
            (place, RowError::row(why))
        })?;
        Ok(Row {
            place,
            number: 0,
            entity,
            values: Payload::from(values),
        })
    }

    fn selected<'o>(&self, object: &'o Object) -> Result<Cow<'o, Object>, RowError> {
        if self.selection.is_everything() {
            return Ok(Cow::Borrowed(object));
        }
        self.has_rows.set(true);
        let mut sought = self.sought.borrow_mut();
        sought.retain(|name| !object.contains_key(name));
        let selected = self.selection.of(object).map_err(RowError::row)?;
        Ok(Cow::Owned(selected))
    }

    /// Rows of JSON need not be alike, so that only their end says that a name is in none of them.
    pub(super) fn found_all(&self) -> Result<(), Failure> {
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
    fn told(&self, place: Place, object: &Object) -> Result<Row, RowError> {
        let text = |name: &str| match object.get(name) {
            Some(Value::String(text)) => Ok(text.as_str()),
            _ => Err(RowError::column(name, NOT_EXPORTED)),
        };
        let entity = EntityRef::new(text("domain")?, text("type")?, text("key")?)
            .map_err(|invalid| RowError::row(invalid.to_string()))?;
        let Some(Value::Object(values)) = object.get("values") else {
            return Err(RowError::column("values", NOT_EXPORTED));
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
