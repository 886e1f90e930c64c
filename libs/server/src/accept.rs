//! Connections from a listener: bounded in number, without Nagle's delay, and given up when they
//! say nothing.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{Stream, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tonic::transport::server::Connected;

use crate::{LogThrottle, methods::Methods, peer::Peer};

/// How long a new connection may keep silent.
const SILENCE: Duration = Duration::from_secs(10);
/// What it has to say in that time: the length of HTTP/2's preface, and less than any TLS hello.
const GREETING_BYTES: usize = 24;
/// Pause after a failed accept: out of file descriptors, an accept fails again at once.
const PAUSE: Duration = Duration::from_millis(50);

/// The connections of a listener, at most `most` at once. One more is closed at once, so that its
/// client knows, rather than left to wait in the kernel's queue. `calls` are those that come by them.
pub(crate) fn connections(
    listener: TcpListener,
    most: usize,
    calls: Arc<Methods>,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    let slots = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
    let refused = stategate_metrics::CONNECTIONS_REFUSED.get();
    stream::unfold(
        (listener, slots, refused, calls, LogThrottle::default()),
        |(listener, slots, refused, calls, failing)| async move {
            loop {
                let (socket, address) = match listener.accept().await {
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
                if let Err(error) = socket.set_nodelay(true) {
                    tracing::debug!(%error, "connection gone before it began");
                    continue;
                }
                let peer = Peer::new(address);
                let connection = Connection::new(socket, peer, slot, Arc::clone(&calls));
                return Some((Ok(connection), (listener, slots, refused, calls, failing)));
            }
        },
    )
}

/// An accepted connection, which gathers the answers that are ready before it writes. Its slot is free again
/// when it is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: TcpStream,
    peer: Peer,
    greeting: Option<Greeting>,
    /// Whether what is being flushed has given way to the answers behind it.
    gathered: bool,
    calls: Arc<Methods>,
    _slot: OwnedSemaphorePermit,
}

/// What is still to be heard, and until when.
#[derive(Debug)]
struct Greeting {
    left: usize,
    silence: Pin<Box<Sleep>>,
}

impl Connection {
    fn new(socket: TcpStream, peer: Peer, slot: OwnedSemaphorePermit, calls: Arc<Methods>) -> Self {
        let greeting = Greeting {
            left: GREETING_BYTES,
            silence: Box::pin(sleep(SILENCE)),
        };
        Self {
            socket,
            peer,
            greeting: Some(greeting),
            gathered: false,
            calls,
            _slot: slot,
        }
    }
}

impl Connection {
    /// Gives way once before a flush writes.
    ///
    /// The first of the calls that become ready together (a batch of writes was committed) wakes the
    /// connection, which would write that one answer before the other calls have had their turn, and
    /// so on for each. Behind them in the queue, it writes all their answers with one system call.
    /// A lone call has nobody behind it, and giving way would wake another thread for nothing.
    fn gather(&mut self, cx: &Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.gathered, true) || !self.calls.are_several() {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.socket).poll_read(cx, buffer);
        if let Some(greeting) = &mut this.greeting {
            if polled.is_pending() && greeting.silence.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            greeting.left = greeting.left.saturating_sub(buffer.filled().len() - before);
            if greeting.left == 0 {
                this.greeting = None;
            }
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.gather(cx));
        Pin::new(&mut self.socket).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.gathered = false;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.gather(cx));
        Pin::new(&mut self.socket).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn nobody() -> Arc<Methods> {
        Arc::new(Methods::new(1, &crate::Services::default()))
    }

    #[tokio::test]
    async fn one_connection_too_many_is_closed_and_a_freed_slot_is_given_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut connections = std::pin::pin!(connections(listener, 1, nobody()));

        let mut first = TcpStream::connect(address).await.unwrap();
        let served = connections.next().await.unwrap().unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        let mut buffer = [0; 1];
        tokio::select! {
            read = second.read(&mut buffer) => assert!(matches!(read, Ok(0) | Err(_))),
            _ = connections.next() => panic!("a second connection was let in"),
        }
        drop(served);
        assert!(matches!(first.read(&mut buffer).await, Ok(0)));

        let _third = TcpStream::connect(address).await.unwrap();
        connections.next().await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn silence_ends_a_connection_and_a_greeting_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut connections = std::pin::pin!(connections(listener, 2, nobody()));
        let mut quiet = TcpStream::connect(address).await.unwrap();
        let mut quiet_end = connections.next().await.unwrap().unwrap();
        let mut polite = TcpStream::connect(address).await.unwrap();
        let mut polite_end = connections.next().await.unwrap().unwrap();

        let mut buffer = [0; GREETING_BYTES];
        polite.write_all(&[b'x'; GREETING_BYTES]).await.unwrap();
        polite_end.read_exact(&mut buffer).await.unwrap();
        quiet.write_all(b"PRI").await.unwrap();
        quiet_end.read_exact(&mut buffer[..3]).await.unwrap();

        tokio::time::pause();
        let ended = quiet_end.read(&mut buffer).await.unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        let waits = tokio::time::timeout(2 * SILENCE, polite_end.read(&mut buffer)).await;
        assert!(waits.is_err(), "ended after its greeting");
    }
}
