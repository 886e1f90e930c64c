//! Logs, metrics, and the HTTP listener beside gRPC that shows metrics and health.

use std::{
    io::{IsTerminal as _, stderr},
    sync::Arc,
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::Level;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::{SubscriberInitExt as _, TryInitError},
};

use crate::{readiness::Readiness, tasks};

/// Bounds of the histograms whose names end with `_seconds`.
const SECONDS: &[f64] = &[
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// Bounds of the histograms that count: names that end with `_events`.
const COUNTS: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
];
/// How often recorded values are folded into their histograms, so that memory does not grow when
/// nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);
/// Crates that log every frame at their debug level.
const CHATTY: &[&str] = &[
    "async_nats",
    "h2",
    "hyper",
    "hyper_util",
    "rustls",
    "tonic",
    "tower",
];
/// Drivers that log every lost connection as an error, of which the channel tells once, as a warning.
const QUIET: &[&str] = &["lapin"];

/// The process's metrics; logs need no handle.
#[derive(Debug, Clone)]
pub struct Telemetry {
    metrics: PrometheusHandle,
}

/// Why telemetry cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something in this process has set up logs before.
    #[error("logs: {0}")]
    Logs(#[from] TryInitError),
    /// Something in this process has set up metrics before.
    #[error("metrics: {0}")]
    Metrics(#[from] BuildError),
}

impl Telemetry {
    /// Sends the process's logs, its panics among them, to standard error (readable on a terminal, JSON
    /// lines otherwise) and begins to record its metrics. Once in a process, inside its runtime.
    pub fn install(debug: bool) -> Result<Self, Error> {
        let level = if debug { Level::DEBUG } else { Level::INFO };
        let chatty = CHATTY.iter().map(|name| (*name, LevelFilter::INFO));
        let quiet = QUIET.iter().map(|name| (*name, LevelFilter::OFF));
        let filter = Targets::new()
            .with_default(level)
            .with_targets(chatty.chain(quiet));
        let registry = tracing_subscriber::registry().with(filter);
        let format = tracing_subscriber::fmt::layer().with_writer(stderr);
        if stderr().is_terminal() {
            registry.with(format).try_init()?;
        } else {
            let json = format.json().flatten_event(true);
            registry.with(json).try_init()?;
        }
        stategate_panics::log();

        let metrics = recorder()?.install_recorder()?;
        stategate_metrics::describe();
        let upkeep = metrics.clone();
        tasks::restarted("the upkeep of metrics", move || {
            let upkeep = upkeep.clone();
            async move {
                loop {
                    tokio::time::sleep(UPKEEP).await;
                    upkeep.run_upkeep();
                }
            }
        });
        Ok(Self { metrics })
    }

    /// Neither logs nor metrics of the process, for several servers in one process, as in tests.
    pub fn detached() -> Self {
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        Self { metrics }
    }

    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        if let Some(bytes) = resident_bytes() {
            stategate_metrics::RESIDENT_MEMORY.get().set(bytes);
        }
        self.metrics.render()
    }
}

fn recorder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_events".to_owned()), COUNTS)
}

/// The memory the process holds, where the system says so.
fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

/// The routes of the listener beside gRPC: `/metrics`, `/healthz` (the process runs) and `/readyz`
/// (it wants calls; why it does not, or what it does without, is on lines of their own); and the public
/// keys of this process where it has any.
pub(crate) fn routes(telemetry: Telemetry, readiness: Readiness, keys: Option<Arc<str>>) -> Router {
    let metrics = get(|State(telemetry): State<Telemetry>| async move {
        let content_type = "text/plain; version=0.0.4; charset=utf-8";
        ([("content-type", content_type)], telemetry.render())
    });
    let readiness = get(move || async move {
        match readiness.in_words() {
            (true, words) => (StatusCode::OK, words).into_response(),
            (false, words) => (StatusCode::SERVICE_UNAVAILABLE, words).into_response(),
        }
    });
    let mut routes = Router::new()
        .route("/metrics", metrics)
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", readiness);
    if let Some(keys) = keys {
        // RFC 7517, section 8.5.
        let shown = move || async move {
            let content_type = "application/jwk-set+json";
            ([("content-type", content_type)], keys.to_string())
        };
        routes = routes.route("/.well-known/jwks.json", get(shown));
    }
    routes.with_state(telemetry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_known() {
        assert!(resident_bytes().unwrap() > 1e6);
    }

    #[tokio::test]
    async fn metrics_are_rendered_and_telemetry_is_installed_once() {
        let telemetry = Telemetry::install(true).unwrap();
        stategate_metrics::CALL_SECONDS.with(["test"]).record(0.002);
        let text = telemetry.render();
        let bucket = r#"stategate_call_seconds_bucket{method="test",le="0.0025"} 1"#;
        assert!(text.contains(bucket), "{text}");
        assert!(
            text.contains("# HELP stategate_call_seconds Time"),
            "{text}"
        );
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
        assert!(Telemetry::install(false).is_err());
    }
}
