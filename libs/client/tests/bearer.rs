//! Tokens that change while calls and streams go on, against a gateway that does as a test tells it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails, with a message"
)]

use std::{
    collections::{HashMap, VecDeque},
    fs,
    future::pending,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use stategate_client::{
    BearerToken, Builder, Client, EntityRef, ErrorKind, Outcome, Start, Step, Subscription,
    TokenError, TokenSource, async_trait, json,
};
use stategate_protocol::{
    Encoded, EventPage, Transacted, headers, pb,
    server::{
        entity_service_server::{EntityService, EntityServiceServer},
        event_service_server::{EventService, EventServiceServer},
    },
};
use tempfile::TempDir;
use tokio::{net::TcpListener, time::timeout};
use tokio_stream::{Stream, StreamExt as _, wrappers::TcpListenerStream};
use tonic::{Code, Request, Response, Status, metadata::MetadataMap, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _};

const LOG: &str = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";
const PATIENCE: Duration = Duration::from_secs(60);

/// What the gateway does, and what it was asked.
#[derive(Default)]
struct Script {
    /// The one token that is accepted.
    accepted: String,
    /// The tokens of all calls, refused ones too.
    sent: Vec<String>,
    /// How many Sets were carried out.
    written: usize,
    /// What Sets are answered with that are accepted, before they succeed.
    answers: VecDeque<Status>,
    /// What each subscription gets, and how it ends.
    streams: VecDeque<Played>,
    /// Where each began.
    starts: Vec<Option<pb::stream_opts::Start>>,
}

/// A stream: its events, the token that is accepted once they are sent, and its end.
struct Played {
    positions: Vec<i64>,
    then_accepted: Option<&'static str>,
    end: Status,
}

fn played(positions: &[i64], then_accepted: Option<&'static str>, end: Status) -> Played {
    Played {
        positions: positions.to_vec(),
        then_accepted,
        end,
    }
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Script>>);

impl Fake {
    async fn start(accepted: &str) -> (Self, String) {
        let fake = Self::default();
        fake.accept(accepted);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = Server::builder()
            .add_service(EntityServiceServer::new(fake.clone()))
            .add_service(EventServiceServer::new(fake.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(served);
        (fake, format!("http://{address}"))
    }

    fn accept(&self, token: &str) {
        self.0.lock().unwrap().accepted = token.to_owned();
    }

    fn play(&self, streams: impl IntoIterator<Item = Played>) {
        self.0.lock().unwrap().streams = streams.into_iter().collect();
    }

    fn sent(&self) -> Vec<String> {
        self.0.lock().unwrap().sent.clone()
    }

    fn written(&self) -> usize {
        self.0.lock().unwrap().written
    }

    fn check(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let mut script = self.0.lock().unwrap();
        let token = metadata
            .get("authorization")
            .map_or("", |value| value.to_str().unwrap())
            .trim_start_matches("Bearer ")
            .to_owned();
        let is_accepted = token == script.accepted;
        script.sent.push(token);
        match is_accepted {
            true => Ok(()),
            false => Err(expired()),
        }
    }
}

fn expired() -> Status {
    Status::unauthenticated("the token has expired")
}

fn placed<T>(message: T, position: usize) -> Response<T> {
    let mut response = Response::new(message);
    let token = format!("{LOG}/0:{position}").parse().unwrap();
    response.metadata_mut().insert(headers::POSITION, token);
    let tag = "\"1\"".parse().unwrap();
    response.metadata_mut().insert(headers::ETAG, tag);
    response
}

#[tonic::async_trait]
impl EntityService for Fake {
    async fn set(&self, request: Request<pb::Entity>) -> Result<Response<()>, Status> {
        self.check(request.metadata())?;
        let mut script = self.0.lock().unwrap();
        if let Some(answer) = script.answers.pop_front() {
            return Err(answer);
        }
        script.written += 1;
        Ok(placed((), script.written))
    }

    async fn get(&self, request: Request<pb::EntityRef>) -> Result<Response<pb::Entity>, Status> {
        self.check(request.metadata())?;
        let pb::EntityRef {
            domain,
            r#type,
            key,
            ..
        } = request.into_inner();
        let entity = pb::Entity {
            domain,
            r#type,
            key,
            values: Some(stategate_protocol::Struct::default()),
            version: 1,
        };
        Ok(placed(entity, 1))
    }

    async fn edit(&self, _: Request<pb::Entity>) -> Result<Response<pb::Entity>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn revert(&self, _: Request<pb::EventRef>) -> Result<Response<pb::Entity>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn del(&self, _: Request<pb::EntityRef>) -> Result<Response<()>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn search(
        &self,
        _: Request<pb::SearchEntityOpts>,
    ) -> Result<Response<pb::Entities>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn transact(
        &self,
        _: Request<pb::TransactRequest>,
    ) -> Result<Response<Transacted>, Status> {
        Err(Status::unimplemented("not played"))
    }
}

type Events = Pin<Box<dyn Stream<Item = Result<Encoded, Status>> + Send>>;

#[tonic::async_trait]
impl EventService for Fake {
    type StreamStream = Events;

    async fn stream(
        &self,
        request: Request<pb::StreamOpts>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        self.check(request.metadata())?;
        let mut script = self.0.lock().unwrap();
        script.starts.push(request.into_inner().start);
        let played = script.streams.pop_front();
        let played = played.ok_or_else(|| Status::internal("no more streams are played"))?;
        let events = played.positions.into_iter().map(|position| {
            let bytes = prost::Message::encode_to_vec(&event(position));
            Ok(Encoded(bytes.into()))
        });
        let fake = self.clone();
        let end = tokio_stream::once(()).map(move |()| {
            if let Some(token) = played.then_accepted {
                fake.accept(token);
            }
            Err(played.end.clone())
        });
        let stream = tokio_stream::iter(events).chain(end);
        Ok(placed(Box::pin(stream), 0))
    }

    async fn search(&self, _: Request<pb::SearchEventOpts>) -> Result<Response<EventPage>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn get(&self, _: Request<pb::EventRef>) -> Result<Response<Encoded>, Status> {
        Err(Status::unimplemented("not played"))
    }
}

fn event(position: i64) -> pb::Event {
    pb::Event {
        id: format!("1b4e28ba-2fa1-4d2b-883f-{position:012}"),
        entity: Some(pb::Entity {
            domain: "acme".to_owned(),
            r#type: "thing".to_owned(),
            key: "a".to_owned(),
            values: Some(stategate_protocol::Struct::default()),
            version: 0,
        }),
        claims: Some(stategate_protocol::Struct::default()),
        method: "/stategate.EntityService/Set".to_owned(),
        version: 1,
        position,
        ..pb::Event::default()
    }
}

fn thing() -> EntityRef {
    EntityRef::new("acme", "thing", "a").unwrap()
}

fn file(token: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    fs::write(&path, token).unwrap();
    (dir, path)
}

/// As whoever keeps a token current does: the file is a whole one at any time.
fn replace(path: &Path, token: &str) {
    let next = path.with_extension("next");
    fs::write(&next, token).unwrap();
    fs::rename(&next, path).unwrap();
}

fn builder(address: &str) -> Builder {
    Client::builder(address).deadline(PATIENCE)
}

/// A source that gives these tokens, the next one whenever one was refused.
#[derive(Clone, Default)]
struct Listed {
    tokens: Arc<Mutex<VecDeque<&'static str>>>,
    asked: Arc<AtomicUsize>,
}

impl Listed {
    fn of(tokens: &[&'static str]) -> Self {
        let listed = Self::default();
        listed.tokens.lock().unwrap().extend(tokens);
        listed
    }
}

#[async_trait]
impl TokenSource for Listed {
    async fn token(&self, refused: Option<&BearerToken>) -> Result<BearerToken, TokenError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut tokens = self.tokens.lock().unwrap();
        if refused.is_some() && tokens.len() > 1 {
            tokens.pop_front();
        }
        match tokens.front() {
            Some(&"away") => {
                tokens.pop_front();
                Err(TokenError::temporary("the provider is away"))
            }
            Some(&"none") => Err(TokenError::new("nobody is signed in")),
            Some(token) => Ok(BearerToken::new(token).unwrap()),
            None => panic!("no tokens are left"),
        }
    }
}

#[tokio::test]
async fn a_call_goes_on_with_the_newer_token() {
    let (fake, address) = Fake::start("one").await;
    let (_dir, path) = file("one");
    let client = builder(&address).token_file(&path).build().unwrap();
    client.set(&thing(), json!({})).await.unwrap();
    fake.accept("two");
    replace(&path, "two\n");
    client.set(&thing(), json!({})).await.unwrap();
    client.clone().get(&thing()).await.unwrap();
    assert_eq!(fake.written(), 2);
    assert_eq!(fake.sent(), ["one", "one", "two", "two"]);
    fake.accept("three");
    replace(&path, "three");
    client.get(&thing()).await.unwrap();
    assert_eq!(fake.sent()[4..], ["two", "three"]);
}

#[tokio::test]
async fn without_a_newer_token_a_call_fails_at_once() {
    let (fake, address) = Fake::start("one").await;
    let (_dir, path) = file("stale");
    let of_file = builder(&address).token_file(&path).build().unwrap();
    let fixed = builder(&address).token("stale").build().unwrap();
    for client in [&of_file, &fixed] {
        let refused = client.set(&thing(), json!({})).await.unwrap_err();
        assert_eq!(*refused.kind(), ErrorKind::Unauthenticated);
        assert_eq!(refused.outcome(), Outcome::NotWritten);
        assert_eq!(refused.to_string(), "the token has expired");
    }
    fs::write(&path, "").unwrap();
    let refused = of_file.get(&thing()).await.unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::Unauthenticated);
    let expected = format!(
        "the token has expired; there is no newer token: {} is empty; it must hold the token",
        path.display()
    );
    assert_eq!(refused.to_string(), expected);
    assert_eq!(fake.sent(), ["stale"; 3]);
}

#[tokio::test]
async fn a_source_is_asked_once_for_another_token() {
    let (fake, address) = Fake::start("three").await;
    let source = Listed::of(&["one", "two", "three"]);
    let client = builder(&address).token_source(source).build().unwrap();
    let refused = client.set(&thing(), json!({})).await.unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::Unauthenticated);
    assert_eq!(fake.sent(), ["one", "two"]);
    client.set(&thing(), json!({})).await.unwrap();
    assert_eq!(fake.sent()[2..], ["two", "three"]);
    assert_eq!(fake.written(), 1);
}

#[tokio::test]
async fn a_source_that_is_away_is_asked_again_and_one_that_has_none_is_not() {
    let (fake, address) = Fake::start("two").await;
    // Before anything is sent, and after the first token was refused.
    let source = Listed::of(&["away", "one", "away", "two"]);
    let client = builder(&address).token_source(source).build().unwrap();
    client.set(&thing(), json!({})).await.unwrap();
    assert_eq!(fake.sent(), ["one", "two"]);

    let source = Listed::of(&["none"]);
    let asked = Arc::clone(&source.asked);
    let client = builder(&address).token_source(source).build().unwrap();
    let refused = client.set(&thing(), json!({})).await.unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::Unauthenticated);
    assert_eq!(refused.outcome(), Outcome::NotWritten);
    assert_eq!(refused.to_string(), "no token: nobody is signed in");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(fake.sent().len(), 2);
}

