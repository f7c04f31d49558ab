//! Reading whole requests from pieces, for the fuzz target and the benchmarks. Not part of the program.
//!
//! Owns: nothing but the loop that a connection has otherwise.

use bytes::Bytes;

use super::head::{HeadLimits, read_request};
use crate::http1::Reading;

/// What is read of requests that come in these pieces, up to the first that is refused or not whole: `each` gets head,
/// body, whether the body was whole, and what is left.
pub(in crate::listener) fn read_all(
    pieces: &mut dyn Iterator<Item = Bytes>,
    each: &mut dyn FnMut(&http::request::Parts, &[Bytes], bool),
) -> Result<usize, String> {
    let limits = HeadLimits { bytes: 32 * 1024, fields: 100 };
    let (mut unread, mut count) = (Bytes::new(), 0);
    let mut fill = |unread: &mut Bytes| match pieces.next() {
        Some(piece) if unread.is_empty() => {
            *unread = piece;
            true
        }
        Some(piece) => {
            *unread = [&unread[..], &piece[..]].concat().into();
            true
        }
        None => false,
    };
    loop {
        let mut again = false;
        let asked = loop {
            match read_request(&mut unread, limits, again) {
                Ok(Some(asked)) => break asked,
                Ok(None) => again = !unread.is_empty(),
                Err(reason) => return Err(format!("{count} {reason:?}")),
            }
            if !fill(&mut unread) {
                return Ok(count);
            }
        };
        count += 1;
        let (mut reading, mut data) = (asked.body, Vec::new());
        let whole = loop {
            match reading.take(&mut unread) {
                Ok(Some(frame)) => data.extend(frame.into_data()),
                Ok(None) if reading == Reading::Done => break true,
                Ok(None) if fill(&mut unread) => {}
                Ok(None) | Err(_) => break false,
            }
        };
        each(&asked.head, &data, whole);
        if let Some(malformed) = asked.malformed {
            return Err(format!("{count} {malformed:?}"));
        }
        if !whole || !asked.persists {
            return Ok(count);
        }
    }
}
