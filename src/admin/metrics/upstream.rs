//! Metrics of the addresses of upstreams and of their TLS files.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::family::family;
use super::{labels_of, whole};
use crate::listener::RouteSnapshot;
use crate::upstream::HealthState;

/// By state and not by address: a name may have any number of addresses.
pub(super) fn encode(routes: &[RouteSnapshot], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let count = |route: &RouteSnapshot, state| {
        route.addresses.iter().filter(|address| address.state == state).count() as u64
    };
    family(encoder, "bearward_upstream_addresses", "Known addresses of a route's upstream.").gauges(
        routes.iter().flat_map(|route| {
            HealthState::ALL.map(|state| {
                let [listener, name] = labels_of(route);
                ([listener, name, ("state", state.as_str())], whole(count(route, state)))
            })
        }),
    )?;
    family(
        encoder,
        "bearward_upstream_ejections",
        "How often an address of a route's upstream was left out after failures in a row.",
    )
    .counters(routes.iter().map(|route| (labels_of(route), route.ejections)))?;
    family(
        encoder,
        "bearward_upstream_tls_file_errors",
        "How often changed TLS files of a route's upstream could not be used; the last good ones stay in use.",
    )
    .counters(routes.iter().map(|route| (labels_of(route), route.refused_tls_files)))
}
