//! A TCP proxy with an address that stays while what is behind it comes and goes, that can cut the
//! connections through it, and lose what is said on them.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// A running proxy; it ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    cut: watch::Sender<u64>,
    /// Whether answers are lost.
    mute: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port and passes connections on to `target`.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let target = Arc::new(Mutex::new(target));
        let (cut, mute) = (watch::Sender::new(0), watch::Sender::new(false));
        let task = tokio::spawn({
            let (target, cut, mute) = (Arc::clone(&target), cut.clone(), mute.clone());
            async move {
                while let Ok((from, _)) = listener.accept().await {
                    let target = *target.lock().unwrap();
                    let (mut cut, mute) = (cut.subscribe(), mute.subscribe());
                    tokio::spawn(async move {
                        // Nothing behind it: the connection is closed, as a load balancer would.
                        let Ok(to) = TcpStream::connect(target).await else {
                            return;
                        };
                        let _ = (from.set_nodelay(true), to.set_nodelay(true));
                        cut.mark_unchanged();
                        let (asked, answering) = from.into_split();
                        let (answers, asking) = to.into_split();
                        let mute = Mute {
                            mute,
                            cut: cut.clone(),
                        };
                        tokio::select! {
                            _ = async {
                                tokio::join!(pass(asked, asking, None), pass(answers, answering, Some(mute)))
                            } => {}
                            _ = cut.changed() => {}
                        }
                    });
                }
            }
        });
        Self {
            address,
            target,
            cut,
            mute,
            task,
        }
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients connect to, as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Passes new connections on to another address.
    pub fn point_at(&self, target: SocketAddr) {
        *self.target.lock().unwrap() = target;
    }

    /// Closes every connection there is.
    pub fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }

    /// From now on, passes on what is asked and loses what is answered; or passes on all again.
    pub fn lose_answers(&self, lose: Answers) {
        self.mute.send_replace(lose == Answers::Lost);
    }
}

/// What becomes of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// They are passed on.
    Passed,
    /// They are read, and lost.
    Lost,
}

/// What one connection knows of whether its answers are lost.
struct Mute {
    mute: watch::Receiver<bool>,
    cut: watch::Receiver<u64>,
}

impl Mute {
    /// Whether what was just read is lost. Of a connection that was cut it is, although answers may be
    /// passed on again on those that come after it: hence first whether they are, then whether it was cut.
    fn is_lost(&self) -> bool {
        *self.mute.borrow() || self.cut.has_changed().unwrap_or(true)
    }
}

/// Passes bytes on until either end closes.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, lose: Option<Mute>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read) = from.read(&mut buffer).await {
        let is_lost = lose.as_ref().is_some_and(Mute::is_lost);
        if read == 0 || (!is_lost && to.write_all(&buffer[..read]).await.is_err()) {
            break;
        }
    }
    let _ = to.shutdown().await;
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
