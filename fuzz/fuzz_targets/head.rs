//! Bytes of a client: told apart alike however they are cut; what passes of a head belongs to no hop and to no client.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&size, stream)) = data.split_first() else { return };
    bearward::listener::fuzzing::stream(stream, usize::from(size));
    let mut lines = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut lines);
    if matches!(request.parse(stream), Ok(httparse::Status::Complete(_))) {
        bearward::proxy::fuzzing::request(fields(request.headers));
        bearward::proxy::fuzzing::answer(fields(request.headers));
    }
});

fn fields(lines: &[httparse::Header<'_>]) -> HeaderMap {
    let field = |line: &httparse::Header<'_>| {
        Some((HeaderName::from_bytes(line.name.as_bytes()).ok()?, HeaderValue::from_bytes(line.value).ok()?))
    };
    let mut map = HeaderMap::new();
    for (name, value) in lines.iter().filter_map(field) {
        map.append(name, value);
    }
    map
}
