//! The methods that calls are counted under, with their meters at hand: a call looks up no metric
//! by name.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use stategate_api::Problem;
use stategate_metrics::{Counter, Gauge, Histogram};
use tonic::Code;

use crate::services::{Home, Services};

/// The kind of a method: it decides which limits, deadlines and meters apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One answer.
    Unary,
    /// Answers without end.
    Stream,
    /// Health and reflection: small, and wanted even when there is too much of everything else.
    Infrastructure,
    /// Nothing that is served here.
    Unknown,
}

use Shape::{Infrastructure, Stream, Unary, Unknown};

const KNOWN: &[(&str, Shape, Home)] = &[
    ("/stategate.EntityService/Set", Unary, Home::Command),
    ("/stategate.EntityService/Get", Unary, Home::Query),
    ("/stategate.EntityService/Edit", Unary, Home::Command),
    ("/stategate.EntityService/Revert", Unary, Home::Command),
    ("/stategate.EntityService/Del", Unary, Home::Command),
    ("/stategate.EntityService/Search", Unary, Home::Query),
    ("/stategate.EntityService/Transact", Unary, Home::Command),
    ("/stategate.EventService/Stream", Stream, Home::Stream),
    ("/stategate.EventService/Search", Unary, Home::Query),
    ("/stategate.EventService/Get", Unary, Home::Query),
];
/// The last two rows: what is not in the table.
const REST: &[(&str, Shape)] = &[("grpc", Infrastructure), ("unknown", Unknown)];

/// Most calls at once that need no token: health and reflection, whose streams have no end.
const ANONYMOUS: usize = 10_000;

/// All methods with their meters.
#[derive(Debug)]
pub(crate) struct Methods {
    rows: Vec<Arc<Method>>,
    /// Unary calls that are under way.
    open: AtomicUsize,
    most: usize,
    /// Other calls that are.
    others: AtomicUsize,
    /// Those of them that need no token.
    anonymous: AtomicUsize,
}

/// A method and its meters.
#[derive(Debug)]
pub(crate) struct Method {
    name: &'static str,
    pub(crate) shape: Shape,
    /// Where it lives, if that is not here.
    elsewhere: Option<Home>,
    /// It changes the log.
    writes: bool,
    ended: [OnceLock<Counter>; CODES],
    seconds: Histogram,
    open: Gauge,
}

const CODES: usize = Code::Unauthenticated as usize + 1;

impl Methods {
    /// Those of `services`; at most `most` unary calls at once.
    pub(crate) fn new(most: usize, services: &Services) -> Self {
        let known = KNOWN.iter().map(|(path, shape, home)| {
            let elsewhere = (!services.has(*home)).then_some(*home);
            (path, shape, elsewhere, *home == Home::Command)
        });
        let rest = REST.iter().map(|(path, shape)| (path, shape, None, false));
        let rows = known.chain(rest).map(|(path, shape, elsewhere, writes)| {
            let name = path.trim_start_matches("/stategate.");
            Arc::new(Method {
                name,
                shape: *shape,
                elsewhere,
                writes,
                ended: [const { OnceLock::new() }; CODES],
                seconds: stategate_metrics::CALL_SECONDS.with([name]),
                open: stategate_metrics::CALLS_OPEN.with([name]),
            })
        });
        Self {
            rows: rows.collect(),
            open: AtomicUsize::new(0),
            most,
            others: AtomicUsize::new(0),
            anonymous: AtomicUsize::new(0),
        }
    }

    /// Whether several calls are under way.
    pub(crate) fn are_several(&self) -> bool {
        self.open.load(Relaxed) + self.others.load(Relaxed) > 1
    }

    /// Begins a call. It is over when the answer is dropped.
    pub(crate) fn begin(self: &Arc<Self>, path: &str) -> Call {
        let known = KNOWN.iter().position(|(known, ..)| *known == path);
        let row = known.unwrap_or_else(|| {
            let is_unknown = !path.starts_with("/grpc.");
            KNOWN.len() + usize::from(is_unknown)
        });
        let method = Arc::clone(&self.rows[row]);
        method.open.increment(1.0);
        let before = match method.shape {
            Unary => self.open.fetch_add(1, Relaxed),
            Stream => {
                self.others.fetch_add(1, Relaxed);
                0
            }
            // Asked by anybody, without a token.
            Infrastructure | Unknown => {
                self.others.fetch_add(1, Relaxed);
                self.anonymous.fetch_add(1, Relaxed)
            }
        };
        let most = match method.shape {
            Unary => self.most,
            Stream => usize::MAX,
            Infrastructure | Unknown => ANONYMOUS,
        };
        Call {
            all: Arc::clone(self),
            method,
            started: Instant::now(),
            code: Code::Cancelled,
            is_too_many: before >= most,
        }
    }
}

