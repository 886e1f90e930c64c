//! How a command ends when it does not succeed: what the user reads, and the exit code.

use std::{error::Error as _, io, process::ExitCode, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{address::Address, text};

/// The exit codes, as `--help` documents them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Refused = 4,
    Unavailable = 5,
    RowsFailed = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command ended early.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: Option<String>,
}

/// Whether a call that got no answer may have changed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: Some(message.into()),
        }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// What to tell the user, if anything.
    pub(crate) fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// A call that was answered with an error, or not at all.
    pub(crate) fn of_status(status: &Status, kind: Kind, gateway: &Address) -> Self {
        Self::new(exit_of(status), explain(status, kind, gateway))
    }

    /// A call that was given up.
    pub(crate) fn no_answer(kind: Kind, waited: Duration) -> Self {
        let message = format!(
            "no answer within {waited:?} (--timeout){}",
            outcome_of(kind)
        );
        Self::new(Exit::Unavailable, message)
    }

    /// A gateway that could not be connected to.
    pub(crate) fn unreachable(
        gateway: &Address,
        error: &(dyn std::error::Error + 'static),
    ) -> Self {
        Self::new(Exit::Unavailable, explain_connect(gateway, error))
    }
}

/// Writing to stdout failed. Whoever closed the pipe has read what they wanted.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self {
                exit: Exit::Done,
                message: None,
            };
        }
        Self::failed(format!("cannot write the output: {error}"))
    }
}

fn exit_of(status: &Status) -> Exit {
    match status.code() {
        Code::NotFound => Exit::NotFound,
        Code::InvalidArgument
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented => Exit::Refused,
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted => Exit::Unavailable,
        // The transport's own words for a deadline that passed on this side, and a lost connection.
        Code::Cancelled | Code::Unknown if !is_answer(status) => Exit::Unavailable,
        Code::Ok | Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => {
            Exit::Failed
        }
    }
}

/// What went wrong, in words for a person. Never names types of this program.
pub(crate) fn explain(status: &Status, kind: Kind, gateway: &Address) -> String {
    if let Some(error) = connect_error(status) {
        return explain_connect(gateway, error);
    }
    if !is_answer(status) {
        return match status.code() {
            Code::Unimplemented => {
                format!("{gateway} does not serve this call; is it a stategate gateway?")
            }
            Code::DeadlineExceeded => format!("no answer in time{}", outcome_of(kind)),
            Code::Cancelled if status.message() == "Timeout expired" => {
                format!("no answer in time{}", outcome_of(kind))
            }
            _ => format!(
                "the connection to {gateway} was lost ({}){}",
                innermost(status),
                outcome_of(kind)
            ),
        };
    }
    let details = status.get_error_details();
    let violations = details
        .bad_request()
        .map(|bad| &bad.field_violations[..])
        .unwrap_or_default();
    if violations.is_empty() {
        return text::plain(status.message());
    }
    let lines: Vec<_> = violations
        .iter()
        .map(|violation| text::plain(&format!("{}: {}", violation.field, violation.description)))
        .collect();
    lines.join("; ")
}

/// Whether a failed write surely wrote nothing and may be sent again: the gateway says so, or it was
/// never sent. Everything else might append a second event (contract §3).
pub(crate) fn retry_delay(status: &Status) -> Option<Duration> {
    if connect_error(status).is_some() || was_never_sent(status) {
        return Some(Duration::ZERO);
    }
    status
        .get_details_retry_info()
        .map(|info| info.retry_delay.unwrap_or_default())
}

/// Whether a gateway spoke, rather than the transport under this program.
pub(crate) fn is_answer(status: &Status) -> bool {
    status.get_details_error_info().is_some()
}

fn outcome_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Read => "",
        Kind::Write => "; it may have been written, once: read the entity to find out",
    }
}

fn connect_error(status: &Status) -> Option<&(dyn std::error::Error + 'static)> {
    causes(status).find(|error| error.is::<tonic::ConnectError>())
}

