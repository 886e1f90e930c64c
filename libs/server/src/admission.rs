//! What happens to every call between the connection and the service, whatever the transport: it is
//! counted, bounded in number, its caller verified, ended at its deadline, isolated from other calls when it panics, and
//! answered with a named error when it cannot be served. How a transport asks and answers is in
//! [`grpc::framing`](crate::grpc::framing).
//!
//! One layer instead of many, so that a call passes one future and one body.

use std::{
    convert::Infallible,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use stategate_api::{Caller, Problem};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use crate::{
    AccessControl, Services,
    access_control::Authenticated,
    answers::Answers,
    deadline::Deadline,
    grpc::framing::{Arriving, Asked, Framing},
    in_flight::{InFlight, Outgoing},
    methods::{Call, Methods, Shape},
    panics,
    peer::Peer,
};

/// Puts [`AdmissionService`] around a service.
#[derive(Debug, Clone)]
pub(crate) struct AdmissionLayer {
    methods: Arc<Methods>,
    control: AccessControl,
    ending: CancellationToken,
}

impl AdmissionLayer {
    /// At most `most_calls` unary calls of `services` at once, by those whom `control` lets in. When `ending` is
    /// cancelled, health watches and reflection streams end, which nobody else would end.
    pub(crate) fn new(
        most_calls: usize,
        services: &Services,
        control: AccessControl,
        ending: CancellationToken,
    ) -> Self {
        Self {
            methods: Arc::new(Methods::new(most_calls, services)),
            control,
            ending,
        }
    }

    /// The methods that calls are counted under.
    pub(crate) fn methods(&self) -> Arc<Methods> {
        Arc::clone(&self.methods)
    }
}

impl<S> Layer<S> for AdmissionLayer {
    type Service = AdmissionService<S>;

    fn layer(&self, inner: S) -> AdmissionService<S> {
        AdmissionService {
            inner,
            admission: self.clone(),
        }
    }
}

/// A service that only admitted calls get to.
#[derive(Debug, Clone)]
pub(crate) struct AdmissionService<S> {
    inner: S,
    admission: AdmissionLayer,
}

/// Why a call is refused whose client holds up the answers of others.
const UNTAKEN: Problem = Problem::Busy {
    what: "the client has not taken the answers of earlier calls on this connection; read them first",
};

/// What the headers of a call ask for, or why the call is refused. None of these reasons depends on the request's
/// message, so the message is not waited for.
fn admit(
    request: &Request<Body>,
    call: &Call,
    answers: Option<&Answers>,
) -> Result<Asked, Problem> {
    if let Some(elsewhere) = call.elsewhere() {
        return Err(elsewhere);
    }
    let asked = Asked::of(request.headers(), call.shape())?;
    if call.shape() == Shape::Unary && answers.is_some_and(Answers::are_too_many) {
        return Err(UNTAKEN);
    }
    if call.is_too_many() {
        return Err(Problem::Busy {
            what: "there are as many calls at once as this service takes",
        });
    }
    Ok(asked)
}

impl<S> Service<Request<Body>> for AdmissionService<S>
where
    S: Service<Request<Arriving>, Response = Response<Body>, Error = Infallible> + Clone + Unpin,
    S::Future: Unpin,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = ResponseFuture<S>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let call = self.admission.methods.begin(request.uri().path());
        let span = tracing::debug_span!("call", method = call.name());
        let (mut deadline, mut framing) = (None, Framing::of(call.shape()));
        let peer = request.extensions().get::<Peer>();
        let answers = peer.map(|peer| Arc::clone(&peer.answers));
        let inner = admit(&request, &call, answers.as_deref()).map(|asked| {
            if let Some(timeout) = asked.timeout {
                let at = Instant::now() + timeout;
                request.extensions_mut().insert(Deadline(at));
                deadline = Some(Box::pin(sleep_until(at)));
            }
            let caller = self.authenticate(&request, &call);
            let (mut request, answering) = asked.request(request);
            framing = answering;
            match caller {
                Authenticated::Open => Serving::Called(self.inner.call(request)),
                Authenticated::Known(caller) => {
                    request.extensions_mut().insert(caller);
                    Serving::Called(self.inner.call(request))
                }
                Authenticated::Refused(problem) => Serving::Refused(Some(problem)),
                Authenticated::Verifying(verifying) => Serving::Verifying {
                    verifying,
                    request: Some(Box::new(request)),
                    service: self.inner.clone(),
                },
            }
        });
        ResponseFuture {
            inner: inner.unwrap_or_else(|problem| Serving::Refused(Some(problem))),
            call: Some(call),
            deadline,
            framing,
            answers,
            ending: self.admission.ending.clone(),
            span,
        }
    }
}

