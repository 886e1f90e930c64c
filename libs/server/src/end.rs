//! Why connections end.

use std::{error::Error, io};

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Its client closed it, or it was asked to because the process ends or the connection was old.
    Closed,
    /// It broke.
    Lost,
    /// Its client broke the rules of the protocol, or asked for more work than they are meant for.
    Protocol,
    /// Its client did not answer whether it is alive, or took too long for the headers of a request.
    KeepAlive,
    /// The TLS handshake failed, or took too long.
    Handshake,
    /// Its client said nothing.
    Silent,
    /// Its client took nothing off it.
    Stalled,
    /// Its client did not take a unary answer.
    AnswersUntaken,
    /// Clients did not take their answers, and this one held most of them.
    AnswersMemory,
    /// It was old, and what was on it took longer than it is given.
    Age,
}

impl End {
    /// What metrics call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Lost => "lost",
            Self::Protocol => "protocol",
            Self::KeepAlive => "keep_alive",
            Self::Handshake => "handshake",
            Self::Silent => "silent",
            Self::Stalled => "stalled",
            Self::AnswersUntaken => "answers_untaken",
            Self::AnswersMemory => "answers_memory",
            Self::Age => "age",
        }
    }

    /// That of a connection that was served until this happened.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<hyper::Error>()
                && error.is_timeout()
            {
                return Self::KeepAlive;
            }
            if let Some(error) = error.downcast_ref::<h2::Error>() {
                return match error {
                    error if error.is_io() => Self::Lost,
                    // The client says that it ends it.
                    error if error.is_remote() => Self::Closed,
                    _ => Self::Protocol,
                };
            }
            if error.is::<io::Error>() {
                return Self::Lost;
            }
            cause = error.source();
        }
        Self::Protocol
    }
}
