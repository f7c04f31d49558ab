//! What must hold of the bytes of any client, for the fuzz targets.
//!
//! Owns: the properties of reading requests. Compiled with the feature `fuzzing` only.

use bytes::Bytes;

use super::http1::read_all;

fn read(pieces: &mut dyn Iterator<Item = Bytes>) -> (Vec<String>, Result<usize, String>) {
    let mut found = Vec::new();
    let outcome = read_all(pieces, &mut |head, data, whole| {
        found.push(format!("{head:?} {:?} {whole}", data.concat()));
    });
    (found, outcome)
}

/// A stream is read alike however it is cut, up to the place where it is refused.
///
/// # Panics
/// Where it is not.
pub fn stream(bytes: &[u8], size: usize) {
    let whole = read(&mut std::iter::once(Bytes::copy_from_slice(bytes)));
    let cut = read(&mut bytes.chunks(size.max(1)).map(Bytes::copy_from_slice));
    assert_eq!(whole, cut, "{size} bytes at once");
}
