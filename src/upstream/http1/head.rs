//! Heads of messages: how a request is written, how an answer is read (RFC 9112, 3 to 6).
//!
//! Owns: what of an answer's head is refused, and how its body is framed. Never decides what passes on: that is the
//! proxy's matter, which sees every field.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};

use crate::http1::{Http1Error, Reading, Writing, may_be_whole, parse_digits, persists, take_fields};
use crate::upstream::Beside;
use crate::upstream::beside::write_field;

/// The longest head of an answer.
pub(super) const MAX_HEAD: usize = 64 * 1024;
/// Fields of an answer.
const MAX_FIELDS: usize = 100;

/// Writes the head of a request, and tells how its body is written. `length`: of the body, where it is known; `bodiless`:
/// it has none.
pub(super) fn write_request(
    (head, beside): (&http::request::Parts, Beside<'_>),
    bodiless: bool,
    length: Option<u64>,
    out: &mut Vec<u8>,
) -> Result<Writing, Http1Error> {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    write_target(&head.uri, out);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut told = None;
    let mut chunked = false;
    for (name, value) in &head.headers {
        if *name == header::CONTENT_LENGTH {
            told = Some(parse_digits(value.as_bytes()).ok_or(Http1Error::Body)?);
        } else if *name == header::TRANSFER_ENCODING {
            if bodiless {
                continue;
            }
            chunked = true;
        }
        write_field(name, value, out);
    }
    beside.write(out);
    let writing = match (bodiless, chunked, told.or(length)) {
        // It may tell the length of nothing, and of nothing else.
        (true, _, length) if told.is_none() || length == Some(0) => Writing::Done,
        (true, ..) => return Err(Http1Error::Body),
        (false, true, _) if told.is_none() => Writing::chunked(head.headers.get_all(header::TRAILER)),
        (false, false, Some(length)) => {
            if told.is_none() {
                let mut digits = itoa::Buffer::new();
                out.extend_from_slice(b"content-length: ");
                out.extend_from_slice(digits.format(length).as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            Writing::length(length)
        }
        (false, false, None) => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Writing::chunked(head.headers.get_all(header::TRAILER))
        }
        (false, true, _) => return Err(Http1Error::Body),
    };
    out.extend_from_slice(b"\r\n");
    Ok(writing)
}

fn write_target(uri: &http::Uri, out: &mut Vec<u8>) {
    if let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) {
        out.extend_from_slice(scheme.as_bytes());
        out.extend_from_slice(b"://");
        out.extend_from_slice(authority.as_str().as_bytes());
    }
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    if target.starts_with('?') {
        out.push(b'/');
    }
    out.extend_from_slice(target.as_bytes());
}

/// What the head of an answer said.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) response: Response<()>,
    /// How its body is framed.
    pub(super) body: Reading,
    /// Whether the connection may serve a further request.
    pub(super) persists: bool,
}

/// Takes the head of an answer out of what was read; `None` as long as it is not there whole. `asked`: the method; `again`:
/// it was looked at before, and was not whole.
pub(super) fn read_answer(
    read: &mut Bytes,
    asked: &Method,
    again: bool,
) -> Result<Option<Answered>, Http1Error> {
    // What comes in small pieces is not parsed from its beginning for each.
    if again && !may_be_whole(read) {
        return if read.len() < MAX_HEAD { Ok(None) } else { Err(Http1Error::TooLarge) };
    }
    let mut config = httparse::ParserConfig::default();
    // RFC 9112, 5.1: a proxy removes a space before the colon of an answer's field.
    config.allow_spaces_after_header_name_in_responses(true);
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let length = match config.parse_response_with_uninit_headers(&mut parsed, read, &mut fields) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if read.len() < MAX_HEAD => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Http1Error::TooLarge),
        Err(_) => return Err(Http1Error::Malformed),
    };
    let status = StatusCode::from_u16(parsed.code.unwrap_or(0)).map_err(|_| Http1Error::Malformed)?;
    let old = parsed.version == Some(0);
    let mut headers = take_fields(parsed.headers.len());
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Http1Error::Malformed)?;
        let value = if field.value.is_empty() { Bytes::new() } else { read.slice_ref(field.value) };
        headers.append(name, HeaderValue::from_maybe_shared(value).map_err(|_| Http1Error::Malformed)?);
    }
    read.advance(length);
    let body = framing(status, old, &headers, asked)?;
    let persists = !matches!(body, Reading::ToTheEnd) && persists(old, &headers);
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = if old { Version::HTTP_10 } else { Version::HTTP_11 };
    *response.headers_mut() = headers;
    Ok(Some(Answered { response, body, persists }))
}

