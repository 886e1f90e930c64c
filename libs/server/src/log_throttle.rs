//! What goes wrong many times a second is logged once in a while.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Between two lines about the same trouble.
const PAUSE: Duration = Duration::from_secs(5);

/// Says when a line about some trouble is due, and how many were left out since the last.
#[derive(Debug, Default)]
pub struct LogThrottle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl LogThrottle {
    /// How many lines were left out, if one is due now; counts this one as left out otherwise.
    pub fn is_due(&self) -> Option<u64> {
        let mut state = self.0.lock();
        if state.last.is_some_and(|last| last.elapsed() < PAUSE) {
            state.left_out += 1;
            return None;
        }
        state.last = Some(Instant::now());
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_is_told_and_then_one_in_a_while_with_those_left_out() {
        let throttle = LogThrottle::default();
        assert_eq!(throttle.is_due(), Some(0));
        for _ in 0..7 {
            assert_eq!(throttle.is_due(), None);
        }
        tokio::time::advance(PAUSE).await;
        assert_eq!(throttle.is_due(), Some(7));
        assert_eq!(throttle.is_due(), None);
    }
}
