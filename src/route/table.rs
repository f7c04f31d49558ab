//! The route table of one listener: authority, then the longest path prefix, then the method.
//!
//! Owns: matching. Knows routes by their index in the configuration and nothing of what they do.

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::Method;

use super::RouteConfig;
use super::authority::Authority;

/// The routes of a listener, ready to be searched.
#[derive(Debug)]
pub struct RouteTable {
    /// Sorted by key: `host` or `host:port`.
    hosts: Vec<(String, Group)>,
    /// Whether some key names a port.
    ports: bool,
    /// For the address that a connection came in on, where the listener is bound to all of them.
    local: Option<Group>,
    /// For HTTP/1.0 requests that name no host.
    nameless: Group,
}

/// What a search found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match<'a> {
    /// The route of this index.
    Route(usize),
    /// No route lists the authority: 421.
    Misdirected,
    /// No prefix matches: 404.
    NotFound,
    /// Prefix and authority match, the method does not: 405 with these methods.
    MethodNotAllowed(&'a [Method]),
}

/// Prefixes of one authority, the longest first.
#[derive(Debug, Default)]
struct Group(Vec<Prefix>);

#[derive(Debug)]
struct Prefix {
    path: String,
    /// Routes of this prefix: those with methods before the one without.
    routes: Vec<(Vec<Method>, usize)>,
    /// All methods, for `Allow`.
    allowed: Vec<Method>,
}

impl RouteTable {
    /// Sorts `routes`. `bind` is the address of the listener; `None` for a Unix socket.
    pub fn new(routes: &[RouteConfig], bind: Option<IpAddr>) -> Self {
        let mut defaults = vec!["localhost".to_owned()];
        if let Some(ip) = bind.filter(|ip| !ip.is_unspecified()) {
            defaults.push(host_of(ip));
        }
        let mut keys: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, route) in routes.iter().enumerate() {
            for host in route.hosts.as_deref().unwrap_or(&defaults) {
                keys.entry(host.to_ascii_lowercase()).or_default().push(index);
            }
        }
        // A key with a port also holds what is listed for its host without one.
        let with_port: Vec<_> =
            keys.keys().filter_map(|key| Some((key.clone(), split_port(key)?.to_owned()))).collect();
        for (key, host) in &with_port {
            let general = keys.get(host).cloned().unwrap_or_default();
            keys.entry(key.clone()).or_default().extend(general);
        }
        let unlisted: Vec<usize> = routes
            .iter()
            .enumerate()
            .filter(|(_, route)| route.hosts.is_none())
            .map(|(index, _)| index)
            .collect();
        let local = bind.is_some_and(|ip| ip.is_unspecified()).then(|| Group::new(routes, &unlisted));
        Self {
            ports: !with_port.is_empty(),
            hosts: keys.into_iter().map(|(key, indices)| (key, Group::new(routes, &indices))).collect(),
            local,
            nameless: Group::new(routes, &unlisted),
        }
    }

    /// Finds the route. `path` is in normal form; `local` is the address that the connection came in on;
    /// `authority` is `None` only for an HTTP/1.0 request without a Host field.
    pub fn find(
        &self,
        authority: Option<&Authority<'_>>,
        local: Option<IpAddr>,
        path: &str,
        method: &Method,
    ) -> Match<'_> {
        match self.group(authority, local) {
            Some(group) => group.find(path, method),
            None => Match::Misdirected,
        }
    }

    fn group(&self, authority: Option<&Authority<'_>>, local: Option<IpAddr>) -> Option<&Group> {
        let Some(authority) = authority else { return Some(&self.nameless) };
        if self.ports
            && let Some(port) = authority.port
        {
            let key = [&*authority.host, ":", &port.to_string()].concat();
            if let Some(group) = self.by_key(&key) {
                return Some(group);
            }
        }
        if let Some(group) = self.by_key(&authority.host) {
            return Some(group);
        }
        let group = self.local.as_ref()?;
        authority
            .ip()
            .filter(|ip| local.is_some_and(|l| l.to_canonical() == ip.to_canonical()))
            .map(|_| group)
    }

    fn by_key(&self, key: &str) -> Option<&Group> {
        let at = self.hosts.binary_search_by(|(host, _)| host.as_str().cmp(key)).ok()?;
        Some(&self.hosts[at].1)
    }
}

impl Group {
    fn new(routes: &[RouteConfig], indices: &[usize]) -> Self {
        let mut prefixes: Vec<Prefix> = Vec::new();
        for &index in indices {
            let route = &routes[index];
            let at =
                prefixes.iter().position(|prefix| prefix.path == route.path_prefix).unwrap_or_else(|| {
                    prefixes.push(Prefix {
                        path: route.path_prefix.clone(),
                        routes: Vec::new(),
                        allowed: Vec::new(),
                    });
                    prefixes.len() - 1
                });
            let prefix = &mut prefixes[at];
            if !prefix.routes.iter().any(|(_, known)| *known == index) {
                prefix.routes.push((route.methods.clone(), index));
                let news = route.methods.iter().filter(|method| !prefix.allowed.contains(method));
                let news: Vec<_> = news.cloned().collect();
                prefix.allowed.extend(news);
            }
        }
        for prefix in &mut prefixes {
            prefix.routes.sort_by_key(|(methods, _)| methods.is_empty());
        }
        prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.path.len()));
        Self(prefixes)
    }

    fn find(&self, path: &str, method: &Method) -> Match<'_> {
        let Some(prefix) = self.0.iter().find(|prefix| matches_prefix(&prefix.path, path)) else {
            return Match::NotFound;
        };
        let route = prefix.routes.iter().find(|(methods, _)| methods.is_empty() || methods.contains(method));
        match route {
            Some((_, index)) => Match::Route(*index),
            None => Match::MethodNotAllowed(&prefix.allowed),
        }
    }
}

