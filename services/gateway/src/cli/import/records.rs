//! Records of a CSV file, read strictly: a quote that is not closed, or is followed by more, is an error
//! and not a long cell. (The `csv` crate takes either for a cell, to the end of the file if need be.)

use std::io::{self, BufRead};

/// Most of what follows a broken quote that is shown.
const SHOWN: usize = 60;

/// How a file's cells are parted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialect {
    pub(super) delimiter: u8,
    /// Whether a cell may stand between quotes.
    pub(super) has_quotes: bool,
}

/// A record: the bytes of its cells, one after the other.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// The line it begins on, from 1.
    pub(super) line: u64,
    /// The file ends after it, without the end of a line.
    pub(super) is_cut: bool,
    /// A carriage return stands in it alone, where the lines of the file end otherwise.
    pub(super) has_return: bool,
    bytes: Vec<u8>,
    cells: Vec<End>,
}

/// Where a cell ends, and how it was written.
#[derive(Debug, Clone, Copy)]
struct End {
    at: usize,
    is_quoted: bool,
}

/// A cell as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell<'r> {
    pub(super) bytes: &'r [u8],
    pub(super) is_quoted: bool,
}

impl Record {
    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    pub(super) fn get(&self, at: usize) -> Option<Cell<'_>> {
        let end = self.cells.get(at)?;
        let begin = match at {
            0 => 0,
            _ => self.cells.get(at - 1)?.at,
        };
        Some(Cell {
            bytes: self.bytes.get(begin..end.at)?,
            is_quoted: end.is_quoted,
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Cell<'_>> {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    fn begin(&mut self, line: u64) {
        self.line = line;
        (self.is_cut, self.has_return) = (false, false);
        self.bytes.clear();
        self.cells.clear();
    }

    fn end_cell(&mut self, is_quoted: bool) {
        self.cells.push(End {
            at: self.bytes.len(),
            is_quoted,
        });
    }

    fn is_blank(&self) -> bool {
        matches!(
            self.cells[..],
            [End {
                at: 0,
                is_quoted: false
            }]
        )
    }
}

/// Why no further record can be told from its neighbours.
#[derive(Debug)]
pub(super) enum Broken {
    Io(io::Error),
    /// A quote is never closed.
    Open(Quote),
    /// A quote is closed, and more follows before the cell ends.
    Followed(Quote),
}

/// Where a quote opens, and what follows where it is broken.
#[derive(Debug)]
pub(super) struct Quote {
    pub(super) line: u64,
    /// The line that its record begins on.
    pub(super) record: u64,
    /// Which cell of its record, from 0.
    pub(super) cell: usize,
    /// The line of what follows.
    pub(super) at: u64,
    pub(super) follows: String,
}

/// Where the reader stands in a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    Bare,
    Quoted,
    /// After a quote that closes the cell, unless another follows.
    Closed,
}

/// Reads records.
pub(super) struct Records<R> {
    input: R,
    dialect: Dialect,
    /// The line that is being read, from 1.
    line: u64,
    /// Whether lines end in a carriage return alone; known after the first.
    ends_in_return: Option<bool>,
}

impl<R: BufRead> Records<R> {
    pub(super) fn new(input: R, dialect: Dialect) -> Self {
        Self {
            input,
            dialect,
            line: 1,
            ends_in_return: None,
        }
    }

    /// The next record that is no blank line; whether there is one.
    pub(super) fn next(&mut self, record: &mut Record) -> Result<bool, Broken> {
        loop {
            if !self.any(record)? {
                return Ok(false);
            }
            if !record.is_blank() {
                return Ok(true);
            }
        }
    }

