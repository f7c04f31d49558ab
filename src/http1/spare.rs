//! Memory that the next connection of this worker uses while it is still in the cache.
//!
//! Owns: one buffer for reading and one for writing, of a bounded size. What is kept is empty, so nothing of one exchange
//! reaches another.

use std::cell::Cell;

use bytes::BytesMut;

/// Room for the head of most requests.
const HEAD: usize = 2048;
/// What is larger is given back to the system.
const MOST: usize = 64 * 1024;

thread_local! {
    static BUFFER: Cell<BytesMut> = Cell::new(BytesMut::new());
    static BYTES: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// An empty buffer with room for so much.
pub(super) fn take_buffer(room: usize) -> BytesMut {
    let buffer = BUFFER.take();
    if buffer.capacity() >= room && buffer.capacity() <= room * 2 {
        buffer
    } else {
        BytesMut::with_capacity(room)
    }
}

/// Keeps a buffer that nothing was read into.
pub(super) fn keep_buffer(buffer: BytesMut) {
    if buffer.is_empty() && buffer.capacity() <= MOST {
        BUFFER.set(buffer);
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
