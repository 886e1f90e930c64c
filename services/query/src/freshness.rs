//! Reading what one has written: a read that names a token waits until its answer is at least that
//! new (contract §5).

use std::time::Duration;

use stategate_model::{Invalid, Lane, Position, Token};
use stategate_protocol::{Problem, headers};
use stategate_storage::{Error, Kind, Read, Storage};
use tokio::time::{Instant, sleep};
use tonic::metadata::MetadataMap;

/// How long a read waits that has no deadline of its own.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two looks at the heads.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How new an answer must be, and how long it may be waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fresh {
    /// The position of the lane that it must reflect; `None`: any.
    pub(crate) min: Option<Position>,
    /// The call's deadline; `None`: 10 s.
    pub(crate) until: Option<Instant>,
}

/// Reads `stategate-min-position`: the position of `lane` that an answer must reflect.
pub(crate) fn min_position(
    metadata: &MetadataMap,
    storage: &dyn Storage,
    lane: Lane,
) -> Result<Option<Position>, Problem> {
    let mut values = metadata.get_all(headers::MIN_POSITION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let refuse = |problem: String| Problem::from(Invalid::new(headers::MIN_POSITION, problem));
    if values.next().is_some() {
        return Err(refuse("was sent more than once".to_owned()));
    }
    let text = value
        .to_str()
        .map_err(|_| refuse("is not a token".to_owned()))?;
    let token: Token = text.parse().map_err(refuse)?;
    let info = storage.info();
    if token.log_id != info.log_id {
        return Err(Problem::LogChanged);
    }
    if let Some((unknown, _)) = token.iter().find(|(lane, _)| !info.lanes.contains(*lane)) {
        return Err(refuse(format!("names the unknown lane {unknown}")));
    }
    Ok(token.get(lane))
}

/// Reads until the answer is new enough: at once, as a rule, since a storage reflects what was
/// acknowledged.
pub(crate) async fn read<T, F>(fresh: Fresh, read: impl Fn() -> F) -> Result<Read<T>, Problem>
where
    F: Future<Output = stategate_storage::Result<Read<T>>>,
{
    let until = fresh.until.unwrap_or_else(|| Instant::now() + PATIENCE);
    loop {
        let answer = read().await.map_err(|error| failed(&error))?;
        match fresh.min {
            Some(min) if answer.position < min => {}
            _ => return Ok(answer),
        }
        if Instant::now() >= until {
            return Err(Problem::DeadlineExceeded);
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// What a client is told of a read that failed.
fn failed(error: &Error) -> Problem {
    match error.kind() {
        Kind::Unavailable | Kind::Unknown => Problem::StorageUnavailable,
        Kind::Invalid(invalid) => Problem::Invalid(invalid.clone()),
        Kind::Rejected | Kind::Corrupt | Kind::Config => Problem::internal(error),
    }
}
