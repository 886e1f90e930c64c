//! What a caller is told of a storage that failed.

use stategate_api::Problem;
use stategate_storage::{Error, ErrorKind};

/// The problem that a failed read is to its caller. Nothing was written.
pub fn of_read(error: &Error) -> Problem {
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Unknown => match error.trouble() {
            None => Problem::StorageUnavailable,
            Some(trouble) => Problem::StorageUnable {
                why: trouble.words(),
            },
        },
        ErrorKind::Invalid(invalid) => Problem::Invalid(invalid.clone()),
        ErrorKind::Rejected | ErrorKind::Corrupt | ErrorKind::Config | ErrorKind::Bug => {
            match error.panic() {
                Some(id) => Problem::Internal { id: id.to_string() },
                None => Problem::internal(error),
            }
        }
    }
}
