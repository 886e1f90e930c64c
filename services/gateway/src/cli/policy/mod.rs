//! `policy`: tests of policies, decisions with their reasons, and history judged by a policy that is not in force.

mod check;
mod files;
mod replay;
mod test;

use super::{connection::Connection, failure::Failure, output::Output};

/// What `policy` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  stategate policy test examples/policies
  stategate policy check policy.rego --input input.json
  stategate policy replay policy.rego

docs/policies.md says how a policy is written, and what it decides on.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Runs the tests (`test_…` in *_test.rego) of policies
    Test(test::Args),
    /// Says what a policy decides on an input and why, or whether the gateway would take it
    Check(check::Args),
    /// Judges every write of the history by a policy, and prints those it would have refused
    Replay(replay::Args),
}

/// Carries out a command on policies.
pub(crate) async fn run(way: &Connection, args: Args, output: &mut Output) -> Result<(), Failure> {
    match args.command {
        Command::Test(args) => test::run(args, output).await,
        Command::Check(args) => check::run(args, output).await,
        Command::Replay(args) => replay::run(way, args, output).await,
    }
}
