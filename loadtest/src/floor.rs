//! The floors that answer over gRPC: the same messages through the same codec and server, with
//! nothing behind them.

use std::{net::SocketAddr, pin::Pin};

use futures::{Stream, stream};
use stategate_protocol::{
    Encoded, pb,
    server::{
        entity_service_server::{EntityService, EntityServiceServer},
        event_service_server::{EventService, EventServiceServer},
    },
};
use tokio::net::TcpListener;
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
        event: data::ready_made_event()?,
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
    event: Encoded,
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the floors have Set, Get and Stream"))
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
        not_here()
    }

    async fn transact(
        &self,
        _: Request<pb::TransactRequest>,
    ) -> Result<Response<pb::TransactResponse>, Status> {
        not_here()
    }
}

#[tonic::async_trait]
impl EventService for Floor {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<Encoded, Status>> + Send>>;

    /// Ready-made bytes, as fast as they are taken.
    async fn stream(
        &self,
        _: Request<pb::StreamOpts>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let event = self.event.clone();
        let events = stream::iter(std::iter::repeat_with(move || Ok(event.clone())));
        Ok(Response::new(Box::pin(events)))
    }

    async fn search(
        &self,
        _: Request<pb::SearchEventOpts>,
    ) -> Result<Response<pb::Events>, Status> {
        not_here()
    }

    async fn get(&self, _: Request<pb::EventRef>) -> Result<Response<Encoded>, Status> {
        not_here()
    }
}
