//! Fields of messages (RFC 9110, 5; RFC 9112, 5 and 9.3).
//!
//! Owns: what both sides of the proxy read in them. Decides nothing of what passes.

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::Http1Error;

/// Fields at the end of a body.
const MAX_TRAILERS: usize = 100;

/// Whether the end of a head may be there: an empty line.
pub fn may_be_whole(read: &[u8]) -> bool {
    // A body behind it can only add to what is found, so the end is looked at last.
    let is_end = |at: usize| matches!(read.get(at + 1..), Some([b'\n', ..] | [b'\r', b'\n', ..]));
    memchr::memchr_iter(b'\n', read).any(is_end)
}

/// Whether a line ends with a line feed alone (RFC 9112, 2.2: some take it for an end of line, and some do not).
#[inline]
pub fn has_bare_line_feed(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r')
}

/// Whether a connection stays open behind a message with these fields (RFC 9112, 9.3). `old`: the message is of HTTP/1.0.
pub fn persists(old: bool, headers: &HeaderMap) -> bool {
    let says = |word: &[u8]| {
        headers.get_all(header::CONNECTION).iter().any(|line| {
            line.as_bytes()
                .split(|byte| *byte == b',')
                .any(|option| option.trim_ascii().eq_ignore_ascii_case(word))
        })
    };
    !says(b"close") && (!old || says(b"keep-alive"))
}

/// The number that is written so, in digits alone.
pub fn parse_digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The fields at the end of a body, with the empty line behind them; `None` as long as they are not there whole.
///
/// `strict`: no line ends with a bare line feed.
pub fn read_trailers(read: &mut Bytes, limit: usize, strict: bool) -> Result<Option<HeaderMap>, Http1Error> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    match httparse::parse_headers(read, &mut fields) {
        Ok(httparse::Status::Complete((length, _))) if strict && has_bare_line_feed(&read[..length]) => {
            Err(Http1Error::Malformed)
        }
        Ok(httparse::Status::Complete((length, fields))) => {
            let mut trailers = HeaderMap::new();
            for field in fields {
                let name =
                    HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Http1Error::Malformed)?;
                let value = HeaderValue::from_bytes(field.value).map_err(|_| Http1Error::Malformed)?;
                trailers.append(name, value);
            }
            read.advance(length);
            Ok(Some(trailers))
        }
        Ok(httparse::Status::Partial) if read.len() < limit => Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => Err(Http1Error::TooLarge),
        Err(_) => Err(Http1Error::Malformed),
    }
}
