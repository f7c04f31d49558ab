//! The PROXY protocol, versions 1 and 2: what a proxy says of a connection before its first byte.
//!
//! Owns: the parser, a pure function over the bytes so far. Whom to believe is decided elsewhere. Extensions (TLVs) are
//! passed over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header of version 1, with its line end.
pub const MAX_V1: usize = 107;
/// The longest header of version 2 that is taken; senders rarely need more than 536 bytes.
pub const MAX_V2: usize = 4096;

const SIGNATURE_V1: &[u8] = b"PROXY ";
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const HEAD_V2: usize = 16;

/// What the bytes are, so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// No header begins like that.
    Absent,
    /// They may become a header; nothing is certain before its signature is whole.
    Undecided,
    /// The beginning of a header: none of these bytes belongs to anything else.
    Partial,
    /// A whole header.
    Whole {
        /// What it says.
        header: Header,
        /// How many of the bytes it is.
        length: usize,
    },
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The proxy itself speaks, to see whether somebody is there.
    Local,
    /// It speaks for a client that it does not name.
    Unknown,
    /// It speaks for this client.
    Proxied {
        /// The client.
        source: SocketAddr,
        /// Where the client connected to.
        destination: SocketAddr,
    },
}

/// Why the bytes are a broken header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Longer than [`MAX_V1`] or [`MAX_V2`].
    #[error("it is too long")]
    TooLong,
    /// A version other than 1 and 2.
    #[error("its version is unknown")]
    Version,
    /// A command of version 2 other than LOCAL and PROXY.
    #[error("its command is unknown")]
    Command,
    /// A family or transport that no TCP connection has.
    #[error("its address family or transport is not one of a stream")]
    Family,
    /// Version 2: shorter than its addresses.
    #[error("it is shorter than its addresses")]
    TooShort,
    /// Version 1: not the words that must stand there.
    #[error("it is malformed")]
    Malformed,
}

/// Looks at the first bytes of a connection. Called again with all of them when more have come.
pub fn parse(bytes: &[u8]) -> Result<Parsed, HeaderError> {
    for (signature, parse) in [(SIGNATURE_V1, parse_v1 as fn(&[u8]) -> _), (SIGNATURE_V2, parse_v2)] {
        if bytes.starts_with(signature) {
            return parse(bytes);
        }
        if signature.starts_with(bytes) {
            return Ok(Parsed::Undecided);
        }
    }
    Ok(Parsed::Absent)
}

fn parse_v1(bytes: &[u8]) -> Result<Parsed, HeaderError> {
    let line = &bytes[..bytes.len().min(MAX_V1)];
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() >= MAX_V1 { Err(HeaderError::TooLong) } else { Ok(Parsed::Partial) };
    };
    let line = line[..end].strip_suffix(b"\r").ok_or(HeaderError::Malformed)?;
    let line = std::str::from_utf8(line).map_err(|_| HeaderError::Malformed)?;
    let mut words = line.split(' ').skip(1);
    let header = match words.next() {
        // Whatever follows is to be ignored.
        Some("UNKNOWN") => Header::Unknown,
        Some("TCP4") => addresses_v1::<Ipv4Addr>(words)?,
        Some("TCP6") => addresses_v1::<Ipv6Addr>(words)?,
        _ => return Err(HeaderError::Malformed),
    };
    Ok(Parsed::Whole { header, length: end + 1 })
}

fn addresses_v1<'w, A>(mut words: impl Iterator<Item = &'w str>) -> Result<Header, HeaderError>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let mut ip = || words.next()?.parse::<A>().ok();
    let (source, destination) = (ip(), ip());
    let mut port = || parse_port(words.next()?);
    let ports = (port(), port());
    match (source, destination, ports, words.next()) {
        (Some(source), Some(destination), (Some(from), Some(to)), None) => Ok(Header::Proxied {
            source: SocketAddr::new(source.into(), from),
            destination: SocketAddr::new(destination.into(), to),
        }),
        _ => Err(HeaderError::Malformed),
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok())?
}

fn parse_v2(bytes: &[u8]) -> Result<Parsed, HeaderError> {
    // What is wrong is told as soon as it is there.
    let version_and_command = bytes.get(12).copied();
    if version_and_command.is_some_and(|byte| byte >> 4 != 2) {
        return Err(HeaderError::Version);
    }
    if version_and_command.is_some_and(|byte| byte & 15 > 1) {
        return Err(HeaderError::Command);
    }
    let Some(head) = bytes.first_chunk::<HEAD_V2>() else { return Ok(Parsed::Partial) };
    let body_length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    let length = HEAD_V2 + body_length;
    if length > MAX_V2 {
        return Err(HeaderError::TooLong);
    }
    let is_local = head[12] & 15 == 0;
    let family = head[13];
    if !is_local && body_length < least_length(family)? {
        return Err(HeaderError::TooShort);
    }
    let Some(body) = bytes.get(HEAD_V2..length) else { return Ok(Parsed::Partial) };
    let header = match family {
        _ if is_local => Header::Local,
        0x11 => proxied::<4>(body),
        0x21 => proxied::<16>(body),
        _ => Header::Unknown,
    };
    Ok(Parsed::Whole { header, length })
}

