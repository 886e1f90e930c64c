//! How long to wait before another attempt: 50 ms, then twice as long each time up to 5 s, less a random
//! part, so that processes that lost the same broker do not come back in step.

use std::time::Duration;

use tokio::time::Instant;

const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);
/// A connection that lasted this long was a good one.
const GOOD: Duration = Duration::from_secs(1);

/// Failed attempts in a row.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    connected: Option<Instant>,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self {
            next: SHORTEST,
            connected: None,
        }
    }

    /// An attempt succeeded.
    pub(super) fn connected(&mut self) {
        self.connected = Some(Instant::now());
    }

    /// An attempt failed, or the connection is lost: the pause before the next one.
    pub(super) fn pause(&mut self) -> Duration {
        if self.connected.take().is_some_and(|at| at.elapsed() >= GOOD) {
            self.next = SHORTEST;
        }
        let longest = self.next;
        self.next = (longest * 2).min(LONGEST);
        longest.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_start_anew_after_a_good_connection() {
        let mut backoff = Backoff::new();
        let mut expected = SHORTEST;
        for _ in 0..20 {
            let pause = backoff.pause();
            assert!(expected / 2 <= pause && pause <= expected, "{pause:?}");
            expected = (expected * 2).min(LONGEST);
        }
        // One that breaks at once is no good one.
        backoff.connected();
        assert!(backoff.pause() >= LONGEST / 2);
        backoff.connected();
        tokio::time::advance(GOOD).await;
        assert!(backoff.pause() <= SHORTEST);
    }
}
