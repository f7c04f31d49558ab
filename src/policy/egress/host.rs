//! Host patterns: names label by label, and addresses.

use std::fmt;
use std::net::IpAddr;

use super::TargetHost;

/// One entry of `hosts` of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// `**`: every name and address.
    Everything,
    /// This address, in canonical form.
    Address(IpAddr),
    /// Labels, the last first; `**` in front stands for one or more.
    Name { labels: Vec<Label>, deeper: bool },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Label {
    Any,
    Exactly(String),
}

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Scheme, path or user.
    #[error("only the host may stand here, without scheme, port and path")]
    NotAHost,
    /// `a*.example.com`.
    #[error("`*` stands for a whole label")]
    PartOfLabel,
    /// `a.**.example.com`.
    #[error("`**` can only come first")]
    DeepInside,
    /// What no name has.
    #[error("it is no host name")]
    NoName,
}

impl HostPattern {
    /// Parses `name`, `*.name` (one label), `**.name` (any depth), `**` (everything) or an IP address.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text == "**" {
            return Ok(Self(Kind::Everything));
        }
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(Self(Kind::Address(ip.to_canonical())));
        }
        if text.contains(['/', ':', '@', '?', '#', '[', ']']) {
            return Err(PatternError::NotAHost);
        }
        let (deeper, rest) = match text.strip_prefix("**.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let rest = rest.strip_suffix('.').unwrap_or(rest);
        let mut labels = Vec::new();
        for label in rest.split('.').rev() {
            labels.push(match label {
                "*" => Label::Any,
                "**" => return Err(PatternError::DeepInside),
                label if label.contains('*') => return Err(PatternError::PartOfLabel),
                label => Label::Exactly(ascii(label)?),
            });
        }
        // A name that ends in a number is an address to every resolver, and none that a pattern could mean.
        if let Some(Label::Exactly(last)) = labels.first()
            && last.bytes().all(|byte| byte.is_ascii_digit())
        {
            return Err(PatternError::NoName);
        }
        Ok(Self(Kind::Name { labels, deeper }))
    }

    /// Whether the host is one of these.
    pub fn matches(&self, host: &TargetHost) -> bool {
        match (&self.0, host) {
            (Kind::Everything, _) => true,
            (Kind::Address(wanted), TargetHost::Address(ip)) => wanted == ip,
            (Kind::Name { labels, deeper }, TargetHost::Name(name)) => {
                let mut parts = name.rsplit('.');
                let fits = labels.iter().all(|label| match (label, parts.next()) {
                    (_, None) => false,
                    (Label::Any, Some(_)) => true,
                    (Label::Exactly(label), Some(part)) => label == part,
                });
                fits && parts.next().is_some() == *deeper
            }
            _ => false,
        }
    }

    /// Whether every host of the other is one of these.
    pub fn covers(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Kind::Everything, _) => true,
            (Kind::Address(one), Kind::Address(other)) => one == other,
            (Kind::Name { labels, deeper }, Kind::Name { labels: narrow, deeper: narrow_deeper }) => {
                let each =
                    labels.iter().zip(narrow).all(|(wide, narrow)| *wide == Label::Any || wide == narrow);
                let long_enough = match deeper {
                    true => narrow.len() > labels.len() || *narrow_deeper && narrow.len() == labels.len(),
                    false => narrow.len() == labels.len() && !narrow_deeper,
                };
                each && long_enough
            }
            _ => false,
        }
    }

    /// Whether it stands for more than one host.
    pub fn is_wildcard(&self) -> bool {
        match &self.0 {
            Kind::Everything => true,
            Kind::Address(_) => false,
            Kind::Name { labels, deeper } => *deeper || labels.contains(&Label::Any),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Everything => f.write_str("**"),
            Kind::Address(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Kind::Address(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Kind::Name { labels, deeper } => {
                let mut texts: Vec<&str> = if *deeper { vec!["**"] } else { Vec::new() };
                texts.extend(labels.iter().rev().map(|label| match label {
                    Label::Any => "*",
                    Label::Exactly(text) => text.as_str(),
                }));
                f.write_str(&texts.join("."))
            }
        }
    }
}

/// A label in lower case and ASCII (IDNA).
fn ascii(label: &str) -> Result<String, PatternError> {
    // A name of one label that looks like a number would be read as an address: it is judged beside another.
    let text = [label, ".a"].concat();
    match url::Host::parse(&text) {
        Ok(url::Host::Domain(name)) => {
            let plain =
                name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
            name.strip_suffix(".a")
                .filter(|label| plain && !label.is_empty() && label.len() <= 63 && !label.contains('.'))
                .map(str::to_owned)
                .ok_or(PatternError::NoName)
        }
        _ => Err(PatternError::NoName),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Target;
    use super::*;

    #[test]
    fn names_match_label_by_label() {
        let check = |pattern: &str, host: &str, expected: bool| {
            let target = Target::parse(&[host, ":443"].concat()).expect(host);
            let pattern = HostPattern::parse(pattern).expect(pattern);
            assert_eq!(pattern.matches(target.host()), expected, "{pattern} {host}");
        };
        check("api.example.com", "api.example.com", true);
        check("API.Example.com.", "api.example.com", true);
        check("api.example.com", "API.EXAMPLE.COM.", true);
        check("api.example.com", "xapi.example.com", false);
        check("api.example.com", "api.example.com.evil.test", false);
        check("api.example.com", "a.api.example.com", false);
        check("*.example.com", "a.example.com", true);
        check("*.example.com", "example.com", false);
        check("*.example.com", "a.b.example.com", false);
        check("*.example.com", "aexample.com", false);
        check("**.example.com", "a.example.com", true);
        check("**.example.com", "a.b.c.example.com", true);
        check("**.example.com", "example.com", false);
        check("**.example.com", "evilexample.com", false);
        check("api.*.example.com", "api.eu.example.com", true);
        check("api.*.example.com", "www.eu.example.com", false);
        check("*", "localhost", true);
        check("*", "a.b", false);
        check("bücher.example", "xn--bcher-kva.example", true);
        check("*.bücher.example", "a.xn--bcher-kva.example", true);
        check("my_host.example", "my_host.example", true);
        check("127.0.0.1", "127.0.0.1", true);
        check("127.0.0.1", "2130706433", true);
        check("127.0.0.1", "0x7f.1", true);
        check("127.0.0.1", "[::ffff:127.0.0.1]", true);
        check("[::1]", "[0:0::1]", true);
        check("::1", "[::1]", true);
        check("**", "10.0.0.1", true);
        check("**", "a.b.c", true);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let check = |pattern: &str, expected: PatternError| {
            assert_eq!(HostPattern::parse(pattern), Err(expected), "{pattern}");
        };
        check("https://a.example", PatternError::NotAHost);
        check("a.example:443", PatternError::NotAHost);
        check("a.example/x", PatternError::NotAHost);
        check("u@a.example", PatternError::NotAHost);
        check("api-*.example.com", PatternError::PartOfLabel);
        check("a.**.example.com", PatternError::DeepInside);
        check("a..example", PatternError::NoName);
        check("", PatternError::NoName);
        check(".", PatternError::NoName);
        check("a b.example", PatternError::NoName);
        check("10.0.0", PatternError::NoName);
        check("*.0.0.1", PatternError::NoName);
        check("a%2eb.example", PatternError::NoName);
    }
}
