//! Where the messages of an HTTP/1.1 client begin and end, judged on the bytes themselves.
//!
//! Owns: the ways of writing a message that the parser behind takes though others read them differently, and those that it
//! drops without a word: bare line feeds, fragments, lengths said twice, blanks in chunk sizes. Hands on one head or body at
//! a time, so that each head is judged alone. Parses nothing else and changes no byte.

use std::io;

use crate::proxy::{Client, Malformed};

const CONTENT_LENGTH: &[u8] = b"content-length:";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";

/// A place in the stream of a client.
#[derive(Debug, Default)]
pub(super) struct Boundary {
    place: Place,
    head: Head,
    /// Heads that came whole.
    heads: u32,
    /// A line of a head that did not come whole.
    partial: Vec<u8>,
}

#[derive(Debug, Default)]
enum Place {
    #[default]
    Head,
    /// This many bytes of a body are still to come.
    Body(u64),
    Chunks(Chunks),
    /// The connection ends after this message: nothing more is judged.
    Last,
    Broken,
}

/// What was seen of the head so far.
#[derive(Debug, Default)]
struct Head {
    begun: bool,
    lengths: u8,
    codings: u8,
    length: u64,
    malformed: Option<Malformed>,
}

impl Boundary {
    /// How many of these bytes belong to the message at hand. The others are to be given again.
    #[inline]
    pub(super) fn judge(&mut self, bytes: &[u8], client: &Client) -> io::Result<usize> {
        match &mut self.place {
            Place::Head => Ok(self.judge_head(bytes, client)),
            Place::Body(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                if *left == 0 {
                    self.place = Place::Head;
                }
                Ok(taken)
            }
            Place::Chunks(chunks) => match chunks.judge(bytes) {
                Some((taken, ended)) => {
                    if ended {
                        self.place = Place::Head;
                    }
                    Ok(taken)
                }
                None => {
                    self.place = Place::Broken;
                    Err(io::ErrorKind::InvalidData.into())
                }
            },
            Place::Last => Ok(bytes.len()),
            Place::Broken => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// How many heads came whole.
    pub(super) fn heads(&self) -> u32 {
        self.heads
    }

    /// Whether all that came belongs to whole messages.
    pub(super) fn is_between(&self) -> bool {
        matches!(self.place, Place::Head) && !self.head.begun && self.partial.is_empty()
    }

    /// Whether a head has come no further than to its target.
    pub(super) fn is_in_target(&self) -> bool {
        matches!(self.place, Place::Head) && !self.head.begun && self.partial.contains(&b' ')
    }

    fn judge_head(&mut self, bytes: &[u8], client: &Client) -> usize {
        let mut from = 0;
        for at in memchr::memchr_iter(b'\n', bytes) {
            let line = &bytes[from..at];
            from = at + 1;
            let ended = if self.partial.is_empty() { self.head.line(line) } else { self.joined(line) };
            if ended {
                self.ended(client);
                return from;
            }
        }
        self.partial.extend_from_slice(&bytes[from..]);
        bytes.len()
    }

    #[cold]
    fn joined(&mut self, rest: &[u8]) -> bool {
        self.partial.extend_from_slice(rest);
        let line = std::mem::take(&mut self.partial);
        self.head.line(&line)
    }

    /// The head is whole.
    fn ended(&mut self, client: &Client) {
        let head = std::mem::take(&mut self.head);
        self.heads = self.heads.wrapping_add(1);
        let twice = head.lengths + head.codings > 1;
        let malformed = if twice { Some(Malformed::Framing) } else { head.malformed };
        if let Some(malformed) = malformed {
            client.malformed(self.heads, malformed);
        }
        self.place = match (malformed, head.codings, head.length) {
            (Some(Malformed::Framing | Malformed::LineFeed), ..) => Place::Last,
            (_, 1, _) => Place::Chunks(Chunks::default()),
            (_, _, 0) => Place::Head,
            (_, _, length) => Place::Body(length),
        };
    }
}

impl Head {
    /// Judges a line without its line feed; whether it ends the head.
    #[inline]
    fn line(&mut self, line: &[u8]) -> bool {
        let [text @ .., b'\r'] = line else {
            // RFC 9112, 2.2: may be taken for an end of line, and by some is not.
            self.malformed = Some(Malformed::LineFeed);
            let ended = line.is_empty() && self.begun;
            self.begun |= !line.is_empty();
            return ended;
        };
        if !self.begun {
            // RFC 9112, 2.2: an empty line before a request is skipped.
            self.begun = !text.is_empty();
            // Behind the method, which may hold one.
            if memchr::memrchr(b'#', text).is_some_and(|at| text[..at].contains(&b' ')) {
                self.malformed = Some(Malformed::Fragment);
            }
            return false;
        }
        match text.first() {
            None => return true,
            Some(b'c' | b'C') if begins(text, CONTENT_LENGTH) => {
                self.lengths = self.lengths.saturating_add(1).min(2);
                let digits = text[CONTENT_LENGTH.len()..].trim_ascii();
                // What is no number is refused by the parser behind.
                self.length =
                    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0);
            }
            Some(b't' | b'T') if begins(text, TRANSFER_ENCODING) => {
                self.codings = self.codings.saturating_add(1).min(2);
            }
            _ => {}
        }
        false
    }
}

fn begins(text: &[u8], name: &[u8]) -> bool {
    text.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name))
}

