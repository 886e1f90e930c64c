//! What is wrong with an input: the field, the problem, and which of the contract's reasons it is.

use std::{borrow::Cow, fmt};

/// A refused input. Shown to the caller as it is, so it names the field and says what to do, and
/// repeats of the input only what is needed to find the mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// The field as the caller knows it (`entity.values.a`, `limit`, `query_string`).
    pub field: Cow<'static, str>,
    /// What was wrong with it and what would be right.
    pub problem: Cow<'static, str>,
    /// The stable reason of `ErrorInfo`.
    pub reason: Reason,
}

/// The stable reasons an input is refused for (contract §4, §8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Anything malformed.
    InvalidArgument,
    /// A value or message over its size.
    RequestTooLarge,
    /// The events of a transaction over their size.
    TransactionTooLarge,
}

impl Reason {
    /// The reason as it appears in `ErrorInfo.reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::RequestTooLarge => "REQUEST_TOO_LARGE",
            Self::TransactionTooLarge => "TRANSACTION_TOO_LARGE",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Invalid {
    /// A malformed `field`.
    pub fn new(field: impl Into<Cow<'static, str>>, problem: impl Into<Cow<'static, str>>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
            reason: Reason::InvalidArgument,
        }
    }

    /// A `field` that is over its size.
    pub fn too_large(
        field: impl Into<Cow<'static, str>>,
        problem: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
            reason: Reason::RequestTooLarge,
        }
    }

    /// The same problem, seen from the message that holds the field: `values` in `entity` is
    /// `entity.values`.
    #[must_use]
    pub fn within(self, outer: &str) -> Self {
        Self {
            field: format!("{outer}.{}", self.field).into(),
            ..self
        }
    }
}
