//! From a failed read of the storage to the problem that the client is answered.

use stategate_protocol::Problem;
use stategate_storage::{Error, Kind};

/// The problem that a failed read is to its caller.
pub(crate) fn failed(error: &Error) -> Problem {
    match (error.kind(), error.trouble()) {
        (Kind::Unavailable | Kind::Unknown, None) => Problem::StorageUnavailable,
        (Kind::Unavailable | Kind::Unknown, Some(trouble)) => Problem::StorageUnable {
            why: trouble.words(),
        },
        _ => match error.panic() {
            Some(id) => Problem::Internal { id: id.to_string() },
            None => Problem::internal(error),
        },
    }
}
