//! The target of a request to a forward proxy: host and port, strictly, in one form.

use std::fmt;
use std::net::IpAddr;

use crate::origin::{Origin, Scheme};
use crate::route::authority::Authority;

/// Where a request is to go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    host: TargetHost,
    port: u16,
}

/// A name in lower case and ASCII, or an address however it was spelt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TargetHost {
    /// Without a trailing dot.
    Name(String),
    /// In canonical form: an IPv4 address that was mapped into IPv6 is an IPv4 address.
    Address(IpAddr),
}

/// Why a text is no target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not `host:port`.
    #[error("the target is not `host:port`, with a port from 1 to 65535 and an IPv6 address in brackets")]
    NotHostAndPort,
    /// It is neither a name nor an address.
    #[error("the target's host is neither a name nor an address")]
    Host,
}

impl Target {
    /// Parses `host:port`; nothing may be left out or stand beside it (RFC 9112, 3.2.3).
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let authority = Authority::parse(text).ok_or(TargetError::NotHostAndPort)?;
        if authority.host.ends_with('.') {
            return Err(TargetError::Host);
        }
        let port = authority.port.ok_or(TargetError::NotHostAndPort)?;
        Self::new(&authority.host, port)
    }

    /// The target of an absolute-form: the port of the scheme stands where none is given.
    pub fn of_authority(authority: &Authority<'_>, scheme: Scheme) -> Result<Self, TargetError> {
        Self::new(&authority.host, authority.port.unwrap_or(scheme.default_port()))
    }

    /// From a host as a URL writes it.
    pub fn new(host: &str, port: u16) -> Result<Self, TargetError> {
        // The URL standard's parser: `2130706433` and `0x7f.1` are addresses to a resolver, so they are to the rules.
        let host = match url::Host::parse(host).map_err(|_| TargetError::Host)? {
            url::Host::Ipv4(ip) => TargetHost::Address(ip.into()),
            url::Host::Ipv6(ip) => TargetHost::Address(IpAddr::from(ip).to_canonical()),
            url::Host::Domain(name) => {
                let name = name.strip_suffix('.').unwrap_or(&name);
                if name.is_empty()
                    || name.len() > 253
                    || name.split('.').any(|label| label.is_empty() || label.len() > 63)
                {
                    return Err(TargetError::Host);
                }
                TargetHost::Name(name.to_owned())
            }
        };
        Ok(Self { host, port })
    }

    /// From an address.
    pub fn of_address(ip: IpAddr, port: u16) -> Self {
        Self { host: TargetHost::Address(ip.to_canonical()), port }
    }

    /// The host.
    pub fn host(&self) -> &TargetHost {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The origin of this scheme there, with another port if one is given.
    pub fn origin(&self, scheme: Scheme, port: Option<u16>) -> Option<Origin> {
        let text = format!("{}://{}:{}", scheme.as_str(), self.host, port.unwrap_or(self.port));
        Origin::try_new(&text).ok()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Display for TargetHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::Address(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_one_form() {
        let check = |text: &str, expected: &str| {
            assert_eq!(Target::parse(text).expect(text).to_string(), expected, "{text}");
        };
        check("api.example.com:443", "api.example.com:443");
        check("API.example.COM.:443", "api.example.com:443");
        check("127.0.0.1:1", "127.0.0.1:1");
        check("2130706433:80", "127.0.0.1:80");
        check("0x7f000001:80", "127.0.0.1:80");
        check("0177.0.0.1:80", "127.0.0.1:80");
        check("127.1:80", "127.0.0.1:80");
        check("[::1]:65535", "[::1]:65535");
        check("[0:0:0:0:0:ffff:7f00:1]:80", "127.0.0.1:80");
        check("my_host:80", "my_host:80");
    }

    #[test]
    fn what_is_no_host_and_port_is_refused() {
        for text in [
            "",
            ":",
            ":443",
            "a",
            "a:",
            "a:0",
            "a:65536",
            "a:443x",
            "a:+443",
            "a:-1",
            "a: 443",
            " a:443",
            "a:443 ",
            "a :443",
            "a\t:443",
            "u@a:443",
            "u:p@a:443",
            "a:443/",
            "/a:443",
            "a/b:443",
            "a?b:443",
            "a#b:443",
            "http://a:443",
            "::1:443",
            "[::1]",
            "[::1:443",
            "::1]:443",
            "[::1]443",
            "[a]:443",
            "[127.0.0.1]:443",
            "[fe80::1%eth0]:443",
            "[fe80::1%25eth0]:443",
            "a..b:443",
            ".a:443",
            "a..:443",
            "a%2eb:443",
            "a,b:443",
            "a;b:443",
            "a\\b:443",
            "ü:443",
            "a:443:443",
            "1.2.3.4.5:443",
            "256.256.256.256:443",
            "0x100000000:443",
            "*:443",
            "a\0:443",
        ] {
            assert!(Target::parse(text).is_err(), "{text:?}");
        }
    }
}
