//! Reading what the next batch needs while an append is on its way.

use std::{collections::HashMap, collections::VecDeque, pin::Pin};

use stategate_model::{EntityRef, State};
use stategate_storage::{Batch, Error, Loaded};

use super::{
    Item,
    cache::{Answered, LaneCache, LoadRequest},
};

/// A prefetch begins once the new items are at least this fraction (1 / `PER_APPEND`) of the last batch. So there
/// are about this many during one append. Each costs a round trip; more of them would load fewer items each, and
/// with fewer, more items would arrive too late for the next batch.
const PER_APPEND: usize = 2;

type Load = Pin<Box<dyn Future<Output = Result<Loaded, Error>> + Send>>;

/// At most one load, of what waiting writes need.
#[derive(Default)]
pub(super) struct Prefetch {
    load: Option<Stage>,
    /// The items before this one were looked at by a prefetch.
    looked: u64,
}

/// How far the load is.
enum Stage {
    /// Not answered yet.
    Loading(Box<LoadRequest>, Load),
    /// Answered as of a head that the append on its way may have led to.
    AtOtherHead(Box<Answered>),
}

/// Another process has moved the head.
#[derive(Debug)]
pub(super) struct Conflict;

impl Prefetch {
    /// Whether what the item needs may be on its way.
    pub(super) fn is_loading_for(&self, item: &Item) -> bool {
        matches!(self.load, Some(Stage::Loading(..))) && item.number < self.looked
    }

    /// Whether another one can begin.
    pub(super) fn is_idle(&self) -> bool {
        self.load.is_none()
    }

    /// How many of the waiting items, the last ones, are to be prefetched for; zero while they are too few. From
    /// now on they count as looked at. `last_batch` is how many items the last batch had, and `next` the number
    /// of the item that will come next.
    pub(super) fn look(&mut self, items: &VecDeque<Item>, last_batch: usize, next: u64) -> usize {
        // Numbers grow from front to back.
        let new = items.len() - items.partition_point(|item| item.number < self.looked);
        if new == 0 || new < last_batch / PER_APPEND {
            return 0;
        }
        self.looked = next;
        new
    }

    /// Begins to load.
    pub(super) fn begin(&mut self, request: LoadRequest, load: Load) {
        self.load = Some(Stage::Loading(Box::new(request), load));
    }

    /// What is answered; never anything if nothing is being loaded. Dropping the future loses nothing.
    pub(super) async fn answer(&mut self) -> Result<Loaded, Error> {
        match &mut self.load {
            Some(Stage::Loading(_, answer)) => answer.await,
            Some(Stage::AtOtherHead(_)) | None => std::future::pending().await,
        }
    }

    /// Passes an answer on to the cache. An answer as of another head is kept: the append on its way may lead
    /// there.
    pub(super) fn learn(&mut self, answer: Result<Loaded, Error>, cache: &mut LaneCache) {
        let Some(Stage::Loading(request, _)) = self.load.take() else {
            return;
        };
        match answer {
            Ok(loaded) => {
                if let Err(answered) = cache.learn(*request, loaded) {
                    self.load = Some(Stage::AtOtherHead(answered));
                }
            }
            // Whoever needs it asks again, and is told.
            Err(error) => tracing::debug!(%error, "prefetch failed"),
        }
    }

    /// Whether there is an answer as of a head that this writer has not been at.
    pub(super) fn is_at_other_head(&self) -> bool {
        matches!(self.load, Some(Stage::AtOtherHead(_)))
    }

    /// Moves the cache, and what is being loaded with it, on to where a durable batch of the writer led.
    pub(super) fn advance(
        &mut self,
        cache: &mut LaneCache,
        batch: &Batch,
        states: HashMap<EntityRef, State>,
    ) -> Result<(), Conflict> {
        let request = match &mut self.load {
            Some(Stage::Loading(request, _)) => Some(&mut **request),
            Some(Stage::AtOtherHead(answered)) => Some(&mut answered.request),
            None => None,
        };
        if !cache.advance(batch, states, request) {
            self.load = None;
        }
        match self.load.take() {
            Some(Stage::AtOtherHead(answered)) => cache
                .learn(answered.request, answered.loaded)
                .map_err(|_| Conflict),
            loading => {
                self.load = loading;
                Ok(())
            }
        }
    }

    /// Gives up what is being loaded.
    pub(super) fn give_up(&mut self) {
        self.load = None;
    }

    /// Gives up what is being loaded, and looks at every waiting item again.
    pub(super) fn begin_anew(&mut self) {
        *self = Self::default();
    }
}
