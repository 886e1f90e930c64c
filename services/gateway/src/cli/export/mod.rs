//! `export`: the current state, or the whole history, as a file.

mod history;
mod sheet;
mod state;

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;
use stategate_client::Client;

use super::{
    archive::Selection,
    failure::{Exit, Failure, UNWRITABLE_OUTPUT, words},
    input::unpacked_name,
    output::{Form, Note, Output},
    progress::Progress,
    signals, text,
};

/// What `export` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The current state: an entity a line, with domain, type, key, values and version, in the order of its \
keys. `import` sets them again. CSV and TSV, which are made in memory, are for spreadsheets: a column for each \
top-level value, what is nested as JSON, and an apostrophe before texts that a spreadsheet would take for \
formulas (= + - @, a tab or a line break first), JSON or nothing; `import` takes it away again, and --exact \
leaves it out. A change made meanwhile may or may not be in \
it. A glob of domains or types is resolved by reading the log.

The history (--history): a header, then every event with everything it has, in the order of its lane, up \
to where the log ends when the export starts. `import` makes it again in an empty gateway.

An export that was cut off is a file that ends in the middle: --resume goes on after its last whole line. \
A history that is whole grows by what happened since.

Examples:
  stategate export faa airport --out airports.ndjson
  stategate export faa plane --filter '{\"seats\": {\"$gte\": 300}}' -o large.csv
  stategate export faa airport --format csv --exact | head
  stategate export faa '*' --out faa.ndjson
  stategate export --history --out history.ndjson
  stategate export --history --out history.ndjson --resume
  stategate export --history faa airport --key JFK")]
pub(crate) struct Args {
    /// Business domain or tenant, or a glob of them (* ? [a-z] {a,b})
    #[arg(default_value = "*", hide_default_value = true)]
    domain: String,
    /// Kind of entity, or a glob of them
    #[arg(value_name = "TYPE", default_value = "*", hide_default_value = true)]
    kind: String,
    /// Only keys that match this glob
    #[arg(
        long,
        value_name = "GLOB",
        default_value = "*",
        hide_default_value = true
    )]
    key: String,
    /// Only what matches this JSON filter: over the values, or with --history over the event
    #[arg(long, default_value = "", hide_default_value = true)]
    filter: String,
    /// The history instead of the current state
    #[arg(long)]
    history: bool,
    /// The file to write; else stdout
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The format; else by the end of the file's name, or ndjson
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Go on with the file where it was cut off
    #[arg(long, requires = "out")]
    resume: bool,
    /// Write CSV cells as the values are, also those that a spreadsheet would take for formulas
    #[arg(long)]
    exact: bool,
    /// Write the file anew if it is there
    #[arg(long, requires = "out", conflicts_with = "resume")]
    overwrite: bool,
}

/// How an export is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A JSON document a line
    Ndjson,
    /// One JSON array
    Json,
    /// Comma-separated values, the first line naming the columns
    Csv,
    /// Tab-separated values, the first line naming the columns
    Tsv,
}

/// Exports.
pub(crate) async fn run(client: &Client, args: Args, output: &mut Output) -> Result<(), Failure> {
    let format = args.format();
    if format != Format::Ndjson && (args.history || args.resume) {
        let what = if args.history {
            "a history is"
        } else {
            "only NDJSON can be resumed, which is"
        };
        return Err(Failure::usage(format!(
            "{what} written with --format ndjson"
        )));
    }
    if args.exact && !matches!(format, Format::Csv | Format::Tsv) {
        return Err(Failure::usage(
            "--exact is for CSV and TSV; JSON is always exact",
        ));
    }
    let file = args.target()?;
    let to = args.out.clone();
    let exported = tokio::select! {
        exported = async {
            if args.history {
                history::export(client, args.selection(), file).await
            } else {
                state::export(client, args.selection(), format, args.exact, file).await
            }
        } => exported,
        () = signals::stop() => Err(Failure::failed(INTERRUPTED)),
    };
    let exported = exported.map_err(|failure| match (&to, failure.message()) {
        (Some(_), Some(message)) if format == Format::Ndjson && is_passing(&failure) => {
            Failure::new(
                failure.exit(),
                format!("{message}; the same with --resume goes on"),
            )
        }
        _ => failure,
    })?;
    match (to, output.form()) {
        (None, _) => {
            exported.say();
            Ok(())
        }
        (Some(_), Form::Json) => output.json(&exported),
        (Some(path), Form::Text(_)) => {
            let path = text::plain(&path.display().to_string());
            output.line(&format!("{path}: {}", exported.words()))
        }
    }
}

const INTERRUPTED: &str = "interrupted";

