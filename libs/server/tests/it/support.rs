//! A server on free ports with services that do as they are told.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::StreamExt as _;
use stategate_protocol::{
    Encoded, Problem, Transacted,
    pb::{
        self, entity_service_client::EntityServiceClient, event_service_client::EventServiceClient,
    },
};
use stategate_server::{
    CommandApi, Config, Drain, Env, EventPart, EventStream, Running, Server, Services, StreamApi,
    Telemetry, Unfit,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
};
use tokio_stream::wrappers::IntervalStream;
use tonic::{Request, Response, Status, transport::Channel};

/// Writes that are let go one by one, and a subscription that ends with the process.
pub(crate) struct Obedient {
    /// Calls that have reached the service.
    pub(crate) arrived: Semaphore,
    /// Calls that may be answered.
    pub(crate) answered: Semaphore,
    /// Whether it does without a part of itself.
    pub(crate) is_degraded: AtomicBool,
    /// How it answers when it is asked how it is.
    pub(crate) fitness: Mutex<Fitness>,
    /// How often it was asked.
    pub(crate) asked: AtomicUsize,
    drain: Drain,
}

/// How a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fitness {
    Fit,
    Unfit(Unfit),
    Silent,
    /// It does not answer the next question, and is fit from then on.
    SilentOnce,
}

#[async_trait]
impl CommandApi for Obedient {
    fn concerns(&self) -> Vec<String> {
        Vec::new()
    }

    async fn check(&self) -> Result<(), Unfit> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let fitness = {
            let mut fitness = self.fitness.lock().unwrap();
            let next = match &*fitness {
                Fitness::SilentOnce => Fitness::Fit,
                other => other.clone(),
            };
            std::mem::replace(&mut *fitness, next)
        };
        match fitness {
            Fitness::Fit => Ok(()),
            Fitness::Unfit(unfit) => Err(unfit),
            Fitness::Silent | Fitness::SilentOnce => std::future::pending().await,
        }
    }

    /// Answers when it is let go.
    async fn set(&self, _: Request<pb::Entity>) -> Result<Response<()>, Status> {
        self.arrived.add_permits(1);
        self.answered.acquire().await.unwrap().forget();
        Ok(Response::new(()))
    }

    /// Answers at once, with its deadline in the key.
    async fn edit(&self, request: Request<pb::Entity>) -> Result<Response<pb::Entity>, Status> {
        let has_deadline = stategate_server::deadline(&request).is_some();
        let key = has_deadline.to_string();
        Ok(Response::new(pb::Entity {
            key,
            ..pb::Entity::default()
        }))
    }

    async fn revert(&self, _: Request<pb::EventRef>) -> Result<Response<pb::Entity>, Status> {
        panic!("a bug");
    }

    async fn del(&self, _: Request<pb::EntityRef>) -> Result<Response<()>, Status> {
        Ok(Response::new(()))
    }

    async fn transact(
        &self,
        _: Request<pb::TransactRequest>,
    ) -> Result<Response<Transacted>, Status> {
        Ok(Response::new(Transacted::default()))
    }
}

#[async_trait]
impl StreamApi for Obedient {
    /// An event now and then, until the process ends; or a bug in the middle of a stream.
    async fn stream(
        &self,
        request: Request<pb::StreamOpts>,
    ) -> Result<Response<EventStream>, Status> {
        if request.get_ref().key == "a bug" {
            let events = futures::stream::iter([1, 2]).map(|n| {
                assert!(n < 2, "a bug");
                Ok(EventPart::Whole(Encoded::default()))
            });
            return Ok(Response::new(events.boxed()));
        }
        let ticks = IntervalStream::new(tokio::time::interval(Duration::from_millis(5)));
        let end = futures::stream::once(async { Err(Problem::ShuttingDown.into()) });
        let events = ticks
            .map(|_| Ok(EventPart::Whole(Encoded::default())))
            .take_until(self.drain.token().cancelled_owned())
            .chain(end);
        Ok(Response::new(events.boxed()))
    }

    async fn check(&self) -> Result<(), Unfit> {
        Ok(())
    }

    fn degraded(&self) -> Option<&'static str> {
        self.is_degraded.load(Ordering::Relaxed).then_some("a part")
    }
}

pub(crate) struct Started {
    pub(crate) running: Running,
    pub(crate) drain: Drain,
    pub(crate) service: Arc<Obedient>,
}

/// Starts a server that is not ready yet.
pub(crate) async fn start(variables: &[(&str, &str)]) -> Started {
    let ports = [
        ("STATEGATE_AUTH_DISABLED", "true"),
        ("STATEGATE_PORT", "0"),
        ("STATEGATE_HOST", "127.0.0.1"),
    ];
    let env = Env::of(ports.into_iter().chain(variables.iter().copied()));
    let config = Config::read(&env, &[]).unwrap();
    let drain = Drain::new();
    let service = Arc::new(Obedient {
        arrived: Semaphore::new(0),
        answered: Semaphore::new(0),
        is_degraded: AtomicBool::new(false),
        fitness: Mutex::new(Fitness::Fit),
        asked: AtomicUsize::new(0),
        drain: drain.clone(),
    });
    let services = Services {
        command: Some(Arc::clone(&service) as Arc<dyn CommandApi>),
        stream: Some(Arc::clone(&service) as Arc<dyn StreamApi>),
        query: None,
    };
    let server = Server::bind(&config).await.unwrap();
    let running = server
        .start(services, &Telemetry::detached(), &drain)
        .await
        .unwrap();
    Started {
        running,
        drain,
        service,
    }
}

impl Started {
    pub(crate) async fn channel(&self) -> Channel {
        let address = format!("http://{}", self.running.addresses().grpc);
        Channel::from_shared(address)
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    pub(crate) async fn entities(&self) -> EntityServiceClient<Channel> {
        EntityServiceClient::new(self.channel().await)
    }

    pub(crate) async fn events(&self) -> EventServiceClient<Channel> {
        EventServiceClient::new(self.channel().await)
    }

    /// The answer to an HTTP GET on the port beside gRPC.
    pub(crate) async fn http(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(self.running.addresses().admin)
            .await
            .unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }
}
