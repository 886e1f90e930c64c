//! The one table from what went wrong to what a client is told (contract §8).

use std::{collections::HashMap, time::Duration};

use stategate_model::{Invalid, Refusal, Version};
use tonic::{Code, Status, metadata::MetadataValue};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::headers;

/// The domain of every `ErrorInfo`.
pub const ERROR_DOMAIN: &str = "stategate";

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
    /// The request is compressed with what is not taken.
    UnknownEncoding,
    /// The service is ending.
    ShuttingDown,
    /// A bug; the cause is in the log under this id.
    Internal {
        /// The id in the log.
        id: String,
    },
}

/// When to try again, where a retry cannot write twice.
const RETRY_SOON: Duration = Duration::from_millis(100);

struct Row {
    code: Code,
    reason: &'static str,
    message: String,
    retry: Option<Duration>,
    metadata: HashMap<String, String>,
}

impl Problem {
    /// The row of contract §8. No arm for the rest: a new problem needs a row.
    fn row(&self) -> Row {
        let row = |code, reason, message: String| Row {
            code,
            reason,
            message,
            retry: None,
            metadata: HashMap::new(),
        };
        match self {
            Self::Invalid(invalid) => row(Code::InvalidArgument, invalid.reason.as_str(), invalid.to_string()),
            Self::EntityNotFound { what } => row(Code::NotFound, "ENTITY_NOT_FOUND", format!("no entity {what}")),
            Self::EventNotFound { what } => row(Code::NotFound, "EVENT_NOT_FOUND", format!("no event {what}")),
            Self::VersionMismatch { current } => {
                let now = match current {
                    Some(version) => format!("it is at version {version}"),
                    None => "it does not exist".to_owned(),
                };
                let version = current.map_or(0, Version::get);
                Row {
                    metadata: HashMap::from([("current_version".to_owned(), version.to_string())]),
                    ..row(Code::Aborted, "VERSION_MISMATCH", format!("the entity is not at a version the precondition asks for; {now}"))
                }
            }
            Self::KeyReused => row(
                Code::FailedPrecondition,
                "IDEMPOTENCY_KEY_REUSED",
                "idempotency-key: was used for another request; use a new key for each request".to_owned(),
            ),
            Self::LogChanged => row(
                Code::OutOfRange,
                "LOG_CHANGED",
                "the token is of another log (the storage was restored or replaced); read the current state again and go on from its token".to_owned(),
            ),
            Self::PositionAhead => row(
                Code::OutOfRange,
                "POSITION_AHEAD",
                "the token is beyond the end of the log; read the current state again and go on from its token".to_owned(),
            ),
            Self::Busy { what } => Row { retry: Some(RETRY_SOON), ..row(Code::ResourceExhausted, "RESOURCE_EXHAUSTED", format!("{what}; try again later")) },
            Self::StorageUnavailable => Row {
                retry: Some(RETRY_SOON),
                ..row(Code::Unavailable, "STORAGE_UNAVAILABLE", "the storage cannot be reached; nothing was written".to_owned())
            },
            Self::StorageUnable { why } => Row {
                retry: Some(RETRY_SOON),
                ..row(Code::Unavailable, "STORAGE_UNAVAILABLE", format!("the storage {why}; nothing was written"))
            },
            Self::OutcomeUnknown { retry_is_safe } => Row {
                retry: retry_is_safe.then_some(RETRY_SOON),
                ..row(Code::Unavailable, "OUTCOME_UNKNOWN", "the write may have happened, once; read the entity to find out".to_owned())
            },
            Self::DeadlineExceeded => row(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "the time for this call ran out; if it is a write, it may have been written, once".to_owned()),
            Self::LogRewound => row(
                Code::DataLoss,
                "LOG_REWOUND",
                "the log went back (a restore or a lossy failover); read the current state again and subscribe anew".to_owned(),
            ),
            Self::Elsewhere { method, service } => Row {
                metadata: HashMap::from([(headers::SERVICE.to_owned(), (*service).to_owned())]),
                ..row(Code::Unimplemented, "OTHER_SERVICE", format!("{method} is served by the {service} service; send it there, or route it there by method"))
            },
            Self::Unsupported { what } => row(Code::Unimplemented, "UNSUPPORTED", (*what).to_owned()),
            Self::UnknownEncoding => row(
                Code::Unimplemented,
                "UNSUPPORTED",
                "grpc-encoding: requests are compressed with gzip or zstd, or not at all; name one of them".to_owned(),
            ),
            Self::ShuttingDown => Row {
                retry: Some(RETRY_SOON),
                ..row(Code::Unavailable, "SHUTTING_DOWN", "the service is ending; nothing was written".to_owned())
            },
            Self::Internal { id } => row(Code::Internal, "INTERNAL", format!("internal error {id}; the service's log has the cause under this id")),
        }
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl Problem {
    /// What a refused write is answered with. `what` names the entity, `event` the event of a Revert.
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
    pub fn after_write(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "a write cannot be answered");
        Self::OutcomeUnknown {
            retry_is_safe: false,
        }
    }

    /// A bug or damage: the cause goes to the log under a fresh id, the id alone to the client.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        let id = uuid::Uuid::new_v4().to_string();
        tracing::error!(error.id = %id, %cause, "internal error");
        Self::Internal { id }
    }
}

