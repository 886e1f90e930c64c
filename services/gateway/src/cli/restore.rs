//! `restore`: makes a log in an empty storage from an exported history, as it was: with its id, and the
//! ids, times, positions and claims of its events, which no call can write.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    path::PathBuf,
    sync::Arc,
};

use serde::Serialize;
use serde_json::value::RawValue;
use stategate_model::{
    Claims, EntityRef, Event, EventId, Heads, Lane, Lanes, Limits, LogId, Method, Position,
    Timestamp, Token, TraceParent, Values, Version, json as strict, limits,
};
use stategate_storage::{Appended, Batch, Identity, Kind, Storage, StorageConfig, create_as};
use uuid::Uuid;

use super::{
    archive::{End, Header, Restored, is_history},
    failure::{Exit, Failure},
    migrate::storage,
    output::{Form, Output},
    progress::Progress,
    signals, text,
};

const EXAMPLES: &str = r#"Examples:
  stategate export --history --out history.ndjson
  stategate restore history.ndjson --to '{"name":"sqlite","path":"restored.db"}'
  stategate restore history.ndjson --to '{"name":"postgres","addr":"postgres://app@db/app"}'

The log comes back as it was: its id, and the ids, times, versions, positions and claims of its events, so
that clients go on with the tokens they have. Only idempotency keys are not in an export; `migrate` copies
those too. The export must be of the whole log. No gateway may write to the storage meanwhile; an
interrupted restore goes on when it is begun again.

To make a history again in a gateway that has other data, use `import`."#;

/// What `restore` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The file that `export --history` wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The storage to make the log in: empty, or a part of the same restore
    #[arg(long, value_name = "JSON", value_parser = storage)]
    to: StorageConfig,
}

/// The outcome as it is printed for programs.
#[derive(Debug, Serialize)]
struct Report {
    log_id: String,
    lanes: u8,
    events: u64,
    written: u64,
}

/// Restores a log.
pub(crate) async fn run(args: Args, output: &mut Output) -> Result<(), Failure> {
    if matches!(args.to, StorageConfig::Memory(_)) {
        return Err(Failure::usage(
            "--to: a log in memory is gone when this process ends",
        ));
    }
    let shown = args.file.display().to_string();
    let opened = File::open(&args.file);
    let opened = opened.map_err(|error| Failure::failed(format!("{shown}: {error}")))?;
    let size = opened.metadata().map(|metadata| metadata.len()).ok();
    let mut input = Lines {
        file: BufReader::new(opened),
        shown,
        number: 0,
        read: 0,
        line: String::new(),
    };
    let identity = identity(&mut input)?;
    let target = create_as(&args.to, identity)
        .await
        .map_err(|error| Failure::failed(format!("--to: {}", error.reason())))?;
    let (log_id, lanes) = (target.info().log_id, target.info().lanes);
    let restored = if (log_id, lanes) == (identity.log_id, identity.lanes) {
        tokio::select! {
            restored = restore(&mut input, &target, size) => restored,
            () = signals::stop() => Err(Failure::failed("interrupted; the same again goes on")),
        }
    } else {
        Err(Failure::new(
            Exit::Refused,
            format!(
                "--to: holds another log ({log_id} with {} lanes; the export is of {} with {})",
                lanes.get(),
                identity.log_id,
                identity.lanes.get()
            ),
        ))
    };
    target.close().await;
    let (events, written) = restored?;
    match output.form() {
        Form::Json => output.json(&Report {
            log_id: log_id.to_string(),
            lanes: lanes.get(),
            events,
            written,
        }),
        Form::Text(_) => output.line(&format!(
            "{} events ({} written now) in {} lanes\nlog {log_id}",
            text::count(events),
            text::count(written),
            lanes.get()
        )),
    }?;
    output.flush()
}

/// Most bytes of a line: the largest values and claims with every byte written as an escape. A file that
/// is not what it seems must not be read into memory to its end.
const LINE_BYTES: u64 = 32 << 20;

