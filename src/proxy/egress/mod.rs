//! An egress listener as one worker sees it: its rules, and the upstreams that requests have named.
//!
//! Owns: what is kept of upstreams that only requests name. A rule behaves like a route whose origin is the request's; one
//! entry a rule and origin, so that no connection is shared between two rules or credentials. Their number is bounded, and
//! what is not used goes.

mod admit;
mod connect;
mod decision;
mod intercept;
mod pac;
pub mod socks;
mod stub;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::decision::DecisionLog;
use self::intercept::Leaves;
use super::{Refusal, Refusals, Route};
use crate::credential::Binder;
use crate::names::Name;
use crate::origin::{Origin, Scheme};
use crate::policy::clients::Gate;
use crate::policy::egress::{Action, Rule, Target};
use crate::policy::network::NetworkGuard;
use crate::route::RouteConfig;
use crate::route::rate::Allowance;
use crate::telemetry::access::Labels;
use crate::telemetry::counters::RouteCounters;
use crate::tls::mint::{Mint, MintConfig};
use crate::upstream::{AddressGuard, Connector, Room, RoomConfig, TlsClient, Upstream};
pub(super) use admit::admit;
pub(super) use connect::{Local, answer};
pub use connect::{Tunnel, TunnelCount};
pub(super) use decision::Verdict;
pub use decision::reads_alike;
pub use intercept::{Inside, Intercept};

/// Upstreams that one worker keeps for a listener.
const MAX_UPSTREAMS: usize = 512;
/// How long one is kept that nobody uses.
const IDLE_LIMIT: Duration = Duration::from_secs(90);

/// `rules`, and what goes with them, of an egress listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressConfig {
    /// `rules`.
    pub rules: Vec<RuleConfig>,
    /// What is not denied because of `dry_run` goes by this rule, which sets nothing.
    pub unruled: RuleConfig,
    /// `egress_network`.
    pub network: NetworkGuard,
    /// `dry_run`: what would be denied is told and passes.
    pub dry_run: bool,
    /// `pac`.
    pub pac: bool,
    /// `socks5`.
    pub socks5: bool,
    /// `intercept`: the authority that signs for the hosts of rules that say so.
    pub intercept: Option<MintConfig>,
}

/// One entry of `rules`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleConfig {
    /// `match` and `action`.
    pub rule: Rule,
    /// What holds for its requests; where they go stands in them, not here.
    pub route: RouteConfig,
    /// `upstream_port`: the port to connect to in place of the request's.
    pub upstream_port: Option<u16>,
    /// `dry_run` of the rule.
    pub dry_run: bool,
    /// `tunnel_idle`.
    pub tunnel_idle: Duration,
}

impl RuleConfig {
    /// Where a plain request to `target` goes by this rule; where a tunnel leads, in the form of an origin.
    pub fn origin(&self, action: Action, target: &Target, scheme: Scheme) -> Option<Origin> {
        let (to, port) = match (action, scheme) {
            (Action::Upgrade, Scheme::Http) => (Scheme::Https, (target.port() == 80).then_some(443)),
            (Action::Upgrade | Action::Intercept, Scheme::Https) => (Scheme::Https, None),
            _ => (Scheme::Http, None),
        };
        target.origin(to, self.upstream_port.or(port))
    }
}

/// A rule as one worker uses it.
#[derive(Debug)]
pub struct RuleSite {
    config: RuleConfig,
    tls: Option<TlsClient>,
    binder: Option<Binder>,
    refusals: Arc<Refusals>,
    counters: Arc<RouteCounters>,
    /// Of all origins that it leads to together.
    limits: Option<Arc<Allowance>>,
}

impl RuleSite {
    /// `tls`: trust and identity for upstreams over TLS; `binder`: the credential of the rule; `limits`: those of all workers.
    pub fn new(
        config: RuleConfig,
        tls: Option<TlsClient>,
        binder: Option<Binder>,
        refusals: Arc<Refusals>,
        (counters, limits): (Arc<RouteCounters>, Option<Arc<Allowance>>),
    ) -> Self {
        Self { config, tls, binder, refusals, counters, limits }
    }

    fn name(&self) -> &Name {
        &self.config.route.name
    }
}

/// The rules of one listener in one worker.
#[derive(Debug)]
pub struct Egress {
    listener: Name,
    /// In the order of the configuration; the last is for what passes only because of `dry_run`.
    rules: Vec<RuleSite>,
    dry_run: bool,
    pac: bool,
    /// Whether SOCKS5 is spoken, too.
    pub socks5: bool,
    guard: Arc<dyn AddressGuard>,
    /// Who may use the listener, where not everybody may.
    pub(super) gate: Option<Rc<Gate>>,
    /// Of hosts that are stood in for.
    leaves: Option<Leaves>,
    max_active: usize,
    upstreams: RefCell<HashMap<(usize, Origin), Kept>>,
    log: DecisionLog,
    /// Whether there is an access or audit log that tells decisions.
    notes: bool,
}

