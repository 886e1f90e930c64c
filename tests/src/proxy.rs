//! A TCP proxy with an address that stays while what is behind it comes and goes, and that can cut the
//! connections through it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A running proxy; it ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    cut: watch::Sender<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port and passes connections on to `target`.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let target = Arc::new(Mutex::new(target));
        let cut = watch::Sender::new(0);
        let task = tokio::spawn({
            let (target, cut) = (Arc::clone(&target), cut.clone());
            async move {
                while let Ok((mut from, _)) = listener.accept().await {
                    let target = *target.lock().unwrap();
                    let mut cut = cut.subscribe();
                    tokio::spawn(async move {
                        // Nothing behind it: the connection is closed, as a load balancer would.
                        let Ok(mut to) = TcpStream::connect(target).await else {
                            return;
                        };
                        let _ = (from.set_nodelay(true), to.set_nodelay(true));
                        cut.mark_unchanged();
                        tokio::select! {
                            _ = copy_bidirectional(&mut from, &mut to) => {}
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
            task,
        }
    }

    /// Where clients connect to.
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
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
