//! Points in time and lengths of time as people write them, and as commands show them.
//!
//! A time stands for all of the unit that it is written to: `15:47:44` for that second, `15:47:44.123` for
//! that millisecond, `2026-01-31` for that day. What is read *as it was* then is read as it was at the end
//! of that unit, and a range is from the beginning of its first to the end of its last. So a time that a
//! command shows, typed back, means what it was shown for.

use std::{fmt, str::FromStr, time::Duration};

use jiff::{
    SignedDuration, Span, SpanRelativeTo, Timestamp, Zoned,
    civil::{Date, DateTime, Time},
    fmt::temporal::Pieces,
    tz::{AmbiguousOffset, Offset, TimeZone},
};

/// The forms that a time is taken in.
const FORMS: &str = "write a date (2026-01-31), a time of this machine's zone (2026-01-31 15:47:44, 15:47 or \
    15:47:44.123) or of another (2026-01-31T15:47:44Z, 2026-01-31 15:47:44+01:00, 2026-01-31 15:47:44 \
    Europe/Berlin), nanoseconds as --ndjson prints them, now, or how long ago (10m, 2h, 1d, 2 hours ago)";

const SECOND: i128 = 1_000_000_000;

/// A point in time, as exact as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct When {
    first: i64,
    last: i64,
    text: String,
}

impl When {
    /// Where it begins, in nanoseconds since the Unix epoch: for what is asked from there on.
    pub(crate) fn first(&self) -> i64 {
        self.first
    }

    /// Where it ends, in nanoseconds since the Unix epoch: for what is asked up to there, and as it was
    /// there.
    pub(crate) fn last(&self) -> i64 {
        self.last
    }

    fn parse(text: &str, now: &Zoned) -> Result<Self, String> {
        // As JSON has them.
        let text = text.trim().trim_matches('"').trim();
        let (first, last) = span(text, now)?;
        // Years that an int64 of nanoseconds does not hold are as good as its ends.
        let held = |exact: i128| {
            i64::try_from(exact).unwrap_or(if exact < 0 { i64::MIN } else { i64::MAX })
        };
        Ok(Self {
            first: held(first),
            last: held(last),
            text: text.to_owned(),
        })
    }
}

/// The first and the last nanosecond of a time.
fn span(text: &str, now: &Zoned) -> Result<(i128, i128), String> {
    let unknown = || format!("`{text}` is not a time; {FORMS}");
    if matches!(text, "now" | "just now") {
        let now = now.timestamp().as_nanosecond();
        return Ok((now, now));
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return counted(text).ok_or_else(|| {
            format!("`{text}` is not a time: nanoseconds have 17 to 19 digits, as --ndjson prints them; {FORMS}")
        });
    }
    if let Some(time) = written(text, now) {
        return time;
    }
    let ago = ago(text).ok_or_else(unknown)?;
    let then = now.timestamp().checked_sub(ago).map_err(|_| unknown())?;
    Ok((then.as_nanosecond(), then.as_nanosecond()))
}

/// Nanoseconds. Fewer digits would be seconds, milli- or microseconds, which nothing here prints.
fn counted(digits: &str) -> Option<(i128, i128)> {
    let exact: i128 = digits.parse().ok()?;
    (17..=19).contains(&digits.len()).then_some((exact, exact))
}

/// A length of time before now, in units of one length: those that `--relative` shows.
fn ago(text: &str) -> Option<SignedDuration> {
    let length = text.strip_suffix("ago").unwrap_or(text).trim();
    // Without this, `-10m` would be a time to come.
    if !length.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let span: Span = length.parse().ok()?;
    let days = i64::from(span.get_years()) * 365 + i64::from(span.get_months()) * 30;
    let rest = span.try_years(0).ok()?.try_months(0).ok()?;
    let rest = rest.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    rest.checked_add(SignedDuration::from_secs(days.checked_mul(86_400)?))
}

