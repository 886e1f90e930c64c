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
use stategate_api::{
    Answer, Command, Del, Delivery, Edit, Entity, Permitted, Problem, Revert, Set, Stream,
    Subscribe, Subscription, Transact,
};
use stategate_model::{Event, Glob, Lane, Position, Values};
use stategate_protocol::{
    Struct,
    pb::{
        self, entity_service_client::EntityServiceClient, event_service_client::EventServiceClient,
    },
};
use stategate_server::{
    AccessControl, Config, Drain, Env, Foundation, Running, Server, Services, Telemetry, Unfit,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
};
use tokio_stream::wrappers::IntervalStream;
use tonic::transport::Channel;

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
impl Foundation for Obedient {
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

    fn concerns(&self) -> Vec<String> {
        Vec::new()
    }

    fn degraded(&self) -> Option<&'static str> {
        self.is_degraded.load(Ordering::Relaxed).then_some("a part")
    }
}

fn done<T>(value: T) -> Result<Answer<T>, Problem> {
    Ok(Answer {
        value,
        position: None,
        version: None,
        replayed: false,
    })
}

#[async_trait]
impl Command for Obedient {
    /// Answers when it is let go.
    async fn set(&self, _: Permitted<'_, Set>) -> Result<Answer<()>, Problem> {
        self.arrived.add_permits(1);
        self.answered.acquire().await.unwrap().forget();
        done(())
    }

    /// Answers at once, with whether it has a deadline.
    async fn edit(&self, call: Permitted<'_, Edit>) -> Result<Answer<Entity>, Problem> {
        let has_deadline = call.context().deadline.is_some();
        done(Entity {
            entity: call.request().entity.clone(),
            values: Values::from_canonical(&*format!(r#"{{"has_deadline":{has_deadline}}}"#)),
            version: None,
        })
    }

    async fn revert(&self, _: Permitted<'_, Revert>) -> Result<Answer<Entity>, Problem> {
        panic!("a bug");
    }

    async fn del(&self, _: Permitted<'_, Del>) -> Result<Answer<()>, Problem> {
        done(())
    }

    async fn transact(&self, _: Permitted<'_, Transact>) -> Result<Answer<Vec<Event>>, Problem> {
        done(Vec::new())
    }
}

#[async_trait]
impl Stream for Obedient {
    /// Progress now and then, until the process ends; or a bug in the middle of a stream.
    async fn stream(
        &self,
        call: Permitted<'_, Subscribe>,
    ) -> Result<Answer<Subscription>, Problem> {
        let progress = || Delivery::progress(Lane(0), Position::ZERO);
        if call.request().key.as_ref().and_then(Glob::exact) == Some("bug") {
            let events = futures::stream::iter([1, 2]).map(move |n| {
                assert!(n < 2, "a bug");
                Ok(progress())
            });
            return done(Subscription {
                deliveries: events.boxed(),
            });
        }
        let ticks = IntervalStream::new(tokio::time::interval(Duration::from_millis(5)));
        let end = futures::stream::once(async { Err(Problem::ShuttingDown) });
        let events = ticks
            .map(move |_| Ok(progress()))
            .take_until(self.drain.token().cancelled_owned())
            .chain(end);
        done(Subscription {
            deliveries: events.boxed(),
        })
    }
}

/// An entity that every write takes.
pub(crate) fn entity() -> pb::Entity {
    pb::Entity {
        domain: "d".to_owned(),
        r#type: "t".to_owned(),
        key: "k".to_owned(),
        values: Some(Struct::default()),
        version: 0,
    }
}

/// The same, named.
pub(crate) fn entity_ref() -> pb::EntityRef {
    pb::EntityRef {
        domain: "d".to_owned(),
        r#type: "t".to_owned(),
        key: "k".to_owned(),
        at: None,
    }
}

/// A subscription to everything.
pub(crate) fn everything() -> pb::StreamOpts {
    pb::StreamOpts {
        domain: "*".to_owned(),
        r#type: "*".to_owned(),
        ..pb::StreamOpts::default()
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
        ("STATEGATE_REFLECTION", "true"),
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
        command: Some(Arc::clone(&service) as Arc<dyn Command>),
        stream: Some(Arc::clone(&service) as Arc<dyn Stream>),
        query: None,
        foundation: Some(Arc::clone(&service) as Arc<dyn Foundation>),
        ..Services::default()
    };
    let server = Server::bind(&config).await.unwrap();
    let running = server
        .start(
            services,
            AccessControl::open(),
            &Telemetry::detached(),
            &drain,
        )
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