struct Silent;

#[async_trait]
impl TokenSource for Silent {
    async fn token(&self, _: Option<&BearerToken>) -> Result<BearerToken, TokenError> {
        pending().await
    }
}

#[tokio::test]
async fn a_source_that_never_answers_ends_with_the_deadline() {
    let (fake, address) = Fake::start("one").await;
    let brief = builder(&address).deadline(Duration::from_millis(50));
    let client = brief.token_source(Silent).build().unwrap();
    let entity = thing();
    let late = timeout(PATIENCE, client.set(&entity, json!({})));
    let late = late.await.unwrap().unwrap_err();
    assert_eq!(*late.kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(late.outcome(), Outcome::NotWritten);
    assert_eq!(fake.sent().len(), 0);
}

#[tokio::test]
async fn a_write_whose_answer_is_denied_is_written() {
    let (fake, address) = Fake::start("one").await;
    let client = builder(&address).token("one").build().unwrap();
    let denied = |reason: &str, metadata: &[(&str, &str)]| {
        let metadata = metadata
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let details =
            ErrorDetails::with_error_info(reason, "stategate", metadata.collect::<HashMap<_, _>>());
        Status::with_error_details(Code::PermissionDenied, "no", details)
    };
    fake.0.lock().unwrap().answers = [
        denied("RESPONSE_DENIED", &[("committed", "true")]),
        denied("PERMISSION_DENIED", &[]),
    ]
    .into();
    for outcome in [Outcome::Written, Outcome::NotWritten] {
        let refused = client.set(&thing(), json!({})).await.unwrap_err();
        assert_eq!(*refused.kind(), ErrorKind::Denied);
        assert_eq!(refused.outcome(), outcome);
    }
    assert_eq!(fake.sent().len(), 2);
}

#[tokio::test]
async fn a_stream_whose_token_expires_goes_on_after_its_last_event() {
    use pb::stream_opts::Start::{After, FromBeginning};

    let (fake, address) = Fake::start("one").await;
    fake.play([
        played(&[1, 2], Some("two"), expired()),
        played(&[3], Some("three"), Status::unavailable("draining")),
        played(&[4], None, expired()),
    ]);
    let source = Listed::of(&["one", "two", "three"]);
    let client = builder(&address).token_source(source).build().unwrap();
    let subscription = Subscription::new("acme", "*").from(Start::Beginning);
    let mut watch = client.subscribe(subscription).await.unwrap();
    let mut seen = Vec::new();
    let ended = loop {
        match timeout(PATIENCE, watch.step()).await.unwrap() {
            Ok(Step::Event(event)) => seen.push(format!("event {}", event.position)),
            Ok(Step::Lost(error)) => seen.push(format!("{:?}", error.kind())),
            Ok(Step::Resumed) => seen.push("resumed".to_owned()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    let lost = "Unauthenticated";
    // The second end is that of a connection; that the token is of no use is found out then.
    assert_eq!(
        seen,
        [
            "event 1",
            "event 2",
            lost,
            "resumed",
            "event 3",
            "Unavailable",
            "resumed",
            "event 4"
        ]
    );
    // There is no newer one.
    assert_eq!(*ended.kind(), ErrorKind::Unauthenticated);
    assert_eq!(fake.sent(), ["one", "two", "two", "three"]);
    let after = |position| Some(After(format!("{LOG}/0:{position}")));
    assert_eq!(
        fake.0.lock().unwrap().starts,
        [Some(FromBeginning(true)), after(2), after(3)]
    );
    // Its owner may have one later.
    fake.play([played(&[5], None, expired())]);
    assert!(matches!(watch.step().await, Ok(Step::Resumed)));
    assert_eq!(watch.next().await.unwrap().position.get(), 5);
}

#[tokio::test]
async fn a_stream_goes_on_with_the_newer_token_of_a_file() {
    let (fake, address) = Fake::start("one").await;
    fake.play([
        played(&[1, 2], Some("two"), expired()),
        played(&[3], None, expired()),
    ]);
    let (_dir, path) = file("one");
    let client = builder(&address).token_file(&path).build().unwrap();
    let subscription = Subscription::new("acme", "*").from(Start::Beginning);
    let mut watch = client.subscribe(subscription).await.unwrap();
    assert_eq!(watch.next().await.unwrap().position.get(), 1);
    assert_eq!(watch.next().await.unwrap().position.get(), 2);
    replace(&path, "two");
    assert_eq!(watch.next().await.unwrap().position.get(), 3);
    assert_eq!(fake.sent(), ["one", "two"]);
}

/// Gives the second token only when it is allowed to.
struct Gated(Arc<tokio::sync::Semaphore>);

#[async_trait]
impl TokenSource for Gated {
    async fn token(&self, refused: Option<&BearerToken>) -> Result<BearerToken, TokenError> {
        if refused.is_none() {
            return Ok(BearerToken::new("one").unwrap());
        }
        let _allowed = self.0.acquire().await;
        Ok(BearerToken::new("two").unwrap())
    }
}

#[tokio::test]
async fn to_stop_waiting_for_a_token_loses_nothing() {
    let (fake, address) = Fake::start("one").await;
    fake.play([
        played(&[1], Some("two"), expired()),
        played(&[2], None, expired()),
    ]);
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let source = Gated(Arc::clone(&gate));
    let client = builder(&address).token_source(source).build().unwrap();
    let subscription = Subscription::new("acme", "*").from(Start::Beginning);
    let mut watch = client.subscribe(subscription).await.unwrap();
    assert_eq!(watch.next().await.unwrap().position.get(), 1);
    for _ in 0..3 {
        let waits = timeout(Duration::from_millis(50), watch.next()).await;
        assert!(waits.is_err(), "{waits:?}");
    }
    gate.add_permits(1);
    assert_eq!(watch.next().await.unwrap().position.get(), 2);
    assert_eq!(fake.sent(), ["one", "two"]);
}
