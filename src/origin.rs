//! An origin (RFC 6454): scheme, host and port of an HTTP server.
//!
//! Owns: comparison of origins, which is what a token is bound to. Two origins are equal only when
//! scheme, normalised host and port all are.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

/// `http` or `https`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// Cleartext.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// The scheme as it stands in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that a URL of this scheme may leave out.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Scheme, host and port. The host is lower case, ASCII (IDNA), without a trailing dot; an IPv6
/// address stands in brackets.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    scheme: Scheme,
    host: Arc<str>,
    port: u16,
}

/// Why a text is no [`Origin`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// The URL parser's own words.
    #[error("not a URL: {0}")]
    Url(url::ParseError),
    /// Another scheme than http and https.
    #[error("the scheme is `{0}`; it must be http or https")]
    Scheme(String),
    /// No host.
    #[error("the URL names no host")]
    NoHost,
    /// A path, query or fragment where only an origin may stand.
    #[error("only scheme, host and port may stand here, not `{0}`")]
    NotAnOrigin(String),
    /// `user:password@`.
    #[error("a user name or password cannot stand in this URL")]
    UserInfo,
    /// `unix:` without the path of a socket.
    #[error("`unix:` is followed by the whole path of a socket, such as `unix:/run/app.sock`")]
    SocketPath,
    /// Port 0.
    #[error("port 0 cannot be connected to")]
    PortZero,
}

impl Origin {
    /// Parses `https://host[:port]`, with or without a single trailing slash, or `unix:/path/of/a/socket`.
    pub fn try_new(text: &str) -> Result<Self, OriginError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::unix(path);
        }
        let url = url::Url::parse(text).map_err(OriginError::Url)?;
        let origin = Self::of_url(&url)?;
        let beyond = format!(
            "{}{}{}",
            if url.path() == "/" { "" } else { url.path() },
            url.query().map(|q| format!("?{q}")).unwrap_or_default(),
            url.fragment().map(|q| format!("#{q}")).unwrap_or_default(),
        );
        if beyond.is_empty() { Ok(origin) } else { Err(OriginError::NotAnOrigin(beyond)) }
    }

    /// A Unix socket on this machine. It stands for an http origin of its own.
    fn unix(path: &str) -> Result<Self, OriginError> {
        if !path.starts_with('/') || path.ends_with('/') {
            return Err(OriginError::SocketPath);
        }
        Ok(Self { scheme: Scheme::Http, host: ["unix:", path].concat().into(), port: 0 })
    }

    /// The path of a Unix socket.
    pub fn unix_path(&self) -> Option<&Path> {
        self.host.strip_prefix("unix:").map(Path::new)
    }

    /// The origin of a whole URL, whatever its path.
    pub fn of_url(url: &url::Url) -> Result<Self, OriginError> {
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => return Err(OriginError::Scheme(other.to_owned())),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(OriginError::UserInfo);
        }
        let host = url.host_str().ok_or(OriginError::NoHost)?;
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.is_empty() {
            return Err(OriginError::NoHost);
        }
        let port = url.port_or_known_default().ok_or(OriginError::NoHost)?;
        if port == 0 {
            return Err(OriginError::PortZero);
        }
        Ok(Self { scheme, host: host.into(), port })
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host as it stands in a URL: IPv6 addresses in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host as a resolver or a TLS name check wants it: IPv6 addresses without brackets.
    pub fn dial_host(&self) -> &str {
        self.host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(&self.host)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host` or `host:port` where the port is not the scheme's own: the value of a Host field. `localhost` for a Unix
    /// socket.
    pub fn authority(&self) -> String {
        if self.unix_path().is_some() {
            "localhost".to_owned()
        } else if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether the host can only be this machine: `localhost`, a name below it, a loopback address or a Unix socket.
    pub fn is_loopback(&self) -> bool {
        if self.unix_path().is_some() {
            return true;
        }
        match self.dial_host().parse::<IpAddr>() {
            Ok(ip) => ip.to_canonical().is_loopback(),
            Err(_) => &*self.host == "localhost" || self.host.ends_with(".localhost"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unix_path() {
            Some(_) => f.write_str(&self.host),
            None => write!(f, "{}://{}", self.scheme.as_str(), self.authority()),
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_normalised() {
        let check = |text: &str, expected: &str| {
            assert_eq!(Origin::try_new(text).expect(text).to_string(), expected);
        };
        check("https://API.Example.com", "https://api.example.com");
        check("https://api.example.com./", "https://api.example.com");
        check("https://api.example.com:443", "https://api.example.com");
        check("http://[::1]:8080", "http://[::1]:8080");
        check("https://bücher.example", "https://xn--bcher-kva.example");
        check("unix:/run/app.sock", "unix:/run/app.sock");
    }

    #[test]
    fn more_than_an_origin_is_refused() {
        let check = |text: &str| assert!(Origin::try_new(text).is_err(), "{text}");
        check("https://a.example/x");
        check("https://a.example?x");
        check("https://u:p@a.example");
        check("ftp://a.example");
        check("a.example");
        check("http://a.example:0");
        check("unix:app.sock");
        check("unix:/run/");
    }

    #[test]
    fn loopback_is_recognised() {
        let check = |text: &str, expected: bool| {
            assert_eq!(Origin::try_new(text).expect(text).is_loopback(), expected, "{text}");
        };
        check("http://localhost:1", true);
        check("http://127.8.0.1", true);
        check("http://[::1]", true);
        check("http://[::ffff:127.0.0.1]", true);
        check("http://localhost.example.com", false);
        check("http://10.0.0.1", false);
        check("unix:/run/app.sock", true);
    }
}
