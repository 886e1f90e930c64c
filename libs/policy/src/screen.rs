//! What a policy may not use, because a call could then cost any amount of time or memory, or because
//! it would not do what it seems to.
//!
//! The engine counts instructions and looks at the clock between them; a function that is one
//! instruction and makes as much as its argument says is out of its reach. Such functions are
//! accepted where the argument is a number in the source, and refused where it may come from a caller.

use crate::{patterns, tokens::Token};

/// Most elements of a range in a policy's source.
const RANGE: i64 = 10_000;
/// Most bits that a number is shifted by.
const SHIFT: i64 = 1_024;
/// Most digits of a width in a format.
const WIDTH_DIGITS: usize = 3;

/// A use of something a policy may not use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("uses {name}: {why}")]
pub(super) struct Refusal {
    pub(super) name: &'static str,
    pub(super) why: &'static str,
}

/// Functions that look for every match start again after each, and may each time read on to the end.
const SQUARE: &str =
    "its cost may grow with the square of the text, which a caller sends; use regex.match";

/// Functions that reach outside or are not there (`not http.send(…)` would always be true), and those
/// whose cost nothing in the source bounds.
const NEVER: &[(&str, &str)] = &[
    (
        "http.send",
        "a policy reaches nothing outside; put what it needs into the data document",
    ),
    ("opa.runtime", "there is no OPA around the policy"),
    (
        "net.lookup_ip_addr",
        "a policy reaches nothing outside; put what it needs into the data document",
    ),
    (
        "net.cidr_expand",
        "its result may have any size; use net.cidr_contains",
    ),
    ("rand.intn", "a decision must not be drawn"),
    ("regex.find_n", SQUARE),
    ("regex.find_all_string_submatch_n", SQUARE),
    ("regex.replace", SQUARE),
    ("regex.split", SQUARE),
    (
        "print",
        "what it prints of a call would be in the log; try a policy on an input instead",
    ),
];

const RANGE_WHY: &str = "its length must be a number in the source, of at most 10000 elements, for a caller could ask for any";
const SHIFT_WHY: &str = "the number of bits must be a number in the source, of at most 1024, for a caller could ask for any";
const UNITS_WHY: &str = "what it reads must be a string in the source, for a caller could write a number of any length in few characters";
const FORMAT_WHY: &str = "the format must be a string in the source with widths below 1000, for a caller could ask for any";

