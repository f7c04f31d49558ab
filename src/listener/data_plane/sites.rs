//! What one worker serves, made from the configuration and what was checked before.
//!
//! Owns: which routes share connections, who is let in where. Cannot fail once the threads start.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::credential::{BoundCredential, BoundUsers};
use crate::listener::egress::{self};
use crate::listener::upstreams::{UpstreamKey, Upstreams, connectors, key_of};
use crate::listener::{ListenerConfig, ListenerError};
use crate::names::Name;
use crate::policy::clients::{self, Gate, Throttle};
use crate::policy::network::{DialGuard, NetworkGuard};
use crate::proxy::{Identity, Refusals, Route, Site};
use crate::route::RouteConfig;
use crate::route::rate::Allowance;
use crate::route::table::RouteTable;
use crate::telemetry::access::Labels;
use crate::telemetry::counters::DenialCounters;
use crate::upstream::{AddressGuard, Shared, TlsClient, Upstream};

use super::WorkerTraffic;

/// A route with what was checked before the threads start.
#[derive(Clone)]
pub(super) struct Prepared {
    pub(super) config: RouteConfig,
    pub(super) tls: Option<TlsClient>,
    pub(super) credential: Option<BoundCredential>,
    pub(super) refusals: Arc<Refusals>,
    /// The same for all routes to the same upstream.
    pub(super) shared: Shared,
    /// The same with other credentials, by the value that tells for whom.
    pub(super) picks: Vec<(String, Prepared)>,
    pub(super) limits: Option<Arc<Allowance>>,
    /// Which addresses may be dialled, where that is asked for.
    pub(super) guard: Option<Arc<dyn AddressGuard>>,
}

/// Where routes are prepared for: the listener, and the ports that no guarded connection is led to.
#[derive(Clone, Copy)]
pub(super) struct Ground<'p> {
    pub(super) listener: &'p Name,
    pub(super) own_ports: &'p [u16],
}

