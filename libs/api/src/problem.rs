//! The one table from what went wrong to what a client is told (contract §8), on every transport.

use std::{fmt::Display, time::Duration};

use stategate_model::{Invalid, Reason, Refusal, Version};

/// The domain of every `ErrorInfo`.
pub const ERROR_DOMAIN: &str = "stategate";
/// The metadata, and the header, that names the service a method lives in.
pub const SERVICE: &str = "service";
/// The header that says what requests may be compressed with …
pub const ACCEPT_ENCODING: &str = "grpc-accept-encoding";
/// … which is this.
pub const ACCEPTED_ENCODINGS: &str = "identity,gzip,zstd";

/// The header that says how to authenticate (RFC 6750) …
pub const CHALLENGE: &str = "www-authenticate";
/// … which is this.
const CHALLENGE_BEARER: &str = "Bearer";

/// Everything that can go wrong with a call, as the client is to see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// A malformed field, filter, glob or header, or one over its size.
    Invalid(Invalid),
    /// The entity is absent; `what` names it.
    EntityNotFound {
        /// The entity and, for a look into the past, the point.
        what: String,
    },
    /// The event is absent or not one of the entity.
    EventNotFound {
        /// The event and its entity.
        what: String,
    },
    /// The precondition does not hold.
    VersionMismatch {
        /// The version the entity is at; `None` when it does not exist.
        current: Option<Version>,
    },
    /// The idempotency key stands for another request.
    KeyReused,
    /// A token of another log.
    LogChanged,
    /// A token beyond the head.
    PositionAhead,
    /// No token, or one that is not accepted.
    Unauthenticated {
        /// Which rule it breaks, and what to do; nothing of the token.
        why: String,
    },
    /// Tokens cannot be verified: their keys cannot be fetched.
    KeysUnavailable,
    /// A policy does not permit it.
    Denied,
    /// A policy does not let the caller see what its write was answered with. It is written.
    ResponseDenied,
    /// A queue, rate or connection limit.
    Busy {
        /// What is full.
        what: &'static str,
    },
    /// The storage is away; surely nothing was written.
    StorageUnavailable,
    /// The storage is there, but cannot do its work; surely nothing was written.
    StorageUnable {
        /// What is wrong, as the rest of a sentence about the storage.
        why: &'static str,
    },
    /// It may have been written, once.
    OutcomeUnknown {
        /// Whether the request carries an idempotency key, so that a retry cannot write twice.
        retry_is_safe: bool,
    },
    /// The call's time ran out.
    DeadlineExceeded,
    /// The log was seen going back.
    LogRewound,
    /// The method lives in another service.
    Elsewhere {
        /// The method asked for.
        method: &'static str,
        /// The service it lives in.
        service: &'static str,
    },
    /// Something the contract names but this build does not do.
    Unsupported {
        /// What it is, and what to do instead.
        what: &'static str,
    },
    /// It takes an index, and none is configured.
    IndexDisabled {
        /// The field that asks for it.
        field: &'static str,
    },
    /// The request is compressed with what is not taken.
    UnknownEncoding,
    /// The service is ending.
    ShuttingDown,
    /// A bug; the cause is in the log under this id.
    Internal {
        /// The id in the log.
        id: String,
    },
    /// A transaction fails for one of its operations.
    Operation {
        /// Which one, from 0.
        index: usize,
        /// What is wrong with it.
        problem: Box<Problem>,
    },
}

