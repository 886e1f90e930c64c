//! What happens to every call between the connection and the service: it is counted, bounded in
//! number and size, ended at its deadline, and answered with a named error when it cannot be served.
//!
//! One layer instead of many, so that a call passes one future and one body.

use std::{
    convert::Infallible,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use stategate_protocol::{
    Problem,
    compression::{Encoding, Packing},
    frames::Bounded,
    headers as names,
};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use crate::{
    Services,
    deadline::{Deadline, timeout},
    events::{Events, Handed, trailers},
    in_flight::InFlight,
    methods::{Call, Methods, Shape},
    panics,
};

/// How long a request may take to arrive. It holds a slot meanwhile, and no handler knows of it yet.
const ARRIVAL: Duration = Duration::from_secs(30);
/// tonic ends a call at its deadline too, but as CANCELLED; being a tick of the clock earlier makes
/// ours the answer.
const TICK: Duration = Duration::from_millis(1);

/// What requests may be compressed with.
const ACCEPTED_ENCODINGS: http::HeaderValue =
    http::HeaderValue::from_static(names::ACCEPTED_ENCODINGS);

/// Puts [`Guarded`] around a service.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    methods: Arc<Methods>,
    ending: CancellationToken,
}

impl Guard {
    /// At most `most_calls` unary calls of `services` at once. When `ending` is cancelled, health watches and
    /// reflection streams end, which nobody else would end.
    pub(crate) fn new(most_calls: usize, services: &Services, ending: CancellationToken) -> Self {
        Self {
            methods: Arc::new(Methods::new(most_calls, services)),
            ending,
        }
    }

    /// The methods that calls are counted under.
    pub(crate) fn methods(&self) -> Arc<Methods> {
        Arc::clone(&self.methods)
    }
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            inner,
            guard: self.clone(),
        }
    }
}

/// A service behind the guard.
#[derive(Debug, Clone)]
pub(crate) struct Guarded<S> {
    inner: S,
    guard: Guard,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Arriving>, Response = Response<Body>, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let call = self.guard.methods.begin(request.uri().path());
        let span = tracing::debug_span!("call", method = call.name());
        let (mut deadline, mut packing) = (None, None);
        let inner = Asked::of(request.headers(), &call).map(|asked| {
            if let Some(timeout) = asked.timeout {
                let at = Instant::now() + timeout.saturating_sub(TICK);
                request.extensions_mut().insert(Deadline(at));
                deadline = Some(Box::pin(sleep_until(at)));
            }
            let headers = request.headers_mut();
            if asked.encoding.is_some() {
                // What is behind this gets messages as they were before.
                headers.remove(names::ENCODING);
            }
            packing = Encoding::for_answer(headers, asked.encoding);
            let patience = match call.shape() {
                Shape::Unary | Shape::Stream => Some(ARRIVAL),
                // Reflection is asked one question after the other on one stream.
                Shape::Infrastructure | Shape::Unknown => None,
            };
            let body = |body| Arriving::new(body, patience, asked.encoding);
            self.inner.call(request.map(body))
        });
        Answering {
            inner: inner.map_err(Some),
            call: Some(call),
            deadline,
            packing,
            ending: self.guard.ending.clone(),
            span,
        }
    }
}

/// What the headers of a call ask for, as far as it concerns the guard.
struct Asked {
    timeout: Option<Duration>,
    encoding: Option<Encoding>,
}

impl Asked {
    /// Or why the call is not served, whatever its request is: that is not even waited for.
    fn of(headers: &HeaderMap, call: &Call) -> Result<Self, Problem> {
        if let Some(elsewhere) = call.elsewhere() {
            return Err(elsewhere);
        }
        let timeout = timeout(headers, call.shape())?;
        let encoding = Encoding::of_request(headers)?;
        if call.is_too_many() {
            return Err(Problem::Busy {
                what: "there are as many calls at once as this service takes",
            });
        }
        Ok(Self { timeout, encoding })
    }
}

/// A call whose answer has not begun.
#[derive(Debug)]
pub(crate) struct Answering<F> {
    inner: Result<F, Option<Problem>>,
    call: Option<Call>,
    deadline: Option<Pin<Box<Sleep>>>,
    /// What the answer is compressed with.
    packing: Option<Encoding>,
    ending: CancellationToken,
    span: tracing::Span,
}

