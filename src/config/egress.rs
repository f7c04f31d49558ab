//! How the rules of egress listeners write hosts, ports and networks.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::read::{Parse, ParseError};
use crate::policy::egress::{HostPattern, PatternError};

/// A host of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostGlob(pub(super) HostPattern);

impl Parse for HostGlob {
    const WHAT: &'static str = "a host such as `api.example.com` or `*.example.com`";
    fn schema() -> Value {
        json!({"title": "host pattern", "type": "string",
               "examples": ["api.example.com", "*.example.com", "**.example.com", "192.0.2.1", "**"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        HostPattern::parse(text).map(Self).map_err(|error| {
            let problem = ParseError::because(error);
            match error {
                PatternError::NotAHost => problem.hint(match text.split_once("://") {
                    Some(_) => "write the host alone; its port goes into `ports: [443]`",
                    None if text.parse::<IpNet>().is_ok() => {
                        "a network is no host: `egress_network` judges the addresses that hosts resolve to"
                    }
                    None => "ports have a list of their own: `ports: [443]`",
                }),
                PatternError::PartOfLabel => {
                    problem.hint("`*.example.com` is one label, `**.example.com` any depth")
                }
                PatternError::DeepInside => problem.hint("write `*` for each label that may be anything"),
                PatternError::NoName => problem.hint(
                    "labels of letters, digits and `-`, parted by single dots, such as `api.example.com`",
                ),
            }
        })
    }
}

/// One port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Port(pub(super) u16);

impl Parse for Port {
    const WHAT: &'static str = "a port from 1 to 65535";
    const NUMBERS: bool = true;
    fn schema() -> Value {
        json!({"title": "port", "type": ["integer", "string"], "minimum": 1, "maximum": 65535})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        text.parse().ok().filter(|port| *port != 0).map(Self).ok_or_else(|| {
            let problem = ParseError::plain();
            if text.starts_with(|first: char| first.is_ascii_alphabetic()) {
                return problem.hint("write its number: 443 is that of https, 80 of http");
            }
            problem.hint("ports are numbers from 1 to 65535")
        })
    }
}

/// A port, or a range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PortRange(pub(super) u16, pub(super) u16);

impl Parse for PortRange {
    const WHAT: &'static str = "a port such as `443` or a range such as `8000-8999`";
    const NUMBERS: bool = true;
    fn schema() -> Value {
        json!({"title": "ports", "type": ["integer", "string"], "examples": [443, "8000-8999"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let (from, to) = (Port::parse(from.trim())?.0, Port::parse(to.trim())?.0);
        if from > to {
            return Err(ParseError::because("the range ends before it begins"));
        }
        Ok(Self(from, to))
    }
}

impl Parse for IpNet {
    const WHAT: &'static str = "a network such as `10.20.0.0/16`";
    fn schema() -> Value {
        json!({"title": "network", "type": "string", "examples": ["10.20.0.0/16", "fd00:1::/32", "127.0.0.1"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        let network: Self = match text.parse() {
            Ok(network) => network,
            Err(_) => text
                .parse::<IpAddr>()
                .map(Self::from)
                .map_err(|_| ParseError::because("it is neither an IP address nor a network"))?,
        };
        if network.addr() != network.network() {
            return Err(ParseError::because("the address has bits behind the prefix")
                .hint(format!("write `{}`, or the address alone", network.trunc())));
        }
        if let Self::V6(v6) = network
            && let Some(mapped) = v6.addr().to_ipv4_mapped()
        {
            return Err(ParseError::because("an IPv4 address is written as one")
                .hint(format!("write `{mapped}/{}`", network.prefix_len().saturating_sub(96))));
        }
        Ok(network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_single_or_ranges() {
        let check = |text: &str, expected: Option<(u16, u16)>| {
            assert_eq!(PortRange::parse(text).ok().map(|range| (range.0, range.1)), expected, "{text}");
        };
        check("443", Some((443, 443)));
        check("8000-8999", Some((8000, 8999)));
        check("8000 - 8999", Some((8000, 8999)));
        check("0", None);
        check("65536", None);
        check("2-1", None);
        check("a", None);
        check("-1", None);
    }
}
