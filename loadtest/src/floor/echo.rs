//! The echo floor: a gRPC server that answers at once, with the gateway's messages and codec and nothing
//! behind them. It runs in a process of its own, as the gateway does.

use std::{env, net::SocketAddr, pin::Pin, process::Command};

use futures::{Stream, StreamExt as _, stream};
use stategate_protocol::{
    Encoded, EventPage, Transacted, pb,
    server::{
        entity_service_server::{EntityService, EntityServiceServer},
        event_service_server::{EventService, EventServiceServer},
    },
};
use tokio::{net::TcpListener, sync::watch};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use crate::{
    process::Process,
    workload::{EntityGenerator, sample_event},
};

/// Starts this binary again, as the echo server.
pub(crate) fn start_echo_server() -> anyhow::Result<Process> {
    let mut command = Command::new(env::current_exe()?);
    command.arg("floor-echo");
    Process::start("the echo floor", command)
}

/// Serves until the process is terminated.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let address = listener.local_addr()?;
    let server = EchoServer {
        entity: EntityGenerator::new().product(0),
        page: EntityGenerator::new().page(),
        event: sample_event()?,
        open_streams: watch::Sender::new(0),
    };
    eprintln!(r#"{{"message":"listening","grpc":"{address}"}}"#);
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let served = Server::builder()
        .add_service(EntityServiceServer::new(server.clone()))
        .add_service(EventServiceServer::new(server))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    tokio::select! {
        served = served => Ok(served?),
        _ = terminated.recv() => Ok(()),
    }
}

#[derive(Clone)]
struct EchoServer {
    entity: pb::Entity,
    page: pb::Entities,
    event: Encoded,
    /// How many streams are open.
    open_streams: watch::Sender<usize>,
}

/// Counts a stream as open until it is dropped.
struct OpenStream {
    count: watch::Sender<usize>,
}

impl OpenStream {
    fn new(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self {
            count: count.clone(),
        }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.count.send_modify(|count| *count -= 1);
    }
}

fn unimplemented<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented(
        "the floors have Set, Get, Search and Stream",
    ))
}

#[tonic::async_trait]
impl EntityService for EchoServer {
    async fn set(&self, _: Request<pb::Entity>) -> Result<Response<()>, Status> {
        Ok(Response::new(()))
    }

    async fn get(&self, _: Request<pb::EntityRef>) -> Result<Response<pb::Entity>, Status> {
        Ok(Response::new(self.entity.clone()))
    }

    async fn edit(&self, _: Request<pb::Entity>) -> Result<Response<pb::Entity>, Status> {
        unimplemented()
    }

    async fn revert(&self, _: Request<pb::EventRef>) -> Result<Response<pb::Entity>, Status> {
        unimplemented()
    }

    async fn del(&self, _: Request<pb::EntityRef>) -> Result<Response<()>, Status> {
        unimplemented()
    }

    async fn search(
        &self,
        _: Request<pb::SearchEntityOpts>,
    ) -> Result<Response<pb::Entities>, Status> {
        Ok(Response::new(self.page.clone()))
    }

    async fn transact(
        &self,
        _: Request<pb::TransactRequest>,
    ) -> Result<Response<Transacted>, Status> {
        unimplemented()
    }
}

#[tonic::async_trait]
impl EventService for EchoServer {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<Encoded, Status>> + Send>>;

    /// Sends the same encoded event over and over, as fast as it is received. It first waits until as many
    /// streams are open as the field `key` says: otherwise the first streams would take the processor time
    /// that opening the others needs.
    async fn stream(
        &self,
        request: Request<pb::StreamOpts>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let count_needed: usize = request.get_ref().key.parse().unwrap_or(1);
        let open_stream = OpenStream::new(&self.open_streams);
        let event = self.event.clone();
        let events = stream::once(async move {
            // Waiting fails only without a sender, and this stream holds one.
            let _ = open_stream
                .count
                .subscribe()
                .wait_for(|count| *count >= count_needed)
                .await;
            stream::iter(std::iter::repeat_with(move || {
                let _ = &open_stream;
                Ok(event.clone())
            }))
        });
        Ok(Response::new(Box::pin(events.flatten())))
    }

    async fn search(&self, _: Request<pb::SearchEventOpts>) -> Result<Response<EventPage>, Status> {
        unimplemented()
    }

    async fn get(&self, _: Request<pb::EventRef>) -> Result<Response<Encoded>, Status> {
        unimplemented()
    }
}
