//! What a write's metadata asks for: preconditions, a retry's identity, the trace (contract §3).
//!
//! A malformed header is refused, never ignored: the caller relies on it.

use stategate_model::{Expect, Invalid, TraceParent, Version};
use stategate_protocol::headers;
use tonic::metadata::MetadataMap;

/// Most versions one `if-match` may name.
const VERSIONS: usize = 100;

/// The one value of a header; `None` when it was not sent.
fn single<'a>(metadata: &'a MetadataMap, name: &'static str) -> Result<Option<&'a str>, Invalid> {
    let mut values = metadata.get_all(name).iter();
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
pub(crate) fn expect(metadata: &MetadataMap) -> Result<Expect, Invalid> {
    // `if-match` is a list, which HTTP lets a sender spread over several lines.
    let mut matches = Vec::new();
    for value in metadata.get_all(headers::IF_MATCH) {
        matches.push(value.to_str().map_err(|_| {
            Invalid::new(
                headers::IF_MATCH,
                "has characters that are not visible ASCII",
            )
        })?);
    }
    let none = single(metadata, headers::IF_NONE_MATCH)?;
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

/// Refuses preconditions in the metadata of a Transact, whose operations carry their own.
pub(crate) fn none_for_transact(metadata: &MetadataMap) -> Result<(), Invalid> {
    for name in [headers::IF_MATCH, headers::IF_NONE_MATCH] {
        if metadata.contains_key(name) {
            return Err(Invalid::new(
                name,
                "cannot be used with Transact; set the precondition of each operation",
            ));
        }
    }
    Ok(())
}

/// The idempotency key as it was sent.
pub(crate) fn idempotency_key(metadata: &MetadataMap) -> Result<Option<&str>, Invalid> {
    single(metadata, headers::IDEMPOTENCY_KEY)
}

/// The trace the call belongs to. A broken header is no reason to fail a write.
pub(crate) fn trace_parent(metadata: &MetadataMap) -> Option<TraceParent> {
    TraceParent::parse(metadata.get(headers::TRACEPARENT)?.to_str().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(headers: &[(&'static str, &str)]) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        for (name, value) in headers {
            metadata.append(*name, value.parse().unwrap());
        }
        metadata
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
            assert_eq!(expect(&metadata(&headers)), Ok(expected), "{headers:?}");
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
                expect(&metadata(&headers)).unwrap_err().field,
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
                expect(&metadata(&headers)).unwrap_err().field,
                "if-none-match",
                "{headers:?}"
            );
        }
    }
}
