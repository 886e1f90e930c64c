//! What the rounds came to: each figure beside the limit that its parts set, and the comparison that
//! users care about.

use serde_json::json;

use crate::{
    audience::STREAMS_PER_CONNECTION,
    away::{Aspect, Phase, SUBSCRIBERS, Stage, WRITERS},
    data::PAGE,
    plain::Words,
    round::{AUDIENCES, CALLERS, Grown, OPERATIONS, Quantity, Round, SMALL_LOG, TRANSACT_CALLERS},
};

/// Share of its limit that a figure has to reach (design §11).
const AIM: f64 = 0.7;
const AIM_TRANSACT: f64 = 0.6;
const AIM_DELIVERED: f64 = 0.8;
/// Most milliseconds from commit to delivery, of 99 in 100 events.
const AIM_DELAY: f64 = 3.0;

/// Most KiB of memory for a subscriber to whom nothing is sent, a hundred on a connection.
const AIM_IDLE: f64 = 40.0;
/// How much slower anything may become as the log grows.
const AIM_GROWN: f64 = 1.3;

/// How much longer writes may take when a broker is away, of 99 in 100.
const AIM_AWAY: f64 = 1.2;

/// What did not come by the channel was read from the log.
const BY_CHANNEL: &str = "events by the channel";

/// A line of the report.
pub(crate) struct Figure {
    name: String,
    measured: f64,
    unit: &'static str,
    limit: Option<Limit>,
    facts: Vec<String>,
}

struct Limit {
    text: String,
    value: f64,
    /// Measured by limit, of each round.
    ratios: Vec<f64>,
    bound: Bound,
}

enum Bound {
    /// The ratio is to be at least this.
    Share(f64),
    /// The figure is to be at most the limit.
    Most,
    /// The ratio is to be at most this.
    Times(f64),
}

impl Figure {
    /// Whether the aim is reached; `None` without one.
    pub(crate) fn reached(&self) -> Option<bool> {
        self.limit.as_ref().map(|limit| match limit.bound {
            Bound::Share(share) => limit.ratio() >= share,
            Bound::Most => self.measured <= limit.value,
            Bound::Times(times) => limit.ratio() <= times,
        })
    }
}

impl Limit {
    fn ratio(&self) -> f64 {
        median(self.ratios.clone())
    }
}

