//! What a subscription selects.

use std::cell::OnceCell;

use stategate_api::{Start, Subscribe};
use stategate_model::{
    EntityRef, Event, Filter, Glob, Lane, Lanes, Method, Timestamp, value::Corrupt,
};

/// An event while filters are applied to it. They parse its values and claims into trees up to a hundred times as
/// large as the JSON. The trees are made in a copy that is dropped with this, because the event itself is kept.
#[derive(Debug)]
pub(crate) struct Looked<'a> {
    event: &'a Event,
    copy: OnceCell<Event>,
}

impl<'a> Looked<'a> {
    /// Nothing was made of it yet.
    pub(crate) fn at(event: &'a Event) -> Self {
        Self {
            event,
            copy: OnceCell::new(),
        }
    }

    /// The event, for who makes something of it.
    fn copy(&self) -> &Event {
        self.copy.get_or_init(|| Event {
            values: self.event.values.lean(),
            claims: self.event.claims.lean(),
            ..self.event.clone()
        })
    }
}

/// The events a subscriber wants.
#[derive(Debug)]
pub(crate) struct Selection {
    domain: Glob,
    kind: Glob,
    /// `None`: every key.
    key: Option<Glob>,
    /// Empty: every method.
    methods: Vec<Method>,
    filter: Filter,
    /// Events before this time are left out. It matters if the time was in the future when the subscription began.
    since: Option<Timestamp>,
}

impl Selection {
    /// What a request selects.
    pub(crate) fn of(request: Subscribe) -> Self {
        Self {
            domain: request.domain,
            kind: request.kind,
            key: request.key,
            methods: request.methods,
            filter: request.filter,
            since: match request.start {
                Start::Since(time) => Some(time),
                Start::Live | Start::Beginning | Start::After(_) => None,
            },
        }
    }

    /// The lanes that can hold what is selected.
    pub(crate) fn lanes(&self, lanes: Lanes) -> Vec<Lane> {
        match self.domain.exact() {
            Some(domain) => vec![lanes.of(domain)],
            None => lanes.iter().collect(),
        }
    }

    /// The one entity that is selected, if it is only one.
    pub(crate) fn entity(&self) -> Option<EntityRef> {
        let key = self.key.as_ref()?.exact()?;
        // A name that no entity can have is matched like a glob, which finds nothing.
        EntityRef::new(self.domain.exact()?, self.kind.exact()?, key).ok()
    }

    /// Whether entities of a domain and type may match.
    pub(crate) fn matches_kind(&self, domain: &str, kind: &str) -> bool {
        self.domain.matches(domain) && self.kind.matches(kind)
    }

    /// Whether an event matches whose domain and type do.
    pub(crate) fn matches_within_kind(&self, looked: &Looked<'_>) -> Result<bool, Corrupt> {
        let event = looked.event;
        if self
            .key
            .as_ref()
            .is_some_and(|glob| !glob.matches(event.entity.key()))
        {
            return Ok(false);
        }
        if self.since.is_some_and(|since| event.time < since) {
            return Ok(false);
        }
        if !self.methods.is_empty() && !self.methods.contains(&event.method) {
            return Ok(false);
        }
        if self.filter.is_all() {
            Ok(true)
        } else {
            self.filter.matches_event(looked.copy())
        }
    }

    /// Whether an event matches. Nothing of what it takes to know is kept.
    pub(crate) fn matches(&self, event: &Event) -> Result<bool, Corrupt> {
        Ok(
            self.matches_kind(event.entity.domain(), event.entity.kind())
                && self.matches_within_kind(&Looked::at(event))?,
        )
    }
}