/// RFC 9112, 6.3.
fn framing(
    status: StatusCode,
    old: bool,
    headers: &HeaderMap,
    asked: &Method,
) -> Result<Reading, Http1Error> {
    if status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || asked == Method::HEAD
    {
        return Ok(Reading::Done);
    }
    if let Some(coding) = headers.get_all(header::TRANSFER_ENCODING).iter().next_back() {
        if old {
            return Err(Http1Error::Malformed);
        }
        let last = coding.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default();
        let chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
        return Ok(if chunked { Reading::chunked() } else { Reading::ToTheEnd });
    }
    let mut length = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        for text in value.as_bytes().split(|byte| *byte == b',') {
            let told = parse_digits(text.trim_ascii()).ok_or(Http1Error::Malformed)?;
            if length.is_some_and(|length| length != told) {
                return Err(Http1Error::Malformed);
            }
            length = Some(told);
        }
    }
    Ok(match length {
        Some(0) => Reading::Done,
        Some(length) => Reading::Length(length),
        None => Reading::ToTheEnd,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(wire: &'static str, asked: Method) -> Result<Option<(Answered, Bytes)>, Http1Error> {
        let mut read = Bytes::from_static(wire.as_bytes());
        Ok(read_answer(&mut read, &asked, false)?.map(|answered| (answered, read)))
    }

    #[test]
    fn answers_are_framed_as_their_heads_say() {
        let check = |wire: &'static str, asked: Method, body: Reading, persists: bool| {
            let (answered, _) = answer(wire, asked).expect(wire).expect(wire);
            assert_eq!((answered.body, answered.persists), (body, persists), "{wire:?}");
        };
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        check(ok, Method::GET, Reading::Length(5), true);
        check(ok, Method::HEAD, Reading::Done, true);
        check("HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", Method::GET, Reading::Done, true);
        check("HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\n", Method::GET, Reading::Done, true);
        check("HTTP/1.1 200 x\r\nContent-Length: 5, 5\r\n\r\n", Method::GET, Reading::Length(5), true);
        check("HTTP/1.1 200 x\r\nContent-Length: 0\r\n\r\n", Method::GET, Reading::Done, true);
        check("HTTP/1.1 200 x\r\n\r\n", Method::GET, Reading::ToTheEnd, false);
        check("HTTP/1.1 200 x\r\ntransfer-encoding : Chunked\r\n\r\n", Method::GET, Reading::chunked(), true);
        check("HTTP/1.1 200 x\r\nTransfer-Encoding: gzip\r\n\r\n", Method::GET, Reading::ToTheEnd, false);
        check(
            "HTTP/1.1 200 x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            Method::GET,
            Reading::chunked(),
            true,
        );
        check(
            "HTTP/1.1 200 x\r\nContent-Length: 5\r\nConnection: x, Close\r\n\r\n",
            Method::GET,
            Reading::Length(5),
            false,
        );
        check("HTTP/1.0 200 x\r\nContent-Length: 5\r\n\r\n", Method::GET, Reading::Length(5), false);
        check(
            "HTTP/1.0 200 x\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n",
            Method::GET,
            Reading::Length(5),
            true,
        );
    }

    #[test]
    fn heads_that_are_none_are_refused() {
        for wire in [
            "HELLO\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\r\n c: d\r\n\r\n",
        ] {
            assert!(matches!(answer(wire, Method::GET), Err(Http1Error::Malformed)), "{wire:?}");
        }
    }

    #[test]
    fn a_head_may_come_in_pieces() {
        let wire = b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 2\r\n\r\nok";
        let head = wire.len() - 2;
        for end in 1..=wire.len() {
            for again in [false, true] {
                let mut read = Bytes::copy_from_slice(&wire[..end]);
                let answered = read_answer(&mut read, &Method::GET, again).expect("good so far");
                assert_eq!(answered.is_some(), end >= head, "{end}");
                assert_eq!(read.len(), if end >= head { end - head } else { end });
            }
        }
    }

    #[test]
    fn long_heads_are_refused() {
        let fields = |count: usize| {
            let fields = "a: b\r\n".repeat(count);
            let mut read = Bytes::from(format!("HTTP/1.1 200 OK\r\n{fields}\r\n"));
            read_answer(&mut read, &Method::GET, false)
        };
        assert!(matches!(fields(100), Ok(Some(_))));
        assert!(matches!(fields(101), Err(Http1Error::TooLarge)));
        for end in ["", "\r\n\r\n"] {
            let mut read = Bytes::from(format!("HTTP/1.1 200 OK\r\na: {}{end}", "b".repeat(MAX_HEAD)));
            assert!(matches!(read_answer(&mut read, &Method::GET, false), Err(Http1Error::TooLarge)));
        }
    }

    #[test]
    fn requests_are_written_as_their_bodies_are() {
        let check = |request: http::request::Builder, bodiless: bool, length: Option<u64>, expected: &str| {
            let (head, ()) = request.body(()).expect("request").into_parts();
            let mut out = Vec::new();
            write_request((&head, Beside::default()), bodiless, length, &mut out).expect("written");
            assert_eq!(String::from_utf8_lossy(&out), expected);
        };
        let request = || http::Request::builder().uri("/a?b").header("host", "h");
        check(request(), true, None, "GET /a?b HTTP/1.1\r\nhost: h\r\n\r\n");
        check(request(), true, Some(0), "GET /a?b HTTP/1.1\r\nhost: h\r\n\r\n");
        let posted = || request().method("POST");
        check(
            posted().header("content-length", "0"),
            true,
            Some(0),
            "POST /a?b HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n",
        );
        check(posted(), false, Some(3), "POST /a?b HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\n");
        check(posted(), false, None, "POST /a?b HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n");
        check(
            posted().header("transfer-encoding", "chunked"),
            false,
            None,
            "POST /a?b HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n",
        );
        let target = |uri: &str| http::Request::builder().uri(uri);
        check(target("http://h:81/x"), true, None, "GET http://h:81/x HTTP/1.1\r\n\r\n");
        check(target("http://h?q"), true, None, "GET http://h/?q HTTP/1.1\r\n\r\n");
        check(target("*").method("OPTIONS"), true, None, "OPTIONS * HTTP/1.1\r\n\r\n");
        let bad = posted().header("content-length", "5").body(()).expect("request").into_parts().0;
        assert!(write_request((&bad, Beside::default()), true, None, &mut Vec::new()).is_err());
    }
}