/// The figures of all that was measured.
pub(crate) fn figures(rounds: &[Round], words: &Words) -> Vec<Figure> {
    let all = Rounds(rounds);
    let mut figures = Vec::new();
    let mut add = |figure: Option<Figure>| figures.extend(figure);

    let both =
        |one, other| move |round: &Round| Some(together(&[*round.get(&one)?, *round.get(&other)?]));
    add(all.share(
        format!("durable Set/s, {CALLERS} callers"),
        Quantity::Set,
        "1/(1/echo + 1/batch)",
        both(Quantity::EchoSet, Quantity::Batch),
        AIM,
        vec![
            all.times(
                Quantity::Set,
                Quantity::PlainMany,
                &format!(
                    "one transaction a write by {CALLERS} plain clients ({})",
                    words.clients
                ),
            ),
            all.value(Quantity::EchoSet, "echo", "/s"),
            all.value(Quantity::Batch, "batch of 256", "rows/s"),
            all.value(Quantity::SetCost, "processor time a Set", "µs"),
            all.value(Quantity::EchoSetCost, "an echo", "µs"),
            all.value(Quantity::SyncP50, "sync of the disk p50", "ms"),
            all.value(Quantity::SyncP99, "p99", "ms"),
        ],
    ));
    add(all.share(
        "durable Set/s, 1 caller".to_owned(),
        Quantity::SetOne,
        "1/(1/echo + 1/plain)",
        both(Quantity::EchoSetOne, Quantity::PlainOne),
        AIM,
        vec![
            all.value(Quantity::SetOneP50, "latency p50", "ms"),
            all.value(Quantity::SetOneP99, "p99", "ms"),
            all.value(Quantity::EchoSetOne, "echo", "/s"),
            all.value(
                Quantity::PlainOne,
                "one transaction a write by one plain client",
                "/s",
            ),
        ],
    ));
    add(all.share(
        format!("durable Transact of {OPERATIONS}, events/s, {TRANSACT_CALLERS} callers"),
        Quantity::Transact,
        "batch",
        |round| round.get(&Quantity::Batch).copied(),
        AIM_TRANSACT,
        vec![all.times(
            Quantity::Transact,
            Quantity::PlainMany,
            "one transaction a write by 64 plain clients",
        )],
    ));
    add(all.share(
        format!("Get/s, {CALLERS} callers"),
        Quantity::Get,
        "1/(1/echo + 1/select)",
        both(Quantity::EchoGet, Quantity::Select),
        AIM,
        vec![
            all.times(Quantity::Get, Quantity::EchoGet, "echo"),
            all.value(Quantity::EchoGet, "echo", "/s"),
            all.value(Quantity::GetCost, "processor time a Get", "µs"),
            all.value(Quantity::EchoGetCost, "an echo", "µs"),
            all.value(Quantity::Select, "select by a connection a processor", "/s"),
        ],
    ));
    add(all.share(
        format!("Search/s for a page of {PAGE}, {CALLERS} callers"),
        Quantity::Search,
        "1/(1/echo + 1/pages)",
        both(Quantity::EchoSearch, Quantity::Pages),
        AIM,
        vec![
            all.value(Quantity::EchoSearch, "echo", "/s"),
            all.value(Quantity::SearchCost, "processor time a Search", "µs"),
            all.value(Quantity::EchoSearchCost, "an echo", "µs"),
            all.value(Quantity::Pages, "pages by a connection a processor", "/s"),
        ],
    ));
    add(all.figure(Quantity::DelayP99).map(|measured| Figure {
        name: "delivered − committed, half load, p99".to_owned(),
        measured,
        unit: "ms",
        limit: Some(Limit {
            text: "3 ms".to_owned(),
            value: AIM_DELAY,
            ratios: all.of(|round| Some(round.get(&Quantity::DelayP99)? / AIM_DELAY)),
            bound: Bound::Most,
        }),
        facts: [
            all.value(Quantity::DelayP50, "p50", "ms"),
            all.value(
                Quantity::SinceDecidedP50,
                "delivered − decided (the append included) p50",
                "ms",
            ),
            all.value(Quantity::SinceDecidedP99, "p99", "ms"),
            all.value(Quantity::HalfLoad, "at", "Set/s"),
            all.value(Quantity::DelayByChannel, BY_CHANNEL, "%"),
        ]
        .into_iter()
        .flatten()
        .collect(),
    }));
    add(all.share(
        "events/s to 1 subscriber, the log from its beginning".to_owned(),
        Quantity::Replay,
        "1/(1/stream + 1/scan)",
        both(Quantity::Stream(1), Quantity::Scan),
        AIM_DELIVERED,
        vec![all.value(Quantity::Scan, "scan of the log", "rows/s")],
    ));
    for size in AUDIENCES {
        // An event is written once before it goes to all of them.
        #[allow(clippy::cast_precision_loss, reason = "at most a thousand")]
        let copies = size as f64;
        add(all.share(
            format!("events delivered/s, live, {size} subscribers"),
            Quantity::Deliver(size),
            &format!("1/(1/stream + 1/({size}·authors))"),
            move |round| {
                let stream = *round.get(&Quantity::Stream(size))?;
                let authors = *round.get(&Quantity::Authors(size))?;
                Some(together(&[stream, authors * copies]))
            },
            AIM_DELIVERED,
            vec![
                all.times(
                    Quantity::Deliver(size),
                    Quantity::Stream(size),
                    "the stream floor",
                ),
                all.value(Quantity::Authors(size), "authors alone", "/s"),
                all.value(Quantity::DeliverByChannel(size), BY_CHANNEL, "%"),
            ],
        ));
    }
    add(all
        .figure(Quantity::Idle(STREAMS_PER_CONNECTION))
        .map(|measured| Figure {
            name: format!("memory of an idle subscriber, {STREAMS_PER_CONNECTION} on a connection"),
            measured,
            unit: "KiB",
            limit: Some(Limit {
                text: format!("{AIM_IDLE} KiB"),
                value: AIM_IDLE,
                ratios: all.of(|round| {
                    Some(round.get(&Quantity::Idle(STREAMS_PER_CONNECTION))? / AIM_IDLE)
                }),
                bound: Bound::Most,
            }),
            facts: [
                all.value(
                    Quantity::IdleStream(STREAMS_PER_CONNECTION),
                    "a bare stream",
                    "KiB",
                ),
                all.value(Quantity::Idle(1), "with a connection of its own", "KiB"),
                all.value(Quantity::IdleStream(1), "a bare one", "KiB"),
            ]
            .into_iter()
            .flatten()
            .collect(),
        }));
    for (what, name) in [
        (Grown::Set, "durable Set/s, 64 callers"),
        (Grown::SetOneP50, "durable Set, 1 caller, p50"),
        (Grown::Get, "Get/s"),
        (Grown::Search, "Search/s"),
    ] {
        add(all.grown(what, name));
    }
    for phase in all.phases() {
        add(all.during(phase));
    }
    add(all.figure(Quantity::PeakMib).map(|measured| Figure {
        name: "most memory the gateway held".to_owned(),
        measured,
        unit: "MiB",
        limit: None,
        facts: Vec::new(),
    }));
    figures
}

