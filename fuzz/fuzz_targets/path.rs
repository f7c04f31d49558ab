//! Paths: the normal form is its own normal form, holds no dot segment, stays inside where it is said to, however often a server
//! decodes it, and is not read into a place where it is said not to be read.
#![no_main]

use bearward::route::path::{is_read_alike, normalize, stays_inside};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // What the parser of targets refuses does not come this far.
    if http::uri::PathAndQuery::try_from(text).is_err() {
        return;
    }
    let Ok(path) = normalize(text) else { return };
    assert_eq!(normalize(&path).expect("a normal form is one"), path);
    assert!(path.starts_with('/'));
    assert!(!path.split('/').any(|segment| matches!(segment, "." | "..")), "{path}");
    assert!(http::Uri::try_from(path.as_bytes()).is_ok(), "{path}");
    let rest = path.trim_start_matches('/');
    if stays_inside(rest) {
        let mut decoded = rest.as_bytes().to_vec();
        for _ in 0..4 {
            inside(&decoded);
            decoded = decode(&decoded);
        }
    }
    let there = is_there(&path);
    if is_read_alike(&path, |read| is_there(read) == there) {
        let mut decoded = path.as_bytes().to_vec();
        for _ in 0..4 {
            let merged = climb(&decoded);
            assert_eq!(is_there(&merged), there, "{path} is read as {merged}");
            decoded = decode(&decoded);
        }
    }
});

/// Merges slashes, takes `\` for one, and follows dot segments.
fn climb(path: &[u8]) -> String {
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in path.split(|byte| matches!(byte, b'/' | b'\\')) {
        match segment {
            b"" | b"." => {}
            b".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    format!("/{}", String::from_utf8_lossy(&kept.join(&b'/')))
}

/// Whether a path is read below `/a`, by one who takes it as it is.
fn is_there(path: &str) -> bool {
    path == "/a" || path.starts_with("/a/")
}

/// Percent-decodes once, as a server would.
fn decode(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        let plain = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match (bytes[at], plain.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

/// A server that takes `\` for `/` and merges slashes never climbs out.
fn inside(rest: &[u8]) {
    let mut depth = 0_i32;
    for segment in rest.split(|byte| matches!(byte, b'/' | b'\\')) {
        match segment {
            b"" | b"." => {}
            b".." => depth -= 1,
            _ => depth += 1,
        }
        assert!(depth >= 0, "{}", String::from_utf8_lossy(rest));
    }
}