/// The lines of the file.
struct Lines {
    file: BufReader<File>,
    shown: String,
    number: u64,
    read: u64,
    line: String,
}

impl Lines {
    /// The next line; `None` at the end, and for a line that was cut off.
    fn next(&mut self) -> Result<Option<&str>, Failure> {
        self.line.clear();
        self.number += 1;
        let read = (&mut self.file).take(LINE_BYTES).read_line(&mut self.line);
        let read = read.map_err(|error| {
            Failure::failed(format!("{}, line {}: {error}", self.shown, self.number))
        })?;
        self.read += read as u64;
        if read as u64 == LINE_BYTES && !self.line.ends_with('\n') {
            return Err(self.refuse("is longer than any event"));
        }
        Ok(self.line.strip_suffix('\n'))
    }

    fn refuse(&self, problem: impl std::fmt::Display) -> Failure {
        Failure::failed(format!("{}, line {} {problem}", self.shown, self.number))
    }
}

/// Whose log it is.
fn identity(input: &mut Lines) -> Result<Identity, Failure> {
    let first = input.next()?.unwrap_or_default().to_owned();
    if !is_history(first.as_bytes()) {
        return Err(input.refuse("is not the beginning of what `export --history` writes"));
    }
    let header = Header::parse(&first).map_err(|problem| input.refuse(problem))?;
    if !header.selection.is_everything() {
        return Err(input.refuse(
            "says that this is a part of a log; export all of it, without a domain, a type or a filter, or use `import`",
        ));
    }
    let log_id = Uuid::parse_str(&header.log_id).map(LogId).ok();
    let lanes = u8::try_from(header.lanes).ok();
    let lanes = lanes.and_then(|lanes| Lanes::new(lanes).ok());
    match (log_id, lanes) {
        (Some(log_id), Some(lanes)) => Ok(Identity { log_id, lanes }),
        _ => Err(input.refuse("names no log: `log_id` or `lanes` cannot be")),
    }
}

/// Events of a lane that are yet to be written.
#[derive(Default)]
struct Pending {
    events: Vec<Event>,
    bytes: usize,
}

/// Writes what the target lacks; answers how many events there are, and how many were written now.
async fn restore(
    input: &mut Lines,
    target: &Arc<dyn Storage>,
    size: Option<u64>,
) -> Result<(u64, u64), Failure> {
    let there = target.heads().await.map_err(|error| failed(&error))?;
    let mut heads = there.clone();
    let mut pending: Vec<Pending> = heads.iter().map(|_| Pending::default()).collect();
    let mut progress = Progress::new("events", size);
    let (mut events, mut written) = (0, 0);
    // An export that was gone on with has one in its middle, too.
    let mut end = None;
    while let Some(line) = input.next()? {
        if let Ok(found) = serde_json::from_str::<End>(line) {
            end = Some(found);
            continue;
        }
        let event = event(line).map_err(|problem| input.refuse(problem))?;
        end = None;
        events += 1;
        let lane = event.lane;
        let Some(batch) = pending.get_mut(lane.index()) else {
            return Err(input.refuse("names a lane that the log does not have"));
        };
        if event.position <= there.get(lane) {
            // There from an earlier run, if it is the same.
            if event.position == there.get(lane) {
                let found = target.get_event(&event.entity, event.id).await;
                let found = found.map_err(|error| failed(&error))?.value;
                if found.as_ref() != Some(&event) {
                    return Err(Failure::new(
                        Exit::Refused,
                        "--to: holds other events than the export; a restore needs a storage that is empty",
                    ));
                }
            }
            continue;
        }
        if event.position != heads.get(lane).plus(batch.events.len() as u64 + 1) {
            return Err(input.refuse("does not continue its lane: an event before it is missing"));
        }
        batch.bytes += event.size();
        batch.events.push(event);
        if batch.events.len() >= limits::BATCH_EVENTS || batch.bytes >= limits::BATCH_BYTES / 2 {
            written += append(target, lane, &mut heads, batch).await?;
        }
        progress.show(events, 0, || input.read);
    }
    for (lane, batch) in (0..).map(Lane).zip(&mut pending) {
        written += append(target, lane, &mut heads, batch).await?;
    }
    progress.finish();
    let Some(End { end }) = end else {
        return Err(Failure::failed(
            "the file ends before its export did, and all that is in it was restored; `stategate export --history --resume` completes it, and the same again goes on",
        ));
    };
    let wanted: Option<Token> = end.parse().ok();
    let goes_on = |(lane, head): (Lane, Position)| {
        let ends = wanted.as_ref().and_then(|wanted| wanted.get(lane));
        ends.is_some_and(|ends| head > ends)
    };
    if heads.iter().any(goes_on) {
        return Err(Failure::new(
            Exit::Refused,
            format!("--to: the log there goes on after the end of the export, {end}"),
        ));
    }
    if wanted != Some(Token::of_heads(target.info().log_id, &heads)) {
        return Err(Failure::failed(format!(
            "the export ends at {end}, and the log does not: events are missing in the file"
        )));
    }
    Ok((events, written))
}

