//! Typed clients of a gateway, and the small print of calls: deadlines, tokens, reasons.

use std::{net::SocketAddr, time::Duration};

use stategate_model::Token;
use stategate_protocol::{
    headers,
    pb::{
        self, entity_service_client::EntityServiceClient, event_service_client::EventServiceClient,
    },
};
use tonic::{
    Request, Status, Streaming,
    metadata::MetadataMap,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

/// Longest that a call may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// Larger than any answer.
const MESSAGE_BYTES: usize = 16 << 20;

/// Clients of the services of one gateway, wherever each lives.
#[derive(Debug, Clone)]
pub struct Clients {
    /// Set, Edit, Revert, Del, Transact.
    pub commands: EntityServiceClient<Channel>,
    /// Get and Search of entities.
    pub entities: EntityServiceClient<Channel>,
    /// Get and Search of events.
    pub events: EventServiceClient<Channel>,
    /// Stream.
    pub streams: EventServiceClient<Channel>,
}

impl Clients {
    /// Clients of services at these addresses; a connection for each is opened with its first call.
    pub fn new(command: SocketAddr, query: SocketAddr, stream: SocketAddr) -> Self {
        let channel = |address: SocketAddr| {
            let endpoint = Endpoint::from_shared(format!("http://{address}"));
            endpoint
                .expect("an address")
                .connect_timeout(DEADLINE)
                .tcp_nodelay(true)
                .connect_lazy()
        };
        let query = channel(query);
        Self {
            commands: EntityServiceClient::new(channel(command)),
            entities: EntityServiceClient::new(query.clone())
                .max_decoding_message_size(MESSAGE_BYTES),
            events: EventServiceClient::new(query).max_decoding_message_size(MESSAGE_BYTES),
            streams: EventServiceClient::new(channel(stream))
                .max_decoding_message_size(MESSAGE_BYTES),
        }
    }

    /// Subscribes; answers the start token beside the stream.
    pub async fn stream(
        &self,
        opts: pb::StreamOpts,
    ) -> Result<(Token, Streaming<pb::Event>), Status> {
        let answer = self.streams.clone().stream(opts).await?;
        let token = position(answer.metadata()).expect("a stream says where it starts");
        Ok((token, answer.into_inner()))
    }

    /// The head of every lane.
    pub async fn heads(&self) -> Token {
        let everything = everything(None);
        let (token, _) = self.stream(everything).await.expect("subscribe");
        token
    }
}

/// A subscription to everything.
pub fn everything(start: Option<pb::stream_opts::Start>) -> pb::StreamOpts {
    pb::StreamOpts {
        domain: "*".to_owned(),
        r#type: "*".to_owned(),
        start,
        ..pb::StreamOpts::default()
    }
}

/// A unary request with a deadline.
pub fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

/// The token an answer carries.
pub fn position(metadata: &MetadataMap) -> Option<Token> {
    metadata.get(headers::POSITION)?.to_str().ok()?.parse().ok()
}

/// The version an answer carries.
pub fn version(metadata: &MetadataMap) -> Option<u64> {
    let etag = metadata.get(headers::ETAG)?.to_str().ok()?;
    etag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

/// The reason stategate gives for an error; `None` for an error that is not stategate's, such as a
/// cut connection.
pub fn reason(status: &Status) -> Option<String> {
    let info = status.get_details_error_info()?;
    (info.domain == "stategate").then_some(info.reason)
}
