//! Bodies on the wire (RFC 9112, 6 and 7).
//!
//! Owns: where a body ends, both ways. Never reads or writes by itself.

use bytes::{Buf, Bytes};
use http::header::GetAll;
use http::{HeaderMap, HeaderName, HeaderValue};
use hyper::body::Frame;

use super::{Http1Error, read_trailers};

/// Extensions of all chunks of a body, and the fields at its end.
const MAX_EXTENSIONS: u32 = 16 * 1024;
const MAX_TRAILERS: usize = 16 * 1024;

/// What is still to be read of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
    /// Until the connection is closed.
    ToTheEnd,
    /// Nothing.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunked {
    part: Part,
    extensions: u32,
    /// Nothing passes that some read differently.
    strict: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The first digit of a size.
    Begin,
    /// Further digits.
    Size(u64),
    /// Blanks behind a size.
    Blank(u64),
    /// An extension.
    Extension(u64),
    /// The line feed behind a size.
    LineEnd(u64),
    Data(u64),
    /// The line end behind the data.
    DataReturn,
    DataFeed,
    /// What comes behind the last chunk.
    Trailers,
}

impl Reading {
    /// Chunks, from the first on.
    pub fn chunked() -> Self {
        Self::Chunked(Chunked { part: Part::Begin, extensions: 0, strict: false })
    }

    /// The same, from a client: nothing is taken that others may read in another way. Blanks behind a size are nothing
    /// without an extension, and no line ends with a bare line feed.
    pub fn strictly_chunked() -> Self {
        Self::Chunked(Chunked { part: Part::Begin, extensions: 0, strict: true })
    }

    /// Takes the next piece of the body out of what was read. `None`: more has to be read first, or it is done.
    pub fn take(&mut self, read: &mut Bytes) -> Result<Option<Frame<Bytes>>, Http1Error> {
        match self {
            Self::Done => Ok(None),
            Self::ToTheEnd => Ok((!read.is_empty()).then(|| Frame::data(std::mem::take(read)))),
            Self::Length(left) => {
                if read.is_empty() {
                    return Ok(None);
                }
                let piece = take(read, *left);
                *left -= piece.len() as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(Some(Frame::data(piece)))
            }
            Self::Chunked(chunked) => {
                let taken = chunked.take(read)?;
                if matches!(taken, Taken::End | Taken::Trailers(_)) {
                    *self = Self::Done;
                }
                Ok(match taken {
                    Taken::Data(piece) => Some(Frame::data(piece)),
                    Taken::Trailers(trailers) => Some(Frame::trailers(trailers)),
                    Taken::Nothing | Taken::End => None,
                })
            }
        }
    }

    /// Passes over what only frames, so that an end that is there is seen.
    pub fn look_ahead(&mut self, read: &mut Bytes) -> Result<(), Http1Error> {
        if let Self::Chunked(chunked) = self
            && chunked.ends(read)?
        {
            *self = Self::Done;
        }
        Ok(())
    }
}

enum Taken {
    Nothing,
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

impl Chunked {
    fn take(&mut self, read: &mut Bytes) -> Result<Taken, Http1Error> {
        self.pass(read)?;
        match &mut self.part {
            Part::Data(left) if !read.is_empty() => {
                let piece = take(read, *left);
                *left -= piece.len() as u64;
                if *left == 0 {
                    self.part = Part::DataReturn;
                }
                Ok(Taken::Data(piece))
            }
            Part::Trailers => Ok(match read_trailers(read, MAX_TRAILERS, self.strict)? {
                None => Taken::Nothing,
                Some(trailers) if trailers.is_empty() => Taken::End,
                Some(trailers) => Taken::Trailers(trailers),
            }),
            _ => Ok(Taken::Nothing),
        }
    }

    /// Whether the body ends here, without trailers.
    fn ends(&mut self, read: &mut Bytes) -> Result<bool, Http1Error> {
        self.pass(read)?;
        let ends = self.part == Part::Trailers && read.starts_with(b"\r\n");
        if ends {
            read.advance(2);
        }
        Ok(ends)
    }

    /// Passes over lines of sizes and line ends, up to data or trailers.
    fn pass(&mut self, read: &mut Bytes) -> Result<(), Http1Error> {
        while let Some(&byte) = read.first()
            && !matches!(self.part, Part::Data(_) | Part::Trailers)
        {
            self.part = self.step(byte)?;
            read.advance(1);
        }
        Ok(())
    }

