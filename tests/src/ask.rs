//! Calls as a client behind an ingress makes them: to one address, whatever process serves them.
//!
//! [`Ask`] is for tests of what a call answers: short, with metadata where a test wants some, and raw
//! where the bytes count.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use stategate_model::{Object, Token, Value, json};
use stategate_protocol::{
    Struct,
    pb::{
        self, entity_service_client::EntityServiceClient, event_service_client::EventServiceClient,
    },
};
use tokio::time::timeout;
use tonic::{
    Code, Request, Response, Status, Streaming,
    body::Body,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::Service,
    metadata::{AsciiMetadataKey, AsciiMetadataValue},
    transport::{Channel, Endpoint, Error},
};
use tonic_types::{ErrorInfo, StatusExt as _};

use crate::{Gateway, PATIENCE, Role, clients};

/// Longest that a call may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// Sends each call to the process that serves its method, as an ingress is told to.
#[derive(Debug, Clone)]
pub struct Ingress {
    command: Channel,
    query: Channel,
    stream: Channel,
}

impl Ingress {
    /// In front of the processes of a gateway.
    pub fn new(gateway: &mut Gateway) -> Self {
        let mut channel = |role| {
            let address: SocketAddr = gateway.process(role).grpc();
            let endpoint = Endpoint::from_shared(format!("http://{address}"));
            let endpoint = endpoint.expect("an address").connect_timeout(DEADLINE);
            endpoint.tcp_nodelay(true).connect_lazy()
        };
        Self {
            command: channel(Role::Command),
            query: channel(Role::Query),
            stream: channel(Role::Stream),
        }
    }

    /// Straight to the process of one role, whatever is asked.
    pub fn only(gateway: &mut Gateway, role: Role) -> Self {
        let all = Self::new(gateway);
        let one = match role {
            Role::Everything | Role::Command => all.command,
            Role::Query => all.query,
            Role::Stream => all.stream,
        };
        Self {
            command: one.clone(),
            query: one.clone(),
            stream: one,
        }
    }

    fn channel(&self, path: &str) -> &Channel {
        match path {
            "/stategate.EventService/Stream" => &self.stream,
            "/stategate.EntityService/Get"
            | "/stategate.EntityService/Search"
            | "/stategate.EventService/Get"
            | "/stategate.EventService/Search" => &self.query,
            _ => &self.command,
        }
    }
}

impl Service<http::Request<Body>> for Ingress {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // Which process must be ready is known once there is a call.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut channel = self.channel(request.uri().path()).clone();
        Box::pin(async move {
            poll_fn(|cx| channel.poll_ready(cx)).await?;
            channel.call(request).await
        })
    }
}

/// Passes bytes for messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// A client that says in one line what it wants. Entities are named as `domain/type/key`, where the
/// key is all that follows the second slash; values are JSON.
#[derive(Debug, Clone)]
pub struct Ask {
    ingress: Ingress,
    metadata: Vec<(AsciiMetadataKey, AsciiMetadataValue)>,
    deadline: Option<Duration>,
}

impl Ask {
    /// A client of a gateway, over connections of its own.
    pub fn new(gateway: &mut Gateway) -> Self {
        Self::through(Ingress::new(gateway))
    }

    /// A client of one process.
    pub fn to(address: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let endpoint = endpoint.expect("an address").connect_timeout(DEADLINE);
        let one = endpoint.tcp_nodelay(true).connect_lazy();
        Self::through(Ingress {
            command: one.clone(),
            query: one.clone(),
            stream: one,
        })
    }

    /// A client behind this ingress.
    pub fn through(ingress: Ingress) -> Self {
        Self {
            ingress,
            metadata: Vec::new(),
            deadline: Some(DEADLINE),
        }
    }

    /// The same client, sending this metadata too.
    #[must_use]
    pub fn with(&self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let mut with = self.clone();
        let name = name.parse().expect("a name of metadata");
        let value = AsciiMetadataValue::try_from(value.as_ref()).expect("a value of metadata");
        with.metadata.push((name, value));
        with
    }

    /// The same client with a token.
    #[must_use]
    pub fn bearing(&self, token: &str) -> Self {
        self.with("authorization", format!("Bearer {token}"))
    }

    /// The same client, leaving it to the gateway how long a call may take.
    #[must_use]
    pub fn without_deadline(&self) -> Self {
        Self {
            deadline: None,
            ..self.clone()
        }
    }

    /// What stands between this client and the processes.
    pub fn ingress(&self) -> Ingress {
        self.ingress.clone()
    }

