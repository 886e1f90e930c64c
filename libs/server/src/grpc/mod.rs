//! The gRPC adapter: a message in, a typed call through [`Access`] to the service, a message out.
//!
//! The protocol has two gRPC services, the architecture three processes: `EntityService` is served
//! by the command and the query service, `EventService` by the query and the stream service.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream;
use stategate_api::{Access, Caller, Command, Context, Query, Released, Rules, Seen, Stream};
use stategate_model::{Limits, value::Corrupt};
use stategate_protocol::{
    Encoded, EventPage, Transacted, answers,
    context::{Reads, context, metadata as metadata_of},
    documents, pb, requests,
    server::{entity_service_server::EntityService, event_service_server::EventService},
    status,
};
use tonic::{Request, Response, Status, metadata::MetadataMap};

use crate::{Services, deadline::Deadline, peer::Peer, services::Home};

mod events;
pub(crate) mod framing;
mod timeout;

use self::events::Handed;

/// The services of this process behind gRPC.
#[derive(Debug, Clone)]
pub struct Grpc {
    services: Services,
    access: Access,
    limits: Limits,
}

impl Grpc {
    /// Calls of `services`, decided by `access`, within limits of values.
    pub fn new(services: Services, access: Access, limits: Limits) -> Self {
        Self {
            services,
            access,
            limits,
        }
    }

    fn command(&self, method: &'static str) -> Result<&dyn Command, Status> {
        let service = self.services.command.as_deref();
        service.ok_or_else(|| elsewhere(Home::Command, method))
    }

    fn query(&self, method: &'static str) -> Result<&dyn Query, Status> {
        let service = self.services.query.as_deref();
        service.ok_or_else(|| elsewhere(Home::Query, method))
    }

    fn stream(&self, method: &'static str) -> Result<&dyn Stream, Status> {
        let service = self.services.stream.as_deref();
        service.ok_or_else(|| elsewhere(Home::Stream, method))
    }
}

fn elsewhere(home: Home, method: &'static str) -> Status {
    status(home.elsewhere(method))
}

/// A call as it arrived: its message, what came with it, and what it is judged by.
struct Opened<T> {
    message: T,
    context: Context,
    rules: Rules,
}

impl Grpc {
    fn open<T>(&self, request: Request<T>, reads: Reads) -> Result<Opened<T>, Status> {
        self.open_for(request, reads, false)
    }

    /// A subscription is judged again when policies are replaced, perhaps by some that look at headers.
    fn open_subscription<T>(&self, request: Request<T>) -> Result<Opened<T>, Status> {
        self.open_for(request, Reads::Read, true)
    }

    fn open_for<T>(
        &self,
        request: Request<T>,
        reads: Reads,
        lasts: bool,
    ) -> Result<Opened<T>, Status> {
        let rules = self.access.rules();
        let (metadata, mut extensions, message) = request.into_parts();
        let headers = metadata.into_headers();
        let deadline = extensions.get().map(|Deadline(at)| *at);
        let caller = extensions.remove::<Arc<Caller>>();
        let certificate = extensions
            .remove::<Peer>()
            .and_then(|peer| peer.certificate_subject);
        let seen = match rules.read_metadata(lasts) {
            true => Seen {
                metadata: metadata_of(&headers),
                certificate,
            },
            false => Seen {
                certificate,
                ..Seen::nothing()
            },
        };
        let context = context(&headers, reads, caller, seen, deadline);
        Ok(Opened {
            message,
            context: context.map_err(|invalid| status(invalid.into()))?,
            rules,
        })
    }
}

/// An answer as a message with its metadata.
fn respond<T, M>(
    released: Released<T>,
    message: impl FnOnce(T) -> Result<M, Corrupt>,
) -> Result<Response<M>, Status> {
    let mut headers = http::HeaderMap::new();
    answers::stamp(released.answer(), &mut headers);
    let mut response = Response::new(released.encode(message).map_err(status)?);
    *response.metadata_mut() = MetadataMap::from_headers(headers);
    Ok(response)
}

#[async_trait]
impl EntityService for Grpc {
    async fn set(&self, request: Request<pb::Entity>) -> Result<Response<()>, Status> {
        let service = self.command("EntityService/Set")?;
        let Opened {
            message,
            context,
            rules,
        } = self.open(request, Reads::Write)?;
        let shown = rules.message(|| documents::set(&message));
        let request = requests::set(message, &self.limits).map_err(status)?;
        let call = rules.call(request, shown, context, |call| service.set(call));
        respond(call.await.map_err(status)?, Ok)
    }

    async fn edit(&self, request: Request<pb::Entity>) -> Result<Response<pb::Entity>, Status> {
        let service = self.command("EntityService/Edit")?;
        let Opened {
            message,
            context,
            rules,
        } = self.open(request, Reads::Write)?;
        let shown = rules.message(|| documents::edit(&message));
        let request = requests::edit(message, &self.limits).map_err(status)?;
        let call = rules.call(request, shown, context, |call| service.edit(call));
        respond(call.await.map_err(status)?, |entity| {
            answers::entity(&entity)
        })
    }

