//! A file that is read row by row: no row is read into memory that is larger than any may be.

use std::{
    cell::Cell,
    io::{self, Read},
    rc::Rc,
};

use stategate_model::limits::MESSAGE_BYTES;

use crate::cli::failure::{Failure, words};

/// Most bytes of one row. No gateway takes a larger message, and a file that is not what it seems (a
/// quote that is never closed) must not be read into memory to its end.
const ROW_BYTES: u64 = MESSAGE_BYTES as u64;

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

impl Metered {
    pub(super) fn new(input: Box<dyn Read>, row: RowBytes) -> Self {
        Self { input, row }
    }
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

/// A failure to read on, after `line`.
pub(super) fn unreadable(line: u64, error: &io::Error) -> Failure {
    let why = words(error);
    Failure::failed(format!("cannot read on after line {line}: {why}"))
}
