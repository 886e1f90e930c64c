//! Rows of a CSV file: a header that names the columns, then one record a row.

use std::{
    borrow::Cow,
    cell::Cell,
    collections::HashSet,
    io::{self, BufRead, BufReader, Read},
    rc::Rc,
};

use csv::{ByteRecord, ReaderBuilder};
use stategate_model::{Object, Value};

use super::{
    cell,
    key::Template,
    row::{Parsed, Place, Refused},
    source::{Names, Plan, RowBytes, Sink, unreadable},
};
use crate::cli::{failure::Failure, text};

pub(super) fn read(
    input: impl Read,
    delimiter: u8,
    plan: &Plan,
    row: &RowBytes,
    sink: Sink<'_>,
) -> Result<(), Failure> {
    let line = Rc::new(Cell::new(0));
    let mut reader = ReaderBuilder::new()
        .delimiter(plan.delimiter.unwrap_or(delimiter))
        // A record of the wrong length is a bad row, not the end of the file.
        .flexible(true)
        .from_reader(ByLine {
            input: BufReader::new(input),
            line: line.clone(),
            is_begun: false,
        });
    row.begin();
    let header = reader
        .byte_headers()
        .map_err(|error| unreadable(0, &error.into()))?;
    let columns = columns(header, plan)?;
    let mut record = ByteRecord::new();
    loop {
        row.begin();
        let more = reader
            .read_byte_record(&mut record)
            .map_err(|error| unreadable(line.get(), &error.into()))?;
        if !more {
            return Ok(());
        }
        let breaks = record.iter().flatten().filter(|byte| **byte == b'\n');
        let place = Place::line(line.get().saturating_sub(breaks.count() as u64));
        let parsed = parse(place, &record, &columns, plan);
        if sink(parsed).is_break() {
            return Ok(());
        }
    }
}

/// Hands out a line at a time and counts them, so that the count is where the record ends that was
/// read last. (The parser's own count is a line behind where lines end in CR LF.)
struct ByLine<R> {
    input: BufReader<R>,
    line: Rc<Cell<u64>>,
    /// Whether part of the current line was handed out.
    is_begun: bool,
}

impl<R: Read> Read for ByLine<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.input.fill_buf()?;
        let most = bytes.len().min(buffer.len());
        let end = bytes[..most].iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(most, |at| at + 1);
        buffer[..taken].copy_from_slice(&bytes[..taken]);
        self.input.consume(taken);
        if taken > 0 {
            self.line.set(self.line.get() + u64::from(!self.is_begun));
            self.is_begun = end.is_none();
        }
        Ok(taken)
    }
}

fn columns(header: &ByteRecord, plan: &Plan) -> Result<Vec<String>, Failure> {
    let mut columns = Vec::with_capacity(header.len());
    for name in header {
        let name = std::str::from_utf8(name)
            .map_err(|_| Failure::failed("line 1: the names of the columns are not UTF-8"))?;
        columns.push(name.to_owned());
    }
    if columns.is_empty() {
        return Err(Failure::failed(
            "the file is empty; its first line must name the columns",
        ));
    }
    let mut seen = HashSet::new();
    if let Some(twice) = columns.iter().find(|name| !seen.insert(name.as_str())) {
        let twice = text::plain(twice);
        return Err(Failure::failed(format!(
            "line 1: two columns are named `{twice}`"
        )));
    }
    let key = match &plan.names {
        Names::Made { key, .. } => Some(key),
        Names::Told => None,
    };
    let keys = key.into_iter().flat_map(Template::columns);
    let keys = keys.map(|name| ("--key", name));
    let texts = plan.texts.iter().map(|name| ("--text", name.as_str()));
    for (option, name) in keys.chain(texts) {
        if !seen.contains(name) {
            return Err(Failure::usage(format!(
                "{option} names the column `{name}`, which the file does not have; it has {}",
                text::plain(&columns.join(", "))
            )));
        }
    }
    Ok(columns)
}

fn parse(place: Place, record: &ByteRecord, columns: &[String], plan: &Plan) -> Parsed {
    let refuse = |refused| (place, refused);
    if record.len() != columns.len() {
        let (has, wants) = (record.len(), columns.len());
        let cells = if has == 1 { "cell" } else { "cells" };
        let why = format!("has {has} {cells}; the header names {wants} columns");
        return Err(refuse(Refused::row(why)));
    }
    let mut values = Object::new();
    for (name, bytes) in columns.iter().zip(record) {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| refuse(Refused::column(name, "is not UTF-8")))?;
        let value = if plan.texts.contains(name) {
            Value::from(text)
        } else if plan.nulls.contains(text) {
            Value::Null
        } else {
            cell::value(text)
        };
        values.insert(name.clone(), value);
    }
    // A key is made of the texts as they stand: `007` and `1.50` are names there.
    let text_of = |wanted: &str| {
        let at = columns.iter().position(|name| name == wanted);
        let text = at.and_then(|at| std::str::from_utf8(record.get(at)?).ok());
        match (text, values.get(wanted)) {
            (None, _) => Err("is missing"),
            (Some(""), _) => Err("is empty"),
            (_, Some(Value::Null)) => Err("is null"),
            (Some(text), _) => Ok(Cow::Borrowed(text)),
        }
    };
    let Names::Made { key, space, .. } = &plan.names else {
        return Err(refuse(Refused::row("names no entity")));
    };
    let key = key.render(space.as_deref(), text_of).map_err(refuse)?;
    plan.row(place, &key, &values)
}
