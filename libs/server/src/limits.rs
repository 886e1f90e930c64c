//! Every bound of the server in one place: what it bounds, in which unit, and its default. `docs/limits.md` is made
//! from it.
//!
//! What a field bounds is enforced where the field is used. Bounds on what is in a message are
//! [`stategate_model::limits`]; they are listed in the same document.

use std::{fmt::Write as _, time::Duration};

use stategate_model::limits as model;

use crate::{
    Config,
    variables::{self, Variable},
};

/// A bound as the document shows it.
struct Row {
    name: &'static str,
    value: String,
    /// The variable that changes it.
    variable: Option<&'static Variable>,
    meaning: &'static str,
}

/// A value with its unit, in words.
trait Shown {
    fn shown(&self, unit: Unit) -> String;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// A number of something.
    Count,
    Bytes,
    Time,
}

impl Shown for usize {
    fn shown(&self, unit: Unit) -> String {
        match (unit, *self) {
            (Unit::Bytes, bytes) if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => {
                format!("{} MiB", bytes >> 20)
            }
            (Unit::Bytes, bytes) if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => {
                format!("{} KiB", bytes >> 10)
            }
            (Unit::Bytes, bytes) => format!("{bytes} bytes"),
            (_, count) => count.to_string(),
        }
    }
}

impl Shown for u32 {
    fn shown(&self, unit: Unit) -> String {
        usize::try_from(*self).unwrap_or(usize::MAX).shown(unit)
    }
}

impl Shown for Duration {
    fn shown(&self, _: Unit) -> String {
        format!("{} s", self.as_secs())
    }
}

impl Shown for Option<Duration> {
    fn shown(&self, unit: Unit) -> String {
        self.map_or_else(|| "none".to_owned(), |time| time.shown(unit))
    }
}

macro_rules! limits {
    ($($heading:literal { $($field:ident: $type:ty, $unit:ident, $variable:expr, $meaning:literal;)* })*) => {
        /// What the server allows.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Limits {
            $($(
                #[doc = $meaning]
                pub $field: $type,
            )*)*
        }

        impl Limits {
            /// All of them under their headings.
            fn groups(&self) -> Vec<(&'static str, Vec<Row>)> {
                vec![$(($heading, vec![$(Row {
                    name: stringify!($field),
                    value: self.$field.shown(Unit::$unit),
                    variable: $variable,
                    meaning: $meaning,
                }),*])),*]
            }
        }
    };
}

