//! What is different between two states of an entity: for `history` and `diff`.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    failure::Failure,
    output::{Output, Screen},
    text,
};

/// The widest that paths stand before what changed there.
const PATHS: usize = 28;

/// A value that came, went or became another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Change {
    /// Where, as filters name it.
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Value>,
}

/// What makes one state of the other. Objects are compared member by member, everything else whole.
/// An entity that does not exist has no values.
pub(crate) fn changes(
    before: Option<&Map<String, Value>>,
    after: Option<&Map<String, Value>>,
) -> Vec<Change> {
    let none = Map::new();
    let mut changes = Vec::new();
    compare(
        "",
        before.unwrap_or(&none),
        after.unwrap_or(&none),
        &mut changes,
    );
    changes
}

fn compare(
    at: &str,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    changes: &mut Vec<Change>,
) {
    let added = after.keys().filter(|name| !before.contains_key(*name));
    let mut names: Vec<&String> = before.keys().chain(added).collect();
    names.sort_unstable();
    for name in names {
        let step = step(name);
        let path = if at.is_empty() {
            step
        } else {
            format!("{at}.{step}")
        };
        match (before.get(name), after.get(name)) {
            (Some(a), Some(b)) if a == b => {}
            (Some(Value::Object(a)), Some(Value::Object(b))) => compare(&path, a, b, changes),
            (a, b) => changes.push(Change {
                path,
                before: a.cloned(),
                after: b.cloned(),
            }),
        }
    }
}

/// A member's name as a path has it.
fn step(name: &str) -> String {
    name.replace('\\', r"\\")
        .replace('.', r"\.")
        .replace('$', r"\$")
}

/// Prints changes, a line each.
pub(crate) fn print(
    changes: &[Change],
    output: &mut Output,
    screen: &Screen,
) -> Result<(), Failure> {
    let paths: Vec<_> = changes
        .iter()
        .map(|change| text::plain(&change.path))
        .collect();
    let widest = paths.iter().map(|path| text::width(path)).max();
    let column = widest.unwrap_or(0).min(PATHS);
    for (change, path) in changes.iter().zip(&paths) {
        output.line(&line(change, path, column, screen))?;
    }
    Ok(())
}

fn line(change: &Change, path: &str, column: usize, screen: &Screen) -> String {
    let padding = " ".repeat(column.saturating_sub(text::width(path)));
    let room = screen
        .width
        .saturating_sub("  + ".len() + text::width(path).max(column) + 2);
    let head = format!("{path}{padding}");
    match (&change.before, &change.after) {
        (None, Some(after)) => {
            let after = text::cut(&text::value(after), room);
            format!("  {}", screen.paint.green(&format!("+ {head}  {after}")))
        }
        (Some(before), None) => {
            let before = text::cut(&text::value(before), room);
            format!("  {}", screen.paint.red(&format!("- {head}  {before}")))
        }
        (before, after) => {
            // Both have to be seen, or the line says nothing.
            let half = room.saturating_sub(3) / 2;
            let shown =
                |value: &Option<Value>| value.as_ref().map_or_else(String::new, text::value);
            let (before, after) = (shown(before), shown(after));
            let (left, right) = (text::width(&before), text::width(&after));
            let left = left.min(half.max(room.saturating_sub(3 + right)));
            let before = text::cut(&before, left);
            let right = room.saturating_sub(3 + text::width(&before));
            let after = text::cut(&after, right);
            format!(
                "  {} {} {} {}",
                screen.paint.yellow(&format!("~ {head} ")),
                screen.paint.red(&before),
                screen.paint.faint("→"),
                screen.paint.green(&after)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use serde_json::json;

    use super::*;
    use crate::cli::{output::Paint, text::Clock};

    fn of(before: &Value, after: &Value) -> Vec<Change> {
        changes(before.as_object(), after.as_object())
    }

    fn lines(before: &Value, after: &Value, width: usize) -> Vec<String> {
        let screen = Screen {
            width,
            paint: Paint::Nothing,
            clock: Clock::Zone(TimeZone::UTC),
        };
        let changes = of(before, after);
        let widest = changes.iter().map(|change| change.path.len()).max();
        changes
            .iter()
            .map(|change| line(change, &change.path, widest.unwrap_or(0), &screen))
            .collect()
    }

    #[test]
    fn only_what_differs_is_told_and_where() {
        let before = json!({"alt": 13, "busy": true, "at": {"lat": 1, "lon": 2}, "tags": [1]});
        let after = json!({"alt": 14, "at": {"lat": 1, "lon": 3}, "tags": [1, 2], "a.b": null});
        assert_eq!(
            lines(&before, &after, 80),
            [
                r"  + a\.b    null",
                "  ~ alt     13 → 14",
                "  ~ at.lon  2 → 3",
                "  - busy    true",
                "  ~ tags    [1] → [1,2]",
            ]
        );
        assert!(of(&before, &before).is_empty());
        assert_eq!(changes(None, before.as_object()).len(), 4);
        assert_eq!(changes(before.as_object(), None).len(), 4);
    }

    #[test]
    fn both_sides_are_seen_and_no_line_is_too_wide() {
        let before = json!({"name": "x".repeat(200)});
        let after = json!({"name": "y".repeat(200)});
        for width in 20..120 {
            for line in lines(&before, &after, width) {
                assert!(text::width(&line) <= width, "{width}: {line}");
                assert!(line.contains('x') && line.contains('y'), "{line}");
            }
        }
        let short = lines(&before, &json!({"name": "y"}), 40);
        assert_eq!(short, [format!("  ~ name  {}… → y", "x".repeat(25))]);
    }
}
