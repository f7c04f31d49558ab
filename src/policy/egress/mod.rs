//! The rules of an egress listener: which of them decides on a request.
//!
//! Owns: matching, first rule first. What no rule takes is denied. Resolves no name: addresses are the network guard's.

mod host;
mod target;

use std::fmt;

use http::Method;

use crate::names::Name;
pub use host::{HostPattern, PatternError};
pub use target::{Target, TargetError, TargetHost};

/// `action` of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// TLS is ended here and the requests inside are handled like a route's.
    Intercept,
    /// A plain request goes on over TLS.
    Upgrade,
    /// A plain request goes on as it is.
    Forward,
    /// Bytes pass untouched.
    Tunnel,
    /// Refused.
    Deny,
    /// A token endpoint is answered here, with a token that is none.
    StubTokenEndpoint,
}

/// `match` of a rule; all conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleMatch {
    /// `hosts`; empty: every host.
    pub hosts: Vec<HostPattern>,
    /// `ports`, as ranges; empty: every port.
    pub ports: Vec<(u16, u16)>,
    /// `clients`; empty: every client.
    pub clients: Vec<Name>,
    /// `methods`; empty: every method.
    pub methods: Vec<Method>,
    /// `path_prefix`, in normal form, matching on segment boundaries.
    pub path_prefix: Option<String>,
}

/// One rule as the search sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// `match`.
    pub condition: RuleMatch,
    /// `action`.
    pub action: Action,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Where it is to go.
    pub target: &'a Target,
    /// Who asks, where the listener knows its clients.
    pub client: Option<&'a Name>,
    /// How.
    pub form: Form<'a>,
}

/// How a target is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Form<'a> {
    /// CONNECT or SOCKS: a way for bytes.
    Connection,
    /// A request in absolute-form for an http URL.
    Request(&'a Method, &'a str),
    /// The same for an https URL: it goes on over TLS or not at all.
    SecureRequest(&'a Method, &'a str),
    /// A request inside a connection that is intercepted.
    Intercepted(&'a Method, &'a str),
}

impl<'a> Form<'a> {
    /// The path, where it is seen.
    pub fn path(self) -> Option<&'a str> {
        match self {
            Self::Connection => None,
            Self::Request(_, path) | Self::SecureRequest(_, path) | Self::Intercepted(_, path) => Some(path),
        }
    }

    /// The same for another path.
    #[must_use]
    pub fn with_path<'b>(self, path: &'b str) -> Form<'b>
    where
        'a: 'b,
    {
        match self {
            Self::Connection => Form::Connection,
            Self::Request(method, _) => Form::Request(method, path),
            Self::SecureRequest(method, _) => Form::SecureRequest(method, path),
            Self::Intercepted(method, _) => Form::Intercepted(method, path),
        }
    }
}

/// Why a rule does not decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// Its action is for another form.
    Form,
    /// `hosts`.
    Host,
    /// `ports`.
    Port,
    /// `clients`.
    Client,
    /// `methods`.
    Method,
    /// `path_prefix`.
    Path,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "its action is for another kind of request",
            Self::Host => "none of its `hosts` matches",
            Self::Port => "the port is not among its `ports`",
            Self::Client => "the client is not among its `clients`",
            Self::Method => "the method is not among its `methods`",
            Self::Path => "the path does not begin with its `path_prefix`",
        })
    }
}

impl Action {
    /// As the configuration writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intercept => "intercept",
            Self::Upgrade => "upgrade",
            Self::Forward => "forward",
            Self::Tunnel => "tunnel",
            Self::Deny => "deny",
            Self::StubTokenEndpoint => "stub_token_endpoint",
        }
    }

    fn is_for(self, form: Form<'_>) -> bool {
        match form {
            Form::Connection => matches!(self, Self::Tunnel | Self::Intercept | Self::Deny),
            Form::Request(..) => {
                matches!(self, Self::Forward | Self::Upgrade | Self::StubTokenEndpoint | Self::Deny)
            }
            Form::SecureRequest(..) => {
                matches!(self, Self::Upgrade | Self::StubTokenEndpoint | Self::Deny)
            }
            Form::Intercepted(..) => {
                matches!(self, Self::Intercept | Self::StubTokenEndpoint | Self::Deny)
            }
        }
    }
}

impl RuleMatch {
    /// Why the rule does not take this; `None` if it does. A connection shows neither method nor path: for it, those
    /// conditions are judged on the requests inside.
    fn mismatch(&self, ask: &Ask<'_>) -> Option<Mismatch> {
        let port = ask.target.port();
        if !self.hosts.is_empty() && !self.hosts.iter().any(|pattern| pattern.matches(ask.target.host())) {
            return Some(Mismatch::Host);
        }
        if !self.ports.is_empty() && !self.ports.iter().any(|(from, to)| (*from..=*to).contains(&port)) {
            return Some(Mismatch::Port);
        }
        if !self.clients.is_empty() && !ask.client.is_some_and(|client| self.clients.contains(client)) {
            return Some(Mismatch::Client);
        }
        let (method, path) = match ask.form {
            Form::Connection => return None,
            Form::Request(method, path)
            | Form::SecureRequest(method, path)
            | Form::Intercepted(method, path) => (method, path),
        };
        if !self.methods.is_empty() && !self.methods.contains(method) {
            return Some(Mismatch::Method);
        }
        let inside = |prefix: &str| {
            path.strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
        };
        self.path_prefix.as_deref().is_some_and(|prefix| !inside(prefix)).then_some(Mismatch::Path)
    }
}

