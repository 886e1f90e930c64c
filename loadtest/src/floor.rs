//! The floors that answer over gRPC: the same messages through the same codec and server, with
//! nothing behind them.

use std::{net::SocketAddr, pin::Pin};

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

use crate::data::{self, Source};

/// Serves the floors until the process is ended.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let address = listener.local_addr()?;
    let floor = Floor {
        entity: Source::new().product(0),
        page: Source::new().page(),
        event: data::ready_made_event()?,
        listeners: watch::Sender::new(0),
    };
    eprintln!(r#"{{"message":"listening","grpc":"{address}"}}"#);
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let served = Server::builder()
        .add_service(EntityServiceServer::new(floor.clone()))
        .add_service(EventServiceServer::new(floor))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    tokio::select! {
        served = served => Ok(served?),
        _ = terminated.recv() => Ok(()),
    }
}

#[derive(Clone)]
struct Floor {
    entity: pb::Entity,
    page: pb::Entities,
    event: Encoded,
    listeners: watch::Sender<usize>,
}

/// One of the streams that are there.
struct Listener {
    count: watch::Sender<usize>,
}

impl Listener {
    fn enter(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self {
            count: count.clone(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.count.send_modify(|count| *count -= 1);
    }
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented(
        "the floors have Set, Get, Search and Stream",
    ))
}

#[tonic::async_trait]
impl EntityService for Floor {
    async fn set(&self, _: Request<pb::Entity>) -> Result<Response<()>, Status> {
        Ok(Response::new(()))
    }

    async fn get(&self, _: Request<pb::EntityRef>) -> Result<Response<pb::Entity>, Status> {
        Ok(Response::new(self.entity.clone()))
    }

    async fn edit(&self, _: Request<pb::Entity>) -> Result<Response<pb::Entity>, Status> {
        not_here()
    }

    async fn revert(&self, _: Request<pb::EventRef>) -> Result<Response<pb::Entity>, Status> {
        not_here()
    }

    async fn del(&self, _: Request<pb::EntityRef>) -> Result<Response<()>, Status> {
        not_here()
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
        not_here()
    }
}

#[tonic::async_trait]
impl EventService for Floor {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<Encoded, Status>> + Send>>;

    /// Ready-made bytes, as fast as they are taken. They begin when as many streams are there as the
    /// field `key` says: the first of a thousand would otherwise be in the way of the others.
    async fn stream(
        &self,
        request: Request<pb::StreamOpts>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let size: usize = request.get_ref().key.parse().unwrap_or(1);
        let listener = Listener::enter(&self.listeners);
        let event = self.event.clone();
        let events = stream::once(async move {
            // The sender is held by every listener, this one included.
            let _ = listener
                .count
                .subscribe()
                .wait_for(|count| *count >= size)
                .await;
            stream::iter(std::iter::repeat_with(move || {
                let _ = &listener;
                Ok(event.clone())
            }))
        });
        Ok(Response::new(Box::pin(events.flatten())))
    }

    async fn search(&self, _: Request<pb::SearchEventOpts>) -> Result<Response<EventPage>, Status> {
        not_here()
    }

    async fn get(&self, _: Request<pb::EventRef>) -> Result<Response<Encoded>, Status> {
        not_here()
    }
}
