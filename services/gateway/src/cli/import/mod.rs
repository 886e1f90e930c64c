//! `import`: sets an entity from each row of a file, or makes again what `export` wrote.
//!
//! One thread reads and types rows ([`source`]), this task keeps a bounded number of them on their
//! way ([`send`]), and every row that does not arrive is named. An exported history is not rows but
//! writes in an order ([`replay`]).

mod array;
mod cell;
mod columns;
mod csv_rows;
mod key;
mod metered;
mod plan;
mod records;
mod replay;
mod row;
mod send;
mod source;
mod tally;
#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    num::NonZeroUsize,
    ops::ControlFlow,
    path::Path,
    pin::Pin,
};

use stategate_client::{KindRef, Outcome};
use tokio::{
    sync::mpsc,
    task::{self, JoinHandle},
    time::{Instant, sleep_until},
};
use uuid::Uuid;

use self::{
    columns::Selection,
    key::Template,
    plan::{Format, Names, Plan, Sheet},
    row::Parsed,
    send::{Became, Flight, Sent},
    tally::Tally,
};
use super::{
    archive,
    connection::Connection,
    failure::{Exit, Failure},
    input::{self, Input, Opened},
    output::{Note, Output},
    signals,
};

/// The column of an exported sheet that holds the keys.
const KEY_OF_EXPORT: &str = "@key";

/// Rows that are read ahead of those on their way.
const READ_AHEAD: usize = 64;

const RULES: &str = "\
Examples:
  stategate import airports.csv --domain faa --type airport --key faa
  stategate import planes.csv --domain faa --type plane --key tailnum
  stategate import flights.csv --domain nyc --type flight --resume fl-2013 \\
      --key '{carrier}{flight}-{origin}-{time_hour}'
  stategate import users.csv.gz --domain acme --type user --key id --without '#4' --rename 'e-mail=email'
  stategate import state.ndjson         what `stategate export faa airport` wrote
  stategate import history.ndjson       what `stategate export --history` wrote

Keys:
  --key faa                          the column `faa`
  --key '{carrier}{flight}-{origin}' a template; {{ and }} are plain braces

Keys are made of the cells as they stand in the file (007 stays 007). A row is refused when a cell \
of its key is null, empty or has white space, unless --key-space says what stands in its place.

Values of CSV cells (JSON values are taken as they are):
  empty, NA                      null (--null changes which)
  1044, -80.6, 1.5e8, 1e+05      numbers
  true, false                    booleans
  04G, 007, 1E8, True, the rest  strings; so is what no double can hold
  --text COLUMN                  keeps a column's cells strings

Rows of the same key are written in the order of the file. Each has an idempotency key, made of the \
import's id and the row's number: a row that got no answer is sent again without being written twice, \
also after the gateway was killed, and with --resume by another run of the import. Bad rows are named \
on stderr with their line, and the others are imported; with --strict the first one ends the import, \
after rows on their way have arrived.

A quote that is never closed, or closed too early, ends the import where it opens: nothing after it can \
be told apart. A column without a name, or with another's, is refused: --columns takes only those named, \
--without leaves some out, --rename gives them names. For JSON rows these are the members of the object.

A CSV file that `export` wrote (its first column is @key or @domain) comes back as it was: @key names the \
entity, @version is passed over, texts that an apostrophe kept from being formulas lose it, a cell between \
quotes is a text (\"5\") or null (\"\"), an empty one no value. A program that writes the file anew may \
leave the quotes out, and `5` is a number then.

An exported history is made again, write for write: values, versions, methods and the order within \
each domain come out as they were, in a gateway that does not have these entities yet. Ids, times, \
claims and positions are given anew: they are the audit trail, and nobody can write them over the API. \
A revert becomes one to the earliest version with the same values. The same file imported again goes on \
where it was.";

/// What `import` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = RULES)]
pub(crate) struct Args {
    /// The file, as it is or compressed by gzip or zstd; - reads stdin
    file: String,
    /// Business domain or tenant that the entities belong to
    #[arg(long, requires = "kind")]
    domain: Option<String>,
    /// Kind of entity that the rows are
    #[arg(long = "type", value_name = "TYPE", requires = "domain")]
    kind: Option<String>,
    /// The column, or a template of columns, that makes a row's key; none for what `export` wrote
    #[arg(
        long,
        value_name = "COLUMN|TEMPLATE",
        requires = "domain",
        requires = "kind"
    )]
    key: Option<Template>,
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
    #[arg(long = "null", value_name = "TEXT")]
    nulls: Vec<String>,
    /// A CSV column whose cells are strings and never null; may be given several times
    #[arg(long = "text", value_name = "COLUMN")]
    texts: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    /// Quotes of a CSV file are characters like others, as in most TSV files
    #[arg(long)]
    no_quotes: bool,
    /// The CSV file was written by `export --exact`: its cells are taken as they stand
    #[arg(long)]
    exact: bool,
    /// End at the first row that fails
    #[arg(long)]
    strict: bool,
    /// Go on with the import of this id, which an import that ends early says; or a name for this one,
    /// to go on with should it be cut off
    #[arg(long, value_name = "ID", value_parser = id)]
    resume: Option<String>,
    /// Most rows on their way at once
    #[arg(long, value_name = "N", default_value = "64")]
    concurrency: NonZeroUsize,
}

