//! A listener as one worker sees it: its routes with their pools, tokens and counters.
//!
//! Owns: everything that is built once so that a request does not build it. Nothing in here is shared with another
//! worker but the counters, which only this one writes.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use http::uri::{Authority as UriAuthority, Scheme as UriScheme};
use http::{HeaderName, HeaderValue, Version};

use super::RequestBody;
use super::backward::Backward;
use super::egress::Egress;
use super::forward::is_ours;
use super::pick::Picks;
use super::request_id::RequestIds;
use super::target::OwnQuery;
use super::unauthorized::Refusals;
use super::users::Translation;
use crate::clock::Clock;
use crate::credential::{BoundUsers, TokenReader};
use crate::policy::clients::{Gate, Throttle};
use crate::route::rate::Allowance;
use crate::route::table::RouteTable;
use crate::route::{HeaderEdits, OnUnauthorized, PickBy, RouteConfig};
use crate::telemetry::access::{Labels, WorkerLog};
use crate::telemetry::counters::RouteCounters;
use crate::upstream::{Timeouts, Upstream};

/// One listener of one worker.
#[derive(Debug)]
pub struct Site {
    /// Finds a route.
    pub table: RouteTable,
    /// In the order of the configuration.
    pub routes: Vec<Rc<Route>>,
    /// `allowed_origins`.
    pub allowed_origins: Vec<String>,
    /// Rules in place of routes, on an egress listener.
    pub egress: Option<Box<Egress>>,
    /// For requests that no route took.
    pub unrouted: Arc<RouteCounters>,
    /// For lines of the same.
    pub labels: Rc<Labels>,
    /// What all listeners of the worker share.
    pub identity: Rc<Identity>,
}

impl Site {
    /// Whether the bytes may be SOCKS5.
    pub fn speaks_socks(&self) -> bool {
        self.egress.as_ref().is_some_and(|egress| egress.socks5)
    }

    /// Whether an egress listener asks who its clients are.
    pub fn asks_clients(&self) -> bool {
        self.egress.as_ref().is_some_and(|egress| egress.gate.is_some())
    }
}

/// Who this proxy is, in one worker.
#[derive(Debug)]
pub struct Identity {
    pub(super) clock: Clock,
    pub(super) pseudonym: String,
    via_11: HeaderValue,
    via_10: HeaderValue,
    via_2: HeaderValue,
    pub(super) ids: RequestIds,
    /// Names to remove, kept for its memory.
    pub(super) scratch: RefCell<Vec<HeaderName>>,
    /// The access and the audit log, where one is on.
    pub(super) log: Option<Rc<WorkerLog>>,
}

impl Identity {
    /// The clock of this worker.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether there is an access or an audit log.
    pub fn keeps_log(&self) -> bool {
        self.log.is_some()
    }

    /// What is said of a message that came by this version (RFC 9110, 7.6.3).
    #[inline]
    pub(super) fn via(&self, version: Version) -> &HeaderValue {
        match version {
            Version::HTTP_10 => &self.via_10,
            Version::HTTP_2 => &self.via_2,
            _ => &self.via_11,
        }
    }

    /// `pseudonym` is one for the whole process: it tells a loop (RFC 9110, 7.6.3).
    pub fn new(clock: Clock, pseudonym: &str, log: Option<Rc<WorkerLog>>) -> Self {
        let via = |version: &str| {
            HeaderValue::try_from([version, " ", pseudonym].concat()).expect("a pseudonym is a token")
        };
        Self {
            clock,
            pseudonym: pseudonym.to_owned(),
            via_11: via("1.1"),
            via_10: via("1.0"),
            via_2: via("2"),
            ids: RequestIds::new(),
            scratch: RefCell::new(Vec::new()),
            log,
        }
    }
}

/// One route of one worker.
#[derive(Debug)]
pub struct Route {
    pub(super) path_prefix: String,
    pub(super) rewrite_prefix: Option<String>,
    pub(super) restricts_methods: Vec<http::Method>,
    pub(super) host: HeaderValue,
    pub(super) preserve_host: bool,
    /// It is one of a forward proxy: who sends a request was asked before, with fields of their own, and the upstream is
    /// not told.
    pub(super) of_forward_proxy: bool,
    pub(super) forwarded_prefix: Option<HeaderValue>,
    pub(super) absolute: Option<(UriScheme, UriAuthority)>,
    pub(super) request_headers: HeaderEdits,
    /// They change what the proxy sets by itself.
    pub(super) edits_ours: bool,
    pub(super) response_headers: HeaderEdits,
    /// Parameters of its own.
    pub(super) query: Option<Box<OwnQuery>>,
    /// How answers are told in the client's terms, where they are.
    pub(super) backward: Option<Box<Backward>>,
    /// Fields with dashes that are the route's matter: nobody sends them under a name with underscores.
    pub(super) own_names: Vec<HeaderName>,
    pub(super) timeouts: Timeouts,
    pub(super) max_body: Option<u64>,
    pub(super) on_unauthorized: OnUnauthorized,
    pub(super) wait_for_token: std::time::Duration,
    pub(super) token: Option<RefCell<TokenReader>>,
    pub(super) refusals: Arc<Refusals>,
    pub(super) counters: Arc<RouteCounters>,
    /// Who may use it, where not everybody may.
    pub(super) gate: Option<Rc<Gate>>,
    /// How often and how many at a time, where that is limited.
    pub(super) limits: Option<Arc<Allowance>>,
    pub(super) labels: Rc<Labels>,
    pub(super) upstream: Rc<Upstream<RequestBody>>,
    /// Routes that differ in their credential alone, where that depends on who asks.
    pub(super) picks: Option<Picks>,
    /// Each user's own token instead of one.
    pub(super) users: Option<Translation>,
    /// The field that decided: it is between us and a trusted proxy.
    pub(super) picked_by: Option<HeaderName>,
}

