//! Which events a subscriber sees.
//!
//! A decision on an event is made once for all subscribers that a policy cannot tell apart: it is kept with the event
//! ([`Verdicts`]) under what the policy looks at of the subscriber. Where the policy does not look at the event, one
//! decision holds for all events, until the policies are replaced.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use parking_lot::Mutex;
use stategate_metrics::Counter;
use stategate_model::{Event, value::Corrupt};
use stategate_policy::{Class, Decision, Denied, Document, Policies, PolicySet};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    Problem,
    answer::{Delivery, Sent},
    audit,
    context::Context,
    documents,
    input::input,
    operation::Operation as _,
    request::Subscribe,
};

/// Most decisions that are kept with one event: subscribers of more kinds than that have theirs made for each.
const KEPT: usize = 32;

/// Decisions on one event, each of a policy and of subscribers that it cannot tell apart.
#[derive(Debug, Default)]
pub struct Verdicts(Mutex<Vec<(Class, bool)>>);

impl Verdicts {
    /// How many decisions are kept.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn get(&self, class: &Class) -> Option<bool> {
        let kept = self.0.lock();
        let found = kept.iter().find(|(of, _)| of == class);
        found.map(|(_, allowed)| *allowed)
    }

    fn keep(&self, class: Class, allowed: bool) {
        let mut kept = self.0.lock();
        if kept.len() < KEPT && kept.iter().all(|(of, _)| *of != class) {
            kept.push((class, allowed));
        }
    }
}

/// Why an event is neither delivered nor left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undelivered {
    /// It is damaged.
    Corrupt(Corrupt),
    /// The policy took longer than it may.
    Undecided,
}

impl From<Corrupt> for Undelivered {
    fn from(corrupt: Corrupt) -> Self {
        Self::Corrupt(corrupt)
    }
}

impl Undelivered {
    /// What the subscription ends with. It may go on from the last event.
    pub fn problem(self) -> Problem {
        match self {
            Self::Corrupt(corrupt) => Problem::internal(&corrupt),
            Self::Undecided => Problem::Busy {
                what: "the policy took longer to decide than it may",
            },
        }
    }
}

/// Decides on each event for one subscriber.
#[derive(Debug)]
pub struct Gate {
    context: Arc<Context>,
    governed: Option<Governed>,
}

struct Governed {
    policies: Policies,
    /// The message of the subscription.
    body: Document,
    /// What was made of the policies that were in force last.
    rule: Mutex<Arc<Rule>>,
    denied: Counter,
}

impl std::fmt::Debug for Governed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Governed")
            .field("rule", &self.rule)
            .finish_non_exhaustive()
    }
}

/// What the policies in force mean for this subscriber.
#[derive(Debug)]
struct Rule {
    set: Arc<PolicySet>,
    /// The subscription itself; `None` if that could not be decided in time.
    permitted: Option<bool>,
    events: Events,
}

#[derive(Debug)]
enum Events {
    /// All or none.
    Alike(bool),
    /// Each is judged, for all subscribers of a class together.
    Shared(Class),
    /// Each is judged for this subscriber alone: the policy looks at the clock.
    Single,
}

impl Gate {
    pub(crate) fn new(
        context: Arc<Context>,
        body: Document,
        governed: Option<(Policies, Arc<PolicySet>)>,
    ) -> Self {
        let governed = governed.map(|(policies, set)| {
            let events = events_of(&set, &context);
            let rule = Rule {
                set,
                permitted: Some(true),
                events,
            };
            Governed {
                policies,
                body,
                rule: Mutex::new(Arc::new(rule)),
                denied: stategate_metrics::EVENTS_DENIED.get(),
            }
        });
        Self { context, governed }
    }

    /// The event as it is sent, if the subscriber may see it. It is encoded only then.
    pub fn deliver(
        &self,
        event: &Event,
        verdicts: &Verdicts,
        encode: impl FnOnce() -> Result<Bytes, Corrupt>,
    ) -> Result<Option<Delivery>, Undelivered> {
        if !self.allows(event, verdicts)? {
            if let Some(governed) = &self.governed {
                governed.denied.increment(1);
            }
            return Ok(None);
        }
        Ok(Some(Delivery(Sent::Event {
            lane: event.lane,
            position: event.position,
            id: event.id,
            encoded: encode()?,
        })))
    }

    fn allows(&self, event: &Event, verdicts: &Verdicts) -> Result<bool, Undelivered> {
        let Some(governed) = &self.governed else {
            return Ok(true);
        };
        let rule = governed.rule(&self.context);
        let class = match &rule.events {
            Events::Alike(allowed) => return Ok(*allowed),
            Events::Shared(class) => Some(class),
            Events::Single => None,
        };
        if let Some(known) = class.and_then(|class| verdicts.get(class)) {
            return Ok(known);
        }
        let decision = decide(&rule.set, &self.context, documents::event(event)?);
        if !is_lasting(&decision) {
            // The event may be the subscriber's: it is not left out for a machine that was busy.
            return Err(Undelivered::Undecided);
        }
        faults(&decision, &self.context, || event.entity.to_string());
        if let Some(class) = class {
            verdicts.keep(*class, decision.is_allow());
        }
        Ok(decision.is_allow())
    }

