//! Where it is decided what a caller may do and see.
//!
//! A policy sees the typed request before the service does, and the typed answer or the decoded event
//! after, each with the caller's context. While authentication is off the policy is [`Open`].

use std::{fmt, sync::Arc};

use bytes::Bytes;
use stategate_model::{Event, value::Corrupt};

use crate::{
    Problem,
    answer::{Answer, Delivery, Entity, EntityPage, EventPage, Sent, Subscription},
    context::Context,
    request::{
        Del, Edit, Get, GetEvent, Operation, Revert, Search, SearchEvents, Set, Subscribe, Transact,
    },
};

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

/// What decides.
pub trait Policy: fmt::Debug + Send + Sync + 'static {
    /// Whether a call may be carried out.
    fn permits(&self, request: Subject<'_>, context: &Context) -> Result<(), Problem>;

    /// Whether its caller may see the answer. A write whose answer is refused stays written.
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

/// The one way from a decoded request to a service, and from its answer back.
#[derive(Debug, Clone)]
pub struct Access(Arc<dyn Policy>);

impl Access {
    /// Everybody may do and see everything.
    pub fn open() -> Self {
        Self(Arc::new(Open))
    }

    /// Has `policy` decide.
    pub fn new(policy: Arc<dyn Policy>) -> Self {
        Self(policy)
    }

    /// What every event for a caller goes through.
    pub fn gate(&self, context: Arc<Context>) -> Gate {
        let policy = Arc::clone(&self.0);
        Gate { context, policy }
    }

    /// Has a call carried out by `handle`, if the policy permits it.
    pub async fn call<R, F>(
        &self,
        request: R,
        context: Context,
        handle: impl FnOnce(Permitted<R>) -> F,
    ) -> Result<Released<R::Answer>, Problem>
    where
        R: Operation,
        F: Future<Output = Result<Answer<R::Answer>, Problem>>,
    {
        self.0.permits(request.subject(), &context)?;
        let context = Arc::new(context);
        let answer = handle(Permitted {
            request,
            context: Arc::clone(&context),
            policy: Arc::clone(&self.0),
        });
        let answer = answer.await?;
        self.0.releases(R::METHOD, answer.value.view(), &context)?;
        Ok(Released(answer))
    }
}

/// A request that the policy permits. Only [`Access`] makes one.
#[derive(Debug)]
pub struct Permitted<R> {
    request: R,
    context: Arc<Context>,
    policy: Arc<dyn Policy>,
}

impl<R> Permitted<R> {
    /// The request.
    pub fn request(&self) -> &R {
        &self.request
    }

    /// What came with it.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Both, to be taken apart.
    pub fn into_parts(self) -> (R, Arc<Context>) {
        (self.request, self.context)
    }
}

impl Permitted<Subscribe> {
    /// What every event of the subscription goes through.
    pub fn gate(&self) -> Gate {
        Gate {
            context: Arc::clone(&self.context),
            policy: Arc::clone(&self.policy),
        }
    }
}

/// An answer that its caller may see. Only [`Access`] makes one.
#[derive(Debug)]
pub struct Released<T>(Answer<T>);

impl<T> Released<T> {
    /// The answer, to be encoded.
    pub fn into_answer(self) -> Answer<T> {
        self.0
    }
}

/// Decides on each event for one subscriber.
#[derive(Debug, Clone)]
pub struct Gate {
    context: Arc<Context>,
    policy: Arc<dyn Policy>,
}

impl Gate {
    /// The event as it is sent, if the subscriber may see it. It is encoded only then.
    pub fn deliver(
        &self,
        event: &Event,
        encode: impl FnOnce() -> Result<Bytes, Corrupt>,
    ) -> Result<Option<Delivery>, Corrupt> {
        if !self.policy.delivers(event, &self.context) {
            return Ok(None);
        }
        Ok(Some(Delivery(Sent::Event {
            lane: event.lane,
            position: event.position,
            encoded: encode()?,
        })))
    }
}