/// The codes of gRPC that problems are rendered to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "gRPC defines them")]
pub enum Code {
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

/// A problem as it is rendered on any transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendering {
    /// The status of gRPC.
    pub code: Code,
    /// The status of HTTP.
    pub http: u16,
    /// The stable reason of the `ErrorInfo`.
    pub reason: &'static str,
    /// What a person reads.
    pub message: String,
    /// When to try again, where a retry cannot write twice.
    pub retry: Option<Duration>,
    /// The metadata of the `ErrorInfo`.
    pub metadata: Vec<(&'static str, String)>,
    /// The field that is malformed, and what is wrong with it.
    pub violation: Option<Invalid>,
    /// Headers that tell a program what a person reads in the message.
    pub headers: Vec<(&'static str, &'static str)>,
}

/// When to try again, where a retry cannot write twice.
const RETRY_SOON: Duration = Duration::from_millis(100);
/// The same, where it will not be over at once.
const RETRY_LATER: Duration = Duration::from_secs(1);

impl Problem {
    /// The row of contract §8. No arm for the rest: a new problem needs a row.
    pub fn render(self) -> Rendering {
        let row = |code, http, reason, message: String| Rendering {
            code,
            http,
            reason,
            message,
            retry: None,
            metadata: Vec::new(),
            violation: None,
            headers: Vec::new(),
        };
        match self {
            Self::Invalid(invalid) => {
                let http = match invalid.reason {
                    Reason::InvalidArgument => 400,
                    Reason::RequestTooLarge | Reason::TransactionTooLarge => 413,
                };
                let (reason, message) = (invalid.reason.as_str(), invalid.to_string());
                Rendering {
                    violation: Some(invalid),
                    ..row(Code::InvalidArgument, http, reason, message)
                }
            }
            Self::EntityNotFound { what } => row(Code::NotFound, 404, "ENTITY_NOT_FOUND", format!("no entity {what}")),
            Self::EventNotFound { what } => row(Code::NotFound, 404, "EVENT_NOT_FOUND", format!("no event {what}")),
            Self::VersionMismatch { current } => {
                let now = match current {
                    Some(version) => format!("it is at version {version}"),
                    None => "it does not exist".to_owned(),
                };
                let version = current.map_or(0, Version::get);
                Rendering {
                    metadata: vec![("current_version", version.to_string())],
                    ..row(Code::Aborted, 412, "VERSION_MISMATCH", format!("the entity is not at a version the precondition asks for; {now}"))
                }
            }
            Self::KeyReused => row(
                Code::FailedPrecondition,
                422,
                "IDEMPOTENCY_KEY_REUSED",
                "idempotency-key: was used for another request; use a new key for each request".to_owned(),
            ),
            Self::LogChanged => row(
                Code::OutOfRange,
                410,
                "LOG_CHANGED",
                "the token is of another log (the storage was restored or replaced); read the current state again and go on from its token".to_owned(),
            ),
            Self::PositionAhead => row(
                Code::OutOfRange,
                410,
                "POSITION_AHEAD",
                "the token is beyond the end of the log; read the current state again and go on from its token".to_owned(),
            ),
            Self::Unauthenticated { why } => Rendering {
                headers: vec![(CHALLENGE, CHALLENGE_BEARER)],
                ..row(Code::Unauthenticated, 401, "UNAUTHENTICATED", why)
            },
            Self::KeysUnavailable => Rendering {
                retry: Some(RETRY_LATER),
                ..row(Code::Unavailable, 503, "KEYS_UNAVAILABLE", "the keys that tokens are verified with cannot be fetched; nothing was written".to_owned())
            },
            Self::Denied => row(Code::PermissionDenied, 403, "PERMISSION_DENIED", "the policy does not permit this".to_owned()),
            Self::ResponseDenied => Rendering {
                metadata: vec![("committed", "true".to_owned())],
                ..row(
                    Code::PermissionDenied,
                    403,
                    "RESPONSE_DENIED",
                    "the policy does not let you see the answer; the write is done, so do not repeat it".to_owned(),
                )
            },
            Self::Busy { what } => Rendering { retry: Some(RETRY_SOON), ..row(Code::ResourceExhausted, 429, "RESOURCE_EXHAUSTED", format!("{what}; try again later")) },
            Self::StorageUnavailable => Rendering {
                retry: Some(RETRY_SOON),
                ..row(Code::Unavailable, 503, "STORAGE_UNAVAILABLE", "the storage cannot be reached; nothing was written".to_owned())
            },
            Self::StorageUnable { why } => Rendering {
                retry: Some(RETRY_SOON),
                ..row(Code::Unavailable, 503, "STORAGE_UNAVAILABLE", format!("the storage {why}; nothing was written"))
            },
            Self::OutcomeUnknown { retry_is_safe } => Rendering {
                retry: retry_is_safe.then_some(RETRY_SOON),
                ..row(Code::Unavailable, 503, "OUTCOME_UNKNOWN", "the write may have happened, once; read the entity to find out".to_owned())
            },
            Self::DeadlineExceeded => row(Code::DeadlineExceeded, 504, "DEADLINE_EXCEEDED", "the time for this call ran out; if it is a write, it may have been written, once".to_owned()),
            Self::LogRewound => row(
                Code::DataLoss,
                500,
                "LOG_REWOUND",
                "the log went back (a restore or a lossy failover); read the current state again and subscribe anew".to_owned(),
            ),
            Self::Elsewhere { method, service } => Rendering {
                metadata: vec![(SERVICE, service.to_owned())],
                headers: vec![(SERVICE, service)],
                ..row(Code::Unimplemented, 501, "OTHER_SERVICE", format!("{method} is served by the {service} service; send it there, or route it there by method"))
            },
            Self::Unsupported { what } => row(Code::Unimplemented, 501, "UNSUPPORTED", what.to_owned()),
            Self::IndexDisabled { field } => row(
                Code::FailedPrecondition,
                422,
                "INDEX_DISABLED",
                format!("{field}: needs a search index, and this deployment has none; use query_string, or ask the operator for one"),
            ),
            Self::UnknownEncoding => Rendering {
                headers: vec![(ACCEPT_ENCODING, ACCEPTED_ENCODINGS)],
                ..row(
                    Code::Unimplemented,
                    415,
                    "UNSUPPORTED",
                    "grpc-encoding: requests are compressed with gzip or zstd, or not at all; name one of them".to_owned(),
                )
            },
            Self::ShuttingDown => Rendering {
                retry: Some(RETRY_SOON),
                ..row(Code::Unavailable, 503, "SHUTTING_DOWN", "the service is ending; nothing was written".to_owned())
            },
            Self::Internal { id } => row(Code::Internal, 500, "INTERNAL", format!("internal error {id}; the service's log has the cause under this id")),
            Self::Operation { index, problem } => {
                let mut row = problem.render();
                row.message = format!("operation {index}: {}", row.message);
                row.metadata.push(("operation", index.to_string()));
                row
            }
        }
    }