/// Whether the request still waited for the connection when that was closed, as happens when a
/// gateway ends in good order.
fn was_never_sent(status: &Status) -> bool {
    causes(status)
        .filter_map(|error| error.downcast_ref::<hyper::Error>())
        .any(hyper::Error::is_canceled)
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    let mut next = status.source();
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

fn explain_connect(gateway: &Address, error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = Some(error);
    let mut last = String::new();
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::ConnectionRefused
        {
            return format!("no gateway at {gateway}; start one with `stategate dev`");
        }
        last = error.to_string();
        cause = error.source();
    }
    format!("cannot connect to {gateway}: {last}")
}

fn innermost(status: &Status) -> String {
    let words = causes(status).last().map(ToString::to_string);
    text::plain(words.as_deref().unwrap_or(status.message()))
}

#[cfg(test)]
mod tests {
    use stategate_model::{Invalid, Version};
    use stategate_protocol::Problem;

    use super::*;

    fn told(status: &Status, kind: Kind) -> (Exit, String) {
        let gateway = "127.0.0.1:8080".parse().unwrap();
        let failure = Failure::of_status(status, kind, &gateway);
        (failure.exit(), failure.message().unwrap().to_owned())
    }

    #[test]
    fn every_answer_has_its_words_and_exit_code() {
        let cases: [(Problem, Exit, &str); 7] = [
            (
                Invalid::new("limit", "is -1; it must be 0 or more").into(),
                Exit::Refused,
                "limit: is -1; it must be 0 or more",
            ),
            (
                Problem::EntityNotFound {
                    what: "faa/airport/XXX".to_owned(),
                },
                Exit::NotFound,
                "no entity faa/airport/XXX",
            ),
            (
                Problem::VersionMismatch {
                    current: Some(Version::new(7)),
                },
                Exit::Refused,
                "the entity is not at a version the precondition asks for; it is at version 7",
            ),
            (
                Problem::Busy {
                    what: "the write queue is full",
                },
                Exit::Unavailable,
                "the write queue is full; try again later",
            ),
            (
                Problem::StorageUnavailable,
                Exit::Unavailable,
                "the storage cannot be reached; nothing was written",
            ),
            (
                Problem::OutcomeUnknown {
                    retry_is_safe: false,
                },
                Exit::Unavailable,
                "the write may have happened, once; read the entity to find out",
            ),
            (
                Problem::Internal {
                    id: "17".to_owned(),
                },
                Exit::Failed,
                "internal error 17; the service's log has the cause under this id",
            ),
        ];
        for (problem, exit, words) in cases {
            let status = Status::from(problem);
            assert_eq!(told(&status, Kind::Write), (exit, words.to_owned()));
        }
    }

    #[test]
    fn silence_says_what_it_leaves_open() {
        let status = Status::cancelled("Timeout expired");
        assert_eq!(
            told(&status, Kind::Write),
            (
                Exit::Unavailable,
                "no answer in time; it may have been written, once: read the entity to find out"
                    .to_owned()
            )
        );
        assert_eq!(
            told(&status, Kind::Read),
            (Exit::Unavailable, "no answer in time".to_owned())
        );
        assert_eq!(
            told(&Status::unknown("error reading a body from connection"), Kind::Read),
            (
                Exit::Unavailable,
                "the connection to http://127.0.0.1:8080 was lost (error reading a body from connection)"
                    .to_owned()
            )
        );
        assert_eq!(
            told(&Status::unimplemented(""), Kind::Read),
            (
                Exit::Refused,
                "http://127.0.0.1:8080 does not serve this call; is it a stategate gateway?"
                    .to_owned()
            )
        );
    }

    #[test]
    fn only_what_cannot_write_twice_is_retried() {
        let delay = |problem: Problem| retry_delay(&Status::from(problem));
        assert!(delay(Problem::StorageUnavailable).is_some());
        assert!(delay(Problem::Busy { what: "full" }).is_some());
        assert!(
            delay(Problem::OutcomeUnknown {
                retry_is_safe: false
            })
            .is_none()
        );
        assert!(retry_delay(&Status::unavailable("connection reset")).is_none());
        assert!(retry_delay(&Status::deadline_exceeded("")).is_none());
    }

    #[test]
    fn what_a_gateway_says_cannot_steer_a_terminal() {
        let status = Status::from(Problem::EntityNotFound {
            what: "\u{1b}[2Jx".to_owned(),
        });
        assert_eq!(told(&status, Kind::Read).1, "no entity \\u{1b}[2Jx");
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit(), failure.message()), (Exit::Done, None));
    }
}
