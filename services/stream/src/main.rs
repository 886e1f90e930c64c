//! The stream service as a process.

// Their macros panic when whoever reads the stream has left.
#![warn(clippy::print_stderr, clippy::print_stdout)]

use std::{process::ExitCode, sync::Arc};

use stategate_runtime::{Config, Env, Process, Scope, Services, Source};
use stategate_stream::{Settings, StreamService};

/// Many small values are made and dropped on the way of every call.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    stategate_runtime::main("stategate-stream", run()).await
}

async fn run() -> anyhow::Result<()> {
    let config = Config::read(&Env::of_process(), &[])?;
    let opened = Process::open_with_channel(config, Source::Variable, Scope::BetweenProcesses);
    let (process, channel) = opened.await?;
    let settings = Settings::from(process.config());
    let stream = StreamService::start(process.storage(), channel, &settings, process.tasks());
    let stream = Arc::new(stream);
    process.on_close("follower", {
        let stream = Arc::clone(&stream);
        async move { stream.finish().await }
    });
    let services = Services {
        stream: Some(stream),
        ..Services::default()
    };
    process.serve(services).await
}
