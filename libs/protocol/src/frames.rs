//! A request body that refuses what is no gRPC message, and an oversized one before it is read; what
//! is compressed is passed on as it was before.
//!
//! tonic answers OUT_OF_RANGE to a message over its limit and INTERNAL to frames that are broken; the
//! contract (§4) says INVALID_ARGUMENT, for the mistake is the caller's. Flag and length stand in the
//! five bytes before each message, so the refusal costs nothing and needs no buffer. A compressed message
//! is gathered first, and must not be larger than any other once it is decompressed.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use stategate_model::{Invalid, limits::MESSAGE_BYTES};

use crate::{compression::Encoding, framing::HEADER_BYTES, status};

/// Passes a body on until a message in it announces more than 4 MiB, or is none.
#[derive(Debug)]
pub struct Bounded<B> {
    inner: B,
    /// What messages with the flag 1 are compressed with.
    encoding: Option<Encoding>,
    /// Bytes of the current message that are still to come.
    left: usize,
    /// The part of a message's header read so far.
    header: [u8; HEADER_BYTES],
    filled: usize,
    /// What has come of the current message, if it is compressed.
    packed: Option<BytesMut>,
    expected: Expected,
    /// What has come and was not looked at: messages are decompressed one at a time.
    rest: Bytes,
    is_over: bool,
}

/// How many messages are still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Any,
    One,
    None,
}

impl<B> Bounded<B> {
    /// Wraps the body of a request that is any number of messages, some of them perhaps compressed.
    pub fn new(inner: B, encoding: Option<Encoding>) -> Self {
        Self {
            inner,
            encoding,
            left: 0,
            header: [0; HEADER_BYTES],
            filled: 0,
            packed: None,
            expected: Expected::Any,
            rest: Bytes::new(),
            is_over: false,
        }
    }

    /// Wraps the body of a request that is one message, and refuses one that is none or several.
    pub fn of_one(inner: B, encoding: Option<Encoding>) -> Self {
        Self {
            expected: Expected::One,
            ..Self::new(inner, encoding)
        }
    }

    /// What is wrong with a body that ends here.
    fn end(&self) -> Option<Invalid> {
        if self.left > 0 || self.filled > 0 {
            return Some(Invalid::new("request", "ends within a message"));
        }
        let problem = "has no message; a message without fields is sent as five zero bytes";
        (self.expected == Expected::One).then(|| Invalid::new("request", problem))
    }

    /// Takes a byte of a message's header. At the last one the message begins: answers whether it is
    /// compressed.
    fn begin(&mut self, byte: u8) -> Result<Option<bool>, Invalid> {
        self.header[self.filled] = byte;
        self.filled += 1;
        if self.filled < HEADER_BYTES {
            return Ok(None);
        }
        self.filled = 0;
        self.expected = match self.expected {
            Expected::Any => Expected::Any,
            Expected::One => Expected::None,
            Expected::None => {
                let problem = "has more than one message; this method takes one";
                return Err(Invalid::new("request", problem));
            }
        };
        let [flag, length @ ..] = self.header;
        let is_packed = match (flag, self.encoding) {
            (0, _) => false,
            (1, Some(_)) => true,
            (1, None) => {
                let problem = "has a compressed message (a frame with the flag 1), but `grpc-encoding` does not say how; \
                     name gzip or zstd there, or send messages uncompressed, with the flag 0";
                return Err(Invalid::new("request", problem));
            }
            (flag, _) => {
                let problem = format!(
                    "has a frame with the flag {flag}; it is 0, or 1 before a compressed message"
                );
                return Err(Invalid::new("request", problem));
            }
        };
        self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if self.left > MESSAGE_BYTES {
            let problem = format!(
                "is a message of {} bytes; at most {MESSAGE_BYTES} are allowed",
                self.left
            );
            return Err(Invalid::too_large("request", problem));
        }
        Ok(Some(is_packed))
    }

    /// Looks at a piece of the body; answers what is to be passed on of it.
    fn pass(&mut self, data: Bytes) -> Result<Bytes, Invalid> {
        match self.encoding {
            None => self.check(&data).map(|()| data),
            Some(encoding) => self.unpack(data, encoding),
        }
    }

    fn check(&mut self, mut rest: &[u8]) -> Result<(), Invalid> {
        while !rest.is_empty() {
            let skipped = self.left.min(rest.len());
            rest.advance(skipped);
            self.left -= skipped;
            if self.left == 0 && !rest.is_empty() {
                self.begin(rest.get_u8())?;
            }
        }
        Ok(())
    }

