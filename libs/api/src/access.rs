//! Where it is decided what a caller may do and see.
//!
//! A policy sees the typed request before the service does, and the typed answer or the decoded event
//! after, each with the caller's context. While authentication is off the policy is [`Open`].

use std::sync::Arc;

use bytes::Bytes;
use stategate_model::{Event, value::Corrupt};

use crate::{
    Problem,
    answer::{Answer, Delivery, Sent},
    context::Context,
    policy::{Open, Operation, Policy, Shown as _, Subject, stands_for},
    request::Subscribe,
};

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

    /// Has a call carried out by `handle`, if the policy permits it.
    pub async fn call<'a, R, F>(
        &'a self,
        request: R,
        context: Context,
        handle: impl FnOnce(Permitted<'a, R>) -> F,
    ) -> Result<Released<R::Answer>, Problem>
    where
        R: Operation,
        F: Future<Output = Result<Answer<R::Answer>, Problem>>,
    {
        let policy = &self.0;
        let subject = request.subject();
        policy.permits(subject, &context)?;
        if let Subject::Transact(transact) = subject {
            // A transaction can do nothing that its operations alone could not.
            for (index, step) in transact.steps.iter().enumerate() {
                let permitted = policy.permits(stands_for(&step.action), &context);
                permitted.map_err(|problem| problem.of_operation(index))?;
            }
        }
        let context = Arc::new(context);
        let answer = handle(Permitted {
            request,
            context: Arc::clone(&context),
            access: self,
        });
        let answer = answer.await?;
        let released = policy.releases(R::METHOD, answer.value.view(), &context);
        released.map_err(|problem| match R::WRITES {
            true => Problem::ResponseDenied,
            false => problem,
        })?;
        Ok(Released {
            answer,
            writes: R::WRITES,
        })
    }
}

/// A request that the policy permits. Only [`Access`] makes one.
#[derive(Debug)]
pub struct Permitted<'a, R> {
    request: R,
    context: Arc<Context>,
    access: &'a Access,
}

impl<R> Permitted<'_, R> {
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

impl Permitted<'_, Subscribe> {
    /// What every event of the subscription goes through.
    pub fn gate(&self) -> Gate {
        Gate {
            context: Arc::clone(&self.context),
            policy: Arc::clone(&self.access.0),
        }
    }
}

/// An answer that its caller may see. Only [`Access`] makes one.
#[derive(Debug)]
pub struct Released<T> {
    answer: Answer<T>,
    writes: bool,
}

impl<T> Released<T> {
    /// What is said of the answer beside it.
    pub fn answer(&self) -> &Answer<T> {
        &self.answer
    }

    /// The answer as a transport has it. If that cannot be made, what was written stays written.
    pub fn encode<M>(self, encode: impl FnOnce(T) -> Result<M, Corrupt>) -> Result<M, Problem> {
        encode(self.answer.value).map_err(|corrupt| match self.writes {
            true => Problem::after_write(&corrupt),
            false => Problem::internal(&corrupt),
        })
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
            id: event.id,
            encoded: encode()?,
        })))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use futures::FutureExt as _;
    use stategate_model::{Domain, EntityRef, Expect, Values};

    use super::*;
    use crate::{
        policy::View,
        request::{Action, Del, Get, Set, Step, Transact},
    };

    /// Nobody may delete, and nobody sees an answer.
    #[derive(Debug)]
    struct Strict;

    impl Policy for Strict {
        fn permits(&self, request: Subject<'_>, _: &Context) -> Result<(), Problem> {
            match request {
                Subject::Del(_) => Err(Problem::Denied),
                _ => Ok(()),
            }
        }

        fn releases(&self, _: &'static str, _: View<'_>, _: &Context) -> Result<(), Problem> {
            Err(Problem::Denied)
        }

        fn delivers(&self, _: &Event, _: &Context) -> bool {
            false
        }
    }

    fn entity() -> EntityRef {
        EntityRef::new("d", "t", "k").unwrap()
    }

    fn set() -> Set {
        Set {
            entity: entity(),
            values: Values::empty(),
        }
    }

    /// What becomes of a call, and whether it got to its service.
    fn call<R: Operation + fmt::Debug>(request: R, value: R::Answer) -> (Problem, bool) {
        let mut was_called = false;
        let access = Access::new(Arc::new(Strict));
        let refused = access.call(request, Context::anonymous(), |_| {
            was_called = true;
            async {
                Ok(Answer {
                    value,
                    position: None,
                    version: None,
                    replayed: false,
                })
            }
        });
        let refused = refused.now_or_never().unwrap();
        (refused.err().unwrap(), was_called)
    }

    #[test]
    fn what_is_not_permitted_does_not_get_to_its_service() {
        let del = Del { entity: entity() };
        assert_eq!(call(del, ()), (Problem::Denied, false));
    }

    #[test]
    fn a_transaction_does_nothing_that_its_operations_may_not() {
        let step = |action| Step {
            action,
            precondition: Expect::Anything,
        };
        let transact = Transact {
            domain: Domain::new("d").unwrap(),
            steps: vec![
                step(Action::Set(set())),
                step(Action::Del(Del { entity: entity() })),
            ],
        };
        let (refused, was_called) = call(transact, Vec::new());
        assert_eq!(refused, Problem::Denied.of_operation(1));
        assert!(!was_called);
    }

    #[test]
    fn a_write_whose_answer_is_refused_is_said_to_be_written() {
        assert_eq!(call(set(), ()), (Problem::ResponseDenied, true));
        let get = Get {
            entity: entity(),
            at: None,
        };
        let answer = crate::Entity {
            entity: entity(),
            values: Values::empty(),
            version: None,
        };
        assert_eq!(call(get, answer), (Problem::Denied, true));
    }

    #[test]
    fn what_cannot_be_encoded_after_a_write_may_have_been_written() {
        let access = Access::open();
        let released = |request: Set| {
            let answer = |_| async {
                Ok(Answer {
                    value: (),
                    position: None,
                    version: None,
                    replayed: false,
                })
            };
            let call = access.call(request, Context::anonymous(), answer);
            call.now_or_never().unwrap().unwrap()
        };
        let damaged = Values::from_canonical("x").object().unwrap_err();
        let problem = released(set()).encode(|()| Err::<(), _>(damaged));
        assert!(matches!(problem, Err(Problem::OutcomeUnknown { .. })));
    }
}
