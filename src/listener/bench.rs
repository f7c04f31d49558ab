//! What the benchmarks call of a listener. No part of the library's interface.

use bytes::Bytes;

use super::http1::read_all;

/// Reads a stream of requests; how many there are.
///
/// # Panics
/// Where one is refused.
pub fn read_requests(stream: &Bytes) -> usize {
    read_all(&mut std::iter::once(stream.clone()), &mut |_, _, _| {}).expect("requests")
}
