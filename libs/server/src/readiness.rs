//! Whether calls are welcome, as gRPC health and `/readyz` say it: the process has begun, has not begun to
//! end, and its services can do their work.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use parking_lot::Mutex;
use stategate_protocol::server::{entity_service_server, event_service_server};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{Drain, Services, Unfit, tasks};

/// Between two questions to what the services stand on how it is.
const ASK: Duration = Duration::from_millis(500);
/// How long its answer may take.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// What did not answer so many questions in a row is unable to work. One slow commit or checkpoint takes longer
/// than an answer may, and sends nobody elsewhere.
const SILENCES: u32 = 2;

/// The names that health can be asked for; the empty one is the process.
const HEALTH_NAMES: [&str; 3] = [
    "",
    entity_service_server::SERVICE_NAME,
    event_service_server::SERVICE_NAME,
];

/// Whether calls are welcome.
#[derive(Clone)]
pub(crate) struct Readiness(Arc<Inner>);

struct Inner {
    reporter: HealthReporter,
    drain: Drain,
    services: Services,
    state: Mutex<State>,
    /// Held while health is told, so that what is told last is what is so.
    telling: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    has_begun: bool,
    /// Why the services cannot do their work, if they cannot.
    unfit: Option<String>,
    /// How many questions in a row were not answered.
    silences: u32,
}

impl Readiness {
    /// Calls are not welcome yet.
    pub(crate) async fn new(services: &Services, drain: &Drain) -> Self {
        let readiness = Self(Arc::new(Inner {
            reporter: HealthReporter::new(),
            drain: drain.clone(),
            services: services.clone(),
            state: Mutex::default(),
            telling: tokio::sync::Mutex::default(),
        }));
        // tonic reports the empty name as serving from the start.
        readiness.tell().await;
        readiness
    }

    /// What answers gRPC's questions about health.
    pub(crate) fn reporter(&self) -> HealthReporter {
        self.0.reporter.clone()
    }

    /// Calls are welcome from now on, as far as nothing else is in the way.
    pub(crate) async fn begin(&self) {
        self.0.state.lock().has_begun = true;
        self.tell().await;
    }

    /// Tells gRPC health how it is.
    pub(crate) async fn tell(&self) {
        let _telling = self.0.telling.lock().await;
        let status = match self.is_ready() {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        for name in HEALTH_NAMES {
            self.0.reporter.set_service_status(name, status).await;
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        let state = self.0.state.lock();
        state.has_begun && !self.0.drain.has_begun() && state.unfit.is_none()
    }

    /// Whether calls are welcome, and why not, or what the process does without: a line each.
    pub(crate) fn in_words(&self) -> (bool, String) {
        let is_ready = self.is_ready();
        let mut words = String::from(if is_ready { "ready\n" } else { "not ready\n" });
        if let Some(failure) = self.0.drain.failure() {
            let _ = writeln!(words, "ending: {failure}");
        } else if self.0.drain.has_begun() {
            words.push_str("ending\n");
        }
        if let Some(why) = &self.0.state.lock().unfit {
            let _ = writeln!(words, "{why}");
        }
        if let Some(foundation) = self.0.services.foundation.as_deref() {
            if let Some(what) = foundation.degraded().filter(|_| is_ready) {
                let _ = writeln!(words, "degraded: {what}");
            }
            for concern in foundation.concerns() {
                let _ = writeln!(words, "warning: {concern}");
            }
        }
        (is_ready, words)
    }

    /// Asks what the services stand on how it is, from now to the end.
    pub(crate) fn watch(&self) -> JoinHandle<()> {
        let readiness = self.clone();
        tasks::restarted("readiness", move || {
            let readiness = readiness.clone();
            async move {
                let end = readiness.0.drain.token();
                while !end.is_cancelled() {
                    tokio::select! {
                        () = end.cancelled() => return,
                        () = readiness.ask() => {}
                    }
                    sleep(ASK).await;
                }
            }
        })
    }

    async fn ask(&self) {
        let Some(foundation) = self.0.services.foundation.as_deref() else {
            return;
        };
        let answer = timeout(PATIENCE, foundation.check()).await;
        let verdict = self.verdict(answer.ok());
        if verdict.is_some_and(|verdict| self.note(verdict)) {
            self.tell().await;
        }
    }

    /// How the services are, by an answer or by its absence; `None` if that is too early to say.
    fn verdict(&self, answer: Option<Result<(), Unfit>>) -> Option<Result<(), Unfit>> {
        let mut state = self.0.state.lock();
        if answer.is_some() {
            state.silences = 0;
            return answer;
        }
        state.silences = state.silences.saturating_add(1);
        let silences = state.silences;
        (silences >= SILENCES).then(|| {
            Err(Unfit {
                why: "the service does not answer how it is".to_owned(),
                cause: format!("no answer within {PATIENCE:?}, {silences} times"),
                is_for_good: false,
            })
        })
    }

    /// Notes an answer. Whether it is another than before.
    fn note(&self, answer: Result<(), Unfit>) -> bool {
        let mut state = self.0.state.lock();
        match answer {
            Ok(()) => {
                let was_unfit = state.unfit.take().is_some();
                if was_unfit {
                    tracing::info!("the services can do their work again");
                }
                was_unfit
            }
            Err(Unfit {
                why,
                cause,
                is_for_good,
            }) => {
                let is_news = state.unfit.as_ref() != Some(&why);
                if is_news {
                    tracing::warn!(why, cause, "the services cannot do their work; not ready");
                    state.unfit = Some(why.clone());
                }
                drop(state);
                if is_for_good {
                    self.0.drain.fail("the services cannot go on:", &why);
                }
                is_news
            }
        }
    }
}

impl std::fmt::Debug for Readiness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readiness")
            .field("is_ready", &self.is_ready())
            .finish_non_exhaustive()
    }
}
