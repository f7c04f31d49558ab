//! Upstreams of the routes: what all workers share of one, and what each makes of it.
//!
//! Owns: which routes share one. Connections are shared only by routes with the same upstream, credential and deadline.

use std::rc::Rc;
use std::time::Duration;

use super::UpstreamAddress;
use crate::proxy::RequestBody;
use crate::route::{NetworkRules, RouteConfig};
use crate::upstream::{AddressHealth, Connector, HealthCheck, Shared, TlsClient, Upstream, UpstreamConfig};

/// What tells one upstream from another: also which of its addresses may be dialled.
pub(super) type UpstreamKey = (UpstreamConfig, Option<NetworkRules>);

/// The upstream of a route.
pub(super) fn key_of(route: &RouteConfig) -> UpstreamKey {
    (route.upstream.clone(), route.network_guard.clone())
}

/// What all workers share of an upstream; routes with the same one share it too.
pub(super) fn shared_by(
    known: &mut Vec<(UpstreamKey, Shared)>,
    route: &RouteConfig,
    workers: usize,
) -> Shared {
    let key = key_of(route);
    if let Some((_, shared)) = known.iter().find(|(known, _)| *known == key) {
        return shared.clone();
    }
    let shared = Shared::new(&key.0.options, workers);
    known.push((key, shared.clone()));
    shared
}

/// The ways to all origins of an upstream. The error is a message for a person.
pub(super) fn connectors(
    config: &UpstreamConfig,
    tls: Option<&TlsClient>,
    deadline: Duration,
) -> Result<Vec<Connector>, String> {
    let first = Connector::try_new(config, tls, deadline)?;
    let others = config.options.others.iter();
    let others = others.map(|origin| first.to_origin(config, origin).map_err(|error| error.to_string()));
    let others = others.collect::<Result<Vec<_>, _>>()?;
    Ok(std::iter::once(first).chain(others).collect())
}

pub(super) type Upstreams = Vec<(UpstreamKey, Rc<Upstream<RequestBody>>)>;

/// What is to be checked, each upstream once: routes with other credentials share its health.
pub(super) fn checks(upstreams: &Upstreams) -> Vec<(Rc<Upstream<RequestBody>>, HealthCheck)> {
    let mut once: Vec<&UpstreamKey> = Vec::new();
    let mut checks = Vec::new();
    for (key, upstream) in upstreams {
        if let Some(rules) = &key.0.options.health
            && !once.contains(&key)
        {
            once.push(key);
            checks.push((Rc::clone(upstream), rules.clone()));
        }
    }
    checks
}

/// The addresses that a route's upstream is reached at, as far as they are known.
pub(super) fn addresses_of(route: &RouteConfig, shared: &Shared) -> Vec<UpstreamAddress> {
    let origins: Vec<_> = route.upstream.origins().collect();
    let told = |known: AddressHealth| {
        let url = origins.get(known.origin)?.to_string();
        Some(UpstreamAddress { url, address: known.address, state: known.state })
    };
    shared.board.addresses().into_iter().filter_map(told).collect()
}
