//! The keys in force, and the one task that fetches them.
//!
//! All fetches are made by [`KeyRefresher::run`], so no two are ever under way. A call that meets an
//! unknown key asks for a fetch, at most once per [`KeySettings::demand_interval`] over all calls, and
//! waits for one that began after the call did: what an earlier one brings may be older than the key.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::timeout,
};

use super::{fetch::Fetcher, key::Unusable, set::KeySet, source::KeySource};

/// Most calls that wait for keys at once; more are told that keys cannot be had.
const WAITING: usize = 1_024;
/// The first pause after a failed fetch; each further one is twice as long.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest pause after a failed fetch.
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// Where keys come from and how long they are believed.
#[derive(Debug, Clone)]
pub struct KeySettings {
    /// Where they are published.
    pub source: KeySource,
    /// How often they are fetched: a key that is withdrawn is refused at most this much later.
    pub refresh: Duration,
    /// The least time between two fetches for the sake of unknown keys.
    pub demand_interval: Duration,
    /// The longest that a fetch may take, discovery included.
    pub fetch_time: Duration,
    /// How long the last set is believed while no other can be had.
    pub longest_outage: Duration,
}

impl KeySettings {
    /// The defaults for a source. A file is read every ten seconds.
    pub fn new(source: KeySource) -> Self {
        let refresh = match source {
            KeySource::File(_) => Duration::from_secs(10),
            KeySource::Address(_) | KeySource::Issuer(_) => Duration::from_secs(300),
        };
        Self {
            source,
            refresh,
            demand_interval: Duration::from_secs(30),
            fetch_time: Duration::from_secs(5),
            longest_outage: Duration::from_secs(24 * 3_600),
        }
    }
}

/// Settings with which keys could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A time that must be longer than another.
    #[error(
        "keys are fetched every {refresh:?} and believed for {longest_outage:?}; they have to be believed for longer than a fetch is apart"
    )]
    Outage {
        /// See [`KeySettings::refresh`].
        refresh: Duration,
        /// See [`KeySettings::longest_outage`].
        longest_outage: Duration,
    },
    /// No client could be made.
    #[error("the client that fetches keys could not be made")]
    Client(#[source] reqwest::Error),
}

/// A set of keys and when it was fetched.
#[derive(Debug)]
pub(crate) struct Held {
    set: KeySet,
    fetched: Instant,
}

impl Held {
    pub(crate) fn set(&self) -> &KeySet {
        &self.set
    }
}

/// What became of a call's wish for newer keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// They were fetched after the wish.
    Fetched,
    /// They were asked for a moment ago, and what came is what there is.
    TooSoon,
    /// They could not be had.
    Failed,
}

/// The keys in force.
#[derive(Clone)]
pub(crate) struct Keyring(Arc<Shared>);

struct Shared {
    settings: KeySettings,
    held: ArcSwapOption<Held>,
    fetches: watch::Sender<Fetches>,
    demand: Mutex<Demand>,
    demanded: Notify,
    waiting: Semaphore,
}

/// Fetches so far.
#[derive(Debug, Clone, Copy, Default)]
struct Fetches {
    begun: u64,
    ended: u64,
    last_failed: bool,
    refresher_gone: bool,
}

/// The last fetch that was asked for, by its number.
#[derive(Debug, Clone, Copy, Default)]
struct Demand {
    at: Option<Instant>,
    fetch: u64,
}

impl Keyring {
    pub(crate) fn new(settings: KeySettings) -> Result<(Self, KeyRefresher), SettingsError> {
        let KeySettings {
            refresh,
            longest_outage,
            ..
        } = settings;
        if longest_outage <= refresh {
            return Err(SettingsError::Outage {
                refresh,
                longest_outage,
            });
        }
        let fetcher = Fetcher::new(settings.source.clone(), settings.fetch_time)
            .map_err(SettingsError::Client)?;
        let shared = Arc::new(Shared {
            settings,
            held: ArcSwapOption::empty(),
            fetches: watch::Sender::default(),
            demand: Mutex::default(),
            demanded: Notify::new(),
            waiting: Semaphore::new(WAITING),
        });
        let refresher = KeyRefresher {
            shared: Arc::clone(&shared),
            fetcher,
        };
        Ok((Self(shared), refresher))
    }

    /// The keys in force; `None` if none were fetched, or too long ago.
    pub(crate) fn current(&self) -> Option<Arc<Held>> {
        let held = self.0.held.load_full()?;
        (held.fetched.elapsed() <= self.0.settings.longest_outage).then_some(held)
    }