impl Rule {
    /// Why this rule does not decide; `None` if it does.
    pub fn mismatch(&self, ask: &Ask<'_>) -> Option<Mismatch> {
        let denies_by_request = self.action == Action::Deny
            && matches!(ask.form, Form::Connection)
            && (!self.condition.methods.is_empty() || self.condition.path_prefix.is_some());
        // A denial of some requests is none of the connection that may carry them.
        if !self.action.is_for(ask.form) || denies_by_request {
            return Some(Mismatch::Form);
        }
        self.condition.mismatch(ask)
    }
}

/// The index of the first rule that decides.
pub fn decide<'r>(mut rules: impl Iterator<Item = &'r Rule>, ask: &Ask<'_>) -> Option<usize> {
    rules.position(|rule| rule.mismatch(ask).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(action: Action, hosts: &[&str], ports: &[(u16, u16)]) -> Rule {
        let hosts = hosts.iter().map(|text| HostPattern::parse(text).expect(text)).collect();
        Rule { condition: RuleMatch { hosts, ports: ports.to_vec(), ..RuleMatch::default() }, action }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let batch = Name::try_new("batch").expect("a name");
        let rules = [
            rule(Action::Deny, &["secret.example.com"], &[]),
            rule(Action::Tunnel, &["*.example.com"], &[(443, 443)]),
            rule(Action::Forward, &["*.example.com"], &[(80, 80), (8000, 8999)]),
            Rule {
                condition: RuleMatch {
                    clients: vec![batch.clone()],
                    ..rule(Action::Tunnel, &["**.corp.example"], &[]).condition
                },
                action: Action::Tunnel,
            },
            Rule {
                condition: RuleMatch {
                    methods: vec![Method::GET],
                    path_prefix: Some("/v1".to_owned()),
                    ..rule(Action::Upgrade, &["api.test"], &[]).condition
                },
                action: Action::Upgrade,
            },
        ];
        let check = |target: &str, client: Option<&Name>, form: Form<'_>, expected: Option<usize>| {
            let target = Target::parse(target).expect(target);
            let ask = Ask { target: &target, client, form };
            assert_eq!(decide(rules.iter(), &ask), expected, "{target} {client:?} {form:?}");
        };
        let get = |path| Form::Request(&Method::GET, path);
        check("secret.example.com:443", None, Form::Connection, Some(0));
        check("SECRET.Example.Com.:443", None, Form::Connection, Some(0));
        check("a.example.com:443", None, Form::Connection, Some(1));
        check("a.example.com:444", None, Form::Connection, None);
        check("a.example.com:80", None, Form::Connection, None);
        check("a.example.com:80", None, get("/"), Some(2));
        check("a.example.com:8999", None, get("/"), Some(2));
        check("a.example.com:9000", None, get("/"), None);
        check("a.b.example.com:80", None, get("/"), None);
        check("example.com:80", None, get("/"), None);
        check("a.b.corp.example:1", Some(&batch), Form::Connection, Some(3));
        check("a.b.corp.example:1", None, Form::Connection, None);
        check("api.test:80", None, get("/v1"), Some(4));
        check("api.test:80", None, get("/v1/x"), Some(4));
        check("api.test:80", None, get("/v10"), None);
        check("api.test:80", None, Form::Request(&Method::POST, "/v1"), None);
    }

    #[test]
    fn rules_say_why_they_do_not_decide() {
        let target = Target::parse("a.example:80").expect("a target");
        let check = |rule: &Rule, form: Form<'_>, expected: Option<Mismatch>| {
            assert_eq!(rule.mismatch(&Ask { target: &target, client: None, form }), expected, "{rule:?}");
        };
        let get = Form::Request(&Method::GET, "/x");
        check(&rule(Action::Tunnel, &["**"], &[]), get, Some(Mismatch::Form));
        check(&rule(Action::Forward, &["**"], &[]), Form::Connection, Some(Mismatch::Form));
        check(&rule(Action::Forward, &["b.example"], &[]), get, Some(Mismatch::Host));
        check(&rule(Action::Forward, &["**"], &[(81, 90)]), get, Some(Mismatch::Port));
        check(&rule(Action::Forward, &[], &[]), get, None);
        let mut posts = rule(Action::Deny, &[], &[]);
        posts.condition.methods = vec![Method::POST];
        check(&posts, get, Some(Mismatch::Method));
        check(&posts, Form::Request(&Method::POST, "/"), None);
        check(&posts, Form::Connection, Some(Mismatch::Form));
    }
}