    /// Stops after a message that was compressed, for many of them may be in what came at once.
    fn unpack(&mut self, mut rest: Bytes, encoding: Encoding) -> Result<Bytes, Invalid> {
        let mut out = BytesMut::new();
        while !rest.is_empty() {
            if self.left > 0 {
                let part = rest.split_to(self.left.min(rest.len()));
                self.left -= part.len();
                self.packed
                    .as_mut()
                    .unwrap_or(&mut out)
                    .extend_from_slice(&part);
            } else {
                match self.begin(rest.get_u8())? {
                    Some(true) => self.packed = Some(BytesMut::new()),
                    Some(false) => out.extend_from_slice(&self.header),
                    None => {}
                }
            }
            if self.left == 0
                && let Some(packed) = self.packed.take()
            {
                let message = encoding.decompress(&packed)?;
                out.put_u8(0);
                // At most 4 MiB.
                out.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
                out.extend_from_slice(&message);
                break;
            }
        }
        self.rest = rest;
        Ok(out.freeze())
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
        let this = &mut *self;
        let ended = |invalid: Invalid| Box::new(status(invalid.into()));
        while !this.is_over {
            let polled = match std::mem::take(&mut this.rest) {
                rest if rest.is_empty() => Pin::new(&mut this.inner).poll_frame(cx),
                rest => Poll::Ready(Some(Ok(Frame::data(rest)))),
            };
            let passed = match std::task::ready!(polled) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.pass(data).map(|data| Some(Frame::data(data))),
                    // Trailers, after which there is nothing.
                    Err(trailers) => this.end().map_or(Ok(Some(trailers)), Err),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => {
                    this.is_over = true;
                    this.end().map_or(Ok(None), Err)
                }
            };
            match passed {
                // A part of a compressed message, which is passed on when it is whole.
                Ok(Some(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
                Ok(frame) => return Poll::Ready(frame.map(Ok)),
                Err(invalid) => {
                    this.is_over = true;
                    return Poll::Ready(Some(Err(ended(invalid))));
                }
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        // Whoever takes this for the end does not hear what is wrong with it.
        let is_passed = self.rest.is_empty() && self.end().is_none();
        self.is_over || (self.inner.is_end_stream() && is_passed)
    }

    fn size_hint(&self) -> SizeHint {
        match self.encoding {
            None => self.inner.size_hint(),
            Some(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// A body that is there at once, in one piece.
    struct Whole(Option<Bytes>);

    impl Body for Whole {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_none()
        }
    }

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap();
        [&[flag], &length.to_be_bytes()[..], message].concat()
    }

    /// The pieces that are passed on, and what is refused after them.
    fn pieces(mut body: Bounded<Whole>) -> (Vec<Bytes>, Option<String>) {
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut pieces = Vec::new();
        while !body.is_end_stream() {
            match Pin::new(&mut body).poll_frame(&mut context) {
                Poll::Ready(Some(Ok(frame))) => pieces.extend(frame.into_data().ok()),
                Poll::Ready(Some(Err(error))) => return (pieces, Some(error.to_string())),
                Poll::Ready(None) => break,
                Poll::Pending => unreachable!("it is there"),
            }
        }
        (pieces, None)
    }

    #[test]
    fn compressed_messages_are_passed_on_one_at_a_time() {
        let message = vec![7; MESSAGE_BYTES];
        let packed = framed(1, &zstd::bulk::compress(&message, 3).unwrap());
        let plain = framed(0, b"plain");
        let all = [&packed[..], &plain, &packed, &packed].concat();
        let body = Bounded::new(Whole(Some(all.into())), Some(Encoding::Zstd));
        let (pieces, refused) = pieces(body);
        assert_eq!(refused, None);
        let sizes: Vec<usize> = pieces.iter().map(Bytes::len).collect();
        let large = MESSAGE_BYTES + HEADER_BYTES;
        assert_eq!(sizes, [large, plain.len() + large, large]);
    }

    #[test]
    fn a_request_that_is_one_message_is_no_more() {
        for (encoding, flag) in [(None, 0), (Some(Encoding::Zstd), 1)] {
            let message = match encoding {
                None => b"x".to_vec(),
                Some(_) => zstd::bulk::compress(b"x", 3).unwrap(),
            };
            let one = framed(flag, &message);
            let body = |data: Vec<u8>| Bounded::of_one(Whole(Some(data.into())), encoding);
            let (passed, refused) = pieces(body(one.clone()));
            assert_eq!((passed.concat(), refused), (framed(0, b"x"), None));
            let (_, refused) = pieces(body([&one[..], &one].concat()));
            assert!(refused.unwrap().contains("more than one message"));
            let (_, refused) = pieces(body(Vec::new()));
            assert!(refused.unwrap().contains("has no message"));
        }
    }
}
