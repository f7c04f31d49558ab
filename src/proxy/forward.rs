//! What an upstream is told about the client: Forwarded (RFC 7239), X-Forwarded-* and X-Real-IP.
//!
//! Owns: the values, built once a connection. What a client says of itself is deleted before, unless it is a trusted
//! proxy.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::chain::{self, Hop};
use super::link::Peer;
use crate::policy::trusted::TrustedProxies;
use crate::telemetry::access::Record;
use crate::upstream::Prepared;

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
pub(super) const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Whether a field is one of those that are set here, or beside them for every request.
pub(super) fn is_ours(name: &HeaderName) -> bool {
    let text = name.as_str();
    matches!(text, "forwarded" | "via" | "x-real-ip" | "x-request-id") || text.starts_with("x-forwarded-")
}

/// The values for one client connection.
#[derive(Debug)]
pub(super) struct Forwarded {
    peer: Option<IpAddr>,
    /// Whom the listener trusts, if the peer is one of them.
    trusted: Option<Rc<TrustedProxies>>,
    /// `for=…;proto=…`.
    base: String,
    address: Option<HeaderValue>,
    proto: HeaderValue,
    /// The host of the last request and the whole value for it: a connection rarely changes its host.
    last: RefCell<Option<(HeaderValue, HeaderValue)>>,
    /// The same with all fields, ready to be sent.
    prepared: RefCell<Option<Last>>,
}

/// What was prepared last, for these.
#[derive(Debug)]
struct Last {
    host: Option<HeaderValue>,
    via: HeaderValue,
    fields: Rc<Prepared>,
}

impl Forwarded {
    pub(super) fn new(peer: &Peer) -> Self {
        let proto = if peer.secure { "https" } else { "http" };
        let trusted = peer.trusted.clone();
        let peer = peer.address.map(|ip| ip.to_canonical());
        let node = match peer {
            None => "unknown".to_owned(),
            Some(IpAddr::V4(ip)) => ip.to_string(),
            Some(IpAddr::V6(ip)) => format!("\"[{ip}]\""),
        };
        let address = peer.map(|ip| ip.to_string());
        Self {
            peer,
            trusted,
            base: format!("for={node};proto={proto}"),
            address: address.and_then(|text| HeaderValue::try_from(text).ok()),
            proto: HeaderValue::from_static(proto),
            last: RefCell::new(None),
            prepared: RefCell::new(None),
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

    /// Whether what the peer says of its client is kept.
    #[inline]
    pub(super) fn peer_is_trusted(&self) -> bool {
        self.trusted.is_some()
    }

    /// The client's address: the peer's, or what trusted proxies say.
    pub(super) fn client_address(&self, headers: &HeaderMap) -> Option<IpAddr> {
        match &self.trusted {
            None => self.peer,
            Some(trusted) => chain::client_address(headers, self.peer, trusted),
        }
    }

    /// Notes the client's address in `record`.
    pub(super) fn tell(&self, headers: &HeaderMap, record: &mut Record) {
        match &self.trusted {
            None => record.client(self.address.as_ref().map_or(b"unix", |address| address.as_bytes())),
            Some(_) => {
                let address = self.client_address(headers);
                let address = address.map_or_else(|| "unix".to_owned(), |ip| ip.to_string());
                record.client(address.as_bytes());
            }
        }
    }

    /// Sets all fields. `host` is the authority that the client used.
    pub(super) fn set(&self, headers: &mut HeaderMap, host: Option<HeaderValue>) {
        if let Some(trusted) = &self.trusted {
            return self.extend(headers, host, trusted);
        }
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

    /// All fields and `via`, for a head that holds none of them; `None` where a trusted peer may have set some.
    pub(super) fn prepared(&self, host: Option<&HeaderValue>, via: &HeaderValue) -> Option<Rc<Prepared>> {
        if self.peer_is_trusted() {
            return None;
        }
        let mut last = self.prepared.borrow_mut();
        if let Some(last) = &*last
            && last.host.as_ref() == host
            && last.via == *via
        {
            return Some(Rc::clone(&last.fields));
        }
        // A copy: what is kept with the connection does not keep the memory of a whole request.
        let host = match host {
            Some(host) => Some(HeaderValue::from_bytes(host.as_bytes()).ok()?),
            None => None,
        };
        let mut headers = HeaderMap::new();
        self.set(&mut headers, host.clone());
        let mut fields = Prepared::default();
        fields.add(header::VIA, via.clone());
        for (name, value) in &headers {
            fields.add(name.clone(), value.clone());
        }
        let fields = Rc::new(fields);
        *last = Some(Last { host, via: via.clone(), fields: Rc::clone(&fields) });
        Some(fields)
    }

    #[cold]
    fn extend(&self, headers: &mut HeaderMap, host: Option<HeaderValue>, trusted: &TrustedProxies) {
        let element =
            self.with_host(host.as_ref()).unwrap_or_else(|| HeaderValue::from_static("for=unknown"));
        let hop = Hop { peer: self.peer, element: &element, proto: &self.proto, host };
        chain::extend(headers, hop, trusted);
    }

    /// Sets X-Forwarded-Prefix: what the route has cut off.
    pub(super) fn set_prefix(&self, headers: &mut HeaderMap, prefix: &HeaderValue) {
        if self.peer_is_trusted() {
            chain::extend_prefix(headers, prefix);
        } else {
            headers.insert(X_FORWARDED_PREFIX, prefix.clone());
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
                    let values = Forwarded::new(&Peer {
                        address: peer.map(|ip| ip.parse().expect("ip")),
                        secure: proto == "https",
                        ..Peer::default()
                    });
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
