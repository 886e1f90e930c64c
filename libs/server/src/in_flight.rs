//! What an answer has handed to its connection and the connection has not written yet.
//!
//! HTTP/2 buffers what a client has a window for. How much that is for a stream is up to the client and to the
//! transport, so a stream is asked for more only while little of what it gave is still held. What unary answers gave
//! is counted in their connection's [`Answers`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use futures::task::AtomicWaker;

use crate::{answers::Answers, limits::Limits};

const MOST: usize = Limits::STREAM_IN_FLIGHT;

/// The bytes of one stream that the transport holds.
#[derive(Debug, Default)]
pub(crate) struct InFlight(Arc<Held>);

#[derive(Debug, Default)]
struct Held {
    bytes: AtomicUsize,
    stream: AtomicWaker,
}

impl Held {
    fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Acquire) >= MOST
    }
}

/// A piece of an answer, counted until the transport drops it: it was written, or its connection or stream is gone.
#[derive(Debug)]
pub(crate) struct Outgoing {
    data: Bytes,
    size: usize,
    counted: Counted,
}

#[derive(Debug)]
enum Counted {
    Stream(Arc<Held>),
    Answer(Arc<Answers>),
}

impl Outgoing {
    fn new(data: Bytes, counted: Counted) -> Self {
        Self {
            size: data.len(),
            data,
            counted,
        }
    }

    /// Data of a unary answer on the connection of `answers`.
    pub(crate) fn answer(data: Bytes, answers: &Arc<Answers>) -> Self {
        answers.hold(data.len());
        Self::new(data, Counted::Answer(Arc::clone(answers)))
    }
}

impl Buf for Outgoing {
    fn remaining(&self) -> usize {
        self.data.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.data
    }

    fn advance(&mut self, count: usize) {
        self.data.advance(count);
        if let Counted::Answer(answers) = &self.counted {
            answers.take(count);
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        match &self.counted {
            Counted::Answer(answers) => answers.release(self.size),
            Counted::Stream(held) => {
                let before = held.bytes.fetch_sub(self.size, Ordering::AcqRel);
                if before >= MOST && before - self.size < MOST {
                    held.stream.wake();
                }
            }
        }
    }
}

impl InFlight {
    /// Waits until the stream may be asked for more.
    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        if self.0.is_full() {
            self.0.stream.register(cx.waker());
            // What was written in between woke nobody.
            if self.0.is_full() {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    /// Counts data from now until it is dropped.
    pub(crate) fn count(&self, data: Bytes) -> Outgoing {
        self.0.bytes.fetch_add(data.len(), Ordering::AcqRel);
        Outgoing::new(data, Counted::Stream(Arc::clone(&self.0)))
    }
}