/// A time of some day, with its zone or in this machine's; `None` for what is none.
fn written(text: &str, now: &Zoned) -> Option<Result<(i128, i128), String>> {
    let unit = unit(text);
    if let Ok(day) = text.parse::<Date>()
        && unit.is_none()
    {
        return Some(whole_day(day, now.time_zone()));
    }
    let unit = unit?;
    let exact = |time: Timestamp| {
        let first = time.as_nanosecond();
        Some(Ok((first, first + unit - 1)))
    };
    if let Ok(time) = text.parse::<Zoned>() {
        return exact(time.timestamp());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return exact(time);
    }
    if let Ok(time) = text.parse::<DateTime>() {
        return Some(in_zone(text, time, unit, now.time_zone()));
    }
    if let Some((time, zone)) = text.rsplit_once(' ')
        && let Some(zone) = zone_of(zone)
        && let Ok(time) = time.parse::<DateTime>()
    {
        return Some(in_zone(text, time, unit, &zone));
    }
    // The time alone is one of today.
    let time: Time = text.parse().ok()?;
    Some(in_zone(
        text,
        now.date().to_datetime(time),
        unit,
        now.time_zone(),
    ))
}

/// The unit that a time is written to, in nanoseconds; `None` for a day.
fn unit(text: &str) -> Option<i128> {
    let time = match text.split_once(['T', 't', ' ']) {
        Some((_, time)) => time,
        None if text.contains(':') => text,
        None => return None,
    };
    let end = time.find(|c: char| !(c.is_ascii_digit() || matches!(c, ':' | '.' | ',')));
    let time = time.get(..end.unwrap_or(time.len()))?;
    let (whole, fraction) = time.split_once(['.', ',']).unwrap_or((time, ""));
    let places = u32::try_from(fraction.len())
        .ok()
        .filter(|places| *places <= 9)?;
    let digits = whole.bytes().filter(u8::is_ascii_digit).count();
    match (digits, places) {
        (6, places) => Some(SECOND / 10_i128.pow(places)),
        (4, 0) => Some(60 * SECOND),
        (2, 0) => Some(3_600 * SECOND),
        _ => None,
    }
}

fn zone_of(name: &str) -> Option<TimeZone> {
    if name.eq_ignore_ascii_case("utc") || name.eq_ignore_ascii_case("z") {
        return Some(TimeZone::UTC);
    }
    if name.starts_with(['+', '-']) {
        // As a part of a time, since an offset alone is nothing that can be parsed.
        let time = format!("2026-01-31T00:00:00{name}");
        let offset = Pieces::parse(&time).ok()?.to_numeric_offset();
        return offset.map(Offset::to_time_zone);
    }
    TimeZone::get(name).ok()
}

fn whole_day(day: Date, zone: &TimeZone) -> Result<(i128, i128), String> {
    let start = |day: Date| {
        let start = day.to_zoned(zone.clone());
        start.map(|start| start.timestamp().as_nanosecond())
    };
    let next = day.tomorrow().and_then(start);
    match (start(day), next) {
        (Ok(first), Ok(next)) => Ok((first, next - 1)),
        _ => Err(format!("`{day}` is beyond the times there are")),
    }
}

/// A time on the clocks of a zone. Where clocks are put back, some times are there twice; where they are
/// put forward, some are not there.
fn in_zone(
    text: &str,
    time: DateTime,
    unit: i128,
    zone: &TimeZone,
) -> Result<(i128, i128), String> {
    let (earlier, later) = match zone.to_ambiguous_zoned(time).offset() {
        AmbiguousOffset::Unambiguous { offset } => (offset, offset),
        AmbiguousOffset::Fold { before, after } => (before, after),
        AmbiguousOffset::Gap { before, after } => {
            return Err(format!(
                "`{text}` is no time of that zone: clocks were put forward then, from {before} to {after}; name an offset, as in {time}{after}"
            ));
        }
    };
    let at = |offset: Offset| {
        let exact = offset.to_timestamp(time);
        exact.map(Timestamp::as_nanosecond)
    };
    match (at(earlier), at(later)) {
        (Ok(first), Ok(last)) => Ok((first, last + unit - 1)),
        _ => Err(format!("`{text}` is beyond the times there are")),
    }
}

/// As it was written.
impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text, &Zoned::now())
    }
}

