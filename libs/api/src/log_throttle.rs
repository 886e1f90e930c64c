//! What goes wrong many times a second is logged once in a while.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Says when a line about some trouble is due, and how many were left out since the last.
#[derive(Debug)]
pub struct LogThrottle {
    lines: u32,
    within: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    begun: Option<Instant>,
    said: u32,
    left_out: u64,
}

/// One line in five seconds.
impl Default for LogThrottle {
    fn default() -> Self {
        Self::of(1, Duration::from_secs(5))
    }
}

impl LogThrottle {
    /// At most so many lines within a time.
    pub const fn of(lines: u32, within: Duration) -> Self {
        Self {
            lines,
            within,
            state: Mutex::new(State {
                begun: None,
                said: 0,
                left_out: 0,
            }),
        }
    }

    /// How many lines were left out, if one is due now; counts this one as left out otherwise.
    pub fn is_due(&self) -> Option<u64> {
        let mut state = self.state.lock();
        if state
            .begun
            .is_none_or(|begun| begun.elapsed() >= self.within)
        {
            state.begun = Some(Instant::now());
            state.said = 0;
        }
        if state.said >= self.lines {
            state.left_out += 1;
            return None;
        }
        state.said += 1;
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
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(throttle.is_due(), Some(7));
        assert_eq!(throttle.is_due(), None);
    }
}
