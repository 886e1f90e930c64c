//! How a user ends a command that would go on: by one interrupt, whatever the command waits for.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The exit code of a process that an interrupt ended.
const INTERRUPTED: i32 = 130;
/// How long a command may take to end politely. Within it, it says what was done and how to go on.
const POLITE: Duration = Duration::from_millis(900);
/// What of that may go into waiting for answers and closing what is open.
pub(crate) const LAST_WORDS: Duration = Duration::from_millis(500);

/// Waits until the user or the system wants the command to end. After that, the command has
/// [`POLITE`], less with another signal; then the process ends wherever it stands: in a write that
/// nobody reads, for one.
///
/// When no signal can be received, none is handled, and the first one ends the process. Signals are received from the
/// call on, not from when it is waited for: what a command says before that may be what the user answers.
pub(crate) fn stop() -> impl Future<Output = ()> {
    let signals = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    async move {
        match signals {
            (Ok(interrupt), Ok(terminate)) => received(interrupt, terminate).await,
            _ => std::future::pending().await,
        }
    }
}

async fn received(mut interrupt: Signal, mut terminate: Signal) {
    // In a task of its own, so that a command which blocks its thread can be ended too.
    let (tell, told) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        either(&mut interrupt, &mut terminate).await;
        let _ = tell.send(());
        let _ = tokio::time::timeout(POLITE, either(&mut interrupt, &mut terminate)).await;
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
