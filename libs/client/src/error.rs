//! What a call failed with, as a caller decides on it and as a person reads it; and what is known then
//! of a write.

use std::{error::Error as _, fmt, io, time::Duration};

use stategate_model::{Invalid, Version};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{TokenError, handshake, known::Change};

/// A failed call.
#[derive(Debug, Clone, thiserror::Error)]
pub struct Error {
    kind: ErrorKind,
    outcome: Outcome,
    message: String,
    retry: Option<Duration>,
    #[source]
    status: Option<Box<Status>>,
}

/// What is known of a write: one of three (contract §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is written.
    Written,
    /// It may have been written, once.
    MayBeWritten,
    /// It surely is not, and will not be.
    NotWritten,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Written => "written",
            Self::MayBeWritten => "may have been written",
            Self::NotWritten => "not written",
        })
    }
}

/// What kind of failure it was. Of a write that failed, [`Error::outcome`] says whether it may have
/// happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
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
    /// The log behind the address is another one than before, or than the one that a token given is of.
    /// Start again from the current state: what was known of the log before is not in this one.
    ///
    /// Where it is the client that remembers the log before, one call is told, and the client (with its
    /// clones) goes on with the log there is. A subscription, and a token of the caller's own, are refused
    /// until the caller begins anew.
    LogChanged,
    /// The log ends before a place that a token names; told as [`ErrorKind::LogChanged`] is.
    PositionAhead,
    /// The log was seen going back: it was restored as it once was, or lost its newest events; told as
    /// [`ErrorKind::LogChanged`] is.
    LogRewound,
    /// No token, or one that is not valid; or the source of tokens has none. Nothing was written.
    Unauthenticated,
    /// The policy says no: to the call, or to showing its answer. [`Error::outcome`] says of a write which
    /// it was, for a write whose answer is denied is done.
    Denied,
    /// Nobody answers at the address; nothing was sent.
    Unreachable,
    /// The gateway or its storage is away, or too busy; nothing was written.
    Unavailable,
    /// A write that may have happened, once: by this try, or by an earlier one of the same call.
    OutcomeUnknown,
    /// The call's time ran out; a write may have happened, once.
    DeadlineExceeded,
    /// The gateway does not do what was asked for.
    Unsupported,
    /// Anything else.
    Other,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            outcome: Outcome::NotWritten,
            message: message.into(),
            retry: None,
            status: None,
        }
    }

    /// From the status of a call to an address. `effect` says whether the call may have changed
    /// something, if nobody answered it.
    pub(crate) fn of(status: Status, effect: Effect, address: &str) -> Self {
        let details = status.get_error_details();
        let retry = details
            .retry_info()
            .map(|info| info.retry_delay.unwrap_or_default());
        let info = details.error_info();
        let reason = info.map_or("", |info| info.reason.as_str());
        let kind = match (status.code(), reason) {
            (Code::NotFound, _) => ErrorKind::NotFound,
            (Code::InvalidArgument, _) => {
                let violations = details
                    .bad_request()
                    .map(|bad| bad.field_violations.as_slice())
                    .unwrap_or_default();
                ErrorKind::Invalid(
                    violations
                        .iter()
                        .map(|v| (v.field.clone(), v.description.clone()))
                        .collect(),
                )
            }
            (Code::Aborted, "VERSION_MISMATCH") => {
                let current =
                    info.and_then(|info| info.metadata.get("current_version")?.parse().ok());
                ErrorKind::VersionMismatch {
                    current: current.filter(|version| *version > 0).map(Version::new),
                }
            }
            (Code::FailedPrecondition, "IDEMPOTENCY_KEY_REUSED") => ErrorKind::KeyReused,
            (Code::OutOfRange, "LOG_CHANGED") => ErrorKind::LogChanged,
            (Code::OutOfRange, "POSITION_AHEAD") => ErrorKind::PositionAhead,
            (Code::DataLoss, "LOG_REWOUND") => ErrorKind::LogRewound,
            (Code::Unauthenticated, _) => ErrorKind::Unauthenticated,
            (Code::PermissionDenied, _) => ErrorKind::Denied,
            (_, "OUTCOME_UNKNOWN") => ErrorKind::OutcomeUnknown,
            (Code::Unavailable | Code::ResourceExhausted, reason) if !reason.is_empty() => {
                ErrorKind::Unavailable
            }
            (Code::DeadlineExceeded, _) => ErrorKind::DeadlineExceeded,
            (Code::Unimplemented, _) | (Code::FailedPrecondition, "INDEX_DISABLED") => {
                ErrorKind::Unsupported
            }
            // The client's own clock ran out before the server's.
            (Code::Cancelled, "") if causes(&status).any(|e| e.is::<tonic::TimeoutExpired>()) => {
                ErrorKind::DeadlineExceeded
            }
            // Nobody answered: the connection was refused, lost or reset.
            (Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal, "") => {
                match (connect_error(&status), effect) {
                    (Some(_), _) => ErrorKind::Unreachable,
                    (None, _) if was_never_sent(&status) => ErrorKind::Unavailable,
                    (None, Effect::Write) => ErrorKind::OutcomeUnknown,
                    (None, Effect::Read) => ErrorKind::Unavailable,
                }
            }
            _ => ErrorKind::Other,
        };
        let is_committed = info.is_some_and(|info| {
            let committed = info.metadata.get("committed");
            committed.is_some_and(|committed| committed == "true")
        });
        let outcome = match effect {
            Effect::Read => Outcome::NotWritten,
            Effect::Write if is_committed => Outcome::Written,
            Effect::Write => outcome(&kind, reason),
        };
        let base = match (&kind, reason) {
            (ErrorKind::Unreachable, _) => unreachable(address, connect_error(&status)),
            (ErrorKind::Unsupported, "") => {
                format!("{address} does not serve this call; is it a stategate gateway?")
            }
            (ErrorKind::DeadlineExceeded, _) => OUT_OF_TIME.to_owned(),
            (ErrorKind::NotFound | ErrorKind::Unauthenticated | ErrorKind::Denied, _) => {
                status.message().to_owned()
            }
            (ErrorKind::Invalid(fields), _) if !fields.is_empty() => {
                let fields = fields.iter().map(|(field, why)| format!("{field}: {why}"));
                fields.collect::<Vec<_>>().join("; ")
            }
            (ErrorKind::Invalid(_), _) => status.message().to_owned(),
            (_, "") => lost(&status, address),
            _ => status.message().to_owned(),
        };
        let message = match outcome {
            // Says so in its own words.
            Outcome::MayBeWritten if reason == "OUTCOME_UNKNOWN" => base,
            Outcome::MayBeWritten => left_open(&base),
            Outcome::Written | Outcome::NotWritten => base,
        };
        Self {
            kind,
            outcome,
            message,
            retry,
            status: Some(Box::new(status)),
        }
    }

    /// For a call that was given up when its time was over.
    pub(crate) fn out_of_time(effect: Effect) -> Self {
        match effect {
            Effect::Read => Self::new(ErrorKind::DeadlineExceeded, OUT_OF_TIME),
            Effect::Write => Self {
                outcome: Outcome::MayBeWritten,
                ..Self::new(ErrorKind::DeadlineExceeded, left_open(OUT_OF_TIME))
            },
        }
    }

    /// For a call whose token was not there in time. It was not sent.
    pub(crate) fn no_token_in_time() -> Self {
        Self::new(ErrorKind::DeadlineExceeded, "no token in time")
    }

    /// For a call that there is no token for. It was not sent.
    pub(crate) fn no_token(problem: &TokenError) -> Self {
        let kind = match problem.passes() {
            true => ErrorKind::Unavailable,
            false => ErrorKind::Unauthenticated,
        };
        Self::new(kind, format!("no token: {problem}"))
    }

    /// For a call whose token was refused, where the source says why it has no other.
    pub(crate) fn without_other_token(self, problem: &TokenError) -> Self {
        let kind = match problem.passes() {
            true => ErrorKind::Unavailable,
            false => self.kind,
        };
        Self {
            kind,
            message: format!("{}; there is no newer token: {problem}", self.message),
            ..self
        }
    }

    /// For a call that finds out that the log is not the one that the client remembers.
    pub(crate) fn changed(change: Change, address: &str) -> Self {
        match change {
            Change::Replaced => Self::new(
                ErrorKind::LogChanged,
                format!(
                    "the log at {address} is another one now (its storage was restored or replaced): what was written and read before is not in it; read the current state again"
                ),
            ),
            Change::WentBack => Self::new(
                ErrorKind::LogRewound,
                format!(
                    "the log at {address} went back (its storage was restored as it once was): the last of what was written and read before is not in it; read the current state again"
                ),
            ),
        }
    }

    /// The same for a read that the gateway refused: it says which.
    pub(crate) fn of_remembered(self, address: &str) -> Self {
        let change = match self.kind {
            ErrorKind::LogChanged => Change::Replaced,
            _ => Change::WentBack,
        };
        Self {
            message: Self::changed(change, address).message,
            ..self
        }
    }

    /// After a write that was answered well, with something that cannot be used.
    pub(crate) fn though_written(self) -> Self {
        Self {
            outcome: Outcome::Written,
            message: format!("the write happened, but {}", self.message),
            ..self
        }
    }

    /// What is to be said when the tries before came to this.
    pub(crate) fn after(self, before: Outcome) -> Self {
        // These are found after the key was looked up, by which an earlier try would have been found.
        let decides = matches!(
            self.kind,
            ErrorKind::VersionMismatch { .. } | ErrorKind::NotFound | ErrorKind::KeyReused
        );
        let is_open = before == Outcome::MayBeWritten && self.outcome == Outcome::NotWritten;
        if !is_open || decides {
            return self;
        }
        Self {
            outcome: Outcome::MayBeWritten,
            message: format!(
                "{}; the last try: {}",
                left_open("an earlier try was not answered"),
                self.message
            ),
            // Of these a caller knows that nothing was written.
            kind: match self.kind {
                ErrorKind::Unreachable | ErrorKind::Unavailable => ErrorKind::OutcomeUnknown,
                kind => kind,
            },
            ..self
        }
    }

    /// For a connection that could not be made.
    pub(crate) fn unreachable(address: &str, error: &tonic::transport::Error) -> Self {
        Self::new(ErrorKind::Unreachable, unreachable(address, Some(error)))
    }

    /// What kind of failure it was.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// What is known of the write that failed so. A call that only reads writes nothing.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Whether the log is not the one, or not where, a token says: start again from the current state.
    pub fn is_log_lost(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::LogChanged | ErrorKind::PositionAhead | ErrorKind::LogRewound
        )
    }

    /// The entity or event does not exist.
    pub fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }

    /// The gRPC status, if there was an answer.
    pub fn status(&self) -> Option<&Status> {
        self.status.as_deref()
    }

    /// Whether the same call, with the same idempotency key if it writes, may be made again.
    pub(crate) fn passes(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Unreachable | ErrorKind::Unavailable | ErrorKind::OutcomeUnknown
        )
    }

    /// How long the server asks to wait before that.
    pub(crate) fn retry_delay(&self) -> Option<Duration> {
        self.retry
    }
}

