//! Rows of a CSV file: a header that names the columns, then one record a row.

use std::{
    borrow::Cow,
    io::{BufReader, Read},
};

use stategate_client::{EntityRef, Payload};
use stategate_model::{Object, Value};

use super::{
    cell,
    columns::Header,
    key::Template,
    metered::{RowBytes, unreadable},
    plan::{Names, Plan, Sheet, Sink},
    records::{Broken, Cell, Dialect, Quote, Record, Records},
    row::{Parsed, Place, Row, RowError},
};
use crate::cli::{failure::Failure, sheet, text};

pub(super) fn read(
    input: impl Read,
    delimiter: u8,
    plan: &Plan,
    row: &RowBytes,
    sink: Sink<'_>,
) -> Result<(), Failure> {
    let dialect = Dialect {
        delimiter,
        has_quotes: !plan.no_quotes,
    };
    let mut records = Records::new(BufReader::new(input), dialect);
    let mut record = Record::default();
    row.begin();
    let is_there = records
        .next(&mut record)
        .map_err(|broken| why(broken, 0, &[]))?;
    if !is_there {
        return Err(Failure::failed(
            "the file is empty; its first line must name the columns",
        ));
    }
    let columns = Columns::of(&record, plan)?;
    loop {
        row.begin();
        let last = record.line;
        let more = records.next(&mut record);
        let more = more.map_err(|broken| why(broken, last, &columns.header.names))?;
        if !more || sink(columns.row(&record, plan)).is_break() {
            return Ok(());
        }
    }
}

/// Why nothing from here on can be read.
fn why(broken: Broken, after: u64, names: &[String]) -> Failure {
    let opens = |quote: &Quote| {
        let number = quote.cell + 1;
        let column = match names.get(quote.cell) {
            Some(name) => format!("column `{}`", text::plain(name)),
            None => format!("column {number}"),
        };
        format!("line {}: {column} opens a quote that", quote.line)
    };
    let rest = |quote: &Quote| {
        format!(
            "nothing from line {} on was imported. A quote within a cell between quotes is written \"\"; with --no-quotes, quotes mean nothing",
            quote.record
        )
    };
    match broken {
        Broken::Io(error) => unreadable(after, &error),
        Broken::Open(quote) => Failure::failed(format!(
            "{} is never closed: what follows it was read as one cell, up to line {} ({}), unless the file was cut off there; {}",
            opens(&quote),
            quote.at,
            text::plain(&quote.follows),
            rest(&quote)
        )),
        Broken::Followed(quote) => Failure::failed(format!(
            "{} is closed on line {} and followed by more ({}), as when a quote before it was never closed; {}",
            opens(&quote),
            quote.at,
            text::plain(&quote.follows),
            rest(&quote)
        )),
    }
}

/// What the columns are.
struct Columns {
    header: Header,
    /// The name that each has as a value; `None` for those that are none.
    values: Vec<Option<String>>,
    is_text: Vec<bool>,
    /// The columns that the key is made of, as the template names them.
    keys: Vec<(String, usize)>,
}

impl Columns {
    fn of(record: &Record, plan: &Plan) -> Result<Self, Failure> {
        let mut names = Vec::with_capacity(record.len());
        for (at, cell) in record.iter().enumerate() {
            let name = std::str::from_utf8(cell.bytes)
                .map_err(|_| Failure::failed("line 1: the names of the columns are not UTF-8"))?;
            if name.contains('\0') {
                return Err(Failure::failed(
                    "line 1: the names of the columns hold NUL bytes, as text in UTF-16 does; save the file as UTF-8",
                ));
            }
            let is_of_export = at >= plan.sheet.columns() && plan.sheet.is_escaped();
            let name = if is_of_export {
                sheet::text_of(name)
            } else {
                name
            };
            names.push(name.to_owned());
        }
        let header = Header {
            names,
            first: plan.sheet.columns(),
            is_exported: plan.sheet != Sheet::None,
        };
        let mut values = plan.selection.names(&header)?;
        values
            .iter_mut()
            .take(header.first)
            .for_each(|name| *name = None);
        let key = match &plan.names {
            Names::Made { key, .. } => Some(key),
            Names::Told => None,
        };
        let mut keys = Vec::new();
        for name in key.into_iter().flat_map(Template::columns) {
            keys.push((name.to_owned(), header.find("--key", name)?));
        }
        let mut is_text = vec![false; header.names.len()];
        for name in &plan.texts {
            if let Some(is_text) = is_text.get_mut(header.find("--text", name)?) {
                *is_text = true;
            }
        }
        Ok(Self {
            header,
            values,
            is_text,
            keys,
        })
    }

    fn row(&self, record: &Record, plan: &Plan) -> Parsed {
        let place = Place::line(record.line);
        self.fits(record, plan)
            .and_then(|()| self.values(record, plan))
            .and_then(|values| self.named(place, record, plan, &values))
            .map_err(|refused| (place, refused))
    }

