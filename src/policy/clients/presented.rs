//! What a request presents: the proofs in its header fields, read and not judged.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// The one credential of `Authorization` or `Proxy-Authorization` (RFC 9110, 11.6.2 and 11.7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Authorization<'r> {
    /// There is none.
    Absent,
    /// `Basic`, with its base64 text (RFC 7617).
    Basic(&'r [u8]),
    /// `Bearer`, with its token (RFC 6750).
    Bearer(&'r [u8]),
    /// Of another scheme, or there are several.
    Unusable,
}

/// Which field it is in.
pub(super) fn field(proxy: bool) -> HeaderName {
    if proxy { header::PROXY_AUTHORIZATION } else { header::AUTHORIZATION }
}

/// Reads it.
pub(super) fn authorization(headers: &HeaderMap, proxy: bool) -> Authorization<'_> {
    let Some(value) = only(headers, &field(proxy)) else {
        return if headers.contains_key(field(proxy)) {
            Authorization::Unusable
        } else {
            Authorization::Absent
        };
    };
    let bytes = value.as_bytes();
    let Some(space) = bytes.iter().position(|byte| *byte == b' ') else { return Authorization::Unusable };
    let (scheme, rest) = bytes.split_at(space);
    let credential = rest.trim_ascii();
    if credential.is_empty() {
        Authorization::Unusable
    } else if scheme.eq_ignore_ascii_case(b"basic") {
        Authorization::Basic(credential)
    } else if scheme.eq_ignore_ascii_case(b"bearer") {
        Authorization::Bearer(credential)
    } else {
        Authorization::Unusable
    }
}

/// The value of a field that is there once. A second one could be what somebody else reads.
pub(super) fn only<'r>(headers: &'r HeaderMap, name: &HeaderName) -> Option<&'r HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_credential_is_read_and_two_are_none() {
        let check = |values: &[&str], expected: Authorization<'_>| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().expect("a value"));
            }
            assert_eq!(authorization(&headers, false), expected, "{values:?}");
            assert_eq!(authorization(&headers, true), Authorization::Absent);
        };
        check(&[], Authorization::Absent);
        check(&["Basic YTpi"], Authorization::Basic(b"YTpi"));
        check(&["bASIC  YTpi "], Authorization::Basic(b"YTpi"));
        check(&["Bearer a.b.c"], Authorization::Bearer(b"a.b.c"));
        check(&["Bearer"], Authorization::Unusable);
        check(&["Basic "], Authorization::Unusable);
        check(&["Negotiate YTpi"], Authorization::Unusable);
        check(&["Basic YTpi", "Basic YTpi"], Authorization::Unusable);
    }
}
