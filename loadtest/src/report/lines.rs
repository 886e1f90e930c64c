//! Which lines the report has: for each scenario the figure, the limit it is compared with, the aim, and
//! the facts beside it.

use crate::{
    quantity::{GrowthQuantity, Measurements, Quantity},
    scenario::{
        CALLERS, OPERATIONS, PAGE_SIZE, STREAMS_PER_CONNECTION, SUBSCRIBER_COUNTS, TRANSACT_CALLERS,
    },
    statistics::rate_in_sequence,
};

use super::{
    line::Line,
    rounds::{BY_CHANNEL, Rounds},
};

/// The share of its limit that a rate should reach.
const RATE_AIM: f64 = 0.7;
const TRANSACT_AIM: f64 = 0.6;
const DELIVERY_AIM: f64 = 0.8;
/// The most milliseconds from commit to delivery, for 99 of 100 events.
const DELAY_AIM: f64 = 3.0;
/// The most KiB of memory for an idle subscriber that shares its connection.
const IDLE_AIM: f64 = 40.0;

/// The lines for everything that was measured. `plain_clients` says how the plain clients of the storage are
/// connected.
pub(crate) fn lines(rounds: &[Measurements], plain_clients: &str) -> Vec<Line> {
    let rounds = Rounds(rounds);
    let mut lines = request_lines(&rounds, plain_clients);
    lines.extend(delivery_lines(&rounds));
    lines.push(idle_line(&rounds));
    for (quantity, name) in [
        (GrowthQuantity::Set, "durable Set/s, 64 callers"),
        (GrowthQuantity::SetOneP50, "durable Set, 1 caller, p50"),
        (GrowthQuantity::Get, "Get/s"),
        (GrowthQuantity::Search, "Search/s"),
    ] {
        lines.push(rounds.growth_line(quantity, name));
    }
    for phase in rounds.phases() {
        lines.push(rounds.phase_line(phase));
    }
    lines.push(rounds.median(Quantity::PeakMib).map(|measured| Line {
        name: "most memory the gateway held".to_owned(),
        measured,
        unit: "MiB",
        limit: None,
        facts: Vec::new(),
    }));
    lines.into_iter().flatten().collect()
}

/// Set, Transact, Get and Search.
fn request_lines(rounds: &Rounds<'_>, plain_clients: &str) -> Vec<Option<Line>> {
    vec![
        rounds.rate_line(
            format!("durable Set/s, {CALLERS} callers"),
            Quantity::Set,
            "1/(1/echo + 1/batch)",
            in_sequence(Quantity::EchoSet, Quantity::Batch),
            RATE_AIM,
            vec![
                rounds.ratio_fact(
                    Quantity::Set,
                    Quantity::PlainMany,
                    &format!(
                        "one transaction a write by {CALLERS} plain clients ({plain_clients})"
                    ),
                ),
                rounds.fact(Quantity::EchoSet, "echo", "/s"),
                rounds.fact(Quantity::Batch, "batch of 256", "rows/s"),
                rounds.fact(Quantity::SetCost, "processor time a Set", "µs"),
                rounds.fact(Quantity::EchoSetCost, "an echo", "µs"),
                rounds.fact(Quantity::SyncP50, "sync of the disk p50", "ms"),
                rounds.fact(Quantity::SyncP99, "p99", "ms"),
            ],
        ),
        rounds.rate_line(
            "durable Set/s, 1 caller".to_owned(),
            Quantity::SetOne,
            "1/(1/echo + 1/plain)",
            in_sequence(Quantity::EchoSetOne, Quantity::PlainOne),
            RATE_AIM,
            vec![
                rounds.fact(Quantity::SetOneP50, "latency p50", "ms"),
                rounds.fact(Quantity::SetOneP99, "p99", "ms"),
                rounds.fact(Quantity::EchoSetOne, "echo", "/s"),
                rounds.fact(
                    Quantity::PlainOne,
                    "one transaction a write by one plain client",
                    "/s",
                ),
            ],
        ),
        rounds.rate_line(
            format!("durable Transact of {OPERATIONS}, events/s, {TRANSACT_CALLERS} callers"),
            Quantity::Transact,
            "batch",
            |round| round.get(&Quantity::Batch).copied(),
            TRANSACT_AIM,
            vec![rounds.ratio_fact(
                Quantity::Transact,
                Quantity::PlainMany,
                "one transaction a write by 64 plain clients",
            )],
        ),
        rounds.rate_line(
            format!("Get/s, {CALLERS} callers"),
            Quantity::Get,
            "1/(1/echo + 1/select)",
            in_sequence(Quantity::EchoGet, Quantity::Select),
            RATE_AIM,
            vec![
                rounds.ratio_fact(Quantity::Get, Quantity::EchoGet, "echo"),
                rounds.fact(Quantity::EchoGet, "echo", "/s"),
                rounds.fact(Quantity::GetCost, "processor time a Get", "µs"),
                rounds.fact(Quantity::EchoGetCost, "an echo", "µs"),
                rounds.fact(Quantity::Select, "select by a connection a processor", "/s"),
            ],
        ),
        rounds.rate_line(
            format!("Search/s for a page of {PAGE_SIZE}, {CALLERS} callers"),
            Quantity::Search,
            "1/(1/echo + 1/pages)",
            in_sequence(Quantity::EchoSearch, Quantity::Pages),
            RATE_AIM,
            vec![
                rounds.fact(Quantity::EchoSearch, "echo", "/s"),
                rounds.fact(Quantity::SearchCost, "processor time a Search", "µs"),
                rounds.fact(Quantity::EchoSearchCost, "an echo", "µs"),
                rounds.fact(Quantity::Pages, "pages by a connection a processor", "/s"),
            ],
        ),
    ]
}