impl<F> Future for Answering<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Output = Result<Response<Answer>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let polled = match &mut this.inner {
            Ok(inner) => this
                .span
                // A bug in a handler is its call's problem and nobody else's.
                .in_scope(|| catch_unwind(AssertUnwindSafe(|| Pin::new(inner).poll(cx)))),
            Err(problem) => {
                let problem = problem.take().unwrap_or(Problem::ShuttingDown);
                return Poll::Ready(Ok(this.refuse(problem)));
            }
        };
        let response = match polled {
            Ok(Poll::Ready(Ok(response))) => this.answer(response),
            Ok(Poll::Pending) => match &mut this.deadline {
                Some(deadline) => {
                    std::task::ready!(deadline.as_mut().poll(cx));
                    this.refuse(Problem::DeadlineExceeded)
                }
                None => return Poll::Pending,
            },
            Err(panic) => {
                let problem = panics::problem(&*panic);
                let writes = this.call.as_ref().is_some_and(Call::writes);
                this.refuse(match writes {
                    // Nobody knows how far it came; an internal error would say that nothing was written.
                    true => Problem::OutcomeUnknown {
                        retry_is_safe: false,
                    },
                    false => problem,
                })
            }
        };
        Poll::Ready(Ok(response))
    }
}

impl<F> Answering<F> {
    fn refuse(&mut self, problem: Problem) -> Response<Answer> {
        let status = Status::from(problem);
        self.answer(status.into_http())
    }

    fn answer(&mut self, response: Response<Body>) -> Response<Answer> {
        let mut response = response;
        let mut call = self.call.take();
        let mut packing = self.packing.take();
        // An answer that is an error only has its status among the headers.
        if let Some(code) = code(response.headers()) {
            packing = None;
            let is_unknown = |call: &Call| call.shape() == Shape::Unknown;
            if code == Code::Unimplemented && call.as_ref().is_some_and(is_unknown) {
                response = Status::from(Problem::Unsupported {
                    what: "there is no such method here; server reflection lists those there are",
                })
                .into_http();
            }
            if let Some(call) = &mut call {
                call.ends_with(code);
            }
        }
        let headers = response.headers_mut();
        // What requests may be compressed with, as the gRPC protocol has a server say it.
        headers
            .entry(names::ACCEPT_ENCODING)
            .or_insert(ACCEPTED_ENCODINGS);
        if let Some(encoding) = packing {
            headers.insert(names::ENCODING, encoding.header());
        }
        let shape = call.as_ref().map(Call::shape);
        let ending = shape == Some(Shape::Infrastructure);
        // What is one message is no more than that, whoever takes it.
        let is_stream = shape == Some(Shape::Stream);
        let deadline = self.deadline.take();
        let mut packing = packing.map(Packing::new);
        let handed = response.extensions_mut().remove::<Handed>();
        let events = handed.and_then(|handed| handed.take());
        let events = events.map(|events| Body::new(Events::new(events, packing.take())));
        response.map(|inner| Answer {
            inner: events.unwrap_or(inner),
            packing,
            in_flight: is_stream.then(InFlight::default),
            call,
            deadline,
            ending: ending.then(|| Box::pin(self.ending.clone().cancelled_owned())),
            is_over: false,
        })
    }
}

fn code(headers: &HeaderMap) -> Option<Code> {
    let status = headers.get(Status::GRPC_STATUS)?;
    Some(Code::from_bytes(status.as_bytes()))
}

/// The body of an answer: ends the call when it ends.
#[derive(Debug)]
pub(crate) struct Answer {
    inner: Body,
    packing: Option<Packing>,
    /// What the transport holds of it, if it goes on and on.
    in_flight: Option<InFlight>,
    call: Option<Call>,
    deadline: Option<Pin<Box<Sleep>>>,
    ending: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    is_over: bool,
}

impl Answer {
    fn ends_with(&mut self, code: Code) {
        if let Some(call) = &mut self.call {
            call.ends_with(code);
        }
        self.call = None;
        self.is_over = true;
    }