    /// A token that is missing or not accepted, and why.
    pub fn unauthenticated(why: impl Into<String>) -> Self {
        Self::Unauthenticated { why: why.into() }
    }

    /// The problem of a transaction that fails for one of its operations, which it names.
    pub fn of_operation(self, index: usize) -> Self {
        let problem = match self {
            // What was found when the operation was decided does not know where it stands.
            Self::Invalid(invalid) if !invalid.field.starts_with("operations[") => {
                Self::Invalid(invalid.within(&format!("operations[{index}]")))
            }
            other => other,
        };
        Self::Operation {
            index,
            problem: Box::new(problem),
        }
    }

    /// What a refused write is answered with. `what` names its entity.
    pub fn of_refusal(refusal: Refusal, what: impl FnOnce() -> String) -> Self {
        match refusal {
            Refusal::EntityNotFound => Self::EntityNotFound { what: what() },
            Refusal::EventNotFound => Self::EventNotFound { what: what() },
            Refusal::VersionMismatch { current } => Self::VersionMismatch { current },
            Refusal::Invalid(invalid) => Self::Invalid(invalid),
            Refusal::Corrupt(corrupt) => Self::internal(&corrupt),
        }
    }

    /// A bug after something was written, or may have been: the cause goes to the log. What the client
    /// is told is that it may be there, since any other error says that it surely is not.
    pub fn after_write(cause: &dyn Display) -> Self {
        tracing::error!(%cause, "a write cannot be answered");
        Self::OutcomeUnknown {
            retry_is_safe: false,
        }
    }

    /// A bug or damage: the cause goes to the log under a fresh id, the id alone to the client.
    pub fn internal(cause: &dyn Display) -> Self {
        let id = uuid::Uuid::new_v4().to_string();
        tracing::error!(error.id = %id, %cause, "internal error");
        Self::Internal { id }
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_names_its_reason() {
        let mismatch = Problem::VersionMismatch {
            current: Some(Version::new(7)),
        };
        let row = mismatch.render();
        assert_eq!(
            (row.code, row.http, row.reason),
            (Code::Aborted, 412, "VERSION_MISMATCH")
        );
        assert_eq!(row.metadata, [("current_version", "7".to_owned())]);

        let invalid = Problem::from(Invalid::new("key", "must not be empty")).render();
        assert_eq!((invalid.http, invalid.reason), (400, "INVALID_ARGUMENT"));
        assert_eq!(invalid.violation.unwrap().field, "key");
        let large = Invalid::too_large("values", "are too large");
        assert_eq!(Problem::from(large).render().http, 413);

        let elsewhere = Problem::Elsewhere {
            method: "Get",
            service: "query",
        };
        assert_eq!(elsewhere.render().headers, [(SERVICE, "query")]);
    }

    #[test]
    fn a_problem_of_an_operation_keeps_its_row_and_names_the_operation() {
        let row = Problem::KeyReused.of_operation(3).render();
        assert_eq!((row.http, row.reason), (422, "IDEMPOTENCY_KEY_REUSED"));
        assert!(row.message.starts_with("operation 3: "), "{}", row.message);
        assert_eq!(row.metadata, [("operation", "3".to_owned())]);
        let invalid = Problem::from(Invalid::new("values", "are wrong")).of_operation(1);
        let violation = invalid.render().violation.unwrap();
        assert_eq!(violation.field, "operations[1].values");
    }

    #[test]
    fn retry_is_offered_only_where_it_cannot_write_twice() {
        let is_offered = |problem: Problem| problem.render().retry.is_some();
        assert!(is_offered(Problem::StorageUnavailable));
        assert!(is_offered(Problem::OutcomeUnknown {
            retry_is_safe: true
        }));
        assert!(!is_offered(Problem::OutcomeUnknown {
            retry_is_safe: false
        }));
    }
}
