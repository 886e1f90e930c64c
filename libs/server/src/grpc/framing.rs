//! What belongs to a gRPC call beside its messages: its timeout, the compression of messages, the time its request
//! may take to arrive, and the status that ends it when the status does not come from its service.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use stategate_api::Problem;
use stategate_protocol::{
    compression::{Encoding, Packing},
    frames::Bounded,
    headers as names, status,
};
use tokio::time::{Sleep, sleep};
use tonic::{Code, Status, body::Body};

use super::{
    events::{Events, Handed, trailers},
    timeout::timeout,
};
use crate::{limits::Limits, methods::Shape};

const ARRIVAL: Duration = Limits::ARRIVAL;

/// What requests may be compressed with.
const ACCEPTED_ENCODINGS: HeaderValue = HeaderValue::from_static(names::ACCEPTED_ENCODINGS);

/// How one call is answered.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    shape: Option<Shape>,
    /// What the answer is to be compressed with …
    encoding: Option<Encoding>,
    /// … and is, since it began.
    packing: Option<Packing>,
}

/// What the headers of a call ask for.
pub(crate) struct Asked {
    /// How long its client waits.
    pub(crate) timeout: Option<Duration>,
    encoding: Option<Encoding>,
    shape: Shape,
}

impl Asked {
    /// Parses the headers of a call; an error says what is wrong with them.
    pub(crate) fn of(headers: &HeaderMap, shape: Shape) -> Result<Self, Problem> {
        Ok(Self {
            timeout: timeout(headers, shape)?,
            encoding: Encoding::of_request(headers)?,
            shape,
        })
    }

    /// The request as its service gets it.
    pub(crate) fn request(&self, mut request: Request<Body>) -> (Request<Arriving>, Framing) {
        let headers = request.headers_mut();
        if self.encoding.is_some() {
            // What is behind this gets messages as they were before.
            headers.remove(names::ENCODING);
        }
        let framing = Framing {
            shape: Some(self.shape),
            encoding: Encoding::for_answer(headers, self.encoding),
            packing: None,
        };
        let patience = match self.shape {
            Shape::Unary | Shape::Stream => Some(ARRIVAL),
            // Reflection is asked one question after the other on one stream.
            Shape::Infrastructure | Shape::Unknown => None,
        };
        let request = request.map(|body| Arriving::new(body, patience, self.encoding));
        (request, framing)
    }
}

impl Framing {
    /// Of a call whose headers are not looked at yet.
    pub(crate) fn of(shape: Shape) -> Self {
        Self {
            shape: Some(shape),
            ..Self::default()
        }
    }

    /// An answer that is a problem and nothing else.
    pub(crate) fn refusal(problem: Problem) -> Response<Body> {
        status(problem).into_http()
    }

    /// Completes the head of an answer. How the call ended, if that is known with it.
    pub(crate) fn begin(&mut self, response: &mut Response<Body>) -> Option<Code> {
        // An answer that is an error only has its status among the headers.
        let code = code(response.headers());
        if code == Some(Code::Unimplemented) && self.shape == Some(Shape::Unknown) {
            *response = Self::refusal(Problem::Unsupported {
                what: "there is no such method here; server reflection lists those there are",
            });
        }
        let headers = response.headers_mut();
        // What requests may be compressed with, as the gRPC protocol has a server say it.
        headers
            .entry(names::ACCEPT_ENCODING)
            .or_insert(ACCEPTED_ENCODINGS);
        if let (None, Some(encoding)) = (code, self.encoding) {
            headers.insert(names::ENCODING, encoding.header());
            self.packing = Some(Packing::new(encoding));
        }
        let handed = response.extensions_mut().remove::<Handed>();
        if let Some(events) = handed.and_then(|handed| handed.take()) {
            *response.body_mut() = Body::new(Events::new(events, self.packing.take()));
        }
        code
    }

    /// A piece of an answer as it is sent, and how the call ended if it is the last.
    pub(crate) fn frame(&mut self, frame: Frame<Bytes>) -> (Frame<Bytes>, Option<Code>) {
        let trailers = frame.trailers_ref();
        let code = trailers.map(|trailers| code(trailers).unwrap_or(Code::Unknown));
        let frame = match &mut self.packing {
            None => frame,
            Some(packing) => frame.map_data(|data| packing.pack(data)),
        };
        (frame, code)
    }

    /// Whether an answer is as long as its service says.
    pub(crate) fn keeps_size(&self) -> bool {
        self.packing.is_none()
    }

    /// The end of an answer that had begun.
    pub(crate) fn end(problem: Problem) -> (Frame<Bytes>, Code) {
        let status = status(problem);
        (Frame::trailers(trailers(&status)), status.code())
    }
}

fn code(headers: &HeaderMap) -> Option<Code> {
    let status = headers.get(Status::GRPC_STATUS)?;
    Some(Code::from_bytes(status.as_bytes()))
}

/// The body of a request: bounded in size, and in time.
#[derive(Debug)]
pub(crate) struct Arriving {
    inner: Bounded<Body>,
    patience: Option<Duration>,
    /// Made when something is waited for; nearly every request arrives in one piece.
    until: Option<Pin<Box<Sleep>>>,
}

impl Arriving {
    /// A request that is one message is waited for; what is many may take its time.
    fn new(body: Body, patience: Option<Duration>, encoding: Option<Encoding>) -> Self {
        let inner = match patience {
            Some(_) => Bounded::of_one(body, encoding),
            None => Bounded::new(body, encoding),
        };
        Self {
            inner,
            patience,
            until: None,
        }
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = tonic::codegen::StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        if let (true, Some(patience)) = (polled.is_pending(), this.patience) {
            this.until.get_or_insert_with(|| Box::pin(sleep(patience)));
        }
        // Not only when nothing is ready: of a message that comes byte by byte, something may be at any time.
        if let Some(until) = &mut this.until
            && !this.inner.is_end_stream()
            && until.as_mut().poll(cx).is_ready()
        {
            let status = status(Problem::DeadlineExceeded);
            return Poll::Ready(Some(Err(Box::new(status))));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_that_does_not_arrive_is_given_up() {
        let silent = || Body::new(StreamBody::new(stream::pending::<Result<_, Status>>()));
        let begun = Instant::now();
        let mut body = Arriving::new(silent(), Some(ARRIVAL), None);
        let error = body.frame().await.unwrap().unwrap_err();
        let status = error.downcast_ref::<Status>().unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(begun.elapsed() >= ARRIVAL);

        // Byte by byte, with something ready whenever it is asked, but for the first time.
        let header = stream::iter([0, 0, 1, 0, 0]);
        let bytes = header.chain(stream::repeat(0));
        let bytes = bytes.map(|byte| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(&[byte]))));
        let pause = stream::once(tokio::task::yield_now()).filter_map(|()| async { None });
        let begun = Instant::now();
        let mut body = Arriving::new(
            Body::new(StreamBody::new(pause.chain(bytes))),
            Some(ARRIVAL),
            None,
        );
        let error = loop {
            tokio::time::advance(Duration::from_millis(100)).await;
            if let Err(error) = body.frame().await.unwrap() {
                break error;
            }
        };
        let status = error.downcast_ref::<Status>().unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(begun.elapsed() < 2 * ARRIVAL);

        let mut patient = Arriving::new(silent(), None, None);
        let frame = tokio::time::timeout(100 * ARRIVAL, patient.frame()).await;
        assert!(frame.is_err(), "given up without need");
    }
}
