//! What a stream has handed to its connection and the connection has not written yet.
//!
//! HTTP/2 buffers what a client has a window for. How much that is for a stream is up to the client and to the
//! transport, so a stream is asked for more only while little of what it gave is still held.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::task::AtomicWaker;

/// While this many bytes of a stream are not written, nothing more is taken from it. One frame may be larger.
pub(crate) const MOST: usize = 64 << 10;

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

/// Data that is counted until the transport drops it: it was written, or its connection or stream is gone.
struct Counted {
    data: Bytes,
    held: Arc<Held>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let size = self.data.len();
        let before = self.held.bytes.fetch_sub(size, Ordering::AcqRel);
        if before >= MOST && before - size < MOST {
            self.held.stream.wake();
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
    pub(crate) fn count(&self, data: Bytes) -> Bytes {
        self.0.bytes.fetch_add(data.len(), Ordering::AcqRel);
        Bytes::from_owner(Counted {
            data,
            held: Arc::clone(&self.0),
        })
    }
}
