//! How a command ends when it does not succeed: what the user reads, and the exit code.

use std::{io, process::ExitCode};

use stategate_client::{Error, ErrorKind};
use stategate_server::variables;

use super::text;
use crate::prompt::Declined;

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

    /// One that the output has told of.
    pub(crate) fn quiet(exit: Exit) -> Self {
        Self {
            exit,
            message: None,
        }
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// What to tell the user, if anything.
    pub(crate) fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }
}

impl From<Declined> for Failure {
    fn from(declined: Declined) -> Self {
        let exit = match declined {
            Declined::NoTerminal(_) => Exit::Usage,
            Declined::ByUser | Declined::Unable(_) => Exit::Failed,
        };
        Self::new(exit, declined.to_string())
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
        Self::failed(format!("{UNWRITABLE_OUTPUT}: {}", words(&error)))
    }
}

/// A call that was answered with an error, or not at all.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(exit_of(error.kind()), explain(&error))
    }
}

/// What begins the words about an output that takes no more.
pub(crate) const UNWRITABLE_OUTPUT: &str = "cannot write the output";

/// What an error of the system says, without its number.
pub(crate) fn words(error: &io::Error) -> String {
    let said = error.to_string();
    match said.split_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => said,
    }
}

fn exit_of(kind: &ErrorKind) -> Exit {
    match kind {
        ErrorKind::NotFound => Exit::NotFound,
        ErrorKind::Invalid(_)
        | ErrorKind::VersionMismatch { .. }
        | ErrorKind::KeyReused
        | ErrorKind::LogChanged
        | ErrorKind::PositionAhead
        | ErrorKind::LogRewound
        | ErrorKind::Unauthenticated
        | ErrorKind::Denied
        | ErrorKind::Unsupported => Exit::Refused,
        ErrorKind::Unreachable
        | ErrorKind::Unavailable
        | ErrorKind::OutcomeUnknown
        | ErrorKind::DeadlineExceeded => Exit::Unavailable,
        // `Other`, and what a later client may add.
        _ => Exit::Failed,
    }
}

/// What went wrong and what to do about it, in words for a person.
pub(crate) fn explain(error: &Error) -> String {
    let what = text::plain(&error.to_string());
    let hint = match error.kind() {
        ErrorKind::Unreachable => "start one with `stategate dev`, or name another with --addr",
        ErrorKind::Unauthenticated => &format!(
            "give one that is valid with --token-file or {}",
            variables::TOKEN.name
        ),
        ErrorKind::DeadlineExceeded => "--timeout waits longer",
        _ => return what,
    };
    format!("{what}; {hint}")
}

/// What is told of a stream that is made again.
pub(crate) fn lost(error: &Error) -> String {
    match error.kind() {
        ErrorKind::Unauthenticated => {
            let what = text::plain(&error.to_string());
            format!("{what}; going on with the newer token")
        }
        _ => format!("{}; trying again until it is back", explain(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_failure_have_their_exit_codes() {
        for (kind, exit) in [
            (ErrorKind::NotFound, Exit::NotFound),
            (ErrorKind::Invalid(Vec::new()), Exit::Refused),
            (ErrorKind::VersionMismatch { current: None }, Exit::Refused),
            (ErrorKind::LogChanged, Exit::Refused),
            (ErrorKind::PositionAhead, Exit::Refused),
            (ErrorKind::LogRewound, Exit::Refused),
            (ErrorKind::Denied, Exit::Refused),
            (ErrorKind::Unreachable, Exit::Unavailable),
            (ErrorKind::OutcomeUnknown, Exit::Unavailable),
            (ErrorKind::DeadlineExceeded, Exit::Unavailable),
            (ErrorKind::Other, Exit::Failed),
        ] {
            assert_eq!(exit_of(&kind), exit, "{kind:?}");
        }
    }

    #[test]
    fn an_error_of_the_system_has_no_number() {
        let missing = io::Error::from_raw_os_error(2);
        assert_eq!(words(&missing), "No such file or directory");
        assert_eq!(words(&io::Error::other("it is damaged")), "it is damaged");
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit(), failure.message()), (Exit::Done, None));
    }
}
