//! The authority of a request: host and optional port, strictly.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

/// `host[:port]` as a client wrote it; the host in lower case, without a trailing dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority<'a> {
    /// Host; an IPv6 address stands in brackets.
    pub host: Cow<'a, str>,
    /// Port, if one was named.
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Parses an authority. User information, empty hosts and ports, lists and every character outside of
    /// `A-Z a-z 0-9 - . _` (or an IPv6 literal) are refused.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (host, port) = if text.starts_with('[') {
            let end = text.find(']')?;
            text[1..end].parse::<Ipv6Addr>().ok()?;
            (&text[..=end], &text[end + 1..])
        } else {
            let other = |byte: u8| !HOST_BYTES[usize::from(byte)];
            // Where this is no colon, what follows is refused below.
            let end = text.bytes().position(other).unwrap_or(text.len());
            let host = &text[..end];
            let host = host.strip_suffix('.').unwrap_or(host);
            // A second dot at the end would make a name of another spelling out of the same place.
            let named = !host.is_empty() && !host.ends_with('.');
            if !named || host.len() > 253 {
                return None;
            }
            (host, &text[end..])
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            None => return None,
            Some(digits) => Some(parse_port(digits)?),
        };
        let host = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(host.to_ascii_lowercase())
        } else {
            Cow::Borrowed(host)
        };
        Some(Self { host, port })
    }

    /// The address, where the host is one.
    pub fn ip(&self) -> Option<IpAddr> {
        let text = self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&self.host);
        text.parse().ok()
    }
}

/// What may stand in a host: a table, since every request is asked.
const HOST_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        byte += 1;
    }
    table
};

fn parse_port(digits: &str) -> Option<u16> {
    if digits.is_empty() || digits.len() > 5 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_strict() {
        let check = |text: &str, expected: Option<(&str, Option<u16>)>| {
            let got = Authority::parse(text);
            assert_eq!(got.as_ref().map(|a| (&*a.host, a.port)), expected, "{text:?}");
        };
        check("localhost", Some(("localhost", None)));
        check("LocalHost:8080", Some(("localhost", Some(8080))));
        check("example.com.", Some(("example.com", None)));
        check("example.com.:1", Some(("example.com", Some(1))));
        check("127.0.0.1:80", Some(("127.0.0.1", Some(80))));
        check("[::1]:80", Some(("[::1]", Some(80))));
        check("[::1]", Some(("[::1]", None)));
        check("", None);
        check(".", None);
        check("a..", None);
        check("a..:80", None);
        check(":80", None);

        check("a:0", None);
        check("a:65536", None);
        check("a:+80", None);
        check("a:80:80", None);
        check("user@a", None);
        check("a,b", None);
        check("a b", None);
        check("a/b", None);
        check("[::1]x", None);
        check("[::1", None);
        check("[a]", None);
        check("ü", None);
    }
}
