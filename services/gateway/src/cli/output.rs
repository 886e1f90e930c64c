//! The two streams a command writes: answers to stdout, in one of two forms, and notes to stderr.

use std::{
    env,
    io::{self, BufWriter, IsTerminal as _, Write},
};

use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

use super::{failure::Failure, pager::Pager, table::Table, text::Clock};

/// The width of a terminal that does not tell.
const WIDTH: usize = 100;

/// Keeps these apart from a command's own options.
const HEADING: &str = "Options of every command";

/// How answers are to be printed.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Print a JSON document, an array where there are several answers
    #[arg(long, global = true, help_heading = HEADING, conflicts_with = "ndjson")]
    json: bool,
    /// Print a JSON document a line, as happens by itself when stdout is no terminal
    #[arg(long, global = true, help_heading = HEADING)]
    ndjson: bool,
    /// Show times in UTC instead of this machine's zone
    #[arg(long, global = true, help_heading = HEADING, conflicts_with = "relative")]
    utc: bool,
    /// Show how long ago things were: `2 hours ago`; typed later, that is another time
    #[arg(long, global = true, help_heading = HEADING)]
    relative: bool,
    /// Do not page long answers through $PAGER (less)
    #[arg(long, global = true, help_heading = HEADING, hide_short_help = true)]
    no_pager: bool,
}

/// How answers are printed.
#[derive(Debug, Clone)]
pub(crate) enum Form {
    /// For a program.
    Json,
    /// For a person.
    Text(Screen),
}

/// How JSON documents follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// One a line.
    Lines,
    /// Indented, one after the other.
    Documents,
    /// Indented, in an array that has this many already.
    Array(u64),
}

/// What a person reads on.
#[derive(Debug, Clone)]
pub(crate) struct Screen {
    /// Columns of a line.
    pub(crate) width: usize,
    /// Colours.
    pub(crate) paint: Paint,
    /// How times are shown.
    pub(crate) clock: Clock,
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

    /// What came.
    pub(crate) fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// What went.
    pub(crate) fn red(self, text: &str) -> String {
        self.wrap("31", text)
    }

    /// What became something else.
    pub(crate) fn yellow(self, text: &str) -> String {
        self.wrap("33", text)
    }

    fn alarm(self, text: &str) -> String {
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
    layout: Layout,
    may_page: bool,
    notes: Vec<String>,
}

impl Output {
    /// Stdout: for a person if a terminal shows it and nothing else was asked for.
    pub(crate) fn stdout(options: &Options) -> Self {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        let form = if options.json || options.ndjson || !is_terminal {
            Form::Json
        } else {
            Form::Text(Screen {
                width: terminal_size::terminal_size().map_or(WIDTH, |(width, _)| width.0.into()),
                paint: Paint::of(true),
                clock: if options.relative {
                    Clock::Ago(Timestamp::now())
                } else if options.utc {
                    Clock::Utc
                } else {
                    Clock::Zone(TimeZone::system())
                },
            })
        };
        Self {
            layout: if options.json {
                Layout::Documents
            } else {
                Layout::Lines
            },
            may_page: is_terminal && !options.no_pager,
            ..Self::new(Box::new(stdout), form)
        }
    }

    pub(crate) fn new(writer: Box<dyn Write + Send>, form: Form) -> Self {
        Self {
            writer: BufWriter::new(writer),
            form,
            layout: Layout::Lines,
            may_page: false,
            notes: Vec::new(),
        }
    }

    /// The form that answers take.
    pub(crate) fn form(&self) -> &Form {
        &self.form
    }

    /// Several answers follow, and then no more: they are paged for a person, and an array for a
    /// program that wants one document.
    pub(crate) fn begin_list(&mut self) {
        if self.may_page
            && let Some(pager) = Pager::of_user()
        {
            self.writer = BufWriter::new(Box::new(pager));
        }
        if self.layout == Layout::Documents {
            self.layout = Layout::Array(0);
        }
    }

    /// Writes a document.
    pub(crate) fn json(&mut self, document: &impl Serialize) -> Result<(), Failure> {
        match &mut self.layout {
            Layout::Lines => {
                serde_json::to_writer(&mut self.writer, document).map_err(io::Error::from)?;
                Ok(self.writer.write_all(b"\n")?)
            }
            Layout::Documents => {
                serde_json::to_writer_pretty(&mut self.writer, document)
                    .map_err(io::Error::from)?;
                Ok(self.writer.write_all(b"\n")?)
            }
            Layout::Array(count) => {
                let text = serde_json::to_string_pretty(document).map_err(io::Error::from)?;
                let before = if *count == 0 { "[\n  " } else { ",\n  " };
                *count += 1;
                self.writer.write_all(before.as_bytes())?;
                Ok(self
                    .writer
                    .write_all(text.replace('\n', "\n  ").as_bytes())?)
            }
        }
    }

    /// Says something on stderr once the answers are out, and read if they are paged.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        if let Form::Text(_) = self.form {
            self.notes.push(note.into());
        }
    }

    /// The command is over: ends the list if it came out well, waits for the pager, and says what is
    /// left to say. Answers how the command ended.
    pub(crate) fn finish(mut self, done: Result<(), Failure>) -> Result<(), Failure> {
        let ended = match self.layout {
            Layout::Array(0) if done.is_ok() => self.writer.write_all(b"[]\n"),
            Layout::Array(1..) if done.is_ok() => self.writer.write_all(b"\n]\n"),
            _ => Ok(()),
        };
        let ended = ended.and_then(|()| self.writer.flush());
        // Whoever closed it has read enough; what was not read must not be written again.
        let (writer, _) = self.writer.into_parts();
        drop(writer);
        for note in self.notes {
            Note::stderr().say(&note);
        }
        done.and(ended.map_err(Failure::from))
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.writer.write_all(line.as_bytes())?;
        Ok(self.writer.write_all(b"\n")?)
    }

    /// Writes text as it is.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        Ok(self.writer.write_all(text.as_bytes())?)
    }

    /// Writes a table, and a note when columns of it had no room.
    pub(crate) fn table(&mut self, table: &Table, screen: &Screen) -> Result<(), Failure> {
        let fitted = table.fit(screen.width);
        self.line(&screen.paint.bold(&fitted.header))?;
        for row in &fitted.rows {
            self.line(row)?;
        }
        if fitted.left_out > 0 {
            let columns = if fitted.left_out == 1 {
                "column"
            } else {
                "columns"
            };
            let note = format!(
                "{} more {columns} had no room; --json prints everything",
                fitted.left_out
            );
            // Once, though a long answer is a table a page.
            if self.notes.last() != Some(&note) {
                self.note(note);
            }
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
        self.write(&format!("{} {message}", self.0.alarm("error:")));
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
    fn a_list_is_one_document_or_a_document_a_line() {
        use crate::cli::testing::Printed;

        for (layout, none, two) in [
            (Layout::Lines, "", "{\"n\":1}\n{\"n\":2}\n"),
            (
                Layout::Documents,
                "[]\n",
                "[\n  {\n    \"n\": 1\n  },\n  {\n    \"n\": 2\n  }\n]\n",
            ),
        ] {
            for (count, expected) in [(0, none), (2, two)] {
                let printed = Printed::default();
                let mut output = printed.output();
                output.layout = layout;
                output.begin_list();
                for n in 1..=count {
                    output.json(&serde_json::json!({ "n": n })).unwrap();
                }
                output.finish(Ok(())).unwrap();
                assert_eq!(printed.text(), expected);
            }
        }
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
