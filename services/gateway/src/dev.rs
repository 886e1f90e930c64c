//! `stategate dev`: command, query and stream service in one process, on this machine alone.

use std::{
    fs,
    io::{self, Write as _},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
};

use stategate_command::CommandService;
use stategate_query::QueryService;
use stategate_runtime::{Config, Env, Process, Scope, Services, Source};
use stategate_server::{serve, variables};
use stategate_storage::{MemoryConfig, StorageConfig};
use stategate_stream::StreamService;

use crate::prompt;

/// What `stategate dev` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
It serves this machine alone, without authentication. Everything else is set by environment variables:
docs/configuration.md.

Examples:
  stategate dev
  stategate dev --memory
  stategate dev --port 9000 --data /tmp/try.db
  stategate dev --reset --yes")]
pub(crate) struct Args {
    /// The port to listen on; metrics and health are on the next one (overrides STATEGATE_PORT)
    #[arg(long, value_name = "PORT", value_parser = port)]
    port: Option<u16>,
    /// The SQLite file to keep everything in (overrides STATEGATE_STORAGE_PROVIDER)
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Keep everything in memory: it is gone when the gateway ends
    #[arg(long, conflicts_with = "data")]
    memory: bool,
    /// Begin with nothing: deletes the SQLite file with everything in it, after asking
    #[arg(long, conflicts_with = "memory")]
    reset: bool,
    /// Do not ask
    #[arg(long, requires = "reset")]
    yes: bool,
}

impl Args {
    /// An error that names what the user typed instead of the variable that it stands for.
    fn named(&self, mut error: serve::Error) -> serve::Error {
        if let serve::Error::Bind { variable, .. } = &mut error
            && self.port.is_some()
            && *variable == variables::PORT.name
        {
            *variable = "--port";
        }
        error
    }

    /// Where the storage is said.
    fn source(&self) -> Source {
        match &self.data {
            Some(path) => Source::Option("--data", StorageConfig::sqlite(path.clone())),
            None if self.memory => {
                let memory = StorageConfig::Memory(MemoryConfig::default());
                Source::Option("--memory", memory)
            }
            None => Source::Variable,
        }
    }
}

/// As `STATEGATE_PORT` is read: the next port is needed too.
fn port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port < u16::MAX);
    port.ok_or_else(|| "a port is a number from 0 to 65534".to_owned())
}

/// Runs the gateway until it is told to stop.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut config = Config::read(
        &Env::of_process(),
        &[
            (&variables::AUTH_DISABLED, "true"),
            (&variables::REFLECTION, "true"),
            (&variables::HOST, "127.0.0.1"),
            (&variables::CHANNEL_PROVIDER, r#"{"name":"inmem"}"#),
        ],
    )?;
    loopback_only(config.host)?;
    config.port = args.port.unwrap_or(config.port);

    let configured = config.storage.parse()?;
    let source = args.source();
    let storage = match &source {
        Source::Option(_, storage) => storage.clone(),
        Source::Variable => configured,
    };
    if args.reset {
        reset(&storage, &args)?;
    }
    let kept = storage.location();
    let opened = Process::open_with_channel(config, source, Scope::WithinProcess);
    let (process, channel) = opened.await?;
    let (config, tasks) = (process.config(), process.tasks());
    let (storage, positions) = (process.storage(), process.positions());

    let command = CommandService::start(Arc::clone(&storage), &channel, &config.into(), tasks);
    let command = Arc::new(command.telling(Arc::clone(&positions)));
    let query = QueryService::new(Arc::clone(&storage), Arc::clone(&positions));
    let stream = StreamService::start(storage, channel, &config.into(), tasks);
    let stream = Arc::new(stream.sharing(positions));

    process.on_close("follower", {
        let stream = Arc::clone(&stream);
        async move { stream.finish().await }
    });
    process.on_close("lanes", {
        let command = Arc::clone(&command);
        async move { command.finish().await }
    });
    let services = Services {
        command: Some(command),
        query: Some(Arc::new(query)),
        stream: Some(stream),
        ..Services::default()
    };
    let running = process.start(services).await;
    let running = running.map_err(|error| args.named(error))?;
    running.ready().await;
    welcome(&running.addresses(), &kept);
    Ok(running.ended().await?)
}

/// Without authentication, whoever reaches the port may do everything.
fn loopback_only(host: IpAddr) -> anyhow::Result<()> {
    if host.is_loopback() {
        return Ok(());
    }
    anyhow::bail!(
        "STATEGATE_HOST is {host}, and `stategate dev` serves this machine alone, for it runs without authentication; \
         unset it, or run stategate-command, stategate-query and stategate-stream"
    )
}

/// Deletes what a storage keeps, if the user agrees.
fn reset(storage: &StorageConfig, args: &Args) -> anyhow::Result<()> {
    let StorageConfig::Sqlite(config) = storage else {
        anyhow::bail!(
            "--reset deletes an SQLite file, and the data is kept elsewhere: {}",
            storage.location()
        );
    };
    if !config.path.exists() {
        return Ok(());
    }
    let name = config.path.display();
    if !args.yes {
        prompt::confirm(&format!("Delete {name} with its whole history?"))?;
    }
    // The log of the file's last changes first: left behind, it would be taken for the new file's.
    for ending in ["-wal", "-shm", ""] {
        let mut path = config.path.clone().into_os_string();
        path.push(ending);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let path = path.display();
                anyhow::bail!("--reset: {path} cannot be deleted: {}", error.kind());
            }
            _ => {}
        }
    }
    Ok(())
}

fn welcome(addresses: &stategate_server::Addresses, kept: &str) {
    let address = addresses.grpc;
    // As it was called, so that the lines work where it is not on the PATH.
    let program = std::env::args().next().unwrap_or("stategate".to_owned());
    let elsewhere = if address.port() == 8080 {
        String::new()
    } else {
        format!("  export {}={address}\n", variables::ADDR.name)
    };
    // Whoever reads it may have left, and the gateway goes on.
    let _ = writeln!(
        io::stderr(),
        "\nstategate is listening on http://{address} (gRPC)\n\
         metrics and health: http://{admin}\n\
         data: {kept}\n\
         process: {process}\n\n\
         Try, in another terminal:\n\
         {elsewhere}\
         \x20 {program} set acme user ada '{{\"name\": \"Ada\", \"logins\": 1}}'\n\
         \x20 {program} edit acme user ada '{{\"logins\": 2}}'\n\
         \x20 {program} history acme user ada\n\
         \x20 {program} watch --from beginning\n\
         \x20 {program} help\n\n\
         Ctrl-C ends it.\n",
        admin = addresses.admin,
        process = std::process::id(),
    );
}
