//! What an egress listener does besides forwarding: tunnels, and answers of its own.
//!
//! Owns: opening a tunnel. Its bytes are the listener's to copy.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Egress, pac, stub};
use crate::origin::Scheme;
use crate::policy::egress::{Action, Target};
use crate::proxy::answer::refuse;
use crate::proxy::answer_body::Exchange;
use crate::proxy::client::Switched;
use crate::proxy::handle::refuse_body;
use crate::proxy::throttle::refuse_exceeding;
use crate::proxy::throttle::{self, Exceeded, Held, Pass};
use crate::proxy::{Client, ClientBody, Refusal, ResponseBody, Site};
use crate::telemetry::access::Labels;
use crate::telemetry::counters::RouteCounters;

/// What is not forwarded.
#[derive(Debug)]
pub(in crate::proxy) enum Local {
    /// CONNECT to this target by the rule of this index.
    Connection(usize, Target),
    /// The rule of this index answers a token endpoint.
    Stub(usize),
    /// `/proxy.pac`.
    Pac,
    /// Denied by a rule, or by none.
    Denied(Option<usize>),
    /// The rule of this index takes it, and it cannot go on.
    Refused(usize, Refusal),
}

impl Local {
    /// The rule that decided.
    fn rule(&self) -> Option<usize> {
        match self {
            Self::Connection(rule, _) | Self::Stub(rule) | Self::Refused(rule, _) => Some(*rule),
            Self::Denied(rule) => *rule,
            Self::Pac => None,
        }
    }
}

/// A way that CONNECT opened. Counted as open until it is dropped.
#[derive(Debug)]
pub struct Tunnel {
    /// The other end.
    pub stream: TcpStream,
    /// Over HTTP/2: what the client sends.
    pub incoming: ClientBody,
    /// How long no byte may come from either side.
    pub idle_limit: Duration,
    /// Of the rule.
    pub count: TunnelCount,
}

