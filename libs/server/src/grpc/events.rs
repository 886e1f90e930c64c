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
use stategate_api::{Delivery, Problem, answer::Sent};
use stategate_protocol::{compression::Packing, event::encode_progress, status};
use tonic::{Code, Status};

/// What a subscriber is sent. Its end is a normal end; a problem is the stream's status.
type Deliveries = BoxStream<'static, Result<Delivery, Problem>>;

/// Bytes of whole events that are put into one frame, if so many are there at once.
const FRAME_BYTES: usize = 32 << 10;
/// A gRPC message's header: whether it is compressed, and its length.
const HEADER_BYTES: usize = 5;

/// A subscription on its way from the adapter to the framing, past what tonic would make of it: a response's
/// extensions are clones of each other.
#[derive(Clone)]
pub(super) struct Handed(Arc<Mutex<Option<Deliveries>>>);

impl Handed {
    pub(super) fn new(events: Deliveries) -> Self {
        Self(Arc::new(Mutex::new(Some(events))))
    }

    pub(super) fn take(&self) -> Option<Deliveries> {
        self.0.lock().take()
    }
}

/// Events as the frames of an answer.
pub(super) struct Events {
    events: Deliveries,
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
    pub(super) fn new(events: Deliveries, packing: Option<Packing>) -> Self {
        Self {
            events,
            packing,
            whole: BytesMut::new(),
            next: None,
            is_over: false,
        }
    }

    /// Adds a whole event to those that are sent next.
    fn gather(&mut self, event: &[u8]) {
        self.whole.reserve(HEADER_BYTES + event.len());
        put_header(&mut self.whole, event.len());
        self.whole.put_slice(event);
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
                Poll::Ready(Some(Ok(delivery))) => match delivery.into_sent() {
                    Sent::Event { encoded, .. } => this.gather(&encoded),
                    Sent::Progress(lane, position) => {
                        this.gather(&encode_progress(lane, position).0);
                    }
                    Sent::First { length, bytes } => {
                        let mut piece = BytesMut::with_capacity(HEADER_BYTES + bytes.len());
                        put_header(&mut piece, length);
                        piece.put_slice(&bytes);
                        this.next = Some(Next::Piece(piece.freeze()));
                    }
                    Sent::More(bytes) => this.next = Some(Next::Piece(bytes)),
                },
                Poll::Ready(Some(Err(problem))) => this.next = Some(Next::End(status(problem))),
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
pub(super) fn trailers(status: &Status) -> HeaderMap {
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
    use futures::{FutureExt as _, stream};
    use http_body_util::BodyExt as _;
    use stategate_api::{Access, Context, Start, Subscribe, Verdicts};
    use stategate_model::{
        Claims, EntityRef, Event, EventId, Filter, Glob, Lane, Method, Position, Timestamp, Values,
        Version,
    };

    use super::*;

    fn message(event: &[u8]) -> Vec<u8> {
        let length = u32::try_from(event.len()).unwrap();
        [&[0], &length.to_be_bytes()[..], event].concat()
    }

    /// These bytes as an event that its subscriber may see.
    fn delivery(encoded: &[u8]) -> Delivery {
        let glob = |name| Glob::parse(name, "*").unwrap();
        let everything = Subscribe {
            domain: glob("domain"),
            kind: glob("type"),
            key: None,
            methods: Vec::new(),
            filter: Filter::parse_event("").unwrap(),
            start: Start::Live,
            progress: false,
        };
        let event = Event {
            id: EventId::fresh(Timestamp(0)),
            entity: EntityRef::new("d", "t", "k").unwrap(),
            values: Values::empty(),
            version: Version::new(1),
            lane: Lane(0),
            position: Position::new(1),
            time: Timestamp(1),
            method: Method::Set,
            claims: Claims::none(),
            trace_parent: None,
        };
        let mut delivery = None;
        let rules = Access::open().rules();
        let message = rules.message(stategate_policy::Document::null);
        let call = rules.call(everything, message, Context::anonymous(), |call| {
            let encode = || Ok(Bytes::copy_from_slice(encoded));
            let gate = call.gate();
            delivery = gate.deliver(&event, &Verdicts::default(), encode).unwrap();
            async { Err(Problem::ShuttingDown) }
        });
        drop(call.now_or_never());
        delivery.unwrap()
    }

    #[tokio::test]
    async fn events_and_pieces_of_events_are_messages_in_their_order() {
        let small = || Ok(delivery(b"small"));
        let bytes = vec![7; 100_000];
        let large = delivery(&bytes);
        let parts = [
            small(),
            small(),
            Ok(large.piece(0, 40_000)),
            Ok(large.piece(40_000, 100_000)),
            small(),
            Err(Problem::ShuttingDown),
        ];
        let body = Events::new(stream::iter(parts).boxed(), None);
        let collected = body.collect().await.unwrap();
        let status = Status::from_header_map(collected.trailers().unwrap()).unwrap();
        assert_eq!(status.code(), Code::Unavailable);
        let small = message(b"small");
        let all = [&small[..], &small, &message(&bytes), &small].concat();
        assert_eq!(collected.to_bytes(), all);
    }

    #[tokio::test]
    async fn frames_are_no_larger_than_they_need_to_be() {
        let event = delivery(&[7; 1_000]);
        let events = stream::repeat_with(move || Ok(event.clone())).take(100);
        let mut body = Events::new(events.boxed(), None);
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.unwrap().into_data() {
                assert!(data.len() < FRAME_BYTES + 2_000, "{}", data.len());
            }
        }
    }
}
