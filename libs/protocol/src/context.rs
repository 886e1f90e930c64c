//! What a call's headers ask for: preconditions, a retry's identity, freshness, the trace
//! (contract §3). The same headers on every transport.
//!
//! A malformed header is refused, never ignored: the caller relies on it.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use stategate_api::{Caller, Context, Seen};
use stategate_model::{Expect, IdempotencyKey, Invalid, Token, TraceParent, Version};
use stategate_policy::Document;
use tokio::time::Instant;

use crate::headers;

/// Most versions one `if-match` may name.
const VERSIONS: usize = 100;

/// The kind of a method, which says which headers are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// A write of one operation: preconditions, the idempotency key.
    Write,
    /// A write of several: the idempotency key. Preconditions are refused, for each operation has its
    /// own.
    Transaction,
    /// A read: `stategate-min-position`.
    Read,
}

/// Headers that are the transport's, or a proxy's, and hidden from policies: a decision is the same whatever the
/// transport. A name that ends with `*` stands for all that begin so.
const HIDDEN: [&str; 13] = [
    "authorization",
    "host",
    "user-agent",
    "content-*",
    "accept*",
    "te",
    "grpc-*",
    "x-grpc-web",
    "origin",
    "sec-*",
    "x-forwarded-*",
    "forwarded",
    "connection",
];

/// The headers of a call as policies see them: each name with its first value.
pub fn metadata(headers: &HeaderMap) -> Document {
    let is_hidden = |name: &&HeaderName| {
        HIDDEN.iter().any(|hidden| match hidden.strip_suffix('*') {
            Some(beginning) => name.as_str().starts_with(beginning),
            None => name.as_str() == *hidden,
        })
    };
    let seen = headers.keys().filter(|name| !is_hidden(name));
    Document::object(seen.filter_map(|name| {
        let value = String::from_utf8_lossy(headers.get(name)?.as_bytes());
        Some((name.as_str(), Document::from(&*value)))
    }))
}

/// The context of a call.
pub fn context(
    headers: &HeaderMap,
    reads: Reads,
    caller: Option<Arc<Caller>>,
    seen: Seen,
    deadline: Option<Instant>,
) -> Result<Context, Invalid> {
    let mut context = Context {
        caller,
        seen,
        deadline,
        ..Context::anonymous()
    };
    match reads {
        Reads::Write => {
            context.trace = trace_parent(headers);
            context.idempotency_key = idempotency_key(headers)?;
            context.precondition = expect(headers)?;
        }
        Reads::Transaction => {
            context.trace = trace_parent(headers);
            context.idempotency_key = idempotency_key(headers)?;
            none_for_transact(headers)?;
        }
        Reads::Read => context.min_position = min_position(headers)?,
    }
    Ok(context)
}

/// The one value of a header; `None` when it was not sent.
fn single<'a>(sent: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, Invalid> {
    let mut values = sent.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Invalid::new(name, "was sent more than once"));
    }
    value
        .to_str()
        .map(Some)
        .map_err(|_| Invalid::new(name, "has characters that are not visible ASCII"))
}

/// The precondition of a plain write.
fn expect(sent: &HeaderMap) -> Result<Expect, Invalid> {
    // `if-match` is a list, which HTTP lets a sender spread over several lines.
    let mut matches = Vec::new();
    for value in sent.get_all(headers::IF_MATCH) {
        matches.push(value.to_str().map_err(|_| {
            Invalid::new(
                headers::IF_MATCH,
                "has characters that are not visible ASCII",
            )
        })?);
    }
    let none = single(sent, headers::IF_NONE_MATCH)?;
    match (matches.as_slice(), none) {
        ([], None) => Ok(Expect::Anything),
        ([], Some(tag)) if tag.trim() == "*" => Ok(Expect::Absent),
        ([], Some(_)) => Err(Invalid::new(
            headers::IF_NONE_MATCH,
            "must be `*`: writes know no other form",
        )),
        (_, Some(_)) => Err(Invalid::new(
            headers::IF_NONE_MATCH,
            "cannot be combined with `if-match`; send one of them",
        )),
        ([tag], None) if tag.trim() == "*" => Ok(Expect::Exists),
        (lists, None) => {
            let tags = lists.iter().flat_map(|list| list.split(','));
            let versions: Vec<Version> = tags.map(version).collect::<Result<_, _>>()?;
            if versions.len() > VERSIONS {
                return Err(Invalid::new(
                    headers::IF_MATCH,
                    format!("names more than {VERSIONS} versions"),
                ));
            }
            Ok(Expect::Versions(versions))
        }
    }
}

