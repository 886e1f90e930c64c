//! Where it is decided what a caller may do and see.
//!
//! A policy judges the request before the service gets it, and the answer or the event after. While authentication is
//! off, everything is permitted. There is no third way: a service takes a [`Permitted`] request, a transport encodes a
//! [`Released`] answer, a stream sends a [`Delivery`](crate::Delivery) that its [`Gate`] made, and all three are made
//! here alone.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use stategate_model::value::Corrupt;
use stategate_policy::{Decision, Document, Policies, Policy, PolicySet};

use crate::{
    Problem,
    answer::Answer,
    audit,
    context::Context,
    documents,
    gate::Gate,
    input::input,
    operation::{Operation, Shown as _, Subject, View, stands_for},
    request::Subscribe,
};

/// How long the operations of a transaction are judged without giving way.
const TURN: Duration = Duration::from_millis(2);

/// The one way from a decoded request to a service, and from its answer back.
#[derive(Debug, Clone)]
pub struct Access(Option<Policies>);

impl Access {
    /// Everybody may do and see everything: authentication is off.
    pub fn open() -> Self {
        Self(None)
    }

    /// Verified callers may do and see what the policies say.
    pub fn governed(policies: Policies) -> Self {
        Self(Some(policies))
    }

    /// The rules in force now, for one call: its request and its answer are judged by the same ones.
    pub fn rules(&self) -> Rules {
        Rules(self.0.as_ref().map(|policies| Governed {
            set: policies.current(),
            policies: policies.clone(),
        }))
    }
}

/// What one call is judged by.
#[derive(Debug)]
pub struct Rules(Option<Governed>);

/// The policies of a call, and where those of later events come from.
#[derive(Debug)]
struct Governed {
    set: Arc<PolicySet>,
    policies: Policies,
}

/// The message of a request as policies see it; made by [`Rules::message`] or [`Rules::transaction`].
#[derive(Debug)]
pub struct Message {
    body: Document,
    /// Of a transaction: each operation as the message of the call it stands for.
    operations: Vec<Document>,
}

impl Rules {
    /// Whether a policy looks at headers of the call, or, if it `lasts`, might come to.
    pub fn read_metadata(&self, lasts: bool) -> bool {
        self.0.as_ref().is_some_and(|governed| {
            if lasts {
                return true;
            }
            let PolicySet { request, response } = &*governed.set;
            let policies = [request, response].into_iter().flatten();
            let mut read = policies.map(|policy| !policy.reads().metadata.is_none());
            read.any(|reads| reads)
        })
    }

    /// The message of a request, which is made into a document only if the policy looks at it.
    pub fn message(&self, body: impl FnOnce() -> Document) -> Message {
        Message {
            body: self.read(body),
            operations: Vec::new(),
        }
    }

    /// The message of a transaction, and its operations as the messages of the calls they stand for.
    pub fn transaction(
        &self,
        body: impl FnOnce() -> Document,
        operations: impl FnOnce() -> Vec<Document>,
    ) -> Message {
        Message {
            body: self.read(body),
            operations: match self.reads_body() {
                true => operations(),
                false => Vec::new(),
            },
        }
    }

    /// The message of a subscription. It is judged again when the policies are replaced, perhaps by some that look at
    /// it where these do not.
    pub fn subscription(&self, body: impl FnOnce() -> Document) -> Message {
        Message {
            body: self.0.as_ref().map_or_else(Document::null, |_| body()),
            operations: Vec::new(),
        }
    }

    fn read(&self, body: impl FnOnce() -> Document) -> Document {
        match self.reads_body() {
            true => body(),
            false => Document::null(),
        }
    }

    fn reads_body(&self) -> bool {
        let governed = self.0.as_ref();
        governed.is_some_and(|governed| reads_body(governed.set.request.as_ref()))
    }

