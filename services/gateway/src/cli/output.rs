//! The two streams a command writes: answers to stdout, in one of two forms, and notes to stderr.

use std::{
    env,
    io::{self, BufWriter, IsTerminal as _, Write},
};

use jiff::tz::TimeZone;
use serde::Serialize;

use super::{failure::Failure, table::Table};

/// The width of a terminal that does not tell.
const WIDTH: usize = 100;

/// How answers are printed.
#[derive(Debug, Clone)]
pub(crate) enum Form {
    /// A JSON document a line.
    Json,
    /// For a person.
    Text(Screen),
}

/// What a person reads on.
#[derive(Debug, Clone)]
pub(crate) struct Screen {
    /// Columns of a line.
    pub(crate) width: usize,
    /// Colours.
    pub(crate) paint: Paint,
    /// The zone that times are shown in.
    pub(crate) zone: TimeZone,
}

/// Emphasis, where the terminal shows it and the user wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    Colours,
    Nothing,
}

impl Paint {
    fn of(is_terminal: bool) -> Self {
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || env::var_os("TERM").is_some_and(|term| term == "dumb");
        if is_terminal && !refused {
            Self::Colours
        } else {
            Self::Nothing
        }
    }

    /// A heading.
    pub(crate) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// What may be passed over.
    pub(crate) fn faint(self, text: &str) -> String {
        self.wrap("2", text)
    }

    fn red(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        match self {
            Self::Colours => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            Self::Nothing => text.to_owned(),
        }
    }
}

/// Where answers go.
pub(crate) struct Output {
    writer: BufWriter<Box<dyn Write + Send>>,
    form: Form,
}

impl Output {
    /// Stdout: for a person if a terminal shows it and `json` was not asked for.
    pub(crate) fn stdout(json: bool) -> Self {
        let stdout = io::stdout();
        let form = if json || !stdout.is_terminal() {
            Form::Json
        } else {
            Form::Text(Screen {
                width: terminal_size::terminal_size().map_or(WIDTH, |(width, _)| width.0.into()),
                paint: Paint::of(true),
                zone: TimeZone::system(),
            })
        };
        Self::new(Box::new(stdout), form)
    }

    pub(crate) fn new(writer: Box<dyn Write + Send>, form: Form) -> Self {
        Self {
            writer: BufWriter::new(writer),
            form,
        }
    }

    /// The form that answers take.
    pub(crate) fn form(&self) -> &Form {
        &self.form
    }

    /// Writes a document on a line of its own.
    pub(crate) fn json(&mut self, document: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.writer, document).map_err(io::Error::from)?;
        Ok(self.writer.write_all(b"\n")?)
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.writer.write_all(line.as_bytes())?;
        Ok(self.writer.write_all(b"\n")?)
    }

    /// Writes a table, and a note when columns of it had no room.
    pub(crate) fn table(&mut self, table: &Table, screen: &Screen) -> Result<(), Failure> {
        let fitted = table.fit(screen.width);
        self.line(&screen.paint.bold(&fitted.header))?;
        for row in &fitted.rows {
            self.line(row)?;
        }
        if fitted.left_out > 0 {
            self.flush()?;
            let columns = if fitted.left_out == 1 {
                "column"
            } else {
                "columns"
            };
            Note::stderr().say(&format!(
                "{} more {columns} had no room; --json prints everything",
                fitted.left_out
            ));
        }
        Ok(())
    }

    /// Hands everything on to whoever reads it.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.writer.flush()?)
    }
}

/// Where everything goes that is no answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Note(Paint);

impl Note {
    pub(crate) fn stderr() -> Self {
        Self(Paint::of(io::stderr().is_terminal()))
    }

    /// Why the command failed.
    pub(crate) fn error(self, message: &str) {
        self.write(&format!("{} {message}", self.0.red("error:")));
    }

    /// Something worth knowing.
    pub(crate) fn say(self, message: &str) {
        self.write(&self.0.faint(message));
    }

    /// A line as it is.
    pub(crate) fn write(self, line: &str) {
        // There is nobody left to tell that stderr is closed.
        let _ = writeln!(io::stderr().lock(), "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_gets_no_colours() {
        assert_eq!(Paint::of(false), Paint::Nothing);
        assert_eq!(Paint::Nothing.bold("x"), "x");
        assert_eq!(Paint::Colours.bold("x"), "\u{1b}[1mx\u{1b}[0m");
    }

    #[test]
    fn a_closed_pipe_ends_quietly() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut output = Output::new(Box::new(Closed), Form::Json);
        let failure = output.line("x").and_then(|()| output.flush()).unwrap_err();
        assert_eq!(failure.message(), None);
        let mut output = Output::new(Box::new(Closed), Form::Json);
        let failure = output.json(&"x".repeat(100_000)).unwrap_err();
        assert_eq!(failure.message(), None, "through serde too");
    }
}
