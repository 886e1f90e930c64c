//! The one table of metrics: names, kinds, units, labels and what they mean.
//!
//! Every metric that the process exports is a constant of this crate. The handles that code records
//! with, the `HELP` lines of `/metrics` and `docs/metrics.md` all follow from the table, so that a
//! metric cannot exist without being described, or have other labels in another place.

use std::fmt::Write as _;

pub use metrics::{Counter, Gauge, Histogram};
use metrics::{Label, SharedString, Unit};

/// What a metric measures, without its kind: the row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The name in `/metrics`. It is stable: dashboards and alerts rest on it.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The unit of the recorded values.
    pub unit: Unit,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it counts or measures, as a sentence.
    pub help: &'static str,
}

/// A number of things that happened since the process started. `L` is its number of labels.
#[derive(Debug, Clone, Copy)]
pub struct CounterOf<const L: usize>(Row);

/// A value that goes up and down. `L` is its number of labels.
#[derive(Debug, Clone, Copy)]
pub struct GaugeOf<const L: usize>(Row);

/// A distribution of values. `L` is its number of labels.
#[derive(Debug, Clone, Copy)]
pub struct HistogramOf<const L: usize>(Row);

impl<const L: usize> CounterOf<L> {
    /// The handle for these values of its labels, in the table's order.
    pub fn with(&self, values: [impl Into<SharedString>; L]) -> Counter {
        metrics::counter!(self.0.name, labels(&self.0, values))
    }
}

impl<const L: usize> GaugeOf<L> {
    /// The handle for these values of its labels, in the table's order.
    pub fn with(&self, values: [impl Into<SharedString>; L]) -> Gauge {
        metrics::gauge!(self.0.name, labels(&self.0, values))
    }
}

impl<const L: usize> HistogramOf<L> {
    /// The handle for these values of its labels, in the table's order.
    pub fn with(&self, values: [impl Into<SharedString>; L]) -> Histogram {
        metrics::histogram!(self.0.name, labels(&self.0, values))
    }
}

impl CounterOf<0> {
    /// The handle.
    pub fn get(&self) -> Counter {
        self.with([""; 0])
    }
}

impl GaugeOf<0> {
    /// The handle.
    pub fn get(&self) -> Gauge {
        self.with([""; 0])
    }
}

impl HistogramOf<0> {
    /// The handle.
    pub fn get(&self) -> Histogram {
        self.with([""; 0])
    }
}

fn labels<const L: usize>(row: &Row, values: [impl Into<SharedString>; L]) -> Vec<Label> {
    let names = row.labels.iter().copied();
    names
        .zip(values)
        .map(|(name, value)| Label::new(name, value))
        .collect()
}

macro_rules! table {
    ($($heading:literal { $($id:ident: $of:ident<$count:literal> = $kind:literal $name:literal, $unit:ident, [$($label:literal),*], $help:literal;)* })*) => {
        $($(
            #[doc = $help]
            pub const $id: $of<$count> = $of(Row {
                name: $name,
                kind: $kind,
                unit: Unit::$unit,
                labels: {
                    const LABELS: [&str; $count] = [$($label),*];
                    &LABELS
                },
                help: $help,
            });
        )*)*

        /// All metrics under their headings.
        const GROUPS: &[(&str, &[Row])] = &[$(($heading, &[$($id.0),*])),*];
    };
}