/// Parses a length of time: `10s`, `500ms`, `1m30s`, or a plain number of seconds.
pub(crate) fn length(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let wrong = || format!("`{text}` is not a length of time above zero; write 10s, 500ms or 2m");
    let length = match text.parse::<u32>() {
        Ok(seconds) => Duration::from_secs(seconds.into()),
        Err(_) => text
            .parse::<SignedDuration>()
            .ok()
            .and_then(|length| Duration::try_from(length).ok())
            .ok_or_else(wrong)?,
    };
    if length.is_zero() {
        return Err(wrong());
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_berlin(text: &str) -> Result<(String, String), String> {
        // After clocks were put forward in the night before.
        let now: Zoned = "2026-03-29T12:00:00+02:00[Europe/Berlin]".parse().unwrap();
        let when = When::parse(text, &now)?;
        let shown = |exact: i64| {
            Timestamp::from_nanosecond(exact.into())
                .unwrap()
                .to_string()
        };
        Ok((shown(when.first), shown(when.last)))
    }

    #[test]
    fn a_time_is_all_of_the_unit_it_is_written_to() {
        for (text, first, last) in [
            (
                "2026-01-31T15:47:44Z",
                "2026-01-31T15:47:44Z",
                "2026-01-31T15:47:44.999999999Z",
            ),
            (
                "2026-01-31 15:47:44Z",
                "2026-01-31T15:47:44Z",
                "2026-01-31T15:47:44.999999999Z",
            ),
            (
                "2026-01-31 15:47:44 UTC",
                "2026-01-31T15:47:44Z",
                "2026-01-31T15:47:44.999999999Z",
            ),
            (
                "2026-01-31T15:47:44.5+02:00",
                "2026-01-31T13:47:44.5Z",
                "2026-01-31T13:47:44.599999999Z",
            ),
            (
                "2026-01-31 15:47:44 +02:00",
                "2026-01-31T13:47:44Z",
                "2026-01-31T13:47:44.999999999Z",
            ),
            (
                "2026-01-31 15:47:44",
                "2026-01-31T14:47:44Z",
                "2026-01-31T14:47:44.999999999Z",
            ),
            (
                "2026-01-31T15:47:44",
                "2026-01-31T14:47:44Z",
                "2026-01-31T14:47:44.999999999Z",
            ),
            (
                "2026-01-31 15:47:44.123",
                "2026-01-31T14:47:44.123Z",
                "2026-01-31T14:47:44.123999999Z",
            ),
            (
                "2026-01-31 15:47:44.123456789",
                "2026-01-31T14:47:44.123456789Z",
                "2026-01-31T14:47:44.123456789Z",
            ),
            (
                "2026-01-31 15:47",
                "2026-01-31T14:47:00Z",
                "2026-01-31T14:47:59.999999999Z",
            ),
            (
                "2026-01-31 15:47:44 Asia/Tokyo",
                "2026-01-31T06:47:44Z",
                "2026-01-31T06:47:44.999999999Z",
            ),
            (
                "2026-01-31T15:47:44+09:00[Asia/Tokyo]",
                "2026-01-31T06:47:44Z",
                "2026-01-31T06:47:44.999999999Z",
            ),
            (
                "2026-01-31",
                "2026-01-30T23:00:00Z",
                "2026-01-31T22:59:59.999999999Z",
            ),
            (
                "15:47:44",
                "2026-03-29T13:47:44Z",
                "2026-03-29T13:47:44.999999999Z",
            ),
            // A day of 23 hours.
            (
                "2026-03-29",
                "2026-03-28T23:00:00Z",
                "2026-03-29T21:59:59.999999999Z",
            ),
            (
                "1769870864123456789",
                "2026-01-31T14:47:44.123456789Z",
                "2026-01-31T14:47:44.123456789Z",
            ),
            (
                "\"1769870864123456789\"",
                "2026-01-31T14:47:44.123456789Z",
                "2026-01-31T14:47:44.123456789Z",
            ),
            ("now", "2026-03-29T10:00:00Z", "2026-03-29T10:00:00Z"),
        ] {
            let expected = Ok((first.to_owned(), last.to_owned()));
            assert_eq!(in_berlin(text), expected, "{text}");
        }
    }

    #[test]
    fn clocks_that_are_put_back_show_a_time_twice() {
        assert_eq!(
            in_berlin("2025-10-26 02:30:00"),
            Ok((
                "2025-10-26T00:30:00Z".to_owned(),
                "2025-10-26T01:30:00.999999999Z".to_owned()
            ))
        );
        let one = in_berlin("2025-10-26 02:30:00+02:00").unwrap();
        assert_eq!(one.1, "2025-10-26T00:30:00.999999999Z");
        // And those that are put forward leave some out.
        let gap = in_berlin("2026-03-29 02:30:00").unwrap_err();
        assert!(gap.contains("put forward") && gap.contains("+02"), "{gap}");
        assert!(in_berlin(gap.rsplit(' ').next().unwrap()).is_ok(), "{gap}");
    }

    /// What is shown is typed back: it is the time that it was shown for.
    #[test]
    fn what_a_clock_shows_is_understood() {
        use crate::cli::text::Clock;

        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let now = Timestamp::from_second(1_793_600_000).unwrap();
        // Every 17 minutes, across both changes of the clocks.
        for step in 0..31_000_i64 {
            let time = 1_761_350_400_123_456_789 + step * 17 * 60 * 1_000_000_000;
            for (clock, zone) in [
                (Clock::Zone(berlin.clone()), &berlin),
                (Clock::Utc, &berlin),
            ] {
                let now = now.to_zoned(zone.clone());
                for shown in [
                    clock.time(time),
                    clock.exact_time(time),
                    clock.time_before(time, Some(time + 1)),
                    time.to_string(),
                ] {
                    let when = When::parse(&shown, &now).unwrap();
                    assert!(when.first <= time && time <= when.last, "{shown}: {when:?}");
                    assert!(when.last - when.first < 1_000_000_000, "{shown}: {when:?}");
                }
            }
            // How long ago is never before it.
            let later = now.to_zoned(TimeZone::UTC);
            let shown = Clock::Ago(now).time(time);
            let when = When::parse(&shown, &later).unwrap();
            assert!(time / 1_000_000_000 <= when.last / 1_000_000_000, "{shown}");
        }
    }

    #[test]
    fn times_are_ago() {
        for (text, time) in [
            ("10m", "2026-03-29T09:50:00Z"),
            ("10m ago", "2026-03-29T09:50:00Z"),
            ("1h30m", "2026-03-29T08:30:00Z"),
            ("2h", "2026-03-29T08:00:00Z"),
            ("2 hours ago", "2026-03-29T08:00:00Z"),
            ("1d", "2026-03-28T10:00:00Z"),
            ("1 month ago", "2026-02-27T10:00:00Z"),
            ("30s", "2026-03-29T09:59:30Z"),
            ("just now", "2026-03-29T10:00:00Z"),
        ] {
            let expected = Ok((time.to_owned(), time.to_owned()));
            assert_eq!(in_berlin(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_and_says_what_is() {
        for text in [
            "",
            "yesterday",
            "-10m",
            "10",
            "1769870864",
            "1769870864123",
            "17698708641234567890",
            "10 parsecs",
            "2026-02-30",
            "2026-01-31T25:00:00Z",
            "2026-01-31 15:47:44 Nowhere/Else",
            "ago",
        ] {
            let refused = in_berlin(text).unwrap_err();
            for form in ["2026-01-31 15:47:44", "Z", "nanoseconds", "2h"] {
                assert!(refused.contains(form), "{text}: {refused}");
            }
        }
    }

    #[test]
    fn nanoseconds_are_exact() {
        let when: When = "1970-01-01T00:00:01.000000001Z".parse().unwrap();
        assert_eq!((when.first(), when.last()), (1_000_000_001, 1_000_000_001));
        let when: When = "9999-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(when.last(), i64::MAX);
    }

    #[test]
    fn lengths_have_units_or_are_seconds() {
        assert_eq!(length("10"), Ok(Duration::from_secs(10)));
        assert_eq!(length("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(length("1m30s"), Ok(Duration::from_secs(90)));
        for text in ["", "0", "0s", "-1s", "soon"] {
            assert!(length(text).is_err(), "{text}");
        }
    }
}
