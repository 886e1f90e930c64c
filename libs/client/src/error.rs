//! What a call failed with, as a caller decides on it.

use std::{fmt, time::Duration};

use stategate_model::{Invalid, Version};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// A failed call.
#[derive(Debug, Clone, thiserror::Error)]
pub struct Error {
    kind: Kind,
    message: String,
    retry: Option<Duration>,
    #[source]
    status: Option<Box<Status>>,
}

/// What kind of failure it was.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The entity or event does not exist.
    NotFound,
    /// A malformed or oversized input; the fields and what is wrong with them.
    Invalid(Vec<(String, String)>),
    /// The precondition does not hold.
    VersionMismatch {
        /// The version the entity is at; `None` when it does not exist.
        current: Option<Version>,
    },
    /// The idempotency key stands for another request.
    KeyReused,
    /// The token is of another log, beyond its end, or the log went back: start again from the
    /// current state.
    TokenLost,
    /// No token, or one that is not valid.
    Unauthenticated,
    /// The policy says no.
    Denied,
    /// The gateway or its storage is away, or too busy; nothing was written.
    Unavailable,
    /// A write that may have happened, once.
    OutcomeUnknown,
    /// The call's time ran out; a write may have happened, once.
    DeadlineExceeded,
    /// The gateway does not do what was asked for.
    Unsupported,
    /// Anything else.
    Other,
}

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            retry: None,
            status: None,
        }
    }

    /// From a call's status. `wrote` says whether the call may have changed something, if nobody
    /// answered it.
    pub(crate) fn of(status: Status, wrote: bool) -> Self {
        let details = status.get_error_details();
        let retry = details
            .retry_info()
            .map(|info| info.retry_delay.unwrap_or_default());
        let info = details.error_info();
        let reason = info.map_or("", |info| info.reason.as_str());
        let operation = info.and_then(|info| info.metadata.get("operation"));
        let kind = match (status.code(), reason) {
            (Code::NotFound, _) => Kind::NotFound,
            (Code::InvalidArgument, _) => {
                let violations = details
                    .bad_request()
                    .map(|bad| bad.field_violations.as_slice())
                    .unwrap_or_default();
                Kind::Invalid(
                    violations
                        .iter()
                        .map(|v| (v.field.clone(), v.description.clone()))
                        .collect(),
                )
            }
            (Code::Aborted, "VERSION_MISMATCH") => {
                let current =
                    info.and_then(|info| info.metadata.get("current_version")?.parse().ok());
                Kind::VersionMismatch {
                    current: current.filter(|version| *version > 0).map(Version::new),
                }
            }
            (Code::FailedPrecondition, "IDEMPOTENCY_KEY_REUSED") => Kind::KeyReused,
            (Code::OutOfRange | Code::DataLoss, _) => Kind::TokenLost,
            (Code::Unauthenticated, _) => Kind::Unauthenticated,
            (Code::PermissionDenied, _) => Kind::Denied,
            (_, "OUTCOME_UNKNOWN") => Kind::OutcomeUnknown,
            (Code::Unavailable | Code::ResourceExhausted, reason) if !reason.is_empty() => {
                Kind::Unavailable
            }
            (Code::DeadlineExceeded, _) => Kind::DeadlineExceeded,
            (Code::Unimplemented, _) => Kind::Unsupported,
            // Nobody answered: the connection was refused, lost or reset.
            (Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal, "")
                if wrote && !never_sent(&status) =>
            {
                Kind::OutcomeUnknown
            }
            (Code::Unavailable | Code::Unknown | Code::Cancelled, "") => Kind::Unavailable,
            _ => Kind::Other,
        };
        let message = match operation {
            Some(_) | None if !status.message().is_empty() => status.message().to_owned(),
            _ => format!("the call failed with {:?}", status.code()),
        };
        Self {
            kind,
            message,
            retry,
            status: Some(Box::new(status)),
        }
    }

    /// What kind of failure it was.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The entity or event does not exist.
    pub fn is_not_found(&self) -> bool {
        self.kind == Kind::NotFound
    }

    /// The gRPC status, if there was an answer.
    pub fn status(&self) -> Option<&Status> {
        self.status.as_deref()
    }

    /// Whether the same call, with the same idempotency key if it writes, may be made again.
    pub(crate) fn passes(&self) -> bool {
        matches!(self.kind, Kind::Unavailable | Kind::OutcomeUnknown)
    }

    /// How long the server asks to wait before that.
    pub(crate) fn retry_delay(&self) -> Option<Duration> {
        self.retry
    }
}

/// Whether the connection could not even be made.
fn never_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        let message = invalid.to_string();
        Self::new(
            Kind::Invalid(vec![(
                invalid.field.into_owned(),
                invalid.problem.into_owned(),
            )]),
            message,
        )
    }
}
