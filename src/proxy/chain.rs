//! What a trusted proxy says of the client: kept, and the proxy itself added as the last hop.
//!
//! Owns: reading and extending Forwarded (RFC 7239), X-Forwarded-* and X-Real-IP so that all of them tell one story.
//! What cannot be read is dropped, never passed on. Nothing here is reached by a peer that is not trusted.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::forward::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PREFIX, X_FORWARDED_PROTO, X_REAL_IP};
use crate::policy::trusted::TrustedProxies;

const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// The hop that this connection is.
pub(super) struct Hop<'a> {
    pub(super) peer: Option<IpAddr>,
    /// `for=…;proto=…` with the host.
    pub(super) element: &'a HeaderValue,
    pub(super) proto: &'a HeaderValue,
    pub(super) host: Option<HeaderValue>,
}

/// The client as the trusted proxies tell it: the last hop that is not one of them.
pub(super) fn client_address(
    headers: &HeaderMap,
    peer: Option<IpAddr>,
    trusted: &TrustedProxies,
) -> Option<IpAddr> {
    let told = Told::read(headers);
    let mut address = peer;
    for node in told.nodes().into_iter().rev() {
        if !trusted.contain(address) {
            break;
        }
        match node_address(&node) {
            Some(ip) => address = Some(ip),
            None => break,
        }
    }
    address
}

/// Sets all fields for a request that came over a trusted proxy.
pub(super) fn extend(headers: &mut HeaderMap, hop: Hop<'_>, trusted: &TrustedProxies) {
    let told = Told::read(headers);
    let client = client_address(headers, hop.peer, trusted);
    let proto = told.proto.clone().or_else(|| value(told.first("proto")?));
    let host = told.host.clone().or_else(|| value(told.first("host")?));
    set(headers, header::FORWARDED, told.forwarded(&hop, proto.as_ref(), host.as_ref()));
    set(headers, X_FORWARDED_FOR, told.forwarded_for(hop.peer));
    set(headers, X_FORWARDED_PROTO, proto.or_else(|| Some(hop.proto.clone())));
    set(headers, X_FORWARDED_HOST, host.or(hop.host));
    set(headers, X_REAL_IP, told.real_ip.or_else(|| value(&client?.to_canonical().to_string())));
    if single(headers, &X_FORWARDED_PORT).is_none_or(|port| !is_port(port)) {
        headers.remove(X_FORWARDED_PORT);
    }
    if !single(headers, &X_FORWARDED_PREFIX).is_some_and(is_prefix) {
        headers.remove(X_FORWARDED_PREFIX);
    }
}

/// The prefix that was cut off here comes behind the one that was cut off before.
pub(super) fn extend_prefix(headers: &mut HeaderMap, prefix: &HeaderValue) {
    let outer = single(headers, &X_FORWARDED_PREFIX).map(|outer| outer.trim_end_matches('/').to_owned());
    let whole = outer.and_then(|outer| value(&[&outer, prefix.to_str().ok()?].concat()));
    headers.insert(X_FORWARDED_PREFIX, whole.unwrap_or_else(|| prefix.clone()));
}

/// An element of Forwarded: its pairs.
type Element = Vec<(String, String)>;

/// What the fields of a request say, each `None` where it is absent or cannot be read.
#[derive(Debug, Default)]
struct Told {
    /// The elements of Forwarded and their text.
    elements: Option<(Vec<Element>, String)>,
    /// X-Forwarded-For.
    addresses: Option<String>,
    proto: Option<HeaderValue>,
    host: Option<HeaderValue>,
    real_ip: Option<HeaderValue>,
}

impl Told {
    fn read(headers: &HeaderMap) -> Self {
        let elements = joined(headers, &header::FORWARDED);
        let is_proto = |text: &str| {
            ["http", "https", "ws", "wss"].iter().any(|known| text.trim().eq_ignore_ascii_case(known))
        };
        Self {
            elements: elements.and_then(|text| Some((parse_forwarded(&text)?, text))),
            addresses: joined(headers, &X_FORWARDED_FOR).filter(|text| text.bytes().all(is_address_byte)),
            proto: single(headers, &X_FORWARDED_PROTO)
                .filter(|text| text.split(',').all(is_proto))
                .and_then(value),
            host: single(headers, &X_FORWARDED_HOST).filter(|text| is_host_list(text)).and_then(value),
            real_ip: single(headers, &X_REAL_IP)
                .filter(|text| text.parse::<IpAddr>().is_ok())
                .and_then(value),
        }
    }

    /// The hops before this one. X-Forwarded-For is believed first: it is what most proxies write, and those often
    /// pass a client's Forwarded on.
    fn nodes(&self) -> Vec<String> {
        match (&self.addresses, &self.elements) {
            (Some(list), _) => list.split(',').map(|node| node.trim().to_owned()).collect(),
            (None, Some((elements, _))) => {
                elements.iter().map(|pairs| of(pairs, "for").unwrap_or("unknown").to_owned()).collect()
            }
            (None, None) => Vec::new(),
        }
    }

