//! Heads of answers, written (RFC 9112, 4 to 7 and 9.3).
//!
//! Owns: how an answer's body is framed for who asked, and whether the connection goes on behind it.

use http::response::Parts;
use http::{HeaderMap, Method, StatusCode, Version, header};

use super::date;
use crate::clock::Clock;
use crate::http1::{Http1Error, Writing, parse_digits, persists};

/// Of the request that is answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct For {
    /// Its answer has no body, whatever its head says.
    head: bool,
    connect: bool,
    /// It came by HTTP/1.0.
    old: bool,
    /// The client keeps its connection open.
    persists: bool,
}

impl For {
    pub(super) fn new(method: &Method, version: Version, persists: bool) -> Self {
        Self {
            head: *method == Method::HEAD,
            connect: *method == Method::CONNECT,
            old: version == Version::HTTP_10,
            persists,
        }
    }

    /// Whether a client of HTTP/1.1 asked: others know no interim answers.
    pub(super) fn knows_interims(self) -> bool {
        !self.old
    }
}

/// What was said of the body by the head that was written.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) framing: Writing,
    /// Whether the connection goes on.
    pub(super) persists: bool,
}

/// Writes the head of an answer. `length`: of its body, where it is known; `last`: the connection ends with it.
pub(super) fn write(
    head: &Parts,
    length: Option<u64>,
    asked: For,
    last: bool,
    clock: &Clock,
    out: &mut Vec<u8>,
) -> Result<Said, Http1Error> {
    out.extend_from_slice(if asked.old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    write_status(head.status, out);
    let status = head.status;
    let switches = status == StatusCode::SWITCHING_PROTOCOLS || (asked.connect && status.is_success());
    let empty = switches
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let mut told = None;
    let mut dated = false;
    for (name, value) in &head.headers {
        if *name == header::CONTENT_LENGTH {
            let length = parse_digits(value.as_bytes()).ok_or(Http1Error::Body)?;
            // RFC 9110, 8.6: none has one that has no body, but for who asked with HEAD. An old client would wait for it.
            if told.is_some() || (empty && !(asked.head && status == StatusCode::NOT_MODIFIED)) {
                continue;
            }
            told = Some(length);
        } else if *name == header::TRANSFER_ENCODING {
            continue;
        } else if *name == header::DATE {
            dated = true;
        }
        write_field(name.as_str(), value.as_bytes(), out);
    }
    let bodiless = empty || asked.head;
    let framing = match told.or(length) {
        length if bodiless => {
            // What GET would get, where that is known.
            if let Some(length) = length.filter(|length| *length > 0 && told.is_none() && !empty) {
                write_field("content-length", itoa::Buffer::new().format(length).as_bytes(), out);
            }
            Writing::Done
        }
        Some(length) => {
            if told.is_none() {
                write_field("content-length", itoa::Buffer::new().format(length).as_bytes(), out);
            }
            Writing::length(length)
        }
        None if asked.old => Writing::ToTheEnd,
        None => {
            write_field("transfer-encoding", b"chunked", out);
            Writing::chunked(head.headers.get_all(header::TRAILER))
        }
    };
    let persists = !switches
        && asked.persists
        && !last
        && !matches!(framing, Writing::ToTheEnd)
        && persists(false, &head.headers);
    if !switches {
        write_connection(&head.headers, persists, asked.old, out);
    }
    if !dated {
        out.extend_from_slice(b"date: ");
        date::write(clock, out);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Ok(Said { framing, persists })
}

/// Writes an interim answer.
pub(super) fn write_interim(status: StatusCode, headers: &HeaderMap, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    write_status(status, out);
    for (name, value) in headers {
        write_field(name.as_str(), value.as_bytes(), out);
    }
    out.extend_from_slice(b"\r\n");
}

fn write_status(status: StatusCode, out: &mut Vec<u8>) {
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[inline]
fn write_field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// What is not the rule is said, once.
fn write_connection(headers: &HeaderMap, persists: bool, old: bool, out: &mut Vec<u8>) {
    if headers.contains_key(header::CONNECTION) {
        return;
    }
    match (persists, old) {
        (false, false) => write_field("connection", b"close", out),
        (true, true) => write_field("connection", b"keep-alive", out),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;
    use crate::clock::{ManualClock, UnixTime};

    #[tokio::test(start_paused = true)]
    async fn answers_are_framed_for_who_asked() {
        let clock = Clock::Manual(ManualClock::starting_at(UnixTime::from_millis(784_111_777_000)));
        let get = For::new(&Method::GET, Version::HTTP_11, true);
        let old = For::new(&Method::GET, Version::HTTP_10, true);
        let old_once = For::new(&Method::GET, Version::HTTP_10, false);
        let head = For::new(&Method::HEAD, Version::HTTP_11, true);
        let connect = For::new(&Method::CONNECT, Version::HTTP_11, true);
        let check =
            |asked: For, status: u16, fields: &[(&str, &str)], length: Option<u64>, expected: &str| {
                let mut answer = Response::builder().status(status).header("date", "now");
                for (name, value) in fields {
                    answer = answer.header(*name, *value);
                }
                let (head, ()) = answer.body(()).expect("an answer").into_parts();
                let mut out = Vec::new();
                let said = write(&head, length, asked, false, &clock, &mut out).expect("written");
                let persists = if said.persists { "keeps" } else { "ends" };
                let text = String::from_utf8(out).expect("text").replace("\r\n", "|");
                assert_eq!(format!("{text} {persists}"), expected, "{status} {fields:?}");
            };
        check(get, 200, &[], Some(0), "HTTP/1.1 200 OK|date: now|content-length: 0|| keeps");
        check(
            get,
            299,
            &[("content-length", "5")],
            Some(5),
            "HTTP/1.1 299 |date: now|content-length: 5|| keeps",
        );
        check(get, 200, &[], None, "HTTP/1.1 200 OK|date: now|transfer-encoding: chunked|| keeps");
        check(
            get,
            200,
            &[("connection", "close")],
            Some(1),
            "HTTP/1.1 200 OK|date: now|connection: close|content-length: 1|| ends",
        );
        check(old, 200, &[], None, "HTTP/1.0 200 OK|date: now|| ends");
        check(
            old,
            200,
            &[],
            Some(1),
            "HTTP/1.0 200 OK|date: now|content-length: 1|connection: keep-alive|| keeps",
        );
        check(old_once, 200, &[], Some(1), "HTTP/1.0 200 OK|date: now|content-length: 1|| ends");
        check(
            head,
            200,
            &[("content-length", "5")],
            Some(0),
            "HTTP/1.1 200 OK|date: now|content-length: 5|| keeps",
        );
        check(head, 200, &[], Some(0), "HTTP/1.1 200 OK|date: now|| keeps");
        check(head, 404, &[], Some(9), "HTTP/1.1 404 Not Found|date: now|content-length: 9|| keeps");
        check(get, 204, &[("content-length", "5")], Some(0), "HTTP/1.1 204 No Content|date: now|| keeps");
        check(get, 304, &[("content-length", "5")], Some(0), "HTTP/1.1 304 Not Modified|date: now|| keeps");
        check(
            get,
            101,
            &[("connection", "upgrade")],
            Some(0),
            "HTTP/1.1 101 Switching Protocols|date: now|connection: upgrade|| ends",
        );
        check(connect, 200, &[], Some(0), "HTTP/1.1 200 OK|date: now|| ends");
        check(connect, 403, &[], Some(2), "HTTP/1.1 403 Forbidden|date: now|content-length: 2|| keeps");
    }
}