/// Whether `path` lies below `prefix`, on a boundary between segments: `/a` covers `/a` and `/a/b`, not `/ab`;
/// `/a/` covers `/a/b`, not `/a`.
pub fn matches_prefix(prefix: &str, path: &str) -> bool {
    match path.strip_prefix(prefix) {
        Some(rest) => prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

fn host_of(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// The host of `host:port`; `None` where no port stands.
fn split_port(key: &str) -> Option<&str> {
    let (host, port) = key.rsplit_once(':')?;
    (!port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && (!host.contains(':') || host.ends_with(']')))
    .then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Name;
    use crate::origin::Origin;
    use crate::route::{HeaderEdits, OnUnauthorized};
    use crate::tls::TlsClientConfig;
    use crate::upstream::{HttpVersion, Timeouts, UpstreamConfig, UpstreamOptions};

    fn route(hosts: Option<&[&str]>, path_prefix: &str, methods: &[Method]) -> RouteConfig {
        RouteConfig {
            name: Name::try_new("r").expect("name"),
            hosts: hosts.map(|hosts| hosts.iter().map(|host| (*host).to_owned()).collect()),
            path_prefix: path_prefix.to_owned(),
            methods: methods.to_vec(),
            upstream: UpstreamConfig {
                origin: Origin::try_new("http://localhost:1").expect("origin"),
                http: HttpVersion::Auto,
                tls: TlsClientConfig::default(),
                outbound_proxy: None,
                options: UpstreamOptions::default(),
            },
            rewrite_prefix: None,
            credential: None,
            preserve_host: false,
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            timeouts: Timeouts::default(),
            on_unauthorized: OnUnauthorized::default(),
            wait_for_token: std::time::Duration::ZERO,
            picks: None,
            users: None,
            clients: None,
            allow_plaintext: false,
            max_body: None,
            throttle: crate::route::ThrottleConfig::default(),
            rewrites: crate::route::Rewrites::default(),
            network_guard: None,
        }
    }

    #[test]
    fn the_longest_prefix_on_a_segment_boundary_wins() {
        let routes = [
            route(None, "/", &[]),
            route(None, "/a", &[]),
            route(None, "/a/b/", &[]),
            route(None, "/get", &[Method::GET]),
            route(None, "/get", &[Method::POST, Method::PUT]),
            route(Some(&["api.example"]), "/x", &[]),
            route(Some(&["api.example:8443"]), "/y", &[]),
        ];
        let table = RouteTable::new(&routes, Some("127.0.0.1".parse().expect("ip")));
        let check = |host: &str, method: Method, path: &str, expected: Match<'_>| {
            let authority = Authority::parse(host);
            assert_eq!(
                table.find(authority.as_ref(), None, path, &method),
                expected,
                "{host} {method} {path}"
            );
        };
        check("localhost", Method::GET, "/", Match::Route(0));
        check("localhost:1234", Method::GET, "/zzz", Match::Route(0));
        check("LOCALHOST", Method::GET, "/a", Match::Route(1));
        check("127.0.0.1:8080", Method::GET, "/a/b", Match::Route(1));
        check("localhost", Method::GET, "/a/b/c", Match::Route(2));
        check("localhost", Method::GET, "/ab", Match::Route(0));
        check("localhost", Method::GET, "/get/x", Match::Route(3));
        check("localhost", Method::PUT, "/get", Match::Route(4));
        check(
            "localhost",
            Method::DELETE,
            "/get",
            Match::MethodNotAllowed(&[Method::GET, Method::POST, Method::PUT]),
        );
        check("127.0.0.2", Method::GET, "/", Match::Misdirected);
        check("evil.example", Method::GET, "/", Match::Misdirected);
        check("api.example", Method::GET, "/x", Match::Route(5));
        check("api.example", Method::GET, "/y", Match::NotFound);
        check("api.example:8443", Method::GET, "/y", Match::Route(6));
        check("api.example:8443", Method::GET, "/x", Match::Route(5));
        check("api.example:1", Method::GET, "/y", Match::NotFound);
        assert_eq!(table.find(None, None, "/a", &Method::GET), Match::Route(1));
    }

    #[test]
    fn a_listener_on_all_addresses_answers_for_the_one_that_was_dialled() {
        let table = RouteTable::new(&[route(None, "/", &[])], Some("0.0.0.0".parse().expect("ip")));
        let check = |host: &str, local: &str, expected: Match<'_>| {
            let authority = Authority::parse(host);
            let local = Some(local.parse().expect("ip"));
            assert_eq!(
                table.find(authority.as_ref(), local, "/", &Method::GET),
                expected,
                "{host} {local:?}"
            );
        };
        check("10.0.0.5", "10.0.0.5", Match::Route(0));
        check("10.0.0.6", "10.0.0.5", Match::Misdirected);
        check("rebound.example", "10.0.0.5", Match::Misdirected);
        check("localhost", "10.0.0.5", Match::Route(0));
    }
}
