//! Reads rows out of CSV, NDJSON and JSON, one at a time: a file may be larger than the memory.

use std::io::{self, BufRead, BufReader, Read};

use stategate_model::json;

use super::{
    array, csv_rows,
    metered::{Metered, RowBytes, unreadable},
    plan::{Format, Plan, Sink},
    row::{Place, RowError},
};
use crate::cli::failure::Failure;

/// Reads a file to its end, or as far as it can be read.
pub(crate) fn read(input: Box<dyn Read>, plan: &Plan, sink: Sink<'_>) -> Result<(), Failure> {
    let row = RowBytes::default();
    let input = Metered::new(input, row.clone());
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
                Err(problem) => Err(RowError::row(
                    problem.replace(" at line 1 column", " at column"),
                ))
                .map_err(|refused| (place, refused)),
            },
            Err(_) => Err((place, RowError::row("is not UTF-8"))),
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
