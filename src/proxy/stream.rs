//! What is particular to a request over HTTP/2 (RFC 9113).
//!
//! Owns: the rules for its head that the codec does not hold, and its form for an upstream over HTTP/1.1.

use http::{HeaderMap, HeaderValue, Request, header};

use super::Refusal;

/// Judges a head before anything else. Over HTTP/1.1 who reads it holds the limit of fields.
pub(super) fn judge<B>(request: &Request<B>, fields: usize) -> Result<(), Refusal> {
    if request.headers().len() > fields { Err(Refusal::TooManyFields) } else { Ok(()) }
}

/// Makes one field of fields that HTTP/2 lets a client split or repeat.
pub(super) fn fold(headers: &mut HeaderMap) {
    // RFC 9113, 8.2.3.
    fold_field(headers, &header::COOKIE, |crumbs| {
        HeaderValue::from_bytes(&crumbs.join(b"; ".as_slice())).ok()
    });
    // RFC 9110, 8.6: the codec let it pass only with one value.
    fold_field(headers, &header::CONTENT_LENGTH, |same| HeaderValue::from_bytes(same[0]).ok());
}

fn fold_field(
    headers: &mut HeaderMap,
    name: &header::HeaderName,
    into_one: impl FnOnce(&[&[u8]]) -> Option<HeaderValue>,
) {
    let mut values = headers.get_all(name).iter();
    if values.next().is_none() || values.next().is_none() {
        return;
    }
    let values: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    if let Some(mut one) = into_one(&values) {
        one.set_sensitive(*name == header::COOKIE);
        headers.insert(name.clone(), one);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crumbs_of_a_cookie_are_joined() {
        let check = |crumbs: &[&'static str], expected: &[&str]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
            for crumb in crumbs {
                headers.append(header::COOKIE, HeaderValue::from_static(crumb));
            }
            fold(&mut headers);
            let got: Vec<_> = headers.get_all(header::COOKIE).iter().collect();
            assert_eq!(got, expected, "{crumbs:?}");
        };
        check(&[], &[]);
        check(&["a=b"], &["a=b"]);
        check(&["a=b", "c=d", "e=f"], &["a=b; c=d; e=f"]);
    }
}
