//! Everything about a call that is not its request.

use std::sync::Arc;

use stategate_model::{Claims, Expect, Token, TraceParent};
use stategate_policy::Document;
use tokio::time::Instant;

use crate::Caller;

/// Who calls, until when, and under which conditions (contract §§3, 5). Parsed at the edge: a
/// malformed header never gets here.
#[derive(Debug, Clone)]
pub struct Context {
    /// Who calls; `None` while authentication is off.
    pub caller: Option<Arc<Caller>>,
    /// What else policies see of the call.
    pub seen: Seen,
    /// When the caller stops waiting; `None` if it did not say.
    pub deadline: Option<Instant>,
    /// What the answer to a read must reflect.
    pub min_position: Option<Token>,
    /// What must hold of the entity for a write of one operation to happen.
    pub precondition: Expect,
    /// Makes a repeated write recognisable: 1 to 128 visible ASCII characters.
    pub idempotency_key: Option<Box<str>>,
    /// The trace the call belongs to.
    pub trace: Option<TraceParent>,
}

/// What policies see of a call beside its caller and its message.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its headers without those of the transport, lower-case name → first value; null where no policy looks at them.
    pub metadata: Document,
    /// The subject of the certificate that its connection was made with, as RFC 4514 writes it.
    pub certificate: Option<Arc<str>>,
}

impl Context {
    /// Nobody in particular, without conditions.
    pub fn anonymous() -> Self {
        Self {
            caller: None,
            seen: Seen::nothing(),
            deadline: None,
            min_position: None,
            precondition: Expect::Anything,
            idempotency_key: None,
            trace: None,
        }
    }

    /// The claims that events keep of the caller; none while authentication is off.
    pub fn claims(&self) -> Claims {
        match &self.caller {
            // They wait with what is written.
            Some(caller) => caller.event_claims().lean(),
            None => Claims::none(),
        }
    }

    /// Issuer and subject of the caller, by which it is counted; `None` while authentication is off.
    pub fn name(&self) -> Option<(&str, &str)> {
        self.caller.as_ref().map(|caller| caller.name())
    }
}

impl Seen {
    /// Nothing.
    pub fn nothing() -> Self {
        Self {
            metadata: Document::null(),
            certificate: None,
        }
    }
}
