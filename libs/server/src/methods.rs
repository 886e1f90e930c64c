//! The methods that calls are counted under, with their meters at hand: a call looks up no metric
//! by name.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use metrics::{Counter, Gauge, Histogram};
use tonic::Code;

/// What is to be known of a method.
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

const KNOWN: &[(&str, Shape)] = &[
    ("/stategate.EntityService/Set", Unary),
    ("/stategate.EntityService/Get", Unary),
    ("/stategate.EntityService/Edit", Unary),
    ("/stategate.EntityService/Revert", Unary),
    ("/stategate.EntityService/Del", Unary),
    ("/stategate.EntityService/Search", Unary),
    ("/stategate.EntityService/Transact", Unary),
    ("/stategate.EventService/Stream", Stream),
    ("/stategate.EventService/Search", Unary),
    ("/stategate.EventService/Get", Unary),
];
/// The last two rows: what is not in the table.
const REST: &[(&str, Shape)] = &[("grpc", Infrastructure), ("unknown", Unknown)];

/// All methods with their meters.
#[derive(Debug)]
pub(crate) struct Methods {
    rows: Vec<Arc<Method>>,
    /// Unary calls that are under way.
    open: AtomicUsize,
    most: usize,
    /// Other calls that are.
    others: AtomicUsize,
}

/// A method and its meters.
#[derive(Debug)]
pub(crate) struct Method {
    name: &'static str,
    pub(crate) shape: Shape,
    ended: [OnceLock<Counter>; CODES],
    seconds: Histogram,
    open: Gauge,
}

const CODES: usize = Code::Unauthenticated as usize + 1;

impl Methods {
    /// At most `most` unary calls at once.
    pub(crate) fn new(most: usize) -> Self {
        let rows = KNOWN.iter().chain(REST).map(|(path, shape)| {
            let name = path.trim_start_matches("/stategate.");
            Arc::new(Method {
                name,
                shape: *shape,
                ended: [const { OnceLock::new() }; CODES],
                seconds: metrics::histogram!("stategate_call_seconds", "method" => name),
                open: metrics::gauge!("stategate_calls_open", "method" => name),
            })
        });
        Self {
            rows: rows.collect(),
            open: AtomicUsize::new(0),
            most,
            others: AtomicUsize::new(0),
        }
    }

    /// Whether several calls are under way.
    pub(crate) fn are_several(&self) -> bool {
        self.open.load(Relaxed) + self.others.load(Relaxed) > 1
    }

    /// Begins a call. It is over when the answer is dropped.
    pub(crate) fn begin(self: &Arc<Self>, path: &str) -> Call {
        let known = KNOWN.iter().position(|(known, _)| *known == path);
        let row = known.unwrap_or_else(|| {
            let is_unknown = !path.starts_with("/grpc.");
            KNOWN.len() + usize::from(is_unknown)
        });
        let method = Arc::clone(&self.rows[row]);
        method.open.increment(1.0);
        let before = match method.shape {
            Unary => self.open.fetch_add(1, Relaxed),
            Stream | Infrastructure | Unknown => {
                self.others.fetch_add(1, Relaxed);
                0
            }
        };
        Call {
            all: Arc::clone(self),
            method,
            started: Instant::now(),
            code: Code::Cancelled,
            is_too_many: before >= self.most,
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

    /// Whether it may have written something when it breaks off.
    pub(crate) fn writes(&self) -> bool {
        matches!(
            self.method.name,
            "EntityService/Set"
                | "EntityService/Edit"
                | "EntityService/Revert"
                | "EntityService/Del"
                | "EntityService/Transact"
        )
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
                let labels = [
                    ("method", method.name.to_owned()),
                    ("code", format!("{code:?}")),
                ];
                metrics::counter!("stategate_calls_total", &labels)
            })
            .increment(1);
        method.open.decrement(1.0);
        match method.shape {
            Unary => {
                self.all.open.fetch_sub(1, Relaxed);
                method.seconds.record(self.started.elapsed());
            }
            // How long somebody subscribed says nothing about the service.
            Stream | Infrastructure | Unknown => {
                self.all.others.fetch_sub(1, Relaxed);
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
        for (path, _) in KNOWN {
            let method = path.rsplit('/').next().unwrap();
            assert!(text.contains(method), "{path}");
        }
    }

    #[test]
    fn calls_are_bounded_and_their_slots_come_back() {
        let methods = Arc::new(Methods::new(1));
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
        let methods = Arc::new(Methods::new(9));
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
        let methods = Arc::new(Methods::new(9));
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