    /// A client of the entity service.
    pub fn entities(&self) -> EntityServiceClient<Ingress> {
        EntityServiceClient::new(self.ingress.clone())
    }

    /// A client of the event service.
    pub fn events(&self) -> EventServiceClient<Ingress> {
        EventServiceClient::new(self.ingress.clone())
    }

    /// A request with what this client sends along.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(deadline) = self.deadline {
            request.set_timeout(deadline);
        }
        for (name, value) in &self.metadata {
            request.metadata_mut().append(name, value.clone());
        }
        request
    }

    /// Set.
    pub async fn set(&self, name: &str, values: &str) -> Result<Response<()>, Status> {
        let request = self.request(entity(name, values));
        self.entities().set(request).await
    }

    /// Edit.
    pub async fn edit(&self, name: &str, values: &str) -> Result<Response<pb::Entity>, Status> {
        let request = self.request(entity(name, values));
        self.entities().edit(request).await
    }

    /// Revert.
    pub async fn revert(&self, name: &str, id: &str) -> Result<Response<pb::Entity>, Status> {
        let request = self.request(event_ref(name, id));
        self.entities().revert(request).await
    }

    /// Del.
    pub async fn del(&self, name: &str) -> Result<Response<()>, Status> {
        let request = self.request(entity_ref(name));
        self.entities().del(request).await
    }

    /// Transact.
    pub async fn transact(
        &self,
        domain: &str,
        operations: Vec<pb::Operation>,
    ) -> Result<Response<pb::TransactResponse>, Status> {
        let request = self.request(pb::TransactRequest {
            domain: domain.to_owned(),
            operations,
        });
        self.entities().transact(request).await
    }

    /// Get, of the present.
    pub async fn get(&self, name: &str) -> Result<Response<pb::Entity>, Status> {
        let request = self.request(entity_ref(name));
        self.entities().get(request).await
    }

    /// Get, of the past.
    pub async fn get_at(
        &self,
        name: &str,
        at: pb::entity_ref::At,
    ) -> Result<Response<pb::Entity>, Status> {
        let request = self.request(pb::EntityRef {
            at: Some(at),
            ..entity_ref(name)
        });
        self.entities().get(request).await
    }

    /// Search of entities.
    pub async fn search(
        &self,
        opts: pb::SearchEntityOpts,
    ) -> Result<Response<pb::Entities>, Status> {
        self.entities().search(self.request(opts)).await
    }

    /// Get of an event.
    pub async fn event(&self, name: &str, id: &str) -> Result<Response<pb::Event>, Status> {
        let request = self.request(event_ref(name, id));
        self.events().get(request).await
    }

    /// Search of events.
    pub async fn history(&self, opts: pb::SearchEventOpts) -> Result<Response<pb::Events>, Status> {
        self.events().search(self.request(opts)).await
    }

    /// Every event of one entity, oldest first.
    pub async fn history_of(&self, name: &str) -> Vec<pb::Event> {
        let pb::EntityRef {
            domain,
            r#type,
            key,
            ..
        } = entity_ref(name);
        let opts = pb::SearchEventOpts {
            domain,
            r#type,
            query_string: serde_json::json!({"entity.key": {"$eq": key}}).to_string(),
            limit: 10_000,
            ..pb::SearchEventOpts::default()
        };
        let found = self.history(opts).await.expect("search").into_inner();
        assert!(found.next_page_token.is_empty(), "more than one page");
        found.events
    }

    /// Stream, without a deadline.
    pub async fn stream(&self, opts: pb::StreamOpts) -> Result<Subscription, Status> {
        let request = self.without_deadline().request(opts);
        let answer = self.events().stream(request).await?;
        let token = clients::position(answer.metadata()).expect("a stream says where it starts");
        Ok(Subscription {
            start: token,
            stream: answer.into_inner(),
        })
    }

    /// A unary call with bytes for a message.
    pub async fn raw(&self, path: &str, message: &[u8]) -> Result<Response<Bytes>, Status> {
        let mut grpc = Grpc::new(self.ingress.clone());
        let path: PathAndQuery = path.parse().expect("a path");
        let request = self.request(Bytes::copy_from_slice(message));
        grpc.unary(request, path, Raw).await
    }

    /// A call with bytes for a message and a stream of bytes for an answer.
    pub async fn raw_stream(
        &self,
        path: &str,
        message: &[u8],
    ) -> Result<Response<Streaming<Bytes>>, Status> {
        let mut grpc = Grpc::new(self.ingress.clone());
        let path: PathAndQuery = path.parse().expect("a path");
        let request = self.request(Bytes::copy_from_slice(message));
        grpc.server_streaming(request, path, Raw).await
    }
}

