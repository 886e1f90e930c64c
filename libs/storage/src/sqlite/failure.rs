//! What SQLite's failures mean to the contract.

use rusqlite::{Error as Sql, ErrorCode, ffi};

use crate::{Error, Kind};

/// A failure that left nothing written.
pub(super) fn failure(operation: &'static str) -> impl Fn(Sql) -> Error {
    move |error| Error::new(kind(&error), operation).because(error)
}

fn kind(error: &Sql) -> Kind {
    match error {
        Sql::SqliteFailure(failure, _) => kind_of_code(*failure),
        // A column of another type than the schema says, or a row that must be there and is not.
        _ => Kind::Corrupt,
    }
}

fn kind_of_code(failure: ffi::Error) -> Kind {
    match failure.code {
        ErrorCode::ConstraintViolation | ErrorCode::TooBig => Kind::Rejected,
        // `Unknown` is SQLITE_ERROR: the statements are ours and fixed, so it is the schema that is
        // not what it was.
        ErrorCode::DatabaseCorrupt
        | ErrorCode::NotADatabase
        | ErrorCode::TypeMismatch
        | ErrorCode::Unknown => Kind::Corrupt,
        _ => Kind::Unavailable,
    }
}

/// What was read is not what this provider writes.
pub(super) fn corrupt(operation: &'static str, what: &'static str) -> Error {
    Error::new(Kind::Corrupt, operation).because(what)
}

/// The storage was closed.
pub(super) fn closed(operation: &'static str) -> Error {
    Error::new(Kind::Unavailable, operation).because("the storage is closed")
}

/// Whether another connection held a lock for longer than the busy timeout.
pub(super) fn is_busy(error: &Sql) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}
