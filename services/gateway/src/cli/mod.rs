//! The command line: what can be asked, and the way from there to an exit code.
//!
//! Answers go to stdout, everything else to stderr, so that every command can stand in a pipe.

mod address;
mod client;
mod entity;
mod events;
mod failure;
mod import;
mod json;
mod migrate;
mod output;
mod search;
mod signals;
mod table;
#[cfg(test)]
mod testing;
mod text;
mod watch;
mod when;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::{
    client::{Gateway, Options},
    failure::{Exit, Failure},
    output::{Note, Output},
};
use crate::dev;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  the command line is wrong
  3  no such entity or event
  4  refused: invalid input, not permitted, or a precondition that does not hold
  5  no gateway there, or no answer in time
  6  some rows of an import failed

Answers are tables on a terminal, and JSON lines (proto3 JSON) with --json or when stdout is no \
terminal. NO_COLOR=1 turns colours off.";

/// Keeps entities and every change that was ever made to them: runs the gateway, and talks to one.
#[derive(Debug, Parser)]
#[command(name = "stategate", version, after_help = EXIT_CODES, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the whole gateway in one process
    Dev(dev::Args),
    /// Prints an entity as it is, or as it was
    Get(entity::GetArgs),
    /// Replaces an entity's values, creating it if it is absent
    Set(entity::ValuesArgs),
    /// Overwrites the top-level values given and keeps the others
    Edit(entity::ValuesArgs),
    /// Deletes an entity; its history stays, and `revert` brings it back
    Del(entity::RefArgs),
    /// Sets an entity to what it was after one of its events (for a `del`: before it)
    Revert(entity::RevertArgs),
    /// Prints every change of an entity, oldest first, with the ids that `revert` takes
    History(events::HistoryArgs),
    /// Finds the entities of a domain and type
    Search(search::Args),
    /// Prints changes as they happen
    Watch(watch::Args),
    /// Sets an entity from each row of a CSV, JSON or NDJSON file
    Import(import::Args),
    /// Copies the log from one storage to another, while no gateway writes to it
    Migrate(migrate::Args),
}

/// Carries out the command line of this process.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return finish(Err(Failure::failed(format!("cannot start: {error}")))),
    };
    let done = runtime.block_on(run(cli));
    // A reader of stdin may still stand in a read that never ends; nobody waits for it.
    runtime.shutdown_background();
    finish(done)
}

async fn run(cli: Cli) -> Result<(), Failure> {
    if let Command::Dev(args) = cli.command {
        return dev::run(args)
            .await
            .map_err(|error| Failure::failed(format!("{error:#}")));
    }
    let mut output = Output::stdout(cli.options.json);
    if let Command::Migrate(args) = cli.command {
        return migrate::run(args, &mut output).await;
    }
    let gateway = Gateway::connect(&cli.options).await?;
    match cli.command {
        Command::Dev(_) | Command::Migrate(_) => Ok(()),
        Command::Get(args) => entity::get(&gateway, args, &mut output).await,
        Command::Set(args) => entity::set(&gateway, args, &mut output).await,
        Command::Edit(args) => entity::edit(&gateway, args, &mut output).await,
        Command::Del(args) => entity::del(&gateway, args, &mut output).await,
        Command::Revert(args) => entity::revert(&gateway, args, &mut output).await,
        Command::History(args) => events::history(&gateway, args, &mut output).await,
        Command::Search(args) => search::run(&gateway, args, &mut output).await,
        Command::Watch(args) => watch::run(&gateway, args, &mut output).await,
        Command::Import(args) => import::run(&gateway, args, &mut output).await,
    }?;
    output.flush()
}

fn finish(done: Result<(), Failure>) -> ExitCode {
    let failure = match done {
        Ok(()) => return Exit::Done.into(),
        Err(failure) => failure,
    };
    if let Some(message) = failure.message() {
        Note::stderr().error(message);
    }
    failure.exit().into()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_names_every_exit_code() {
        let help = Cli::command().render_help().to_string();
        for code in 0..=6 {
            assert!(help.contains(&format!("\n  {code}  ")), "{code} in {help}");
        }
    }
}
