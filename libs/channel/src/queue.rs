//! What a subscription has not read yet: bounded in bytes, since messages are between a hundred bytes
//! and several megabytes. A subscription that falls behind loses its queue, not the publisher its
//! time.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures::Stream;
use parking_lot::Mutex;

use crate::{Message, Notice};

/// Most bytes a subscription may be behind.
const QUEUE_BYTES: usize = 32 << 20;

/// The writing end of a subscription.
#[derive(Debug, Default)]
pub(crate) struct Queue(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Arc<Message>>,
    bytes: usize,
    lagged: bool,
    ended: bool,
    reader: Option<Waker>,
}

impl Waiting {
    fn lag(&mut self) {
        self.messages.clear();
        self.bytes = 0;
        self.lagged = true;
    }
}

impl Queue {
    /// Adds a message, or drops all there are for one [`Notice::Lagged`]. Answers how many were
    /// dropped.
    pub(crate) fn push(&self, message: &Arc<Message>) -> usize {
        let mut dropped = 0;
        self.change(|waiting| {
            if waiting.bytes + message.size() > QUEUE_BYTES {
                dropped = waiting.messages.len() + 1;
                waiting.lag();
            } else {
                waiting.bytes += message.size();
                waiting.messages.push_back(Arc::clone(message));
            }
        });
        dropped
    }

    /// Says that something was lost. What waits is older than that, and of no more use.
    #[cfg(feature = "link")]
    pub(crate) fn lag(&self) {
        self.change(Waiting::lag);
    }

    /// Ends the subscription once it has read what there is.
    pub(crate) fn end(&self) {
        self.change(|waiting| waiting.ended = true);
    }

    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        let mut waiting = self.0.lock();
        change(&mut waiting);
        let reader = waiting.reader.take();
        drop(waiting);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// The reading end.
#[derive(Debug)]
pub(crate) struct Reader(pub(crate) Arc<Queue>);

impl Stream for Reader {
    type Item = Notice;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Notice>> {
        let mut waiting = self.0.0.lock();
        if std::mem::take(&mut waiting.lagged) {
            return Poll::Ready(Some(Notice::Lagged));
        }
        if let Some(message) = waiting.messages.pop_front() {
            waiting.bytes -= message.size();
            return Poll::Ready(Some(Notice::Message(message)));
        }
        if waiting.ended {
            return Poll::Ready(None);
        }
        waiting.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}