    /// A parameter of the first element, which tells of the client's own request.
    fn first(&self, name: &str) -> Option<&str> {
        let (elements, _) = self.elements.as_ref()?;
        let text = of(elements.first()?, name)?;
        let valid = match name {
            "proto" => matches!(text.to_ascii_lowercase().as_str(), "http" | "https" | "ws" | "wss"),
            _ => is_host_list(text),
        };
        valid.then_some(text)
    }

    fn forwarded_for(&self, peer: Option<IpAddr>) -> Option<HeaderValue> {
        let mut nodes: Vec<String> = match &self.addresses {
            Some(list) => vec![list.clone()],
            None => self.nodes().iter().map(|node| plain_node(node)).collect(),
        };
        nodes.extend(peer.map(|ip| ip.to_canonical().to_string()));
        if nodes.is_empty() { None } else { value(&nodes.join(", ")) }
    }

    fn forwarded(
        &self,
        hop: &Hop<'_>,
        proto: Option<&HeaderValue>,
        host: Option<&HeaderValue>,
    ) -> Option<HeaderValue> {
        let own = hop.element.to_str().ok()?;
        if let Some((_, text)) = &self.elements {
            return value(&[text, ", ", own].concat());
        }
        let mut elements: Vec<String> =
            self.nodes().iter().map(|node| ["for=", &quoted_node(node)].concat()).collect();
        if let Some(first) = elements.first_mut() {
            if let Some(proto) =
                proto.and_then(|proto| proto.to_str().ok()).filter(|text| !text.contains(','))
            {
                first.push_str(&[";proto=", proto].concat());
            }
            if let Some(host) = host.and_then(|host| host.to_str().ok()).filter(|text| !text.contains(',')) {
                first.push_str(&[";host=\"", host, "\""].concat());
            }
        }
        elements.push(own.to_owned());
        value(&elements.join(", "))
    }
}

fn of<'p>(pairs: &'p [(String, String)], name: &str) -> Option<&'p str> {
    pairs.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => drop(headers.insert(name, value)),
        None => drop(headers.remove(name)),
    }
}

fn value(text: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(text).ok()
}

/// All lines of a field as one list; `None` without any, or with one that is no text.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let lines = headers.get_all(name).iter().map(|line| line.to_str().ok()).collect::<Option<Vec<_>>>()?;
    let text = lines.join(", ").trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// The value of a field that is there once.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => line.to_str().ok().map(str::trim),
        _ => None,
    }
}

/// What stands in a list of addresses, ports, `unknown` and obfuscated names.
fn is_address_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'.' | b':' | b'[' | b']' | b'_' | b'-' | b',' | b' ' | b'\t')
}

fn is_host_list(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_address_byte)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port != 0)
}