    /// Has a call carried out by `handle`, if its policy permits it.
    pub async fn call<'r, R, F>(
        &'r self,
        request: R,
        message: Message,
        context: Context,
        handle: impl FnOnce(Permitted<'r, R>) -> F,
    ) -> Result<Released<R::Answer>, Problem>
    where
        R: Operation,
        F: Future<Output = Result<Answer<R::Answer>, Problem>>,
    {
        let subject = request.subject();
        let Message { body, operations } = message;
        if let Some(governed) = &self.0 {
            governed.permits(R::METHOD, subject, body.clone(), &context)?;
            if let Subject::Transact(transact) = subject {
                // A transaction can do nothing that its operations alone could not.
                let mut operations = operations.into_iter();
                let mut since = Instant::now();
                for (index, step) in transact.steps.iter().enumerate() {
                    let (method, subject) = stands_for(&step.action);
                    let body = operations.next().unwrap_or_else(Document::null);
                    let permitted = governed.permits(method, subject, body, &context);
                    permitted.map_err(|problem| problem.of_operation(index))?;
                    if since.elapsed() >= TURN {
                        // Others wait for this thread, and the call's own deadline is looked at between.
                        tokio::task::yield_now().await;
                        since = Instant::now();
                    }
                }
            }
        }
        let context = Arc::new(context);
        let answer = handle(Permitted {
            request,
            body,
            context: Arc::clone(&context),
            rules: self,
        });
        let answer = answer.await?;
        if let Some(governed) = &self.0 {
            let released = governed.releases(R::METHOD, answer.value.view(), &context);
            released.map_err(|withheld| withheld.problem(R::WRITES))?;
        }
        Ok(Released {
            answer,
            writes: R::WRITES,
        })
    }
}

/// An answer that its caller does not get.
enum Withheld {
    /// The policy does not let it.
    Denied,
    /// It cannot be shown to the policy.
    Corrupt(Corrupt),
}

impl Withheld {
    /// What is written stays written, and no error may say otherwise.
    fn problem(self, writes: bool) -> Problem {
        match (self, writes) {
            (Self::Denied, true) => Problem::ResponseDenied,
            (Self::Denied, false) => Problem::Denied,
            (Self::Corrupt(corrupt), true) => Problem::after_write(&corrupt),
            (Self::Corrupt(corrupt), false) => Problem::internal(&corrupt),
        }
    }
}

impl Governed {
    fn permits(
        &self,
        method: &'static str,
        subject: Subject<'_>,
        body: Document,
        context: &Context,
    ) -> Result<(), Problem> {
        if context.caller.is_none() {
            // A transport that lets calls get here without a verified token has a fault: they are refused all the same.
            return Err(Problem::unauthenticated("a bearer token is required"));
        }
        let decision = self.set.request(|| input(method, context, body));
        match decision {
            Decision::Allow => Ok(()),
            Decision::Deny(why) => {
                audit::denied(context, method, "request", &why, || subject.about());
                Err(Problem::Denied)
            }
        }
    }

    fn releases(
        &self,
        method: &'static str,
        view: View<'_>,
        context: &Context,
    ) -> Result<(), Withheld> {
        if matches!(view, View::Subscription) {
            // There is nothing to see in it but its events, which are judged one by one.
            return Ok(());
        }
        let body = match reads_body(self.set.response.as_ref()) {
            true => documents::answer(view).map_err(Withheld::Corrupt)?,
            false => Document::null(),
        };
        match self.set.response(|| input(method, context, body)) {
            Decision::Allow => Ok(()),
            Decision::Deny(why) => {
                audit::denied(context, method, "response", &why, String::new);
                Err(Withheld::Denied)
            }
        }
    }
}

fn reads_body(policy: Option<&Policy>) -> bool {
    policy.is_some_and(|policy| policy.reads().body)
}

/// A request that the policy permits. Only [`Rules`] make one.
#[derive(Debug)]
pub struct Permitted<'r, R> {
    request: R,
    body: Document,
    context: Arc<Context>,
    rules: &'r Rules,
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
        let policies = self
            .rules
            .0
            .as_ref()
            .map(|governed| governed.policies.clone());
        let permitted_by = self
            .rules
            .0
            .as_ref()
            .map(|governed| Arc::clone(&governed.set));
        Gate::new(
            Arc::clone(&self.context),
            self.body.clone(),
            policies.zip(permitted_by),
        )
    }
}

/// An answer that its caller may see. Only [`Rules`] make one.
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
        encode(self.answer.value).map_err(|corrupt| Withheld::Corrupt(corrupt).problem(self.writes))
    }
}
