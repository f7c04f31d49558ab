//! Addresses, hosts, paths and URLs as the configuration writes them.
//!
//! Owns: what is said of one that is none. A URL with a user name is shown in no message.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::read::{Parse, ParseError};
use crate::listener::BindAddress;
use crate::origin::{Origin, OriginError};
use crate::policy::trusted::TrustedPeer;

impl Parse for Origin {
    const WHAT: &'static str = "an origin such as `https://api.example.com`";
    fn schema() -> Value {
        json!({"title": "origin", "type": "string", "format": "uri",
               "examples": ["https://api.example.com", "unix:/run/app.sock"]})
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

/// The URL of an HTTP proxy, `http://[user:password@]host[:port]`.
#[derive(Debug, Clone)]
pub(super) struct ProxyUrl(pub(super) url::Url);

impl Parse for ProxyUrl {
    const WHAT: &'static str = "an HTTP proxy such as `http://proxy.example.com:3128`";
    fn schema() -> Value {
        json!({"title": "URL", "type": ["string", "null"], "format": "uri", "examples": ["http://proxy.example.com:3128"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        let url = url::Url::parse(text).map_err(|error| {
            if text.contains("://") {
                ParseError::because(error)
            } else {
                ParseError::because("the scheme is missing").hint("write `http://` before the host")
            }
        })?;
        let mut bare = url.clone();
        // Both fail only for URLs that can have no user; the origin refuses those.
        let _ = (bare.set_username(""), bare.set_password(None));
        let origin = Origin::try_new(bare.as_str()).map_err(ParseError::because)?;
        if origin.scheme() != crate::origin::Scheme::Http {
            return Err(ParseError::because("a proxy is spoken to over plain http").hint(
                "write `http://…`; what goes through it to an https origin is encrypted all the same",
            ));
        }
        Ok(Self(url))
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

impl Parse for TrustedPeer {
    const WHAT: &'static str = "a network such as `10.0.0.0/8`";
    fn schema() -> Value {
        json!({"title": "network", "type": "string", "examples": ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1", "unix"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        if text == "unix" {
            return Ok(Self::Unix);
        }
        network(text).map(Self::Network)
    }
}

/// A network where only one is possible.
#[derive(Debug, Clone, Copy)]
pub(super) struct Network(pub(super) IpNet);

impl Parse for Network {
    const WHAT: &'static str = "a network such as `10.0.0.0/8`";
    fn schema() -> Value {
        json!({"title": "network", "type": "string", "examples": ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        network(text).map(Self)
    }
}

/// A network in normal form.
fn network(text: &str) -> Result<IpNet, ParseError> {
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => text.parse::<IpAddr>().map(IpNet::from).map_err(|_| network_error(text))?,
    };
    if network.addr() != network.network() {
        return Err(ParseError::because("the address has bits behind the prefix")
            .hint(format!("write `{}`, or the address alone", network.trunc())));
    }
    if let IpAddr::V6(ip) = network.addr()
        && let Some(mapped) = ip.to_ipv4_mapped()
    {
        return Err(ParseError::because("an IPv4 address is written as one")
            .hint(format!("write `{mapped}/{}`", network.prefix_len().saturating_sub(96))));
    }
    Ok(network)
}

fn network_error(text: &str) -> ParseError {
    let Some((address, prefix)) = text.split_once('/') else {
        return ParseError::because("it is no IP address; names are not possible here");
    };
    match address.parse::<IpAddr>() {
        Err(_) => ParseError::because("no IP address stands before the `/`"),
        Ok(ip) => {
            let most = if ip.is_ipv4() { 32 } else { 128 };
            ParseError::because(format!("`{prefix}` is no prefix length from 0 to {most}"))
        }
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

/// A host name or IP address as it stands in a Host field; with a port, that port alone.
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
        if let Some((host, port)) = text.rsplit_once(':') {
            return match port.parse::<u16>() {
                Ok(port) if port > 0 => Self::parse(host).map(|host| Self(format!("{}:{port}", host.0))),
                _ => Err(ParseError::because("the port must be a number from 1 to 65535")),
            };
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
        if text.contains('*') {
            return Err(ParseError::because("a prefix is literal, without patterns"));
        }
        if text.contains("//") {
            return Err(ParseError::because("an empty segment (`//`) cannot stand in a prefix"));
        }
        match crate::route::path::normalize(text) {
            Ok(normal) if normal == text => Ok(Self(text.to_owned())),
            Ok(normal) => Err(ParseError::because("it would never match").hint(format!("write `{normal}`"))),
            Err(error) => Err(ParseError::because(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_what_can_be_bound_to() {
        let check = |text: &str, expected: Result<&str, &str>| match (BindAddress::parse(text), expected) {
            (Ok(address), Ok(shown)) => assert_eq!(format!("{address:?}"), shown),
            (Err(error), Err(part)) => {
                let said = format!("{} {}", error.reason, error.hint.unwrap_or_default());
                assert!(said.contains(part), "{text}: {said}");
            }
            (got, _) => panic!("{text}: {got:?}"),
        };
        check("127.0.0.1:8080", Ok("Tcp(127.0.0.1:8080)"));
        check("[::1]:0", Ok("Tcp([::1]:0)"));
        check("unix:/run/x.sock", Ok("Unix(\"/run/x.sock\")"));
        check("systemd:web", Ok("Systemd(\"web\")"));
        check(":8080", Err("127.0.0.1:8080"));
        check("localhost:80", Err("127.0.0.1:80"));
        check("::1:80", Err("[::1]:80"));
        check("127.0.0.1", Err("127.0.0.1:8080"));
        check("127.0.0.1:99999", Err("from 0 to 65535"));
        check("unix:", Err("path is missing"));
        check("here", Err("IP:PORT"));
    }

    #[test]
    fn trusted_proxies_are_networks() {
        let check = |text: &str, expected: Result<&str, &str>| match (TrustedPeer::parse(text), expected) {
            (Ok(TrustedPeer::Network(network)), Ok(shown)) => assert_eq!(network.to_string(), shown),
            (Ok(TrustedPeer::Unix), Ok(shown)) => assert_eq!("unix", shown),
            (Err(error), Err(part)) => {
                let said = format!("{} {}", error.reason, error.hint.unwrap_or_default());
                assert!(said.contains(part), "{text}: {said}");
            }
            (got, _) => panic!("{text}: {got:?}"),
        };
        check("10.0.0.0/8", Ok("10.0.0.0/8"));
        check("192.0.2.1", Ok("192.0.2.1/32"));
        check("2001:db8::/32", Ok("2001:db8::/32"));
        check("::1", Ok("::1/128"));
        check("unix", Ok("unix"));
        check("10.1.0.0/8", Err("10.0.0.0/8"));
        check("10.0.0.0/33", Err("from 0 to 32"));
        check("2001:db8::/129", Err("from 0 to 128"));
        check("10.0.0/8", Err("no IP address"));
        check("proxy.internal", Err("names are not possible"));
        check("::ffff:10.0.0.0/104", Err("10.0.0.0/8"));
        check("", Err("no IP address"));
    }

    #[test]
    fn hosts_are_normalised() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(Host::parse(text).ok().map(|host| host.0).as_deref(), expected, "{text}");
        };
        check("API.Example.com.", Some("api.example.com"));
        check("bücher.example", Some("xn--bcher-kva.example"));
        check("::1", Some("[::1]"));
        check("[::1]:8080", Some("[::1]:8080"));
        check("a.example:8080", Some("a.example:8080"));
        check("a.example:0", None);
        check("https://a.example", None);
        check("*.a.example", None);
        check("", None);
    }

    #[test]
    fn prefixes_are_in_normal_form() {
        let check =
            |text: &str, expected: bool| assert_eq!(PathPrefix::parse(text).is_ok(), expected, "{text}");
        check("/", true);
        check("/api/v1", true);
        check("/a%2Fb/", true);
        check("api", false);
        check("/a/../b", false);
        check("/a//b", false);
        check("/%61", false);
        check("/a?b", false);
        check("/a b", false);
        check("/%zz", false);
        check("/*", false);
    }

    #[test]
    fn a_proxy_may_have_a_user_and_no_path() {
        let check =
            |text: &str, expected: bool| assert_eq!(ProxyUrl::parse(text).is_ok(), expected, "{text}");
        check("http://proxy:3128", true);
        check("http://user:password@proxy:3128", true);
        check("https://proxy:3128", false);
        check("http://proxy:3128/path", false);
        check("proxy:3128", false);
        check("socks5://proxy", false);
    }
}
