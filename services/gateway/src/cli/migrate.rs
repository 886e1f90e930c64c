//! `migrate`: copies the log from one storage to another.

use std::{
    io::{self, IsTerminal as _},
    time::Instant,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use stategate_model::{Lanes, Value};
use stategate_storage::{
    Error, ErrorKind, StorageConfig, create_as,
    transfer::{self, Copied, Progress, Step},
};

use super::{
    failure::{Exit, Failure},
    output::{Form, Output},
    signals, text,
};

const EXAMPLES: &str = r#"Examples:
  stategate migrate --from '{"name":"sqlite","path":"stategate.db"}' --to '{"name":"sqlite","path":"copy.db"}'
  stategate migrate --from '{"name":"sqlite","path":"stategate.db"}' --to '{"name":"sqlite","path":"wide.db"}' --lanes 8

Event ids, times, versions, positions, claims, idempotency keys and the log's id are kept, so that
clients go on with the tokens and retries they have. End the gateway first: nothing may be written to
the source meanwhile. An interrupted copy goes on where it was when it is begun again. At the end both
sides are read back and compared.

With another number of lanes it is another log: it gets a new id, tokens of the old one are refused
(OUT_OF_RANGE, LOG_CHANGED), and events get new positions, merged in the order of their times."#;

/// What `migrate` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The storage that the log is in, as STATEGATE_STORAGE_PROVIDER would name it
    #[arg(long, value_name = "JSON", value_parser = storage)]
    from: StorageConfig,
    /// The storage to copy it to: empty, or a part of the same copy
    #[arg(long, value_name = "JSON", value_parser = storage)]
    to: StorageConfig,
    /// How many lanes the copy has, 1 to 64; as many as the source unless given
    #[arg(long, value_name = "N", value_parser = lanes)]
    lanes: Option<Lanes>,
}

/// A storage as it is named on the command line.
pub(crate) fn storage(json: &str) -> Result<StorageConfig, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

fn lanes(text: &str) -> Result<Lanes, String> {
    let number: u8 = text.parse().map_err(|_| "must be 1 to 64".to_owned())?;
    Lanes::new(number).map_err(|invalid| invalid.problem.into_owned())
}

/// The outcome as it is printed for programs.
#[derive(Debug, Serialize)]
struct Report {
    log_id: String,
    lanes: u8,
    events: u64,
    written: u64,
    idempotency_keys: u64,
    sha256: String,
    seconds: Value,
}

/// Copies a log.
pub(crate) async fn run(args: Args, output: &mut Output) -> Result<(), Failure> {
    for (side, config) in [("--from", &args.from), ("--to", &args.to)] {
        if matches!(config, StorageConfig::Memory(_)) {
            return Err(Failure::usage(format!(
                "{side}: a log in memory is gone when this process ends"
            )));
        }
    }
    if args.from.location() == args.to.location() {
        return Err(Failure::usage("--from and --to are the same storage"));
    }
    // Opening a file that is not there would make one.
    if let StorageConfig::Sqlite(config) = &args.from
        && !config.path.is_file()
    {
        let path = config.path.display();
        return Err(Failure::failed(format!("--from: there is no file {path}")));
    }
    let stop = signals::stop();
    tokio::pin!(stop);
    let interrupted = || Failure::failed("interrupted; begin again to go on with the copy");
    let source = tokio::select! {
        source = stategate_storage::open(&args.from) => source.map_err(|error| unopened("--from", &error))?,
        () = &mut stop => return Err(interrupted()),
    };
    let lanes = args.lanes.unwrap_or(source.info().lanes);
    let identity = transfer::identity(source.info(), lanes);
    let target = tokio::select! {
        target = create_as(&args.to, identity) => target.map_err(|error| unopened("--to", &error))?,
        () = &mut stop => return Err(interrupted()),
    };
    if target.info().lanes != lanes {
        return Err(Failure::new(
            Exit::Refused,
            format!(
                "--to: the log there has {} lanes, and the copy would have {}",
                target.info().lanes.get(),
                lanes.get()
            ),
        ));
    }

    let began = Instant::now();
    let bar = bar();
    let mut says = |progress| show(&bar, progress);
    let copied = tokio::select! {
        copied = transfer::copy(&source, &target, &mut says) => Some(copied.map_err(|failure| of(&failure))),
        () = stop => None,
    };
    bar.finish_and_clear();
    let close = async {
        target.close().await;
        source.close().await;
    };
    let copied = match copied {
        Some(copied) => {
            close.await;
            copied
        }
        None => {
            // Every batch is whole or not there; a storage that hangs is not waited for.
            let _ = tokio::time::timeout(signals::LAST_WORDS, close).await;
            Err(interrupted())
        }
    };
    report(&copied?, began, output)
}

fn unopened(side: &str, error: &Error) -> Failure {
    let exit = match error.kind() {
        ErrorKind::Unavailable => Exit::Unavailable,
        _ => Exit::Failed,
    };
    Failure::new(exit, format!("{side}: {}", error.reason()))
}

fn of(failure: &transfer::TransferError) -> Failure {
    let exit = match failure {
        transfer::TransferError::Target(_) | transfer::TransferError::Busy(_) => Exit::Refused,
        transfer::TransferError::Storage { error, .. }
            if *error.kind() == ErrorKind::Unavailable =>
        {
            Exit::Unavailable
        }
        transfer::TransferError::Damaged(_)
        | transfer::TransferError::Differs(_)
        | transfer::TransferError::Storage { .. } => Exit::Failed,
    };
    Failure::new(exit, failure.to_string())
}

fn report(copied: &Copied, began: Instant, output: &mut Output) -> Result<(), Failure> {
    let seconds = began.elapsed().as_secs_f64();
    let sha256: String = copied
        .digest
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    match output.form() {
        Form::Json => output.json(&Report {
            log_id: copied.identity.log_id.to_string(),
            lanes: copied.identity.lanes.get(),
            events: copied.events,
            written: copied.written,
            idempotency_keys: copied.keys,
            sha256,
            seconds: Value::from((seconds * 1e3).round() / 1e3),
        }),
        Form::Text(_) => output.line(&format!(
            "{} events ({} written now) and {} idempotency keys in {} lanes, compared, in {seconds:.1} s\nlog {}\nsha256 {sha256}",
            text::count(copied.events),
            text::count(copied.written),
            text::count(copied.keys),
            copied.identity.lanes.get(),
            copied.identity.log_id,
        )),
    }?;
    output.flush()
}

fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    // The template is constant; were it wrong, the default style would do.
    let style = ProgressStyle::with_template(
        "{msg:9} {bar:30} {percent:>3}%  {pos}/{len} events  {per_sec}  {eta} left",
    );
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()).with_style(style)
}

fn show(bar: &ProgressBar, progress: Progress) {
    let message = match progress.step {
        Step::Copying => "copying",
        Step::Comparing => "comparing",
    };
    if bar.message() != message {
        bar.reset();
        bar.set_message(message);
    }
    bar.set_length(progress.total);
    bar.set_position(progress.done);
}