#[derive(Debug)]
struct Kept {
    route: Rc<Route>,
    used: Cell<Instant>,
}

impl Egress {
    /// `rules` ends with the one for what passes only because of `dry_run`. `max_active`: requests under way to one upstream;
    /// `notes`: whether decisions are told to an access or audit log.
    pub fn new(
        listener: Name,
        config: &EgressConfig,
        rules: Vec<RuleSite>,
        (guard, gate): (Arc<dyn AddressGuard>, Option<Rc<Gate>>),
        mint: Option<Arc<Mint>>,
        (max_active, notes): (usize, bool),
    ) -> Self {
        Self {
            listener,
            rules,
            dry_run: config.dry_run,
            pac: config.pac,
            socks5: config.socks5,
            guard,
            gate,
            leaves: mint.map(Leaves::new),
            max_active,
            upstreams: RefCell::default(),
            log: DecisionLog::default(),
            notes,
        }
    }

    /// The route of a rule to an origin.
    fn route(&self, rule: usize, origin: Origin) -> Result<Rc<Route>, Refusal> {
        let now = Instant::now();
        let mut upstreams = self.upstreams.borrow_mut();
        let key = (rule, origin);
        if let Some(kept) = upstreams.get(&key) {
            kept.used.set(now);
            return Ok(Rc::clone(&kept.route));
        }
        if upstreams.len() >= MAX_UPSTREAMS && !evict(&mut upstreams) {
            return Err(Refusal::Overloaded);
        }
        let route = Rc::new(self.build(rule, key.1.clone())?);
        upstreams.insert(key, Kept { route: Rc::clone(&route), used: Cell::new(now) });
        Ok(route)
    }

    /// The credential is bound to the origin here, or the request goes nowhere.
    fn build(&self, rule: usize, origin: Origin) -> Result<Route, Refusal> {
        let site = &self.rules[rule];
        let token = match &site.binder {
            None => None,
            Some(binder) => {
                let bound = binder.bind(origin.clone()).map_err(|error| {
                    tracing::debug!(%error, rule = %site.name(), "a token may not go there");
                    Refusal::NotBound
                })?;
                Some(bound.reader())
            }
        };
        let mut config = site.config.route.clone();
        config.upstream.origin = origin;
        let connector = self.connector(site, &config)?;
        let room = Room::new(RoomConfig { requests: self.max_active, ..RoomConfig::default() }, 1);
        // Each connection resolves the name and asks the guard.
        let upstream = Upstream::of_name(connector, room);
        let (counters, refusals) = (Arc::clone(&site.counters), Arc::clone(&site.refusals));
        let labels = Labels::new(&self.listener, Some(site.name()), config.credential.as_ref());
        let gate = (self.gate.clone(), site.limits.clone());
        let mut route = Route::new(&config, upstream, token, (counters, labels), refusals, gate);
        route.of_forward_proxy = true;
        Ok(route)
    }

    fn connector(&self, site: &RuleSite, config: &RouteConfig) -> Result<Connector, Refusal> {
        let upstream = &config.upstream;
        let tls = match &site.tls {
            Some(tls) if upstream.origin.scheme() == Scheme::Https => {
                Some(tls.for_origin(&upstream.tls, &upstream.origin).map_err(|_| Refusal::BadHost)?)
            }
            _ => None,
        };
        let connector = Connector::try_new(upstream, tls.as_ref(), config.timeouts.connect)
            .map_err(|_| Refusal::BadHost)?;
        Ok(connector.guarded(Some(Arc::clone(&self.guard))))
    }

    /// Closes what has been idle for too long; returns idle and active connections.
    pub fn sweep(&self, now: Instant) -> (usize, usize) {
        let (mut idle, mut active) = (0, 0);
        self.upstreams.borrow_mut().retain(|_, kept| {
            let upstream = &kept.route.upstream;
            upstream.sweep(now);
            idle += upstream.idle();
            active += upstream.active();
            upstream.active() > 0
                || upstream.idle() > 0
                || now.saturating_duration_since(kept.used.get()) < IDLE_LIMIT
        });
        (idle, active)
    }
}

/// Makes room: the upstream that was used least recently of those without a request.
fn evict(upstreams: &mut HashMap<(usize, Origin), Kept>) -> bool {
    let resting = upstreams.iter().filter(|(_, kept)| kept.route.upstream.active() == 0);
    let oldest = resting.min_by_key(|(_, kept)| kept.used.get()).map(|(key, _)| key.clone());
    oldest.is_some_and(|key| upstreams.remove(&key).is_some())
}
