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

/// A stream is read alike however it is cut, up to the place where it is refused. A head that is not whole may be found
/// wrong at once or with its end: in pieces it is not looked at before its end may be there.
///
/// # Panics
/// Where it is not.
pub fn stream(bytes: &[u8], size: usize) {
    let pieces = || bytes.chunks(size.max(1)).map(Bytes::copy_from_slice);
    let whole = read(&mut std::iter::once(Bytes::copy_from_slice(bytes)));
    let mut cut = read(&mut pieces());
    if whole.1.is_err() && cut.1.is_ok() {
        cut = read(&mut pieces().chain([Bytes::from_static(b"\r\n\r\n")]));
    }
    assert_eq!(whole, cut, "{size} bytes at once");
}
