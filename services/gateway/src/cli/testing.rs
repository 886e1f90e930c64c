//! A gateway that does as a test tells it, behind a real connection.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io::{self, Write},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::Stream;
use stategate_protocol::{
    Encoded, EventPage, Transacted, headers, pb,
    server::{
        entity_service_server::{EntityService, EntityServiceServer},
        event_service_server::{EventService, EventServiceServer},
    },
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use super::{
    connection::Connection,
    output::{Form, Output, Screen},
};

/// The log of every test.
pub(crate) const LOG: &str = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";

/// What a gateway is to do, and what it was asked.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// What a Set of a key is answered with before it succeeds.
    pub(crate) refusals: HashMap<String, VecDeque<Status>>,
    /// Sets that succeeded, in order of their answers: key and values.
    pub(crate) written: Vec<(String, String)>,
    /// Sets that arrived.
    pub(crate) asked: usize,
    /// The idempotency keys of the Sets that succeeded.
    pub(crate) keys: Vec<String>,
    /// What the calls were authorised by.
    pub(crate) authorizations: Vec<String>,
    /// Sets in progress, by key, and the most there were at once.
    pub(crate) running: BTreeMap<String, usize>,
    pub(crate) most_running: usize,
    pub(crate) most_of_one_key: usize,
    /// What each subscription gets, and how it ends.
    pub(crate) streams: VecDeque<(Vec<pb::Event>, Option<Status>)>,
    /// What each subscription asked for.
    pub(crate) subscriptions: Vec<pb::StreamOpts>,
}

/// A gateway for one test.
#[derive(Clone, Default)]
pub(crate) struct Fake(pub(crate) Arc<Mutex<Script>>);

impl Fake {
    /// Serves; the way to what is served.
    pub(crate) async fn start(&self) -> Connection {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = Server::builder()
            .add_service(EntityServiceServer::new(self.clone()))
            .add_service(EventServiceServer::new(self.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(served);
        Connection::to(&address.to_string())
    }
}

/// What a command printed.
#[derive(Clone, Default)]
pub(crate) struct Printed(Arc<Mutex<Vec<u8>>>);

impl Printed {
    pub(crate) fn output(&self) -> Output {
        Output::new(Box::new(self.clone()), Form::Json)
    }

    pub(crate) fn text_output(&self, screen: Screen) -> Output {
        Output::new(Box::new(self.clone()), Form::Text(screen))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.text().lines().map(str::to_owned).collect()
    }
}

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
        let header = |name: &str| {
            let value = request.metadata().get(name);
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        let idempotency_key = header(headers::IDEMPOTENCY_KEY).unwrap();
        let authorization = header("authorization");
        let entity = request.into_inner();
        let key = entity.key.clone();
        let pause = {
            let mut script = self.0.lock().unwrap();
            script.asked += 1;
            let of_key = script.running.entry(key.clone()).or_default();
            *of_key += 1;
            let of_key = *of_key;
            script.most_of_one_key = script.most_of_one_key.max(of_key);
            let all = script.running.values().sum();
            script.most_running = script.most_running.max(all);
            // Earlier calls take longer than later ones, so that only a client keeps the order.
            Duration::from_millis(20_u64.saturating_sub(script.asked as u64 % 20))
        };
        tokio::time::sleep(pause).await;
        let mut script = self.0.lock().unwrap();
        *script.running.get_mut(&key).unwrap() -= 1;
        if let Some(refusal) = script.refusals.get_mut(&key).and_then(VecDeque::pop_front) {
            return Err(refusal);
        }
        let values = entity.values.unwrap_or_default().into_object();
        let values = stategate_model::json::canonical(&values);
        script.keys.push(idempotency_key);
        script.authorizations.extend(authorization);
        script.written.push((key, values));
        Ok(placed((), script.written.len()))
    }

    async fn edit(&self, _: Request<pb::Entity>) -> Result<Response<pb::Entity>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn revert(&self, _: Request<pb::EventRef>) -> Result<Response<pb::Entity>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn get(&self, _: Request<pb::EntityRef>) -> Result<Response<pb::Entity>, Status> {
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
        let mut script = self.0.lock().unwrap();
        script.subscriptions.push(request.into_inner());
        let (events, end) = script
            .streams
            .pop_front()
            .ok_or_else(|| Status::internal("no more streams are played"))?;
        let events = events.into_iter().map(|event| {
            let bytes = prost::Message::encode_to_vec(&event);
            Ok(Encoded(bytes.into()))
        });
        let items: Vec<_> = events.chain(end.map(Err)).collect();
        Ok(placed(Box::pin(futures::stream::iter(items)), 0))
    }

    async fn search(&self, _: Request<pb::SearchEventOpts>) -> Result<Response<EventPage>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn get(&self, _: Request<pb::EventRef>) -> Result<Response<Encoded>, Status> {
        Err(Status::unimplemented("not played"))
    }
}