limits! {
    "Connections" {
        connections: usize, Count, Some(&variables::MAX_CONNECTIONS),
            "Connections at once, those in their TLS handshake among them; one more is closed at once.";
        handshake: Duration, Time, None,
            "Time for a TLS handshake.";
        greeting: Duration, Time, None,
            "Time for the first 24 bytes of a connection (the preface of HTTP/2), after its TLS handshake.";
        keep_alive: Duration, Time, None,
            "A connection from which nothing whole arrives for this long is asked whether it is alive (PING) …";
        keep_alive_answer: Duration, Time, None,
            "… and closed if it does not answer within this. A client cannot answer within a frame or a block of headers, so this bounds how long those take too.";
        write_stall: Duration, Time, None,
            "A connection whose client takes no byte off it for this long, while something is to be sent, is closed.";
        age: Option<Duration>, Time, Some(&variables::MAX_CONNECTION_AGE_SECONDS),
            "A connection of this age, give or take a tenth, is told to go away (GOAWAY): calls on it go on, new ones use another connection, which balancers may give to another process.";
        age_grace: Option<Duration>, Time, Some(&variables::MAX_CONNECTION_AGE_GRACE_SECONDS),
            "Time from there until it is closed with whatever is still on it. None: streams go on to their own end.";
        admin_connections: usize, Count, None,
            "Connections at once on the listener for metrics and health.";
    }
    "Calls" {
        connection_streams: u32, Count, Some(&variables::MAX_CONNECTION_STREAMS),
            "Calls and streams at once on one connection, announced to the client.";
        calls: usize, Count, Some(&variables::MAX_CALLS),
            "Unary calls at once over all connections; one more is RESOURCE_EXHAUSTED.";
        header_bytes: u32, Bytes, None,
            "Bytes of a request's metadata, as HTTP/2 counts them: names, values and 32 bytes for each.";
        header_time: Duration, Time, None,
            "Time for the headers of a request of HTTP/1.1, from the end of the request before.";
        arrival: Duration, Time, None,
            "Time for the message of a unary call or of a subscription to arrive whole; then the call is DEADLINE_EXCEEDED.";
        stream_window: u32, Bytes, None,
            "Bytes of one request that a client may send before they are read …";
        connection_window: u32, Bytes, None,
            "… and of all requests of one connection together.";
        pending_resets: usize, Count, None,
            "Calls of one connection that were opened and reset before they were looked at (CVE-2023-44487); one more ends the connection.";
        reset_errors: usize, Count, None,
            "Calls of one connection that the server reset because of what the client sent (CVE-2025-8671); one more ends the connection.";
    }
    "Answers" {
        stream_in_flight: usize, Bytes, None,
            "While a stream has so many bytes in its connection that are not written, nothing more is taken from it. One frame may be larger. A stream is not ended for being slow.";
        connection_answers: usize, Bytes, Some(&variables::CONNECTION_ANSWER_BYTES),
            "Bytes of unary answers that the client of one connection has not taken; while there are so many, further unary calls on it, and reads that are under way, are RESOURCE_EXHAUSTED.";
        answers: usize, Bytes, Some(&variables::ANSWER_BYTES),
            "The same over all connections; beyond it, those are closed that hold most and have taken nothing for longest.";
        answer_stall: Duration, Time, None,
            "A connection that holds a unary answer and of which no byte is taken for this long is closed.";
    }
}

impl Limits {
    /// While a stream has so many bytes in its connection that are not written, nothing more is taken from it.
    pub(crate) const STREAM_IN_FLIGHT: usize = 64 << 10;
    /// How long a request's message may take to arrive. It holds a slot meanwhile, and no handler knows of it yet.
    pub(crate) const ARRIVAL: Duration = Duration::from_secs(30);

    /// The limits that a configuration sets; the others are constants.
    pub fn of(config: &Config) -> Self {
        Self {
            connections: config.max_connections,
            age: config.max_connection_age,
            age_grace: config.max_connection_age_grace,
            connection_streams: config.max_connection_streams,
            calls: config.max_calls,
            connection_answers: config.connection_answer_bytes,
            answers: config.answer_bytes,
            ..Self::default()
        }
    }
}

impl Default for Limits {
    /// Those of a configuration that sets none.
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connections: 10_000,
            handshake: seconds(10),
            greeting: seconds(10),
            keep_alive: seconds(30),
            keep_alive_answer: seconds(20),
            write_stall: seconds(60),
            age: None,
            age_grace: None,
            admin_connections: 64,
            connection_streams: 1_024,
            calls: 8_192,
            header_bytes: 32 << 10,
            header_time: seconds(30),
            arrival: Self::ARRIVAL,
            stream_window: 1 << 20,
            connection_window: 2 << 20,
            pending_resets: 64,
            reset_errors: 256,
            stream_in_flight: Self::STREAM_IN_FLIGHT,
            connection_answers: 32 << 20,
            answers: 256 << 20,
            answer_stall: seconds(30),
        }
    }
}

