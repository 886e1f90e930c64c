//! What a cell of a CSV file stands for, since CSV does not say.
//!
//! Decided cell by cell, so that a file needs one pass and a row means the same in any file.

use stategate_model::Value;

/// The cells that stand for null, unless the user says otherwise.
pub(crate) const NULLS: [&str; 2] = ["", "NA"];

/// The value of a cell that is not null.
///
/// Numbers are what JSON calls a number, with two exceptions that stay strings: whole numbers that a
/// double cannot hold, and those like `1E8`, which are codes more often than numbers (an exponent
/// counts after a fraction or with a sign, as programs write it: `1.5e8`, `1e+08`). Leading zeros,
/// as in `007`, and anything else are strings. `true` and `false`, so written, are booleans.
pub(crate) fn value(text: &str) -> Value {
    match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => match number(text) {
            Some(number) => Value::Number(number),
            None => Value::String(text.to_owned()),
        },
    }
}

fn number(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        None => (unsigned, None),
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        None => (mantissa, None),
        Some((whole, fraction)) => (whole, Some(fraction)),
    };
    let has_leading_zero = whole.len() > 1 && whole.starts_with('0');
    if !is_digits(whole) || has_leading_zero || fraction.is_some_and(|digits| !is_digits(digits)) {
        return None;
    }
    if let Some(exponent) = exponent {
        let digits = exponent.strip_prefix(['+', '-']);
        let is_meant = digits.is_some() || fraction.is_some();
        if !is_meant || !is_digits(digits.unwrap_or(exponent)) {
            return None;
        }
    }
    let number: f64 = text
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite())?;
    let is_whole = fraction.is_none() && exponent.is_none();
    // Short ones are held exactly; of the others, `{:.0}` prints every digit that is held.
    if is_whole && whole.len() > 15 && format!("{:.0}", number.abs()) != whole {
        return None;
    }
    // `-0` is 0 to stategate.
    Some(if number == 0.0 { 0.0 } else { number })
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_numbers() {
        for (text, number) in [
            ("0", 0.0),
            ("-0", 0.0),
            ("1", 1.0),
            ("-5", -5.0),
            ("1044", 1044.0),
            ("41.1304722", 41.130_472_2),
            ("-80.6195833", -80.619_583_3),
            ("0.5", 0.5),
            ("1.50", 1.5),
            ("1e+05", 100_000.0),
            ("1e-05", 0.000_01),
            ("2.5E3", 2500.0),
            ("9007199254740992", 9_007_199_254_740_992.0),
            ("100000000000000000000", 1e20),
        ] {
            assert_eq!(value(text), Value::Number(number), "{text}");
        }
    }

    #[test]
    fn codes_and_what_a_double_cannot_hold_stay_strings() {
        for text in [
            "04G",
            "007",
            "00",
            "-01",
            "1E8",
            "12e5",
            "+5",
            ".5",
            "5.",
            "1,000",
            "0x10",
            "1_000",
            "1e",
            "1e+",
            "1.e+5",
            "--1",
            "-",
            "e5",
            " 1",
            "1 ",
            "NaN",
            "inf",
            "Infinity",
            "1e+999",
            "9007199254740993",
            "12345678901234567890",
            "-9007199254740993",
            "٣",
            "N14228",
            "True",
            "FALSE",
            "null",
            "2013-01-01T05:00:00Z",
        ] {
            assert_eq!(value(text), Value::from(text), "{text}");
        }
    }

    #[test]
    fn booleans_are_written_as_in_json() {
        assert_eq!(value("true"), Value::Bool(true));
        assert_eq!(value("false"), Value::Bool(false));
    }
}
