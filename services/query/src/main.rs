//! The query service as a process.

// Their macros panic when whoever reads the stream has left.
#![warn(clippy::print_stderr, clippy::print_stdout)]

use std::{process::ExitCode, sync::Arc};

use stategate_query::QueryService;
use stategate_runtime::{Config, Env, Process, Services};

/// Many small values are made and dropped on the way of every call.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    stategate_runtime::main("stategate-query", run()).await
}

async fn run() -> anyhow::Result<()> {
    let config = Config::read(&Env::of_process(), &[])?;
    let process = Process::open(config).await?;
    let query = QueryService::new(process.storage(), process.positions());
    let services = Services {
        query: Some(Arc::new(query)),
        ..Services::default()
    };
    process.serve(services).await
}
