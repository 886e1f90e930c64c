//! How long a call may take: `grpc-timeout`.

use std::time::Duration;

use crate::methods::Shape;
use http::HeaderMap;
use stategate_model::{Invalid, limits};

const HEADER: &str = "grpc-timeout";
/// What a longer timeout of a stream is taken for, so that adding it to now cannot overflow.
const LONGEST_STREAM: Duration = Duration::from_secs(365 * 24 * 3600);

/// The timeout a client asked for. That of a call with one answer counts up to [`limits::CALL_TIME`].
pub(super) fn timeout(headers: &HeaderMap, shape: Shape) -> Result<Option<Duration>, Invalid> {
    let Some(value) = headers.get(HEADER) else {
        return Ok(None);
    };
    let parsed = value.to_str().ok().and_then(parse).ok_or_else(|| {
        Invalid::new(
            HEADER,
            "is not 1 to 8 digits followed by one of H, M, S, m, u, n",
        )
    })?;
    Ok(Some(parsed.min(match shape {
        Shape::Unary => limits::CALL_TIME,
        Shape::Stream | Shape::Infrastructure | Shape::Unknown => LONGEST_STREAM,
    })))
}

fn parse(value: &str) -> Option<Duration> {
    let unit = value.chars().next_back()?;
    let digits = value.strip_suffix(unit)?;
    let is_number = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = is_number.then(|| digits.parse().ok())??;
    Some(match unit {
        'H' => Duration::from_secs(number * 3600),
        'M' => Duration::from_secs(number * 60),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_says() {
        for (text, expected) in [
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("4S", Some(Duration::from_secs(4))),
            ("10m", Some(Duration::from_millis(10))),
            ("7u", Some(Duration::from_micros(7))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("", None),
            ("S", None),
            ("5", None),
            ("+5S", None),
            ("123456789S", None),
            ("5s", None),
            ("5 S", None),
            ("5é", None),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
        let headers = HeaderMap::from_iter([(
            http::HeaderName::from_static(HEADER),
            http::HeaderValue::from_static("99999999H"),
        )]);
        let longest = |shape| timeout(&headers, shape);
        assert_eq!(longest(Shape::Unary), Ok(Some(limits::CALL_TIME)));
        assert_eq!(longest(Shape::Stream), Ok(Some(LONGEST_STREAM)));
    }
}
