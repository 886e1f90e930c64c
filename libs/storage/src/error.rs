//! Storage errors: a kind that decides what the caller is told, the operation, and a cause for the
//! log alone.

use std::fmt;

use stategate_model::Invalid;
use uuid::Uuid;

/// The result of a storage call.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of failure it was: what the caller may do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorKind {
    /// The storage cannot be reached, or did not answer in time. Nothing was written; the call may
    /// be repeated.
    Unavailable,
    /// An append that may have been written (see [`crate::Storage::append`]), or a
    /// [`confirm`](crate::Storage::confirm) that could not prove that what was read is on stable storage.
    Unknown,
    /// The storage refuses the batch for what is in it. Nothing was written; repeating does not help.
    Rejected,
    /// A question the storage cannot answer, in the caller's words.
    Invalid(Invalid),
    /// What is stored breaks the contract: damaged, or written by something else.
    Corrupt,
    /// The configuration, schema or version does not allow to start.
    Config,
    /// A defect of the provider: the call panicked. A read left nothing behind; an append answers
    /// [`ErrorKind::Unknown`] instead.
    Bug,
}

/// What is known of why a storage is unavailable, for callers too: it names nothing but the kind of
/// trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// No room is left for what is written.
    Full,
    /// The disk or file system answers with errors.
    Disk,
    /// It takes no writes.
    ReadOnly,
    /// The data is not where it was: removed, moved or replaced.
    Gone,
    /// It does not let this service in.
    Refused,
    /// It takes no more connections.
    Crowded,
    /// Another process keeps it locked.
    Locked,
}

impl Trouble {
    /// What is wrong, as the rest of a sentence about the storage.
    pub fn words(self) -> &'static str {
        match self {
            Self::Full => "has no room left (its disk is full)",
            Self::Disk => "cannot use its disk (reading or writing fails)",
            Self::ReadOnly => "is read-only",
            Self::Gone => "is not where it was (its data was removed, moved or replaced)",
            Self::Refused => "does not let the service in",
            Self::Crowded => "takes no more connections",
            Self::Locked => "is kept locked by another process",
        }
    }
}

impl ErrorKind {
    fn in_words(&self) -> &'static str {
        match self {
            Self::Unavailable => "storage unavailable",
            Self::Unknown => "outcome unknown",
            Self::Rejected => "batch rejected",
            Self::Invalid(_) => "the question cannot be answered",
            Self::Corrupt => "stored data is corrupt",
            Self::Config => "storage cannot be used",
            Self::Bug => "panicked",
        }
    }
}

/// A failed storage call.
///
/// `Display` shows everything and is for the log; a client is told the kind alone.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    operation: &'static str,
    trouble: Option<Trouble>,
    panic: Option<Uuid>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A failure of `operation`.
    pub fn new(kind: ErrorKind, operation: &'static str) -> Self {
        Self {
            kind,
            operation,
            trouble: None,
            panic: None,
            cause: None,
        }
    }

    /// With what caused it.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// With what is known of why the storage is unavailable, if anything is.
    #[must_use]
    pub fn with_trouble(mut self, trouble: Option<Trouble>) -> Self {
        self.trouble = trouble;
        self
    }

    /// With the id that the log has the panic under that it was.
    #[must_use]
    pub fn with_panic(mut self, id: Option<Uuid>) -> Self {
        self.panic = id;
        self
    }

    /// The id that the log has the panic under, if the call panicked: callers are told this one.
    pub fn panic(&self) -> Option<Uuid> {
        self.panic
    }

    /// What is known of why the storage is unavailable.
    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble
    }

    /// How a storage that fails this way is, in words that may be told to everybody.
    pub fn words(&self) -> &'static str {
        match (&self.kind, self.trouble) {
            (_, Some(trouble)) => trouble.words(),
            (ErrorKind::Unavailable | ErrorKind::Unknown, None) => "cannot be reached",
            (ErrorKind::Corrupt, None) => "is damaged, or not as stategate left it",
            (ErrorKind::Bug, None) => "has ended a part of itself",
            (ErrorKind::Rejected | ErrorKind::Invalid(_) | ErrorKind::Config, None) => {
                "cannot be used"
            }
        }
    }

    /// What kind of failure it was.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// Why, without the kind and what was being done: for whoever names these in words of their own.
    pub fn reason(&self) -> String {
        match (&self.cause, &self.kind) {
            (Some(cause), _) => cause.to_string(),
            (None, ErrorKind::Invalid(invalid)) => invalid.to_string(),
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
        if let ErrorKind::Invalid(invalid) = &self.kind {
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

/// What was read is not what the provider writes.
pub(crate) fn corrupt(operation: &'static str, what: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, operation).because(what)
}

/// The storage was closed.
pub(crate) fn closed(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, operation).because("the storage is closed")
}