/// How long delivery takes, and how many events a second are delivered.
fn delivery_lines(rounds: &Rounds<'_>) -> Vec<Option<Line>> {
    let mut lines = vec![
        rounds.bounded_line(
            "delivered − committed, half load, p99".to_owned(),
            Quantity::DelayP99,
            DELAY_AIM,
            "ms",
            vec![
                rounds.fact(Quantity::DelayP50, "p50", "ms"),
                rounds.fact(
                    Quantity::SinceDecidedP50,
                    "delivered − decided (the append included) p50",
                    "ms",
                ),
                rounds.fact(Quantity::SinceDecidedP99, "p99", "ms"),
                rounds.fact(Quantity::HalfLoad, "at", "Set/s"),
                rounds.fact(Quantity::DelayByChannel, BY_CHANNEL, "%"),
            ],
        ),
        rounds.rate_line(
            "events/s to 1 subscriber, the log from its beginning".to_owned(),
            Quantity::Replay,
            "1/(1/stream + 1/scan)",
            in_sequence(Quantity::Stream(1), Quantity::Scan),
            DELIVERY_AIM,
            vec![rounds.fact(Quantity::Scan, "scan of the log", "rows/s")],
        ),
    ];
    for count in SUBSCRIBER_COUNTS {
        // An event is written once and then delivered to each of them.
        #[allow(clippy::cast_precision_loss, reason = "at most a thousand")]
        let deliveries = count as f64;
        lines.push(rounds.rate_line(
            format!("events delivered/s, live, {count} subscribers"),
            Quantity::Deliver(count),
            &format!("1/(1/stream + 1/({count}·authors))"),
            move |round| {
                let stream = *round.get(&Quantity::Stream(count))?;
                let authors = *round.get(&Quantity::Authors(count))?;
                Some(rate_in_sequence(&[stream, authors * deliveries]))
            },
            DELIVERY_AIM,
            vec![
                rounds.ratio_fact(
                    Quantity::Deliver(count),
                    Quantity::Stream(count),
                    "the stream floor",
                ),
                rounds.fact(Quantity::Authors(count), "authors alone", "/s"),
                rounds.fact(Quantity::DeliverByChannel(count), BY_CHANNEL, "%"),
            ],
        ));
    }
    lines
}

/// The memory of an idle subscriber.
fn idle_line(rounds: &Rounds<'_>) -> Option<Line> {
    rounds.bounded_line(
        format!("memory of an idle subscriber, {STREAMS_PER_CONNECTION} on a connection"),
        Quantity::Idle(STREAMS_PER_CONNECTION),
        IDLE_AIM,
        "KiB",
        vec![
            rounds.fact(
                Quantity::IdleStream(STREAMS_PER_CONNECTION),
                "a bare stream",
                "KiB",
            ),
            rounds.fact(Quantity::Idle(1), "with a connection of its own", "KiB"),
            rounds.fact(Quantity::IdleStream(1), "a bare one", "KiB"),
        ],
    )
}

/// The limit of doing what two floors do, one after the other.
fn in_sequence(first: Quantity, second: Quantity) -> impl Fn(&Measurements) -> Option<f64> {
    move |round| {
        let rates = [*round.get(&first)?, *round.get(&second)?];
        Some(rate_in_sequence(&rates))
    }
}

#[cfg(test)]
mod tests {
    use crate::report::table;

    use super::*;

    fn round(set: f64, echo: f64, batch: f64) -> Measurements {
        Measurements::from([
            (Quantity::Set, set),
            (Quantity::EchoSet, echo),
            (Quantity::Batch, batch),
        ])
    }

    #[test]
    fn the_ratio_is_the_median_of_the_rounds_ratios() {
        let rounds = [
            round(5_000.0, 20_000.0, 20_000.0),
            round(8_000.0, 20_000.0, 20_000.0),
            round(1_000.0, 2_000.0, 2_000.0),
        ];
        let lines = lines(&rounds, "");
        let [line] = lines.as_slice() else {
            panic!("only Set was measured")
        };
        assert!((line.measured - 5_000.0).abs() < 1e-9);
        let limit = line.limit.as_ref().unwrap();
        assert!((limit.ratio() - 0.8).abs() < 1e-9, "0.5, 0.8 and 1.0");
        assert_eq!(line.is_aim_reached(), Some(true));
        let table = table(&lines);
        assert!(table.contains("0.80 (0.50–1.00)"), "{table}");
    }

    #[test]
    fn a_delay_above_its_aim_does_not_reach_it() {
        let late = [Measurements::from([(Quantity::DelayP99, 3.5)])];
        assert_eq!(lines(&late, "")[0].is_aim_reached(), Some(false));
    }
}