impl Route {
    /// Prepares a route.
    pub fn new(
        config: &RouteConfig,
        upstream: Rc<Upstream<RequestBody>>,
        token: Option<TokenReader>,
        (counters, labels): (Arc<RouteCounters>, Labels),
        refusals: Arc<Refusals>,
        (gate, limits): (Option<Rc<Gate>>, Option<Arc<Allowance>>),
    ) -> Self {
        let authority = config.upstream.origin.authority();
        let absolute = upstream.connector().absolute_form().then(|| {
            let authority = UriAuthority::try_from(authority.as_str()).expect("an origin's authority is one");
            (UriScheme::HTTP, authority)
        });
        let forwarded_prefix =
            config.rewrite_prefix.as_ref().map(|_| config.path_prefix.trim_end_matches('/'));
        Self {
            path_prefix: config.path_prefix.clone(),
            rewrite_prefix: config.rewrite_prefix.clone(),
            restricts_methods: config.methods.clone(),
            host: HeaderValue::try_from(authority).expect("an origin's authority is visible ASCII"),
            preserve_host: config.preserve_host,
            of_forward_proxy: false,
            forwarded_prefix: forwarded_prefix
                .filter(|prefix| !prefix.is_empty())
                .and_then(|prefix| HeaderValue::try_from(prefix).ok()),
            absolute,
            request_headers: own_edits(&config.request_headers),
            edits_ours: names(&config.request_headers).any(is_ours),
            response_headers: own_edits(&config.response_headers),
            query: OwnQuery::of(&config.rewrites.query),
            backward: Backward::of(config),
            own_names: own_names(config),
            timeouts: config.timeouts,
            max_body: config.max_body,
            on_unauthorized: config.on_unauthorized,
            wait_for_token: config.wait_for_token,
            token: token.map(RefCell::new),
            refusals,
            counters,
            gate,
            limits,
            labels: Rc::new(labels),
            upstream,
            picks: None,
            users: None,
            picked_by: None,
        }
    }
}

impl Route {
    /// With each user's own token.
    #[must_use]
    pub fn of_users(self, users: BoundUsers, throttle: Arc<Throttle>) -> Self {
        Self { users: Some(Translation::new(users, throttle)), ..self }
    }

    /// The same route for one user. A token that is refused is not replaced here: only the user's password can do that.
    pub(super) fn of_user(&self, token: TokenReader) -> Self {
        Self {
            path_prefix: self.path_prefix.clone(),
            rewrite_prefix: self.rewrite_prefix.clone(),
            restricts_methods: self.restricts_methods.clone(),
            host: self.host.clone(),
            preserve_host: self.preserve_host,
            of_forward_proxy: self.of_forward_proxy,
            forwarded_prefix: self.forwarded_prefix.clone(),
            absolute: self.absolute.clone(),
            request_headers: self.request_headers.clone(),
            edits_ours: self.edits_ours,
            response_headers: self.response_headers.clone(),
            query: self.query.clone(),
            backward: self.backward.clone(),
            own_names: self.own_names.clone(),
            timeouts: self.timeouts,
            on_unauthorized: OnUnauthorized { refresh: false, ..self.on_unauthorized },
            wait_for_token: self.wait_for_token,
            token: Some(RefCell::new(token)),
            refusals: Arc::default(),
            counters: Arc::clone(&self.counters),
            gate: self.gate.clone(),
            limits: self.limits.clone(),
            labels: Rc::clone(&self.labels),
            max_body: self.max_body,
            upstream: Rc::clone(&self.upstream),
            picks: None,
            users: None,
            // It holds the user's password, and the token may stand elsewhere.
            picked_by: Some(http::header::AUTHORIZATION),
        }
    }

    /// With other routes for some who ask, each under the value that tells them.
    #[must_use]
    pub fn picking(self, by: PickBy, routes: Vec<(String, Self)>) -> Self {
        let picked_by = match &by {
            PickBy::Header(name) => Some(name.clone()),
            PickBy::Client => None,
        };
        let routes = routes
            .into_iter()
            .map(|(value, route)| (value, Rc::new(Self { picked_by: picked_by.clone(), ..route })));
        let picks = Picks { by, routes: routes.collect() };
        Self { picks: Some(picks), picked_by, ..self }
    }
}

fn own_names(config: &RouteConfig) -> Vec<HeaderName> {
    let picked_by = config.picks.as_ref().and_then(|picks| match &picks.by {
        PickBy::Header(name) => Some(name),
        PickBy::Client => None,
    });
    let named = names(&config.request_headers).chain(picked_by);
    named.filter(|name| name.as_str().contains('-')).cloned().collect()
}

/// All names that they change.
fn names(edits: &HeaderEdits) -> impl Iterator<Item = &HeaderName> {
    edits.set.iter().chain(&edits.add).map(|(name, _)| name).chain(&edits.remove)
}

/// A copy whose values share no reference count with another worker's.
fn own_edits(edits: &HeaderEdits) -> HeaderEdits {
    let own = |value: &HeaderValue| {
        let mut copy = HeaderValue::from_bytes(value.as_bytes()).expect("it was a header value already");
        copy.set_sensitive(value.is_sensitive());
        copy
    };
    let name = |name: &HeaderName| {
        HeaderName::from_bytes(name.as_str().as_bytes()).expect("it was a header name already")
    };
    HeaderEdits {
        set: edits.set.iter().map(|(field, value)| (name(field), own(value))).collect(),
        add: edits.add.iter().map(|(field, value)| (name(field), own(value))).collect(),
        remove: edits.remove.iter().map(name).collect(),
    }
}
