//! The query service as a process.

// Their macros panic when whoever reads the stream has left.
#![warn(clippy::print_stderr, clippy::print_stdout)]

use std::{io::Write as _, process::ExitCode, sync::Arc};

use stategate_query::QueryService;
use stategate_server::{Config, Drain, Env, Positions, Services, Telemetry};
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
            let _ = writeln!(std::io::stderr(), "stategate-query: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let config = Config::read(&Env::of_process(), &[])?;
    let telemetry = Telemetry::install(config.debug)?;
    let drain = Drain::new();

    let storage = stategate_storage::open(&config.storage.parse::<StorageConfig>()?)
        .await
        .map_err(|error| config.storage.unusable(error.reason()))?;
    let positions = Arc::new(Positions::new(
        storage.info().lanes,
        config.max_calls,
        Arc::new(stategate_storage::heads_of(&storage)),
    ));
    let query = Arc::new(QueryService::new(Arc::clone(&storage), positions));

    drain.on_close("storage", async move { storage.close().await });

    let services = Services {
        query: Some(query),
        ..Services::default()
    };
    Ok(stategate_server::run(&config, services, &telemetry, &drain).await?)
}
