//! `stategate-loadtest`: measures the gateway beside the limits of its parts, in one run, on one
//! machine. See `README.md`.

mod audience;
mod away;
mod channel;
mod data;
mod floor;
mod gateway;
mod load;
mod machine;
mod plain;
mod process;
mod report;
mod round;
mod scenario;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::Parser;
use serde_json::json;

use crate::{
    channel::{Channel, ChannelName},
    gateway::Binaries,
    machine::Machine,
    plain::{Storage, StorageName},
    round::Stage,
    scenario::Scenario,
};

/// As in the gateway: the floors are to have the same.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the gateway beside the limits of its parts, in one run.
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
    /// What carries events to those who stream them: any but `inmem` is between three processes, and a
    /// broker is a server of the run's own
    #[arg(long, default_value = "inmem")]
    channel: ChannelName,
    /// How often each is measured, in turn with its floors; the medians are shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// How many seconds each measure takes
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How many events the log of `grow` grows to
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(100_000..))]
    events: u64,
    /// One short round, to see that everything works; its figures say nothing
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    quick: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The directory whose disk is measured; the system's for temporary files unless given. A server that
    /// does not run as root must be able to go through it
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The folder with the gateway's binaries; that of this one unless given
    #[arg(long, value_name = "DIR")]
    gateway: Option<PathBuf>,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, clap::Subcommand)]
enum Part {
    /// Serves the floors that answer over gRPC
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
    if let Some(Part::FloorEcho) = args.part {
        return runtime.block_on(floor::serve());
    }
    let (rounds, seconds) = match args.quick {
        true => (1, 0.3),
        false => (args.rounds, args.seconds),
    };
    let mut scenarios = args.scenarios;
    if scenarios.is_empty() {
        scenarios = Scenario::usual();
    }
    scenarios.sort_unstable();
    scenarios.dedup();
    if scenarios.len() > 1 && scenarios.contains(&Scenario::Grow) {
        bail!("`grow` is run alone");
    }
    if scenarios.iter().any(|scenario| scenario.is_of_broker()) {
        let is_fit = args.channel.has_broker() && args.storage == StorageName::Postgres;
        if scenarios.len() > 1 || !is_fit {
            bail!(
                "`away` and `stay` are run alone, with --storage postgres and a broker as --channel"
            );
        }
    }
    let during = Duration::try_from_secs_f64(seconds).context("--seconds")?;
    let binaries = Binaries::find(args.gateway, args.channel)?;
    let channel = Channel::start(args.channel)?;
    let directory = match &args.data {
        Some(parent) => tempfile::tempdir_in(parent),
        None => tempfile::tempdir(),
    };
    let directory =
        directory.context("cannot make a directory for the data; name one with --data")?;
    let machine = Machine::here(directory.path());
    let parent = args.data.unwrap_or_else(std::env::temp_dir);
    let storage = Storage::start(args.storage, &parent)?;
    let words = storage.words();
    let stage = Stage {
        runtime: &runtime,
        binaries: &binaries,
        channel: &channel,
        storage: &storage,
        directory: directory.path(),
        scenarios: &scenarios,
        during,
        events: args.events,
        say: &|line| eprintln!("{line}"),
    };
    let rounds = (1..=usize::from(rounds))
        .map(|number| stage.round(number))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let figures = report::figures(&rounds, &words);
    if args.json {
        let mut report = report::json(&figures, &rounds);
        report["machine"] = machine.json();
        report["seconds"] = json!(seconds);
        report["storage"] = json!(storage.to_string());
        report["channel"] = json!(channel.to_string());
        report["durability"] = json!(words.durability);
        report["errors"] = json!(0);
        println!("{report:#}");
    } else {
        println!(
            "{}\nstorage     {storage}\nchannel     {channel}\ndurability  {}\nerrors      0; {} rounds of {seconds} s a measure\n",
            machine.text(),
            words.durability,
            rounds.len()
        );
        print!("{}", report::table(&figures));
    }
    Ok(())
}
