//! Requests, parsed: their types cannot hold what the contract refuses.

use stategate_model::{
    At, Domain, EntityQuery, EntityRef, EventId, EventQuery, Expect, Filter, Glob, Method,
    Timestamp, Token, Values,
};

use crate::page_token::Binding;

/// Replaces an entity's values, creating it if it is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Which entity.
    pub entity: EntityRef,
    /// Its values from now on.
    pub values: Values,
}

/// Overwrites the top-level keys given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Which entity.
    pub entity: EntityRef,
    /// The keys to overwrite, with their values.
    pub values: Values,
}

/// Sets an entity to the values in one of its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revert {
    /// Which entity.
    pub entity: EntityRef,
    /// The event; it has to be one of this entity.
    pub event: EventId,
}

/// Removes an entity from the current state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Del {
    /// Which entity.
    pub entity: EntityRef,
}

/// Several writes in one domain, all or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transact {
    /// The domain of every step.
    pub domain: Domain,
    /// 1 to 1,000 steps, which see each other in order.
    pub steps: Vec<Step>,
}

/// One operation of a transaction, with its own precondition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// What must hold of the entity.
    pub precondition: Expect,
}

/// What a step of a transaction does: one of the writes there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// As [`Set`].
    Set(Set),
    /// As [`Edit`].
    Edit(Edit),
    /// As [`Revert`].
    Revert(Revert),
    /// As [`Del`].
    Del(Del),
}

impl Action {
    /// The entity that is written.
    pub fn entity(&self) -> &EntityRef {
        match self {
            Self::Set(set) => &set.entity,
            Self::Edit(edit) => &edit.entity,
            Self::Revert(revert) => &revert.entity,
            Self::Del(del) => &del.entity,
        }
    }
}

/// Reads an entity, as it is or as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Get {
    /// Which entity.
    pub entity: EntityRef,
    /// The point in its past; `None` for the present.
    pub at: Option<At>,
}

/// Searches current states.
#[derive(Debug, Clone)]
pub struct Search {
    /// What is searched for.
    pub query: EntityQuery,
    /// What the page tokens of this search are bound to.
    pub binding: Binding,
}

/// Searches the history.
#[derive(Debug, Clone)]
pub struct SearchEvents {
    /// What is searched for.
    pub query: EventQuery,
    /// What the page tokens of this search are bound to.
    pub binding: Binding,
}

/// Reads one event of an entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetEvent {
    /// Which entity.
    pub entity: EntityRef,
    /// The event; it has to be one of this entity.
    pub event: EventId,
}

/// Subscribes to events.
#[derive(Debug)]
pub struct Subscribe {
    /// Which domains.
    pub domain: Glob,
    /// Which types.
    pub kind: Glob,
    /// Which keys; `None` for every key.
    pub key: Option<Glob>,
    /// Made by which methods; empty for every method.
    pub methods: Vec<Method>,
    /// What must hold of an event.
    pub filter: Filter,
    /// Where the subscription begins.
    pub start: Start,
    /// Whether a silent subscription is told how far it is.
    pub progress: bool,
}

/// Where a subscription begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// With the next event.
    Live,
    /// With the first event of the log.
    Beginning,
    /// With the first event at this time or later.
    Since(Timestamp),
    /// After what the token has.
    After(Token),
}
