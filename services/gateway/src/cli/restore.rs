//! `restore`: makes a log in an empty storage from an exported history, as it was: with its id, and the
//! ids, times, positions and claims of its events, which no call can write.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::Serialize;
use stategate_model::{Event, Heads, Lane, Position, limits};
use stategate_storage::{
    Appended, Batch, ErrorKind, Identity, ReadLimit, Storage, StorageConfig, create_as,
};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    archive::{Header, Item, Reader},
    failure::{Exit, Failure},
    input::{self, Opened},
    migrate::storage,
    output::{Form, Output},
    progress::Progress,
    signals, text,
};

/// How much of what is there already is read at once, to be compared.
const OLD: ReadLimit = ReadLimit {
    events: 1_000,
    bytes: 1 << 20,
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
    /// The file that `export --history` wrote, as it is or compressed by gzip or zstd; - reads stdin
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

/// Lines that are read ahead of those that are written.
const READ_AHEAD: usize = 256;

/// Restores a log.
pub(crate) async fn run(args: Args, output: &mut Output) -> Result<(), Failure> {
    if matches!(args.to, StorageConfig::Memory(_)) {
        return Err(Failure::usage(
            "--to: a log in memory is gone when this process ends",
        ));
    }
    let stop = signals::stop();
    tokio::pin!(stop);
    let interrupted = || Failure::failed("interrupted; the same again goes on");
    let mut reading = tokio::select! {
        reading = Reading::begin(&args.file) => reading?,
        () = &mut stop => return Err(interrupted()),
    };
    let identity = reading.identity()?;
    let target = tokio::select! {
        target = create_as(&args.to, identity) => target.map_err(|error| Failure::failed(format!("--to: {}", error.reason())))?,
        () = &mut stop => return Err(interrupted()),
    };
    let (log_id, lanes) = (target.info().log_id, target.info().lanes);
    if (log_id, lanes) != (identity.log_id, identity.lanes) {
        target.close().await;
        return Err(Failure::new(
            Exit::Refused,
            format!(
                "--to: holds another log ({log_id} with {} lanes; the export is of {} with {})",
                lanes.get(),
                identity.log_id,
                identity.lanes.get()
            ),
        ));
    }
    let restored = tokio::select! {
        restored = restore(&mut reading, &target) => {
            target.close().await;
            restored
        }
        () = stop => {
            // Every batch is whole or not there; a storage that hangs is not waited for.
            let _ = tokio::time::timeout(signals::LAST_WORDS, target.close()).await;
            Err(interrupted())
        }
    };
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

/// A file that a thread reads.
struct Reading {
    header: Header,
    shown: String,
    items: mpsc::Receiver<(u64, Item)>,
    reader: JoinHandle<Result<(), Failure>>,
    size: Option<u64>,
    read: Arc<AtomicU64>,
}

impl Reading {
    async fn begin(file: &Path) -> Result<Self, Failure> {
        let shown = file.display().to_string();
        let ended = |_| Failure::failed("the reader of the file ended early");
        let begun = tokio::task::spawn_blocking({
            let (file, shown) = (file.to_owned(), shown.clone());
            move || {
                let Opened {
                    text, size, read, ..
                } = input::open(&file)?;
                let reader = Reader::begin(text, &shown)?;
                Ok::<_, Failure>((reader, size, read))
            }
        });
        let (reader, size, read) = begun.await.map_err(ended)??;
        let Some(mut reader) = reader else {
            return Err(Failure::failed(format!(
                "{shown}, line 1 is not the beginning of what `export --history` writes"
            )));
        };
        let header = reader.header().clone();
        let (send, items) = mpsc::channel(READ_AHEAD);
        let reader = tokio::task::spawn_blocking(move || {
            while let Some(item) = reader.next()? {
                if send.blocking_send(item).is_err() {
                    break;
                }
            }
            Ok(())
        });
        Ok(Self {
            header,
            shown,
            items,
            reader,
            size,
            read,
        })
    }

    /// Whose log it is.
    fn identity(&self) -> Result<Identity, Failure> {
        let refuse = |problem| Failure::failed(format!("{}, line 1 {problem}", self.shown));
        if !self.header.selection.is_everything() {
            return Err(refuse(
                "says that this is a part of a log; export all of it, without a domain, a type or a filter, or use `import`",
            ));
        }
        match self.header.identity() {
            Some((log_id, lanes)) => Ok(Identity { log_id, lanes }),
            None => Err(refuse("names no log: `log_id` or `lanes` cannot be")),
        }
    }

    /// The next line; `None` where the file ends.
    async fn next(&mut self) -> Result<Option<(u64, Item)>, Failure> {
        if let Some(item) = self.items.recv().await {
            return Ok(Some(item));
        }
        let ended = |_| Failure::failed("the reader of the file ended early");
        (&mut self.reader).await.map_err(ended)??;
        Ok(None)
    }
}

/// Events of a lane that are yet to be written.
#[derive(Default)]
struct Pending {
    events: Vec<Event>,
    bytes: usize,
}

/// Writes what the target lacks; answers how many events there are, and how many were written now.
async fn restore(reading: &mut Reading, target: &Arc<dyn Storage>) -> Result<(u64, u64), Failure> {
    let there = target.heads().await.map_err(|error| failed(&error))?;
    let mut heads = there.clone();
    let mut pending: Vec<Pending> = heads.iter().map(|_| Pending::default()).collect();
    let mut old: Vec<VecDeque<Event>> = heads.iter().map(|_| VecDeque::new()).collect();
    let mut progress = Progress::new("events", reading.size);
    let read = Arc::clone(&reading.read);
    let (mut events, mut written) = (0, 0);
    // An export that was gone on with may have one in its middle, too.
    let mut end = None;
    while let Some((_, item)) = reading.next().await? {
        let event = match item {
            Item::Event(event) => *event,
            Item::End(token) => {
                end = Some(token);
                continue;
            }
        };
        end = None;
        events += 1;
        let lane = event.lane;
        let (Some(batch), Some(old)) = (pending.get_mut(lane.index()), old.get_mut(lane.index()))
        else {
            return Err(other_events());
        };
        if event.position <= there.get(lane) {
            // There from an earlier run, if it is the same.
            if old.is_empty() {
                let before = Position::new(event.position.get() - 1);
                let found = target.read_log(lane, before, OLD).await;
                old.extend(found.map_err(|error| failed(&error))?);
            }
            if old.pop_front().as_ref() != Some(&event) {
                return Err(other_events());
            }
            continue;
        }
        batch.bytes += event.size();
        batch.events.push(event);
        if batch.events.len() >= limits::BATCH_EVENTS || batch.bytes >= limits::BATCH_BYTES / 2 {
            written += append(target, lane, &mut heads, batch).await?;
        }
        progress.show(events, 0, || read.load(Ordering::Relaxed));
    }
    for (lane, batch) in (0..).map(Lane).zip(&mut pending) {
        written += append(target, lane, &mut heads, batch).await?;
    }
    progress.finish();
    let Some(end) = end else {
        return Err(Failure::failed(
            "the file ends before its export did, and all that is in it was restored; `stategate export --history --resume` completes it, and the same again goes on",
        ));
    };
    // The file was found to hold everything up to its end.
    if heads
        .iter()
        .any(|(lane, head)| head > end.get(lane).unwrap_or_default())
    {
        return Err(Failure::new(
            Exit::Refused,
            format!("--to: the log there goes on after the end of the export, {end}"),
        ));
    }
    // What was found there may be of an append that an earlier run has not heard the end of.
    target.confirm().await.map_err(|error| failed(&error))?;
    Ok((events, written))
}

fn other_events() -> Failure {
    Failure::new(
        Exit::Refused,
        "--to: holds other events than the export; a restore needs a storage that is empty",
    )
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
        ErrorKind::Unavailable | ErrorKind::Unknown => Exit::Unavailable,
        _ => Exit::Failed,
    };
    Failure::new(exit, format!("--to: {error}"))
}
