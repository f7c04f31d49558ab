//! The fields of a head that goes into HTTP/2.
//!
//! Owns: which of them have no place there, and which the codec is not to remember.

use http::{HeaderMap, HeaderName, header};

/// Names that only HTTP/1.1 has a use for (RFC 9113, 8.2.2).
const OF_CONNECTIONS: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Removes what HTTP/2 has no use for. Values that do not come again are marked: the codec would put each into its table, and
/// compare it with all of the same name that are there.
pub fn tidy(headers: &mut HeaderMap) {
    let mut found = false;
    for (name, value) in &mut *headers {
        match name.as_str() {
            "connection" | "transfer-encoding" | "upgrade" | "keep-alive" | "proxy-connection" => {
                found = true
            }
            "x-request-id" | "traceparent" | "tracestate" | "idempotency-key" => value.set_sensitive(true),
            _ => {}
        }
    }
    if found {
        for name in OF_CONNECTIONS {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_http_1_alone_has_goes_and_what_comes_once_is_marked() {
        let mut headers = HeaderMap::new();
        for name in OF_CONNECTIONS {
            headers.append(name.clone(), HeaderValue::from_static("close"));
            headers.append(name, HeaderValue::from_static("x"));
        }
        for name in ["x-request-id", "traceparent", "accept", "te"] {
            headers.append(name, HeaderValue::from_static("a"));
            headers.append(name, HeaderValue::from_static("b"));
        }
        tidy(&mut headers);
        let got: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.is_sensitive())).collect();
        let expected = [("x-request-id", true), ("traceparent", true), ("accept", false), ("te", false)]
            .map(|of| [of, of]);
        assert_eq!(sorted(got), sorted(expected.concat()));
    }

    fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
        list.sort();
        list
    }
}
