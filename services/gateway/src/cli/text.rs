//! Values as a person reads them, on one line and without a way to steer the terminal.

use jiff::{Timestamp, tz::TimeZone};
use stategate_model::{Value, json};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// What is left out at the end of a text that was cut.
const CUT: char = '…';

/// A value in a table. Strings stand without quotes, unless that would read as another value: the
/// string `04G` is `04G`, the string `12` is `"12"`, the number is `12`.
pub(crate) fn value(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        other => plain(&json::canonical_value(other)),
    }
}

fn string(text: &str) -> String {
    let quoted = text.is_empty()
        || text.trim() != text
        || text.chars().any(steers)
        || text.starts_with('"')
        || json::parse(text).is_ok();
    if quoted {
        plain(&json::canonical_value(&Value::from(text)))
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

/// An event's time in a time zone, to the millisecond.
pub(crate) fn time(nanoseconds: i64, zone: &TimeZone) -> String {
    match Timestamp::from_nanosecond(nanoseconds.into()) {
        Ok(time) => time
            .to_zoned(zone.clone())
            .strftime("%Y-%m-%d %H:%M:%S%.3f")
            .to_string(),
        Err(_) => nanoseconds.to_string(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_no_needless_fraction() {
        assert_eq!(value(&Value::from(1.0)), "1");
        assert_eq!(value(&Value::from(-80.5)), "-80.5");
        assert_eq!(
            value(&Value::Array(vec![1.0.into(), Value::Null])),
            "[1,null]"
        );
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
        assert_eq!(
            time(1_357_020_000_123_456_789, &TimeZone::UTC),
            "2013-01-01 06:00:00.123"
        );
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(336_776), "336,776");
        assert_eq!(count(1_000_000), "1,000,000");
    }
}