    async fn revert(&self, request: Request<pb::EventRef>) -> Result<Response<pb::Entity>, Status> {
        let service = self.command("EntityService/Revert")?;
        let Opened {
            message,
            context,
            rules,
        } = self.open(request, Reads::Write)?;
        let shown = rules.message(|| documents::revert(&message));
        let request = requests::revert(&message).map_err(status)?;
        let call = rules.call(request, shown, context, |call| service.revert(call));
        respond(call.await.map_err(status)?, |entity| {
            answers::entity(&entity)
        })
    }

    async fn del(&self, request: Request<pb::EntityRef>) -> Result<Response<()>, Status> {
        let service = self.command("EntityService/Del")?;
        let Opened {
            message,
            context,
            rules,
        } = self.open(request, Reads::Write)?;
        let shown = rules.message(|| documents::del(&message));
        let request = requests::del(&message).map_err(status)?;
        let call = rules.call(request, shown, context, |call| service.del(call));
        respond(call.await.map_err(status)?, Ok)
    }

    async fn transact(
        &self,
        request: Request<pb::TransactRequest>,
    ) -> Result<Response<Transacted>, Status> {
        let service = self.command("EntityService/Transact")?;
        let Opened {
            message,
            context,
            rules,
        } = self.open(request, Reads::Transaction)?;
        let shown = rules.transaction(
            || documents::transact(&message),
            || documents::operations(&message),
        );
        let request = requests::transact(message, &self.limits).map_err(status)?;
        let call = rules.call(request, shown, context, |call| service.transact(call));
        respond(call.await.map_err(status)?, |events| {
            answers::transaction(&events)
        })
    }

    async fn get(&self, request: Request<pb::EntityRef>) -> Result<Response<pb::Entity>, Status> {
        let service = self.query("EntityService/Get")?;
        let Opened {
            message,
            context,
            rules,
        } = self.open(request, Reads::Read)?;
        let shown = rules.message(|| documents::get(&message));
        let request = requests::get(&message).map_err(status)?;
        let call = rules.call(request, shown, context, |call| service.get(call));
        respond(call.await.map_err(status)?, |entity| {
            answers::entity(&entity)
        })
    }

    async fn search(
        &self,
        request: Request<pb::SearchEntityOpts>,
    ) -> Result<Response<pb::Entities>, Status> {
        let service = self.query("EntityService/Search")?;
        let Opened {
            message,
            context,
            rules,
        } = self.open(request, Reads::Read)?;
        let shown = rules.message(|| documents::search(&message));
        let request = requests::search(&message).map_err(status)?;
        let call = rules.call(request, shown, context, |call| service.search(call));
        respond(call.await.map_err(status)?, |page| answers::entities(&page))
    }
}

#[async_trait]
impl EventService for Grpc {
    type StreamStream = stream::Empty<Result<Encoded, Status>>;

    /// Answers an empty tonic stream, and puts the real one into the response's extensions, where `framing.rs` takes
    /// it out: tonic would send every item as one whole message, and large events are sent in pieces.
    async fn stream(
        &self,
        request: Request<pb::StreamOpts>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let service = self.stream("EventService/Stream")?;
        let Opened {
            message,
            context,
            rules,
        } = self.open_subscription(request)?;
        let shown = rules.subscription(|| documents::subscribe(&message));
        let request = requests::subscribe(&message).map_err(status)?;
        let call = rules.call(request, shown, context, |call| service.stream(call));
        let mut handed = None;
        let mut response = respond(call.await.map_err(status)?, |subscription| {
            handed = Some(Handed::new(subscription.deliveries));
            Ok(stream::empty())
        })?;
        if let Some(handed) = handed {
            response.extensions_mut().insert(handed);
        }
        Ok(response)
    }

    async fn search(
        &self,
        request: Request<pb::SearchEventOpts>,
    ) -> Result<Response<EventPage>, Status> {
        let service = self.query("EventService/Search")?;
        let Opened {
            message,
            context,
            rules,
        } = self.open(request, Reads::Read)?;
        let shown = rules.message(|| documents::search_events(&message));
        let request = requests::search_events(&message).map_err(status)?;
        let call = rules.call(request, shown, context, |call| service.search_events(call));
        respond(call.await.map_err(status)?, |page| answers::events(&page))
    }

    async fn get(&self, request: Request<pb::EventRef>) -> Result<Response<Encoded>, Status> {
        let service = self.query("EventService/Get")?;
        let Opened {
            message,
            context,
            rules,
        } = self.open(request, Reads::Read)?;
        let shown = rules.message(|| documents::get_event(&message));
        let request = requests::get_event(&message).map_err(status)?;
        let call = rules.call(request, shown, context, |call| service.get_event(call));
        respond(call.await.map_err(status)?, |event| answers::event(&event))
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn a_method_of_a_service_that_is_not_here_names_it() {
        let nobody = Grpc::new(Services::default(), Access::open(), Limits::default());
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
        assert_eq!(format!("{:?}", nobody.services), "Services([])");
    }
}