    fn any(&mut self, record: &mut Record) -> Result<bool, Broken> {
        record.begin(self.line);
        let mut state = State::Start;
        // Where the quote of this cell opened: its line, and where its text begins.
        let (mut opened, mut from) = (self.line, 0);
        loop {
            let byte = match self.peek() {
                Ok(Some(byte)) => byte,
                Ok(None) => {
                    if state == State::Quoted {
                        return Err(Broken::Open(self.quote(record, opened, from)));
                    }
                    if state == State::Start && record.cells.is_empty() {
                        return Ok(false);
                    }
                    record.end_cell(state == State::Closed);
                    record.is_cut = true;
                    return Ok(true);
                }
                Err(error)
                    if error.kind() == io::ErrorKind::FileTooLarge && state == State::Quoted =>
                {
                    return Err(Broken::Open(self.quote(record, opened, from)));
                }
                Err(error) => return Err(Broken::Io(error)),
            };
            let is_quote = self.dialect.has_quotes && byte == b'"';
            match state {
                State::Quoted => {
                    self.input.consume(1);
                    if is_quote {
                        state = State::Closed;
                        continue;
                    }
                    let is_end = match byte {
                        b'\n' => true,
                        b'\r' => self.ends_in_return == Some(true),
                        _ => false,
                    };
                    self.line += u64::from(is_end);
                    record.bytes.push(byte);
                }
                State::Closed if is_quote => {
                    self.input.consume(1);
                    record.bytes.push(b'"');
                    state = State::Quoted;
                }
                _ if byte == self.dialect.delimiter => {
                    self.input.consume(1);
                    record.end_cell(state == State::Closed);
                    state = State::Start;
                }
                _ if byte == b'\n' => {
                    self.input.consume(1);
                    self.line += 1;
                    self.ends_in_return.get_or_insert(false);
                    record.end_cell(state == State::Closed);
                    return Ok(true);
                }
                _ if byte == b'\r' => {
                    if self.returns().map_err(Broken::Io)? {
                        record.end_cell(state == State::Closed);
                        return Ok(true);
                    }
                    record.has_return = true;
                }
                State::Closed => {
                    let mut quote = self.quote(record, opened, from);
                    quote.follows = self.rest();
                    return Err(Broken::Followed(quote));
                }
                State::Start if is_quote => {
                    self.input.consume(1);
                    (opened, from) = (self.line, record.bytes.len());
                    state = State::Quoted;
                }
                State::Start | State::Bare => {
                    self.input.consume(1);
                    record.bytes.push(byte);
                    state = State::Bare;
                }
            }
        }
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        loop {
            match self.input.fill_buf() {
                Ok(bytes) => return Ok(bytes.first().copied()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Passes over carriage returns; whether the line ends with them.
    fn returns(&mut self) -> io::Result<bool> {
        self.input.consume(1);
        // `\r\r\n` is what a conversion of line ends that was made twice leaves behind.
        let mut more = 0;
        while self.ends_in_return != Some(true) && self.peek()? == Some(b'\r') {
            self.input.consume(1);
            more += 1;
        }
        if self.peek()? == Some(b'\n') && self.ends_in_return != Some(true) {
            self.input.consume(1);
            self.ends_in_return = Some(false);
            self.line += 1;
            return Ok(true);
        }
        let is_end = *self.ends_in_return.get_or_insert(true);
        if is_end {
            self.line += 1 + more;
        }
        Ok(is_end)
    }

    fn quote(&self, record: &Record, opened: u64, from: usize) -> Quote {
        Quote {
            line: opened,
            record: record.line,
            cell: record.cells.len(),
            at: self.line,
            follows: shown(record.bytes.get(from..).unwrap_or_default()),
        }
    }

    /// What follows on the line, as far as it is at hand.
    fn rest(&mut self) -> String {
        let bytes = self.input.fill_buf().unwrap_or_default();
        let end = |byte: &u8| matches!(byte, b'\n' | b'\r');
        shown(bytes.split(end).next().unwrap_or_default())
    }
}

fn shown(bytes: &[u8]) -> String {
    let most = bytes.get(..4 * SHOWN).unwrap_or(bytes);
    let text = String::from_utf8_lossy(most);
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() || most.len() < bytes.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    /// Every record as `line:a|"b"`, and how it ended.
    fn read(text: &[u8]) -> (Vec<String>, Option<Broken>) {
        // However the bytes come in.
        let mut all: Option<Vec<String>> = None;
        let mut broken = None;
        for size in [1, 3, 1 << 16] {
            let dialect = Dialect {
                delimiter: b',',
                has_quotes: true,
            };
            let mut records = Records::new(BufReader::with_capacity(size, text), dialect);
            let mut record = Record::default();
            let mut seen = Vec::new();
            broken = loop {
                match records.next(&mut record) {
                    Ok(true) => {}
                    Ok(false) => break None,
                    Err(error) => break Some(error),
                }
                let cells = record.iter().map(|cell| {
                    let text = String::from_utf8_lossy(cell.bytes);
                    match cell.is_quoted {
                        true => format!("{text:?}"),
                        false => text.into_owned(),
                    }
                });
                let cells: Vec<_> = cells.collect();
                seen.push(format!("{}:{}", record.line, cells.join("|")));
            };
            if let Some(all) = &all {
                assert_eq!(*all, seen, "{size}");
            }
            all = Some(seen);
        }
        (all.unwrap(), broken)
    }

    #[test]
    fn records_are_read_as_they_are_meant() {
        for (text, records) in [
            (&b""[..], &[][..]),
            (b"\n\r\n\n", &[]),
            (b"a,b\n1,2\n", &["1:a|b", "2:1|2"]),
            (b"a,b\n1,2", &["1:a|b", "2:1|2"]),
            (b"a,b\r\n1,\r\n,\r\n", &["1:a|b", "2:1|", "3:|"]),
            (b"a,b\r1,2\r\r3,4\r", &["1:a|b", "2:1|2", "4:3|4"]),
            (b"a,b\r\r\n1,2\r\r\n", &["1:a|b", "2:1|2"]),
            (
                b"a,b\n\"1,\n\"\"x\"\"\",\"\"\n\n3,4\"\n",
                &["1:a|b", "2:\"1,\\n\\\"x\\\"\"|\"\"", "5:3|4\""],
            ),
            (b"a\r\"x\ry\"\rz\r", &["1:a", "2:\"x\\ry\"", "4:z"]),
            (b"a\n\"\"\n", &["1:a", "2:\"\""]),
        ] {
            let (seen, broken) = read(text);
            assert_eq!(seen, records, "{text:?}");
            assert!(broken.is_none(), "{broken:?}");
        }
    }

    #[test]
    fn quotes_that_are_broken_end_the_reading_where_they_open() {
        let (seen, broken) = read(b"a,b\n1,\"x\ny\"\n2,\"open\n3,4\n");
        assert_eq!(seen.len(), 2);
        let Some(Broken::Open(quote)) = broken else {
            panic!("{broken:?}");
        };
        assert_eq!((quote.line, quote.cell, quote.at), (4, 1, 6));
        assert_eq!(quote.follows, "open\n3,4\n");

        let (seen, broken) = read(b"a,b\n1,\"open\n2,\"fine\",3\n");
        assert_eq!(seen.len(), 1);
        let Some(Broken::Followed(quote)) = broken else {
            panic!("{broken:?}");
        };
        assert_eq!((quote.line, quote.cell, quote.at), (2, 1, 3));
    }

    #[test]
    fn a_return_in_the_middle_of_a_line_is_noticed() {
        let dialect = Dialect {
            delimiter: b',',
            has_quotes: true,
        };
        let mut records = Records::new(&b"a,b\n1,x\ry\n"[..], dialect);
        let mut record = Record::default();
        assert!(records.next(&mut record).unwrap() && !record.has_return);
        assert!(records.next(&mut record).unwrap() && record.has_return);
        assert!(!records.next(&mut record).unwrap());
    }
}
