//! What PostgreSQL's failures mean to the contract.

use tokio_postgres::{
    Error as Sql,
    error::{DbError, Severity, SqlState},
};

pub(super) use crate::error::{closed, corrupt};
use crate::{Error, ErrorKind, Trouble};

/// A setting that cannot be used.
pub(super) fn refused(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, "open").because(problem.into())
}

/// A failure of a call that writes nothing, or of one that was surely not carried out.
pub(super) fn failure(operation: &'static str) -> impl Fn(Sql) -> Error {
    move |error| {
        Error::new(kind(&error), operation)
            .with_trouble(trouble(&error))
            .because(told(&error))
    }
}

/// A connection that could not be made. `servers` are for the log and for whoever starts the process.
pub(super) fn unreachable(operation: &'static str, servers: &str, error: &Sql) -> Error {
    let (told, trouble) = (told(error), trouble(error));
    let why = match error.as_db_error().is_some() || trouble.is_some() {
        true => format!("PostgreSQL at {servers} answers: {told}"),
        false => {
            let see = match told.contains("TLS") {
                true => {
                    "see `sslmode` in `addr`, and what the server's certificate is checked against"
                }
                false => "see that it runs and that `addr` leads to it",
            };
            format!("no connection to PostgreSQL at {servers} could be made: {told}; {see}")
        }
    };
    Error::new(ErrorKind::Unavailable, operation)
        .with_trouble(trouble)
        .because(why)
}

/// No connection was made in time.
pub(super) fn late(operation: &'static str, servers: &str) -> Error {
    Error::new(ErrorKind::Unavailable, operation).because(format!(
        "no connection to PostgreSQL at {servers} could be had in time: it does not answer, or all of them are in \
         use; see that it runs, that `addr` leads to it, and `connections`"
    ))
}

/// What the server says of itself, for callers too.
fn trouble(error: &Sql) -> Option<Trouble> {
    let Some(said) = error.as_db_error() else {
        // The driver looks at a new connection before anybody uses it.
        let takes_no_writes = told(error).contains("does not allow writes");
        return takes_no_writes.then_some(Trouble::ReadOnly);
    };
    let code = said.code();
    let words = [
        (SqlState::DISK_FULL, Trouble::Full),
        (SqlState::IO_ERROR, Trouble::Disk),
        (SqlState::READ_ONLY_SQL_TRANSACTION, Trouble::ReadOnly),
        (SqlState::UNDEFINED_DATABASE, Trouble::Gone),
        (SqlState::UNDEFINED_TABLE, Trouble::Gone),
        (SqlState::INVALID_SCHEMA_NAME, Trouble::Gone),
        (SqlState::INVALID_PASSWORD, Trouble::Refused),
        (
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            Trouble::Refused,
        ),
        (SqlState::INSUFFICIENT_PRIVILEGE, Trouble::Refused),
        (SqlState::TOO_MANY_CONNECTIONS, Trouble::Crowded),
    ];
    words
        .into_iter()
        .find_map(|(of, trouble)| (*code == of).then_some(trouble))
}

/// The driver's words and those of what caused them, each once.
fn told(error: &Sql) -> String {
    let mut told = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let cause_told = cause.to_string();
        if !told.contains(&cause_told) {
            told = format!("{told}: {cause_told}");
        }
        next = cause.source();
    }
    told
}

/// A failure of an append that had been sent.
pub(super) fn append_failure(error: &Sql) -> Error {
    let kind = match refusal(error) {
        // The statement was refused as a whole.
        Some(_) => kind(error),
        // The connection went, or the server said that it would go: the commit may be on its disk.
        None => ErrorKind::Unknown,
    };
    Error::new(kind, "append")
        .with_trouble(trouble(error))
        .because(told(error))
}

/// Whether a server says that a commit no longer waits for a standby, since somebody cancelled it: the
/// transaction is done on this server, and may be on no other. Told by the place in the server that says
/// it, since the words are in the language it is set to.
pub(super) fn is_cut_short(notice: &DbError) -> bool {
    notice.routine() == Some("SyncRepWaitForLSN")
        || notice.message().contains("synchronous replication")
}

/// The server's refusal of a statement, after which nothing of it is there; not a word with which a
/// server ends a connection.
fn refusal(error: &Sql) -> Option<&DbError> {
    let refusal = error.as_db_error()?;
    let ends = matches!(
        refusal.parsed_severity(),
        Some(Severity::Fatal | Severity::Panic)
    );
    (!ends && !is_class(refusal.code(), "08")).then_some(refusal)
}

/// Whether the server gave a statement up in favour of another one, so that it can be sent again.
pub(super) fn is_conflict(error: &Sql) -> bool {
    refusal(error).is_some_and(|refusal| {
        [
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
        ]
        .contains(refusal.code())
    })
}

/// Whether the server gave a statement up for a row that others held for too long.
pub(super) fn is_held(error: &Sql) -> bool {
    refusal(error).is_some_and(|refusal| *refusal.code() == SqlState::LOCK_NOT_AVAILABLE)
}

/// Whether the server answers in a way that shows the connection to be of no more use: the database
/// has become a standby, for one.
pub(super) fn spoils(error: &Sql) -> bool {
    refusal(error).is_none_or(|refusal| {
        [
            SqlState::READ_ONLY_SQL_TRANSACTION,
            // A prepared statement whose tables were changed.
            SqlState::FEATURE_NOT_SUPPORTED,
            SqlState::INVALID_SQL_STATEMENT_NAME,
        ]
        .contains(refusal.code())
    })
}

fn kind(error: &Sql) -> ErrorKind {
    let Some(refusal) = refusal(error) else {
        // A value that does not fit its type, in either direction, never left this process or was not
        // written by it; everything else is the connection.
        return match std::error::Error::source(error) {
            Some(cause) if cause.is::<tokio_postgres::types::WrongType>() => ErrorKind::Corrupt,
            _ => ErrorKind::Unavailable,
        };
    };
    let code = refusal.code();
    if [
        SqlState::UNDEFINED_COLUMN,
        SqlState::UNDEFINED_FUNCTION,
        SqlState::DATATYPE_MISMATCH,
        SqlState::DATA_CORRUPTED,
        SqlState::INDEX_CORRUPTED,
    ]
    .contains(code)
    {
        return ErrorKind::Corrupt;
    }
    // Data exceptions, integrity constraints, and limits of the program such as the size of a row.
    if ["22", "23", "54"].iter().any(|class| is_class(code, class)) {
        return ErrorKind::Rejected;
    }
    ErrorKind::Unavailable
}

fn is_class(code: &SqlState, class: &str) -> bool {
    code.code().starts_with(class)
}