/// Counts one tunnel of a rule, and holds its places.
#[derive(Debug)]
pub struct TunnelCount(Arc<RouteCounters>, #[allow(dead_code, reason = "it is held")] Held);

impl TunnelCount {
    fn new(counters: &Arc<RouteCounters>, held: Held) -> Self {
        counters.tunnels.increment();
        Self(Arc::clone(counters), held)
    }

    /// Bytes came from the client.
    #[inline]
    pub fn from_client(&self, bytes: usize) {
        self.0.tunnel_bytes[0].add(bytes as u64);
    }

    /// Bytes came for the client.
    #[inline]
    pub fn to_client(&self, bytes: usize) {
        self.0.tunnel_bytes[1].add(bytes as u64);
    }
}

impl Drop for TunnelCount {
    fn drop(&mut self) {
        self.0.tunnels.decrement();
    }
}

impl Egress {
    /// Opens a way to `target` by a rule.
    async fn dial(&self, rule: usize, target: &Target) -> Result<TcpStream, Refusal> {
        let site = &self.rules[rule];
        let mut config = site.config.route.clone();
        config.upstream.origin =
            site.config.origin(Action::Tunnel, target, Scheme::Http).ok_or(Refusal::BadHost)?;
        Ok(self.connector(site, &config)?.connect_plain().await?)
    }

    /// Whether the limits of the client and of the rule let it on. Of what is intercepted, each request inside is judged
    /// instead; what is denied counts for its client.
    pub(super) fn admit_local(
        &self,
        client: &Client,
        headers: &HeaderMap,
        local: &Local,
    ) -> Result<Pass, Box<Exceeded>> {
        let rule = match local {
            Local::Connection(rule, _) if self.rules[*rule].config.rule.action == Action::Intercept => {
                return Ok(Pass::default());
            }
            Local::Connection(rule, _) | Local::Stub(rule) => self.rules[*rule].limits.as_deref(),
            Local::Denied(_) | Local::Refused(..) => None,
            Local::Pac => return Ok(Pass::default()),
        };
        throttle::admit(rule, client, headers)
    }

    /// For the lines of what the rule answers itself.
    pub(super) fn labels(&self, rule: usize) -> Rc<Labels> {
        Rc::new(Labels::new(&self.listener, Some(self.rules[rule].name()), None))
    }

    pub(super) fn counters(&self, site: &Site, rule: Option<usize>) -> Arc<RouteCounters> {
        Arc::clone(rule.map_or(&site.unrouted, |rule| &self.rules[rule].counters))
    }
}

/// Answers what is not forwarded.
pub(in crate::proxy) async fn answer<B>(
    site: &Site,
    client: &Rc<Client>,
    request: Request<B>,
    local: Local,
    (id, began): (HeaderValue, Instant),
) -> Response<ResponseBody>
where
    B: Body + Into<ClientBody>,
{
    let Some(egress) = &site.egress else { unreachable!("only an egress listener gives one") };
    if let Some(rule) = local.rule() {
        client.record(|record| record.labels(&egress.labels(rule)));
    }
    let Pass { told, held } = match egress.admit_local(client, request.headers(), &local) {
        Ok(pass) => pass,
        Err(exceeded) => {
            refuse_body(client, request);
            return refuse_exceeding(&exceeded, &id, &egress.counters(site, local.rule()), client, began);
        }
    };
    let mut answer = answer_local(site, egress, client, request, (local, held), (id, began)).await;
    if let Some(told) = told {
        told.set(answer.headers_mut());
    }
    answer
}

async fn answer_local<B>(
    site: &Site,
    egress: &Egress,
    client: &Rc<Client>,
    request: Request<B>,
    (local, held): (Local, Held),
    (id, began): (HeaderValue, Instant),
) -> Response<ResponseBody>
where
    B: Body + Into<ClientBody>,
{
    let (rule, refusal) = match local {
        Local::Connection(rule, target) => {
            let asking = (&**client, client.address(request.headers()));
            match open(site, egress, asking, request.into_body().into(), (rule, &target), held).await {
                Ok(way) => {
                    client.switch_to(way);
                    let mut answer =
                        Response::new(empty(client, egress.counters(site, Some(rule)), 200, began));
                    *answer.status_mut() = StatusCode::OK;
                    return answer;
                }
                Err(refusal) => {
                    // What comes behind may be meant for the tunnel.
                    client.unasked();
                    (Some(rule), refusal)
                }
            }
        }
        Local::Stub(rule) => {
            let answer = stub::answer(request.method());
            refuse_body(client, request);
            client.hold(held);
            return ours(answer, client, egress.counters(site, Some(rule)), began);
        }
        Local::Pac => {
            let answer = pac::answer(egress, request.headers().get(header::HOST));
            return ours(answer, client, Arc::clone(&site.unrouted), began);
        }
        Local::Denied(rule) => {
            let name = rule.map(|rule| egress.rules[rule].name().clone());
            refuse_body(client, request);
            (rule, Refusal::EgressDenied(name))
        }
        Local::Refused(rule, refusal) => {
            refuse_body(client, request);
            (Some(rule), refusal)
        }
    };
    let counters = egress.counters(site, rule);
    if !matches!(refusal, Refusal::EgressDenied(_)) {
        counters.errors.increment();
    }
    refuse(&refusal, &id, &counters, client, began)
}

/// What a rule leads a connection to. `incoming`: over HTTP/2, what the client sends; `held`: the places of a tunnel.
pub(super) async fn open(
    at: &Site,
    egress: &Egress,
    (client, address): (&Client, Option<IpAddr>),
    incoming: ClientBody,
    (rule, target): (usize, &Target),
    held: Held,
) -> Result<Switched, Refusal> {
    let site = &egress.rules[rule];
    if site.config.rule.action == Action::Intercept {
        let now = at.identity.clock.wall();
        let intercept = egress.intercept(rule, target, (client, address), incoming, now).await?;
        return Ok(Switched::Intercept(intercept));
    }
    let stream = egress.dial(rule, target).await?;
    Ok(Switched::Tunnel(Tunnel {
        stream,
        incoming,
        idle_limit: site.config.tunnel_idle,
        count: TunnelCount::new(&site.counters, held),
    }))
}

fn empty(client: &Rc<Client>, counters: Arc<RouteCounters>, status: u16, began: Instant) -> ResponseBody {
    ResponseBody::full(Bytes::new(), Exchange { client: Rc::clone(client), counters, status, began })
}

/// An answer of our own that is no refusal.
fn ours(
    answer: Response<Bytes>,
    client: &Rc<Client>,
    counters: Arc<RouteCounters>,
    began: Instant,
) -> Response<ResponseBody> {
    let (mut head, body) = answer.into_parts();
    head.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let status = head.status.as_u16();
    let exchange = Exchange { client: Rc::clone(client), counters, status, began };
    Response::from_parts(head, ResponseBody::full(body, exchange))
}
