//! A listener and its connections: bounded in number, each served by a task of its own from its TLS handshake to its
//! end, so that none waits for another.

use std::{
    convert::Infallible, error::Error, net::SocketAddr, pin::pin, sync::Arc, time::Duration,
};

use bytes::Buf;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use stategate_metrics::Gauge;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::body::Body;
use tower::{Service, ServiceExt as _};

use crate::{
    LogThrottle,
    answers::{Answers, Budget},
    connection::{Connection, Socket, Wire},
    end::End,
    limits::Limits,
    methods::Methods,
    peer::Peer,
    tls::Identity,
};

/// Pause after a failed accept: out of file descriptors, an accept fails again at once.
const PAUSE: Duration = Duration::from_millis(50);

/// What is served on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// The API, over HTTP/2.
    Api,
    /// Metrics and health, over HTTP/1.1 and HTTP/2.
    Admin,
}

/// A listener that is about to be served.
pub(crate) struct Listening<S> {
    pub(crate) door: Door,
    pub(crate) listener: TcpListener,
    /// Without it, connections are in the clear.
    pub(crate) tls: Option<Identity>,
    pub(crate) limits: Limits,
    pub(crate) budget: Arc<Budget>,
    /// Those that come by its connections.
    pub(crate) calls: Arc<Methods>,
    pub(crate) service: S,
}

/// What all connections of a listener share.
struct Shared<S> {
    tls: Option<Identity>,
    limits: Limits,
    budget: Arc<Budget>,
    calls: Arc<Methods>,
    service: S,
    protocol: auto::Builder<TokioExecutor>,
    open: Gauge,
    /// Cancelled when connections have to end.
    told: CancellationToken,
}

impl<S, B> Listening<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
    S: Send + Sync + 'static,
    S::Future: Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Data: Buf + Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Serves connections until `told` is cancelled, then waits until each has come to its end. One too many is
    /// closed at once, so that its client knows, rather than left to wait in the kernel's queue.
    pub(crate) async fn serve(self, told: CancellationToken) {
        let (most, name) = match self.door {
            Door::Api => (self.limits.connections, "api"),
            Door::Admin => (self.limits.admin_connections, "admin"),
        };
        let slots = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        let refused = stategate_metrics::CONNECTIONS_REFUSED.get();
        let failing = LogThrottle::default();
        let shared = Arc::new(Shared {
            protocol: protocol(self.door, &self.limits),
            tls: self.tls,
            limits: self.limits,
            budget: self.budget,
            calls: self.calls,
            service: self.service,
            open: stategate_metrics::CONNECTIONS_OPEN.with([name]),
            told: told.clone(),
        });
        let listener = self.listener;
        let tasks = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = told.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let (socket, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    if let Some(left_out) = failing.is_due() {
                        tracing::warn!(%error, left_out, "cannot accept a connection");
                    }
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                refused.increment(1);
                tracing::debug!("connection closed: there are as many as allowed");
                continue;
            };
            let shared = Arc::clone(&shared);
            tasks.spawn(async move { shared.connection(socket, address, slot).await });
        }
        // Nobody is to connect, and wait, while the last connections end.
        drop(listener);
        tasks.close();
        tasks.wait().await;
    }
}

impl<S, B> Shared<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
    S: Send + Sync + 'static,
    S::Future: Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Data: Buf + Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// A connection from its beginning to its end. Its slot is free again then.
    async fn connection(
        &self,
        socket: TcpStream,
        address: SocketAddr,
        _slot: OwnedSemaphorePermit,
    ) {
        let _open = Open::new(&self.open);
        let answers = self.budget.connection();
        let end = match self.handshake(socket, &answers).await {
            Ok((wire, subject)) => {
                let peer = Peer::new(address, subject, Arc::clone(&answers));
                let ended = self.requests(wire, peer).await;
                // Whoever had it closed knows better than what came of it.
                answers.end().unwrap_or(ended)
            }
            Err(end) => end,
        };
        tracing::debug!(reason = end.name(), "connection ended");
        stategate_metrics::CONNECTIONS_ENDED
            .with([end.name()])
            .increment(1);
    }

    /// What the connection's bytes go through, and the subject of the certificate that its client showed.
    async fn handshake(
        &self,
        socket: TcpStream,
        answers: &Arc<Answers>,
    ) -> Result<(Box<dyn Wire>, Option<Arc<str>>), End> {
        // Without Nagle's delay.
        socket.set_nodelay(true).map_err(|_| End::Lost)?;
        let socket = Socket::new(socket, Arc::clone(answers), self.limits.write_stall);
        let Some(identity) = &self.tls else {
            return Ok((Box::new(socket), None));
        };
        let shaken = tokio::select! {
            shaken = timeout(self.limits.handshake, identity.accept(socket)) => shaken,
            () = self.told.cancelled() => return Err(End::Closed),
        };
        match shaken {
            Ok(Ok((stream, subject))) => Ok((Box::new(stream), subject)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "TLS handshake failed");
                Err(End::Handshake)
            }
            Err(_) => {
                tracing::debug!("TLS handshake took too long");
                Err(End::Handshake)
            }
        }
    }

    /// Serves the requests that come by a connection until it ends or has to.
    async fn requests(&self, wire: Box<dyn Wire>, peer: Peer) -> End {
        let answers = Arc::clone(&peer.answers);
        let io = Connection::new(
            wire,
            Arc::clone(&answers),
            self.limits.greeting,
            Arc::clone(&self.calls),
        );
        let service = self
            .service
            .clone()
            .map_request(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(peer.clone());
                request.map(Body::new)
            });
        let service = TowerToHyperService::new(service);
        let mut connection = pin!(self.protocol.serve_connection(TokioIo::new(io), service));
        let mut until = pin!(sleep(self.limits.age.map_or(Duration::MAX, around)));
        let mut life = match self.limits.age {
            Some(_) => Life::Young,
            None => Life::Endless,
        };
        let mut is_told = false;
        loop {
            tokio::select! {
                biased;
                ended = &mut connection => return match ended {
                    Ok(()) => End::Closed,
                    Err(error) => {
                        tracing::debug!(%error, "connection failed");
                        End::of(&*error)
                    }
                },
                () = answers.closed() => return End::Lost,
                () = self.told.cancelled(), if !is_told => {
                    is_told = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = &mut until, if life != Life::Endless => match (life, self.limits.age_grace) {
                    (Life::Young, grace) => {
                        connection.as_mut().graceful_shutdown();
                        match grace {
                            Some(grace) => {
                                until.set(sleep(grace));
                                life = Life::Old;
                            }
                            None => life = Life::Endless,
                        }
                    }
                    (Life::Old | Life::Endless, _) => return End::Age,
                },
            }
        }
    }
}

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// It may be told to go away.
    Young,
    /// It was told, and will be closed.
    Old,
    /// It ends when it does.
    Endless,
}

