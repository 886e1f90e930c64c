//! Connections to one server, or to several that do the same.

use std::net::SocketAddr;

use tonic::transport::{Channel, Endpoint};

/// Connections that callers share, for each server.
const SHARED_CONNECTIONS: usize = 4;
/// HTTP/2 flow-control windows. They are large, so that none of them limits a measurement.
const CONNECTION_WINDOW: u32 = 16 << 20;
const STREAM_WINDOW: u32 = 1 << 20;

/// Open connections, assigned in turn.
#[derive(Clone)]
pub(crate) struct Connections(Vec<Channel>);

impl Connections {
    /// Opens the connections that callers share, to each of these servers.
    pub(crate) async fn open(addresses: &[SocketAddr]) -> anyhow::Result<Self> {
        Self::open_many(addresses, SHARED_CONNECTIONS).await
    }

    /// Opens `count` connections to each of these servers.
    pub(crate) async fn open_many(addresses: &[SocketAddr], count: usize) -> anyhow::Result<Self> {
        let mut channels = Vec::new();
        for address in addresses.iter().cycle().take(addresses.len() * count) {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))?
                .initial_connection_window_size(CONNECTION_WINDOW)
                .initial_stream_window_size(STREAM_WINDOW)
                .tcp_nodelay(true);
            channels.push(endpoint.connect().await?);
        }
        Ok(Self(channels))
    }

    /// The connection of the n-th user.
    pub(crate) fn get(&self, n: usize) -> Channel {
        self.0[n % self.0.len()].clone()
    }
}
