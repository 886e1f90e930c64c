//! Rows of a CSV file: a header that names the columns, then one record a row.

use std::{borrow::Cow, collections::HashSet, io::Read};

use csv::{ByteRecord, ReaderBuilder};
use stategate_model::{Object, Value};

use super::{
    cell,
    row::{Parsed, Place, Refused},
    source::{Plan, RowBytes, Sink, unreadable},
};
use crate::cli::{failure::Failure, text};

pub(super) fn read(
    input: impl Read,
    delimiter: u8,
    plan: &Plan,
    row: &RowBytes,
    sink: Sink<'_>,
) -> Result<(), Failure> {
    let mut reader = ReaderBuilder::new()
        .delimiter(plan.delimiter.unwrap_or(delimiter))
        // A record of the wrong length is a bad row, not the end of the file.
        .flexible(true)
        .from_reader(input);
    row.begin();
    let header = reader
        .byte_headers()
        .map_err(|error| unreadable(0, &error.into()))?;
    let columns = columns(header, plan)?;
    let mut record = ByteRecord::new();
    let mut line = 1;
    loop {
        row.begin();
        let more = reader
            .read_byte_record(&mut record)
            .map_err(|error| unreadable(line, &error.into()))?;
        if !more {
            return Ok(());
        }
        line = record.position().map_or(line, csv::Position::line);
        let place = Place::line(line);
        let parsed = parse(place, &record, &columns, plan);
        if sink(parsed).is_break() {
            return Ok(());
        }
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
    let keys = plan.key.columns().map(|name| ("--key", name));
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
        let why = format!("has {has} columns; the header names {wants}");
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
    let key = plan
        .key
        .render(plan.space.as_deref(), text_of)
        .map_err(refuse)?;
    plan.row(place, key, &values)
}