/// What a call does that may have gone unanswered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing: it can be made again.
    Read,
    /// It changes something, at most once.
    Write,
}

const OUT_OF_TIME: &str = "no answer in time";

/// What a write of this kind of failure came to. A proxy's answer, which has no reason, says nothing of
/// what is behind it, unless it refuses to let the call through.
fn outcome(kind: &ErrorKind, reason: &str) -> Outcome {
    match kind {
        ErrorKind::OutcomeUnknown | ErrorKind::DeadlineExceeded => Outcome::MayBeWritten,
        ErrorKind::NotFound
        | ErrorKind::Invalid(_)
        | ErrorKind::VersionMismatch { .. }
        | ErrorKind::KeyReused
        | ErrorKind::Unauthenticated
        | ErrorKind::Denied
        | ErrorKind::Unreachable
        | ErrorKind::Unavailable
        | ErrorKind::Unsupported => Outcome::NotWritten,
        ErrorKind::LogChanged
        | ErrorKind::PositionAhead
        | ErrorKind::LogRewound
        | ErrorKind::Other => {
            if reason.is_empty() {
                Outcome::MayBeWritten
            } else {
                Outcome::NotWritten
            }
        }
    }
}

fn left_open(what: &str) -> String {
    format!("{what}; it may have been written, once: read the entity to find out")
}