/// A path that cannot be taken for another server's.
fn is_prefix(text: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'.' | b'_' | b'~' | b'%');
    text.starts_with('/') && !text.contains("//") && !text.contains("..") && text.bytes().all(plain)
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`.
fn node_address(node: &str) -> Option<IpAddr> {
    let ip: Option<IpAddr> = node.parse().ok();
    let with_port = || node.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || node.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    ip.or_else(with_port).or_else(bracketed).map(|ip: IpAddr| ip.to_canonical())
}

/// As X-Forwarded-For writes it.
fn plain_node(node: &str) -> String {
    node_address(node).map_or_else(|| "unknown".to_owned(), |ip| ip.to_string())
}

/// As Forwarded writes it (RFC 7239, 6).
fn quoted_node(node: &str) -> String {
    match node_address(node) {
        Some(IpAddr::V4(ip)) => ip.to_string(),
        Some(IpAddr::V6(ip)) => ["\"[", &ip.to_string(), "]\""].concat(),
        None => "unknown".to_owned(),
    }
}

/// Parses Forwarded strictly (RFC 7239, 4); quoted strings are given without quotes.
fn parse_forwarded(text: &str) -> Option<Vec<Element>> {
    let mut rest = text.as_bytes();
    let mut elements = vec![Vec::new()];
    loop {
        rest = rest.trim_ascii_start();
        let length = rest.iter().position(|byte| !is_token_byte(*byte)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(length);
        let after = after.strip_prefix(b"=")?;
        let (value, after) = match after.strip_prefix(b"\"") {
            Some(quoted) => parse_quoted(quoted)?,
            None => {
                let length = after.iter().position(|byte| !is_token_byte(*byte)).unwrap_or(after.len());
                let (value, after) = after.split_at(length);
                (String::from_utf8(value.to_vec()).ok()?, after)
            }
        };
        if name.is_empty() || value.is_empty() {
            return None;
        }
        let name = String::from_utf8(name.to_vec()).ok()?;
        let element: &mut Element = elements.last_mut().expect("there is always one");
        if of(element, &name).is_some() {
            return None;
        }
        element.push((name, value));
        match after.trim_ascii_start().split_first() {
            None => return Some(elements),
            Some((b';', after)) => rest = after,
            Some((b',', after)) => {
                elements.push(Vec::new());
                rest = after;
            }
            Some(_) => return None,
        }
    }
}

/// A quoted string after its opening quote, and what follows it.
fn parse_quoted(text: &[u8]) -> Option<(String, &[u8])> {
    let mut value = String::new();
    let mut bytes = text.iter().enumerate();
    loop {
        match bytes.next()? {
            (at, b'"') => return Some((value, &text[at + 1..])),
            (_, b'\\') => value.push(char::from(*bytes.next()?.1)),
            (_, byte) => value.push(char::from(*byte)),
        }
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("value"));
        }
        headers
    }

    fn trusted() -> TrustedProxies {
        let network =
            |text: &str| crate::policy::trusted::TrustedPeer::Network(text.parse().expect("network"));
        TrustedProxies::new(vec![network("10.0.0.0/8"), network("fd00::/8")])
    }

    /// The fields after a request of 10.0.0.9, a trusted proxy, for `Host: here`.
    fn extended(fields: &[(&'static str, &'static str)]) -> Vec<(String, String)> {
        let mut headers = headers(fields);
        let element = HeaderValue::from_static("for=10.0.0.9;proto=http;host=\"here\"");
        let hop = Hop {
            peer: Some("10.0.0.9".parse().expect("ip")),
            element: &element,
            proto: &HeaderValue::from_static("http"),
            host: Some(HeaderValue::from_static("here")),
        };
        extend(&mut headers, hop, &trusted());
        let mut all: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned()))
            .collect();
        all.sort();
        all
    }

    #[test]
    fn a_trusted_proxy_is_added_to_what_it_says() {
        let check = |fields: &[(&'static str, &'static str)], expected: [&str; 5]| {
            let names =
                ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"];
            let expected: Vec<_> =
                names.iter().zip(expected).map(|(n, v)| ((*n).to_owned(), v.to_owned())).collect();
            assert_eq!(extended(fields), expected, "{fields:?}");
        };
        let own = "for=10.0.0.9;proto=http;host=\"here\"";
        check(&[], [own, "10.0.0.9", "here", "http", "10.0.0.9"]);
        check(
            &[
                ("x-forwarded-for", "192.0.2.1"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "shop:8"),
            ],
            [
                &["for=192.0.2.1;proto=https;host=\"shop:8\", ", own].concat(),
                "192.0.2.1, 10.0.0.9",
                "shop:8",
                "https",
                "192.0.2.1",
            ],
        );
        check(
            &[("forwarded", "for=\"[2001:db8::1]:99\";proto=https;host=shop, for=10.0.0.1")],
            [
                &["for=\"[2001:db8::1]:99\";proto=https;host=shop, for=10.0.0.1, ", own].concat(),
                "2001:db8::1, 10.0.0.1, 10.0.0.9",
                "shop",
                "https",
                "2001:db8::1",
            ],
        );
        check(
            &[
                ("x-forwarded-for", "203.0.113.7, 192.0.2.1"),
                ("x-forwarded-for", "10.0.0.1"),
                ("x-real-ip", "192.0.2.1"),
            ],
            [
                &["for=203.0.113.7, for=192.0.2.1, for=10.0.0.1, ", own].concat(),
                "203.0.113.7, 192.0.2.1, 10.0.0.1, 10.0.0.9",
                "here",
                "http",
                "192.0.2.1",
            ],
        );
        // What cannot be read is not passed on.
        check(
            &[("forwarded", "for=\"192.0.2.1"), ("x-forwarded-for", "<b>"), ("x-real-ip", "me")],
            [own, "10.0.0.9", "here", "http", "10.0.0.9"],
        );
        check(
            &[("x-forwarded-proto", "gopher"), ("x-forwarded-host", "a\"b"), ("forwarded", "for")],
            [own, "10.0.0.9", "here", "http", "10.0.0.9"],
        );
        check(
            &[("x-real-ip", "192.0.2.1"), ("x-real-ip", "192.0.2.2")],
            [own, "10.0.0.9", "here", "http", "10.0.0.9"],
        );
    }

    #[test]
    fn the_client_is_the_last_hop_that_is_no_trusted_proxy() {
        let check = |fields: &[(&'static str, &'static str)], peer: &str, expected: &str| {
            let found = client_address(&headers(fields), Some(peer.parse().expect("ip")), &trusted());
            assert_eq!(found, Some(expected.parse().expect("ip")), "{fields:?}");
        };
        check(&[], "10.0.0.9", "10.0.0.9");
        check(&[("x-forwarded-for", "198.51.100.1")], "192.0.2.1", "192.0.2.1");
        check(&[("x-forwarded-for", "1.1.1.1, 192.0.2.1, 10.0.0.1")], "10.0.0.9", "192.0.2.1");
        check(&[("x-forwarded-for", "10.0.0.2, 10.0.0.1")], "10.0.0.9", "10.0.0.2");
        check(&[("x-forwarded-for", "192.0.2.1:4711")], "10.0.0.9", "192.0.2.1");
        check(&[("x-forwarded-for", "192.0.2.1, unknown, 10.0.0.1")], "10.0.0.9", "10.0.0.1");
        check(&[("forwarded", "for=\"[2001:db8::1]\"")], "fd00::1", "2001:db8::1");
        check(&[("forwarded", "for=_hidden, for=10.0.0.3")], "10.0.0.9", "10.0.0.3");
        check(&[("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "192.0.2.1")], "10.0.0.9", "192.0.2.1");
    }

    #[test]
    fn ports_and_prefixes_are_kept_where_they_are_some() {
        let check = |field: &'static str, value: &'static str, kept: bool| {
            let all = extended(&[(field, value)]);
            assert_eq!(all.iter().any(|(name, _)| name == field), kept, "{field}: {value}");
        };
        check("x-forwarded-port", "8443", true);
        check("x-forwarded-port", "x", false);
        check("x-forwarded-port", "+443", false);
        check("x-forwarded-port", "0", false);
        check("x-forwarded-prefix", "/outer", true);
        check("x-forwarded-prefix", "//evil.example", false);
        check("x-forwarded-prefix", "outer", false);
        check("x-forwarded-prefix", "/a, /b", false);
        check("x-forwarded-ssl", "on", true);
        let join = |fields: &[(&'static str, &'static str)], expected: &str| {
            let mut headers = headers(fields);
            extend_prefix(&mut headers, &HeaderValue::from_static("/pds"));
            assert_eq!(headers["x-forwarded-prefix"], expected);
        };
        join(&[], "/pds");
        join(&[("x-forwarded-prefix", "/outer/")], "/outer/pds");
    }

    #[test]
    fn forwarded_is_read_strictly() {
        let check = |text: &str, expected: Option<usize>| {
            assert_eq!(parse_forwarded(text).map(|elements| elements.len()), expected, "{text}");
        };
        check("for=192.0.2.1", Some(1));
        check("For=192.0.2.1;Proto=https ; by=203.0.113.43", Some(1));
        check("for=a, for=\"b,c\\\"d;\";host=\"x:1\"", Some(2));
        check("for=a,,for=b", None);
        check("for=a;for=b", None);
        check("for=", None);
        check("for", None);
        check("for=\"a", None);
        check("for=[::1]", None);
        check("for=a b", None);
        check("", None);
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_proxy_says_our_hop_is_the_last(
            forwarded in "[ -~]{0,60}|(for=\\PC{0,9}[,;]? ?){0,4}",
            addresses in "[ -~]{0,40}|([0-9a-f:.]{1,9}, ?){0,4}",
            others in proptest::collection::vec("[ -~]{0,20}", 5),
        ) {
            let mut headers = HeaderMap::new();
            let names = ["x-forwarded-proto", "x-forwarded-host", "x-real-ip", "x-forwarded-prefix", "x-forwarded-port"];
            let told = [("forwarded", &forwarded), ("x-forwarded-for", &addresses)];
            for (name, text) in told.into_iter().chain(names.into_iter().zip(&others)) {
                if let Ok(value) = HeaderValue::try_from(text.as_str()) {
                    headers.insert(name, value);
                }
            }
            let element = HeaderValue::from_static("for=10.0.0.9;proto=http;host=\"here\"");
            let peer = Some("10.0.0.9".parse().expect("ip"));
            let host = Some(HeaderValue::from_static("here"));
            let hop = Hop { peer, element: &element, proto: &HeaderValue::from_static("http"), host };
            extend(&mut headers, hop, &trusted());
            let elements = parse_forwarded(headers["forwarded"].to_str().expect("text")).expect("well formed");
            let last = elements.last().expect("one");
            let expected = [("for", "10.0.0.9"), ("proto", "http"), ("host", "here")];
            proptest::prop_assert_eq!(last, &expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
            let list = headers["x-forwarded-for"].to_str().expect("text");
            proptest::prop_assert_eq!(list.rsplit(", ").next(), Some("10.0.0.9"));
            proptest::prop_assert!(headers["x-real-ip"].to_str().expect("text").parse::<IpAddr>().is_ok());
        }
    }
}
