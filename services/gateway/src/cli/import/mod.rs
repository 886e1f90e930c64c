//! `import`: sets an entity from each row of a file.
//!
//! One thread reads and types rows ([`source`]), this task keeps a bounded number of them on their
//! way ([`send`]), and every row that does not arrive is named.

mod array;
mod cell;
mod csv_rows;
mod key;
mod row;
mod send;
mod source;
mod tally;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{self, Read},
    num::NonZeroUsize,
    ops::ControlFlow,
    sync::{Arc, atomic::AtomicU64},
};

use stategate_model::KindRef;
use tokio::{sync::mpsc, task::JoinHandle};

use self::{
    key::Template,
    row::Parsed,
    send::{Flight, Outcome, Sent},
    source::{Format, Plan},
    tally::Tally,
};
use super::{
    client::Gateway,
    failure::{Exit, Failure},
    output::Output,
    signals,
};

/// Rows that are read ahead of those on their way.
const READ_AHEAD: usize = 64;

const RULES: &str = "\
Keys:
  --key faa                          the column `faa`
  --key '{carrier}{flight}-{origin}' a template; {{ and }} are braces themselves
  Keys are made of the cells as they stand in the file (007 stays 007). A row is refused when a cell
  of its key is null, empty or has white space, unless --key-space says what stands in its place.

Values of CSV cells (JSON values are taken as they are):
  empty, NA                      null (--null changes which)
  1044, -80.6, 1.5e8, 1e+05      numbers
  true, false                    booleans
  04G, 007, 1E8, True, the rest  strings; so are whole numbers that a double cannot hold
  --text COLUMN                  keeps a column's cells strings, whatever they look like

Rows of the same key are written in the order of the file. A row is sent again only when it surely
was not written; one that got no answer is named, and may be written or not. Bad rows are named on
stderr with their line, and the others are imported; with --strict the first one ends the import,
after rows on their way have arrived.";

/// What `import` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = RULES)]
pub(crate) struct Args {
    /// The file; - reads stdin
    file: String,
    /// Business domain or tenant that the entities belong to
    #[arg(long)]
    domain: String,
    /// Kind of entity that the rows are
    #[arg(long = "type", value_name = "TYPE")]
    kind: String,
    /// The column, or a template of columns, that makes a row's key
    #[arg(long, value_name = "COLUMN|TEMPLATE")]
    key: Template,
    /// What stands in keys in the place of white space, such as _
    #[arg(long, value_name = "TEXT")]
    key_space: Option<String>,
    /// The file's format; else by the end of its name
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// What stands between the cells of a CSV file
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    delimiter: Option<u8>,
    /// A CSV cell that is null, instead of NA and empty ones; may be given several times
    #[arg(long = "null", value_name = "TEXT", default_values = cell::NULLS, hide_default_value = true)]
    nulls: Vec<String>,
    /// A CSV column whose cells are strings and never null; may be given several times
    #[arg(long = "text", value_name = "COLUMN")]
    texts: Vec<String>,
    /// End at the first row that fails
    #[arg(long)]
    strict: bool,
    /// Most rows on their way at once
    #[arg(long, value_name = "N", default_value = "64")]
    concurrency: NonZeroUsize,
}

/// Imports a file.
pub(crate) async fn run(gateway: &Gateway, args: Args, output: &mut Output) -> Result<(), Failure> {
    let is_strict = args.strict;
    let concurrency = args.concurrency.get();
    let (file, plan) = args.plan()?;
    let name = format!("{}/{}", plan.domain, plan.kind);
    let mut flight = Flight::new(gateway, &plan.domain, &plan.kind, concurrency)?;
    let (input, size) = open(&file)?;

    let read = Arc::new(AtomicU64::new(0));
    let (rows, reader) = start(input, plan, read.clone());
    let mut tally = Tally::new(read, size);
    let ended = carry(rows, &mut flight, &mut tally, is_strict).await;
    // Whatever ended it, what was written is written: the counts come first, the reason last.
    tally.finish(&name, output)?;
    output.flush()?;
    ended?;
    if let Some(failed) = finished(reader).await {
        return Err(failed);
    }
    tally.verdict()
}

