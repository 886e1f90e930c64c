//! What a caller is told of a storage that failed.

use stategate_api::Problem;
use stategate_storage::{Error, Kind};

/// The problem that a failed read is to its caller. Nothing was written.
pub fn of_read(error: &Error) -> Problem {
    match error.kind() {
        Kind::Unavailable | Kind::Unknown => match error.trouble() {
            None => Problem::StorageUnavailable,
            Some(trouble) => Problem::StorageUnable {
                why: trouble.words(),
            },
        },
        Kind::Invalid(invalid) => Problem::Invalid(invalid.clone()),
        Kind::Rejected | Kind::Corrupt | Kind::Config | Kind::Bug => match error.panic() {
            Some(id) => Problem::Internal { id: id.to_string() },
            None => Problem::internal(error),
        },
    }
}