/// Imports a file.
pub(crate) async fn run(
    connection: &Connection,
    args: Args,
    output: &mut Output,
) -> Result<(), Failure> {
    let stop = signals::stop();
    tokio::pin!(stop);
    let is_strict = args.strict;
    let concurrency = args.concurrency.get();
    // On a thread, for a pipe may have nothing to read for long.
    let opened = task::spawn_blocking({
        let file = args.file.clone();
        move || input::open(Path::new(&file))
    });
    let opened = tokio::select! {
        opened = opened => opened.map_err(|_| Failure::failed("the reader of the file ended early"))??,
        () = &mut stop => return Err(before_anything()),
    };
    if args.names_nothing() && archive::is_history(&opened.first) {
        if !args.selection.is_everything() || args.of_sheets().is_some() {
            return Err(Failure::usage(
                "an exported history is made again as it was; leave out the options about columns and cells",
            ));
        }
        Note::stderr().say("an exported history; the same again goes on with it if it is cut off");
        let client = tokio::select! {
            client = send::patient(connection, 1) => client?,
            () = &mut stop => return Err(before_anything()),
        };
        return replay::run(&client, opened, stop, output).await;
    }
    let Opened {
        text,
        first,
        size,
        read,
    } = opened;
    let id = args.resume.clone();
    let id = id.unwrap_or_else(|| Uuid::new_v4().simple().to_string()[..12].to_owned());
    let plan = args.plan(&first)?;
    let name = plan.names.to_string();
    // Before anything that can be cut off, and wherever it is read.
    Note::stderr().say(&format!(
        "import {id}; --resume {id} goes on with it if it is cut off"
    ));
    let client = tokio::select! {
        client = send::patient(connection, concurrency) => client?,
        () = &mut stop => return Err(Failure::failed(format!(
            "interrupted before a row was sent; the same with --resume {id} goes on"
        ))),
    };
    let mut flight = Flight::new(client, &id, concurrency);

    let (rows, reader) = start(text, plan);
    let mut tally = Tally::new("rows", read, size);
    let ended = carry(rows, &mut flight, &mut tally, is_strict, stop).await;
    // Whatever ended it, what was written is written: the counts come first, the reason last. Nor does
    // it matter to how it ended whether anybody reads the counts.
    let told = tally
        .finish(&name, Some(&id), output)
        .and_then(|()| output.flush());
    ended.map_err(|failure| match failure.message() {
        Some(message) if failure.exit() != Exit::RowsFailed => Failure::new(
            failure.exit(),
            format!("{message}; the same with --resume {id} goes on"),
        ),
        _ => failure,
    })?;
    if let Some(failed) = finished(reader).await {
        return Err(failed);
    }
    tally.verdict().and(told)
}

fn before_anything() -> Failure {
    Failure::failed("interrupted before the first row was sent; the same again begins")
}