impl Args {
    fn plan(self) -> Result<(String, Plan), Failure> {
        KindRef::new(&self.domain, &self.kind).map_err(|invalid| {
            Failure::usage(format!("--{}: {}", invalid.field, invalid.problem))
        })?;
        let format = self.format.or_else(|| Format::of_name(&self.file));
        let Some(format) = format else {
            return Err(Failure::usage(format!(
                "the format of `{}` is not known by its name; give --format csv, tsv, json or ndjson",
                self.file
            )));
        };
        let plan = Plan {
            domain: self.domain,
            kind: self.kind,
            key: self.key,
            space: self.key_space,
            nulls: self.nulls.into_iter().collect(),
            texts: self.texts.into_iter().collect(),
            format,
            delimiter: self.delimiter,
        };
        Ok((self.file, plan))
    }
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"\\t" => Ok(b'\t'),
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => Ok(*byte),
        _ => Err(format!(
            "`{text}` is not one ASCII character; write \\t for a tab"
        )),
    }
}

/// Opens the file; also its size, where that is known.
fn open(file: &str) -> Result<(Box<dyn Read + Send>, Option<u64>), Failure> {
    if file == "-" {
        return Ok((Box::new(io::stdin()), None));
    }
    let unreadable = |error| Failure::failed(format!("cannot read {file}: {error}"));
    let opened = File::open(file).map_err(unreadable)?;
    let about = opened.metadata().map_err(unreadable)?;
    if about.is_dir() {
        return Err(Failure::failed(format!(
            "cannot read {file}: it is a directory"
        )));
    }
    Ok((Box::new(opened), about.is_file().then_some(about.len())))
}

/// Reads on a thread of its own, no further ahead than the rows can be sent.
fn start(
    input: Box<dyn Read + Send>,
    plan: Plan,
    read: Arc<AtomicU64>,
) -> (mpsc::Receiver<Parsed>, JoinHandle<Result<(), Failure>>) {
    let (send, receive) = mpsc::channel(READ_AHEAD);
    let reader = tokio::task::spawn_blocking(move || {
        source::read(
            input,
            &plan,
            &read,
            &mut |parsed| match send.blocking_send(parsed) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            },
        )
    });
    (receive, reader)
}

/// What kept the file from being read to its end.
async fn finished(reader: JoinHandle<Result<(), Failure>>) -> Option<Failure> {
    match reader.await {
        Ok(read) => read.err(),
        Err(_) => Some(Failure::failed("the reader of the file ended early")),
    }
}

/// Sends every row there is, and counts what becomes of them.
async fn carry(
    rows: mpsc::Receiver<Parsed>,
    flight: &mut Flight,
    tally: &mut Tally,
    is_strict: bool,
) -> Result<(), Failure> {
    let mut rows = Some(rows);
    let mut ended = Ok(());
    let stop = signals::stop();
    tokio::pin!(stop);
    while rows.is_some() || !flight.is_empty() {
        // The first of these to happen.
        let (read, sent) = tokio::select! {
            biased;
            () = &mut stop, if rows.is_some() => {
                rows = None;
                ended = Err(Failure::failed("interrupted; rows after the last one counted were not read"));
                continue;
            }
            Some(sent) = flight.next(), if !flight.is_empty() => (None, Some(sent)),
            row = next(&mut rows), if rows.is_some() && flight.has_room() => (Some(row), None),
        };
        let failed = match (read, sent) {
            (Some(None), _) => {
                rows = None;
                continue;
            }
            (Some(Some(Ok(row))), _) => {
                flight.push(row);
                continue;
            }
            (Some(Some(Err((place, refused)))), _) => {
                tally.failed(&format!("{place}: {refused}"));
                true
            }
            (
                None,
                Some(Sent {
                    place,
                    key,
                    outcome,
                }),
            ) => {
                let failed = !matches!(outcome, Outcome::Written(_));
                match outcome {
                    Outcome::Written(token) => tally.written(token),
                    Outcome::Refused(why) => {
                        tally.failed(&format!("{place} (key {key}): {why}"));
                    }
                    Outcome::Over(failure) => {
                        tally.failed(&format!("{place} (key {key}): not written"));
                        rows = None;
                        ended = ended.and(Err(failure));
                    }
                }
                failed
            }
            (None, None) => false,
        };
        if failed && is_strict && rows.take().is_some() {
            ended = ended.and(Err(Failure::new(
                Exit::RowsFailed,
                "ended at the first row that failed (--strict)",
            )));
        }
    }
    ended
}

async fn next(rows: &mut Option<mpsc::Receiver<Parsed>>) -> Option<Parsed> {
    rows.as_mut()?.recv().await
}
