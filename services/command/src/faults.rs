//! Places where a test may stop, kill or watch the service. Without the `faults` feature, which no
//! release has, every one of them is nothing.

/// A step of a batch on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BatchStep {
    /// States and head are known.
    Loaded,
    /// The batch is decided, not appended.
    Decided,
    /// The append is durable, nobody knows.
    Appended,
    /// The callers know.
    Acknowledged,
    /// Planted: the callers were told before anything was written.
    AcknowledgedTooEarly,
}

#[cfg(not(feature = "faults"))]
mod switch {
    /// No faults.
    #[derive(Debug)]
    pub(crate) struct Faults;

    impl Faults {
        pub(crate) fn from_env() -> Self {
            Self
        }

        #[inline]
        pub(crate) async fn at(&mut self, _step: super::BatchStep) {}

        #[inline]
        pub(crate) fn acknowledge_before_append(&self) -> bool {
            false
        }
    }
}

#[cfg(feature = "faults")]
mod switch {
    use std::{env, io::Write as _, time::Duration};

    use super::BatchStep;

    /// Faults as `STATEGATE_TEST_*` variables ask for them:
    ///
    /// - `STATEGATE_TEST_STEPS=1` writes `step <name> <batch>` lines to standard error;
    /// - `STATEGATE_TEST_PAUSE=<step>:<every>:<ms>` pauses at that step of every n-th batch;
    /// - `STATEGATE_TEST_PLANT=ack-before-append` plants the bug that the kill test must find, and
    ///   `STATEGATE_TEST_PLANT=panic:lane-<step>:<n>` a panic at that step of the n-th batch.
    #[derive(Debug)]
    pub(crate) struct Faults {
        steps: bool,
        pause: Option<(String, u64, Duration)>,
        early: bool,
        batch: u64,
    }

    impl Faults {
        pub(crate) fn from_env() -> Self {
            let pause = env::var("STATEGATE_TEST_PAUSE").ok().and_then(|text| {
                let mut parts = text.split(':');
                let step = parts.next()?.to_owned();
                let every = parts.next()?.parse().ok()?;
                let pause = Duration::from_millis(parts.next()?.parse().ok()?);
                Some((step, every, pause))
            });
            Self {
                steps: env::var_os("STATEGATE_TEST_STEPS").is_some(),
                pause,
                early: env::var("STATEGATE_TEST_PLANT")
                    .is_ok_and(|plant| plant == "ack-before-append"),
                batch: 0,
            }
        }

        pub(crate) async fn at(&mut self, step: BatchStep) {
            if step == BatchStep::Loaded {
                self.batch += 1;
            }
            let name = format!("{step:?}").to_lowercase();
            stategate_faults::pass(&format!("lane-{name}"));
            if self.steps {
                // One write, so that lines of several lanes do not mix.
                let _ =
                    std::io::stderr().write_all(format!("step {name} {}\n", self.batch).as_bytes());
            }
            if let Some((at, every, pause)) = &self.pause
                && *at == name
                && self.batch.is_multiple_of(*every)
            {
                let _ = std::io::stderr()
                    .write_all(format!("pause {name} {}\n", self.batch).as_bytes());
                tokio::time::sleep(*pause).await;
            }
        }

        pub(crate) fn acknowledge_before_append(&self) -> bool {
            self.early
        }
    }
}

pub(crate) use switch::Faults;
