//! What a client asks of the connection itself and gets: another protocol (RFC 9110, 7.8), trailers (6.5).
//!
//! Owns: our own `Connection`, `Upgrade`, `TE` and `Trailer`, made from the client's and never copied. Does nothing for
//! a request that has none of these fields.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use http_body::Frame;

use super::extended::Accept;
use super::headers::Seen;

/// What one request asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// The protocols to switch to, in the client's order.
    upgrade: Option<HeaderValue>,
    /// What the upstream has to answer a key of ours with.
    accept: Option<HeaderValue>,
    /// The client takes trailers.
    pub(super) trailers: bool,
    /// The trailers that the client sends.
    declared: Option<HeaderValue>,
}

impl Asked {
    /// Reads the fields of a head before they are removed. `bodiless`: the request has no body.
    pub(super) fn of(head: &Parts, seen: &Seen, bodiless: bool) -> Option<Box<Self>> {
        if !(seen.upgrade || seen.te || seen.trailer) || head.version < Version::HTTP_11 {
            return None;
        }
        let headers = &head.headers;
        let upgrade =
            (bodiless && lists(headers, &header::CONNECTION, "upgrade")).then(|| protocols(headers));
        let asked = Self {
            upgrade: upgrade.flatten(),
            accept: head.extensions.get::<Accept>().map(|accept| accept.0.clone()),
            trailers: lists(headers, &header::TE, "trailers"),
            declared: declared(headers),
        };
        (asked != Self::default()).then(|| Box::new(asked))
    }

    /// Sets the fields of the request that goes on.
    pub(super) fn set(&self, headers: &mut HeaderMap) {
        if let Some(upgrade) = &self.upgrade {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, upgrade.clone());
        } else if self.trailers {
            // RFC 9110, 10.1.4.
            headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        if let Some(declared) = &self.declared {
            headers.insert(header::TRAILER, declared.clone());
        }
    }

    /// Whether another protocol is asked for.
    pub(super) fn switches(&self) -> bool {
        self.upgrade.is_some()
    }

    /// What a 101 switches to, if it was offered (RFC 9110, 7.8).
    pub(super) fn granted(&self, answer: &HeaderMap) -> Option<HeaderValue> {
        let offered = self.upgrade.as_ref()?;
        let granted = single(answer, &header::UPGRADE)?;
        if self.accept.is_some() && single(answer, &header::SEC_WEBSOCKET_ACCEPT) != self.accept.as_ref() {
            return None;
        }
        let all_offered =
            || options(granted).all(|name| options(offered).any(|offer| offer.eq_ignore_ascii_case(name)));
        let named = options(granted).next().is_some();
        (named && lists(answer, &header::CONNECTION, "upgrade") && all_offered()).then(|| granted.clone())
    }
}

/// The protocols that are offered on: none that carries requests, which would pass by the route's rules.
fn protocols(headers: &HeaderMap) -> Option<HeaderValue> {
    let offers = options(single(headers, &header::UPGRADE)?);
    let passed: Vec<_> = offers.filter(|offer| is_protocol(offer) && !carries_requests(offer)).collect();
    if passed.is_empty() { None } else { HeaderValue::from_bytes(&passed.join(b", ".as_slice())).ok() }
}

/// `name` or `name/version`, both tokens.
fn is_protocol(offer: &[u8]) -> bool {
    let is_token = |part: &[u8]| {
        !part.is_empty()
            && part.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
    };
    let mut parts = offer.splitn(2, |byte| *byte == b'/');
    parts.all(is_token)
}

fn carries_requests(offer: &[u8]) -> bool {
    let name = offer.split(|byte| *byte == b'/').next().unwrap_or_default();
    [b"h2c".as_slice(), b"h2", b"http", b"tls"].iter().any(|refused| name.eq_ignore_ascii_case(refused))
}

/// The names in `Trailer` that may be trailers. Only what is declared is sent.
pub(super) fn declared(headers: &HeaderMap) -> Option<HeaderValue> {
    let names = headers.get_all(header::TRAILER).iter().flat_map(options);
    let passed: Vec<_> = names
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| may_trail(name.as_str()) && !lists(headers, &header::CONNECTION, name.as_str()))
        .collect();
    let passed: Vec<_> = passed.iter().map(HeaderName::as_str).collect();
    if passed.is_empty() { None } else { HeaderValue::try_from(passed.join(", ")).ok() }
}

