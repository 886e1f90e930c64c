//! The way to a gateway: options every command has, connections, and calls with a deadline.

use std::{future::Future, time::Duration};

use stategate_model::limits::MESSAGE_BYTES;
use stategate_protocol::pb::{
    entity_service_client::EntityServiceClient, event_service_client::EventServiceClient,
};
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint},
};

use super::{
    address::Address,
    failure::{Failure, Kind},
    when,
};

/// How often a connection without traffic is checked, so that a watch notices a gateway that is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Keeps these apart from a command's own options.
const HEADING: &str = "Options of every command";

/// Options of every command.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The gateway's address: http://host:port, or host:port
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        env = "STATEGATE_ADDR",
        default_value = "http://127.0.0.1:8080"
    )]
    pub(crate) addr: Address,
    /// Print JSON lines, on a terminal too
    #[arg(long, global = true, help_heading = HEADING)]
    pub(crate) json: bool,
    /// How long a call may take: 10s, 500ms, 2m
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        value_name = "TIME",
        default_value = "10s",
        value_parser = when::length
    )]
    pub(crate) timeout: Duration,
}

/// A gateway that was there when the command began.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    address: Address,
    timeout: Duration,
    channel: Channel,
}

impl Gateway {
    /// Connects, so that a gateway which is not there is known before anything else is done.
    pub(crate) async fn connect(options: &Options) -> Result<Self, Failure> {
        let endpoint = endpoint(&options.addr, options.timeout)?;
        let channel = endpoint
            .connect()
            .await
            .map_err(|error| Failure::unreachable(&options.addr, &error))?;
        Ok(Self {
            address: options.addr.clone(),
            timeout: options.timeout,
            channel,
        })
    }

    /// The same gateway over another connection, opened with its first call.
    pub(crate) fn another_connection(&self) -> Result<Self, Failure> {
        Ok(Self {
            channel: endpoint(&self.address, self.timeout)?.connect_lazy(),
            ..self.clone()
        })
    }

    /// Its address.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// How long a call may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Calls about entities.
    pub(crate) fn entities(&self) -> EntityServiceClient<Channel> {
        // A page may be as large as any message, and a gateway newer than this may allow more.
        EntityServiceClient::new(self.channel.clone()).max_decoding_message_size(4 * MESSAGE_BYTES)
    }

    /// Calls about events.
    pub(crate) fn events(&self) -> EventServiceClient<Channel> {
        EventServiceClient::new(self.channel.clone()).max_decoding_message_size(4 * MESSAGE_BYTES)
    }

    /// A request that the gateway stops working on when nobody waits for it any longer.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request
    }

    /// Waits for an answer, at most as long as a call may take.
    pub(crate) async fn answer<T>(
        &self,
        kind: Kind,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<Response<T>, Failure> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(answer) => answer.map_err(|status| Failure::of_status(&status, kind, &self.address)),
            Err(_) => Err(Failure::no_answer(kind, self.timeout)),
        }
    }
}

fn endpoint(address: &Address, timeout: Duration) -> Result<Endpoint, Failure> {
    let endpoint = Endpoint::from_shared(address.url().to_owned())
        .map_err(|error| Failure::usage(format!("--addr {address}: {error}")))?;
    Ok(endpoint
        .connect_timeout(timeout)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .tcp_nodelay(true))
}