/// A subscription that does not wait for ever.
#[derive(Debug)]
pub struct Subscription {
    /// Where it starts.
    pub start: Token,
    stream: Streaming<pb::Event>,
}

impl Subscription {
    /// The next event.
    pub async fn next(&mut self) -> pb::Event {
        match self.message().await {
            Ok(event) => event,
            Err(status) => panic!("the stream ended: {status:?}"),
        }
    }

    /// The next events.
    pub async fn take(&mut self, count: usize) -> Vec<pb::Event> {
        let mut events = Vec::with_capacity(count);
        while events.len() < count {
            events.push(self.next().await);
        }
        events
    }

    /// The next event, or the status that the stream ended with.
    pub async fn message(&mut self) -> Result<pb::Event, Status> {
        let next = timeout(PATIENCE, self.stream.message());
        let next = next.await.expect("a stream goes on")?;
        next.ok_or_else(|| Status::ok("the stream ended"))
    }
}

/// The parts of `domain/type/key`.
fn names(name: &str) -> (String, String, String) {
    let mut parts = name.splitn(3, '/').map(str::to_owned);
    let mut part = || parts.next().expect("domain/type/key");
    (part(), part(), part())
}

/// An entity with values in JSON.
pub fn entity(name: &str, values: &str) -> pb::Entity {
    let (domain, r#type, key) = names(name);
    pb::Entity {
        domain,
        r#type,
        key,
        values: Some(Struct::from_object(&object(values))),
        version: 0,
    }
}

/// An object, from JSON.
pub fn object(values: &str) -> Object {
    json::parse_object(values).expect("a JSON object")
}

/// The name of an entity.
pub fn entity_ref(name: &str) -> pb::EntityRef {
    let (domain, r#type, key) = names(name);
    pb::EntityRef {
        domain,
        r#type,
        key,
        at: None,
    }
}

/// The name of an event.
pub fn event_ref(name: &str, id: &str) -> pb::EventRef {
    let (domain, r#type, key) = names(name);
    pb::EventRef {
        domain,
        r#type,
        key,
        id: id.to_owned(),
    }
}

/// The values of an entity as canonical JSON; `none` when there are none, which is not `{}`.
pub fn values(entity: &pb::Entity) -> String {
    entity.values.clone().map_or_else(
        || "none".to_owned(),
        |values| json::canonical_value(&Value::Object(values.into_object())),
    )
}

/// The values of an event's entity as canonical JSON.
pub fn values_of(event: &pb::Event) -> String {
    values(event.entity.as_ref().expect("an event has its entity"))
}

/// Fails unless a call was refused with this code and reason. Answers the rest of the `ErrorInfo`.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(
    answer: Result<T, Status>,
    code: Code,
    reason: &str,
) -> (Status, ErrorInfo) {
    let status = answer.expect_err("is refused");
    let info = status.get_details_error_info();
    let info = info.unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(
        (status.code(), info.reason.as_str(), info.domain.as_str()),
        (code, reason, "stategate"),
        "{status:?}"
    );
    (status, info)
}

/// Fails unless a call was refused for this field, which both the details and the message name.
#[track_caller]
pub fn invalid<T: std::fmt::Debug>(answer: Result<T, Status>, field: &str) -> Status {
    invalid_for(answer, "INVALID_ARGUMENT", field)
}

/// As [`invalid`], for a reason of its own.
#[track_caller]
pub fn invalid_for<T: std::fmt::Debug>(
    answer: Result<T, Status>,
    reason: &str,
    field: &str,
) -> Status {
    let (status, _) = refused(answer, Code::InvalidArgument, reason);
    let named = status.get_details_bad_request().map(|bad| {
        let violations = bad.field_violations.into_iter();
        violations.map(|v| v.field).collect::<Vec<_>>()
    });
    assert_eq!(named, Some(vec![field.to_owned()]), "{status:?}");
    assert!(status.message().contains(field), "{status:?}");
    status
}

/// The token of an answer.
#[track_caller]
pub fn token<T>(answer: &Response<T>) -> Token {
    clients::position(answer.metadata()).expect("an answer says where it stands")
}

/// The version in an answer's `etag`.
pub fn etag<T>(answer: &Response<T>) -> Option<u64> {
    clients::version(answer.metadata())
}