/// A call under way; counted when it is dropped.
#[derive(Debug)]
pub(crate) struct Call {
    all: Arc<Methods>,
    method: Arc<Method>,
    started: Instant,
    code: Code,
    is_too_many: bool,
}

impl Call {
    pub(crate) fn name(&self) -> &'static str {
        self.method.name
    }

    pub(crate) fn shape(&self) -> Shape {
        self.method.shape
    }

    /// Whether the call changes the log.
    pub(crate) fn writes(&self) -> bool {
        self.method.writes
    }

    /// What the call is answered if its method lives in another service.
    pub(crate) fn elsewhere(&self) -> Option<Problem> {
        let home = self.method.elsewhere?;
        Some(home.elsewhere(self.method.name))
    }

    /// Whether there were as many calls as allowed without this one.
    pub(crate) fn is_too_many(&self) -> bool {
        self.is_too_many
    }

    /// What the call is counted as; CANCELLED unless something else is said before it is dropped.
    pub(crate) fn ends_with(&mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let method = &*self.method;
        let code = self.code;
        method.ended[code as usize]
            .get_or_init(|| {
                stategate_metrics::CALLS.with([method.name.to_owned(), format!("{code:?}")])
            })
            .increment(1);
        method.open.decrement(1.0);
        match method.shape {
            Unary => {
                self.all.open.fetch_sub(1, Relaxed);
                method.seconds.record(self.started.elapsed());
            }
            // How long somebody subscribed says nothing about the service.
            Stream => {
                self.all.others.fetch_sub(1, Relaxed);
            }
            Infrastructure | Unknown => {
                self.all.others.fetch_sub(1, Relaxed);
                self.all.anonymous.fetch_sub(1, Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_that_of_the_descriptors() {
        let text = String::from_utf8_lossy(stategate_protocol::DESCRIPTORS);
        for (path, ..) in KNOWN {
            let method = path.rsplit('/').next().unwrap();
            assert!(text.contains(method), "{path}");
        }
    }

    #[test]
    fn calls_are_bounded_and_their_slots_come_back() {
        let methods = Arc::new(Methods::new(1, &Services::default()));
        let first = methods.begin("/stategate.EntityService/Set");
        assert!(!first.is_too_many());
        assert!(methods.begin("/stategate.EntityService/Get").is_too_many());
        assert!(
            !methods
                .begin("/stategate.EventService/Stream")
                .is_too_many()
        );
        assert!(!methods.begin("/grpc.health.v1.Health/Check").is_too_many());
        drop(first);
        assert!(!methods.begin("/stategate.EntityService/Get").is_too_many());
    }

    #[test]
    fn calls_are_several_from_the_second_on() {
        let methods = Arc::new(Methods::new(9, &Services::default()));
        assert!(!methods.are_several());
        let set = methods.begin("/stategate.EntityService/Set");
        assert!(!methods.are_several());
        let stream = methods.begin("/stategate.EventService/Stream");
        assert!(methods.are_several());
        drop(set);
        assert!(!methods.are_several());
        drop(stream);
        assert!(!methods.are_several());
    }

    #[test]
    fn a_path_is_what_it_says() {
        let methods = Arc::new(Methods::new(9, &Services::default()));
        for (path, name, shape) in [
            ("/stategate.EntityService/Set", "EntityService/Set", Unary),
            (
                "/stategate.EventService/Stream",
                "EventService/Stream",
                Stream,
            ),
            ("/grpc.health.v1.Health/Watch", "grpc", Infrastructure),
            ("/stategate.EntityService/Sett", "unknown", Unknown),
        ] {
            let call = methods.begin(path);
            assert_eq!((call.name(), call.shape()), (name, shape));
        }
    }
}
