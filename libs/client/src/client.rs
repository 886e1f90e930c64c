//! The client itself: connections, deadlines, and what every call has in common.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use stategate_model::{Token, limits::MESSAGE_BYTES, times};
use stategate_protocol::{
    headers,
    pb::{
        self, entity_service_client::EntityServiceClient, event_service_client::EventServiceClient,
    },
};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataMap, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::{
    Error, ErrorKind, Outcome, Retry,
    error::Effect,
    known::{Answer, Change, Known, View},
    turns::Turns,
};

/// How often a connection without traffic is checked, so that a stream notices a gateway that is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long a read that is in doubt of the log waits to be told where it ends.
const DOUBT: Duration = Duration::from_secs(2);

/// Largest answer taken. A page may be as large as any message, and a gateway newer than this may allow
/// more.
const ANSWER_BYTES: usize = 4 * MESSAGE_BYTES;

/// A client of one gateway. Cheap to clone; clones share connections and see each other's writes.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    command: Connections,
    query: Connections,
    stream: Connections,
    authorization: Option<MetadataValue<Ascii>>,
    deadline: Duration,
    retry: Retry,
    /// What was seen of the log; `None` when reads are not to wait for it.
    known: Option<Known>,
    turns: Turns,
}

/// Connections to one address, taken in turn.
#[derive(Debug, Clone)]
struct Connections(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    address: String,
    channels: Vec<Channel>,
    next: AtomicUsize,
}

impl Connections {
    fn next(&self) -> Channel {
        let Pool { channels, next, .. } = &*self.0;
        let turn = next.fetch_add(1, Ordering::Relaxed) % channels.len();
        channels[turn].clone()
    }

    fn address(&self) -> &str {
        &self.0.address
    }
}

/// Whom to trust at an `https` address, and who this client is.
#[derive(Clone, Default)]
pub struct Tls {
    authority: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
    name: Option<String>,
}

impl Tls {
    /// The authorities that this machine trusts, and no certificate of the client's own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the certificates of an authority (PEM), and no others.
    #[must_use]
    pub fn authority(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.authority = Some(pem.into());
        self
    }

    /// Shows a certificate (PEM), with its private key (PEM), to a gateway that asks for one.
    #[must_use]
    pub fn identity(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// Expects this name in the gateway's certificate, instead of the host of its address.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    fn config(&self) -> ClientTlsConfig {
        let mut config = match &self.authority {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
            None => ClientTlsConfig::new().with_enabled_roots(),
        };
        if let Some((certificate, key)) = &self.identity {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        match &self.name {
            Some(name) => config.domain_name(name),
            None => config,
        }
    }
}

/// Without the key.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("authority", &self.authority.is_some())
            .field("identity", &self.identity.is_some())
            .field("name", &self.name)
            .finish()
    }
}

/// How a client is made.
#[derive(Clone)]
pub struct Builder {
    address: String,
    services: Option<[String; 3]>,
    token: Option<String>,
    tls: Tls,
    connections: usize,
    deadline: Duration,
    retry: Retry,
    reads_its_writes: bool,
}

impl Builder {
    /// The bearer token of every call.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Whom to trust at `https` addresses: the authorities that this machine trusts unless set.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// The addresses of the command, the query and the stream service, where nothing in front of them
    /// routes by method.
    #[must_use]
    pub fn services(
        mut self,
        command: impl Into<String>,
        query: impl Into<String>,
        stream: impl Into<String>,
    ) -> Self {
        self.services = Some([command.into(), query.into(), stream.into()]);
        self
    }

    /// How many connections calls are spread over: 1 unless set.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// How long a call may take, retries included: 20 seconds unless set. Streams have no end.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How calls are tried again.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Whether reads wait for what this client wrote or read before (`stategate-min-position`): they
    /// do unless this is called.
    #[must_use]
    pub fn without_read_your_writes(mut self) -> Self {
        self.reads_its_writes = false;
        self
    }

