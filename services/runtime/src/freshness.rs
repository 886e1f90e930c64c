//! Reading what one has written: the answer to a call that names a token is at least that new
//! (contract §5). One rule for every read, streams included.

use std::future::Future;

use stategate_api::{Context, Problem};
use stategate_model::{Invalid, Lane, Lanes, LogId, Position, Token, limits};
use tokio::time::Instant;

use crate::positions::{Patience, Positions};

/// What callers know it as.
const MIN_POSITION: &str = "stategate-min-position";

/// How new the answer to a call must be, and how long it may be waited for.
#[derive(Debug, Clone)]
pub struct Freshness {
    /// What the answer must reflect; `None`: it may be as old as it is.
    min: Option<Token>,
    patience: Patience,
}

impl Freshness {
    /// What a call asks for with `stategate-min-position`, of a log with this identity and these
    /// lanes.
    pub fn of(context: &Context, log_id: LogId, lanes: Lanes) -> Result<Self, Problem> {
        let longest = Instant::now() + limits::POSITION_WAIT;
        let deadline = context.deadline.filter(|deadline| *deadline <= longest);
        Ok(Self {
            min: min_position(context, log_id, lanes)?,
            patience: Patience {
                until: deadline.unwrap_or(longest),
                is_deadline: deadline.is_some(),
            },
        })
    }

    /// Reads what is of one lane. `reflects` tells how far an answer reflects it.
    pub async fn read<A, F>(
        &self,
        positions: &Positions,
        lane: Lane,
        look: impl Fn() -> F,
        reflects: impl Fn(&A) -> Position,
    ) -> Result<A, Problem>
    where
        F: Future<Output = Result<A, Problem>>,
    {
        let min = self.min.as_ref().and_then(|min| min.get(lane));
        let needs = min.map(|min| (lane, min));
        let reflects = |answer: &A, _| reflects(answer);
        positions
            .read(needs.as_slice(), self.patience, look, reflects)
            .await
    }

    /// Reads what is of every lane.
    pub async fn read_all<A, F>(
        &self,
        positions: &Positions,
        look: impl Fn() -> F,
        reflects: impl Fn(&A, Lane) -> Position,
    ) -> Result<A, Problem>
    where
        F: Future<Output = Result<A, Problem>>,
    {
        let needs: Vec<_> = self.min.iter().flat_map(Token::iter).collect();
        positions.read(&needs, self.patience, look, reflects).await
    }
}

fn min_position(context: &Context, log_id: LogId, lanes: Lanes) -> Result<Option<Token>, Problem> {
    let Some(token) = &context.min_position else {
        return Ok(None);
    };
    if token.log_id != log_id {
        return Err(Problem::LogChanged);
    }
    if let Some((unknown, _)) = token.iter().find(|(lane, _)| !lanes.contains(*lane)) {
        let problem = format!("names the unknown lane {unknown}");
        return Err(Invalid::new(MIN_POSITION, problem).into());
    }
    Ok(Some(token.clone()))
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use futures::FutureExt as _;
    use stategate_model::Heads;

    use super::*;

    fn asking(log_id: LogId, min: &str) -> Result<Freshness, Problem> {
        let context = Context {
            min_position: Some(min.parse().unwrap()),
            ..Context::anonymous()
        };
        Freshness::of(&context, log_id, Lanes::new(2).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_waited_for() {
        let log_id = LogId::random();
        let seen = Arc::new(AtomicU64::new(0));
        let heads = {
            let seen = Arc::clone(&seen);
            move || {
                let head = Position::new(seen.fetch_add(1, Ordering::SeqCst));
                futures::future::ready(Some(Heads::new(vec![Position::ZERO, head]))).boxed()
            }
        };
        let lanes = Lanes::new(2).unwrap();
        let positions = Positions::new(lanes, 100, Arc::new(heads));
        let look = || async { Ok(Position::new(seen.load(Ordering::SeqCst))) };
        let read = |fresh: Freshness| {
            let positions = &positions;
            async move { fresh.read(positions, Lane(1), look, |at| *at).await }
        };
        let nothing = Freshness::of(&Context::anonymous(), log_id, Lanes::ONE).unwrap();
        assert_eq!(read(nothing).await, Ok(Position::ZERO));
        let other_lane = asking(log_id, &format!("{log_id}/0:9")).unwrap();
        assert_eq!(read(other_lane.clone()).await, Ok(Position::ZERO));
        let third = asking(log_id, &format!("{log_id}/0:9,1:3")).unwrap();
        assert!(read(third).await.unwrap() >= Position::new(3));
        // All lanes of the token count for who reads all.
        let begun = Instant::now();
        let none = |_: &Position, _| Position::ZERO;
        let never = other_lane.read_all(&positions, look, none).await;
        assert_eq!(never, Err(Problem::PositionAhead));
        assert!(begun.elapsed() <= limits::POSITION_WAIT);
    }

    #[test]
    fn what_is_no_token_of_the_log_is_refused() {
        let log_id = LogId::random();
        let refused = asking(log_id, &format!("{log_id}/2:1")).unwrap_err();
        assert!(
            matches!(&refused, Problem::Invalid(invalid) if invalid.field == MIN_POSITION),
            "{refused:?}"
        );
        let other = format!("{}/0:1", LogId::random());
        assert_eq!(asking(log_id, &other).unwrap_err(), Problem::LogChanged);
    }
}
