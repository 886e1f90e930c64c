//! The token in a call's `authorization` header (RFC 6750).

use super::Refused;

/// The token in the `authorization` headers of a call, each as its raw value.
///
/// The scheme is case-insensitive. Two headers are refused even if they are alike: what stands between
/// client and gateway may have looked at either.
pub fn bearer<'h>(headers: impl IntoIterator<Item = &'h [u8]>) -> Result<&'h str, Refused> {
    let mut headers = headers.into_iter();
    let header = headers.next().ok_or(Refused::HeaderMissing)?;
    if headers.next().is_some() {
        return Err(Refused::HeaderRepeated);
    }
    let header = std::str::from_utf8(header).map_err(|_| Refused::HeaderMalformed)?;
    let (scheme, rest) = header.split_once(' ').unwrap_or((header, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refused::SchemeUnsupported);
    }
    let token = rest.trim_matches(' ');
    let of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if token.is_empty() || !token.bytes().all(of_token) {
        return Err(Refused::HeaderMalformed);
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_header_of_the_scheme_holds_the_token() {
        for good in [
            "Bearer a.b.c",
            "bearer a.b.c",
            "BEARER   a.b.c",
            "Bearer a.b.c ",
        ] {
            assert_eq!(bearer([good.as_bytes()]), Ok("a.b.c"), "{good}");
        }
        let cases: [(&[&[u8]], Refused); 11] = [
            (&[], Refused::HeaderMissing),
            (&[b"Bearer a.b.c", b"Bearer a.b.c"], Refused::HeaderRepeated),
            (&[b""], Refused::SchemeUnsupported),
            (&[b"a.b.c"], Refused::SchemeUnsupported),
            (&[b"Basic YTpi"], Refused::SchemeUnsupported),
            (&[b"Bearera.b.c"], Refused::SchemeUnsupported),
            (&[b"Bearer\ta.b.c"], Refused::SchemeUnsupported),
            (&[b"Bearer"], Refused::HeaderMalformed),
            (&[b"Bearer  "], Refused::HeaderMalformed),
            (&[b"Bearer a.b.c, Bearer d.e.f"], Refused::HeaderMalformed),
            (&[b"Bearer a.b.\xff"], Refused::HeaderMalformed),
        ];
        for (headers, refused) in cases {
            assert_eq!(bearer(headers.iter().copied()), Err(refused), "{headers:?}");
        }
    }
}
