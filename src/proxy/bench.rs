//! What the benchmarks call of the work on one head. No part of the library's interface.

use std::rc::Rc;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request};

use super::edit::{edit, strip};
use super::headers::judge_answer;
use super::{Client, Identity, Link, Peer, Route, Site, admit};
use crate::clock::Clock;
use crate::route::RouteConfig;
use crate::route::table::RouteTable;
use crate::telemetry::access::Labels;
use crate::upstream::{Connector, Shared, Upstream};

/// A client on loopback at a site of one route.
#[derive(Debug)]
pub struct Heads {
    site: Site,
    client: Rc<Client>,
    id: HeaderValue,
}

impl Heads {
    /// At this route. The error is a message for a person.
    pub fn at(route: &RouteConfig) -> Result<Self, String> {
        let loopback = Some([127, 0, 0, 1].into());
        let labels = || Labels::new(&route.name, Some(&route.name), None);
        let connector = Connector::try_new(&route.upstream, None, route.timeouts.connect)?;
        let options = &route.upstream.options;
        let upstream = Upstream::new(vec![connector], options, &Shared::new(options, 1));
        let ready =
            Route::new(route, upstream, None, (Arc::default(), labels()), Arc::default(), (None, None));
        let site = Site {
            table: RouteTable::new(std::slice::from_ref(route), loopback),
            routes: vec![Rc::new(ready)],
            allowed_origins: Vec::new(),
            egress: None,
            unrouted: Arc::default(),
            labels: Rc::new(labels()),
            identity: Rc::new(Identity::new(Clock::System, "bearward-bench", None)),
        };
        let peer = Peer { address: loopback, ..Peer::default() };
        let client = Rc::new(Client::new(Rc::new(Link::new(peer, super::ClientLimits::default()))));
        Ok(Self { site, client, id: HeaderValue::from_static("0123456789abcdef01234567") })
    }

    /// At a route that leads nowhere.
    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        use crate::upstream::{HttpVersion, UpstreamConfig, UpstreamOptions};
        let upstream = UpstreamConfig {
            origin: crate::origin::Origin::try_new("http://127.0.0.1:1").expect("an origin"),
            http: HttpVersion::Auto,
            tls: crate::tls::TlsClientConfig::default(),
            outbound_proxy: None,
            options: UpstreamOptions::default(),
        };
        let name = crate::names::Name::try_new("all").expect("a name");
        Self::at(&RouteConfig::to(name, upstream)).expect("a route")
    }

    #[cfg(test)]
    pub(super) fn into_parts(self) -> (Rc<Site>, Rc<Client>) {
        (Rc::new(self.site), self.client)
    }

    /// Authority, path, route, browser, method: whether the request may go on.
    pub fn admit(&self, request: &Request<()>) -> bool {
        admit::admit(&self.site, &self.client, request).is_ok()
    }

    /// Removes what does not pass and sets what the upstream sees; whether the request may go on.
    pub fn rewrite(&self, head: &mut Parts) -> bool {
        let route = &self.site.routes[0];
        let (identity, client, id) = (&*self.site.identity, &*self.client, &self.id);
        let Ok((seen, _)) = strip(identity, route, client, head, true) else { return false };
        edit(identity, route, client, id, seen, head);
        true
    }

    /// Judges the fields of an answer; whether they are in order.
    pub fn judge_answer(&self, headers: &HeaderMap) -> bool {
        let mut remove = self.site.identity.scratch.take();
        remove.clear();
        let judged = judge_answer(headers, &mut remove).is_ok();
        self.site.identity.scratch.replace(remove);
        judged
    }
}
