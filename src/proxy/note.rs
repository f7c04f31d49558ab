//! What is noted of a request for the access and the audit log.
//!
//! Owns: beginning the record. Costs one look at an `Option` where both logs are off.

use http::{HeaderValue, Request};
use tokio::time::Instant;

use super::egress::Inside;
use super::{Client, Route, Site};

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
    let Some(mut noted) = log.begin(
        route.is_some_and(|route| route.token.is_some() || route.picks.is_some() || route.users.is_some()),
    ) else {
        return;
    };
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
    });
    client.keep_record(noted);
}