    fn step(&mut self, byte: u8) -> Result<Part, Http1Error> {
        let digit = || (byte as char).to_digit(16).map(u64::from);
        let grown = |size: u64, digit: u64| {
            size.checked_mul(16).and_then(|size| size.checked_add(digit)).ok_or(Http1Error::Malformed)
        };
        Ok(match (self.part, byte) {
            (Part::Begin, _) => Part::Size(digit().ok_or(Http1Error::Malformed)?),
            (Part::Blank(_), b'\r') if self.strict => return Err(Http1Error::Malformed),
            (Part::Size(size) | Part::Blank(size) | Part::Extension(size), b'\r') => Part::LineEnd(size),
            (Part::Size(size) | Part::Blank(size), b' ' | b'\t') => Part::Blank(size),
            (Part::Size(size) | Part::Blank(size), b';') => Part::Extension(size),
            (Part::Size(size), _) => Part::Size(grown(size, digit().ok_or(Http1Error::Malformed)?)?),
            // A line feed alone is an end to some, and none to others.
            (Part::Extension(_), b'\n') => return Err(Http1Error::Malformed),
            (Part::Extension(_), byte) if self.strict && !is_text(byte) => return Err(Http1Error::Malformed),
            (Part::Extension(size), _) => {
                self.extensions += 1;
                if self.extensions > MAX_EXTENSIONS {
                    return Err(Http1Error::TooLarge);
                }
                Part::Extension(size)
            }
            (Part::LineEnd(0), b'\n') => Part::Trailers,
            (Part::LineEnd(size), b'\n') => Part::Data(size),
            (Part::DataReturn, b'\r') => Part::DataFeed,
            (Part::DataFeed, b'\n') => Part::Begin,
            _ => return Err(Http1Error::Malformed),
        })
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

fn take(read: &mut Bytes, most: u64) -> Bytes {
    let length = usize::try_from(most).unwrap_or(usize::MAX).min(read.len());
    if length == read.len() { std::mem::take(read) } else { read.split_to(length) }
}

/// What is still to be written of a body.
#[derive(Debug)]
pub enum Writing {
    /// So many bytes.
    Length(u64),
    /// Chunks, with the trailers that the head declared.
    Chunked(Option<Box<[HeaderName]>>),
    /// Until the connection is closed.
    ToTheEnd,
    /// Nothing.
    Done,
}

impl Writing {
    /// So many bytes.
    pub fn length(length: u64) -> Self {
        if length == 0 { Self::Done } else { Self::Length(length) }
    }

    /// Chunks. `declared`: the lines that name the trailers that may follow.
    pub fn chunked(declared: GetAll<'_, HeaderValue>) -> Self {
        let names: Vec<_> = declared
            .iter()
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            .collect();
        Self::Chunked((!names.is_empty()).then(|| names.into_boxed_slice()))
    }

    /// What stands before a piece of data, and behind it.
    pub fn frame(&mut self, piece: &Bytes, out: &mut Vec<u8>) -> Result<&'static [u8], Http1Error> {
        let length = piece.len() as u64;
        match self {
            Self::Length(left) => {
                *left = left.checked_sub(length).ok_or(Http1Error::Body)?;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(b"")
            }
            Self::Chunked(_) => {
                write_hex(length, out);
                out.extend_from_slice(b"\r\n");
                Ok(b"\r\n")
            }
            Self::ToTheEnd => Ok(b""),
            Self::Done => Err(Http1Error::Body),
        }
    }

    /// The body has ended.
    pub fn end(&mut self, trailers: Option<&HeaderMap>, out: &mut Vec<u8>) -> Result<(), Http1Error> {
        match std::mem::replace(self, Self::Done) {
            // It would be taken for whole.
            Self::Length(_) => return Err(Http1Error::Body),
            Self::Chunked(declared) => {
                out.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.into_iter().flatten() {
                    if declared.iter().flatten().any(|declared| declared == name) {
                        out.extend_from_slice(name.as_str().as_bytes());
                        out.extend_from_slice(b": ");
                        out.extend_from_slice(value.as_bytes());
                        out.extend_from_slice(b"\r\n");
                    }
                }
                out.extend_from_slice(b"\r\n");
            }
            Self::ToTheEnd | Self::Done => {}
        }
        Ok(())
    }
}

fn write_hex(number: u64, out: &mut Vec<u8>) {
    let digits = (16 - number.leading_zeros() as usize / 4).max(1);
    for place in (0..digits).rev() {
        let digit = (number >> (place * 4)) & 0xf;
        out.push(b"0123456789abcdef"[digit as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a chunked body that comes in pieces of `at_once` bytes: the data, the trailers, what lies behind.
    fn read(wire: &[u8], at_once: usize) -> Result<(Vec<u8>, usize, Vec<u8>, bool), Http1Error> {
        let (mut reading, mut unread) = (Reading::chunked(), Bytes::new());
        let (mut data, mut trailers) = (Vec::new(), 0);
        let mut pieces = wire.chunks(at_once);
        loop {
            match reading.take(&mut unread)? {
                Some(frame) => match frame.into_data() {
                    Ok(piece) => data.extend_from_slice(&piece),
                    Err(frame) => trailers += frame.into_trailers().map_or(0, |fields| fields.len()),
                },
                None if reading == Reading::Done => break,
                None => match pieces.next() {
                    Some(piece) => unread = [&unread, piece].concat().into(),
                    None => return Ok((data, trailers, unread.to_vec(), false)),
                },
            }
        }
        let rest: Vec<u8> = pieces.flatten().copied().collect();
        Ok((data, trailers, [&unread[..], &rest[..]].concat(), true))
    }

    #[test]
    fn chunks_are_read_however_they_come() {
        let check = |wire: &[u8], data: &[u8], trailers: usize, behind: &[u8], whole: bool| {
            for at_once in [1, 2, 3, 7, 1000] {
                let expected = (data.to_vec(), trailers, behind.to_vec(), whole);
                assert_eq!(read(wire, at_once).ok(), Some(expected), "{wire:?} {at_once} at once");
            }
        };
        check(b"0\r\n\r\n", b"", 0, b"", true);
        check(b"5\r\nhello\r\n0\r\n\r\n", b"hello", 0, b"", true);
        check(b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\nHTTP", b"hello world", 0, b"HTTP", true);
        check(b"00a \t\r\n0123456789\r\n000\r\n\r\n", b"0123456789", 0, b"", true);
        check(b"1\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\nz", b"x", 2, b"z", true);
        check(b"A\r\n0123456789\r\n0;x\r\n\r\n", b"0123456789", 0, b"", true);
        check(b"5\r\nhel", b"hel", 0, b"", false);
        check(b"5\r\nhello\r\n0\r\nA: b\r\n", b"hello", 0, b"A: b\r\n", false);
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for wire in [
            &b"x\r\n"[..],
            b"\r\n",
            b"-1\r\n",
            b"+5\r\nhello\r\n",
            b"0x5\r\nhello\r\n",
            b"5\nhello\r\n",
            b"5 5\r\nhello\r\n",
            b"5;a\nhello\r\n",
            b"5\r\nhelloworld\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"11111111111111111\r\nx",
            b"5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
        ] {
            for at_once in [1, 1000] {
                assert!(read(wire, at_once).is_err(), "{wire:?}");
            }
        }
        let long = [&b"5;"[..], &vec![b'a'; 20_000], b"\r\nhello\r\n0\r\n\r\n"].concat();
        assert!(matches!(read(&long, 1000), Err(Http1Error::TooLarge)));
        let long = [&b"0\r\nA: "[..], &vec![b'a'; 20_000], b"\r\n\r\n"].concat();
        assert!(matches!(read(&long, 1000), Err(Http1Error::TooLarge)));
    }

    #[test]
    fn an_end_that_is_there_is_seen_with_the_last_piece() {
        let check = |wire: &'static [u8], ended: bool| {
            let (mut reading, mut unread) = (Reading::chunked(), Bytes::from_static(wire));
            assert!(reading.take(&mut unread).expect("read").is_some());
            reading.look_ahead(&mut unread).expect("read");
            assert_eq!(reading == Reading::Done, ended, "{wire:?}");
        };
        check(b"2\r\nok\r\n0\r\n\r\n", true);
        check(b"2\r\nok\r\n0\r\n\r", false);
        check(b"2\r\nok\r\n0\r\nA: b\r\n\r\n", false);
        check(b"2\r\nok\r\n1\r\nx\r\n", false);
    }

    #[test]
    fn bodies_are_written_in_the_length_that_was_told() {
        let mut out = Vec::new();
        let mut writing = Writing::length(5);
        writing.frame(&Bytes::from_static(b"hel"), &mut out).expect("within");
        assert!(writing.frame(&Bytes::from_static(b"low"), &mut out).is_err());
        assert!(Writing::length(5).end(None, &mut out).is_err());
        assert!(Writing::Done.frame(&Bytes::from_static(b"x"), &mut out).is_err());
        assert!(out.is_empty());
        for (length, hex) in [(1, "1"), (15, "f"), (16, "10"), (255, "ff"), (4096, "1000"), (65_537, "10001")]
        {
            write_hex(length, &mut out);
            assert_eq!(std::mem::take(&mut out), hex.as_bytes());
        }
    }

    #[test]
    fn only_declared_trailers_are_written() {
        let mut fields = HeaderMap::new();
        fields.append("trailer", HeaderValue::from_static("a, X-Sum"));
        let mut trailers = HeaderMap::new();
        trailers.append("x-sum", HeaderValue::from_static("1"));
        trailers.append("other", HeaderValue::from_static("2"));
        let mut out = Vec::new();
        Writing::chunked(fields.get_all("trailer")).end(Some(&trailers), &mut out).expect("chunks");
        assert_eq!(out, b"0\r\nx-sum: 1\r\n\r\n");
    }
}
