//! What each service implements, and how calls find the service that is here.
//!
//! The protocol has two gRPC services, the architecture three processes: `EntityService` is served
//! by the command and the query service, `EventService` by the query and the stream service.
//! [`Services`] holds those that live in this process and answers for the others by name.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures::{future::BoxFuture, stream};
use stategate_protocol::{
    Encoded, EventPage, Problem, Transacted, pb,
    server::{entity_service_server::EntityService, event_service_server::EventService},
};
use tonic::{Request, Response, Status};

use crate::events::{EventStream, Handed};

/// Why a service cannot do its work at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// In words for whoever may ask: without addresses, paths and the like.
    pub why: String,
    /// The same with everything that is known, for the log.
    pub cause: String,
    /// It will not be able to again in this process, which ends therefore.
    pub is_for_good: bool,
}

/// What the command service does.
#[async_trait]
pub trait CommandApi: Send + Sync + 'static {
    /// `EntityService/Set`.
    async fn set(&self, request: Request<pb::Entity>) -> Result<Response<()>, Status>;

    /// `EntityService/Edit`.
    async fn edit(&self, request: Request<pb::Entity>) -> Result<Response<pb::Entity>, Status>;

    /// `EntityService/Revert`.
    async fn revert(&self, request: Request<pb::EventRef>) -> Result<Response<pb::Entity>, Status>;

    /// `EntityService/Del`.
    async fn del(&self, request: Request<pb::EntityRef>) -> Result<Response<()>, Status>;

    /// `EntityService/Transact`.
    async fn transact(
        &self,
        request: Request<pb::TransactRequest>,
    ) -> Result<Response<Transacted>, Status>;

    /// Whether the service can do its work at the moment. Asked every half second, for readiness.
    async fn check(&self) -> Result<(), Unfit>;

    /// What operators have to know of where writes are kept, each with what to do: told with readiness,
    /// which it does not change.
    fn concerns(&self) -> Vec<String>;
}

/// What the query service does.
#[async_trait]
pub trait QueryApi: Send + Sync + 'static {
    /// `EntityService/Get`.
    async fn get(&self, request: Request<pb::EntityRef>) -> Result<Response<pb::Entity>, Status>;

    /// `EntityService/Search`.
    async fn search(
        &self,
        request: Request<pb::SearchEntityOpts>,
    ) -> Result<Response<pb::Entities>, Status>;

    /// `EventService/Search`.
    async fn search_events(
        &self,
        request: Request<pb::SearchEventOpts>,
    ) -> Result<Response<EventPage>, Status>;

    /// `EventService/Get`.
    async fn get_event(&self, request: Request<pb::EventRef>) -> Result<Response<Encoded>, Status>;

    /// Whether the service can do its work at the moment. Asked every half second, for readiness.
    async fn check(&self) -> Result<(), Unfit>;
}

/// What the stream service does.
#[async_trait]
pub trait StreamApi: Send + Sync + 'static {
    /// `EventService/Stream`.
    async fn stream(
        &self,
        request: Request<pb::StreamOpts>,
    ) -> Result<Response<EventStream>, Status>;

    /// Whether the service can do its work at the moment. Asked every half second, for readiness.
    async fn check(&self) -> Result<(), Unfit>;

    /// What the service does without at the moment, if anything: it still serves everything, later.
    fn degraded(&self) -> Option<&'static str>;
}

/// The services that live in this process. Calls to the others are refused with the name of the
/// service they belong to (contract §8).
#[derive(Clone, Default)]
pub struct Services {
    /// Writes.
    pub command: Option<Arc<dyn CommandApi>>,
    /// Reads.
    pub query: Option<Arc<dyn QueryApi>>,
    /// Subscriptions.
    pub stream: Option<Arc<dyn StreamApi>>,
}

