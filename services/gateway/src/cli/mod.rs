//! The command line: what can be asked, and the way from there to an exit code.
//!
//! Answers go to stdout, everything else to stderr, so that every command can stand in a pipe.

mod address;
mod archive;
mod connection;
mod del;
mod diff;
mod entity;
mod events;
mod export;
mod failure;
mod history;
mod import;
mod input;
mod json;
mod manual;
mod migrate;
mod near;
mod output;
mod pager;
mod policy;
mod progress;
mod restore;
mod search;
mod sheet;
mod signals;
mod stats;
mod table;
#[cfg(test)]
mod testing;
mod text;
mod token;
mod walk;
mod watch;
mod when;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::{
    connection::Connection,
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
  4  refused: invalid input, not permitted, or a precondition does not hold
  5  no gateway there, or no answer in time
  6  some rows of an import failed

Answers are tables on a terminal, and JSON lines (proto3 JSON) with --ndjson or when stdout is no \
terminal. NO_COLOR=1 turns colours off.

Try:
  stategate dev                     a gateway on this machine
  stategate set acme user ada '{\"name\": \"Ada\"}'
  stategate history acme user ada";

/// Keeps entities and every change that was ever made to them: runs the gateway, and talks to one.
#[derive(Debug, Parser)]
#[command(name = "stategate", version, after_help = EXIT_CODES, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    options: output::Options,
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
    Set(entity::SetArgs),
    /// Overwrites the top-level values given and keeps the others
    Edit(entity::EditArgs),
    /// Deletes an entity, or many; the history stays, and `revert` brings them back
    Del(del::Args),
    /// Sets an entity to what it was after one of its events, at a version or at a time
    Revert(entity::RevertArgs),
    /// Prints every version of an entity: when, who, how, and what it changed
    History(history::HistoryArgs),
    /// Prints what two states of an entity differ in
    Diff(history::DiffArgs),
    /// Finds the entities of a domain and type
    Search(search::Args),
    /// Finds the changes of a domain and type
    Events(events::Args),
    /// Prints changes as they happen
    Watch(watch::Args),
    /// Counts domains, types, entities, events and lanes; reads the whole log
    Stats(stats::Args),
    /// Sets an entity from each row of a CSV, JSON or NDJSON file, or makes an export again
    Import(import::Args),
    /// Writes the current state, or the whole history, to a file
    Export(export::Args),
    /// Copies the log from one storage to another, while no gateway writes to it
    Migrate(migrate::Args),
    /// Makes a log in an empty storage from an exported history, as it was
    Restore(restore::Args),
    /// Makes a token to try `dev --auth` with
    Token(token::Args),
    /// Tests policies, explains their decisions, and judges the history by them
    Policy(policy::Args),
    /// Prints the completions of a shell
    Completions(manual::CompletionsArgs),
    /// Prints the manual page, or writes one for every command
    Man(manual::ManArgs),
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
    let mut output = Output::stdout(&cli.options);
    let done = carry_out(cli, &mut output).await;
    output.finish(done)
}

async fn carry_out(cli: Cli, output: &mut Output) -> Result<(), Failure> {
    let way = &cli.connection;
    match cli.command {
        Command::Dev(args) => dev::run(args)
            .await
            .map_err(|error| Failure::failed(error.to_string())),
        Command::Get(args) => entity::get(&way.open().await?, args, output).await,
        Command::Set(args) => entity::set(&way.open().await?, args, output).await,
        Command::Edit(args) => entity::edit(&way.open().await?, args, output).await,
        Command::Del(args) => del::run(&way.open().await?, args, output).await,
        Command::Revert(args) => entity::revert(&way.open().await?, args, output).await,
        Command::History(args) => history::run(&way.open().await?, args, output).await,
        Command::Diff(args) => history::diff(&way.open().await?, args, output).await,
        Command::Search(args) => search::run(&way.open().await?, args, output).await,
        Command::Events(args) => events::run(&way.open().await?, args, output).await,
        Command::Watch(args) => watch::run(&way.open().await?, args, output).await,
        Command::Stats(args) => stats::run(&way.open().await?, args, output).await,
        Command::Import(args) => import::run(way, args, output).await,
        Command::Export(args) => export::run(&way.open().await?, args, output).await,
        Command::Migrate(args) => migrate::run(args, output).await,
        Command::Restore(args) => restore::run(args, output).await,
        Command::Token(args) => token::run(args, output),
        Command::Policy(args) => policy::run(way, args, output).await,
        Command::Completions(args) => manual::completions(&args, output),
        Command::Man(args) => manual::man(&args, output),
    }
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
