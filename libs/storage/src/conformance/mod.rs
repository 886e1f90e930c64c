//! The cases that every storage passes: the contract of [`Storage`], one promise at a time.
//!
//! A provider (or a wrapper around one) is put through all of [`CASES`], each on a fresh store; it
//! cannot leave any out. Where it lacks a capability, the case asserts that it says so. A bug found in
//! a provider becomes a case here.
//!
//! Cases fail by panicking: run each in a task of its own and name it when the task fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a case fails by panicking"
)]

mod append;
mod awkward;
mod filters;
mod history;
mod lanes;
mod lifecycle;
mod load;
mod log;
mod paging;
mod races;
mod refusals;
mod search_entities;
mod search_events;
mod world;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures::future::BoxFuture;
use stategate_model::Lanes;

use self::world::World;
use crate::{Identity, Storage};

/// Makes stores for cases. A factory serves one case.
#[async_trait]
pub trait Factory: Send + Sync + 'static {
    /// An empty store with that many lanes.
    async fn open(&self, lanes: Lanes) -> Arc<dyn Storage>;

    /// The store that [`Factory::open`] made, opened once more: as another process would while the
    /// first is open, or as the next start does once it was closed. `None` if it cannot be.
    async fn reopen(&self) -> Option<Arc<dyn Storage>>;

    /// Another store than that of [`Factory::open`], always the same one: made under this identity
    /// when it is asked for first, and opened under it from then on.
    async fn create_as(&self, identity: Identity) -> Arc<dyn Storage>;
}

/// One promise of the contract.
#[derive(Clone, Copy)]
pub struct Case {
    /// What is promised.
    pub name: &'static str,
    run: fn(World) -> BoxFuture<'static, ()>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Puts a store of that many lanes through a case. Panics if it fails.
pub async fn run(case: &Case, factory: Arc<dyn Factory>, lanes: Lanes) {
    let store = factory.open(lanes).await;
    (case.run)(World::new(Arc::clone(&store), factory)).await;
    store.close().await;
}

macro_rules! cases {
    ($($module:ident :: $name:ident,)*) => {
        /// Every case.
        pub const CASES: &[Case] = &[$(Case {
            name: concat!(stringify!($module), "::", stringify!($name)),
            run: |world| Box::pin($module::$name(world)),
        }),*];
    };
}

cases! {
    append::a_fresh_log_is_empty,
    append::positions_and_versions_count_from_one,
    append::everything_of_an_event_is_kept,
    append::a_moved_head_writes_nothing,
    append::a_repeated_append_is_known_by_its_moved_head,
    append::one_entity_changes_many_times_in_a_batch,
    append::a_full_batch_is_taken,
    append::acknowledged_writes_are_seen_by_every_read,
    append::versions_survive_deletion,
    refusals::batches_that_are_wrong_in_themselves,
    refusals::versions_that_do_not_continue,
    refusals::times_that_go_back,
    refusals::event_ids_that_are_there,
    refusals::idempotency_keys_that_are_there,
    refusals::a_refused_batch_leaves_nothing,
    refusals::neighbours_of_a_refused_batch_are_written,
    load::answers_come_in_the_order_of_questions,
    load::tombstones_have_a_version_and_no_values,
    load::replays_tell_what_a_request_did,
    load::idempotency_keys_are_told_apart,
    load::no_more_is_answered_than_asked_for,
    history::an_entity_at_a_version,
    history::an_entity_at_a_time,
    history::a_long_history_is_searched_exactly,
    history::events_are_found_by_id_for_their_entity_alone,
    history::several_events_are_found_at_once_in_the_order_asked_for,
    history::several_events_end_at_their_bytes,
    log::events_come_in_order_without_holes,
    log::reads_end_at_their_limits,
    log::a_read_gives_at_least_one_event,
    log::idempotency_keys_come_in_the_order_of_their_events,
    log::seek_finds_the_place_of_a_time,
    log::heads_follow_appends,
    lanes::each_lane_counts_for_itself,
    lanes::domains_of_one_lane_share_its_order,
    awkward::names_are_compared_byte_for_byte,
    awkward::the_borders_between_names_count,
    awkward::values_survive_byte_for_byte,
    awkward::large_values_survive,
    awkward::claims_and_traces_survive,
    awkward::extreme_times_survive,
    search_entities::finds_its_kind_alone_in_order_of_keys,
    search_entities::sees_the_newest_values_alone,
    search_entities::many_versions_do_not_hide_an_entity,
    search_entities::sorts_mixed_kinds,
    search_entities::limits_and_offsets_cut_the_same_order,
    search_entities::a_window_that_is_too_large_is_refused,
    search_events::finds_its_kind_alone_in_order_of_positions,
    search_events::times_are_inclusive,
    search_events::one_entitys_events_are_found_by_its_key,
    search_events::sorts_by_any_path,
    search_events::newest_first_is_the_reverse_order,
    search_events::whole_numbers_are_compared_exactly,
    filters::entity_filters_mean_what_the_contract_says,
    filters::event_filters_mean_what_the_contract_says,
    paging::pages_neither_skip_nor_repeat_entities,
    paging::pages_neither_skip_nor_repeat_events,
    paging::pages_continue_while_other_items_change,
    paging::pages_end_at_their_bytes,
    races::of_appends_at_one_head_one_wins,
    races::readers_never_see_a_part_of_a_batch,
    races::a_long_search_sees_no_part_of_a_batch,
    races::lanes_are_written_at_once,
    races::a_dropped_call_leaves_the_store_usable,
    races::hosted_tasks_write_as_all_others_do,
    lifecycle::a_closed_store_refuses_calls,
    lifecycle::closing_finishes_what_is_under_way,
    lifecycle::everything_is_there_after_a_restart,
    lifecycle::a_log_is_made_under_an_identity,
    lifecycle::several_processes_share_a_log,
}