/// A version as an entity tag: `"3"`.
fn version(tag: &str) -> Result<Version, Invalid> {
    let tag = tag.trim();
    let refuse = |problem: &str| {
        Invalid::new(
            headers::IF_MATCH,
            format!("{problem}; a version is written in quotes, as in `if-match: \"3\"`"),
        )
    };
    if tag.starts_with("W/") {
        return Err(refuse("has a weak tag, and versions are strong"));
    }
    let digits = tag
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .filter(|digits| {
            !digits.is_empty()
                && digits.bytes().all(|b| b.is_ascii_digit())
                && !digits.starts_with('0')
        })
        .ok_or_else(|| refuse("has a malformed tag"))?;
    let number = digits
        .parse::<i64>()
        .map_err(|_| refuse("has a version beyond 2^63"))?;
    Version::from_i64(number).ok_or_else(|| refuse("has a malformed tag"))
}

/// Refuses preconditions in the headers of a Transact, whose operations carry their own.
fn none_for_transact(sent: &HeaderMap) -> Result<(), Invalid> {
    for name in [headers::IF_MATCH, headers::IF_NONE_MATCH] {
        if sent.contains_key(name) {
            return Err(Invalid::new(
                name,
                "cannot be used with Transact; set the precondition of each operation",
            ));
        }
    }
    Ok(())
}

/// The idempotency key, which is checked here and made one of a domain and caller by the service.
fn idempotency_key(sent: &HeaderMap) -> Result<Option<Box<str>>, Invalid> {
    let Some(key) = single(sent, headers::IDEMPOTENCY_KEY)? else {
        return Ok(None);
    };
    IdempotencyKey::check(key)?;
    Ok(Some(key.into()))
}

/// What the answer to a read must reflect. The service checks that it is a token of this log.
fn min_position(sent: &HeaderMap) -> Result<Option<Token>, Invalid> {
    let Some(token) = single(sent, headers::MIN_POSITION)? else {
        return Ok(None);
    };
    let refuse = |problem| Invalid::new(headers::MIN_POSITION, problem);
    token
        .parse()
        .map(Some)
        .map_err(|problem: String| refuse(problem))
}

/// The trace the call belongs to. A broken header is no reason to fail a write.
fn trace_parent(sent: &HeaderMap) -> Option<TraceParent> {
    TraceParent::parse(sent.get(headers::TRACEPARENT)?.to_str().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(headers: &[(&'static str, &str)]) -> HeaderMap {
        let mut sent = HeaderMap::new();
        for (name, value) in headers {
            sent.append(*name, value.parse().unwrap());
        }
        sent
    }

    #[test]
    fn preconditions_are_read() {
        let versions =
            |numbers: &[u64]| Expect::Versions(numbers.iter().map(|n| Version::new(*n)).collect());
        for (headers, expected) in [
            (vec![], Expect::Anything),
            (vec![("if-match", "*")], Expect::Exists),
            (vec![("if-none-match", "*")], Expect::Absent),
            (vec![("if-match", "\"3\"")], versions(&[3])),
            (vec![("if-match", "\"3\" , \"14\"")], versions(&[3, 14])),
            (
                vec![("if-match", "\"3\""), ("if-match", "\"4\"")],
                versions(&[3, 4]),
            ),
        ] {
            assert_eq!(expect(&sent(&headers)), Ok(expected), "{headers:?}");
        }
    }

    #[test]
    fn malformed_preconditions_are_refused_by_name() {
        for headers in [
            vec![("if-match", "")],
            vec![("if-match", "3")],
            vec![("if-match", "\"\"")],
            vec![("if-match", "\"03\"")],
            vec![("if-match", "\"0\"")],
            vec![("if-match", "W/\"3\"")],
            vec![("if-match", "\"3\",")],
            vec![("if-match", "*, \"3\"")],
            vec![("if-match", "\"9223372036854775808\"")],
            vec![("if-match", "\"3\""), ("if-match", "*")],
        ] {
            assert_eq!(
                expect(&sent(&headers)).unwrap_err().field,
                "if-match",
                "{headers:?}"
            );
        }
        for headers in [
            vec![("if-none-match", "\"3\"")],
            vec![("if-none-match", "")],
            vec![("if-none-match", "*"), ("if-none-match", "*")],
            vec![("if-none-match", "*"), ("if-match", "*")],
        ] {
            assert_eq!(
                expect(&sent(&headers)).unwrap_err().field,
                "if-none-match",
                "{headers:?}"
            );
        }
    }
}
