//! Rows of a JSON file: the elements of one array, or objects one after another.
//!
//! Elements are found without being parsed, so that one which is JSON but no row can be named and
//! passed over. Where the text stops being JSON, nothing after it can be read.

use std::{
    cell::Cell,
    fmt,
    io::{self, BufRead, Read},
    ops::ControlFlow,
    rc::Rc,
};

use serde::de::{Deserializer as _, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use stategate_model::json;

use super::{
    metered::{RowBytes, unreadable},
    plan::{Plan, Sink},
    row::{Place, RowError},
};
use crate::cli::failure::Failure;

pub(super) fn read(
    mut input: impl BufRead,
    plan: &Plan,
    row: &RowBytes,
    sink: Sink<'_>,
) -> Result<(), Failure> {
    let line = Line::default();
    skip_blank(&mut input, &line).map_err(|error| unreadable(line.now(), &error))?;
    let is_array = match input.fill_buf() {
        Ok([]) => {
            return Err(Failure::failed(
                "the file is empty, which is no JSON; an array without rows is []",
            ));
        }
        Ok(bytes) => bytes.first() == Some(&b'['),
        Err(error) => return Err(unreadable(line.now(), &error)),
    };
    let input = Counted {
        input,
        line: line.clone(),
    };
    let mut elements = Elements {
        plan,
        row,
        line: &line,
        sink,
        is_ended: false,
    };
    let mut reader = serde_json::Deserializer::from_reader(input);
    let done = if is_array {
        reader
            .deserialize_seq(&mut elements)
            .and_then(|()| reader.end())
    } else {
        one_after_another(reader, &mut elements)
    };
    match done {
        Err(_) if elements.is_ended => Ok(()),
        Err(error) => Err(broken(&line, error)),
        Ok(()) => Ok(()),
    }
}

fn one_after_another<R: Read>(
    reader: serde_json::Deserializer<serde_json::de::IoRead<R>>,
    elements: &mut Elements<'_, '_>,
) -> Result<(), serde_json::Error> {
    for raw in reader.into_iter::<Box<RawValue>>() {
        if elements.take(&raw?, None).is_break() {
            break;
        }
    }
    Ok(())
}

fn broken(line: &Line, error: serde_json::Error) -> Failure {
    let now = line.now();
    if error.is_io() {
        return unreadable(now, &error.into());
    }
    let words = error.to_string();
    // The parser counts lines from where it was put to work.
    let problem = words.split(" at line ").next().unwrap_or_default();
    Failure::failed(format!(
        "line {now}: is not JSON: {problem}; nothing after it was read"
    ))
}

struct Elements<'p, 's> {
    plan: &'p Plan,
    row: &'p RowBytes,
    line: &'p Line,
    sink: Sink<'s>,
    is_ended: bool,
}

impl Elements<'_, '_> {
    fn take(&mut self, raw: &RawValue, element: Option<u64>) -> ControlFlow<()> {
        let text = raw.get();
        let breaks = text.bytes().filter(|byte| *byte == b'\n').count();
        let place = Place {
            line: self.line.now().saturating_sub(breaks as u64),
            element,
        };
        let parsed = match json::parse_object(text) {
            Ok(object) => self.plan.of_json(place, &object),
            Err(problem) => {
                let problem = problem.split(" at line ").next().unwrap_or_default();
                Err((place, RowError::row(problem)))
            }
        };
        self.row.begin();
        let flow = (self.sink)(parsed);
        self.is_ended = flow.is_break();
        flow
    }
}

impl<'de> Visitor<'de> for &mut Elements<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let mut number = 0;
        while let Some(raw) = elements.next_element::<Box<RawValue>>()? {
            number += 1;
            if self.take(&raw, Some(number)).is_break() {
                return Err(A::Error::custom("ended"));
            }
        }
        Ok(())
    }
}

/// The line that reading has come to.
#[derive(Debug, Clone, Default)]
struct Line(Rc<Cell<u64>>);

impl Line {
    fn now(&self) -> u64 {
        self.0.get() + 1
    }

    fn pass(&self, bytes: &[u8]) {
        let breaks = bytes.iter().filter(|byte| **byte == b'\n').count();
        self.0.set(self.0.get() + breaks as u64);
    }
}

/// Counts lines. The parser takes a byte at a time, so that the count is where the parser is.
struct Counted<R> {
    input: R,
    line: Line,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.line.pass(&buffer[..read]);
        Ok(read)
    }
}

fn skip_blank(input: &mut impl BufRead, line: &Line) -> io::Result<()> {
    loop {
        let bytes = input.fill_buf()?;
        let blank = bytes
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace())
            .count();
        let is_over = blank < bytes.len() || bytes.is_empty();
        line.pass(&bytes[..blank]);
        input.consume(blank);
        if is_over {
            return Ok(());
        }
    }
}
