//! Storage errors: a kind that decides what the caller is told, the operation, and a cause for the
//! log alone.

use std::fmt;

use stategate_model::Invalid;

/// The result of a storage call.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of failure it was: what the caller may do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The storage cannot be reached, or did not answer in time. Nothing was written; the call may
    /// be repeated.
    Unavailable,
    /// An append that may have been written (see [`crate::Storage::append`]).
    Unknown,
    /// The storage refuses the batch for what is in it. Nothing was written; repeating does not help.
    Rejected,
    /// A question the storage cannot answer, in the caller's words.
    Invalid(Invalid),
    /// What is stored breaks the contract: damaged, or written by something else.
    Corrupt,
    /// The configuration, schema or version does not allow to start.
    Config,
}

impl Kind {
    fn in_words(&self) -> &'static str {
        match self {
            Self::Unavailable => "storage unavailable",
            Self::Unknown => "outcome unknown",
            Self::Rejected => "batch rejected",
            Self::Invalid(_) => "the question cannot be answered",
            Self::Corrupt => "stored data is corrupt",
            Self::Config => "storage cannot be used",
        }
    }
}

/// A failed storage call.
///
/// `Display` shows everything and is for the log; a client is told the kind alone.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    operation: &'static str,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A failure of `operation`.
    pub fn new(kind: Kind, operation: &'static str) -> Self {
        Self {
            kind,
            operation,
            cause: None,
        }
    }

    /// With what caused it.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// What kind of failure it was.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Why, without the kind and what was being done: for whoever names these in words of their own.
    pub fn reason(&self) -> String {
        match (&self.cause, &self.kind) {
            (Some(cause), _) => cause.to_string(),
            (None, Kind::Invalid(invalid)) => invalid.to_string(),
            (None, kind) => kind.in_words().to_owned(),
        }
    }

    /// What was being done.
    pub fn operation(&self) -> &'static str {
        self.operation
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Kind::Invalid(invalid) = &self.kind {
            return write!(f, "{}: {invalid}", self.operation);
        }
        write!(f, "{}: {}", self.operation, self.kind.in_words())?;
        match &self.cause {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}