fn lost(status: &Status, address: &str) -> String {
    let words = causes(status).last().map(ToString::to_string);
    let words = words.as_deref().unwrap_or(status.message());
    format!("the connection to {address} was lost ({words})")
}

fn unreachable(address: &str, error: Option<&(dyn std::error::Error + 'static)>) -> String {
    let mut cause = error;
    let mut last = String::new();
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::ConnectionRefused
        {
            return format!("no gateway at {address}");
        }
        if let Some(words) = handshake::in_words(error) {
            return format!("cannot connect to {address}: {words}");
        }
        last = error.to_string();
        cause = error.source();
    }
    format!("cannot connect to {address}: {last}")
}

fn connect_error(status: &Status) -> Option<&(dyn std::error::Error + 'static)> {
    causes(status).find(|error| error.is::<tonic::ConnectError>())
}

/// Whether a call that failed without an answer was surely not carried out: there was no connection to be
/// had, its request still waited for the connection when that was closed, or the server ended the connection in good order and left
/// the call out. HTTP/2 tells with a GOAWAY up to which stream calls are carried out, and fails by it
/// only those that came later.
///
/// A [`Client`](crate::Client) knows this by itself; it is for those who make their calls through
/// tonic's clients.
pub fn was_never_sent(status: &Status) -> bool {
    causes(status).any(|error| {
        let waited = error.downcast_ref().is_some_and(hyper::Error::is_canceled);
        let left_out = error.downcast_ref().is_some_and(|error: &h2::Error| {
            let is_orderly = error.reason() == Some(h2::Reason::NO_ERROR);
            error.is_go_away() && error.is_remote() && is_orderly
        });
        error.is::<tonic::ConnectError>() || waited || left_out
    })
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    let mut next = status.source();
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
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
            ErrorKind::Invalid(vec![(
                invalid.field.into_owned(),
                invalid.problem.into_owned(),
            )]),
            message,
        )
    }
}

#[cfg(test)]
mod tests {
    use stategate_protocol::pb::{self, entity_service_client::EntityServiceClient};
    use tonic::transport::Endpoint;

    use super::*;

    #[tokio::test]
    async fn what_found_no_connection_was_never_sent() {
        // Bound, so that nobody else listens there, and not listening.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let mut client = EntityServiceClient::new(endpoint.connect_lazy());
        let status = client.del(pb::EntityRef::default()).await.unwrap_err();
        assert!(was_never_sent(&status), "{status:?}");
        assert!(!was_never_sent(&Status::unavailable(
            "says nothing of its cause"
        )));
    }
}
