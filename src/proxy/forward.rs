//! What an upstream is told about the client: Forwarded (RFC 7239), X-Forwarded-* and X-Real-IP.
//!
//! Owns: the values, built once a connection. What a client says of itself is deleted before: no peer is trusted.

use std::cell::RefCell;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The values for one client connection.
#[derive(Debug)]
pub(super) struct Forwarded {
    /// `for=…;proto=…`.
    base: String,
    address: Option<HeaderValue>,
    proto: HeaderValue,
    /// The host of the last request and the whole value for it: a connection rarely changes its host.
    last: RefCell<Option<(HeaderValue, HeaderValue)>>,
}

impl Forwarded {
    pub(super) fn new(peer: Option<IpAddr>, secure: bool) -> Self {
        let proto = if secure { "https" } else { "http" };
        let node = match peer.map(|ip| ip.to_canonical()) {
            None => "unknown".to_owned(),
            Some(IpAddr::V4(ip)) => ip.to_string(),
            Some(IpAddr::V6(ip)) => format!("\"[{ip}]\""),
        };
        let address = peer.map(|ip| ip.to_canonical().to_string());
        Self {
            base: format!("for={node};proto={proto}"),
            address: address.and_then(|text| HeaderValue::try_from(text).ok()),
            proto: HeaderValue::from_static(proto),
            last: RefCell::new(None),
        }
    }

    pub(super) fn with_host(&self, host: Option<&HeaderValue>) -> Option<HeaderValue> {
        let Some(host) = host else { return HeaderValue::try_from(self.base.as_str()).ok() };
        let mut last = self.last.borrow_mut();
        if let Some((known, value)) = &*last
            && known == host
        {
            return Some(value.clone());
        }
        // An authority with a port or brackets is no token (RFC 7239, 4).
        let text = [&self.base, ";host=\"", host.to_str().ok()?, "\""].concat();
        let value = HeaderValue::try_from(text).ok()?;
        *last = Some((host.clone(), value.clone()));
        Some(value)
    }

    /// Sets all fields. `host` is the authority that the client used.
    pub(super) fn set(&self, headers: &mut HeaderMap, host: Option<HeaderValue>) {
        if let Some(value) = self.with_host(host.as_ref()) {
            headers.insert(header::FORWARDED, value);
        }
        if let Some(address) = &self.address {
            headers.insert(X_FORWARDED_FOR, address.clone());
            headers.insert(X_REAL_IP, address.clone());
        }
        headers.insert(X_FORWARDED_PROTO, self.proto.clone());
        if let Some(host) = host {
            headers.insert(X_FORWARDED_HOST, host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_named_in_every_form() {
        let check =
            |peer: Option<&str>, host: Option<&'static str>, forwarded: &str, address: Option<&str>| {
                for proto in ["http", "https"] {
                    let values = Forwarded::new(peer.map(|ip| ip.parse().expect("ip")), proto == "https");
                    for _ in 0..2 {
                        let mut headers = HeaderMap::new();
                        values.set(&mut headers, host.map(HeaderValue::from_static));
                        let field = |name: &str| {
                            headers.get(name).map(|value| value.to_str().expect("text").to_owned())
                        };
                        assert_eq!(field("forwarded"), Some(forwarded.replace("PROTO", proto)));
                        assert_eq!(field("x-forwarded-for").as_deref(), address);
                        assert_eq!(field("x-real-ip").as_deref(), address);
                        assert_eq!(field("x-forwarded-host").as_deref(), host);
                        assert_eq!(field("x-forwarded-proto").as_deref(), Some(proto));
                    }
                }
            };
        check(Some("10.0.0.1"), Some("a:1"), "for=10.0.0.1;proto=PROTO;host=\"a:1\"", Some("10.0.0.1"));
        check(Some("::ffff:10.0.0.1"), None, "for=10.0.0.1;proto=PROTO", Some("10.0.0.1"));
        check(Some("::1"), Some("a"), "for=\"[::1]\";proto=PROTO;host=\"a\"", Some("::1"));
        check(None, Some("a"), "for=unknown;proto=PROTO;host=\"a\"", None);
    }
}