    /// Whether each cell has its column.
    fn fits(&self, record: &Record, plan: &Plan) -> Result<(), RowError> {
        let (has, wants) = (record.len(), self.header.names.len());
        let is_empty = |at| record.get(at).is_some_and(|cell| cell.bytes.is_empty());
        let is_more = has > wants && (wants..has).all(is_empty);
        // What no name stands above is not among those that were asked for.
        if has != wants && !(is_more && plan.selection.is_of_named()) {
            let cells = if has == 1 { "cell" } else { "cells" };
            let mut why = format!("has {has} {cells}; the header names {wants} columns");
            if is_more {
                why.push_str(
                    "; where they are named by --columns, empty cells after them are passed over",
                );
            } else if record.is_cut {
                why.push_str("; the file ends there, and may be cut off");
            }
            return Err(RowError::row(why));
        }
        if record.has_return {
            return Err(RowError::row(
                "has a carriage return outside quotes, where other lines do not end with one",
            ));
        }
        if self.is_header(record, plan) {
            return Err(RowError::row(
                "is the line that names the columns again, as where one file was put after another",
            ));
        }
        Ok(())
    }

    /// Whether a record says what the first line said. One name alone may well be a value, too.
    fn is_header(&self, record: &Record, plan: &Plan) -> bool {
        let named = self.header.names.iter().filter(|name| !name.is_empty());
        let is_name = |(at, (name, cell)): (usize, (&String, Cell<'_>))| {
            let text = std::str::from_utf8(cell.bytes).unwrap_or_default();
            // The other file may begin with a byte order mark.
            let text = match at {
                0 => text.strip_prefix('\u{feff}').unwrap_or(text),
                _ => text,
            };
            match at >= self.header.first && plan.sheet.is_escaped() {
                true => name.as_str() == sheet::text_of(text),
                false => name.as_str() == text,
            }
        };
        self.header
            .names
            .iter()
            .zip(record.iter())
            .enumerate()
            .all(is_name)
            && named.count() > 1
    }

    fn values(&self, record: &Record, plan: &Plan) -> Result<Object, RowError> {
        let mut values = Object::new();
        for ((at, name), cell) in self.values.iter().enumerate().zip(record.iter()) {
            // A cell that is no value may still be part of the key.
            let column = self.header.names.get(at).map_or("", String::as_str);
            let text = text_of(cell).map_err(|why| RowError::column(column, why))?;
            let Some(name) = name else {
                continue;
            };
            let is_text = self.is_text.get(at).copied().unwrap_or_default();
            let value = match plan.sheet.is_escaped() {
                _ if is_text && plan.sheet.is_escaped() => Some(sheet::text_of(text).into()),
                _ if is_text => Some(text.into()),
                true if plan
                    .nulls
                    .as_ref()
                    .is_some_and(|nulls| nulls.contains(text)) =>
                {
                    Some(Value::Null)
                }
                true => sheet::value_of(text, cell.is_quoted),
                false if is_null(text, plan) => Some(Value::Null),
                false => Some(cell::value(text)),
            };
            if let Some(value) = value {
                values.insert(name.clone(), value);
            }
        }
        Ok(values)
    }

    fn named(
        &self,
        place: Place,
        record: &Record,
        plan: &Plan,
        values: &Object,
    ) -> Result<Row, RowError> {
        let text_at = |at: usize| {
            let text = record.get(at).and_then(|cell| text_of(cell).ok())?;
            Some(match plan.sheet.is_escaped() {
                true => sheet::text_of(text),
                false => text,
            })
        };
        match &plan.names {
            // A key is made of the texts as they stand: `007` and `1.50` are names there.
            Names::Made { key, space, .. } => {
                let key = key.render(space.as_deref(), |wanted| {
                    let at = self.keys.iter().find(|(name, _)| name == wanted);
                    let at = at.map(|(_, at)| *at);
                    let is_text = at.and_then(|at| self.is_text.get(at)).copied();
                    match at.and_then(text_at) {
                        None => Err("is missing"),
                        Some("") => Err("is empty"),
                        Some(text)
                            if !is_text.unwrap_or_default()
                                && plan.sheet == Sheet::None
                                && is_null(text, plan) =>
                        {
                            Err("is null")
                        }
                        Some(text) => Ok(Cow::Borrowed(text)),
                    }
                })?;
                plan.row(place, &key, values)
                    .map_err(|(_, refused)| refused)
            }
            Names::Told => {
                let cell = |at| text_at(at).unwrap_or_default();
                let entity = EntityRef::new(cell(0), cell(1), cell(2))
                    .map_err(|invalid| RowError::row(invalid.to_string()))?;
                Ok(Row {
                    place,
                    number: 0,
                    entity,
                    values: Payload::from(values),
                })
            }
        }
    }
}

fn is_null(text: &str, plan: &Plan) -> bool {
    match &plan.nulls {
        Some(nulls) => nulls.contains(text),
        None => cell::NULLS.contains(&text),
    }
}

fn text_of(cell: Cell<'_>) -> Result<&str, &'static str> {
    let text = std::str::from_utf8(cell.bytes).map_err(|_| "is not UTF-8")?;
    match text.contains('\0') {
        true => Err("holds a NUL byte"),
        false => Ok(text),
    }
}
