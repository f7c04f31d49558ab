//! Answers of a token endpoint: first byte and second byte choose preset and status, then header lines, an empty line, a body.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

const STATUSES: [u16; 12] = [200, 201, 204, 302, 400, 401, 403, 408, 429, 500, 502, 503];

fuzz_target!(|data: &[u8]| {
    let [preset, status, rest @ ..] = data else { return };
    let end = rest.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = end.map_or((&rest[..0], rest), |at| (&rest[..at], &rest[at + 2..]));
    let mut headers = HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii())) {
            headers.append(name, value);
        }
    }
    let status = STATUSES[usize::from(*status) % STATUSES.len()];
    bearward::oauth::fuzzing::answer(status, headers, body, usize::from(*preset));
});
