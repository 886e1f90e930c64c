//! The signals that end the process.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{Drain, Tasks};

/// Begins the end of the process at the first SIGTERM or SIGINT, and exits at once at the second.
///
/// The handlers are in force when this returns.
pub(crate) fn listen(drain: &Drain) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let end = drain.clone();
    Tasks::of(drain).essential("the signal handler", async move {
        let name = either(&mut terminate, &mut interrupt).await;
        tracing::info!(signal = name, "draining; a second signal exits at once");
        end.begin();
        let name = either(&mut terminate, &mut interrupt).await;
        tracing::warn!(signal = name, "exiting at once");
        std::process::exit(1);
    });
    Ok(())
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
