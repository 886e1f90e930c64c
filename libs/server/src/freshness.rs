//! Reading what one has written: the answer to a call that names a token is at least that new
//! (contract §5). One rule for every read, streams included.

use std::{future::Future, time::Duration};

use stategate_model::{Invalid, Lanes, LogId, Token};
use stategate_protocol::{Problem, headers};
use tokio::time::{Instant, sleep};
use tonic::{Request, metadata::MetadataMap};

/// How long a call waits that has no deadline of its own.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How new the answer to a call must be, and how long it may be waited for.
#[derive(Debug, Clone)]
pub struct Freshness {
    /// What the answer must reflect; `None`: it may be as old as it is.
    min: Option<Token>,
    /// The call's deadline; `None`: [`PATIENCE`].
    until: Option<Instant>,
}

impl Freshness {
    /// What a call asks for with `stategate-min-position`, of a log with this identity and these
    /// lanes.
    pub fn of<T>(request: &Request<T>, log_id: LogId, lanes: Lanes) -> Result<Self, Problem> {
        Ok(Self {
            min: min_position(request.metadata(), log_id, lanes)?,
            until: crate::deadline(request),
        })
    }

    /// Looks until what is seen has `reached` the token: at once, as a rule, since a storage reflects
    /// what was acknowledged.
    pub async fn wait<A, F>(
        &self,
        look: impl Fn() -> F,
        reached: impl Fn(&A, &Token) -> bool,
    ) -> Result<A, Problem>
    where
        F: Future<Output = Result<A, Problem>>,
    {
        let until = self.until.unwrap_or_else(|| Instant::now() + PATIENCE);
        loop {
            let seen = look().await?;
            match &self.min {
                Some(min) if !reached(&seen, min) => {}
                _ => return Ok(seen),
            }
            if Instant::now() >= until {
                return Err(Problem::DeadlineExceeded);
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}

fn min_position(
    metadata: &MetadataMap,
    log_id: LogId,
    lanes: Lanes,
) -> Result<Option<Token>, Problem> {
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
    if token.log_id != log_id {
        return Err(Problem::LogChanged);
    }
    if let Some((unknown, _)) = token.iter().find(|(lane, _)| !lanes.contains(*lane)) {
        return Err(refuse(format!("names the unknown lane {unknown}")));
    }
    Ok(Some(token))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use stategate_model::{Lane, Position};

    use super::*;

    fn asking(log_id: LogId, min: &str) -> Result<Freshness, Problem> {
        let mut request = Request::new(());
        request
            .metadata_mut()
            .insert(headers::MIN_POSITION, min.parse().unwrap());
        Freshness::of(&request, log_id, Lanes::new(2).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_waited_for() {
        let log_id = LogId::random();
        let seen = AtomicU64::new(0);
        let look = || async { Ok(Position::new(seen.fetch_add(1, Ordering::SeqCst))) };
        let reached = |at: &Position, min: &Token| min.get(Lane(1)).is_none_or(|min| *at >= min);
        let nothing = Freshness::of(&Request::new(()), log_id, Lanes::ONE).unwrap();
        assert_eq!(nothing.wait(look, reached).await, Ok(Position::ZERO));
        let other_lane = asking(log_id, &format!("{log_id}/0:9")).unwrap();
        assert_eq!(other_lane.wait(look, reached).await, Ok(Position::new(1)));
        let third = asking(log_id, &format!("{log_id}/0:9,1:3")).unwrap();
        assert_eq!(third.wait(look, reached).await, Ok(Position::new(3)));
        let begun = Instant::now();
        let never = third.wait(look, |_, _| false).await;
        assert_eq!(never, Err(Problem::DeadlineExceeded));
        assert_eq!(begun.elapsed(), PATIENCE);
    }

    #[test]
    fn what_is_no_token_of_the_log_is_refused() {
        let log_id = LogId::random();
        for bad in ["", "x", &format!("{log_id}/2:1"), &format!("{log_id}/")] {
            let refused = asking(log_id, bad).unwrap_err();
            assert!(
                matches!(&refused, Problem::Invalid(invalid) if invalid.field == headers::MIN_POSITION),
                "{bad}: {refused:?}"
            );
        }
        let other = format!("{}/0:1", LogId::random());
        assert_eq!(asking(log_id, &other).unwrap_err(), Problem::LogChanged);
    }
}