/// Bounds on what is in a message.
fn of_messages() -> Vec<Row> {
    let row = |name, value: String, meaning| Row {
        name,
        value,
        variable: None,
        meaning,
    };
    let bytes = |bytes: usize| bytes.shown(Unit::Bytes);
    vec![
        row(
            "message",
            bytes(model::MESSAGE_BYTES),
            "A request's message, as it is sent and again once it is decompressed; a larger one is refused by the length in its header.",
        ),
        row(
            "page",
            bytes(model::PAGE_BYTES),
            "An answer's page, which ends there with a page token. One entity or event may be larger.",
        ),
        Row {
            name: "values",
            value: bytes(model::VALUE_BYTES_DEFAULT),
            variable: Some(&variables::MAX_VALUE_BYTES),
            meaning: "An entity's values after a write, as canonical JSON.",
        },
        row(
            "depth",
            model::VALUE_DEPTH.to_string(),
            "Levels of values; `values` itself is the first.",
        ),
        row(
            "transaction",
            bytes(model::TRANSACTION_BYTES),
            "The events of one transaction.",
        ),
        row(
            "operations",
            model::TRANSACTION_OPERATIONS.to_string(),
            "Operations of one transaction.",
        ),
        row(
            "claims",
            bytes(model::CLAIMS_BYTES),
            "The claims kept with an event, as canonical JSON.",
        ),
        row(
            "filter",
            bytes(model::FILTER_BYTES),
            "A filter's text. It has 64 nodes and 8 levels at most.",
        ),
        row(
            "glob",
            bytes(model::GLOB_BYTES),
            "A glob. It has 16 wildcards at most.",
        ),
        row(
            "search",
            model::SEARCH_LIMIT_MAX.to_string(),
            "Results of one search.",
        ),
        row(
            "deadline",
            model::CALL_TIME.shown(Unit::Time),
            "Longest deadline of a unary call; a later one counts as this. A stream may have any.",
        ),
        row(
            "position wait",
            model::POSITION_WAIT.shown(Unit::Time),
            "Longest that a read waits for `stategate-min-position` without a deadline.",
        ),
    ]
}

/// `docs/limits.md`.
pub fn document() -> String {
    let mut out = String::from(
        "# Limits

Every bound of the server, with its default and, where an operator may change it, the variable that does
([configuration](configuration.md)). What is refused because of one says so by name: RESOURCE_EXHAUSTED with a time to
come back after, INVALID_ARGUMENT for what is too large, DEADLINE_EXCEEDED for what is too late. Connections that are
closed are counted by reason in `stategate_connections_ended_total` ([metrics](metrics.md)). Bounds of queues, subscribers
and their memory are in the configuration alone.

This file is made from `libs/server/src/limits.rs`; a test of that crate compares the two and, run with
`STATEGATE_TEST_BLESS=1`, writes this file.
",
    );
    let groups = Limits::default().groups().into_iter();
    for (heading, rows) in groups.chain([("Messages", of_messages())]) {
        let _ = write!(
            out,
            "\n## {heading}\n\n| limit | default | variable | meaning |\n| --- | --- | --- | --- |\n"
        );
        for row in rows {
            let variable = row
                .variable
                .map_or_else(|| "–".to_owned(), |variable| format!("`{}`", variable.name));
            let _ = writeln!(
                out,
                "| {} | {} | {variable} | {} |",
                row.name.replace('_', " "),
                row.value,
                row.meaning
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Env;

    #[test]
    fn the_document_is_that_of_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/limits.md");
        if std::env::var_os("STATEGATE_TEST_BLESS").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == document(),
            "docs/limits.md is not what the table says; run this test with STATEGATE_TEST_BLESS=1"
        );
    }

    #[test]
    fn a_configuration_that_sets_nothing_has_the_defaults() {
        let env = Env::of([(variables::AUTH_DISABLED.name, "true")]);
        let config = Config::read(&env, &[]).unwrap();
        assert_eq!(Limits::of(&config), Limits::default());
    }

    /// A bound that waits for another waits longer.
    #[test]
    fn times_are_in_order() {
        let limits = Limits::default();
        let asked = limits.keep_alive + limits.keep_alive_answer;
        assert!(limits.write_stall > asked, "an answer to PING has its time");
        assert!(limits.answers > limits.connection_answers);
        assert!(limits.connection_answers > 2 * model::MESSAGE_BYTES);
    }
}
