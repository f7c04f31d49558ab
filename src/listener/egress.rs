//! Egress listeners: from their configuration to what each worker serves.
//!
//! Owns: what is made once for all workers of the rules: trust, credentials, the network guard. Decides on no request.

use std::rc::Rc;
use std::sync::Arc;

use super::{ListenerConfig, ListenerError};
use crate::credential::Binder;
use crate::names::Name;
use crate::policy::clients::Gate;
use crate::policy::network::DialGuard;
use crate::proxy::Refusals;
use crate::proxy::egress::{Egress, EgressConfig, RuleConfig, RuleSite};
use crate::route::RouteConfig;
use crate::route::rate::Allowance;
use crate::telemetry::counters::RouteCounters;
use crate::tls::mint::Mint;
use crate::upstream::{Connector, TlsClient};

/// Requests under way to one upstream, in the whole process.
const MAX_ACTIVE: usize = 1024;

/// The credential of a rule, as the composition root finds it.
pub type BinderOf<'a> = dyn Fn(&RouteConfig) -> Option<Binder> + 'a;

/// An egress listener with what was checked before the threads start.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    listener: Name,
    config: EgressConfig,
    /// By rule; the last is for what passes only because of `dry_run`.
    tls: Vec<Option<TlsClient>>,
    binders: Vec<Option<Binder>>,
    refusals: Vec<Arc<Refusals>>,
    limits: Vec<Option<Arc<Allowance>>>,
    guard: Arc<DialGuard>,
    mint: Option<Arc<Mint>>,
}

/// The hosts of the rule of this place, on an egress listener.
pub(super) fn hosts_of(listener: &ListenerConfig, place: usize) -> Option<String> {
    let hosts = &listener.egress.as_ref()?.rules[place].rule.condition.hosts;
    let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
    Some(if hosts.is_empty() { "**".to_owned() } else { hosts.join(", ") })
}

impl Prepared {
    /// `None` for a listener of another kind.
    pub(super) fn of_listener(listener: &ListenerConfig) -> Result<Option<Self>, ListenerError> {
        listener.egress.as_ref().map(|config| Self::try_new(&listener.name, config)).transpose()
    }

    /// Reads what TLS needs, and tries what else a worker could fail on.
    fn try_new(listener: &Name, config: &EgressConfig) -> Result<Self, ListenerError> {
        let mint = config.intercept.as_ref().map(Mint::try_new).transpose();
        let mint = mint.map_err(|error| ListenerError::OwnTls { listener: listener.clone(), error })?;
        let tls = rules(config).map(|rule| tls_of(listener, &rule.route)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            listener: listener.clone(),
            binders: vec![None; tls.len()],
            refusals: tls.iter().map(|_| Arc::default()).collect(),
            limits: rules(config).map(|rule| Allowance::of(rule.route.throttle)).collect(),
            tls,
            guard: Arc::new(DialGuard::new(listener.clone(), config.network.clone())),
            config: config.clone(),
            mint: mint.map(Arc::new),
        })
    }

    /// Takes the credentials, and the ports that no request may be led to. A rule whose credential is not there does not
    /// start: it would go on without one.
    pub(super) fn complete(&mut self, binder_of: &BinderOf<'_>, own: &[u16]) -> Result<(), ListenerError> {
        for (binder, rule) in self.binders.iter_mut().zip(rules(&self.config)) {
            *binder = binder_of(&rule.route);
            if let (Some(credential), None) = (&rule.route.credential, &binder) {
                let (credential, route) = (credential.clone(), rule.route.name.clone());
                return Err(ListenerError::Binding { credential, route });
            }
        }
        let guard = self.config.network.clone().with_own_ports(own);
        self.guard = Arc::new(DialGuard::new(self.listener.clone(), guard));
        Ok(())
    }

    /// Towards the upstreams of each rule, in their order.
    pub(super) fn tls(&self) -> impl Iterator<Item = &Option<TlsClient>> {
        self.tls.iter()
    }

    /// The authority that signs for hosts that are stood in for.
    pub(super) fn mint(&self) -> Option<&Arc<Mint>> {
        self.mint.as_ref()
    }

    /// What one worker serves. `counters`: by rule; the last for what no rule took.
    pub(super) fn site(
        &self,
        counters: &[Arc<RouteCounters>],
        gate: Option<Rc<Gate>>,
        (workers, notes): (usize, bool),
    ) -> Egress {
        let sites = rules(&self.config).enumerate().map(|(place, rule)| {
            RuleSite::new(
                rule.clone(),
                self.tls[place].clone(),
                self.binders[place].clone(),
                Arc::clone(&self.refusals[place]),
                (Arc::clone(&counters[place]), self.limits[place].clone()),
            )
        });
        let guard = Arc::clone(&self.guard);
        Egress::new(
            self.listener.clone(),
            &self.config,
            sites.collect(),
            (guard, gate),
            self.mint.clone(),
            (MAX_ACTIVE.div_ceil(workers), notes),
        )
    }
}

fn rules(config: &EgressConfig) -> impl Iterator<Item = &RuleConfig> {
    config.rules.iter().chain(std::iter::once(&config.unruled))
}

fn tls_of(listener: &Name, route: &RouteConfig) -> Result<Option<TlsClient>, ListenerError> {
    let (of, name) = (|| listener.clone(), || route.name.clone());
    let tls = TlsClient::try_new(&route.upstream).map_err(|error| ListenerError::Tls {
        listener: of(),
        route: name(),
        error,
    })?;
    Connector::try_new(&route.upstream, None, route.timeouts.connect)
        .map_err(|reason| ListenerError::OutboundProxy { listener: of(), route: name(), reason })?;
    Ok(tls)
}
