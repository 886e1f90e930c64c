//! The policies in force: one for requests, one for answers, replaced together.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::document::Document;
use crate::program::{Decision, Denied, Policy};

/// A policy for requests and one for answers, which are loaded together. One that is not configured
/// denies everything.
#[derive(Debug, Clone, Default)]
pub struct PolicySet {
    /// Judges requests and subscriptions.
    pub request: Option<Policy>,
    /// Judges answers and events.
    pub response: Option<Policy>,
}

impl PolicySet {
    /// Whether a call may be carried out.
    pub fn request(&self, input: impl FnOnce() -> Document) -> Decision {
        decide(self.request.as_ref(), input)
    }

    /// Whether a caller may see an answer or an event.
    pub fn response(&self, input: impl FnOnce() -> Document) -> Decision {
        decide(self.response.as_ref(), input)
    }
}

fn decide(policy: Option<&Policy>, input: impl FnOnce() -> Document) -> Decision {
    match policy {
        Some(policy) => policy.decide(input),
        None => Decision::Deny(Denied::NotConfigured),
    }
}

/// The policies in force. Cheap to clone; all clones see a replacement at once.
#[derive(Debug, Clone)]
pub struct Policies(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    set: ArcSwap<PolicySet>,
    replaced: watch::Sender<u64>,
}

impl Policies {
    /// Policies in force from now on.
    pub fn new(set: PolicySet) -> Self {
        Self(Arc::new(Shared {
            set: ArcSwap::from_pointee(set),
            replaced: watch::Sender::new(0),
        }))
    }

    /// Whether a call may be carried out.
    pub fn request(&self, input: impl FnOnce() -> Document) -> Decision {
        self.0.set.load().request(input)
    }

    /// Whether a caller may see an answer or an event.
    pub fn response(&self, input: impl FnOnce() -> Document) -> Decision {
        self.0.set.load().response(input)
    }

    /// The policies in force now, for several decisions that have to be by the same ones.
    pub fn current(&self) -> Arc<PolicySet> {
        self.0.set.load_full()
    }

    /// Whether these are the policies in force now.
    pub fn are(&self, set: &Arc<PolicySet>) -> bool {
        Arc::ptr_eq(&self.0.set.load(), set)
    }

    /// How often they were replaced so far.
    pub fn replaced(&self) -> u64 {
        *self.0.replaced.borrow()
    }

    /// Puts others in force.
    pub fn replace(&self, set: PolicySet) {
        self.0.set.store(Arc::new(set));
        self.0.replaced.send_modify(|count| *count += 1);
    }

    /// Tells of replacements: open streams have shared decisions to forget.
    pub fn replacements(&self) -> watch::Receiver<u64> {
        self.0.replaced.subscribe()
    }
}