pub(super) fn prepare(
    listener: &ListenerConfig,
    (ground, tls): (Ground<'_>, Vec<Option<TlsClient>>),
    credential: &dyn Fn(&RouteConfig) -> Option<BoundCredential>,
    shared: &mut dyn FnMut(&RouteConfig) -> Shared,
) -> Result<Vec<Prepared>, ListenerError> {
    let one = |(route, tls)| prepare_route(route, (ground, tls), credential, shared);
    listener.routes.iter().zip(tls).map(one).collect()
}

fn prepare_route(
    route: &RouteConfig,
    (ground, tls): (Ground<'_>, Option<TlsClient>),
    credential: &dyn Fn(&RouteConfig) -> Option<BoundCredential>,
    shared: &mut dyn FnMut(&RouteConfig) -> Shared,
) -> Result<Prepared, ListenerError> {
    let bound = credential(route);
    if let Some(bound) = &bound
        && !route.upstream.origins().all(|origin| bound.covers(origin))
    {
        let (credential, route) = (bound.name().clone(), route.name.clone());
        return Err(ListenerError::Binding { credential, route });
    }
    let own = shared(route);
    let guard = route.network_guard.clone().map(|rules| {
        let guard = NetworkGuard::new(rules.allow, rules.deny);
        let guard = DialGuard::new(ground.listener.clone(), guard.with_own_ports(ground.own_ports));
        Arc::new(guard.of_route(route.name.clone())) as Arc<dyn AddressGuard>
    });
    let mut pick = |(value, name): &(String, Name)| {
        let own = prepare_route(&route.with_credential(name), (ground, tls.clone()), credential, shared)?;
        Ok::<_, ListenerError>((value.clone(), own))
    };
    let picks = route.picks.iter().flat_map(|picks| &picks.of).map(&mut pick).collect::<Result<_, _>>()?;
    Ok(Prepared {
        config: route.clone(),
        tls,
        credential: bound,
        refusals: Arc::default(),
        shared: own,
        picks,
        limits: Allowance::of(route.throttle),
        guard,
    })
}

/// Who is let in, and how, in one worker.
pub(super) struct Doors {
    pub(super) gates: Vec<Vec<Option<Rc<Gate>>>>,
    pub(super) users: Vec<BoundUsers>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) workers: usize,
}

/// The gate of each route of each listener: its own list, or the listener's; of an egress listener only its own.
pub(super) fn gates(
    desk: &Rc<clients::Desk>,
    listeners: &[ListenerConfig],
    denials: &[Arc<DenialCounters>],
) -> Vec<Vec<Option<Rc<Gate>>>> {
    let of_listener = |(listener, denials): (&ListenerConfig, &Arc<DenialCounters>)| {
        let gate = |names: &[Name]| Rc::new(Gate::new(desk, names, &listener.clients, Arc::clone(denials)));
        let wide = (!listener.clients.is_empty()).then(|| gate(&listener.clients));
        let of_route = |route: &RouteConfig| route.clients.as_deref().map(gate).or_else(|| wide.clone());
        match &listener.egress {
            Some(_) => vec![wide],
            None => listener.routes.iter().map(of_route).collect(),
        }
    };
    listeners.iter().zip(denials).map(of_listener).collect()
}

/// Builds what one worker serves. Routes with one upstream, credential and deadline share its connections.
pub(super) fn sites(
    listeners: &[ListenerConfig],
    (prepared, egress): (Vec<Vec<Prepared>>, &[Option<egress::Prepared>]),
    ips: &[Option<std::net::IpAddr>],
    traffic: &WorkerTraffic,
    identity: &Rc<Identity>,
    doors: &Doors,
) -> (Vec<Rc<Site>>, Upstreams) {
    let mut keys: Vec<(UpstreamKey, Option<Name>, Duration)> = Vec::new();
    let mut upstreams: Upstreams = Vec::new();
    let mut upstream_of = |route: &Prepared| {
        let credential = route.credential.as_ref().map(|bound| bound.name().clone());
        let key = (key_of(&route.config), credential, route.config.timeouts.connect);
        let at = keys.iter().position(|known| *known == key).unwrap_or_else(|| {
            let connectors = connectors(&route.config.upstream, route.tls.as_ref(), key.2)
                .expect("it was tried before the workers started");
            let guarded = connectors.into_iter().map(|connector| connector.guarded(route.guard.clone()));
            let options = &route.config.upstream.options;
            let upstream = Upstream::new(guarded.collect(), options, &route.shared);
            upstreams.push((key.0.clone(), upstream));
            keys.push(key);
            upstreams.len() - 1
        });
        Rc::clone(&upstreams[at].1)
    };
    let mut sites = Vec::new();
    for (index, (listener, routes)) in listeners.iter().zip(prepared).enumerate() {
        let counters = &traffic.0[index];
        let route = |(place, route): (usize, &Prepared)| {
            let mut build = |one: &Prepared| {
                let token = one.credential.as_ref().map(BoundCredential::reader);
                let credential = one.config.credential.as_ref().or(one.config.users.as_ref());
                let labels = Labels::new(&listener.name, Some(&one.config.name), credential);
                let counted = (Arc::clone(&counters[place]), labels);
                let refusals = Arc::clone(&one.refusals);
                let gate = (doors.gates[index][place].clone(), route.limits.clone());
                Route::new(&one.config, upstream_of(one), token, counted, refusals, gate)
            };
            let built = build(route);
            let picks = route.picks.iter().map(|(value, one)| (value.clone(), build(one))).collect();
            let of_users = |name: &Name| {
                let covers =
                    |users: &&BoundUsers| route.config.upstream.origins().all(|origin| users.covers(origin));
                doors.users.iter().filter(|users| users.name() == name).find(covers).cloned()
            };
            let built = match route.config.users.as_ref().and_then(of_users) {
                Some(users) => built.of_users(users, Arc::clone(&doors.throttle)),
                None => built,
            };
            Rc::new(match &route.config.picks {
                None => built,
                Some(config) => built.picking(config.by.clone(), picks),
            })
        };
        sites.push(Rc::new(Site {
            table: RouteTable::new(&listener.routes, ips[index]),
            routes: routes.iter().enumerate().map(route).collect(),
            allowed_origins: listener.allowed_origins.clone(),
            egress: egress[index].as_ref().map(|egress| {
                let gate = doors.gates[index].first().cloned().flatten();
                Box::new(egress.site(counters, gate, (doors.workers, identity.keeps_log())))
            }),
            unrouted: Arc::clone(&counters[listener.all_routes().count()]),
            labels: Rc::new(Labels::new(&listener.name, None, None)),
            identity: Rc::clone(identity),
        }));
    }
    (sites, upstreams)
}
