//! What must hold of any head, for the fuzz targets.
//!
//! Owns: the properties of `headers`. Compiled with the feature `fuzzing` only.

use http::{HeaderMap, HeaderName, header};

use super::headers;

/// Fields of one hop (RFC 9110, 7.6.1) and of the client's own credentials.
const NEVER: &[&str] = &[
    "connection",
    "close",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "proxy-authorization",
    "authorization",
    "dpop",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-real-ip",
    "x-original-url",
];

/// Of a head that is not refused, nothing is left that belongs to one hop or to the client, and nothing that it nominates.
pub fn request(mut fields: HeaderMap) {
    let nominated = nominated(&fields);
    let mut remove = Vec::new();
    if headers::judge_request(&fields, (true, false), super::Underscores::Reject, &[], &mut remove).is_err() {
        return;
    }
    for name in &remove {
        fields.remove(name);
    }
    // The credential is set over the client's own.
    fields.insert(header::AUTHORIZATION, "Bearer ours".parse().expect("a value"));
    for name in NEVER.iter().filter(|name| **name != "authorization") {
        assert!(!fields.contains_key(*name), "{name}");
    }
    assert_eq!(fields.get_all(header::AUTHORIZATION).iter().count(), 1);
    for name in nominated.iter().filter(|name| !headers::is_protected(name.as_str())) {
        assert!(!fields.contains_key(name), "{name} was nominated");
    }
}

/// An answer that is not refused has one length at most, and none beside a coding.
pub fn answer(mut fields: HeaderMap) {
    let mut remove = Vec::new();
    let Ok(framing) = headers::judge_answer(&fields, &mut remove) else { return };
    for name in &remove {
        fields.remove(name);
    }
    assert!(!fields.contains_key(header::CONNECTION) && !fields.contains_key(header::TRANSFER_ENCODING));
    assert!(!framing.chunked || !fields.contains_key(header::CONTENT_LENGTH));
    if !framing.chunked {
        assert_eq!(framing.length.is_some(), fields.contains_key(header::CONTENT_LENGTH));
    }
}

fn nominated(fields: &HeaderMap) -> Vec<HeaderName> {
    let lines = fields.get_all(header::CONNECTION).iter();
    let words = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    words.filter_map(|word| HeaderName::from_bytes(word.trim_ascii()).ok()).collect()
}
