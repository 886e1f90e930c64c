//! Where current states are read: the storage, or what is built from its log beside it.
//!
//! A view has a position of its own in each lane and says with each answer which it was. Whoever asks for
//! an answer that is newer waits until the view is told that it got there.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use stategate_model::{EntityQuery, EntityRef, Page, State};
use stategate_runtime::Positions;
use stategate_storage::{Found, Read, Result, Storage};

/// Current states of all entities, as they were at some position.
#[async_trait]
pub trait View: fmt::Debug + Send + Sync + 'static {
    /// How far the view has come, for those who wait until it has come far enough.
    fn positions(&self) -> &Positions;

    /// The state of one entity.
    async fn get(&self, entity: &EntityRef) -> Result<Read<State>>;

    /// The entities that a search finds.
    async fn search(&self, query: &EntityQuery) -> Result<Read<Page<Found>>>;
}

/// The storage, which is as far as the log.
#[derive(Debug)]
pub(crate) struct StorageView {
    storage: Arc<dyn Storage>,
    positions: Arc<Positions>,
}

impl StorageView {
    pub(crate) fn new(storage: Arc<dyn Storage>, positions: Arc<Positions>) -> Self {
        Self { storage, positions }
    }
}

#[async_trait]
impl View for StorageView {
    fn positions(&self) -> &Positions {
        &self.positions
    }

    async fn get(&self, entity: &EntityRef) -> Result<Read<State>> {
        self.storage.get(entity).await
    }

    async fn search(&self, query: &EntityQuery) -> Result<Read<Page<Found>>> {
        self.storage.search_entities(query).await
    }
}