/// How long the addresses of a family are: UNSPEC, or a family with the transport STREAM.
fn least_length(family: u8) -> Result<usize, HeaderError> {
    match family {
        0x00 => Ok(0),
        0x11 => Ok(12),
        0x21 => Ok(36),
        0x31 => Ok(216),
        _ => Err(HeaderError::Family),
    }
}

/// Two addresses of `N` bytes, two ports.
fn proxied<const N: usize>(body: &[u8]) -> Header {
    let ip = |at: usize| match <[u8; 4]>::try_from(&body[at..at + N]) {
        Ok(octets) => IpAddr::from(octets),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(&body[at..at + N]).expect("a family has 4 or 16 bytes")),
    };
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    Header::Proxied {
        source: SocketAddr::new(ip(0), port(2 * N)),
        destination: SocketAddr::new(ip(N), port(2 * N + 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxied(source: &str, destination: &str) -> Header {
        Header::Proxied {
            source: source.parse().expect("address"),
            destination: destination.parse().expect("address"),
        }
    }

    fn v2(version_and_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).expect("short").to_be_bytes();
        [SIGNATURE_V2, &[version_and_command, family], &length, body].concat()
    }

    #[test]
    fn headers_of_version_1_are_lines_of_exact_words() {
        let check = |line: &str, expected: Result<Header, HeaderError>| {
            let whole = format!("{line}\r\nGET / HTTP/1.1\r\n");
            let expected = expected.map(|header| Parsed::Whole { header, length: line.len() + 2 });
            assert_eq!(parse(whole.as_bytes()), expected, "{line}");
        };
        check(
            "PROXY TCP4 192.0.2.1 198.51.100.1 4711 443",
            Ok(proxied("192.0.2.1:4711", "198.51.100.1:443")),
        );
        check("PROXY TCP6 2001:db8::1 ::1 0 65535", Ok(proxied("[2001:db8::1]:0", "[::1]:65535")));
        check("PROXY UNKNOWN", Ok(Header::Unknown));
        check("PROXY UNKNOWN what ever", Ok(Header::Unknown));
        for wrong in [
            "PROXY ",
            "PROXY TCP4",
            "PROXY TCP5 192.0.2.1 198.51.100.1 4711 443",
            "PROXY TCP4 2001:db8::1 ::1 4711 443",
            "PROXY TCP6 192.0.2.1 198.51.100.1 4711 443",
            "PROXY TCP4 192.0.2.01 198.51.100.1 4711 443",
            "PROXY TCP4 192.0.2.1 198.51.100.1 04711 443",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +711 443",
            "PROXY TCP4 192.0.2.1 198.51.100.1 65536 443",
            "PROXY TCP4 192.0.2.1 198.51.100.1 4711",
            "PROXY TCP4 192.0.2.1 198.51.100.1 4711 443 1",
            "PROXY TCP4  192.0.2.1 198.51.100.1 4711 443",
            "PROXY TCP4 192.0.2.1 198.51.100.1 4711 443 ",
            "PROXY tcp4 192.0.2.1 198.51.100.1 4711 443",
            "PROXY UDP4 192.0.2.1 198.51.100.1 4711 443",
            "PROXY TCP4 localhost 198.51.100.1 4711 443",
        ] {
            check(wrong, Err(HeaderError::Malformed));
        }
        assert_eq!(parse(b"PROXY UNKNOWN\n"), Err(HeaderError::Malformed));
        assert_eq!(parse(b"PROXY \xff\r\n"), Err(HeaderError::Malformed));
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1 - 16));
        assert_eq!(parse(longest.as_bytes()), Ok(Parsed::Whole { header: Header::Unknown, length: MAX_V1 }));
        assert_eq!(parse("PROXY UNKNOWN".to_owned().as_bytes()), Ok(Parsed::Partial));
        assert_eq!(parse(format!("PROXY UNKNOWN{}", " ".repeat(100)).as_bytes()), Err(HeaderError::TooLong));
    }

    #[test]
    fn headers_of_version_2_have_a_command_a_family_and_addresses() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 0x12, 0x67, 0x01, 0xbb];
        let v4_with_tlvs = [v4.as_slice(), &[3, 0, 1, 9, 0x20, 0, 0]].concat();
        let v6 = [Ipv6Addr::LOCALHOST.octets(), Ipv6Addr::LOCALHOST.octets()].concat();
        let v6 = [v6.as_slice(), &[0, 1, 0, 2]].concat();
        let check = |bytes: &[u8], expected: Result<Header, HeaderError>| {
            let whole = [bytes, b"GET"].concat();
            let expected = expected.map(|header| Parsed::Whole { header, length: bytes.len() });
            assert_eq!(parse(&whole), expected, "{bytes:?}");
        };
        let named = Ok(proxied("192.0.2.1:4711", "198.51.100.1:443"));
        check(&v2(0x21, 0x11, &v4), named);
        check(&v2(0x21, 0x11, &v4_with_tlvs), named);
        check(&v2(0x21, 0x21, &v6), Ok(proxied("[::1]:1", "[::1]:2")));
        check(&v2(0x21, 0x31, &[0; 216]), Ok(Header::Unknown));
        check(&v2(0x21, 0x00, &[]), Ok(Header::Unknown));
        check(&v2(0x21, 0x00, &[1, 2, 3]), Ok(Header::Unknown));
        check(&v2(0x20, 0x00, &[]), Ok(Header::Local));
        check(&v2(0x20, 0x11, &v4), Ok(Header::Local));
        check(&v2(0x20, 0xff, &[]), Ok(Header::Local));
        check(&v2(0x21, 0x11, &v4[..11]), Err(HeaderError::TooShort));
        check(&v2(0x21, 0x21, &v4), Err(HeaderError::TooShort));
        check(&v2(0x21, 0x31, &[0; 215]), Err(HeaderError::TooShort));
        check(&v2(0x21, 0x12, &v4), Err(HeaderError::Family));
        check(&v2(0x21, 0x41, &v4), Err(HeaderError::Family));
        check(&v2(0x21, 0x01, &[]), Err(HeaderError::Family));
        check(&v2(0x22, 0x11, &v4), Err(HeaderError::Command));
        check(&v2(0x11, 0x11, &v4), Err(HeaderError::Version));
        check(&v2(0x31, 0x11, &v4), Err(HeaderError::Version));
        check(&v2(0x21, 0x00, &[0; MAX_V2 - HEAD_V2]), Ok(Header::Unknown));
        check(&v2(0x21, 0x00, &[0; MAX_V2 - HEAD_V2 + 1]), Err(HeaderError::TooLong));
    }

    #[test]
    fn every_beginning_of_a_header_waits_for_the_rest() {
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\r\n".to_vec();
        for (whole, signature) in [(line, 6), (v2(0x21, 0x11, &[1; 40]), 12)] {
            for length in 0..whole.len() {
                let expected = if length < signature { Parsed::Undecided } else { Parsed::Partial };
                assert_eq!(parse(&whole[..length]), Ok(expected), "{length} of {whole:?}");
            }
            assert!(matches!(parse(&whole), Ok(Parsed::Whole { .. })));
        }
    }

    #[test]
    fn what_else_may_begin_a_connection_is_no_header() {
        for other in
            ["GET / HTTP/1.1", "PROPFIND /", "PRI * HTTP/2.0", "PROXYING", "\r\n\r\nGET", "\x16\x03\x01"]
        {
            assert_eq!(parse(other.as_bytes()), Ok(Parsed::Absent), "{other:?}");
        }
    }

    /// Bytes that often are nearly a header.
    fn nearly_a_header() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
        use proptest::prelude::*;
        let line = "PROXY (TCP4|TCP6|UNKNOWN)[ -~]{0,90}(\r\n)?".prop_map(String::into_bytes);
        let binary = (0x1f..0x24u8, any::<u8>(), 0..300u16, proptest::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(command, family, length, body)| {
                let length = length.to_be_bytes();
                [SIGNATURE_V2, &[command, family & 0x33], &length, &body].concat()
            });
        prop_oneof![line, binary, proptest::collection::vec(any::<u8>(), 0..64)]
    }

    proptest::proptest! {
        #[test]
        fn more_bytes_never_change_what_was_decided(bytes in nearly_a_header()) {
            let mut decided: Option<Result<Parsed, HeaderError>> = None;
            for length in 0..=bytes.len() {
                let parsed = parse(&bytes[..length]);
                if let Some(before) = decided {
                    proptest::prop_assert_eq!(parsed, before);
                } else if !matches!(parsed, Ok(Parsed::Undecided | Parsed::Partial)) {
                    decided = Some(parsed);
                }
                if let Ok(Parsed::Whole { length: taken, .. }) = parsed {
                    proptest::prop_assert!(taken <= length);
                }
            }
        }
    }
}
