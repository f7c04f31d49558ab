//! Routes: which upstream, which credential, which edits.
//!
//! Owns: matching (host, path prefix on segment boundaries, method), the normal form of paths, and the prebuilt
//! parts of a request. Never does I/O.

pub mod authority;
pub mod path;
pub mod rate;
pub mod table;

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;

use crate::names::Name;
use crate::upstream::{Timeouts, UpstreamConfig};

/// One route of a reverse listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteConfig {
    /// `name`; unique in its listener.
    pub name: Name,
    /// `match.hosts`, lower case; `None`: the bind address and `localhost`, any port.
    pub hosts: Option<Vec<String>>,
    /// `match.path_prefix`, in normal form, beginning with `/`.
    pub path_prefix: String,
    /// `match.methods`; empty: all.
    pub methods: Vec<Method>,
    /// `upstream`.
    pub upstream: UpstreamConfig,
    /// `rewrite_prefix`.
    pub rewrite_prefix: Option<String>,
    /// `credential`.
    pub credential: Option<Name>,
    /// `preserve_host`.
    pub preserve_host: bool,
    /// `request_headers`.
    pub request_headers: HeaderEdits,
    /// `response_headers`.
    pub response_headers: HeaderEdits,
    /// `timeouts`.
    pub timeouts: Timeouts,
    /// `on_unauthorized`.
    pub on_unauthorized: OnUnauthorized,
    /// `wait_for_token`.
    pub wait_for_token: Duration,
    /// `credential` by who asks: another one than `credential`, which is then the default.
    pub picks: Option<Picks>,
    /// `credential.translate_basic`: each user's own token.
    pub users: Option<Name>,
    /// `clients`: who may use it, of those that the listener lets in.
    pub clients: Option<Vec<Name>>,
    /// `allow_plaintext`.
    pub allow_plaintext: bool,
    /// `max_body`, or `limits.request_body`.
    pub max_body: Option<u64>,
    /// `rate_limit` and `concurrency`.
    pub throttle: ThrottleConfig,
    /// `query` and `rewrite_response`.
    pub rewrites: Rewrites,
    /// `network_guard`: which addresses of the upstream may be dialled; `None`: all.
    pub network_guard: Option<NetworkRules>,
}

/// `network_guard`: what it makes of addresses beside its own judgement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkRules {
    /// `allow_private`.
    pub allow: Vec<IpNet>,
    /// `deny`.
    pub deny: Vec<IpNet>,
}

/// `rate_limit` and `concurrency`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ThrottleConfig {
    /// `rate_limit`.
    pub rate: Option<rate::RateLimit>,
    /// `concurrency`: requests under way, in the whole process.
    pub concurrency: Option<usize>,
}

/// `query` and `rewrite_response` of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewrites {
    /// `query`.
    pub query: QueryEdits,
    /// `rewrite_response.location`.
    pub location: bool,
    /// `rewrite_response.cookies`.
    pub cookies: bool,
}

/// `query`: changes of the parameters of a target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryEdits {
    /// `set`: in place of any of the same name.
    pub set: Vec<(String, String)>,
    /// `remove`.
    pub remove: Vec<String>,
}

/// Which credential for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picks {
    /// What decides.
    pub by: PickBy,
    /// Its values and their credentials.
    pub of: Vec<(String, Name)>,
}

/// What decides which credential a request gets. Nothing that a client says of itself does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PickBy {
    /// The client that sends it.
    Client,
    /// A field that a trusted proxy sets.
    Header(http::HeaderName),
}

impl RouteConfig {
    /// All credentials that it may use.
    pub fn credentials(&self) -> impl Iterator<Item = &Name> {
        let picked = self.picks.iter().flat_map(|picks| picks.of.iter().map(|(_, name)| name));
        self.credential.iter().chain(picked)
    }

    /// The same route with this credential for everybody.
    pub fn with_credential(&self, credential: &Name) -> Self {
        Self { credential: Some(credential.clone()), picks: None, ..self.clone() }
    }

    /// A route that says nothing but where it leads.
    pub fn to(name: Name, upstream: UpstreamConfig) -> Self {
        Self {
            name,
            hosts: None,
            path_prefix: "/".to_owned(),
            methods: Vec::new(),
            upstream,
            rewrite_prefix: None,
            credential: None,
            preserve_host: false,
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            timeouts: Timeouts::default(),
            on_unauthorized: OnUnauthorized::default(),
            wait_for_token: Duration::ZERO,
            allow_plaintext: false,
            clients: None,
            picks: None,
            users: None,
            max_body: None,
            throttle: ThrottleConfig::default(),
            rewrites: Rewrites::default(),
            network_guard: None,
        }
    }
}

/// `on_unauthorized`: what an upstream's 401 to a request with our token causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnUnauthorized {
    /// `refresh`: ask for a new token.
    pub refresh: bool,
    /// `replay`: which requests are sent again with a newer token.
    pub replay: Replay,
    /// `require_challenge`: only where a Bearer challenge says `invalid_token`.
    pub require_challenge: bool,
    /// `max_body`: the longest request body that is kept for it, in bytes: 64 KiB.
    pub max_body: usize,
}

/// `on_unauthorized.replay`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// No request.
    None,
    /// Those of idempotent methods.
    Idempotent,
    /// All: a 401 says that the request was not applied.
    Any,
}

impl Default for OnUnauthorized {
    fn default() -> Self {
        Self { refresh: true, replay: Replay::Any, require_challenge: false, max_body: 64 * 1024 }
    }
}

/// `request_headers` or `response_headers`. Removal comes first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// `set`: replaces what is there.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// `add`: comes beside what is there.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// `remove`.
    pub remove: Vec<HeaderName>,
}
