//! How a user ends a command that would go on: once politely, twice at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The exit code of a process that an interrupt ended.
const INTERRUPTED: i32 = 130;

/// Waits until the user or the system wants the command to end. After that, another signal ends the
/// process wherever it stands: in a write that nobody reads, for one.
///
/// When no signal can be received, none is handled, and the first one ends the process.
pub(crate) async fn stop() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    // In a task of its own, so that a command which blocks its thread can be ended too.
    let (tell, told) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        either(&mut interrupt, &mut terminate).await;
        let _ = tell.send(());
        either(&mut interrupt, &mut terminate).await;
        std::process::exit(INTERRUPTED);
    });
    let _ = told.await;
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
