//! `stategate-loadtest`: measures the gateway, and beside it what its parts can do at most, in one run on
//! one machine. See `README.md`.
//!
//! A module uses only modules that are further up in this list:
//!
//! - `scenario`, `quantity`, `statistics`, `machine`: what is measured, on what, and the arithmetic.
//! - `process`, `channel`, `protection`, `workload`: processes, brokers, callers, and what is sent to a server.
//! - `floor`, `storage`, `gateway`: what is compared, and what is under test.
//! - `round`: one run of the scenarios. `report`: the figures of all rounds. Neither uses the other.

mod channel;
mod floor;
mod gateway;
mod machine;
mod process;
mod protection;
mod quantity;
mod report;
mod round;
mod scenario;
mod statistics;
mod storage;
mod workload;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::Parser;
use serde_json::json;

use crate::{
    channel::{Channel, ChannelName},
    gateway::Binaries,
    machine::Machine,
    round::Setup,
    scenario::Scenario,
    storage::{Storage, StorageName},
};

/// The allocator of the gateway, so that the floors have the same one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the gateway, and beside it what its parts can do at most, in one run.
#[derive(Debug, Parser)]
#[command(
    version,
    subcommand_negates_reqs = true,
    args_conflicts_with_subcommands = true
)]
struct Args {
    /// What to measure; all but `grow`, `away` and `stay` when nothing is named
    scenarios: Vec<Scenario>,
    /// What the gateway keeps its log in
    #[arg(long, default_value = "sqlite")]
    storage: StorageName,
    /// What carries events to the stream service. With any but `inmem`, each service is a process of its own;
    /// a broker is started for the run
    #[arg(long, default_value = "inmem")]
    channel: ChannelName,
    /// How many rounds: each measures every scenario in turn with its floors, and the medians are shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// How many seconds each measurement takes
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How many events the log of `grow` grows to
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(100_000..))]
    events: u64,
    /// Verify a token of ten callers on every call, and judge requests and events by policies
    #[arg(long)]
    protected: bool,
    /// One short round, to see that everything works; its figures mean nothing
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    quick: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The directory for the data, whose disk is measured; the system's temporary directory unless given. A
    /// database server that does not run as root needs access to it
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The folder with the gateway's binaries; the folder of this binary unless given
    #[arg(long, value_name = "DIR")]
    gateway: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Serves as the echo server
    #[command(hide = true)]
    FloorEcho,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stategate-loadtest: {error:#}");
            eprintln!("A run with errors is not a result.");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    if let Some(Command::FloorEcho) = args.command {
        return runtime.block_on(floor::serve());
    }
    let (rounds, seconds) = match args.quick {
        true => (1, 0.3),
        false => (args.rounds, args.seconds),
    };
    let mut scenarios = args.scenarios;
    if scenarios.is_empty() {
        scenarios = Scenario::defaults();
    }
    scenarios.sort_unstable();
    scenarios.dedup();
    if scenarios.len() > 1 && scenarios.contains(&Scenario::Grow) {
        bail!("`grow` is run alone");
    }
    if scenarios.iter().any(|scenario| scenario.needs_broker()) {
        let has_what_they_need = args.channel.has_broker() && args.storage == StorageName::Postgres;
        if scenarios.len() > 1 || !has_what_they_need {
            bail!(
                "`away` and `stay` are run alone, with --storage postgres and a broker as --channel"
            );
        }
    }
    let duration = Duration::try_from_secs_f64(seconds).context("--seconds")?;
    if args.protected {
        protection::begin(workload::DOMAIN)?;
    }
    let binaries = Binaries::find(args.gateway, args.channel)?;
    let channel = Channel::start(args.channel)?;
    let directory = match &args.data {
        Some(parent) => tempfile::tempdir_in(parent),
        None => tempfile::tempdir(),
    };
    let directory =
        directory.context("cannot make a directory for the data; name one with --data")?;
    let machine = Machine::describe(directory.path());
    let parent = args.data.unwrap_or_else(std::env::temp_dir);
    let storage = Storage::start(args.storage, &parent)?;
    let setup = Setup {
        runtime: &runtime,
        binaries: &binaries,
        channel: &channel,
        storage: &storage,
        directory: directory.path(),
        scenarios: &scenarios,
        duration,
        events: args.events,
        progress: &|line| eprintln!("{line}"),
    };
    let rounds = (1..=usize::from(rounds))
        .map(|number| round::run(&setup, number))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let lines = report::lines(&rounds, storage.plain_clients());
    if args.json {
        let mut report = report::json(&lines, &rounds);
        report["machine"] = machine.json();
        report["seconds"] = json!(seconds);
        report["storage"] = json!(storage.to_string());
        report["channel"] = json!(channel.to_string());
        report["durability"] = json!(storage.durability());
        report["errors"] = json!(0);
        println!("{report:#}");
    } else {
        println!(
            "{}\nstorage     {storage}\nchannel     {channel}\ndurability  {}\nerrors      0; {} rounds of {seconds} s a measure\n",
            machine.text(),
            storage.durability(),
            rounds.len()
        );
        print!("{}", report::table(&lines));
    }
    Ok(())
}
