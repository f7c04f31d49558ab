//! What is noted of a request for the access and the audit log.
//!
//! Owns: beginning the record. Costs one look at an `Option` where both logs are off.

use std::rc::Rc;

use http::{HeaderMap, HeaderValue, Request};
use tokio::time::Instant;

use super::egress::Inside;
use super::{Client, Route, Site};
use crate::telemetry::access::Labels;

/// Begins the record of an exchange, where a line of it is wanted.
#[inline]
pub(super) fn note_request<B>(
    site: &Site,
    route: Option<&Route>,
    client: &Client,
    request: &Request<B>,
    id: &HeaderValue,
    began: Instant,
) {
    let Some(log) = &site.identity.log else { return };
    let verdict = if site.egress.is_some() { client.take_verdict() } else { None };
    let has_credential =
        route.is_some_and(|route| route.token.is_some() || route.picks.is_some() || route.users.is_some());
    let denied = verdict.as_ref().is_some_and(|verdict| verdict.denies());
    let Some(mut noted) = log.begin(has_credential || denied) else { return };
    noted.note(|record| {
        let target = (request.method(), request.uri(), request.version());
        record.request(target, request.headers(), id, began);
        record.labels(route.map_or(&site.labels, |route| &route.labels));
        client.link.forwarded.tell(request.headers(), record);
        if site.egress.is_some() {
            let inside = client.link.inside.as_ref().map(Inside::authority);
            let named = inside.or_else(|| request.uri().authority().map(http::uri::Authority::as_str));
            record.authority(named.unwrap_or_default());
        }
        // An egress listener asks who it is before anything else.
        if let Some(caller) = client.caller() {
            record.client_name(&caller.name);
        }
        if let Some(verdict) = &verdict {
            verdict.note(record);
        }
    });
    client.keep_record(noted);
}

/// The same of what is asked for with SOCKS.
pub(super) fn note_socks(site: &Site, labels: &Rc<Labels>, client: &Client, began: Instant) {
    let Some(log) = &site.identity.log else { return };
    let verdict = client.take_verdict();
    let Some(mut noted) = log.begin(verdict.as_ref().is_some_and(|verdict| verdict.denies())) else { return };
    noted.note(|record| {
        let none = HeaderMap::new();
        record.socks(&site.identity.ids.of(&none), began);
        record.labels(labels);
        client.link.forwarded.tell(&none, record);
        if let Some(caller) = client.caller() {
            record.client_name(&caller.name);
        }
        if let Some(verdict) = &verdict {
            verdict.note(record);
        }
    });
    client.keep_record(noted);
}
