//! Connections to one server, or to several that do the same.

use std::net::SocketAddr;

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use crate::protection;

/// Connections that callers share, for each server.
const SHARED_CONNECTIONS: usize = 4;
/// HTTP/2 flow-control windows. They are large, so that none of them limits a measurement.
const CONNECTION_WINDOW: u32 = 16 << 20;
const STREAM_WINDOW: u32 = 1 << 20;

/// A connection on which every call carries a token, if the gateway asks for one.
pub(crate) type Connection = InterceptedService<Channel, Bearer>;

/// Puts a token on every call.
#[derive(Clone)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// Open connections, assigned in turn.
#[derive(Clone)]
pub(crate) struct Connections(Vec<Connection>);

impl Connections {
    /// Opens the connections that callers share, to each of these servers.
    pub(crate) async fn open(addresses: &[SocketAddr]) -> anyhow::Result<Self> {
        Self::open_many(addresses, SHARED_CONNECTIONS).await
    }

    /// Opens `count` connections to each of these servers.
    pub(crate) async fn open_many(addresses: &[SocketAddr], count: usize) -> anyhow::Result<Self> {
        let mut channels = Vec::new();
        let addresses = addresses.iter().cycle().take(addresses.len() * count);
        for (n, address) in addresses.enumerate() {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))?
                .initial_connection_window_size(CONNECTION_WINDOW)
                .initial_stream_window_size(STREAM_WINDOW)
                .tcp_nodelay(true);
            let bearer = Bearer(protection::authorization(n));
            channels.push(InterceptedService::new(endpoint.connect().await?, bearer));
        }
        Ok(Self(channels))
    }

    /// The connection of the n-th user.
    pub(crate) fn get(&self, n: usize) -> Connection {
        self.0[n % self.0.len()].clone()
    }
}