impl Problem {
    /// The status of a transaction that fails for one of its operations, which it names.
    pub fn of_operation(self, index: usize) -> Status {
        let problem = match self {
            // What was found when the operation was decided does not know where it stands.
            Self::Invalid(invalid) if !invalid.field.starts_with("operations[") => {
                Self::Invalid(invalid.within(&format!("operations[{index}]")))
            }
            other => other,
        };
        let mut row = problem.row();
        row.message = format!("operation {index}: {}", row.message);
        row.metadata
            .insert("operation".to_owned(), index.to_string());
        problem.status(row)
    }

    fn status(self, row: Row) -> Status {
        let mut details = ErrorDetails::new();
        details.set_error_info(row.reason, ERROR_DOMAIN, row.metadata);
        if let Self::Invalid(invalid) = &self {
            details
                .add_bad_request_violation(invalid.field.to_string(), invalid.problem.to_string());
        }
        if let Some(delay) = row.retry {
            details.set_retry_info(Some(delay));
        }
        let mut status = Status::with_error_details(row.code, row.message, details);
        let header = match self {
            Self::Elsewhere { service, .. } => Some((headers::SERVICE, service)),
            Self::UnknownEncoding => Some((headers::ACCEPT_ENCODING, headers::ACCEPTED_ENCODINGS)),
            _ => None,
        };
        if let Some((name, value)) = header {
            status
                .metadata_mut()
                .insert(name, MetadataValue::from_static(value));
        }
        status
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let row = problem.row();
        problem.status(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_names_its_reason() {
        let status: Status = Problem::VersionMismatch {
            current: Some(Version::new(7)),
        }
        .into();
        let info = status.get_details_error_info().unwrap();
        assert_eq!(
            (status.code(), info.reason.as_str(), info.domain.as_str()),
            (Code::Aborted, "VERSION_MISMATCH", "stategate")
        );
        assert_eq!(info.metadata["current_version"], "7");

        let status: Status = Problem::from(Invalid::new("key", "must not be empty")).into();
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(
            (
                violations[0].field.as_str(),
                violations[0].description.as_str()
            ),
            ("key", "must not be empty")
        );

        let status: Status = Problem::Elsewhere {
            method: "Get",
            service: "query",
        }
        .into();
        assert_eq!(status.metadata().get("service").unwrap(), "query");
    }

    #[test]
    fn retry_is_offered_only_where_it_cannot_write_twice() {
        let retry = |problem: Problem| Status::from(problem).get_details_retry_info().is_some();
        assert!(retry(Problem::StorageUnavailable));
        assert!(retry(Problem::OutcomeUnknown {
            retry_is_safe: true
        }));
        assert!(!retry(Problem::OutcomeUnknown {
            retry_is_safe: false
        }));
    }
}