    /// Ends the answer here and now.
    fn end(&mut self, problem: Problem) -> Frame<Bytes> {
        let status = Status::from(problem);
        self.ends_with(status.code());
        Frame::trailers(trailers(&status))
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.is_over {
            return Poll::Ready(None);
        }
        let poll = AssertUnwindSafe(|| {
            if let Some(in_flight) = &this.in_flight {
                std::task::ready!(in_flight.poll_room(cx));
            }
            Pin::new(&mut this.inner).poll_frame(cx)
        });
        // A bug in a stream is that stream's problem and nobody else's.
        let polled = match catch_unwind(poll) {
            Ok(polled) => polled,
            Err(panic) => return Poll::Ready(Some(Ok(this.end(panics::problem(&*panic))))),
        };
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.ends_with(code(trailers).unwrap_or(Code::Unknown));
                }
                Poll::Ready(Some(Ok(frame.map_data(|data| {
                    let data = match &mut this.packing {
                        None => data,
                        Some(packing) => packing.pack(data),
                    };
                    match &this.in_flight {
                        None => data,
                        Some(in_flight) => in_flight.count(data),
                    }
                }))))
            }
            Poll::Ready(Some(Err(status))) => {
                this.ends_with(status.code());
                Poll::Ready(Some(Err(status)))
            }
            Poll::Ready(None) => {
                this.call = None;
                this.is_over = true;
                Poll::Ready(None)
            }
            Poll::Pending => {
                if let Some(deadline) = &mut this.deadline
                    && deadline.as_mut().poll(cx).is_ready()
                {
                    return Poll::Ready(Some(Ok(this.end(Problem::DeadlineExceeded))));
                }
                if let Some(ending) = &mut this.ending
                    && ending.as_mut().poll(cx).is_ready()
                {
                    return Poll::Ready(Some(Ok(this.end(Problem::ShuttingDown))));
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.packing {
            None => self.inner.size_hint(),
            Some(_) => SizeHint::default(),
        }
    }
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
            let until = this.until.get_or_insert_with(|| Box::pin(sleep(patience)));
            if until.as_mut().poll(cx).is_ready() {
                let status = Status::from(Problem::DeadlineExceeded);
                return Poll::Ready(Some(Err(Box::new(status))));
            }
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
    use futures::stream;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;
    use crate::in_flight;

    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicBool);

    impl Woken {
        fn take(&self) -> bool {
            self.0.swap(false, std::sync::atomic::Ordering::Relaxed)
        }
    }

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }

    #[test]
    fn a_stream_is_asked_for_no_more_than_its_connection_writes() {
        const FRAME: usize = 30_000;
        let frames = stream::repeat_with(|| Ok::<_, Status>(Frame::data(vec![7; FRAME].into())));
        let mut answer = Answer {
            inner: Body::new(StreamBody::new(frames)),
            packing: None,
            in_flight: Some(InFlight::default()),
            call: None,
            deadline: None,
            ending: None,
            is_over: false,
        };
        let woken = Arc::new(Woken::default());
        let waker = Arc::clone(&woken).into();
        let mut cx = Context::from_waker(&waker);
        let mut next = || match Pin::new(&mut answer).poll_frame(&mut cx) {
            Poll::Ready(frame) => Some(frame.unwrap().unwrap().into_data().unwrap()),
            Poll::Pending => None,
        };
        let mut held: Vec<Bytes> = std::iter::from_fn(&mut next).collect();
        assert_eq!(held.len(), in_flight::MOST / FRAME + 1);
        // The transport writes a frame by and by, and drops it when it is written.
        let mut first = held.remove(0);
        drop(first.split_to(FRAME / 2));
        assert!(!woken.take() && next().is_none());
        drop(first);
        assert!(woken.take());
        held.extend(next());
        assert!(next().is_none());
        drop(held);
        assert!(woken.take() && next().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_does_not_arrive_is_given_up() {
        let silent = || Body::new(StreamBody::new(stream::pending::<Result<_, Status>>()));
        let begun = Instant::now();
        let mut body = Arriving::new(silent(), Some(ARRIVAL), None);
        let error = body.frame().await.unwrap().unwrap_err();
        let status = error.downcast_ref::<Status>().unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(begun.elapsed() >= ARRIVAL);

        let mut patient = Arriving::new(silent(), None, None);
        let frame = tokio::time::timeout(100 * ARRIVAL, patient.frame()).await;
        assert!(frame.is_err(), "given up without need");
    }
}
