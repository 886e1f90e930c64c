//! What may be asked for: one type for each RPC, with its name, its answer, and what is said of both to those who
//! decide.

use stategate_model::{Event, KindRef};

use crate::{
    answer::{Entity, EntityPage, EventPage, Subscription},
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

    /// Which request it is, and what is in it: policies see its message, and the log names what it is about.
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

/// An operation of a transaction as the call it stands for, and the method of that.
pub(crate) fn stands_for(action: &Action) -> (&'static str, Subject<'_>) {
    match action {
        Action::Set(set) => (Set::METHOD, set.subject()),
        Action::Edit(edit) => (Edit::METHOD, edit.subject()),
        Action::Revert(revert) => (Revert::METHOD, revert.subject()),
        Action::Del(del) => (Del::METHOD, del.subject()),
    }
}

/// A request of any RPC.
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

impl Subject<'_> {
    /// What it is about, for the log: names, never values.
    pub fn about(&self) -> String {
        match self {
            Self::Set(set) => set.entity.to_string(),
            Self::Edit(edit) => edit.entity.to_string(),
            Self::Revert(revert) => revert.entity.to_string(),
            Self::Del(del) => del.entity.to_string(),
            Self::Transact(transact) => transact.domain.to_string(),
            Self::Get(get) => get.entity.to_string(),
            Self::Search(search) => kind(&search.query.of),
            Self::SearchEvents(search) => kind(&search.query.of),
            Self::GetEvent(get) => get.entity.to_string(),
            Self::Subscribe(subscribe) => format!("{}/{}", subscribe.domain, subscribe.kind),
        }
    }
}

fn kind(of: &KindRef) -> String {
    format!("{}/{}", of.domain, of.kind)
}

/// An answer of any RPC, to be shown to a policy.
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

/// An answer that a policy can be shown.
pub trait Shown {
    /// The answer as one of those there are.
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
