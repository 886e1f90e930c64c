//! Reads that are as new as their callers ask for.

use stategate_protocol::Problem;
use stategate_server::Freshness;
use stategate_storage::{Error, Kind, Read};

/// Reads until the answer is new enough.
pub(crate) async fn read<T, F>(fresh: &Freshness, read: impl Fn() -> F) -> Result<Read<T>, Problem>
where
    F: Future<Output = stategate_storage::Result<Read<T>>>,
{
    let look = || {
        let read = read();
        async { read.await.map_err(|error| failed(&error)) }
    };
    fresh
        .wait(look, |answer, min| {
            min.get(answer.lane)
                .is_none_or(|min| answer.position >= min)
        })
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
        Kind::Rejected | Kind::Corrupt | Kind::Config | Kind::Bug => Problem::internal(error),
    }
}
