//! Values as a person reads them, on one line and without a way to steer the terminal.

use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// What is left out at the end of a text that was cut.
const CUT: char = '…';

/// A value in a table. Strings stand without quotes, unless that would read as another value: the
/// string `04G` is `04G`, the string `12` is `"12"`, the number is `12`.
pub(crate) fn value(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        other => plain(&other.to_string()),
    }
}

fn string(text: &str) -> String {
    let quoted = text.is_empty()
        || text.trim() != text
        || text.chars().any(steers)
        || text.starts_with('"')
        || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    if quoted {
        plain(&Value::from(text).to_string())
    } else {
        text.to_owned()
    }
}

/// The text with whatever a terminal would act on rather than show escaped.
pub(crate) fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

fn steers(c: char) -> bool {
    // Control characters, and those that reorder the text around them.
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The columns that a text takes on a terminal.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// The text, or as much of its beginning as fits.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if self::width(text) <= width {
        return text.to_owned();
    }
    let mut taken = 0;
    let mut shown = String::new();
    for c in text.chars() {
        taken += c.width().unwrap_or(0);
        if taken + 1 > width {
            break;
        }
        shown.push(c);
    }
    if width > 0 {
        shown.push(CUT);
    }
    shown
}

/// How times are shown: so that what is shown can be typed where a time is asked for (see
/// [`When`](super::when::When)).
#[derive(Debug, Clone)]
pub(crate) enum Clock {
    /// In a time zone, that of this machine.
    Zone(TimeZone),
    /// In UTC, and saying so.
    Utc,
    /// As how long before this one they were.
    Ago(Timestamp),
}

/// Digits of a second's fraction that a time may be shown with.
const FRACTIONS: [(usize, i64); 4] = [(0, 1_000_000_000), (3, 1_000_000), (6, 1_000), (9, 1)];

impl Clock {
    /// A time to the second.
    pub(crate) fn time(&self, nanoseconds: i64) -> String {
        self.show(nanoseconds, 0)
    }

    /// A time to the millisecond.
    pub(crate) fn exact_time(&self, nanoseconds: i64) -> String {
        self.show(nanoseconds, 3)
    }

    /// A time to the second, or as exact as it must be to end before the next one.
    pub(crate) fn time_before(&self, nanoseconds: i64, next: Option<i64>) -> String {
        let ends_before = |(_, unit): &(usize, i64)| {
            next.is_none_or(|next| next.div_euclid(*unit) > nanoseconds.div_euclid(*unit))
        };
        let digits = FRACTIONS.into_iter().find(ends_before);
        self.show(nanoseconds, digits.map_or(9, |(digits, _)| digits))
    }

    fn show(&self, nanoseconds: i64, digits: usize) -> String {
        let Ok(time) = Timestamp::from_nanosecond(nanoseconds.into()) else {
            return nanoseconds.to_string();
        };
        let shape = match digits {
            0 => "%Y-%m-%d %H:%M:%S".to_owned(),
            digits => format!("%Y-%m-%d %H:%M:%S%.{digits}f"),
        };
        match self {
            Self::Zone(zone) => {
                let time = time.to_zoned(zone.clone());
                // Where clocks are put back, the hour is there twice.
                let is_twice = zone.to_ambiguous_zoned(time.datetime()).is_ambiguous();
                let shape = if is_twice { shape + "%:z" } else { shape };
                time.strftime(&shape).to_string()
            }
            Self::Utc => time.strftime(&(shape + "Z")).to_string(),
            Self::Ago(now) => ago(now.as_second().saturating_sub(time.as_second())),
        }
    }
}

/// How long ago something was, in the one unit that says it best.
fn ago(seconds: i64) -> String {
    const UNITS: [(i64, &str); 5] = [
        (365 * 86_400, "year"),
        (30 * 86_400, "month"),
        (86_400, "day"),
        (3_600, "hour"),
        (60, "minute"),
    ];
    let of = |(length, name): (i64, &str)| {
        let count = seconds / length;
        let plural = if count == 1 { "" } else { "s" };
        (count > 0).then(|| format!("{count} {name}{plural} ago"))
    };
    match UNITS.into_iter().find_map(of) {
        Some(text) => text,
        None if seconds < 5 => "just now".to_owned(),
        None => format!("{seconds} seconds ago"),
    }
}

/// A method without its service: `Set`.
pub(crate) fn method(method: &str) -> String {
    plain(method.rsplit('/').next().unwrap_or(method))
}

/// A count with its thousands apart: `336,776`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A count of something: `1 entity`, `336,776 entities`.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_no_needless_fraction() {
        assert_eq!(value(&Value::from(1)), "1");
        assert_eq!(value(&Value::from(-80.5)), "-80.5");
        assert_eq!(value(&serde_json::json!([1, null])), "[1,null]");
    }

    #[test]
    fn strings_are_quoted_only_where_they_would_mislead() {
        for (text, shown) in [
            ("John F Kennedy Intl", "John F Kennedy Intl"),
            ("04G", "04G"),
            ("12", "\"12\""),
            ("null", "\"null\""),
            ("true", "\"true\""),
            ("{}", "\"{}\""),
            ("", "\"\""),
            (" x", "\" x\""),
            ("a\nb", "\"a\\nb\""),
            ("\u{1b}[31m", "\"\\u001b[31m\""),
            ("\u{202e}x", "\"\\u{202e}x\""),
        ] {
            assert_eq!(value(&Value::from(text)), shown, "{text:?}");
        }
    }

    #[test]
    fn a_cut_text_fits() {
        assert_eq!(cut("airport", 7), "airport");
        assert_eq!(cut("airport", 4), "air…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("airport", 0), "");
        for width in 0..10 {
            assert!(self::width(&cut("a日b本c語", width)) <= width);
        }
    }

    #[test]
    fn times_and_counts_are_readable() {
        let clock = Clock::Zone(TimeZone::UTC);
        assert_eq!(
            clock.exact_time(1_357_020_000_123_456_789),
            "2013-01-01 06:00:00.123"
        );
        assert_eq!(clock.time(1_357_020_000_123_456_789), "2013-01-01 06:00:00");
        assert_eq!(
            Clock::Utc.time(1_357_020_000_123_456_789),
            "2013-01-01 06:00:00Z"
        );
        for (later, shown) in [
            (None, "2013-01-01 06:00:00"),
            (Some(1_000_000_000), "2013-01-01 06:00:00"),
            (Some(900_000_000), "2013-01-01 06:00:00"),
            (Some(800_000_000), "2013-01-01 06:00:00.123"),
            (Some(100_000), "2013-01-01 06:00:00.123456"),
            (Some(1), "2013-01-01 06:00:00.123456789"),
        ] {
            let time = 1_357_020_000_123_456_789;
            let next = later.map(|later| time + later);
            assert_eq!(clock.time_before(time, next), shown, "{later:?}");
        }
        let now = Timestamp::from_second(1_357_020_000).unwrap();
        for (before, shown) in [
            (-3, "just now"),
            (4, "just now"),
            (59, "59 seconds ago"),
            (60, "1 minute ago"),
            (7_200, "2 hours ago"),
            (86_400 * 3, "3 days ago"),
            (86_400 * 800, "2 years ago"),
        ] {
            let time = (1_357_020_000 - before) * 1_000_000_000;
            assert_eq!(Clock::Ago(now).time(time), shown);
        }
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(336_776), "336,776");
        assert_eq!(count(1_000_000), "1,000,000");
        assert_eq!(counted(1, "entity", "entities"), "1 entity");
        assert_eq!(counted(2_000, "entity", "entities"), "2,000 entities");
    }
}
