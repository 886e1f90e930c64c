//! What all rounds measured, as medians over the rounds. A quantity that was not measured gives no line
//! and no fact.

use crate::{
    quantity::{GrowthQuantity, Measurements, OutageStage, Phase, PhaseQuantity, Quantity},
    scenario::{OUTAGE_CALLERS, OUTAGE_SUBSCRIBERS, PRODUCT_COUNT},
    statistics::median,
};

use super::line::{Aim, Limit, Line, number};

/// How many times slower anything may become as the log grows.
const GROWTH_AIM: f64 = 1.3;
/// How many times longer the p99 of writes may be during an outage of the broker than before it.
const OUTAGE_AIM: f64 = 1.2;

/// The name of the share of events that were received through the channel, not read from the log.
pub(super) const BY_CHANNEL: &str = "events by the channel";

/// The measurements of all rounds.
pub(super) struct Rounds<'a>(pub(super) &'a [Measurements]);

impl Rounds<'_> {
    /// A value of each round that has it.
    pub(super) fn values(&self, value: impl Fn(&Measurements) -> Option<f64>) -> Vec<f64> {
        self.0.iter().filter_map(value).collect()
    }

    /// The median of a quantity.
    pub(super) fn median(&self, quantity: Quantity) -> Option<f64> {
        let values = self.values(|round| round.get(&quantity).copied());
        (!values.is_empty()).then(|| median(values))
    }

    /// The median of a quantity, as a fact.
    pub(super) fn fact(&self, quantity: Quantity, name: &str, unit: &str) -> Option<String> {
        let value = self.median(quantity)?;
        Some(format!("{name} {} {unit}", number(value)))
    }

    /// The ratio of two quantities, as a fact.
    pub(super) fn ratio_fact(
        &self,
        quantity: Quantity,
        divisor: Quantity,
        name: &str,
    ) -> Option<String> {
        let ratios = self.values(|round| Some(round.get(&quantity)? / round.get(&divisor)?));
        (!ratios.is_empty()).then(|| format!("{:.2} × {name}", median(ratios)))
    }

    /// A rate that should be at least the share `aim` of its limit.
    pub(super) fn rate_line(
        &self,
        name: String,
        quantity: Quantity,
        text: &str,
        limit: impl Fn(&Measurements) -> Option<f64>,
        aim: f64,
        facts: Vec<Option<String>>,
    ) -> Option<Line> {
        let ratios = self.values(|round| Some(round.get(&quantity)? / limit(round)?));
        // Another scenario needed the quantity and measured it without its floors.
        if ratios.is_empty() {
            return None;
        }
        Some(Line {
            name,
            measured: self.median(quantity)?,
            unit: "/s",
            limit: Some(Limit {
                text: text.to_owned(),
                value: median(self.values(limit)),
                ratios,
                aim: Aim::RatioAtLeast(aim),
            }),
            facts: facts.into_iter().flatten().collect(),
        })
    }

    /// A quantity that should be at most a fixed value.
    pub(super) fn bounded_line(
        &self,
        name: String,
        quantity: Quantity,
        most: f64,
        unit: &'static str,
        facts: Vec<Option<String>>,
    ) -> Option<Line> {
        Some(Line {
            name,
            measured: self.median(quantity)?,
            unit,
            limit: Some(Limit {
                text: format!("{most} {unit}"),
                value: most,
                ratios: self.values(|round| Some(round.get(&quantity)? / most)),
                aim: Aim::AtMostLimit,
            }),
            facts: facts.into_iter().flatten().collect(),
        })
    }

    /// A quantity on the large log, compared with the same on the small one.
    pub(super) fn growth_line(&self, quantity: GrowthQuantity, name: &str) -> Option<Line> {
        let quantities = self.0.first().into_iter().flat_map(Measurements::keys);
        let events = quantities.filter_map(|quantity| match quantity {
            Quantity::Grown(events, _) => Some(*events),
            _ => None,
        });
        let events = events.max()?;
        let small = Quantity::Grown(u64::from(PRODUCT_COUNT), quantity);
        let small = |round: &Measurements| round.get(&small).copied();
        let large = Quantity::Grown(events, quantity);
        let (unit, aim) = match quantity {
            GrowthQuantity::SetOneP50 => ("ms", Aim::RatioAtMost(GROWTH_AIM)),
            GrowthQuantity::Set | GrowthQuantity::Get | GrowthQuantity::Search => {
                ("/s", Aim::RatioAtLeast(1.0 / GROWTH_AIM))
            }
        };
        Some(Line {
            name: format!("{name}, at {events} events"),
            measured: self.median(large)?,
            unit,
            limit: Some(Limit {
                text: format!("that at {PRODUCT_COUNT}"),
                value: median(self.values(small)),
                ratios: self.values(|round| Some(round.get(&large)? / small(round)?)),
                aim,
            }),
            facts: Vec::new(),
        })
    }

    /// The phases of `away` or `stay`, in the order they were run.
    pub(super) fn phases(&self) -> Vec<Phase> {
        let quantities = self.0.first().into_iter().flat_map(Measurements::keys);
        let phases = quantities.filter_map(|quantity| match quantity {
            Quantity::In(phase, PhaseQuantity::P99) => Some(*phase),
            _ => None,
        });
        phases.collect()
    }

    /// The latency of Sets in a phase, compared with the phase before the outages.
    pub(super) fn phase_line(&self, phase: Phase) -> Option<Line> {
        let in_phase = |quantity| Quantity::In(phase, quantity);
        let before = |round: &Measurements, quantity| {
            round.get(&Quantity::In(Phase::Before, quantity)).copied()
        };
        let ratios = |quantity| {
            self.values(|round| Some(round.get(&in_phase(quantity))? / before(round, quantity)?))
        };
        let latency = |quantity, name| {
            let value = self.fact(in_phase(quantity), name, "ms")?;
            Some(format!("{value}, {:.2} × before", median(ratios(quantity))))
        };
        let limit = Limit {
            text: "before".to_owned(),
            value: median(self.values(|round| before(round, PhaseQuantity::P99))),
            ratios: ratios(PhaseQuantity::P99),
            aim: Aim::RatioAtMost(OUTAGE_AIM),
        };
        let facts = [
            latency(PhaseQuantity::P50, "p50"),
            latency(PhaseQuantity::P999, "p99.9"),
            latency(PhaseQuantity::TypicalP99, "p99 of the median second"),
            self.fact(in_phase(PhaseQuantity::Rate), "at", "Set/s"),
            self.fact(in_phase(PhaseQuantity::ByChannel), BY_CHANNEL, "%"),
            self.fact(in_phase(PhaseQuantity::Cost), "processor time a Set", "µs"),
        ];
        // A broker that starts uses processor time that the gateway then lacks, so this phase has no aim.
        let is_returning = matches!(phase, Phase::Of(_, OutageStage::Returning));
        Some(Line {
            name: format!(
                "Set p99, {OUTAGE_CALLERS} callers, {OUTAGE_SUBSCRIBERS} subscribers: {phase}"
            ),
            measured: self.median(in_phase(PhaseQuantity::P99))?,
            unit: "ms",
            limit: (phase != Phase::Before && !is_returning).then_some(limit),
            facts: facts.into_iter().flatten().collect(),
        })
    }
}
