//! The command service as a process.

// Their macros panic when whoever reads the stream has left.
#![warn(clippy::print_stderr, clippy::print_stdout)]

use std::{io::Write as _, process::ExitCode, sync::Arc};

use stategate_channel::{ChannelConfig, Key, Log};
use stategate_command::{CommandService, Settings};
use stategate_server::{Config, Drain, Env, Services, Tasks, Telemetry, config, variables};
use stategate_storage::StorageConfig;

/// Many small values are made and dropped on the way of every call.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be there to read it.
            let _ = writeln!(std::io::stderr(), "stategate-command: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let config = Config::read(&Env::of_process(), &[])?;
    let channel: ChannelConfig = config.channel.parse()?;
    if !channel.crosses_processes() {
        let problem = "is a channel within one process; separate services need another, such as {\"name\":\"storage\"}";
        return Err(config::Error::of(&variables::CHANNEL_PROVIDER, problem).into());
    }
    let telemetry = Telemetry::install(config.debug)?;
    let drain = Drain::new();

    let storage = stategate_storage::open(&config.storage.parse::<StorageConfig>()?)
        .await
        .map_err(|error| config.storage.unusable(error.reason()))?;
    let log = Log {
        log_id: storage.info().log_id,
        heads: Arc::new(stategate_storage::heads_of(&storage)),
    };
    let key = config
        .channel_key
        .as_ref()
        .map(|key| Key::new(key.expose()));
    let channel = stategate_channel::open(&channel, log, key)
        .await
        .map_err(|error| config.channel.unusable(error))?;
    let command = Arc::new(CommandService::start(
        Arc::clone(&storage),
        &channel,
        &Settings::from(&config),
        &Tasks::of(&drain),
    ));

    drain.on_close("storage", async move { storage.close().await });
    drain.on_close("channel", async move { channel.close().await });
    drain.on_close("lanes", {
        let command = Arc::clone(&command);
        async move { command.finish().await }
    });

    let services = Services {
        command: Some(command),
        ..Services::default()
    };
    Ok(stategate_server::run(&config, services, &telemetry, &drain).await?)
}