table! {
    "Calls (every service)" {
        CALLS: CounterOf<2> = "counter" "stategate_calls_total", Count, ["method", "code"],
            "Calls that ended, by method and gRPC status.";
        CALL_SECONDS: HistogramOf<1> = "histogram" "stategate_call_seconds", Seconds, ["method"],
            "Time from the arrival of a unary call's headers until its answer was sent or given up. Streams are not in it.";
        CALLS_OPEN: GaugeOf<1> = "gauge" "stategate_calls_open", Count, ["method"],
            "Calls and streams under way.";
        CONNECTIONS_REFUSED: CounterOf<0> = "counter" "stategate_connections_refused_total", Count, [],
            "Connections that were closed at once because there were as many as STATEGATE_MAX_CONNECTIONS.";
        CONNECTIONS_OPEN: GaugeOf<1> = "gauge" "stategate_connections_open", Count, ["listener"],
            "Connections that are open, those in their TLS handshake among them. `listener` is `api`, or `admin` for metrics and health.";
        CONNECTIONS_ENDED: CounterOf<1> = "counter" "stategate_connections_ended_total", Count, ["reason"],
            "Connections that ended. `closed` and `lost` are the client's doing or the process's end; the server ended the others: `handshake` (TLS failed or took too long), `silent` (no greeting), `protocol` (rules broken, or a flood), `keep_alive` (no sign of life), `stalled` (nothing could be written), `answers_untaken` and `answers_memory` (answers that were not taken), `age`.";
        ANSWERS_HELD: GaugeOf<0> = "gauge" "stategate_answers_held_bytes", Bytes, [],
            "Memory of unary answers that their clients have not taken yet, of STATEGATE_ANSWER_BYTES.";
        TLS_RELOADS: CounterOf<1> = "counter" "stategate_tls_reloads_total", Count, ["outcome"],
            "Times that changed TLS files were put in force (`done`) or could not be (`failed`).";
        TLS_CERTIFICATE_EXPIRES: GaugeOf<0> = "gauge" "stategate_tls_certificate_expires_seconds", Seconds, [],
            "Unix time at which the certificate in force expires.";
    }
    "Access (every service)" {
        AUTHENTICATION_REFUSALS: CounterOf<1> = "counter" "stategate_authentication_refusals_total", Count, ["reason"],
            "Calls that were refused because they had no token, or one that is not accepted. `reason` names the rule.";
        POLICY_DENIALS: CounterOf<2> = "counter" "stategate_policy_denials_total", Count, ["policy", "reason"],
            "Requests that a policy denied and answers that it withheld. `policy` is `request` or `response`; any reason but `not_allowed` is a fault of the policy.";
        CALLS_OVER_RATE: CounterOf<1> = "counter" "stategate_calls_over_rate_total", Count, ["of"],
            "Calls that were refused because there were too many in a second. `of` is `caller`, or `peer` for those with a token that was not known yet.";
        EVENTS_DENIED: CounterOf<0> = "counter" "stategate_events_denied_total", Count, [],
            "Events that a policy kept from a subscription; one event counts once for each.";
    }
    "Writes (command)" {
        EVENTS_APPENDED: CounterOf<1> = "counter" "stategate_events_appended_total", Count, ["lane"],
            "Events that this process appended to the log.";
        APPENDS: CounterOf<1> = "counter" "stategate_appends_total", Count, ["lane"],
            "Batches that this process appended to the log: one commit each.";
        APPEND_EVENTS: HistogramOf<1> = "histogram" "stategate_append_events", Count, ["lane"],
            "Events in a batch.";
        APPENDS_HEAD_MOVED: CounterOf<1> = "counter" "stategate_appends_head_moved_total", Count, ["lane"],
            "Appends that wrote nothing because another process had appended to the lane; their batches were decided again.";
        APPENDS_ASSUMPTION_FAILED: CounterOf<1> = "counter" "stategate_appends_assumption_failed_total", Count, ["lane"],
            "Appends that wrote nothing because something that was assumed to be absent existed; their batches were decided again.";
        LOADS_AHEAD: CounterOf<1> = "counter" "stategate_loads_ahead_total", Count, ["lane"],
            "Reads for the next batch that were begun while an append was on its way (prefetch).";
        WRITE_QUEUE_SECONDS: HistogramOf<1> = "histogram" "stategate_write_queue_seconds", Seconds, ["lane"],
            "Time that a write waited in the lane's queue until its batch was taken.";
    }
    "Channel (command and stream)" {
        CHANNEL_CONNECTED: GaugeOf<2> = "gauge" "stategate_channel_connected", Count, ["provider", "side"],
            "Connections to the broker that are up. `side` is `send` or `receive`.";
        CHANNEL_RECONNECTS: CounterOf<2> = "counter" "stategate_channel_reconnects_total", Count, ["provider", "side"],
            "Connections to the broker that were made again after they were lost.";
        CHANNEL_PUBLISHED: CounterOf<1> = "counter" "stategate_channel_published_total", Count, ["provider"],
            "Messages handed to the broker, bare heads among them.";
        CHANNEL_DROPPED: CounterOf<1> = "counter" "stategate_channel_dropped_total", Count, ["provider"],
            "Messages whose events were not sent because the outbox was full; the lane's newest head was.";
        CHANNEL_OVERSIZE: CounterOf<1> = "counter" "stategate_channel_oversize_total", Count, ["provider"],
            "Messages over the broker's size limit, sent as a bare head.";
        CHANNEL_RECEIVED: CounterOf<1> = "counter" "stategate_channel_received_total", Count, ["provider"],
            "Messages received from the broker.";
        CHANNEL_REFUSED_FRAMES: CounterOf<2> = "counter" "stategate_channel_refused_frames_total", Count, ["provider", "reason"],
            "Messages that were not believed: of another log, malformed, or with a wrong signature.";
        CHANNEL_UNREAD: CounterOf<1> = "counter" "stategate_channel_unread_total", Count, ["provider"],
            "Messages that were received and dropped because the process had not read the ones before; it reads the log instead.";
        CHANNEL_LAGGED: CounterOf<1> = "counter" "stategate_channel_lagged_total", Count, ["provider"],
            "Times the broker or its driver said that messages were lost.";
    }
    "Storage (every service)" {
        STORAGE_WEAKENED: GaugeOf<1> = "gauge" "stategate_storage_weakened", Count, ["what"],
            "1 while a setting of the database makes acknowledged writes less safe than promised. `what` names the setting.";
    }
    "Streams (stream)" {
        SUBSCRIPTIONS: GaugeOf<0> = "gauge" "stategate_subscriptions", Count, [],
            "Subscriptions that are open.";
        SUBSCRIPTIONS_LIVE: GaugeOf<0> = "gauge" "stategate_subscriptions_live", Count, [],
            "Subscriptions that are served from the tail in memory; the others read the storage.";
        SUBSCRIPTIONS_FELL_BEHIND: CounterOf<0> = "counter" "stategate_subscriptions_fell_behind_total", Count, [],
            "Times a subscription was moved off the tail because its queue was full.";
        SUBSCRIPTIONS_REFUSED: CounterOf<1> = "counter" "stategate_subscriptions_refused_total", Count, ["limit"],
            "Subscriptions that were refused. `limit` says which one was reached.";
        TAIL_BYTES: GaugeOf<0> = "gauge" "stategate_tail_bytes", Bytes, [],
            "Memory of the events in the tail.";
        CATCHUP_BYTES: GaugeOf<0> = "gauge" "stategate_catchup_bytes", Bytes, [],
            "Memory that subscriptions which read the storage hold, of STATEGATE_CATCHUP_BYTES.";
        CATCHUP_PAGES_DROPPED: CounterOf<0> = "counter" "stategate_catchup_pages_dropped_total", Count, [],
            "Pages of the log that were dropped because their subscriber took nothing from them while others needed the memory; they are read again.";
        EVENTS_FANNED_OUT: CounterOf<0> = "counter" "stategate_events_fanned_out_total", Count, [],
            "Events queued for subscriptions on the tail; one event counts once for each.";
        CHANNEL_EVENTS: CounterOf<0> = "counter" "stategate_channel_events_total", Count, [],
            "Events that came into the tail from the channel.";
        CHANNEL_STRAYS: CounterOf<0> = "counter" "stategate_channel_strays_total", Count, [],
            "Channel messages that did not continue what the log has.";
        CHANNEL_HOLES: CounterOf<0> = "counter" "stategate_channel_holes_total", Count, [],
            "Times events were missing between the tail and a channel message and were read from the storage.";
        TAIL_EVENTS_READ: CounterOf<0> = "counter" "stategate_tail_events_read_total", Count, [],
            "Events that came into the tail from the storage.";
    }
    "Process (every service)" {
        RESIDENT_MEMORY: GaugeOf<0> = "gauge" "process_resident_memory_bytes", Bytes, [],
            "Memory of the process, as the system reports it (Linux).";
    }
}

