//! What a call failed with, as a caller decides on it and as a person reads it.

use std::{error::Error as _, fmt, io, time::Duration};

use stategate_model::{Invalid, Version};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::handshake;

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
    /// Nobody answers at the address; nothing was sent.
    Unreachable,
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
            (Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal, "") => {
                match (connect_error(&status), effect) {
                    (Some(_), _) => Kind::Unreachable,
                    (None, _) if was_never_sent(&status) => Kind::Unavailable,
                    (None, Effect::Write) => Kind::OutcomeUnknown,
                    (None, Effect::Read) => Kind::Unavailable,
                }
            }
            _ => Kind::Other,
        };
        let message = match (&kind, reason) {
            (Kind::Unreachable, _) => unreachable(address, connect_error(&status)),
            (Kind::Unsupported, "") => {
                format!("{address} does not serve this call; is it a stategate gateway?")
            }
            (Kind::DeadlineExceeded, "") => out_of_time(effect),
            // Nothing of it is left open.
            (Kind::Unavailable, "") => lost(&status, Effect::Read, address),
            (_, "") if status.code() != Code::NotFound => lost(&status, effect, address),
            (Kind::Invalid(fields), _) if !fields.is_empty() => {
                let fields = fields.iter().map(|(field, why)| format!("{field}: {why}"));
                fields.collect::<Vec<_>>().join("; ")
            }
            _ => status.message().to_owned(),
        };
        Self {
            kind,
            message,
            retry,
            status: Some(Box::new(status)),
        }
    }

    /// For a call that was given up when its time was over.
    pub(crate) fn out_of_time(effect: Effect) -> Self {
        Self::new(Kind::DeadlineExceeded, out_of_time(effect))
    }

    /// For a connection that could not be made.
    pub(crate) fn unreachable(address: &str, error: &tonic::transport::Error) -> Self {
        Self::new(Kind::Unreachable, unreachable(address, Some(error)))
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
        matches!(
            self.kind,
            Kind::Unreachable | Kind::Unavailable | Kind::OutcomeUnknown
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

fn out_of_time(effect: Effect) -> String {
    format!("no answer in time{}", left_open(effect))
}

fn left_open(effect: Effect) -> &'static str {
    match effect {
        Effect::Read => "",
        Effect::Write => "; it may have been written, once: read the entity to find out",
    }
}

fn lost(status: &Status, effect: Effect, address: &str) -> String {
    if status.code() == Code::Cancelled && status.message() == "Timeout expired" {
        return out_of_time(effect);
    }
    let words = causes(status).last().map(ToString::to_string);
    let words = words.as_deref().unwrap_or(status.message());
    format!(
        "the connection to {address} was lost ({words}){}",
        left_open(effect)
    )
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
            Kind::Invalid(vec![(
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