/// The rate of doing several things one after the other.
fn together(rates: &[f64]) -> f64 {
    1.0 / rates.iter().map(|rate| 1.0 / rate).sum::<f64>()
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

struct Rounds<'a>(&'a [Round]);

impl Rounds<'_> {
    fn of(&self, quantity: impl Fn(&Round) -> Option<f64>) -> Vec<f64> {
        self.0.iter().filter_map(quantity).collect()
    }

    /// The median of a quantity, if it was measured.
    fn figure(&self, quantity: Quantity) -> Option<f64> {
        let values = self.of(|round| round.get(&quantity).copied());
        (!values.is_empty()).then(|| median(values))
    }

    fn value(&self, quantity: Quantity, name: &str, unit: &str) -> Option<String> {
        let value = self.figure(quantity)?;
        Some(format!("{name} {} {unit}", number(value)))
    }

    fn times(&self, quantity: Quantity, by: Quantity, name: &str) -> Option<String> {
        let ratios = self.of(|round| Some(round.get(&quantity)? / round.get(&by)?));
        (!ratios.is_empty()).then(|| format!("{:.2} × {name}", median(ratios)))
    }

    /// What is measured on a log that has grown, beside the same on the small one.
    fn grown(&self, what: Grown, name: &str) -> Option<Figure> {
        let quantities = self.0.first().into_iter().flat_map(Round::keys);
        let events = quantities.filter_map(|quantity| match quantity {
            Quantity::Grown(events, _) => Some(*events),
            _ => None,
        });
        let events = events.max()?;
        let small = |round: &Round| round.get(&Quantity::Grown(SMALL_LOG, what)).copied();
        let large = Quantity::Grown(events, what);
        let (unit, bound) = match what {
            Grown::SetOneP50 => ("ms", Bound::Times(AIM_GROWN)),
            Grown::Set | Grown::Get | Grown::Search => ("/s", Bound::Share(1.0 / AIM_GROWN)),
        };
        Some(Figure {
            name: format!("{name}, at {events} events"),
            measured: self.figure(large)?,
            unit,
            limit: Some(Limit {
                text: format!("that at {SMALL_LOG}"),
                value: median(self.of(small)),
                ratios: self.of(|round| Some(round.get(&large)? / small(round)?)),
                bound,
            }),
            facts: Vec::new(),
        })
    }

    /// The phases of a broker's trial, as they followed one another.
    fn phases(&self) -> Vec<Phase> {
        let quantities = self.0.first().into_iter().flat_map(Round::keys);
        let phases = quantities.filter_map(|quantity| match quantity {
            Quantity::In(phase, Aspect::P99) => Some(*phase),
            _ => None,
        });
        phases.collect()
    }

    /// How long Sets took in a phase, beside the first.
    fn during(&self, phase: Phase) -> Option<Figure> {
        let at = |aspect| Quantity::In(phase, aspect);
        let before =
            |round: &Round, aspect| round.get(&Quantity::In(Phase::Before, aspect)).copied();
        let times =
            |aspect| self.of(|round| Some(round.get(&at(aspect))? / before(round, aspect)?));
        let taken = |aspect, name| {
            let value = self.value(at(aspect), name, "ms")?;
            Some(format!("{value}, {:.2} × before", median(times(aspect))))
        };
        let limit = Limit {
            text: "before".to_owned(),
            value: median(self.of(|round| before(round, Aspect::P99))),
            ratios: times(Aspect::P99),
            bound: Bound::Times(AIM_AWAY),
        };
        let facts = [
            taken(Aspect::P50, "p50"),
            taken(Aspect::P999, "p99.9"),
            taken(Aspect::TypicalP99, "p99 of the median second"),
            self.value(at(Aspect::Rate), "at", "Set/s"),
            self.value(at(Aspect::ByChannel), BY_CHANNEL, "%"),
            self.value(at(Aspect::Cost), "processor time a Set", "µs"),
        ];
        Some(Figure {
            name: format!("Set p99, {WRITERS} callers, {SUBSCRIBERS} subscribers: {phase}"),
            measured: self.figure(at(Aspect::P99))?,
            unit: "ms",
            // While it starts, a broker takes its part of the processors.
            limit: (!matches!(phase, Phase::Before | Phase::Of(_, Stage::Returning)))
                .then_some(limit),
            facts: facts.into_iter().flatten().collect(),
        })
    }

    fn share(
        &self,
        name: String,
        quantity: Quantity,
        text: &str,
        limit: impl Fn(&Round) -> Option<f64>,
        aim: f64,
        facts: Vec<Option<String>>,
    ) -> Option<Figure> {
        let ratios = self.of(|round| Some(round.get(&quantity)? / limit(round)?));
        // Measured for another figure's sake, without its own floors.
        if ratios.is_empty() {
            return None;
        }
        Some(Figure {
            name,
            measured: self.figure(quantity)?,
            unit: "/s",
            limit: Some(Limit {
                text: text.to_owned(),
                value: median(self.of(limit)),
                ratios,
                bound: Bound::Share(aim),
            }),
            facts: facts.into_iter().flatten().collect(),
        })
    }
}

fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// A share as people write it: no more than two digits.
fn share_of(share: f64) -> String {
    let text = format!("{share:.2}");
    text.trim_end_matches('0').to_owned()
}

/// The figures as a table for people.
pub(crate) fn table(figures: &[Figure]) -> String {
    let mut rows =
        vec![["what", "measured", "limit", "ratio", "aim", "reached"].map(str::to_owned)];
    for figure in figures {
        let measured = format!("{} {}", number(figure.measured), figure.unit);
        let mut row = [
            figure.name.clone(),
            measured,
            String::new(),
            String::new(),
            String::new(),
            String::new(),
        ];
        if let Some(limit) = &figure.limit {
            let spread = limit.ratios.iter().copied();
            let (low, high) = (
                spread.clone().fold(f64::INFINITY, f64::min),
                spread.fold(f64::NEG_INFINITY, f64::max),
            );
            row[2] = number(limit.value);
            row[3] = format!("{:.2} ({low:.2}–{high:.2})", limit.ratio());
            row[4] = match limit.bound {
                Bound::Share(share) => format!("≥ {} of {}", share_of(share), limit.text),
                Bound::Most => format!("≤ {}", limit.text),
                Bound::Times(times) => format!("≤ {times} × {}", limit.text),
            };
            row[5] = if figure.reached() == Some(true) {
                "yes"
            } else {
                "NO"
            }
            .to_owned();
        }
        rows.push(row);
    }
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut out = String::new();
    for (n, row) in rows.iter().enumerate() {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
        let facts = n
            .checked_sub(1)
            .and_then(|n| figures.get(n))
            .map(|figure| &figure.facts);
        if let Some(facts) = facts.filter(|facts| !facts.is_empty()) {
            out.push_str(&format!("    {}\n", facts.join("; ")));
        }
    }
    out
}

/// The figures for programs.
pub(crate) fn json(figures: &[Figure], rounds: &[Round]) -> serde_json::Value {
    let figures = figures.iter().map(|figure| {
        let limit = figure.limit.as_ref();
        json!({
            "name": figure.name,
            "measured": figure.measured,
            "unit": figure.unit,
            "limit": limit.map(|limit| limit.value),
            "limit_is": limit.map(|limit| &limit.text),
            "ratio": limit.map(Limit::ratio),
            "ratios": limit.map(|limit| &limit.ratios),
            "aim": limit.map(|limit| match limit.bound {
                Bound::Share(share) | Bound::Times(share) => share,
                Bound::Most => limit.value,
            }),
            "reached": figure.reached(),
            "facts": figure.facts,
        })
    });
    let rounds = rounds.iter().map(|round| {
        let quantities = round
            .iter()
            .map(|(quantity, value)| (format!("{quantity:?}"), json!(value)));
        serde_json::Value::Object(quantities.collect())
    });
    json!({ "figures": figures.collect::<Vec<_>>(), "rounds": rounds.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: Words = Words {
        clients: "",
        durability: "",
    };

    fn round(set: f64, echo: f64, batch: f64) -> Round {
        Round::from([
            (Quantity::Set, set),
            (Quantity::EchoSet, echo),
            (Quantity::Batch, batch),
        ])
    }

    #[test]
    fn a_ratio_is_that_of_the_median_round() {
        let rounds = [
            round(5_000.0, 20_000.0, 20_000.0),
            round(8_000.0, 20_000.0, 20_000.0),
            round(1_000.0, 2_000.0, 2_000.0),
        ];
        let figures = figures(&rounds, &WORDS);
        let [figure] = figures.as_slice() else {
            panic!("only Set was measured")
        };
        assert!((figure.measured - 5_000.0).abs() < 1e-9);
        let limit = figure.limit.as_ref().unwrap();
        assert!((limit.ratio() - 0.8).abs() < 1e-9, "0.5, 0.8 and 1.0");
        assert_eq!(figure.reached(), Some(true));
        let table = table(&figures);
        assert!(table.contains("0.80 (0.50–1.00)"), "{table}");
    }

    #[test]
    fn delay_is_an_upper_bound() {
        let late = [Round::from([(Quantity::DelayP99, 3.5)])];
        assert_eq!(figures(&late, &WORDS)[0].reached(), Some(false));
    }
}