    /// The client. Connections are made with the first call.
    pub fn build(self) -> Result<Client, Error> {
        let connect = |address: &str| self.connect(address);
        let connections = match &self.services {
            Some([command, query, stream]) => {
                [connect(command)?, connect(query)?, connect(stream)?]
            }
            None => {
                let all = connect(&self.address)?;
                [all.clone(), all.clone(), all]
            }
        };
        self.client(connections)
    }

    /// The client, with a connection to its address: a gateway that is not there is known at once.
    pub async fn open(self) -> Result<Client, Error> {
        let endpoint = self.endpoint(&self.address)?;
        let first = endpoint
            .connect()
            .await
            .map_err(|error| Error::unreachable(&self.address, &error))?;
        if self.services.is_some() {
            return self.build();
        }
        let more = (1..self.connections).map(|_| endpoint.connect_lazy());
        let all = self.pool(&self.address, std::iter::once(first).chain(more).collect());
        self.client([all.clone(), all.clone(), all])
    }

    fn client(self, [command, query, stream]: [Connections; 3]) -> Result<Client, Error> {
        let authorization = match &self.token {
            Some(token) => {
                let mut value: MetadataValue<Ascii> =
                    format!("Bearer {token}").parse().map_err(|_| {
                        invalid("token", "has characters that no header can hold".to_owned())
                    })?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        Ok(Client(Arc::new(Inner {
            command,
            query,
            stream,
            authorization,
            deadline: self.deadline,
            retry: self.retry,
            known: self.reads_its_writes.then(Known::default),
            turns: Turns::default(),
        })))
    }

    fn connect(&self, address: &str) -> Result<Connections, Error> {
        let endpoint = self.endpoint(address)?;
        let channels = (0..self.connections)
            .map(|_| endpoint.connect_lazy())
            .collect();
        Ok(self.pool(address, channels))
    }

    fn pool(&self, address: &str, channels: Vec<Channel>) -> Connections {
        Connections(Arc::new(Pool {
            address: address.to_owned(),
            channels,
            next: AtomicUsize::new(0),
        }))
    }

    fn endpoint(&self, address: &str) -> Result<Endpoint, Error> {
        let endpoint = Endpoint::from_shared(address.to_owned())
            .map_err(|error| invalid("address", format!("{address} is not one: {error}")))?
            .connect_timeout(self.deadline)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .tcp_nodelay(true);
        if endpoint.uri().scheme_str() != Some("https") {
            return Ok(endpoint);
        }
        endpoint.tls_config(self.tls.config()).map_err(|error| {
            let cause = std::error::Error::source(&error);
            let cause = cause.map_or_else(|| error.to_string(), ToString::to_string);
            invalid(
                "tls",
                format!("a certificate or key cannot be used: {cause}"),
            )
        })
    }
}

/// Without the token.
impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("address", &self.address)
            .field("services", &self.services)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

fn invalid(field: &str, problem: String) -> Error {
    let message = format!("{field}: {problem}");
    Error::new(
        ErrorKind::Invalid(vec![(field.to_owned(), problem)]),
        message,
    )
}

impl Client {
    /// A client of the gateway at an address such as `http://127.0.0.1:8080`, with everything as it is
    /// by default. Needs a tokio runtime; connects with the first call.
    pub fn connect(address: impl Into<String>) -> Result<Self, Error> {
        Self::builder(address).build()
    }

    /// Sets up a client.
    pub fn builder(address: impl Into<String>) -> Builder {
        Builder {
            address: address.into(),
            services: None,
            token: None,
            tls: Tls::new(),
            connections: 1,
            deadline: times::CALL,
            retry: Retry::default(),
            reads_its_writes: true,
        }
    }

    /// The newest place in the log that this client wrote or read: hand it to another client's
    /// [`Client::observe`], and that one's reads are at least as new.
    pub fn position(&self) -> Option<Token> {
        self.0.known.as_ref().and_then(Known::place)
    }

    /// Has reads of this client wait for a place in the log. If that is not the log behind the address,
    /// the next read says so ([`ErrorKind::LogChanged`]).
    pub fn observe(&self, token: &Token) {
        if let Some(known) = &self.0.known {
            known.observe(token);
        }
    }

    /// Fails once if a write found out that the log was replaced, or went back: with what the next read
    /// would say. For whoever writes much and reads nothing.
    pub fn check_log(&self) -> Result<(), Error> {
        let Some(known) = &self.0.known else {
            return Ok(());
        };
        let asked = known.ask();
        asked
            .map(drop)
            .map_err(|change| Error::changed(change, self.0.command.address()))
    }

    pub(crate) fn turns(&self) -> &Turns {
        &self.0.turns
    }

    pub(crate) fn retry(&self) -> Retry {
        self.0.retry
    }

    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.0.deadline
    }

    pub(crate) fn writes(&self) -> EntityServiceClient<Channel> {
        EntityServiceClient::new(self.0.command.next()).max_decoding_message_size(ANSWER_BYTES)
    }

    pub(crate) fn entities(&self) -> EntityServiceClient<Channel> {
        EntityServiceClient::new(self.0.query.next()).max_decoding_message_size(ANSWER_BYTES)
    }

    pub(crate) fn events(&self) -> EventServiceClient<Channel> {
        EventServiceClient::new(self.0.query.next()).max_decoding_message_size(ANSWER_BYTES)
    }

    /// What went wrong with a stream.
    pub(crate) fn stream_error(&self, status: Status) -> Error {
        Error::of(status, Effect::Read, self.0.stream.address())
    }

    /// The owner of a stream is told that the log of this token is gone, or went back.
    pub(crate) fn told_of(&self, token: &Token) {
        if let Some(known) = &self.0.known {
            known.told_of(token);
        }
    }

    /// What was read from one log was written to another. Whoever is told of it is told at once.
    pub(crate) fn crossed(&self, written: &Token) -> Error {
        if let Some(known) = &self.0.known {
            known.said(written);
        }
        Error::changed(Change::Replaced, self.0.command.address()).though_written()
    }

    /// What a subscription goes by when it begins.
    pub(crate) async fn ask_for_stream(&self, until: Instant) -> Result<View, Error> {
        self.ask(self.0.stream.address(), until).await
    }

    /// A read failed: with what it says, or `None` when it is to be made again, since another call found
    /// out the same and says it.
    pub(crate) fn refused(&self, view: &View, error: Error) -> Option<Error> {
        let (Some(known), Some(_)) = (&self.0.known, &view.place) else {
            return Some(error);
        };
        if *error.kind() == ErrorKind::DeadlineExceeded {
            known.doubt(view);
        }
        if !error.is_log_lost() {
            return Some(error);
        }
        known
            .refused(view)
            .then(|| error.of_remembered(self.0.query.address()))
    }

    /// What a read goes by; or what it has to say, if the log was replaced.
    async fn ask(&self, address: &str, until: Instant) -> Result<View, Error> {
        let Some(known) = &self.0.known else {
            return Ok(View::default());
        };
        if known.is_doubted() {
            self.find_heads(known, until).await;
        }
        known
            .ask()
            .map_err(|change| Error::changed(change, address))
    }

    /// Finds out where the log ends, which the headers of a stream say. A gateway waits for a place that
    /// is not there yet; for one that was lost it would be for ever.
    async fn find_heads(&self, known: &Known, until: Instant) {
        let view = known.view();
        let everything = pb::StreamOpts {
            domain: "*".to_owned(),
            r#type: "*".to_owned(),
            ..Default::default()
        };
        let mut events = self.streams();
        let until = until.min(Instant::now() + DOUBT);
        let opened = timeout_at(until, events.stream(self.request(everything))).await;
        let heads = opened.ok().and_then(Result::ok);
        match heads.and_then(|stream| token_of(stream.metadata())) {
            Some(heads) => known.answered(&view, &heads, Answer::Heads),
            // Not permitted, perhaps. Reads say what they say.
            None => known.trust(),
        }
    }

    pub(crate) fn streams(&self) -> EventServiceClient<Channel> {
        EventServiceClient::new(self.0.stream.next()).max_decoding_message_size(ANSWER_BYTES)
    }

    /// A request with what every one has.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(authorization) = &self.0.authorization {
            request
                .metadata_mut()
                .insert("authorization", authorization.clone());
        }
        request
    }

    /// Makes a read until it is answered, it fails for good, or the time is up.
    pub(crate) async fn read<T, R, F>(
        &self,
        message: T,
        call: impl Fn(Request<T>) -> F,
    ) -> Result<Response<R>, Error>
    where
        T: Clone,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        self.attempt(message, Effect::Read, |_| {}, call, self.deadline())
            .await
    }

    /// Makes a call until it is answered, it fails for good, or the time is up; takes note of the
    /// place in the log that the answer names.
    pub(crate) async fn attempt<T, R, F>(
        &self,
        message: T,
        effect: Effect,
        prepare: impl Fn(&mut MetadataMap),
        call: impl Fn(Request<T>) -> F,
        until: Instant,
    ) -> Result<Response<R>, Error>
    where
        T: Clone,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let mut waits = self.0.retry.waits();
        // What became of the tries so far.
        let mut before = Outcome::NotWritten;
        loop {
            let mut request = self.request(message.clone());
            let (view, address) = match effect {
                Effect::Read => {
                    let address = self.0.query.address();
                    let view = self.ask(address, until).await?;
                    at_least(view.place.as_ref(), request.metadata_mut());
                    (view, address)
                }
                Effect::Write => (self.view(), self.0.command.address()),
            };
            request.set_timeout(until.saturating_duration_since(Instant::now()));
            prepare(request.metadata_mut());
            let error = match timeout_at(until, call(request)).await {
                Ok(Ok(response)) => {
                    self.answered(&view, effect, response.metadata());
                    return Ok(response);
                }
                Ok(Err(status)) => Error::of(status, effect, address),
                Err(_) => Error::out_of_time(effect),
            };
            let error = match effect {
                Effect::Read => match self.refused(&view, error) {
                    Some(error) => error,
                    None => continue,
                },
                Effect::Write => error.after(before),
            };
            before = error.outcome();
            if !error.passes() {
                return Err(error);
            }
            match waits.next(error.retry_delay()) {
                Some(wait) if Instant::now() + wait < until => sleep(wait).await,
                _ => return Err(error),
            }
        }
    }

    /// What is known when a write begins, which does not ask for any of it.
    fn view(&self) -> View {
        self.0.known.as_ref().map(Known::view).unwrap_or_default()
    }

    fn answered(&self, view: &View, effect: Effect, metadata: &MetadataMap) {
        let answer = match effect {
            Effect::Write if metadata.get(headers::REPLAYED).is_none() => Answer::Appended,
            Effect::Write | Effect::Read => Answer::Seen,
        };
        if let (Some(known), Some(token)) = (&self.0.known, token_of(metadata)) {
            known.answered(view, &token, answer);
        }
    }
}

/// Has the answer wait for a place in the log.
pub(crate) fn at_least(position: Option<&Token>, metadata: &mut MetadataMap) {
    // Tokens are ASCII.
    if let Some(min) = position.and_then(|token| token.to_string().parse().ok()) {
        metadata.insert(headers::MIN_POSITION, min);
    }
}

/// The place in the log that an answer names.
pub(crate) fn token_of(metadata: &MetadataMap) -> Option<Token> {
    metadata.get(headers::POSITION)?.to_str().ok()?.parse().ok()
}
