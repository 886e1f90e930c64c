//! A request body that refuses what is no gRPC message, and an oversized one before it is read.
//!
//! tonic answers OUT_OF_RANGE to a message over its limit and INTERNAL to frames that are broken; the
//! contract (§4) says INVALID_ARGUMENT, for the mistake is the caller's. Flag and length stand in the
//! five bytes before each message, so the refusal costs nothing and needs no buffer.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use stategate_model::{Invalid, limits::MESSAGE_BYTES};
use tonic::Status;

use crate::Problem;

/// Passes a body on until a message in it announces more than 4 MiB, or is none.
#[derive(Debug)]
pub struct Bounded<B> {
    inner: B,
    /// Bytes of the current message that are still to come.
    left: usize,
    /// The part of a message's header read so far.
    header: [u8; 5],
    filled: usize,
    /// Whether a message is still to come that must.
    lacks_message: bool,
    is_over: bool,
}

impl<B> Bounded<B> {
    /// Wraps the body of a request that is any number of messages.
    pub fn new(inner: B) -> Self {
        Self {
            inner,
            left: 0,
            header: [0; 5],
            filled: 0,
            lacks_message: false,
            is_over: false,
        }
    }

    /// Wraps the body of a request that is one message, and refuses one that is none.
    pub fn of_one(inner: B) -> Self {
        Self {
            lacks_message: true,
            ..Self::new(inner)
        }
    }

    /// What is wrong with a body that ends here.
    fn end(&self) -> Option<Invalid> {
        if self.left > 0 || self.filled > 0 {
            return Some(Invalid::new("request", "ends within a message"));
        }
        let problem = "has no message; a message without fields is sent as five zero bytes";
        self.lacks_message.then(|| Invalid::new("request", problem))
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
                    self.lacks_message = false;
                    let [flag, length @ ..] = self.header;
                    if flag != 0 {
                        return Err(Problem::from(Invalid::new(
                            "request",
                            format!("has a frame with the flag {flag}; send messages uncompressed, with the flag 0"),
                        ))
                        .into());
                    }
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
        if self.is_over {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        let ended = |invalid: Invalid| Box::new(Status::from(Problem::from(invalid)));
        Poll::Ready(match std::task::ready!(polled) {
            Some(Ok(frame)) => match frame.data_ref().map(|data| self.check(data)) {
                Some(Ok(())) => Some(Ok(frame)),
                Some(Err(status)) => {
                    self.is_over = true;
                    Some(Err(Box::new(status)))
                }
                // Trailers, after which there is nothing.
                None => match self.end() {
                    Some(invalid) => {
                        self.is_over = true;
                        Some(Err(ended(invalid)))
                    }
                    None => Some(Ok(frame)),
                },
            },
            Some(Err(error)) => Some(Err(error.into())),
            None => {
                self.is_over = true;
                self.end().map(|invalid| Err(ended(invalid) as _))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        // Whoever takes this for the end does not hear what is wrong with it.
        self.is_over || (self.inner.is_end_stream() && self.end().is_none())
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
