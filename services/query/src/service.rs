//! The query service: typed reads in, what they found out.

use std::sync::Arc;

use async_trait::async_trait;
use stategate_api::{
    Answer, Context, Entity, EntityPage, EventPage, Get, GetEvent, Permitted, Problem,
    Query as QueryApi, Search, SearchEvents,
};
use stategate_model::{At, EntityRef, Event, Page, Token};
use stategate_runtime::{Freshness, Positions, of_read};
use stategate_storage::{Found, Read, Storage};

use crate::view::{StorageView, View};

/// Answers Get and Search of entities and of events.
#[derive(Debug)]
pub struct QueryService {
    /// Where the past is read.
    storage: Arc<dyn Storage>,
    positions: Arc<Positions>,
    /// Where the present is.
    view: Arc<dyn View>,
}

impl QueryService {
    /// Reads from `storage`; `positions` are those of its log.
    pub fn new(storage: Arc<dyn Storage>, positions: Arc<Positions>) -> Self {
        let view = StorageView::new(Arc::clone(&storage), Arc::clone(&positions));
        Self {
            storage,
            positions,
            view: Arc::new(view),
        }
    }

    /// The same service, which reads current states elsewhere.
    #[must_use]
    pub fn viewing(self, view: Arc<dyn View>) -> Self {
        Self { view, ..self }
    }

    /// Reads what is of a domain, as new as the caller asks for.
    async fn read<T, F>(
        &self,
        context: &Context,
        positions: &Positions,
        domain: &str,
        read: impl Fn() -> F,
    ) -> Result<Read<T>, Problem>
    where
        F: Future<Output = stategate_storage::Result<Read<T>>>,
    {
        let info = self.storage.info();
        let fresh = Freshness::of(context, info.log_id, info.lanes)?;
        let look = || {
            let read = read();
            async { read.await.map_err(|error| of_read(&error)) }
        };
        let lane = info.lanes.of(domain);
        fresh
            .read(positions, lane, look, |answer| answer.position)
            .await
    }

    /// An answer with the token it was read at.
    fn answer<A, T>(&self, read: &Read<A>, value: T) -> Answer<T> {
        let log_id = self.storage.info().log_id;
        Answer::at(value, Token::of_lane(log_id, read.lane, read.position))
    }

    async fn get_now(
        &self,
        entity: EntityRef,
        context: &Context,
    ) -> Result<Answer<Entity>, Problem> {
        let (view, domain) = (&self.view, entity.domain());
        let read = self.read(context, view.positions(), domain, || view.get(&entity));
        let read = read.await?;
        let (version, values) = (read.value.version, read.value.values.clone());
        let Some(values) = values else {
            return Err(Problem::EntityNotFound {
                what: entity.to_string(),
            });
        };
        let entity = Entity {
            entity,
            values,
            version: Some(version),
        };
        let mut answer = self.answer(&read, entity);
        answer.version = Some(version);
        Ok(answer)
    }

    async fn get_then(
        &self,
        entity: EntityRef,
        at: At,
        context: &Context,
    ) -> Result<Answer<Entity>, Problem> {
        let (storage, domain) = (&self.storage, entity.domain());
        let read = self.read(context, &self.positions, domain, || {
            storage.get_at(&entity, at)
        });
        let read = read.await?;
        let point = match at {
            At::Version(version) => format!("at version {version}"),
            At::Time(time) => format!("at time {}", time.0),
        };
        let Some(event) = &read.value else {
            return Err(Problem::EntityNotFound {
                what: format!("{entity} {point}"),
            });
        };
        let Some(values) = event.state() else {
            let what = format!(
                "{entity} {point}: it was deleted at time {} (version {})",
                event.time.0, event.version
            );
            return Err(Problem::EntityNotFound { what });
        };
        let entity = Entity {
            entity,
            values: values.clone(),
            version: Some(event.version),
        };
        let mut answer = self.answer(&read, entity);
        answer.version = Some(event.version);
        Ok(answer)
    }
}

/// A found entity as it is answered.
fn answered(found: Found) -> Entity {
    Entity {
        entity: found.entity,
        values: found.values,
        version: Some(found.version),
    }
}

#[async_trait]
impl QueryApi for QueryService {
    async fn get(&self, call: Permitted<'_, Get>) -> Result<Answer<Entity>, Problem> {
        let (Get { entity, at }, context) = call.into_parts();
        match at {
            None => self.get_now(entity, &context).await,
            Some(at) => self.get_then(entity, at, &context).await,
        }
    }

    async fn search(&self, call: Permitted<'_, Search>) -> Result<Answer<EntityPage>, Problem> {
        let (Search { query, binding }, context) = call.into_parts();
        let (view, domain) = (&self.view, query.of.domain.as_str());
        let read = self.read(&context, view.positions(), domain, || view.search(&query));
        let mut read = read.await?;
        let found = std::mem::take(&mut read.value.items);
        let page = Page {
            items: found.into_iter().map(answered).collect(),
            next: read.value.next.take(),
        };
        let page = EntityPage::new(page, query.sort, binding);
        Ok(self.answer(&read, page))
    }

    async fn search_events(
        &self,
        call: Permitted<'_, SearchEvents>,
    ) -> Result<Answer<EventPage>, Problem> {
        let (SearchEvents { query, binding }, context) = call.into_parts();
        let (storage, domain) = (&self.storage, query.of.domain.as_str());
        let read = self.read(&context, &self.positions, domain, || {
            storage.search_events(&query)
        });
        let mut read = read.await?;
        let page = Page {
            items: std::mem::take(&mut read.value.items),
            next: read.value.next.take(),
        };
        let page = EventPage::new(page, query.sort, binding);
        Ok(self.answer(&read, page))
    }

    async fn get_event(&self, call: Permitted<'_, GetEvent>) -> Result<Answer<Event>, Problem> {
        let (GetEvent { entity, event: id }, context) = call.into_parts();
        let (storage, domain) = (&self.storage, entity.domain());
        let read = self.read(&context, &self.positions, domain, || {
            storage.get_event(&entity, id)
        });
        let mut read = read.await?;
        let Some(event) = read.value.take() else {
            return Err(Problem::EventNotFound {
                what: format!("{id} of {entity}"),
            });
        };
        Ok(self.answer(&read, event))
    }
}