/// Appends what is pending of a lane.
async fn append(
    target: &Arc<dyn Storage>,
    lane: Lane,
    heads: &mut Heads,
    pending: &mut Pending,
) -> Result<u64, Failure> {
    let Pending { events, .. } = std::mem::take(pending);
    let Some(last) = events.last() else {
        return Ok(0);
    };
    let (expected, head, count) = (heads.get(lane), last.position, events.len() as u64);
    let batch = Arc::new(Batch {
        events,
        keys: Vec::new(),
    });
    let appended = target.append(lane, expected, batch).await;
    match appended.map_err(|error| failed(&error))? {
        Appended::Done => {
            heads.set(lane, head);
            Ok(count)
        }
        Appended::HeadMoved => Err(Failure::new(
            Exit::Refused,
            "--to: something else writes to the storage; end it",
        )),
    }
}

fn failed(error: &stategate_storage::Error) -> Failure {
    let exit = match error.kind() {
        Kind::Unavailable | Kind::Unknown => Exit::Unavailable,
        _ => Exit::Failed,
    };
    Failure::new(exit, format!("--to: {error}"))
}

/// An event from its line.
fn event(line: &str) -> Result<Event, String> {
    let restored: Restored<'_> =
        serde_json::from_str(line).map_err(|error| format!("is no event: {error}"))?;
    let is_not = |field: &'static str| format!("has no legal `{field}`");
    let position: u64 = restored.position.parse().map_err(|_| is_not("position"))?;
    let version: u64 = restored.version.parse().map_err(|_| is_not("version"))?;
    let entity = &restored.entity;
    Ok(Event {
        id: EventId::parse(&restored.id).map_err(|_| is_not("id"))?,
        entity: EntityRef::new(&entity.domain, &entity.kind, &entity.key)
            .map_err(|_| is_not("entity"))?,
        values: values(entity.values).map_err(|_| is_not("entity.values"))?,
        version: Version::new(version),
        lane: Lane(restored.lane),
        position: Position::new(position),
        time: restored
            .time
            .parse()
            .map(Timestamp)
            .map_err(|_| is_not("time"))?,
        method: Method::parse(&restored.method).ok_or_else(|| is_not("method"))?,
        claims: match restored.claims {
            Some(claims) => Claims::from_stored(values(claims).map_err(|_| is_not("claims"))?),
            None => Claims::none(),
        },
        trace_parent: match restored.trace_parent.as_str() {
            "" => None,
            text => Some(TraceParent::parse(text).ok_or_else(|| is_not("trace_parent"))?),
        },
    })
}

/// Values as they were, whatever the limits were then.
fn values(json: &RawValue) -> Result<Values, String> {
    let object = strict::parse_object(json.get())?;
    let limits = Limits {
        value_bytes: usize::MAX,
    };
    Values::new(object, &limits).map_err(|invalid| invalid.to_string())
}