/// A time that is a tenth shorter or longer, for connections that began together not to end together.
fn around(age: Duration) -> Duration {
    age.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// How a listener's connections speak.
fn protocol(door: Door, limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.connection_streams)
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_header_list_size(limits.header_bytes)
        .max_pending_accept_reset_streams(limits.pending_resets)
        .max_local_error_reset_streams(limits.reset_errors)
        .keep_alive_interval(limits.keep_alive)
        .keep_alive_timeout(limits.keep_alive_answer);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time);
    match door {
        Door::Api => builder.http2_only(),
        Door::Admin => builder,
    }
}

/// A connection that is counted as open until this is dropped, by a panic too.
struct Open<'a>(&'a Gauge);

impl<'a> Open<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::get};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::Instant,
    };

    use super::*;
    use crate::Services;

    struct Served {
        address: SocketAddr,
        told: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    /// A listener that answers every GET of `/`, as the one for metrics does.
    async fn serve(limits: Limits) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let told = CancellationToken::new();
        let listening = Listening {
            door: Door::Admin,
            listener,
            tls: None,
            budget: Budget::new(&limits),
            limits,
            calls: Arc::new(Methods::new(1, &Services::default())),
            service: Router::new().route("/", get(|| async { "here" })),
        };
        let task = tokio::spawn(listening.serve(told.clone()));
        Served {
            address,
            told,
            task,
        }
    }

    /// Asks on a connection that stays open; answers whether there was an answer.
    async fn ask(socket: &mut TcpStream) -> bool {
        if socket
            .write_all(b"GET / HTTP/1.1\r\nhost: somebody\r\n\r\n")
            .await
            .is_err()
        {
            return false;
        }
        let mut answer = Vec::new();
        while !answer.ends_with(b"here") {
            match socket.read_buf(&mut answer).await {
                Ok(0) | Err(_) => return false,
                Ok(_) => {}
            }
        }
        true
    }

    #[tokio::test]
    async fn one_connection_too_many_is_closed_and_a_freed_slot_is_given_again() {
        let limits = Limits {
            admin_connections: 1,
            ..Limits::default()
        };
        let served = serve(limits).await;
        let mut first = TcpStream::connect(served.address).await.unwrap();
        assert!(ask(&mut first).await);
        let mut second = TcpStream::connect(served.address).await.unwrap();
        assert!(!ask(&mut second).await);
        drop(first);
        while !ask(&mut TcpStream::connect(served.address).await.unwrap()).await {
            tokio::task::yield_now().await;
        }
        served.told.cancel();
        served.task.await.unwrap();
        TcpStream::connect(served.address).await.unwrap_err();
    }

    #[tokio::test]
    async fn silence_ends_a_connection_and_a_greeting_does_not() {
        let served = serve(Limits::default()).await;
        let mut polite = TcpStream::connect(served.address).await.unwrap();
        assert!(ask(&mut polite).await);
        let mut quiet = TcpStream::connect(served.address).await.unwrap();
        quiet.write_all(b"GET / HTT").await.unwrap();
        let limits = Limits::default();
        tokio::time::pause();
        let begun = Instant::now();
        let mut buffer = [0; 1];
        assert!(matches!(quiet.read(&mut buffer).await, Ok(0) | Err(_)));
        assert!(begun.elapsed() >= limits.greeting, "{:?}", begun.elapsed());
        assert!(
            begun.elapsed() < 2 * limits.greeting,
            "{:?}",
            begun.elapsed()
        );
        tokio::time::resume();
        assert!(ask(&mut polite).await, "ended after its greeting");
    }

    #[test]
    fn ages_are_around_what_was_set() {
        let age = Duration::from_secs(1_000);
        let ages: Vec<_> = (0..1_000).map(|_| around(age)).collect();
        let (least, most) = (ages.iter().min().unwrap(), ages.iter().max().unwrap());
        assert!(*least >= age.mul_f64(0.9) && *most <= age.mul_f64(1.1));
        assert!(*most - *least > age.mul_f64(0.1));
    }
}
