//! One connection: how its bytes are read and written, and why it ends.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};
use tokio_rustls::server::TlsStream;

use crate::{answers::Answers, end::End, methods::Methods};

/// What a connection has to say soon: the length of HTTP/2's preface.
const GREETING_BYTES: usize = 24;

/// A socket that is given up when nothing can be written to it for long.
#[derive(Debug)]
pub(crate) struct Socket {
    tcp: TcpStream,
    answers: Arc<Answers>,
    patience: Duration,
    /// Until when something that waits to be written may wait. Kept when it was written, for the next time.
    until: Option<Pin<Box<Sleep>>>,
    is_waiting: bool,
}

impl Socket {
    pub(crate) fn new(tcp: TcpStream, answers: Arc<Answers>, patience: Duration) -> Self {
        Self {
            tcp,
            answers,
            patience,
            until: None,
            is_waiting: false,
        }
    }

    /// What came of a write, unless it has waited too long.
    fn wrote<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.is_waiting = false;
            return polled;
        }
        let patience = self.patience;
        let until = self.until.get_or_insert_with(|| Box::pin(sleep(patience)));
        if !std::mem::replace(&mut self.is_waiting, true) {
            until.as_mut().reset(Instant::now() + patience);
        }
        ready!(until.as_mut().poll(cx));
        self.answers.close(End::Stalled);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.tcp).poll_write(cx, data);
        self.wrote(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.tcp).poll_write_vectored(cx, data);
        self.wrote(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
}

/// What a connection's bytes go through.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl Wire for Socket {}
impl Wire for TlsStream<Socket> {}

/// A connection as HTTP sees it, which gathers the answers that are ready before it writes, and is given up when it
/// says nothing at its beginning.
pub(crate) struct Connection {
    wire: Box<dyn Wire>,
    answers: Arc<Answers>,
    greeting: Option<Greeting>,
    /// Whether what is being flushed has given way to the answers behind it.
    gathered: bool,
    calls: Arc<Methods>,
}

/// What is still to be heard, and until when.
#[derive(Debug)]
struct Greeting {
    left: usize,
    silence: Pin<Box<Sleep>>,
}

impl Connection {
    /// `calls` are those that come by connections, and `silence` is how long this one may say nothing.
    pub(crate) fn new(
        wire: Box<dyn Wire>,
        answers: Arc<Answers>,
        silence: Duration,
        calls: Arc<Methods>,
    ) -> Self {
        let greeting = Greeting {
            left: GREETING_BYTES,
            silence: Box::pin(sleep(silence)),
        };
        Self {
            wire,
            answers,
            greeting: Some(greeting),
            gathered: false,
            calls,
        }
    }

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

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
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
        let polled = Pin::new(&mut this.wire).poll_read(cx, buffer);
        if let Some(greeting) = &mut this.greeting {
            if polled.is_pending() && greeting.silence.as_mut().poll(cx).is_ready() {
                this.answers.close(End::Silent);
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
        Pin::new(&mut self.wire).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.gathered = false;
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.gather(cx));
        Pin::new(&mut self.wire).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncWriteExt as _,
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::{answers::Budget, limits::Limits};

    #[tokio::test]
    async fn a_socket_that_nothing_can_be_written_to_is_given_up() {
        let limits = Limits::default();
        let budget = Budget::new(&limits);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await;
        let client = client.unwrap();
        let (tcp, _) = listener.accept().await.unwrap();
        let answers = budget.connection();
        let mut socket = Socket::new(tcp, Arc::clone(&answers), limits.write_stall);
        tokio::time::pause();
        let begun = Instant::now();
        let data = vec![0; 1 << 20];
        // As long as something is taken, however little, it is not given up.
        let error = loop {
            let written = tokio::time::timeout(limits.write_stall * 4, socket.write_all(&data));
            if let Err(error) = written.await.unwrap() {
                break error;
            }
            tokio::time::advance(limits.write_stall * 2).await;
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= limits.write_stall);
        assert_eq!(answers.end(), Some(End::Stalled));
        drop(client);
    }
}
