//! Points in time and lengths of time as people write them.

use std::{fmt, str::FromStr, time::Duration};

use jiff::{SignedDuration, Span, Timestamp, Zoned};

/// A point in time: RFC 3339, or how long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct When(Timestamp);

impl When {
    /// Nanoseconds since the Unix epoch.
    pub(crate) fn nanoseconds(self) -> i64 {
        let exact = self.0.as_nanosecond();
        // Years that an int64 of nanoseconds does not hold are as good as its ends.
        i64::try_from(exact).unwrap_or(if exact < 0 { i64::MIN } else { i64::MAX })
    }

    fn parse(text: &str, now: &Zoned) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(time) = text.parse() {
            return Ok(Self(time));
        }
        let unknown = || {
            format!(
                "`{text}` is not a time; write 2013-01-01T05:00:00Z (with Z or an offset), or how long ago: 10m, 2h, 1d"
            )
        };
        let length = text.strip_suffix("ago").unwrap_or(text).trim();
        // Without this, `-10m` would be a time to come.
        if !length.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(unknown());
        }
        let span: Span = length.parse().map_err(|_| unknown())?;
        let then = now.checked_sub(span).map_err(|_| unknown())?;
        Ok(Self(then.timestamp()))
    }
}

/// To the second, with its zone.
impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}", self.0)
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

    fn at(text: &str) -> Result<String, String> {
        let now = "2013-01-02T12:00:00Z".parse::<Timestamp>().unwrap();
        let now = now.to_zoned(jiff::tz::TimeZone::UTC);
        When::parse(text, &now).map(|when| when.0.to_string())
    }

    #[test]
    fn times_are_absolute_or_ago() {
        for (text, time) in [
            ("2013-01-01T05:00:00Z", "2013-01-01T05:00:00Z"),
            ("2013-01-01T05:00:00.5+02:00", "2013-01-01T03:00:00.5Z"),
            ("2013-01-01 05:00:00Z", "2013-01-01T05:00:00Z"),
            ("10m", "2013-01-02T11:50:00Z"),
            ("10m ago", "2013-01-02T11:50:00Z"),
            ("1h30m", "2013-01-02T10:30:00Z"),
            ("2h", "2013-01-02T10:00:00Z"),
            ("1d", "2013-01-01T12:00:00Z"),
            ("30s", "2013-01-02T11:59:30Z"),
        ] {
            assert_eq!(at(text).as_deref(), Ok(time), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "yesterday",
            "-10m",
            "10",
            "10 parsecs",
            "2013-01-01T05:00:00",
            "ago",
        ] {
            assert!(at(text).is_err(), "{text}: {:?}", at(text));
        }
    }

    #[test]
    fn nanoseconds_are_exact() {
        let when: When = "1970-01-01T00:00:01.000000001Z".parse().unwrap();
        assert_eq!(when.nanoseconds(), 1_000_000_001);
        let when: When = "9999-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(when.nanoseconds(), i64::MAX);
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
