//! What each service implements: one method for each RPC, without a transport.
//!
//! An `Err` of a write says what is known of it: see [`Problem`].

use async_trait::async_trait;
use stategate_model::Event;

use crate::{
    Problem,
    access::Permitted,
    answer::{Answer, Entity, EntityPage, EventPage, Subscription},
    request::{Del, Edit, Get, GetEvent, Revert, Search, SearchEvents, Set, Subscribe, Transact},
};

/// What the command service does.
#[async_trait]
pub trait Command: Send + Sync + 'static {
    /// `EntityService/Set`.
    async fn set(&self, call: Permitted<'_, Set>) -> Result<Answer<()>, Problem>;

    /// `EntityService/Edit`.
    async fn edit(&self, call: Permitted<'_, Edit>) -> Result<Answer<Entity>, Problem>;

    /// `EntityService/Revert`.
    async fn revert(&self, call: Permitted<'_, Revert>) -> Result<Answer<Entity>, Problem>;

    /// `EntityService/Del`.
    async fn del(&self, call: Permitted<'_, Del>) -> Result<Answer<()>, Problem>;

    /// `EntityService/Transact`.
    async fn transact(&self, call: Permitted<'_, Transact>) -> Result<Answer<Vec<Event>>, Problem>;
}

/// What the query service does.
#[async_trait]
pub trait Query: Send + Sync + 'static {
    /// `EntityService/Get`.
    async fn get(&self, call: Permitted<'_, Get>) -> Result<Answer<Entity>, Problem>;

    /// `EntityService/Search`.
    async fn search(&self, call: Permitted<'_, Search>) -> Result<Answer<EntityPage>, Problem>;

    /// `EventService/Search`.
    async fn search_events(
        &self,
        call: Permitted<'_, SearchEvents>,
    ) -> Result<Answer<EventPage>, Problem>;

    /// `EventService/Get`.
    async fn get_event(&self, call: Permitted<'_, GetEvent>) -> Result<Answer<Event>, Problem>;
}

/// What the stream service does.
#[async_trait]
pub trait Stream: Send + Sync + 'static {
    /// `EventService/Stream`.
    async fn stream(&self, call: Permitted<'_, Subscribe>)
    -> Result<Answer<Subscription>, Problem>;
}
