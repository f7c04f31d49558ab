//! The values of the configuration that are written as one text.
//!
//! Owns: how durations, sizes, addresses, names, URLs and header fields are written, and what is said of one
//! that is none.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use super::read::{Parse, ParseError};
use crate::listener::BindAddress;
use crate::names::Name;
use crate::origin::{Origin, OriginError};

/// Any text.
impl Parse for String {
    const WHAT: &'static str = "text";
    fn schema() -> Value {
        json!({"title": "text", "type": "string"})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        Ok(text.to_owned())
    }
}

/// Text of at least one character.
#[derive(Debug, Clone)]
pub(super) struct NonEmpty(pub(super) String);

impl Parse for NonEmpty {
    const WHAT: &'static str = "text of at least one character";
    fn schema() -> Value {
        json!({"title": "text", "type": "string", "minLength": 1})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        if text.trim().is_empty() { Err(ParseError::plain()) } else { Ok(Self(text.to_owned())) }
    }
}

/// Text, or a number or boolean as it is written.
#[derive(Debug, Clone)]
pub(super) struct Loose(pub(super) String);

impl Parse for Loose {
    const WHAT: &'static str = "text";
    const NUMBERS: bool = true;
    fn schema() -> Value {
        json!({"title": "text", "type": ["string", "number", "boolean"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        Ok(Self(text.to_owned()))
    }
}

impl Parse for Duration {
    const WHAT: &'static str = "a duration such as `30s`";
    fn schema() -> Value {
        json!({"title": "duration", "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$|\\$\\{",
               "examples": ["250ms", "30s", "5m", "12h", "7d"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        let units =
            || ParseError::plain().hint("write a whole number and a unit: `250ms`, `30s`, `5m`, `12h`, `7d`");
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = &text[..text.len() - unit.len()];
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(units()),
        };
        let count: u64 = digits.parse().map_err(|_| units())?;
        let total = count.checked_mul(millis).filter(|total| *total <= 36_500 * 86_400_000);
        total.map(Self::from_millis).ok_or_else(|| ParseError::because("longer than a hundred years"))
    }
}

/// A duration above zero.
#[derive(Debug, Clone, Copy)]
pub(super) struct Positive(pub(super) Duration);

impl Parse for Positive {
    const WHAT: &'static str = "a duration such as `30s`";
    fn schema() -> Value {
        Duration::schema()
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        let duration = Duration::parse(text)?;
        if duration.is_zero() {
            return Err(ParseError::because("it must be longer than nothing"));
        }
        Ok(Self(duration))
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size(pub(super) u64);

impl Parse for Size {
    const WHAT: &'static str = "a size such as `64KiB`";
    const NUMBERS: bool = true;
    fn schema() -> Value {
        json!({"title": "size", "type": ["string", "integer"],
               "pattern": "^[0-9]+ ?(B|KiB|MiB|GiB|kB|KB|MB|GB)?$|\\$\\{", "examples": ["64KiB", "1MiB"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        let size = text.parse::<bytesize::ByteSize>();
        size.map(|size| Self(size.0))
            .map_err(|_| ParseError::plain().hint("write a number and a unit: `64KiB`, `1MiB`"))
    }
}

/// A whole number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count(pub(super) usize);

impl Parse for Count {
    const WHAT: &'static str = "a whole number above 0";
    const NUMBERS: bool = true;
    fn schema() -> Value {
        json!({"title": "number", "type": ["integer", "string"], "minimum": 1, "pattern": "^[0-9]+$|\\$\\{"})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        match text.parse() {
            Ok(0) | Err(_) => Err(ParseError::plain()),
            Ok(count) => Ok(Self(count)),
        }
    }
}

/// A number of workers, or `auto`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Workers(pub(super) Option<usize>);

impl Parse for Workers {
    const WHAT: &'static str = "`auto` or a number from 1 to 1024";
    const NUMBERS: bool = true;
    fn schema() -> Value {
        json!({"title": "number or `auto`", "type": ["integer", "string"], "minimum": 1, "maximum": 1024,
               "pattern": "^(auto|[0-9]+)$|\\$\\{"})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        if text == "auto" {
            return Ok(Self(None));
        }
        match text.parse() {
            Ok(count @ 1..=1024) => Ok(Self(Some(count))),
            _ => Err(ParseError::plain()),
        }
    }
}

/// The version of the configuration's language.
#[derive(Debug, Clone, Copy)]
pub(super) struct Version;

impl Parse for Version {
    const WHAT: &'static str = "a version that this program knows";
    const NUMBERS: bool = true;
    fn schema() -> Value {
        json!({"title": "number", "enum": [1]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        if text == "1" { Ok(Self) } else { Err(ParseError::plain().hint("write `version: 1`")) }
    }
}

/// A part between 0 and 1, in parts per million.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fraction(pub(super) u32);

impl Parse for Fraction {
    const WHAT: &'static str = "a fraction between 0 and 1, such as 0.75";
    const NUMBERS: bool = true;
    fn schema() -> Value {
        json!({"title": "fraction", "type": ["number", "string"], "exclusiveMinimum": 0, "exclusiveMaximum": 1})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        let fraction: f64 = text.parse().map_err(|_| ParseError::plain())?;
        let millionths = (fraction * 1e6).round();
        if !(1.0..1e6).contains(&millionths) {
            return Err(ParseError::plain());
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and a million")]
        Ok(Self(millionths as u32))
    }
}

impl Parse for Name {
    const WHAT: &'static str = "a name";
    fn schema() -> Value {
        json!({"title": "name", "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$|\\$\\{"})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        Self::try_new(text).map_err(ParseError::because)
    }
}

impl Parse for Origin {
    const WHAT: &'static str = "an origin such as `https://api.example.com`";
    fn schema() -> Value {
        json!({"title": "origin", "type": "string", "format": "uri", "examples": ["https://api.example.com"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        Self::try_new(text).map_err(|error| match error {
            OriginError::NotAnOrigin(_) => ParseError::because("a path cannot stand here").hint(
                "remove the path here; `rewrite_prefix` of the route puts one before the request's path",
            ),
            OriginError::Url(_) if !text.contains("://") => {
                ParseError::because("the scheme is missing").hint("write `https://` before the host")
            }
            other => ParseError::because(other),
        })
    }
}

/// An `http` or `https` URL without user name and fragment.
#[derive(Debug, Clone)]
pub(super) struct HttpUrl(pub(super) url::Url);

impl Parse for HttpUrl {
    const WHAT: &'static str = "a URL such as `https://id.example.com/token`";
    fn schema() -> Value {
        json!({"title": "URL", "type": "string", "format": "uri"})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        let url = url::Url::parse(text).map_err(|error| {
            if text.contains("://") {
                ParseError::because(error)
            } else {
                ParseError::because("the scheme is missing").hint("write `https://` before the host")
            }
        })?;
        Origin::of_url(&url).map_err(ParseError::because)?;
        if url.fragment().is_some() {
            return Err(ParseError::because("a fragment (`#…`) cannot stand here"));
        }
        Ok(Self(url))
    }
}

/// The URL of an HTTP proxy.
#[derive(Debug, Clone)]
pub(super) struct ProxyUrl(pub(super) url::Url);

impl Parse for ProxyUrl {
    const WHAT: &'static str = "an HTTP proxy such as `http://proxy.example.com:3128`";
    fn schema() -> Value {
        json!({"title": "URL", "type": ["string", "null"], "format": "uri", "examples": ["http://proxy.example.com:3128"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        let origin = Origin::try_new(text).map_err(|error| match error {
            OriginError::UserInfo => {
                ParseError::because("a proxy with a user name is not supported by this version")
            }
            OriginError::Url(_) if !text.contains("://") => {
                ParseError::because("the scheme is missing").hint("write `http://` before the host")
            }
            other => ParseError::because(other),
        })?;
        if origin.scheme() != crate::origin::Scheme::Http {
            return Err(ParseError::because("a proxy is spoken to over plain http").hint(
                "write `http://…`; what goes through it to an https origin is encrypted all the same",
            ));
        }
        url::Url::parse(text).map(Self).map_err(ParseError::because)
    }
}

impl Parse for BindAddress {
    const WHAT: &'static str = "an address such as `127.0.0.1:8080`";
    fn schema() -> Value {
        json!({"title": "address", "type": "string",
               "examples": ["127.0.0.1:8080", "[::1]:8080", "unix:/run/bearward/api.sock", "systemd:NAME"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(ParseError::because("the path is missing"));
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        if let Some(name) = text.strip_prefix("systemd:") {
            if name.is_empty() {
                return Err(ParseError::because("the socket's name is missing"));
            }
            return Ok(Self::Systemd(name.to_owned()));
        }
        text.parse().map(Self::Tcp).map_err(|_| address_error(text))
    }
}

fn address_error(text: &str) -> ParseError {
    if let Some((host, port)) = text.rsplit_once(':') {
        if port.parse::<u16>().is_err() {
            return ParseError::because("the port must be a number from 0 to 65535");
        }
        return match host {
            "localhost" => {
                ParseError::because("a name cannot be bound to").hint(format!("write `127.0.0.1:{port}`"))
            }
            "" | "*" => ParseError::because("the address is missing").hint(format!(
                "write `127.0.0.1:{port}` for this machine alone, \"[::]:{port}\" or `0.0.0.0:{port}` for all"
            )),
            host if host.contains(':') => ParseError::because("an IPv6 address stands in brackets")
                .hint(format!("write \"[{}]:{port}\" in quotes", host.trim_matches(['[', ']']))),
            _ => ParseError::because("an IP address must stand before the port"),
        };
    }
    match text.parse::<std::net::IpAddr>() {
        Ok(ip) if ip.is_ipv4() => {
            ParseError::because("the port is missing").hint(format!("write `{text}:8080`"))
        }
        _ => ParseError::plain().hint("write `IP:PORT`, `unix:/PATH` or `systemd:NAME`"),
    }
}

impl Parse for std::net::SocketAddr {
    const WHAT: &'static str = "an address such as `0.0.0.0:9902`";
    fn schema() -> Value {
        json!({"title": "address", "type": "string", "examples": ["0.0.0.0:9902"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        text.parse().map_err(|_| address_error(text))
    }
}

/// A host name or IP address as it stands in a Host field, without port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host(pub(super) String);

impl Parse for Host {
    const WHAT: &'static str = "a host such as `api.internal`";
    fn schema() -> Value {
        json!({"title": "host", "type": "string", "examples": ["localhost", "api.internal"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        if text.contains("://") || text.contains('/') {
            return Err(ParseError::because("only the host may stand here, without scheme and path"));
        }
        if text.contains('*') {
            return Err(ParseError::because("patterns are not possible here").hint("list each host"));
        }
        let unbracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if unbracketed.parse::<std::net::Ipv6Addr>().is_ok() {
            return Ok(Self(format!("[{}]", unbracketed.to_ascii_lowercase())));
        }
        if text.contains(':') {
            return Err(ParseError::because("a port cannot stand here")
                .hint("any port matches; write the host alone"));
        }
        let host = url::Host::parse(text.strip_suffix('.').unwrap_or(text));
        host.map(|host| Self(host.to_string())).map_err(ParseError::because)
    }
}

/// A path that begins with `/`, in normal form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathPrefix(pub(super) String);

impl Parse for PathPrefix {
    const WHAT: &'static str = "a path prefix such as `/api/`";
    fn schema() -> Value {
        json!({"title": "path", "type": "string", "pattern": "^/|\\$\\{", "examples": ["/api/"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        if !text.starts_with('/') {
            return Err(ParseError::because("it must begin with `/`").hint(format!("write `/{text}`")));
        }
        if text.contains(['?', '#', '*', '\\']) || text.chars().any(|c| !c.is_ascii_graphic()) {
            return Err(ParseError::because("it holds a character that cannot stand in a path prefix").hint(
                "a prefix is literal: no patterns, query or fragment; other characters are percent-encoded",
            ));
        }
        if text.split('/').any(|segment| matches!(segment, "." | "..")) || text.contains("//") {
            return Err(ParseError::because("`.`, `..` and empty segments never match"));
        }
        let good = text
            .split('%')
            .skip(1)
            .all(|rest| rest.as_bytes().get(..2).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)));
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseError::because("`%` must begin an escape such as `%20`"))
        }
    }
}

impl Parse for Method {
    const WHAT: &'static str = "a method such as `GET`";
    fn schema() -> Value {
        json!({"title": "method", "type": "string", "examples": ["GET", "POST"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        if text.chars().any(|c| c.is_ascii_lowercase()) {
            let upper = text.to_ascii_uppercase();
            return Err(ParseError::because("methods are case-sensitive").hint(format!("write `{upper}`")));
        }
        if matches!(text, "CONNECT" | "TRACE" | "TRACK") {
            return Err(ParseError::because("this method is never forwarded"));
        }
        Self::from_bytes(text.as_bytes()).map_err(|_| ParseError::plain())
    }
}

impl Parse for HeaderName {
    const WHAT: &'static str = "a header name";
    fn schema() -> Value {
        json!({"title": "header name", "type": "string"})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        Self::from_bytes(text.as_bytes())
            .map_err(|_| ParseError::because("letters, digits and `-` make a header name"))
    }
}

impl Parse for HeaderValue {
    const WHAT: &'static str = "a header value";
    const NUMBERS: bool = true;
    fn schema() -> Value {
        json!({"title": "text", "type": ["string", "number", "boolean"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        if text.bytes().any(|byte| !(byte == b'\t' || (b' '..=b'~').contains(&byte))) {
            return Err(ParseError::because("only printable ASCII can stand in a header"));
        }
        Self::from_str(text).map_err(|_| ParseError::plain())
    }
}

impl Parse for tracing::Level {
    const WHAT: &'static str = "a log level";
    fn schema() -> Value {
        json!({"title": "log level", "enum": ["trace", "debug", "info", "warn", "error"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        match text {
            "trace" => Ok(Self::TRACE),
            "debug" => Ok(Self::DEBUG),
            "info" => Ok(Self::INFO),
            "warn" => Ok(Self::WARN),
            "error" => Ok(Self::ERROR),
            other => {
                Err(super::block::no_choice("log level", other, &["trace", "debug", "info", "warn", "error"]))
            }
        }
    }
}