impl<S> AdmissionService<S> {
    /// Who makes a call. Health and reflection are asked by anybody, and what is no method at all is not there for
    /// anybody.
    fn authenticate(&self, request: &Request<Body>, call: &Call) -> Authenticated {
        match call.shape() {
            Shape::Infrastructure | Shape::Unknown => Authenticated::Open,
            Shape::Unary | Shape::Stream => {
                let peer = request.extensions().get::<Peer>();
                let control = &self.admission.control;
                control.authenticate(call.name(), request.headers(), peer)
            }
        }
    }
}

/// How far a call is on its way to its service.
enum Serving<S: Service<Request<Arriving>>> {
    /// It does not get there.
    Refused(Option<Problem>),
    /// Its token is being verified; nothing of its message was read yet.
    Verifying {
        verifying: BoxFuture<'static, Result<Arc<Caller>, Problem>>,
        request: Option<Box<Request<Arriving>>>,
        service: S,
    },
    /// The service has it.
    Called(S::Future),
}

impl<S> Serving<S>
where
    S: Service<Request<Arriving>, Response = Response<Body>, Error = Infallible>,
    S::Future: Unpin,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<Body>, Problem>> {
        loop {
            match self {
                Self::Called(future) => {
                    let Ok(response) = std::task::ready!(Pin::new(future).poll(cx));
                    return Poll::Ready(Ok(response));
                }
                Self::Refused(problem) => {
                    return Poll::Ready(Err(problem.take().unwrap_or(Problem::ShuttingDown)));
                }
                Self::Verifying {
                    verifying,
                    request,
                    service,
                } => {
                    let caller = std::task::ready!(verifying.as_mut().poll(cx));
                    *self = match (caller, request.take()) {
                        (Ok(caller), Some(mut request)) => {
                            request.extensions_mut().insert(caller);
                            // What routes calls takes them at any time.
                            Self::Called(service.call(*request))
                        }
                        (Err(problem), _) => Self::Refused(Some(problem)),
                        (Ok(_), None) => Self::Refused(None),
                    };
                }
            }
        }
    }
}

/// A call whose answer has not begun.
pub(crate) struct ResponseFuture<S: Service<Request<Arriving>>> {
    inner: Serving<S>,
    call: Option<Call>,
    deadline: Option<Pin<Box<Sleep>>>,
    framing: Framing,
    answers: Option<Arc<Answers>>,
    ending: CancellationToken,
    span: tracing::Span,
}

