//! Subscriptions: a task each, which listens, checks frames and comes back after every loss.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{FutureExt as _, Stream};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::{
    CONNECT, CarrierError, Listener, Received, Shared,
    backoff::Backoff,
    frame,
    meters::{ConnectionMeter, Way},
    within,
};
use crate::{
    Error, Notice, Subscription,
    queue::{Queue, Reader},
};

/// Listens. In force when it returns; if the broker is away, its return is followed by `Lagged`.
pub(super) async fn subscribe(shared: &Arc<Shared>) -> Result<Subscription, Error> {
    let mut task = Task {
        listener: shared.carrier.listener(),
        queue: Arc::default(),
        backoff: Backoff::new(),
        connection: ConnectionMeter::new(Arc::clone(&shared.meters), Way::In),
        shared: Arc::clone(shared),
    };
    let is_connected = tokio::select! {
        biased;
        () = shared.closed.cancelled() => return Err(Error::Closed),
        is_connected = task.connect() => is_connected,
    };
    let reader = Reader(Arc::clone(&task.queue));
    let task = tokio::spawn(task.run(is_connected));
    Ok(Box::pin(Listening {
        reader,
        _task: AbortOnDropHandle::new(task),
    }))
}

/// A subscription; dropping it ends its task.
struct Listening {
    reader: Reader,
    _task: AbortOnDropHandle<()>,
}

impl Stream for Listening {
    type Item = Notice;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Notice>> {
        Pin::new(&mut self.reader).poll_next(cx)
    }
}

struct Task {
    shared: Arc<Shared>,
    listener: Box<dyn Listener>,
    queue: Arc<Queue>,
    backoff: Backoff,
    connection: ConnectionMeter,
}

impl Task {
    /// Listens until the link is closed. A panic, of a driver for one, costs a connection.
    async fn run(mut self, mut is_connected: bool) {
        let closed = self.shared.closed.clone();
        loop {
            let following = AssertUnwindSafe(self.follow(is_connected)).catch_unwind();
            let panicked = tokio::select! {
                () = closed.cancelled() => break,
                followed = following => followed.is_err(),
            };
            if panicked {
                self.listener = self.shared.carrier.listener();
                self.connection.lost(&CarrierError::new("panicked"));
                is_connected = false;
            }
        }
        self.queue.end();
    }

    /// Listens for ever.
    async fn follow(&mut self, mut is_connected: bool) {
        loop {
            if is_connected {
                self.listen().await;
            }
            sleep(self.backoff.pause()).await;
            is_connected = self.connect().await;
            if is_connected {
                // Whatever was sent in the meantime went by.
                self.queue.lag();
            }
        }
    }

    async fn connect(&mut self) -> bool {
        match within(CONNECT, "connect", self.listener.connect()).await {
            Ok(()) => {
                self.backoff.connected();
                self.connection.connected();
                true
            }
            Err(failure) => {
                self.connection.lost(&failure);
                false
            }
        }
    }

    /// Passes on what comes until the connection is lost.
    async fn listen(&mut self) {
        loop {
            match self.listener.next().await {
                Ok(Received::Frame(frame)) => self.receive(frame),
                Ok(Received::Lagged) => {
                    self.shared.meters.lagged.increment(1);
                    self.queue.lag();
                }
                Err(failure) => return self.connection.lost(&failure),
            }
        }
    }

    fn receive(&self, frame: Bytes) {
        #[cfg(feature = "faults")]
        stategate_faults::pass("channel-listening");
        let meters = &self.shared.meters;
        match frame::decode(frame, self.shared.key.as_ref()) {
            Ok(message) if message.log_id == self.shared.log_id => {
                meters.received.increment(1);
                let unread = self.queue.push(&Arc::new(message));
                meters.unread.increment(unread as u64);
            }
            Ok(_) => meters.strangers.increment(1),
            Err(refused) => meters.refused(refused),
        }
    }
}