/// Refuses a source that uses what no policy may use.
pub(super) fn screen(tokens: &[Token<'_>]) -> Result<(), Refusal> {
    match refusals(tokens).into_iter().next() {
        Some(refusal) => Err(refusal),
        None => Ok(()),
    }
}

/// Everything that a source uses and no policy may use, each once.
pub(super) fn refusals(tokens: &[Token<'_>]) -> Vec<Refusal> {
    let mut found = Vec::new();
    let mut refuse = |refusal: Refusal| {
        if !found.contains(&refusal) {
            found.push(refusal);
        }
    };
    if patterns::has_object_pattern(tokens) {
        refuse(Refusal {
            name: "object patterns",
            why: "the engine lets them match objects with further members, which OPA does not; take the members by name",
        });
    }
    for (at, path) in calls(tokens) {
        let arguments = arguments(&tokens[at..]);
        let never = NEVER.iter().find(|(name, _)| *name == path);
        if let Some((name, why)) = never
            && (arguments.is_some() || name.contains('.'))
        {
            refuse(Refusal { name, why });
            continue;
        }
        let (name, why, fine) = match path.as_str() {
            "numbers.range" => ("numbers.range", RANGE_WHY, is_range(&arguments)),
            "numbers.range_step" => ("numbers.range_step", RANGE_WHY, is_range(&arguments)),
            "bits.lsh" => ("bits.lsh", SHIFT_WHY, is_shift(&arguments)),
            "units.parse" => ("units.parse", UNITS_WHY, is_text(&arguments)),
            "units.parse_bytes" => ("units.parse_bytes", UNITS_WHY, is_text(&arguments)),
            "sprintf" => ("sprintf", FORMAT_WHY, is_format(&arguments)),
            _ => continue,
        };
        if !fine {
            refuse(Refusal { name, why });
        }
    }
    found
}

/// The functions that [`screen`] looks for, by name: for comparing with what was compiled.
pub(super) fn is_screened(name: &str) -> bool {
    NEVER.iter().any(|(never, _)| *never == name)
        || matches!(
            name,
            "numbers.range"
                | "numbers.range_step"
                | "bits.lsh"
                | "sprintf"
                | "units.parse"
                | "units.parse_bytes"
        )
}

/// Whether a source uses a function by this name.
pub(super) fn uses(tokens: &[Token<'_>], name: &str) -> bool {
    calls(tokens).any(|(_, path)| path == name)
}

/// Every path of names in the source (`a.b.c`), and where it ends.
fn calls<'t>(tokens: &'t [Token<'_>]) -> impl Iterator<Item = (usize, String)> + 't {
    tokens.iter().enumerate().filter_map(|(at, token)| {
        let Token::Word(first) = token else {
            return None;
        };
        if at > 0 && tokens.get(at - 1) == Some(&Token::Mark('.')) {
            return None;
        }
        let mut path = (*first).to_owned();
        let mut end = at + 1;
        loop {
            match tokens.get(end..) {
                Some([Token::Mark('.'), Token::Word(next), ..]) => {
                    path.push('.');
                    path.push_str(next);
                    end += 2;
                }
                Some([Token::Mark('['), Token::Text(next), Token::Mark(']'), ..]) => {
                    path.push('.');
                    path.push_str(next);
                    end += 3;
                }
                _ => return Some((end, path)),
            }
        }
    })
}

/// The arguments that follow, each as its tokens; `None` if it is not called.
fn arguments<'t, 's>(tokens: &'t [Token<'s>]) -> Option<Vec<&'t [Token<'s>]>> {
    if tokens.first() != Some(&Token::Mark('(')) {
        return None;
    }
    let mut arguments = Vec::new();
    let mut depth = 0_usize;
    let mut from = 1;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Mark('(' | '[' | '{') => depth += 1,
            Token::Mark(')' | ']' | '}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    arguments.push(&tokens[from..at]);
                    return Some(arguments);
                }
            }
            Token::Mark(',') if depth == 1 => {
                arguments.push(&tokens[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    None
}

fn integer(tokens: &[Token<'_>]) -> Option<i64> {
    match tokens {
        [Token::Word(digits)] => digits.parse().ok(),
        [Token::Mark('-'), Token::Word(digits)] => digits.parse::<i64>().ok()?.checked_neg(),
        _ => None,
    }
}

fn is_range(arguments: &Option<Vec<&[Token<'_>]>>) -> bool {
    let Some(arguments) = arguments else {
        return false;
    };
    match arguments.as_slice() {
        [from, to, ..] => match (integer(from), integer(to)) {
            (Some(from), Some(to)) => from
                .checked_sub(to)
                .and_then(i64::checked_abs)
                .is_some_and(|length| length < RANGE),
            _ => false,
        },
        _ => false,
    }
}

fn is_shift(arguments: &Option<Vec<&[Token<'_>]>>) -> bool {
    let Some(arguments) = arguments else {
        return false;
    };
    match arguments.as_slice() {
        [_, bits, ..] => integer(bits).is_some_and(|bits| (0..=SHIFT).contains(&bits)),
        _ => false,
    }
}

fn is_text(arguments: &Option<Vec<&[Token<'_>]>>) -> bool {
    let Some(arguments) = arguments else {
        return false;
    };
    matches!(arguments.first(), Some([Token::Text(_)]))
}

fn is_format(arguments: &Option<Vec<&[Token<'_>]>>) -> bool {
    let Some(arguments) = arguments else {
        return false;
    };
    match arguments.first() {
        Some([Token::Text(format)]) => format.split('%').skip(1).all(|verb| {
            let width = verb.trim_start_matches(|c: char| !c.is_numeric() && !c.is_alphabetic());
            let digits = width.chars().take_while(|c| c.is_numeric() || *c == '.');
            digits.count() <= WIDTH_DIGITS && !verb.contains('*')
        }),
        _ => false,
    }
}
