//! What a policy decides on: requests, answers and events, as they are to it.

use std::fmt;

use stategate_model::Event;

use crate::{
    Problem,
    answer::{Entity, EntityPage, EventPage, Subscription},
    context::Context,
    request::{
        Action, Del, Edit, Get, GetEvent, Revert, Search, SearchEvents, Set, Subscribe, Transact,
    },
};

/// What a caller may ask for. One type for each RPC.
pub trait Operation: Send + Sync + 'static {
    /// What it is answered with.
    type Answer: Shown + Send + 'static;

    /// The full gRPC method, which names the operation on every transport.
    const METHOD: &'static str;

    /// Whether it changes the log.
    const WRITES: bool;

    /// The request as policies see it.
    fn subject(&self) -> Subject<'_>;
}

macro_rules! operations {
    ($($does:ident $name:ident: $method:literal -> $answer:ty;)*) => {
        $(impl Operation for $name {
            type Answer = $answer;

            const METHOD: &'static str = concat!("/stategate.", $method);

            const WRITES: bool = operations!(@ $does);

            fn subject(&self) -> Subject<'_> {
                Subject::$name(self)
            }
        })*
    };
    (@ write) => { true };
    (@ read) => { false };
}

operations! {
    write Set: "EntityService/Set" -> ();
    write Edit: "EntityService/Edit" -> Entity;
    write Revert: "EntityService/Revert" -> Entity;
    write Del: "EntityService/Del" -> ();
    write Transact: "EntityService/Transact" -> Vec<Event>;
    read Get: "EntityService/Get" -> Entity;
    read Search: "EntityService/Search" -> EntityPage;
    read SearchEvents: "EventService/Search" -> EventPage;
    read GetEvent: "EventService/Get" -> Event;
    read Subscribe: "EventService/Stream" -> Subscription;
}

/// An operation of a transaction as the call it stands for.
pub(crate) fn stands_for(action: &Action) -> Subject<'_> {
    match action {
        Action::Set(set) => set.subject(),
        Action::Edit(edit) => edit.subject(),
        Action::Revert(revert) => revert.subject(),
        Action::Del(del) => del.subject(),
    }
}

/// A request, as a policy sees it.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// `EntityService/Set`.
    Set(&'a Set),
    /// `EntityService/Edit`.
    Edit(&'a Edit),
    /// `EntityService/Revert`.
    Revert(&'a Revert),
    /// `EntityService/Del`.
    Del(&'a Del),
    /// `EntityService/Transact`; each of its steps is judged as the call it stands for, too.
    Transact(&'a Transact),
    /// `EntityService/Get`.
    Get(&'a Get),
    /// `EntityService/Search`.
    Search(&'a Search),
    /// `EventService/Search`.
    SearchEvents(&'a SearchEvents),
    /// `EventService/Get`.
    GetEvent(&'a GetEvent),
    /// `EventService/Stream`.
    Subscribe(&'a Subscribe),
}

/// An answer, as a policy sees it.
#[derive(Debug, Clone, Copy)]
pub enum View<'a> {
    /// Nothing but that it is done.
    Done,
    /// An entity.
    Entity(&'a Entity),
    /// A page of entities.
    Entities(&'a EntityPage),
    /// An event.
    Event(&'a Event),
    /// A page of events.
    Events(&'a EventPage),
    /// The events of a transaction.
    Transaction(&'a [Event]),
    /// A subscription; its events are judged one by one.
    Subscription,
}

/// What a policy is shown of an answer.
pub trait Shown {
    /// The answer as a policy sees it.
    fn view(&self) -> View<'_>;
}

macro_rules! shown {
    ($($of:ty: |$answer:ident| $view:expr;)*) => {
        $(impl Shown for $of {
            fn view(&self) -> View<'_> {
                let $answer = self;
                $view
            }
        })*
    };
}

shown! {
    (): |_done| View::Done;
    Entity: |entity| View::Entity(entity);
    EntityPage: |page| View::Entities(page);
    Event: |event| View::Event(event);
    EventPage: |page| View::Events(page);
    Vec<Event>: |events| View::Transaction(events);
    Subscription: |_subscription| View::Subscription;
}

/// What decides. It sees each thing as often as it is asked, and answers without waiting.
///
/// A policy that looks into values or claims takes a lean copy of them first: what it is shown may be kept
/// by the thousand for long, and would keep the tree that was made of it.
pub trait Policy: fmt::Debug + Send + Sync + 'static {
    /// Whether a call may be carried out.
    fn permits(&self, request: Subject<'_>, context: &Context) -> Result<(), Problem>;

    /// Whether its caller may see the answer. A write whose answer is refused stays written, which its
    /// caller is told whatever the problem is.
    fn releases(
        &self,
        method: &'static str,
        answer: View<'_>,
        context: &Context,
    ) -> Result<(), Problem>;

    /// Whether a subscriber gets an event.
    fn delivers(&self, event: &Event, context: &Context) -> bool;
}

/// Everybody may do and see everything: authentication is off.
#[derive(Debug, Clone, Copy, Default)]
pub struct Open;

impl Policy for Open {
    fn permits(&self, _: Subject<'_>, _: &Context) -> Result<(), Problem> {
        Ok(())
    }

    fn releases(&self, _: &'static str, _: View<'_>, _: &Context) -> Result<(), Problem> {
        Ok(())
    }

    fn delivers(&self, _: &Event, _: &Context) -> bool {
        true
    }
}
