//! Reading what one has written: a read that names a token waits until its answer is at least that
//! new (contract §5).

use std::{sync::Arc, time::Duration};

use stategate_model::{Invalid, Lane, Position, Token};
use stategate_protocol::{Problem, headers};
use stategate_storage::{Kind, Storage};
use tokio::time::{Instant, sleep};
use tonic::metadata::MetadataMap;

/// How long a read waits that has no deadline of its own.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two looks at the heads.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

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

/// Waits until the storage answers at least at `position` of `lane`.
pub(crate) async fn reach(
    storage: &Arc<dyn Storage>,
    lane: Lane,
    position: Position,
) -> Result<(), Problem> {
    let until = Instant::now() + PATIENCE;
    loop {
        match storage.heads().await {
            Ok(heads) if heads.get(lane) >= position => return Ok(()),
            Ok(_) => {}
            Err(error) if *error.kind() == Kind::Unavailable => {}
            Err(error) => return Err(Problem::internal(&error)),
        }
        if Instant::now() >= until {
            return Err(Problem::DeadlineExceeded);
        }
        sleep(LOOK_AGAIN).await;
    }
}
