//! A line of the report.

use crate::statistics::median;

/// A measured figure, with the limit it is compared with and further facts.
pub(crate) struct Line {
    pub(super) name: String,
    pub(super) measured: f64,
    pub(super) unit: &'static str,
    pub(super) limit: Option<Limit>,
    pub(super) facts: Vec<String>,
}

/// What a figure is compared with.
pub(super) struct Limit {
    pub(super) text: String,
    pub(super) value: f64,
    /// The figure divided by the limit, for each round.
    pub(super) ratios: Vec<f64>,
    pub(super) aim: Aim,
}

/// What the comparison should come to.
pub(super) enum Aim {
    /// The ratio is at least this.
    RatioAtLeast(f64),
    /// The ratio is at most this.
    RatioAtMost(f64),
    /// The figure is at most the limit.
    AtMostLimit,
}

impl Line {
    /// Whether the aim is reached; `None` if there is none.
    pub(super) fn is_aim_reached(&self) -> Option<bool> {
        self.limit.as_ref().map(|limit| match limit.aim {
            Aim::RatioAtLeast(least) => limit.ratio() >= least,
            Aim::RatioAtMost(most) => limit.ratio() <= most,
            Aim::AtMostLimit => self.measured <= limit.value,
        })
    }
}

impl Limit {
    /// The median of the rounds' ratios.
    pub(super) fn ratio(&self) -> f64 {
        median(self.ratios.clone())
    }
}

/// A number with at least two significant digits.
pub(super) fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}
