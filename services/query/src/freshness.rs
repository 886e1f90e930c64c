//! Reads that are as new as their callers ask for.

use stategate_model::Lane;
use stategate_protocol::Problem;
use stategate_server::{Freshness, Positions};
use stategate_storage::{Error, Kind, Read};

/// Reads what is of a lane, as new as it is asked for.
pub(crate) async fn read<T, F>(
    fresh: &Freshness,
    positions: &Positions,
    lane: Lane,
    read: impl Fn() -> F,
) -> Result<Read<T>, Problem>
where
    F: Future<Output = stategate_storage::Result<Read<T>>>,
{
    let look = || {
        let read = read();
        async { read.await.map_err(|error| failed(&error)) }
    };
    fresh
        .read(positions, lane, look, |answer| answer.position)
        .await
}

/// What a client is told of a read that failed.
fn failed(error: &Error) -> Problem {
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
