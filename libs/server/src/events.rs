//! The body of a stream of events: gRPC messages, of which a large one may come in pieces.
//!
//! What the transport was given cannot be taken back. So whoever gives a large event piece by piece holds, for a
//! client that does not read, a piece and not the event.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{StreamExt as _, stream::BoxStream};
use http::HeaderMap;
use http_body::{Body, Frame};
use parking_lot::Mutex;
use stategate_protocol::{Encoded, compression::Packing};
use tonic::{Code, Status};

/// The events of a subscription. Its end is a normal end; an error is the stream's status.
pub type EventStream = BoxStream<'static, Result<EventPart, Status>>;

/// What a stream gives at once.
#[derive(Debug, Clone, PartialEq)]
pub enum EventPart {
    /// An event.
    Whole(Encoded),
    /// The first bytes of an event of `length` bytes. Nothing but the rest of it comes next.
    First {
        /// The size of the whole event.
        length: usize,
        /// Its first bytes.
        bytes: Bytes,
    },
    /// More bytes of the event that was begun.
    More(Bytes),
}

/// Bytes of whole events that are put into one frame, if so many are there at once.
const FRAME_BYTES: usize = 32 << 10;
/// A gRPC message's header: whether it is compressed, and its length.
const HEADER_BYTES: usize = 5;

/// An [`EventStream`] on its way from a service to the guard, past what tonic would make of it: a response's
/// extensions are clones of each other.
#[derive(Clone)]
pub(crate) struct Handed(Arc<Mutex<Option<EventStream>>>);

impl Handed {
    pub(crate) fn new(events: EventStream) -> Self {
        Self(Arc::new(Mutex::new(Some(events))))
    }

    pub(crate) fn take(&self) -> Option<EventStream> {
        self.0.lock().take()
    }
}

/// Events as the frames of an answer.
pub(crate) struct Events {
    events: EventStream,
    /// Compresses whole events. One that comes in pieces is sent as it is.
    packing: Option<Packing>,
    whole: BytesMut,
    /// What comes after the whole events that are gathered.
    next: Option<Next>,
    is_over: bool,
}

enum Next {
    Piece(Bytes),
    End(Status),
}

impl Events {
    pub(crate) fn new(events: EventStream, packing: Option<Packing>) -> Self {
        Self {
            events,
            packing,
            whole: BytesMut::new(),
            next: None,
            is_over: false,
        }
    }

    /// The whole events that were gathered.
    fn gathered(&mut self) -> Option<Frame<Bytes>> {
        if self.whole.is_empty() {
            return None;
        }
        let data = self.whole.split().freeze();
        Some(Frame::data(match &mut self.packing {
            None => data,
            Some(packing) => packing.pack(data),
        }))
    }
}

/// Puts the header of a message of `length` bytes.
fn put_header(out: &mut BytesMut, length: usize) {
    out.put_u8(0);
    // An event is some megabytes at most.
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

impl Body for Events {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if this.is_over {
                return Poll::Ready(None);
            }
            if (this.next.is_some() || this.whole.len() >= FRAME_BYTES)
                && let Some(frame) = this.gathered()
            {
                return Poll::Ready(Some(Ok(frame)));
            }
            match this.next.take() {
                Some(Next::Piece(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Some(Next::End(status)) => {
                    this.is_over = true;
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers(&status)))));
                }
                None => {}
            }
            match this.events.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(EventPart::Whole(event)))) => {
                    this.whole.reserve(HEADER_BYTES + event.0.len());
                    put_header(&mut this.whole, event.0.len());
                    this.whole.put_slice(&event.0);
                }
                Poll::Ready(Some(Ok(EventPart::First { length, bytes }))) => {
                    let mut piece = BytesMut::with_capacity(HEADER_BYTES + bytes.len());
                    put_header(&mut piece, length);
                    piece.put_slice(&bytes);
                    this.next = Some(Next::Piece(piece.freeze()));
                }
                Poll::Ready(Some(Ok(EventPart::More(bytes)))) => {
                    this.next = Some(Next::Piece(bytes));
                }
                Poll::Ready(Some(Err(status))) => this.next = Some(Next::End(status)),
                Poll::Ready(None) => this.next = Some(Next::End(Status::new(Code::Ok, ""))),
                Poll::Pending => {
                    return match this.gathered() {
                        Some(frame) => Poll::Ready(Some(Ok(frame))),
                        None => Poll::Pending,
                    };
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}

/// The end of an answer.
pub(crate) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // Only a message that is no header value; the code alone is one.
        trailers.insert(
            Status::GRPC_STATUS,
            http::HeaderValue::from(status.code() as i32),
        );
    }
    trailers
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body_util::BodyExt as _;

    use super::*;

    fn message(event: &[u8]) -> Vec<u8> {
        let length = u32::try_from(event.len()).unwrap();
        [&[0], &length.to_be_bytes()[..], event].concat()
    }

    #[tokio::test]
    async fn events_and_pieces_of_events_are_messages_in_their_order() {
        let small = || Ok(EventPart::Whole(Encoded(Bytes::from_static(b"small"))));
        let large = vec![7; 100_000];
        let parts = [
            small(),
            small(),
            Ok(EventPart::First {
                length: large.len(),
                bytes: large[..40_000].to_vec().into(),
            }),
            Ok(EventPart::More(large[40_000..].to_vec().into())),
            small(),
            Err(Status::unavailable("later")),
        ];
        let body = Events::new(stream::iter(parts).boxed(), None);
        let collected = body.collect().await.unwrap();
        let status = Status::from_header_map(collected.trailers().unwrap()).unwrap();
        assert_eq!(
            (status.code(), status.message()),
            (Code::Unavailable, "later")
        );
        let small = message(b"small");
        let all = [&small[..], &small, &message(&large), &small].concat();
        assert_eq!(collected.to_bytes(), all);
    }

    #[tokio::test]
    async fn frames_are_no_larger_than_they_need_to_be() {
        let event = || Ok(EventPart::Whole(Encoded(vec![7; 1_000].into())));
        let events = stream::repeat_with(event).take(100).boxed();
        let mut body = Events::new(events, None);
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.unwrap().into_data() {
                assert!(data.len() < FRAME_BYTES + 2_000, "{}", data.len());
            }
        }
    }
}
