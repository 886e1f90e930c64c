//! Writes the lines of the report: as a table for people, as JSON for programs.

use serde_json::json;

use crate::quantity::Measurements;

use super::line::{Aim, Limit, Line, number};

/// A table with a row for each line, and its facts in a row below.
pub(crate) fn table(lines: &[Line]) -> String {
    let mut rows =
        vec![["what", "measured", "limit", "ratio", "aim", "reached"].map(str::to_owned)];
    rows.extend(lines.iter().map(row));
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
            .and_then(|n| lines.get(n))
            .map(|line| &line.facts);
        if let Some(facts) = facts.filter(|facts| !facts.is_empty()) {
            out.push_str(&format!("    {}\n", facts.join("; ")));
        }
    }
    out
}

fn row(line: &Line) -> [String; 6] {
    let mut row = [
        line.name.clone(),
        format!("{} {}", number(line.measured), line.unit),
        String::new(),
        String::new(),
        String::new(),
        String::new(),
    ];
    if let Some(limit) = &line.limit {
        let ratios = limit.ratios.iter().copied();
        let (lowest, highest) = (
            ratios.clone().fold(f64::INFINITY, f64::min),
            ratios.fold(f64::NEG_INFINITY, f64::max),
        );
        row[2] = number(limit.value);
        row[3] = format!("{:.2} ({lowest:.2}–{highest:.2})", limit.ratio());
        row[4] = match limit.aim {
            Aim::RatioAtLeast(least) => format!("≥ {} of {}", share(least), limit.text),
            Aim::RatioAtMost(most) => format!("≤ {most} × {}", limit.text),
            Aim::AtMostLimit => format!("≤ {}", limit.text),
        };
        row[5] = if line.is_aim_reached() == Some(true) {
            "yes"
        } else {
            "NO"
        }
        .to_owned();
    }
    row
}

/// A share with at most two decimals.
fn share(share: f64) -> String {
    let text = format!("{share:.2}");
    text.trim_end_matches('0').to_owned()
}

/// The lines, and what each round measured.
pub(crate) fn json(lines: &[Line], rounds: &[Measurements]) -> serde_json::Value {
    let lines = lines.iter().map(|line| {
        let limit = line.limit.as_ref();
        json!({
            "name": line.name,
            "measured": line.measured,
            "unit": line.unit,
            "limit": limit.map(|limit| limit.value),
            "limit_is": limit.map(|limit| &limit.text),
            "ratio": limit.map(Limit::ratio),
            "ratios": limit.map(|limit| &limit.ratios),
            "aim": limit.map(|limit| match limit.aim {
                Aim::RatioAtLeast(ratio) | Aim::RatioAtMost(ratio) => ratio,
                Aim::AtMostLimit => limit.value,
            }),
            "reached": line.is_aim_reached(),
            "facts": line.facts,
        })
    });
    let rounds = rounds.iter().map(|round| {
        let quantities = round
            .iter()
            .map(|(quantity, value)| (format!("{quantity:?}"), json!(value)));
        serde_json::Value::Object(quantities.collect())
    });
    json!({ "figures": lines.collect::<Vec<_>>(), "rounds": rounds.collect::<Vec<_>>() })
}