/// A chunked body (RFC 9112, 7.1).
#[derive(Debug, Default)]
struct Chunks {
    state: Chunk,
    size: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    #[default]
    Size,
    MoreSize,
    /// A blank behind the size: only an extension may follow.
    Blank,
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    /// At the beginning of a line behind the last chunk.
    Trailer,
    InTrailer,
    TrailerEnd,
    LastLf,
}

impl Chunks {
    /// How many bytes belong to the body, and whether it ends there. `None`: it is not well-formed.
    fn judge(&mut self, bytes: &[u8]) -> Option<(usize, bool)> {
        let mut at = 0;
        while at < bytes.len() {
            if self.state == Chunk::Data {
                let skipped = usize::try_from(self.size).unwrap_or(usize::MAX).min(bytes.len() - at);
                self.size -= skipped as u64;
                at += skipped;
                if self.size == 0 {
                    self.state = Chunk::DataCr;
                }
                continue;
            }
            let byte = bytes[at];
            at += 1;
            if self.state == Chunk::LastLf {
                return (byte == b'\n').then_some((at, true));
            }
            self.state = self.next(byte)?;
        }
        Some((at, false))
    }

    fn next(&mut self, byte: u8) -> Option<Chunk> {
        Some(match (self.state, byte) {
            (Chunk::Size | Chunk::MoreSize, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16)?;
                self.size = self.size.checked_mul(16)?.checked_add(u64::from(digit))?;
                Chunk::MoreSize
            }
            (Chunk::MoreSize | Chunk::Blank, b';') => Chunk::Extension,
            (Chunk::MoreSize | Chunk::Blank, b' ' | b'\t') => Chunk::Blank,
            (Chunk::MoreSize | Chunk::Extension, b'\r') => Chunk::SizeEnd,
            (Chunk::SizeEnd, b'\n') if self.size == 0 => Chunk::Trailer,
            (Chunk::SizeEnd, b'\n') => Chunk::Data,
            (Chunk::DataCr, b'\r') => Chunk::DataLf,
            (Chunk::DataLf, b'\n') => Chunk::Size,
            (Chunk::Trailer, b'\r') => Chunk::LastLf,
            (Chunk::InTrailer, b'\r') => Chunk::TrailerEnd,
            (Chunk::TrailerEnd, b'\n') => Chunk::Trailer,
            (Chunk::Extension, byte) if is_text(byte) => Chunk::Extension,
            (Chunk::Trailer | Chunk::InTrailer, byte) if is_text(byte) => Chunk::InTrailer,
            _ => return None,
        })
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::proxy::{ClientLimits, Link, Peer};

    fn client() -> Client {
        Client::new(Rc::new(Link::new(Peer::default(), ClientLimits::default())))
    }

