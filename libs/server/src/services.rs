//! The services that live in this process, what they stand on, and how calls of the others are
//! answered.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use stategate_api::{Command, Problem, Query, Stream};

/// Why services cannot do their work at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// In words for whoever may ask: without addresses, paths and the like.
    pub why: String,
    /// The same with everything that is known, for the log.
    pub cause: String,
    /// It will not be able to again in this process, which ends therefore.
    pub is_for_good: bool,
}

/// What services stand on (a storage, a channel), asked how it is for readiness.
#[async_trait]
pub trait Foundation: Send + Sync + 'static {
    /// Whether the services can do their work at the moment. Asked every half second.
    async fn check(&self) -> Result<(), Unfit>;

    /// What operators have to know of where writes are kept, each with what to do: told with readiness,
    /// which it does not change.
    fn concerns(&self) -> Vec<String>;

    /// What the services do without at the moment, if anything: they still serve everything, later.
    fn degraded(&self) -> Option<&'static str>;
}

/// The services that live in this process. Calls to the others are refused with the name of the
/// service they belong to (contract §8).
#[derive(Clone, Default)]
pub struct Services {
    /// Writes.
    pub command: Option<Arc<dyn Command>>,
    /// Reads.
    pub query: Option<Arc<dyn Query>>,
    /// Subscriptions.
    pub stream: Option<Arc<dyn Stream>>,
    /// What all of them stand on; `None`: nothing that could fail.
    pub foundation: Option<Arc<dyn Foundation>>,
    /// The public keys (a JSON Web Key Set) of an issuer of tokens that is part of this process: served
    /// beside its metrics.
    pub keys: Option<Arc<str>>,
}

impl Services {
    /// The names of the services that are here, as errors and logs give them.
    pub fn names(&self) -> Vec<&'static str> {
        let here = Home::ALL.into_iter().filter(|home| self.has(*home));
        here.map(Home::name).collect()
    }

    /// Whether a service is here.
    pub(crate) fn has(&self, home: Home) -> bool {
        match home {
            Home::Command => self.command.is_some(),
            Home::Query => self.query.is_some(),
            Home::Stream => self.stream.is_some(),
        }
    }
}

/// The service that a method lives in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    Command,
    Query,
    Stream,
}

impl Home {
    const ALL: [Self; 3] = [Self::Command, Self::Query, Self::Stream];

    fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Query => "query",
            Self::Stream => "stream",
        }
    }

    /// What a call of one of its methods is answered where it is not.
    pub(crate) fn elsewhere(self, method: &'static str) -> Problem {
        let service = self.name();
        Problem::Elsewhere { method, service }
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Services").field(&self.names()).finish()
    }
}