impl Services {
    /// The names of the services that are here, as errors and logs give them.
    pub fn names(&self) -> Vec<&'static str> {
        let here = Home::ALL.into_iter().filter(|home| self.has(*home));
        here.map(Home::name).collect()
    }

    /// Whether a service is here.
    pub(crate) fn has(&self, home: Home) -> bool {
        match home {
            Home::Command => self.command.is_some(),
            Home::Query => self.query.is_some(),
            Home::Stream => self.stream.is_some(),
        }
    }

    /// How the services that are here answer when they are asked whether they can do their work.
    pub(crate) fn checks(
        &self,
    ) -> impl Iterator<Item = (&'static str, BoxFuture<'_, Result<(), Unfit>>)> {
        let command = self
            .command
            .as_deref()
            .map(|here| (Home::Command.name(), here.check()));
        let query = self
            .query
            .as_deref()
            .map(|here| (Home::Query.name(), here.check()));
        let stream = self
            .stream
            .as_deref()
            .map(|here| (Home::Stream.name(), here.check()));
        [command, query, stream].into_iter().flatten()
    }

    fn command(&self, method: &'static str) -> Result<&dyn CommandApi, Status> {
        let here = self.command.as_deref();
        here.ok_or_else(|| Home::Command.elsewhere(method).into())
    }

    fn query(&self, method: &'static str) -> Result<&dyn QueryApi, Status> {
        let here = self.query.as_deref();
        here.ok_or_else(|| Home::Query.elsewhere(method).into())
    }

    fn stream(&self, method: &'static str) -> Result<&dyn StreamApi, Status> {
        let here = self.stream.as_deref();
        here.ok_or_else(|| Home::Stream.elsewhere(method).into())
    }
}

/// The service that a method lives in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    Command,
    Query,
    Stream,
}

impl Home {
    const ALL: [Self; 3] = [Self::Command, Self::Query, Self::Stream];

    fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Query => "query",
            Self::Stream => "stream",
        }
    }

    /// What a call of one of its methods is answered where it is not.
    pub(crate) fn elsewhere(self, method: &'static str) -> Problem {
        let service = self.name();
        Problem::Elsewhere { method, service }
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Services").field(&self.names()).finish()
    }
}

#[async_trait]
impl EntityService for Services {
    async fn set(&self, request: Request<pb::Entity>) -> Result<Response<()>, Status> {
        self.command("EntityService/Set")?.set(request).await
    }

    async fn edit(&self, request: Request<pb::Entity>) -> Result<Response<pb::Entity>, Status> {
        self.command("EntityService/Edit")?.edit(request).await
    }

    async fn revert(&self, request: Request<pb::EventRef>) -> Result<Response<pb::Entity>, Status> {
        self.command("EntityService/Revert")?.revert(request).await
    }

    async fn get(&self, request: Request<pb::EntityRef>) -> Result<Response<pb::Entity>, Status> {
        self.query("EntityService/Get")?.get(request).await
    }

    async fn del(&self, request: Request<pb::EntityRef>) -> Result<Response<()>, Status> {
        self.command("EntityService/Del")?.del(request).await
    }

    async fn search(
        &self,
        request: Request<pb::SearchEntityOpts>,
    ) -> Result<Response<pb::Entities>, Status> {
        self.query("EntityService/Search")?.search(request).await
    }

    async fn transact(
        &self,
        request: Request<pb::TransactRequest>,
    ) -> Result<Response<Transacted>, Status> {
        self.command("EntityService/Transact")?
            .transact(request)
            .await
    }
}

#[async_trait]
impl EventService for Services {
    type StreamStream = stream::Empty<Result<Encoded, Status>>;

    /// tonic would have every event as one message; the guard takes the stream as it is out of the response.
    async fn stream(
        &self,
        request: Request<pb::StreamOpts>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let here = self.stream("EventService/Stream")?;
        let (metadata, events, mut extensions) = here.stream(request).await?.into_parts();
        extensions.insert(Handed::new(events));
        Ok(Response::from_parts(metadata, stream::empty(), extensions))
    }

    async fn search(
        &self,
        request: Request<pb::SearchEventOpts>,
    ) -> Result<Response<EventPage>, Status> {
        self.query("EventService/Search")?
            .search_events(request)
            .await
    }

    async fn get(&self, request: Request<pb::EventRef>) -> Result<Response<Encoded>, Status> {
        self.query("EventService/Get")?.get_event(request).await
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn a_method_of_a_service_that_is_not_here_names_it() {
        let nobody = Services::default();
        let set = EntityService::set(&nobody, Request::new(pb::Entity::default())).await;
        let get = EventService::get(&nobody, Request::new(pb::EventRef::default())).await;
        let stream = EventService::stream(&nobody, Request::new(pb::StreamOpts::default())).await;
        for (status, method, service) in [
            (set.err(), "EntityService/Set", "command"),
            (get.err(), "EventService/Get", "query"),
            (stream.err(), "EventService/Stream", "stream"),
        ] {
            let status = status.unwrap();
            assert_eq!(status.code(), Code::Unimplemented);
            assert!(status.message().starts_with(method), "{status}");
            assert_eq!(status.metadata().get("service").unwrap(), service);
        }
        assert_eq!(format!("{nobody:?}"), "Services([])");
    }
}
