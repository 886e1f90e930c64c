//! The client itself: connections, deadlines, and what every call has in common.

use std::{
    fmt,
    future::Future,
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use stategate_model::{Invalid, Token, limits::MESSAGE_BYTES, times};
use stategate_protocol::{
    headers,
    pb::{
        self, entity_service_client::EntityServiceClient, event_service_client::EventServiceClient,
    },
};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{
    Request, Response, Status,
    metadata::MetadataMap,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri},
};

use crate::{
    BearerToken, Error, ErrorKind, Outcome, Retry, TokenFile, TokenSource,
    bearer::Tokens,
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
    tokens: Tokens,
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
    tokens: Result<Tokens, Invalid>,
    allows_token_in_clear: bool,
    tls: Tls,
    connections: usize,
    deadline: Duration,
    retry: Retry,
    reads_its_writes: bool,
}

impl Builder {
    /// The bearer token of every call.
    #[must_use]
    pub fn token(mut self, token: impl AsRef<str>) -> Self {
        self.tokens = BearerToken::new(token.as_ref()).map(Tokens::Fixed);
        self
    }

    /// The file with the bearer token, which is read now, and again when it changes: see [`TokenFile`].
    #[must_use]
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        let file = TokenFile::open(path);
        self.tokens = file.map(|file| Tokens::Source(Arc::new(file)));
        self
    }

    /// What gives the bearer token of each call.
    #[must_use]
    pub fn token_source(mut self, source: impl TokenSource + 'static) -> Self {
        self.tokens = Ok(Tokens::Source(Arc::new(source)));
        self
    }

    /// Sends tokens without TLS to other machines, too. Whoever sees the traffic on the way can act as
    /// the bearer of what they saw: for networks where something else encrypts it.
    #[must_use]
    pub fn allow_token_in_clear(mut self) -> Self {
        self.allows_token_in_clear = true;
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
        let tokens = self.tokens.clone()?;
        Ok(Client(Arc::new(Inner {
            command,
            query,
            stream,
            tokens,
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
            let has_token = !self.tokens.as_ref().is_ok_and(Tokens::is_none);
            if has_token && !self.allows_token_in_clear && is_in_clear(endpoint.uri()) {
                return Err(invalid("address", format!("{address} {IN_CLEAR}")));
            }
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

/// What is wrong with an address, if a token is to be sent there.
const IN_CLEAR: &str = "is without TLS on another machine, and whoever sees a token on the way can act as its bearer; \
     give an address that begins with https://";

/// Whether what is sent to an address such as `http://gateway.example:8080` can be read on the way: it is
/// another machine's, and without TLS. A [`Client`] sends no token there, unless told so by
/// [`Builder::allow_token_in_clear`].
pub fn sends_in_clear(address: &str) -> bool {
    address.parse().as_ref().is_ok_and(is_in_clear)
}

fn is_in_clear(address: &Uri) -> bool {
    if address.scheme_str() == Some("https") {
        return false;
    }
    let host = address.host().unwrap_or_default();
    let within = host.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
    match within.unwrap_or(host).parse::<IpAddr>() {
        Ok(ip) => !ip.to_canonical().is_loopback(),
        Err(_) => !host.eq_ignore_ascii_case("localhost"),
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
            tokens: Ok(Tokens::None),
            allows_token_in_clear: false,
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
        let heads = async {
            let bearer = self.bearer(until).await.ok()?;
            let opened = events.stream(request(everything, bearer.as_ref()));
            timeout_at(until, opened).await.ok()?.ok()
        };
        let heads = heads.await;
        match heads.and_then(|stream| token_of(stream.metadata())) {
            Some(heads) => known.answered(&view, &heads, Answer::Heads),
            // Not permitted, perhaps. Reads say what they say.
            None => known.trust(),
        }
    }

    pub(crate) fn streams(&self) -> EventServiceClient<Channel> {
        EventServiceClient::new(self.0.stream.next()).max_decoding_message_size(ANSWER_BYTES)
    }

    /// The token of the next try.
    pub(crate) async fn bearer(&self, until: Instant) -> Result<Option<BearerToken>, Error> {
        let Ok(given) = timeout_at(until, self.0.tokens.next()).await else {
            return Err(Error::no_token_in_time());
        };
        given.map_err(|problem| Error::no_token(&problem))
    }

    /// A call failed: if that is for its token and there is another one, that. Otherwise with what the
    /// call fails.
    pub(crate) async fn other_token(
        &self,
        error: Error,
        sent: Option<&BearerToken>,
        until: Instant,
    ) -> Result<BearerToken, Error> {
        let (ErrorKind::Unauthenticated, Some(sent)) = (error.kind(), sent) else {
            return Err(error);
        };
        match timeout_at(until, self.0.tokens.other_than(sent)).await {
            Ok(Ok(Some(other))) => Ok(other),
            Ok(Ok(None)) | Err(_) => Err(error),
            Ok(Err(problem)) => Err(error.without_other_token(&problem)),
        }
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
        // The token that took the place of one that was refused.
        let mut other: Option<BearerToken> = None;
        'tries: loop {
            let error = 'try_once: {
                let sent = match &other {
                    Some(token) => Some(token.clone()),
                    None => match self.bearer(until).await {
                        Ok(token) => token,
                        Err(error) => break 'try_once error,
                    },
                };
                let mut request = request(message.clone(), sent.as_ref());
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
                    Effect::Write => error,
                    Effect::Read => match self.refused(&view, error) {
                        Some(error) => error,
                        None => continue 'tries,
                    },
                };
                // Once for each call: a source that always has another one is not asked for ever.
                if other.is_some() {
                    break 'try_once error;
                }
                match self.other_token(error, sent.as_ref(), until).await {
                    Ok(token) => {
                        other = Some(token);
                        continue 'tries;
                    }
                    Err(error) => error,
                }
            };
            let error = match effect {
                Effect::Read => error,
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

/// A request with what every one has.
pub(crate) fn request<T>(message: T, bearer: Option<&BearerToken>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(bearer) = bearer {
        let metadata = request.metadata_mut();
        metadata.insert("authorization", bearer.header());
    }
    request
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_sent_in_clear_to_this_machine_alone() {
        for address in [
            "http://127.0.0.1:8080",
            "http://127.1.2.3:8080",
            "http://localhost:8080",
            "http://LOCALHOST",
            "http://[::1]:8080",
            "http://[::ffff:127.0.0.1]:8080",
            "https://gateway.example",
            "https://10.0.0.1:8080",
        ] {
            assert!(!sends_in_clear(address), "{address}");
            let client = Client::builder(address).token("abc").build();
            assert!(client.is_ok(), "{address}: {client:?}");
        }
        for address in [
            "http://gateway.example:8080",
            "http://10.0.0.1:8080",
            "http://0.0.0.0:8080",
            "http://128.0.0.1:8080",
            "http://localhost.example:8080",
            "http://127.0.0.1.example:8080",
            "http://[::]:8080",
            "http://[::ffff:10.0.0.1]:8080",
            "HTTP://gateway.example",
            "gateway.example:8080",
        ] {
            assert!(sends_in_clear(address), "{address}");
            let with_token = || Client::builder(address).token("abc");
            let refused = with_token().build().unwrap_err();
            assert!(refused.to_string().contains("without TLS"), "{refused}");
            assert!(with_token().open().await.is_err(), "{address}");
            assert!(with_token().allow_token_in_clear().build().is_ok());
            assert!(Client::connect(address).is_ok());
            // One of three is enough.
            let here = "http://127.0.0.1:1";
            let services = Client::builder(here)
                .token("abc")
                .services(here, here, address);
            assert!(services.build().is_err(), "{address}");
        }
    }

    #[tokio::test]
    async fn a_builder_says_what_is_wrong_with_its_token() {
        let here = "http://127.0.0.1:1";
        let refused = Client::builder(here).token("two secrets").build();
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("token: has white space"), "{refused}");
        assert!(!refused.contains("secrets"), "{refused}");
        let refused = Client::builder(here).token_file("/nowhere/at/all").build();
        let refused = refused.unwrap_err().to_string();
        assert!(
            refused.contains("/nowhere/at/all does not exist"),
            "{refused}"
        );
    }
}
