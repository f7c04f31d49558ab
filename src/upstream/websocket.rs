//! The handshake of a WebSocket in HTTP/1.1 (RFC 6455, 4), for those who begin it in HTTP/2 (RFC 8441, 5), which has none.
//!
//! Owns: keys and what answers them. Sees no byte of the connection itself.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, header};

/// RFC 6455, 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A key for a handshake of our own. It shows that the upstream read the request, and guards nothing else.
pub fn new_key() -> HeaderValue {
    let nonce: [u8; 16] = std::array::from_fn(|_| fastrand::u8(..));
    HeaderValue::try_from(STANDARD.encode(nonce)).expect("base64 is visible ASCII")
}

/// What answers `key` (RFC 6455, 4.2.2).
pub fn accept_of(key: &HeaderValue) -> HeaderValue {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(GUID);
    HeaderValue::try_from(STANDARD.encode(context.finish())).expect("base64 is visible ASCII")
}

/// Whether a WebSocket is among the protocols that `Upgrade` offers.
pub fn is_offered(headers: &HeaderMap) -> bool {
    let options = |value: &HeaderValue| {
        let mut names = value.as_bytes().split(|byte| *byte == b',');
        names.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"websocket"))
    };
    headers.get_all(header::UPGRADE).iter().any(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_answered_as_in_the_rfc() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept_of(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(STANDARD.decode(new_key()).map(|key| key.len()), Ok(16));
        assert_ne!(new_key(), new_key());
    }
}