impl Args {
    fn plan(self, first: &[u8]) -> Result<Plan, Failure> {
        let format = self.format.or_else(|| Format::of_name(&self.file));
        let Some(format) = format else {
            return Err(Failure::usage(format!(
                "the format of `{}` is not known by its name; give --format csv, tsv, json or ndjson",
                self.file
            )));
        };
        let is_sheet = matches!(format, Format::Csv | Format::Tsv);
        if let Some(option) = self.of_sheets().filter(|_| !is_sheet) {
            return Err(Failure::usage(format!(
                "{option} is for CSV and TSV, and has no effect on JSON"
            )));
        }
        let delimiter = self.delimiter.unwrap_or(format.delimiter());
        let sheet = match is_sheet {
            true => Sheet::of(first, delimiter, self.exact),
            false => Sheet::None,
        };
        let made = |domain: String, kind: String, key| {
            KindRef::new(&domain, &kind).map_err(|invalid| {
                Failure::usage(format!("--{}: {}", invalid.field, invalid.problem))
            })?;
            Ok::<_, Failure>(Names::Made {
                domain,
                kind,
                key,
                space: self.key_space,
            })
        };
        let names = match (self.domain, self.kind, self.key, sheet) {
            (Some(domain), Some(kind), Some(key), _) => made(domain, kind, key)?,
            // Its rows have their keys.
            (Some(domain), Some(kind), None, Sheet::Keys { .. } | Sheet::Names { .. }) => {
                made(domain, kind, Template::column(KEY_OF_EXPORT))?
            }
            (Some(_), ..) => {
                return Err(Failure::usage(
                    "--key must name the column, or the columns, that a row's key is made of",
                ));
            }
            (None, _, _, Sheet::Keys { .. }) => {
                return Err(Failure::usage(
                    "--domain and --type must say what the rows are; an export of one type does not",
                ));
            }
            (None, _, _, Sheet::None) if is_sheet => {
                return Err(Failure::usage(
                    "--domain, --type and --key must say what the rows become; only what `export` wrote goes without",
                ));
            }
            _ => Names::Told,
        };
        Ok(Plan {
            names,
            nulls: (!self.nulls.is_empty()).then(|| self.nulls.into_iter().collect()),
            texts: self.texts.into_iter().collect(),
            sought: RefCell::new(self.selection.all_names()),
            has_rows: Cell::new(false),
            selection: self.selection,
            format,
            delimiter: self.delimiter,
            no_quotes: self.no_quotes,
            sheet,
        })
    }

    /// An option that was given and is for sheets alone.
    fn of_sheets(&self) -> Option<&'static str> {
        let given = [
            ("--delimiter", self.delimiter.is_some()),
            ("--null", !self.nulls.is_empty()),
            ("--text", !self.texts.is_empty()),
            ("--no-quotes", self.no_quotes),
            ("--exact", self.exact),
        ];
        let first = given.iter().find(|(_, is_given)| *is_given);
        first.map(|(option, _)| *option)
    }

    /// Whether the file itself must say what is in it.
    fn names_nothing(&self) -> bool {
        self.domain.is_none() && self.key.is_none()
    }
}

fn id(text: &str) -> Result<String, String> {
    // Within a key of 128 bytes there is room for the row's number.
    if (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("an id has 1 to 64 visible ASCII characters".to_owned())
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

/// Reads on a thread of its own, no further ahead than the rows can be sent.
fn start(input: Input, plan: Plan) -> (mpsc::Receiver<Parsed>, JoinHandle<Result<(), Failure>>) {
    let (send, receive) = mpsc::channel(READ_AHEAD);
    let reader = task::spawn_blocking(move || {
        source::read(
            Box::new(input),
            &plan,
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
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<(), Failure> {
    let mut rows = Some(rows);
    let mut ended = Ok(());
    let mut number = 0;
    // Once it is interrupted: when rows on their way are no longer waited for.
    let mut until = None;
    while rows.is_some() || !flight.is_empty() {
        // The first of these to happen.
        let (read, sent) = tokio::select! {
            biased;
            () = stop.as_mut(), if until.is_none() => {
                until = Some(Instant::now() + signals::LAST_WORDS);
                rows = None;
                flight.keep_back();
                ended = Err(Failure::failed("interrupted"));
                continue;
            }
            () = later(until), if until.is_some() => {
                tally.left_open(flight.len() as u64);
                ended = Err(Failure::failed(format!(
                    "interrupted while rows were on their way without an answer; {} of them may be written or not",
                    flight.len()
                )));
                break;
            }
            Some(sent) = flight.next(), if !flight.is_empty() => (None, Some(sent)),
            row = next(&mut rows), if rows.is_some() && flight.has_room() => (Some(row), None),
        };
        number += u64::from(matches!(read, Some(Some(_))));
        let failed = match (read, sent) {
            (Some(None), _) => {
                rows = None;
                continue;
            }
            (Some(Some(Ok(mut row))), _) => {
                row.number = number;
                flight.push(row);
                continue;
            }
            (Some(Some(Err((place, refused)))), _) => {
                tally.failed(Outcome::NotWritten, &format!("{place}: {refused}"));
                true
            }
            (
                None,
                Some(Sent {
                    place,
                    entity,
                    became,
                }),
            ) => {
                let failed = !matches!(became, Became::Written(_));
                let over = match became {
                    Became::Written(written) => tally.written(&written),
                    Became::Failed(outcome, why) => {
                        let key = entity.key();
                        tally.failed(outcome, &format!("{place} (key {key}): {why}"));
                        Ok(())
                    }
                    Became::Over(outcome, failure) => {
                        let key = entity.key();
                        tally.failed(outcome, &format!("{place} (key {key}): {outcome}"));
                        Err(failure)
                    }
                };
                if over.is_err() {
                    rows = None;
                    flight.keep_back();
                    ended = ended.and(over);
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

async fn later(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}
