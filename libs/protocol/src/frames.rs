//! A request body that refuses an oversized gRPC message before it is read.
//!
//! tonic answers OUT_OF_RANGE to a message over its limit; the contract (§4) says INVALID_ARGUMENT
//! and REQUEST_TOO_LARGE. The length stands in the five bytes before each message, so the refusal
//! costs nothing and needs no buffer.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use stategate_model::{Invalid, limits::MESSAGE_BYTES};
use tonic::Status;

use crate::Problem;

/// Passes a body on until a message in it announces more than 4 MiB.
#[derive(Debug)]
pub struct Bounded<B> {
    inner: B,
    /// Bytes of the current message that are still to come.
    left: usize,
    /// The part of a message's header read so far.
    header: [u8; 5],
    filled: usize,
}

impl<B> Bounded<B> {
    /// Wraps a request's body.
    pub fn new(inner: B) -> Self {
        Self {
            inner,
            left: 0,
            header: [0; 5],
            filled: 0,
        }
    }

    fn check(&mut self, data: &Bytes) -> Result<(), Status> {
        let mut rest = data.as_ref();
        while !rest.is_empty() {
            let skipped = self.left.min(rest.len());
            rest.advance(skipped);
            self.left -= skipped;
            if self.left == 0 && !rest.is_empty() {
                self.header[self.filled] = rest[0];
                self.filled += 1;
                rest.advance(1);
                if self.filled == self.header.len() {
                    self.filled = 0;
                    let [_, length @ ..] = self.header;
                    self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                    if self.left > MESSAGE_BYTES {
                        return Err(Problem::from(Invalid::too_large(
                            "request",
                            format!(
                                "is a message of {} bytes; at most {MESSAGE_BYTES} are allowed",
                                self.left
                            ),
                        ))
                        .into());
                    }
                }
            }
        }
        Ok(())
    }
}

impl<B> Body for Bounded<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        Poll::Ready(match std::task::ready!(polled) {
            Some(Ok(frame)) => match frame.data_ref().map(|data| self.check(data)) {
                Some(Err(status)) => Some(Err(Box::new(status))),
                _ => Some(Ok(frame)),
            },
            Some(Err(error)) => Some(Err(error.into())),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
