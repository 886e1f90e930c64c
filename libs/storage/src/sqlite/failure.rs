//! What SQLite's failures mean to the contract.

use rusqlite::{Error as Sql, ErrorCode, ffi};

pub(super) use crate::error::{closed, corrupt};
use crate::{Error, ErrorKind, Trouble};

/// A failure that left nothing written.
pub(super) fn failure(operation: &'static str) -> impl Fn(Sql) -> Error {
    move |error| classified(&error, operation).because(error)
}

/// The same for each of those who share a failure.
pub(super) fn shared_failure(error: &Sql, operation: &'static str) -> Error {
    classified(error, operation).because(error.to_string())
}

fn classified(error: &Sql, operation: &'static str) -> Error {
    Error::new(kind(error), operation).with_trouble(trouble(error))
}

/// What a failure says of the file, for callers too.
pub(super) fn trouble(error: &Sql) -> Option<Trouble> {
    match error.sqlite_error_code()? {
        ErrorCode::DiskFull => Some(Trouble::Full),
        ErrorCode::SystemIoFailure => Some(Trouble::Disk),
        ErrorCode::ReadOnly => Some(Trouble::ReadOnly),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Some(Trouble::Locked),
        _ => None,
    }
}

/// Whether a COMMIT failed at writing to the log, of which the mark that commits is the last piece: what
/// is before it does not count without it.
pub(super) fn is_unwritten(error: &Sql) -> bool {
    match error {
        Sql::SqliteFailure(failure, _) => {
            failure.code == ErrorCode::DiskFull || failure.extended_code == ffi::SQLITE_IOERR_WRITE
        }
        _ => false,
    }
}

fn kind(error: &Sql) -> ErrorKind {
    match error {
        Sql::SqliteFailure(failure, _) => kind_of_code(*failure),
        // A column of another type than the schema says, or a row that must be there and is not.
        _ => ErrorKind::Corrupt,
    }
}

fn kind_of_code(failure: ffi::Error) -> ErrorKind {
    match failure.code {
        ErrorCode::ConstraintViolation | ErrorCode::TooBig => ErrorKind::Rejected,
        // `Unknown` is SQLITE_ERROR: the statements are ours and fixed, so it is the schema that is
        // not what it was.
        ErrorCode::DatabaseCorrupt
        | ErrorCode::NotADatabase
        | ErrorCode::TypeMismatch
        | ErrorCode::Unknown => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    }
}

/// Whether another connection held a lock for longer than the busy timeout.
pub(super) fn is_busy(error: &Sql) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}
