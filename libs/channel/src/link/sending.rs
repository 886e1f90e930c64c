//! The task that sends.

use std::{panic::AssertUnwindSafe, sync::Arc};

use bytes::Bytes;
use futures::FutureExt as _;
use tokio::time::{sleep, timeout};

use super::{
    CONNECT, CarrierError, PROBE, SEND, Sender, Shared,
    backoff::Backoff,
    frame,
    meters::{ConnectionMeter, Way},
    within,
};
use crate::{Events, Message};

/// Sends what is published until the link is closed, and then what is left. A panic, of a driver for
/// one, costs a connection and what was on it.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut backoff = Backoff::new();
    let mut connection = ConnectionMeter::new(Arc::clone(&shared.meters), Way::Out);
    loop {
        let running = run_with_a_sender(&shared, &mut backoff, &mut connection);
        if AssertUnwindSafe(running).catch_unwind().await.is_ok() {
            return;
        }
        lost(&shared, &mut connection, &CarrierError::new("panicked"));
        tokio::select! {
            () = shared.closed.cancelled() => return,
            () = sleep(backoff.pause()) => {}
        }
    }
}

async fn run_with_a_sender(
    shared: &Shared,
    backoff: &mut Backoff,
    connection: &mut ConnectionMeter,
) {
    let mut sender = shared.carrier.sender();
    loop {
        // What was published before the end may still go, so a first attempt is made in any case.
        let failure = match within(CONNECT, "connect", sender.connect()).await {
            Ok(()) => {
                backoff.connected();
                connection.connected();
                shared.outbox.back();
                match pump(shared, &mut *sender).await {
                    Ok(()) => return,
                    Err(failure) => failure,
                }
            }
            Err(failure) => failure,
        };
        lost(shared, connection, &failure);
        tokio::select! {
            () = shared.closed.cancelled() => return,
            () = sleep(backoff.pause()) => {}
        }
    }
}

fn lost(shared: &Shared, connection: &mut ConnectionMeter, failure: &CarrierError) {
    connection.lost(failure);
    let dropped = shared.outbox.away();
    shared.meters.dropped.increment(dropped as u64);
}

/// Sends until the connection is lost, or the link is closed.
async fn pump(shared: &Shared, sender: &mut dyn Sender) -> Result<(), CarrierError> {
    loop {
        let next = tokio::select! {
            biased;
            next = timeout(PROBE, shared.outbox.take()) => next,
            () = shared.closed.cancelled() => {
                loop {
                    let rest = shared.outbox.take_now();
                    if rest.is_empty() {
                        return Ok(());
                    }
                    send(shared, sender, rest).await?;
                }
            }
        };
        match next {
            Ok(messages) => send(shared, sender, messages).await?,
            Err(_) => within(SEND, "probe", sender.probe()).await?,
        }
    }
}

async fn send(
    shared: &Shared,
    sender: &mut dyn Sender,
    messages: Vec<Message>,
) -> Result<(), CarrierError> {
    #[cfg(feature = "faults")]
    stategate_faults::pass("channel-sending");
    let limit = sender.limit();
    let frames: Vec<Bytes> = messages
        .iter()
        .filter_map(|message| frame_within(shared, message, limit))
        .collect();
    let count = frames.len() as u64;
    let sent = within(SEND, "send", sender.send(frames)).await;
    match &sent {
        Ok(()) => shared.meters.published.increment(count),
        // Some may have arrived; of the others the heads are owed as soon as there is a connection.
        Err(_) => shared.meters.dropped.increment(count),
    }
    sent
}

/// The frame of a message, or of its head alone where that is all the broker takes.
fn frame_within(shared: &Shared, message: &Message, limit: usize) -> Option<Bytes> {
    let key = shared.key.as_ref();
    if matches!(message.events, Events::Encoded(_)) {
        if frame::size(message, key) <= limit {
            return frame::encode(message, key);
        }
        shared.meters.oversize.increment(1);
    }
    let head = Message::bare_head(message.log_id, message.lane, message.head());
    frame::encode(&head, key)
}
