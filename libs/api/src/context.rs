//! Everything about a call that is not its request.

use stategate_model::{Claims, Expect, Token, TraceParent};
use tokio::time::Instant;

/// Who calls, until when, and under which conditions (contract §§3, 5). Parsed at the edge: a
/// malformed header never gets here.
#[derive(Debug, Clone)]
pub struct Context {
    /// The verified claims of the caller; empty while authentication is off.
    pub claims: Claims,
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

impl Context {
    /// Nobody in particular, without conditions.
    pub fn anonymous() -> Self {
        Self {
            claims: Claims::none(),
            deadline: None,
            min_position: None,
            precondition: Expect::Anything,
            idempotency_key: None,
            trace: None,
        }
    }
}
