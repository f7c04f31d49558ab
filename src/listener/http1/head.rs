//! Heads of requests, read (RFC 9112, 3 to 6).
//!
//! Owns: what of a head is refused before anything else looks at it, and how the body behind it is framed. Never decides
//! what passes on: that is the proxy's matter, which sees every field.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header};

use crate::http1::{Reading, has_bare_line_feed, may_be_whole, parse_digits, persists, take_fields};
use crate::proxy::{BadHead, Malformed};

/// Fields for which there is room without asking for memory.
const USUAL_FIELDS: usize = 100;
/// Fields that the proxy adds to those of a client.
const ADDED_FIELDS: usize = 8;

/// From this length on no target is taken, whatever the limits are.
const MAX_TARGET: usize = 65_535;

/// How much of a head is taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadLimits {
    pub(super) bytes: usize,
    pub(super) fields: usize,
}

/// What a client asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) head: Parts,
    /// How its body is framed.
    pub(super) body: Reading,
    /// Whether the connection may serve a further request.
    pub(super) persists: bool,
    /// Why it is answered and not served.
    pub(super) malformed: Option<Malformed>,
    /// The client waits for a 100 before it sends the body.
    pub(super) expects: bool,
}

/// Takes the head of a request out of what was read; `None` as long as it is not there whole. `again`: it was looked at
/// before, and was not whole.
pub(super) fn read_request(
    read: &mut Bytes,
    limits: HeadLimits,
    again: bool,
) -> Result<Option<Asked>, BadHead> {
    // What comes in small pieces is not parsed from its beginning for each.
    if again && read.len() < limits.bytes && !may_be_whole(read) {
        return Ok(None);
    }
    let whole = read.clone();
    let parsed = if limits.fields <= USUAL_FIELDS {
        let mut fields = [const { MaybeUninit::uninit() }; USUAL_FIELDS];
        parse(&whole, limits.bytes, &mut fields[..limits.fields])
    } else {
        parse(&whole, limits.bytes, &mut vec![MaybeUninit::uninit(); limits.fields])
    };
    Ok(parsed?.map(|(asked, length)| {
        read.advance(length);
        asked
    }))
}

/// The request whose head stands at the beginning of `read`, and the length of that head.
fn parse<'b>(
    read: &'b Bytes,
    limit: usize,
    fields: &mut [MaybeUninit<httparse::Header<'b>>],
) -> Result<Option<(Asked, usize)>, BadHead> {
    let mut parsed = httparse::Request::new(&mut []);
    // What lies beyond cannot make it better, and how much of it came does not matter.
    let taken = &read[..read.len().min(limit)];
    let length = match parsed.parse_with_uninit_headers(taken, fields) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if read.len() < limit => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(too_long(taken)),
        Err(httparse::Error::TooManyHeaders) => return Err(BadHead::TooLarge),
        Err(_) => return Err(BadHead::Malformed),
    };
    let (method, target) = (parsed.method.unwrap_or_default(), parsed.path.unwrap_or_default());
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = Method::from_bytes(method.as_bytes()).map_err(|_| BadHead::Malformed)?;
    head.uri = Uri::from_maybe_shared(read.slice_ref(target.as_bytes()))
        .map_err(|_| if target.len() >= MAX_TARGET { BadHead::TargetTooLong } else { BadHead::Malformed })?;
    let old = parsed.version == Some(0);
    head.version = if old { Version::HTTP_10 } else { Version::HTTP_11 };
    head.headers = take_fields(parsed.headers.len() + ADDED_FIELDS);
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| BadHead::Malformed)?;
        let value = if field.value.is_empty() { Bytes::new() } else { read.slice_ref(field.value) };
        head.headers.append(name, HeaderValue::from_maybe_shared(value).map_err(|_| BadHead::Malformed)?);
    }
    let Framing { body, twice } = framing(old, &head.headers)?;
    let malformed = if twice {
        Some(Malformed::Framing)
    } else if has_bare_line_feed(&read[..length]) {
        Some(Malformed::LineFeed)
    } else {
        target.contains('#').then_some(Malformed::Fragment)
    };
    // Where nobody can be sure where the next one begins, there is none.
    let last = matches!(malformed, Some(Malformed::Framing | Malformed::LineFeed));
    let persists = !last && persists(old, &head.headers);
    let body = if last { Reading::Done } else { body };
    let expects = !old && body != Reading::Done && expects(&head.headers);
    Ok(Some((Asked { head, body, persists, malformed, expects }, length)))
}

/// What of a head is too long: its target, if it came no further.
fn too_long(read: &[u8]) -> BadHead {
    let begun = read.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(0);
    let line = &read[begun..];
    if line.contains(&b' ') && !line.contains(&b'\n') { BadHead::TargetTooLong } else { BadHead::TooLarge }
}

struct Framing {
    body: Reading,
    /// It is told more than once.
    twice: bool,
}