    /// The messages of a stream that comes in pieces of `size` bytes, and what is wrong with each.
    fn split(stream: &[u8], size: usize) -> Vec<(Vec<u8>, Option<Malformed>)> {
        let client = client();
        let (mut boundary, mut messages) = (Boundary::default(), Vec::new());
        let mut message = Vec::new();
        let mut rest = stream;
        while !rest.is_empty() {
            let piece = &rest[..size.min(rest.len())];
            let Ok(taken) = boundary.judge(piece, &client) else { return messages };
            message.extend_from_slice(&piece[..taken]);
            rest = &rest[taken..];
            if boundary.is_between() {
                messages.push((std::mem::take(&mut message), client.take_malformed()));
            }
        }
        messages
    }

    #[test]
    fn messages_are_told_apart_however_they_come() {
        let parts: [&[u8]; 6] = [
            b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n\r\n\r\nx",
            b"GET /3#x HTTP/1.1\r\nHost: #\r\n\r\n",
            b"POST /4 HTTP/1.1\r\ntransfer-ENCODING: chunked\r\nX: 1\r\n\r\n5;a=\"b\"\r\n\r\n\r\nx\r\n00\r\nX: y\r\n\r\n",
            b"POST /5 HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            b"GET /6 HTTP/1.1\r\n\r\n",
        ];
        for size in [1, 2, 3, 7, 50, 1000] {
            let found = split(&parts.concat(), size);
            let texts: Vec<_> = found.iter().map(|(text, _)| text.as_slice()).collect();
            assert_eq!(texts, parts, "{size}");
            let malformed: Vec<_> = found.iter().map(|(_, malformed)| *malformed).collect();
            assert_eq!(malformed, [None, None, Some(Malformed::Fragment), None, None, None], "{size}");
        }
    }

    #[test]
    fn heads_of_two_readings_are_told() {
        let check = |head: &str, expected: Option<Malformed>| {
            for size in [1, 5, 1000] {
                let client = client();
                let mut boundary = Boundary::default();
                for piece in head.as_bytes().chunks(size) {
                    assert_eq!(boundary.judge(piece, &client).expect("judged"), piece.len());
                }
                assert_eq!(client.take_malformed(), expected, "{head:?} by {size}");
            }
        };
        check("GET / HTTP/1.1\r\n\r\n", None);
        check("\r\nGET / HTTP/1.1\r\n\r\n", None);
        check("GET / HTTP/1.1\n\r\n", Some(Malformed::LineFeed));
        check("GET / HTTP/1.1\n\n", Some(Malformed::LineFeed));
        check("GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", Some(Malformed::LineFeed));
        check("GET /#a HTTP/1.1\r\n\r\n", Some(Malformed::Fragment));
        check("GET / HTTP/1.1\r\nContent-Length: 0\r\ncontent-length: 0\r\n\r\n", Some(Malformed::Framing));
        check(
            "GET / HTTP/1.1\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
            Some(Malformed::Framing),
        );
        check("GET / HTTP/1.1\r\nContent-Length-X: 0\r\nContent-Length: 0\r\n\r\n", None);
    }

    #[test]
    fn chunks_are_strict() {
        let check = |body: &str, expected: Option<(usize, bool)>| {
            assert_eq!(Chunks::default().judge(body.as_bytes()), expected, "{body:?}");
        };
        check("0\r\n\r\nGET", Some((5, true)));
        check("5\r\nhello\r\n0\r\n\r\n", Some((15, true)));
        check("5 ;a\r\nhel", Some((9, false)));
        for bad in [
            "5 \r\n",
            " 5\r\n",
            "5\n",
            ";\r\n",
            "\r\n",
            "g",
            "5\r\nhello0",
            "5;\0",
            "5;a\n",
            "0\r\nX: y\n",
            "0\r\n\n",
        ] {
            check(bad, None);
        }
        check("ffffffffffffffff0\r\n", None);
        check("00000000000000000000\r\n\r\n", Some((24, true)));
    }
}