impl<S> Future for ResponseFuture<S>
where
    S: Service<Request<Arriving>, Response = Response<Body>, Error = Infallible> + Unpin,
    S::Future: Unpin,
{
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if !matches!(this.inner, Serving::Refused(_)) && this.is_one_too_many() {
            return Poll::Ready(Ok(this.refuse(UNTAKEN)));
        }
        let inner = &mut this.inner;
        let polled = this
            .span
            // A bug in a handler is its call's problem and nobody else's.
            .in_scope(|| catch_unwind(AssertUnwindSafe(|| inner.poll(cx))));
        let response = match polled {
            Ok(Poll::Ready(Ok(response))) => this.answer(response),
            Ok(Poll::Ready(Err(problem))) => this.refuse(problem),
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

impl<S: Service<Request<Arriving>>> ResponseFuture<S> {
    /// Whether the client has to take other answers before this one may be made. Hundreds of calls may have been under
    /// way when the first answer came. A write is answered in any case, for it may be done.
    fn is_one_too_many(&self) -> bool {
        let is_read = |call: &Call| call.shape() == Shape::Unary && !call.writes();
        self.call.as_ref().is_some_and(is_read)
            && self.answers.as_deref().is_some_and(Answers::are_too_many)
    }

    fn refuse(&mut self, problem: Problem) -> Response<ResponseBody> {
        self.answer(Framing::refusal(problem))
    }

    fn answer(&mut self, mut response: Response<Body>) -> Response<ResponseBody> {
        let mut call = self.call.take();
        let mut framing = std::mem::take(&mut self.framing);
        if let (Some(code), Some(call)) = (framing.begin(&mut response), &mut call) {
            call.ends_with(code);
        }
        let shape = call.as_ref().map(Call::shape);
        let ending = shape == Some(Shape::Infrastructure);
        let holding = match (shape, self.answers.take()) {
            // A unary answer is one message, and whole when it begins.
            (Some(Shape::Unary), Some(answers)) => Holding::Answer(answers),
            _ => Holding::Stream(InFlight::default()),
        };
        let deadline = self.deadline.take();
        response.map(|inner| ResponseBody {
            inner,
            framing,
            holding,
            call,
            deadline,
            ending: ending.then(|| Box::pin(self.ending.clone().cancelled_owned())),
            is_over: false,
        })
    }
}

/// The body of an answer: ends the call when it ends.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    inner: Body,
    framing: Framing,
    holding: Holding,
    call: Option<Call>,
    deadline: Option<Pin<Box<Sleep>>>,
    ending: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    is_over: bool,
}

/// Counts the bytes that the transport holds of an answer.
#[derive(Debug)]
enum Holding {
    Stream(InFlight),
    Answer(Arc<Answers>),
}

impl Holding {
    /// Waits until the answer may be asked for more.
    fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        match self {
            Self::Stream(in_flight) => in_flight.poll_room(cx),
            Self::Answer(_) => Poll::Ready(()),
        }
    }

    fn count(&self, data: Bytes) -> Outgoing {
        match self {
            Self::Stream(in_flight) => in_flight.count(data),
            Self::Answer(answers) => Outgoing::answer(data, answers),
        }
    }
}

impl ResponseBody {
    fn ends_with(&mut self, code: Code) {
        if let Some(call) = &mut self.call {
            call.ends_with(code);
        }
        self.call = None;
        self.is_over = true;
    }

    /// Ends the answer here and now.
    fn end(&mut self, problem: Problem) -> Frame<Outgoing> {
        let (frame, code) = Framing::end(problem);
        self.ends_with(code);
        frame.map_data(|data| self.holding.count(data))
    }
}

impl HttpBody for ResponseBody {
    type Data = Outgoing;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Outgoing>, Status>>> {
        let this = &mut *self;
        if this.is_over {
            return Poll::Ready(None);
        }
        let poll = AssertUnwindSafe(|| {
            std::task::ready!(this.holding.poll_room(cx));
            Pin::new(&mut this.inner).poll_frame(cx)
        });
        // A bug in a stream is that stream's problem and nobody else's.
        let polled = match catch_unwind(poll) {
            Ok(polled) => polled,
            Err(panic) => return Poll::Ready(Some(Ok(this.end(panics::problem(&*panic))))),
        };
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                let (frame, code) = this.framing.frame(frame);
                if let Some(code) = code {
                    this.ends_with(code);
                }
                Poll::Ready(Some(Ok(frame.map_data(|data| this.holding.count(data)))))
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
        match self.framing.keeps_size() {
            true => self.inner.size_hint(),
            false => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body_util::StreamBody;

    use super::*;
    use crate::limits::Limits;

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
        let mut answer = ResponseBody {
            inner: Body::new(StreamBody::new(frames)),
            framing: Framing::default(),
            holding: Holding::Stream(InFlight::default()),
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
        let mut held: Vec<Outgoing> = std::iter::from_fn(&mut next).collect();
        assert_eq!(held.len(), Limits::STREAM_IN_FLIGHT / FRAME + 1);
        // The transport writes a frame by and by, and drops it when it is written.
        let mut first = held.remove(0);
        bytes::Buf::advance(&mut first, FRAME / 2);
        assert!(!woken.take() && next().is_none());
        drop(first);
        assert!(woken.take());
        held.extend(next());
        assert!(next().is_none());
        drop(held);
        assert!(woken.take() && next().is_some());
    }
}