/// RFC 9112, 6.
fn framing(old: bool, headers: &HeaderMap) -> Result<Framing, BadHead> {
    let (mut lengths, mut length) = (0_u32, 0);
    for value in headers.get_all(header::CONTENT_LENGTH) {
        length = parse_digits(value.as_bytes()).ok_or(BadHead::Malformed)?;
        lengths += 1;
    }
    let (mut codings, mut chunked) = (0_u32, false);
    for value in headers.get_all(header::TRANSFER_ENCODING) {
        let last = value.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default();
        chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
        codings += 1;
    }
    // RFC 9112, 6.1: HTTP/1.0 has no codings, and a request's last one is `chunked`.
    if codings > 0 && (old || !chunked) {
        return Err(BadHead::Malformed);
    }
    let body = match (codings, length) {
        (1.., _) => Reading::strictly_chunked(),
        (_, 0) => Reading::Done,
        (_, length) => Reading::Length(length),
    };
    Ok(Framing { body, twice: lengths + codings > 1 })
}

/// RFC 9110, 10.1.1.
fn expects(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 1024, fields: 10 };

    fn read(wire: &str) -> Result<Option<(Asked, Bytes)>, BadHead> {
        let mut read = Bytes::copy_from_slice(wire.as_bytes());
        Ok(read_request(&mut read, LIMITS, false)?.map(|asked| (asked, read)))
    }

    #[test]
    fn bodies_are_framed_as_their_heads_say() {
        let check = |fields: &str, body: Reading, persists: bool| {
            let (asked, rest) =
                read(&format!("POST / HTTP/1.1\r\n{fields}\r\nrest")).expect(fields).expect(fields);
            assert_eq!((asked.body, asked.persists, asked.malformed), (body, persists, None), "{fields:?}");
            assert_eq!(rest, "rest");
        };
        check("", Reading::Done, true);
        check("Content-Length: 5\r\n", Reading::Length(5), true);
        check("content-length:\t 5 \r\n", Reading::Length(5), true);
        check("Content-Length: 0\r\nConnection: x, close\r\n", Reading::Done, false);
        check("Transfer-Encoding: Chunked\r\n", Reading::strictly_chunked(), true);
        check("Transfer-Encoding: gzip, chunked\r\n", Reading::strictly_chunked(), true);
        check("Content-Length-X: 5\r\n", Reading::Done, true);
    }

    #[test]
    fn heads_of_two_readings_are_told() {
        let check = |wire: &str, malformed: Malformed, persists: bool| {
            let (asked, _) = read(wire).expect(wire).expect(wire);
            assert_eq!((asked.malformed, asked.persists), (Some(malformed), persists), "{wire:?}");
            assert!(persists || asked.body == Reading::Done, "{wire:?}");
        };
        check("GET / HTTP/1.1\n\r\n", Malformed::LineFeed, false);
        check("\nGET / HTTP/1.1\r\n\r\n", Malformed::LineFeed, false);
        check("POST / HTTP/1.1\r\nContent-Length: 5\nC: d\r\n\r\n", Malformed::LineFeed, false);
        check("GET / HTTP/1.1\r\nA: b\r\n\n", Malformed::LineFeed, false);
        check("GET /#a HTTP/1.1\r\n\r\n", Malformed::Fragment, true);
        for lines in [
            "Content-Length: 1\r\ncontent-length: 1\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ] {
            check(&format!("POST / HTTP/1.1\r\n{lines}\r\n"), Malformed::Framing, false);
        }
    }

    #[test]
    fn heads_that_are_none_are_refused() {
        let check = |wire: &str, reason: BadHead| assert_eq!(read(wire).err(), Some(reason), "{wire:?}");
        for wire in [
            "HELLO\r\n\r\n",
            "GET /\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "GET / HTTP/1.2\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "G\0T / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\na : b\r\n\r\n",
            "GET / HTTP/1.1\r\na: b\r\n c\r\n\r\n",
            "GET / HTTP/1.1\r\na\r\n\r\n",
            "GET / HTTP/1.1\r\na: b\rc: d\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            check(wire, BadHead::Malformed);
        }
        check(&format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(11)), BadHead::TooLarge);
        check(&format!("GET / HTTP/1.1\r\na: {}", "b".repeat(1024)), BadHead::TooLarge);
        check(&format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(1024)), BadHead::TooLarge);
        check(&format!("GET /{}", "b".repeat(1024)), BadHead::TargetTooLong);
        check(&format!("\r\n\r\nGET /{}", "b".repeat(1024)), BadHead::TargetTooLong);
        check(&format!("GET /{} HTTP/1.1\r\nno field\r\n\r\n", "b".repeat(1024)), BadHead::TargetTooLong);
        check(&"G".repeat(1024), BadHead::TooLarge);
    }

    #[test]
    fn a_head_may_come_in_pieces() {
        let wire = "\r\nPOST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok";
        let head = wire.len() - 2;
        for end in 1..=wire.len() {
            for again in [false, true] {
                let mut read = Bytes::copy_from_slice(&wire.as_bytes()[..end]);
                let asked = read_request(&mut read, LIMITS, again).expect("good so far");
                assert_eq!(asked.is_some(), end >= head, "{end}");
                assert_eq!(read.len(), if end >= head { end - head } else { end });
            }
        }
    }

    #[test]
    fn only_who_sends_a_body_waits_to_be_asked_for_it() {
        let check = |wire: &str, expects: bool| {
            assert_eq!(read(wire).expect(wire).expect(wire).0.expects, expects, "{wire:?}");
        };
        check("POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\n", true);
        check("POST / HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n", true);
        check("POST / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n", false);
        check("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", false);
        check("POST / HTTP/1.1\r\nExpect: more\r\nContent-Length: 5\r\n\r\n", false);
    }
}
