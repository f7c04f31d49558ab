//! A WebSocket that a client begins with an extended CONNECT (RFC 8441).
//!
//! Owns: its form as an upgrade of HTTP/1.1 and back. In between it passes the same rules as any upgrade.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use crate::upstream::websocket;

/// Marks an upgrade whose key is ours, with what has to answer it.
#[derive(Debug, Clone)]
pub(super) struct Accept(pub(super) HeaderValue);

/// Makes an upgrade of an extended CONNECT for a WebSocket. `false`: it is something else, and stays as it is.
pub fn as_upgrade(head: &mut Parts) -> bool {
    let protocol = head.extensions.remove::<h2::ext::Protocol>();
    if head.method != Method::CONNECT || protocol.is_none_or(|protocol| protocol.as_str() != "websocket") {
        return false;
    }
    let key = websocket::new_key();
    head.method = Method::GET;
    head.extensions.insert(Accept(websocket::accept_of(&key)));
    let headers = &mut head.headers;
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_KEY, key);
    headers.entry(header::SEC_WEBSOCKET_VERSION).or_insert(HeaderValue::from_static("13"));
    true
}

/// Makes of the answer to an upgrade one to an extended CONNECT.
pub fn as_stream_answer(status: &mut StatusCode, headers: &mut HeaderMap) {
    const OF_UPGRADES: [HeaderName; 3] = [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_ACCEPT];
    *status = StatusCode::OK;
    for name in OF_UPGRADES {
        headers.remove(name);
    }
}
