//! Request ids: the client's where it is harmless, else our own.

use std::cell::{Cell, RefCell};

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The field that carries the id, in both directions.
pub(super) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken from a client.
const MAX_LENGTH: usize = 128;
/// Of our own.
const LENGTH: usize = 24;
/// So many share one piece of memory.
const AT_ONCE: usize = 40;

/// Makes ids: a random part of this worker and a count.
#[derive(Debug)]
pub(super) struct RequestIds {
    prefix: u32,
    next: Cell<u64>,
    /// Memory for the next ones.
    room: RefCell<BytesMut>,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        Self { prefix: fastrand::u32(..), next: Cell::new(fastrand::u64(..)), room: RefCell::default() }
    }

    /// The id of a request: the client's single one, if it has a plain form, or a new one.
    pub(super) fn of(&self, headers: &HeaderMap) -> HeaderValue {
        let mut given = headers.get_all(&X_REQUEST_ID).iter();
        match (given.next(), given.next()) {
            (Some(id), None) if is_plain(id.as_bytes()) => id.clone(),
            _ => self.make(),
        }
    }

    fn make(&self) -> HeaderValue {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let count = self.next.get();
        self.next.set(count.wrapping_add(1));
        let number = u128::from(self.prefix) << 64 | u128::from(count);
        let mut text = [0; LENGTH];
        for (place, digit) in text.iter_mut().rev().enumerate() {
            *digit = DIGITS[(number >> (4 * place) & 15) as usize];
        }
        let mut room = self.room.borrow_mut();
        if room.capacity() < LENGTH {
            *room = BytesMut::with_capacity(LENGTH * AT_ONCE);
        }
        room.extend_from_slice(&text);
        HeaderValue::from_maybe_shared(room.split().freeze()).expect("hexadecimal digits are visible ASCII")
    }
}

fn is_plain(id: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:+/=@".contains(byte);
    !id.is_empty() && id.len() <= MAX_LENGTH && id.iter().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_id_is_taken_over() {
        let ids = RequestIds::new();
        let check = |given: &[&'static str], taken: bool| {
            let mut headers = HeaderMap::new();
            for id in given {
                headers.append(&X_REQUEST_ID, HeaderValue::from_static(id));
            }
            let id = ids.of(&headers);
            assert_eq!(given.first().is_some_and(|given| id == *given), taken, "{given:?}");
            assert!(taken || id.len() == 24);
        };
        check(&["0af7651916cd43dd8448eb211c80319c"], true);
        check(&["a:b/c+d=e@f.g_h-i"], true);
        check(&[], false);
        check(&[""], false);
        check(&["a b"], false);
        check(&["<script>"], false);
        check(&["a\"b"], false);
        check(&["a", "b"], false);
        assert_ne!(ids.make(), ids.make());
    }
}
