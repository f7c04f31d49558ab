//! Memory that the next connection of this worker uses while it is still in the cache.
//!
//! Owns: one buffer of each size for reading, one for writing, and a few maps of fields. What is kept is empty, so nothing of one exchange
//! reaches another.

use std::cell::{Cell, RefCell};

use bytes::BytesMut;
use http::HeaderMap;

/// Room for the head of most requests.
const HEAD: usize = 2048;
/// What is larger is given back to the system.
const MOST: usize = 64 * 1024;
/// Maps of fields that are kept, and for how many fields at most.
const MAPS: usize = 16;
const FIELDS: usize = 128;
/// Sizes of buffers for reading: 4 KiB times a power of two, up to 64 KiB.
const SIZES: usize = 5;

thread_local! {
    static BUFFERS: [Cell<BytesMut>; SIZES] = std::array::from_fn(|_| Cell::new(BytesMut::new()));
    static BYTES: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static MAPS_KEPT: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

fn size_of(room: usize) -> usize {
    (room / 4096).max(1).ilog2() as usize
}

/// An empty buffer with room for so much.
pub(super) fn take_buffer(room: usize) -> BytesMut {
    let buffer = BUFFERS.with(|buffers| buffers.get(size_of(room)).map(Cell::take));
    buffer.filter(|buffer| buffer.capacity() >= room).unwrap_or_else(|| BytesMut::with_capacity(room))
}

/// Keeps a buffer that nothing was read into.
pub(super) fn keep_buffer(buffer: BytesMut, room: usize) {
    if buffer.is_empty() && buffer.capacity() <= MOST {
        BUFFERS.with(|buffers| buffers.get(size_of(room)).map(|kept| kept.set(buffer)));
    }
}

/// Empty memory for what is to be written.
pub(super) fn take_bytes() -> Vec<u8> {
    let bytes = BYTES.take();
    if bytes.capacity() >= HEAD { bytes } else { Vec::with_capacity(HEAD) }
}

/// Keeps the memory of what was written.
pub(super) fn keep_bytes(mut bytes: Vec<u8>) {
    if bytes.capacity() <= MOST {
        // A token may have been in it: only what is written next is ever read.
        bytes.clear();
        BYTES.set(bytes);
    }
}

/// An empty map with room for so many fields.
pub fn take_fields(room: usize) -> HeaderMap {
    match MAPS_KEPT.with_borrow_mut(Vec::pop) {
        Some(mut map) => {
            map.reserve(room);
            map
        }
        None => HeaderMap::with_capacity(room),
    }
}

/// Keeps the memory of a map of fields. What was in it is dropped.
pub fn keep_fields(mut map: HeaderMap) {
    if map.capacity() > FIELDS {
        return;
    }
    map.clear();
    MAPS_KEPT.with_borrow_mut(|kept| {
        if kept.len() < MAPS && map.capacity() > 0 {
            kept.push(map);
        }
    });
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;

    #[test]
    fn a_map_that_is_used_again_is_empty() {
        let mut map = take_fields(4);
        map.append(header::COOKIE, HeaderValue::from_static("a"));
        map.append(header::COOKIE, HeaderValue::from_static("b"));
        let capacity = map.capacity();
        keep_fields(map);
        let map = take_fields(1);
        assert_eq!((map.len(), map.capacity()), (0, capacity));
        assert!(map.get(header::COOKIE).is_none());
    }

    #[test]
    fn only_so_much_is_kept() {
        keep_fields(HeaderMap::with_capacity(FIELDS * 2));
        assert!(take_fields(1).capacity() < FIELDS);
        (0..MAPS * 2).for_each(|_| keep_fields(HeaderMap::with_capacity(8)));
        assert_eq!(MAPS_KEPT.with_borrow(Vec::len), MAPS);
    }
}