/// Trailers without what may not be one.
pub(super) fn cleaned(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            let barred: Vec<_> = trailers.keys().filter(|name| !may_trail(name.as_str())).cloned().collect();
            for name in barred {
                trailers.remove(name);
            }
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// RFC 9110, 6.5.1: no framing, routing, credentials, or what means one hop; under no spelling with underscores.
fn may_trail(name: &str) -> bool {
    let dashed = name.replace('_', "-");
    let barred = matches!(
        dashed.as_str(),
        "authorization"
            | "proxy-authorization"
            | "proxy-authenticate"
            | "proxy-authentication-info"
            | "www-authenticate"
            | "authentication-info"
            | "dpop"
            | "cookie"
            | "set-cookie"
            | "host"
            | "content-length"
            | "content-type"
            | "content-encoding"
            | "content-range"
            | "transfer-encoding"
            | "te"
            | "trailer"
            | "upgrade"
            | "http2-settings"
            | "connection"
            | "keep-alive"
            | "proxy-connection"
            | "via"
            | "forwarded"
            | "expect"
            | "max-forwards"
            | "cache-control"
            | "location"
            | "x-real-ip"
            | "x-request-id"
            | "x-original-url"
            | "x-rewrite-url"
    );
    !barred && !dashed.starts_with("x-forwarded-")
}

/// The value of a field that is there once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn lists(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(options)
        .any(|option| option.eq_ignore_ascii_case(wanted.as_bytes()))
}

fn options(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|option| !option.is_empty())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("value"));
        }
        headers
    }

    fn asked(
        fields: &[(&'static str, &'static str)],
        version: Version,
        bodiless: bool,
    ) -> Option<Box<Asked>> {
        let mut head = Request::new(()).into_parts().0;
        head.version = version;
        head.headers = headers(fields);
        let has = |name: HeaderName| head.headers.contains_key(name);
        let seen = Seen {
            upgrade: has(header::UPGRADE),
            te: has(header::TE),
            trailer: has(header::TRAILER),
            ..Seen::default()
        };
        Asked::of(&head, &seen, bodiless)
    }

    #[test]
    fn only_a_whole_offer_is_passed_on() {
        let check = |fields: &[(&'static str, &'static str)], expected: Option<&str>| {
            let passed = asked(fields, Version::HTTP_11, true).and_then(|asked| asked.upgrade);
            assert_eq!(passed.as_ref().and_then(|value| value.to_str().ok()), expected, "{fields:?}");
        };
        check(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")], Some("websocket"));
        check(&[("connection", "upgrade"), ("upgrade", "SPDY/3.1")], Some("SPDY/3.1"));
        check(&[("connection", "upgrade"), ("upgrade", "h2c, websocket ,tcp")], Some("websocket, tcp"));
        check(&[("upgrade", "websocket")], None);
        check(&[("connection", "close"), ("upgrade", "websocket")], None);
        check(&[("connection", "upgrade"), ("upgrade", "a"), ("upgrade", "b")], None);
        for refused in ["h2c", "H2C", "HTTP/2.0", "TLS/1.0", "h2", "", "a b", "/1", "a/", "a/b/c"] {
            check(&[("connection", "upgrade"), ("upgrade", refused)], None);
        }
        let offer = [("connection", "upgrade"), ("upgrade", "websocket")];
        assert_eq!(asked(&offer, Version::HTTP_10, true), None);
        assert_eq!(asked(&offer, Version::HTTP_11, false), None);
    }

    #[test]
    fn only_what_was_offered_is_granted() {
        let check = |offer: &'static str, answer: &[(&'static str, &'static str)], expected: bool| {
            let offer = [("connection", "upgrade"), ("upgrade", offer)];
            let asked = asked(&offer, Version::HTTP_11, true).expect("asked");
            assert_eq!(asked.granted(&headers(answer)).is_some(), expected, "{answer:?}");
        };
        check("websocket", &[("connection", "Upgrade"), ("upgrade", "WebSocket")], true);
        check("a, b", &[("connection", "upgrade"), ("upgrade", "b")], true);
        check("websocket", &[("upgrade", "websocket")], false);
        check("websocket", &[("connection", "upgrade")], false);
        check("websocket", &[("connection", "upgrade"), ("upgrade", "")], false);
        check("websocket", &[("connection", "upgrade"), ("upgrade", "tcp")], false);
        check("websocket", &[("connection", "upgrade"), ("upgrade", "websocket, tcp")], false);
    }

    #[test]
    fn trailers_carry_no_credentials_and_no_framing() {
        let check = |fields: &[(&'static str, &'static str)], expected: Option<&str>| {
            let declared = declared(&headers(fields));
            assert_eq!(declared.as_ref().and_then(|value| value.to_str().ok()), expected, "{fields:?}");
        };
        check(&[("trailer", "X-Sum, Authorization,Host"), ("trailer", "digest")], Some("x-sum, digest"));
        check(&[("trailer", "authorization, content_length, x-forwarded-for, Connection")], None);
        check(&[("trailer", "x-hop, x-sum"), ("connection", "X-Hop")], Some("x-sum"));
        check(&[("trailer", "a b, ,")], None);
    }
}