/// All metrics.
pub fn all() -> impl Iterator<Item = &'static Row> {
    GROUPS.iter().flat_map(|(_, group)| group.iter())
}

/// Gives the recorder of this process the help and unit of every metric.
pub fn describe() {
    for row in all() {
        match row.kind {
            "counter" => metrics::describe_counter!(row.name, row.unit, row.help),
            "gauge" => metrics::describe_gauge!(row.name, row.unit, row.help),
            _ => metrics::describe_histogram!(row.name, row.unit, row.help),
        }
    }
}

/// `docs/metrics.md`.
pub fn document() -> String {
    let mut out = String::from(
        "# Metrics

Every service exports these at `/metrics`, in Prometheus' text format, on the port after that of gRPC. Names and labels
are stable: a change of one is a breaking change and stands in the changelog. A metric appears when its first value is
recorded. Counters start at 0 with the process.

This file is made from the table in `libs/metrics/src/lib.rs`; a test of that crate compares the two and, run with
`STATEGATE_TEST_BLESS=1`, writes this file.
",
    );
    for (heading, group) in GROUPS {
        let _ = write!(
            out,
            "\n## {heading}\n\n| metric | kind | unit | labels | meaning |\n| --- | --- | --- | --- | --- |\n"
        );
        for row in *group {
            let labels: Vec<String> = row.labels.iter().map(|name| format!("`{name}`")).collect();
            let labels = match labels.is_empty() {
                true => "–".to_owned(),
                false => labels.join(", "),
            };
            let _ = writeln!(
                out,
                "| `{}` | {} | {} | {labels} | {} |",
                row.name,
                row.kind,
                row.unit.as_str(),
                row.help
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_document_is_that_of_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        if std::env::var_os("STATEGATE_TEST_BLESS").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == document(),
            "docs/metrics.md is not what the table says; run this test with STATEGATE_TEST_BLESS=1"
        );
    }

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let mut names = HashSet::new();
        for row in all() {
            assert!(names.insert(row.name), "{} is there twice", row.name);
            let is_counter = row.kind == "counter";
            assert_eq!(row.name.ends_with("_total"), is_counter, "{}", row.name);
            let seconds = row.name.trim_end_matches("_total").ends_with("_seconds");
            assert_eq!(seconds, row.unit == Unit::Seconds, "{}", row.name);
            let bytes = row.name.trim_end_matches("_total").ends_with("_bytes");
            assert_eq!(bytes, row.unit == Unit::Bytes, "{}", row.name);
            assert!(row.help.ends_with('.'), "{}", row.name);
        }
    }
}