    pub(crate) async fn until_ready(&self) {
        let mut fetches = self.0.fetches.subscribe();
        // The sender is in `self`, so this ends by its condition alone.
        let _ = fetches
            .wait_for(|fetches| fetches.refresher_gone || self.0.held.load().is_some())
            .await;
    }

    /// Waits for keys that are fetched from now on, unless they were asked for a moment ago.
    pub(crate) async fn renewed(&self) -> Renewal {
        let Ok(_place) = self.0.waiting.try_acquire() else {
            return Renewal::Failed;
        };
        let mut fetches = self.0.fetches.subscribe();
        let wanted = {
            let mut demand = self.0.demand.lock();
            // Read under the lock, so that of two calls at once the later sees what the earlier asked for.
            let now = *fetches.borrow_and_update();
            let lately = demand
                .at
                .is_some_and(|at| at.elapsed() < self.0.settings.demand_interval);
            if !lately {
                *demand = Demand {
                    at: Some(Instant::now()),
                    fetch: now.begun + 1,
                };
                self.0.demanded.notify_one();
            } else if now.ended >= demand.fetch {
                return match now.last_failed {
                    true => Renewal::Failed,
                    false => Renewal::TooSoon,
                };
            }
            demand.fetch
        };
        // Longer than the fetch that may be under way and the one that is waited for.
        let patience = 2 * self.0.settings.fetch_time + Duration::from_secs(1);
        let ended = fetches.wait_for(|now| now.ended >= wanted || now.refresher_gone);
        match timeout(patience, ended).await {
            Ok(Ok(now)) if now.ended >= wanted && !now.last_failed => Renewal::Fetched,
            _ => Renewal::Failed,
        }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("source", &self.0.settings.source)
            .finish_non_exhaustive()
    }
}

/// Fetches the keys of an [`Authenticator`](crate::Authenticator).
///
/// [`KeyRefresher::run`] never ends by itself. If it is dropped, the last keys stay in force up to
/// [`KeySettings::longest_outage`], so a process should not go on without it.
#[derive(Debug)]
#[must_use = "without it there are never any keys"]
pub struct KeyRefresher {
    shared: Arc<Shared>,
    fetcher: Fetcher,
}

impl KeyRefresher {
    /// Fetches the keys now, on a timer, and when they are asked for.
    pub async fn run(self) {
        let mut retry = RETRY_FIRST;
        let mut reported: Option<(Vec<Unusable>, usize)> = None;
        loop {
            self.shared
                .fetches
                .send_modify(|fetches| fetches.begun += 1);
            let fetched = self.fetcher.fetch().await;
            let failed = fetched.is_err();
            match fetched {
                Ok((set, left_out)) => {
                    // Said once, and again when it changes: a file is read every few seconds.
                    let findings = Some((left_out, set.len()));
                    if findings != reported {
                        report(findings.as_ref());
                        reported = findings;
                    }
                    self.shared.held.store(Some(Arc::new(Held {
                        set,
                        fetched: Instant::now(),
                    })));
                }
                Err(error) => {
                    tracing::warn!(%error, "the keys that tokens are verified with could not be fetched");
                }
            }
            self.shared.fetches.send_modify(|fetches| {
                fetches.ended += 1;
                fetches.last_failed = failed;
            });
            let refresh = self.shared.settings.refresh;
            let pause = if failed { retry.min(refresh) } else { refresh };
            retry = if failed {
                (retry * 2).min(RETRY_LONGEST)
            } else {
                RETRY_FIRST
            };
            self.pause(pause).await;
        }
    }

    /// Waits for the time to pass, or for a fetch to be asked for that did not begin yet.
    async fn pause(&self, time: Duration) {
        let demanded = async {
            while self.shared.demand.lock().fetch <= self.shared.fetches.borrow().begun {
                self.shared.demanded.notified().await;
            }
        };
        // Passing is as good as being asked.
        let _ = timeout(time, demanded).await;
    }
}

/// Logs what is wrong with a set of keys, if anything is.
fn report(findings: Option<&(Vec<Unusable>, usize)>) {
    let Some((left_out, usable)) = findings else {
        return;
    };
    for unusable in left_out {
        tracing::warn!(reason = %unusable, "a published key is not used");
    }
    if *usable == 0 {
        tracing::warn!("the issuer publishes no key that can be used: every token is refused");
    }
}

impl Drop for KeyRefresher {
    fn drop(&mut self) {
        self.shared
            .fetches
            .send_modify(|fetches| fetches.refresher_gone = true);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
