//! Whether calls are welcome, as gRPC health and `/readyz` say it: the process has begun, has not begun to
//! end, and each of its services can do its work.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc, time::Duration};

use futures::future::join_all;
use parking_lot::Mutex;
use stategate_protocol::server::{entity_service_server, event_service_server};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{Drain, Services, Unfit, tasks};

/// Between two questions to a service how it is.
const ASK: Duration = Duration::from_millis(500);
/// How long its answer may take.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// A service that did not answer so many questions in a row is unable to work. One slow commit or checkpoint
/// takes longer than an answer may, and sends nobody elsewhere.
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
    /// Why services cannot do their work, by the names of those services.
    unfit: BTreeMap<&'static str, String>,
    /// How many questions in a row they did not answer.
    silences: BTreeMap<&'static str, u32>,
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
        state.has_begun && !self.0.drain.has_begun() && state.unfit.is_empty()
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
        let mut said: Vec<String> = self.0.state.lock().unfit.values().cloned().collect();
        said.sort();
        said.dedup();
        for why in said {
            let _ = writeln!(words, "{why}");
        }
        let stream = self.0.services.stream.as_deref();
        if let Some(what) = stream
            .filter(|_| is_ready)
            .and_then(|stream| stream.degraded())
        {
            let _ = writeln!(words, "degraded: {what}");
        }
        let command = self.0.services.command.as_deref();
        for concern in command
            .map(|command| command.concerns())
            .unwrap_or_default()
        {
            let _ = writeln!(words, "warning: {concern}");
        }
        (is_ready, words)
    }

    /// Asks the services how they are, from now to the end.
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
        let asked =
            self.0.services.checks().map(|(service, check)| async move {
                (service, timeout(PATIENCE, check).await.ok())
            });
        let mut is_news = false;
        for (service, answer) in join_all(asked).await {
            if let Some(answer) = self.verdict(service, answer) {
                is_news |= self.note(service, answer);
            }
        }
        if is_news {
            self.tell().await;
        }
    }

    /// How a service is, as it answered or by its silence; `None` if that is too early to say.
    fn verdict(
        &self,
        service: &'static str,
        answer: Option<Result<(), Unfit>>,
    ) -> Option<Result<(), Unfit>> {
        let mut state = self.0.state.lock();
        let silences = state.silences.entry(service).or_default();
        match answer {
            Some(answer) => {
                *silences = 0;
                Some(answer)
            }
            None => {
                *silences = silences.saturating_add(1);
                (*silences >= SILENCES).then(|| {
                    Err(Unfit {
                        why: "the service does not answer how it is".to_owned(),
                        cause: format!("no answer within {PATIENCE:?}, {silences} times"),
                        is_for_good: false,
                    })
                })
            }
        }
    }

    /// Notes what a service answered. Whether it is another answer than before.
    fn note(&self, service: &'static str, answer: Result<(), Unfit>) -> bool {
        let mut state = self.0.state.lock();
        match answer {
            Ok(()) => {
                let was_unfit = state.unfit.remove(service).is_some();
                if was_unfit {
                    tracing::info!(service, "can do its work again");
                }
                was_unfit
            }
            Err(Unfit {
                why,
                cause,
                is_for_good,
            }) => {
                let is_news = state.unfit.get(service) != Some(&why);
                if is_news {
                    tracing::warn!(service, why, cause, "cannot do its work; not ready");
                    state.unfit.insert(service, why.clone());
                }
                drop(state);
                if is_for_good {
                    self.0.drain.fail(&format!("the {service} service:"), &why);
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