    /// Whether the subscription may go on: its token has not expired, and the policies in force permit it.
    pub fn check(&self) -> Result<(), Problem> {
        let Some(governed) = &self.governed else {
            return Ok(());
        };
        if self.expires().is_some_and(|at| at <= SystemTime::now()) {
            return Err(Problem::unauthenticated(
                "the token has expired; subscribe with a new one after the last event",
            ));
        }
        match governed.rule(&self.context).permitted {
            Some(true) => Ok(()),
            Some(false) => Err(Problem::Denied),
            None => Err(Undelivered::Undecided.problem()),
        }
    }

    /// Counts how often the policies were replaced: what was decided before may be decided otherwise.
    pub fn replacements(&self) -> u64 {
        self.governed
            .as_ref()
            .map_or(0, |governed| governed.policies.replaced())
    }

    fn expires(&self) -> Option<SystemTime> {
        let caller = self.context.caller.as_ref()?;
        Some(caller.expires())
    }

    /// What wakes a subscription that waits, because [`Gate::check`] may say something else.
    pub fn watch(&self) -> GateWatch {
        GateWatch {
            replaced: self
                .governed
                .as_ref()
                .map(|governed| governed.policies.replacements()),
            expires: self.expires(),
        }
    }
}

impl Governed {
    /// What the policies in force now mean.
    fn rule(&self, context: &Context) -> Arc<Rule> {
        let mut rule = self.rule.lock();
        if !self.policies.are(&rule.set) {
            let set = self.policies.current();
            let decision = set.request(|| input(Subscribe::METHOD, context, self.body.clone()));
            if let Decision::Deny(why) = &decision {
                audit::denied(context, Subscribe::METHOD, "request", why, String::new);
            }
            *rule = Arc::new(Rule {
                permitted: is_lasting(&decision).then(|| decision.is_allow()),
                events: events_of(&set, context),
                set,
            });
        }
        Arc::clone(&rule)
    }
}

/// How events are judged for a subscriber.
fn events_of(set: &PolicySet, context: &Context) -> Events {
    let Some(policy) = &set.response else {
        return Events::Alike(false);
    };
    let reads = policy.reads();
    if reads.ambient {
        return Events::Single;
    }
    if !reads.body {
        let decision = decide(set, context, Document::null());
        if is_lasting(&decision) {
            faults(&decision, context, String::new);
            return Events::Alike(decision.is_allow());
        }
    }
    let claims = context.caller.as_ref().map(|caller| caller.claims());
    Events::Shared(policy.class(
        claims,
        &context.seen.metadata,
        context.seen.certificate.as_deref(),
    ))
}

fn decide(set: &PolicySet, context: &Context, body: Document) -> Decision {
    set.response(|| input(Subscribe::METHOD, context, body))
}

/// Writes down a denial that is a fault of the policy; what is merely not for a subscriber is counted.
fn faults(decision: &Decision, context: &Context, about: impl FnOnce() -> String) {
    match decision {
        Decision::Allow | Decision::Deny(Denied::NotAllowed) => {}
        Decision::Deny(why) => audit::denied(context, Subscribe::METHOD, "response", why, about),
    }
}

/// Whether the same decision would be made again. One that ran out of time might not.
fn is_lasting(decision: &Decision) -> bool {
    !matches!(decision, Decision::Deny(Denied::TooSlow))
}

/// Waits for what may end a subscription.
#[derive(Debug)]
pub struct GateWatch {
    replaced: Option<watch::Receiver<u64>>,
    expires: Option<SystemTime>,
}

impl GateWatch {
    /// The longest that a clock is trusted to go on as it does: the system's may be set.
    const LONGEST: Duration = Duration::from_secs(30);

    /// Waits until [`Gate::check`] may say something else than before.
    pub async fn changed(&mut self) {
        let replaced = async {
            let gone = match &mut self.replaced {
                Some(replaced) => replaced.changed().await.is_err(),
                None => true,
            };
            if gone {
                std::future::pending::<()>().await;
            }
        };
        let expired = async {
            match self.expires {
                Some(at) => {
                    let left = at.duration_since(SystemTime::now()).unwrap_or_default();
                    sleep_until(Instant::now() + left.min(Self::LONGEST)).await;
                }
                None => std::future::pending::<()>().await,
            }
        };
        tokio::select! {
            () = replaced => {}
            () = expired => {}
        }
    }
}