/// Whether an export that ended so can be gone on with. What is refused is refused again, and so is a file
/// that is not what an export writes.
fn is_passing(failure: &Failure) -> bool {
    let is_of_output =
        |message: &str| message == INTERRUPTED || message.starts_with(UNWRITABLE_OUTPUT);
    match failure.exit() {
        Exit::Unavailable => true,
        Exit::Failed => failure.message().is_some_and(is_of_output),
        _ => false,
    }
}

impl Args {
    fn format(&self) -> Format {
        let extension = self.out.as_ref().and_then(|path| path.extension());
        match (self.format, extension.and_then(|name| name.to_str())) {
            (Some(format), _) => format,
            (None, Some("csv")) => Format::Csv,
            (None, Some("tsv")) => Format::Tsv,
            (None, Some("json")) => Format::Json,
            (None, _) => Format::Ndjson,
        }
    }

    fn selection(&self) -> Selection {
        Selection {
            domain: self.domain.clone(),
            kind: self.kind.clone(),
            key: self.key.clone(),
            filter: self.filter.clone(),
        }
    }

    fn target(&self) -> Result<Target, Failure> {
        let Some(path) = &self.out else {
            return Ok(Target::Stdout);
        };
        let name = path.to_string_lossy();
        if unpacked_name(&name) != name {
            return Err(Failure::usage(format!(
                "--out {name}: an export is not compressed; leave it out and write `stategate export … | gzip > {name}`, or leave the ending out"
            )));
        }
        if self.resume && path.exists() {
            return Ok(Target::Old(path.clone()));
        }
        if !self.overwrite && path.exists() {
            return Err(Failure::usage(format!(
                "{} is there already; --resume goes on with it, --overwrite writes it anew",
                path.display()
            )));
        }
        File::create(path)
            .map(Target::New)
            .map_err(|error| unwritable(path, &error))
    }
}

/// Where an export goes.
enum Target {
    Stdout,
    New(File),
    /// A file to go on with.
    Old(PathBuf),
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot write {}: {}", path.display(), words(error)))
}

/// What reads a file for long, beside a command that can be interrupted.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let ended = |_| Failure::failed("the reader of the file ended early");
    tokio::task::spawn_blocking(work).await.map_err(ended)?
}

/// What is written, and how much of it.
struct Writing {
    to: BufWriter<Box<dyn Write + Send>>,
    file: Option<File>,
    count: u64,
    before: u64,
    what: What,
    progress: Progress,
}

/// What an export has.
#[derive(Debug, Clone, Copy)]
enum What {
    Events,
    Entities,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Entities => "entities",
        }
    }
}

/// How an export came out.
#[derive(Debug, Serialize)]
struct Exported {
    #[serde(skip)]
    what: What,
    written: u64,
    /// How many were in the file before.
    before: u64,
    seconds: f64,
}

impl Exported {
    fn words(&self) -> String {
        let before = match self.before {
            0 => String::new(),
            before => format!(" after {} that were there", text::count(before)),
        };
        let written = match self.what {
            What::Events => text::counted(self.written, "event", "events"),
            What::Entities => text::counted(self.written, "entity", "entities"),
        };
        format!("{written}{before} in {:.1} s", self.seconds)
    }

    fn say(&self) {
        Note::stderr().say(&self.words());
    }
}

impl Writing {
    fn new(target: Target, what: What, size: Option<u64>) -> Result<Self, Failure> {
        let file = match target {
            Target::Stdout => None,
            Target::New(file) => Some(file),
            Target::Old(path) => {
                let file = OpenOptions::new().append(true).open(&path);
                Some(file.map_err(|error| unwritable(&path, &error))?)
            }
        };
        let to: Box<dyn Write + Send> = match &file {
            None => Box::new(io::stdout()),
            Some(file) => Box::new(file.try_clone()?),
        };
        Ok(Self {
            to: BufWriter::with_capacity(1 << 16, to),
            file,
            count: 0,
            before: 0,
            what,
            progress: Progress::new(what.name(), size),
        })
    }

    fn line(&mut self, document: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.to, document).map_err(io::Error::from)?;
        Ok(self.to.write_all(b"\n")?)
    }

    /// Everything is written, and on the disk if there is one.
    fn finish(mut self) -> Result<Exported, Failure> {
        self.progress.finish();
        self.to.flush()?;
        // A pipe has no disk under it.
        if let Some(file) = &self.file
            && file.metadata()?.is_file()
        {
            file.sync_all()?;
        }
        Ok(Exported {
            what: self.what,
            written: self.count,
            before: self.before,
            seconds: (self.progress.seconds() * 1e3).round() / 1e3,
        })
    }
}

/// What was not written yet is, and the bar is gone, however it ended.
impl Drop for Writing {
    fn drop(&mut self) {
        self.progress.finish();
        let _ = self.to.flush();
    }
}
