//! What a fuzz target calls of the upstream side. Not part of the program.

use bytes::Bytes;
use http::Method;

/// Reads bytes as answers, whole and cut into pieces: what is read must not depend on how it came.
///
/// # Panics
/// Where it does.
pub fn answers(wire: &[u8], size: usize) {
    for asked in [Method::GET, Method::HEAD] {
        let whole = super::http1::read_all(&mut std::iter::once(Bytes::copy_from_slice(wire)), &asked);
        let mut pieces = wire.chunks(size.max(1)).map(Bytes::copy_from_slice);
        let cut = super::http1::read_all(&mut pieces, &asked);
        assert_eq!(whole, cut, "{size} bytes at once");
    }
}
