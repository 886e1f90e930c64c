//! When a call is tried again, and after how long.

use std::time::Duration;

/// How calls are tried again that failed in a way that may pass.
///
/// A write is tried again only because it carries an idempotency key; a read always may be. Waits
/// double from `first` to `longest`, each drawn at random between half of it and all of it, so that
/// clients that failed together do not come back together. The call's deadline ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The wait after the first failure.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// Most tries of one call, the first included; 1 never tries again.
    pub tries: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(20),
            longest: Duration::from_secs(2),
            tries: 20,
        }
    }
}

impl Retry {
    /// Never tries again.
    pub const NEVER: Self = Self {
        first: Duration::ZERO,
        longest: Duration::ZERO,
        tries: 1,
    };

    /// The waits of one call.
    pub(crate) fn waits(self) -> Waits {
        Waits {
            retry: self,
            next: self.first,
            tries: 1,
        }
    }
}

/// The waits of one call, one after the other.
#[derive(Debug)]
pub(crate) struct Waits {
    retry: Retry,
    next: Duration,
    tries: u32,
}

impl Waits {
    /// How long to wait before the next try, at least as long as the server `asks` for; `None` when
    /// there were enough.
    pub(crate) fn next(&mut self, asks: Option<Duration>) -> Option<Duration> {
        if self.tries >= self.retry.tries {
            return None;
        }
        self.tries += 1;
        let wait = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.next = (self.next * 2).min(self.retry.longest);
        Some(wait.max(asks.unwrap_or_default().min(self.retry.longest)))
    }

    /// Starts again from the shortest wait: something worked in between.
    pub(crate) fn reset(&mut self) {
        self.next = self.retry.first;
        self.tries = 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_with_jitter_and_end() {
        let retry = Retry {
            first: Duration::from_millis(10),
            longest: Duration::from_millis(40),
            tries: 5,
        };
        let mut waits = retry.waits();
        for most in [10, 20, 40, 40] {
            let wait = waits.next(None).unwrap();
            let most = Duration::from_millis(most);
            assert!(most / 2 <= wait && wait <= most, "{wait:?} for {most:?}");
        }
        assert_eq!(waits.next(None), None);
        waits.reset();
        assert!(waits.next(Some(Duration::from_secs(9))).unwrap() == Duration::from_millis(40));
        assert_eq!(Retry::NEVER.waits().next(None), None);
    }
}
