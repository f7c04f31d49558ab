//! SOCKS5: who asks, and where the way leads, as for CONNECT.
//!
//! Owns: the bridge from the listener's negotiation to gate, rules and guard.

use std::rc::Rc;
use std::sync::Arc;

use base64::Engine;
use http::{HeaderMap, HeaderValue, header};
use tokio::time::Instant;

use super::Egress;
use super::connect::{Tunnel, TunnelCount};
use super::decision::Decision;
use crate::policy::egress::{Ask, Form, Target};
use crate::proxy::authenticate::authenticate;
use crate::proxy::handle::count_exceeding;
use crate::proxy::throttle;
use crate::proxy::{Client, ClientBody, Refusal, Site};
use crate::telemetry::counters::RouteCounters;

/// Whether the client may use the listener; `user` and password are those of `clients: {…: {basic: …}}`.
pub async fn admits(site: &Site, client: &Client, user: Option<(&[u8], &[u8])>) -> bool {
    let Some(gate) = site.egress.as_ref().and_then(|egress| egress.gate.as_ref()) else { return true };
    let mut headers = HeaderMap::new();
    if let Some((user, password)) = user {
        let pair = base64::engine::general_purpose::STANDARD.encode([user, b":", password].concat());
        let Ok(mut value) = HeaderValue::try_from(["Basic ", &pair].concat()) else { return false };
        value.set_sensitive(true);
        headers.insert(header::PROXY_AUTHORIZATION, value);
    }
    let known = authenticate(gate, client, &headers, true).await;
    if let Err(refusal) = &known {
        site.unrouted.answered(refusal.status().as_u16(), std::time::Duration::ZERO);
    }
    known.is_ok()
}

/// Opens a way to `target`.
pub async fn open(site: &Site, client: &Rc<Client>, target: &Target) -> Result<Tunnel, Refusal> {
    let Some(egress) = &site.egress else { return Err(Refusal::NoTunnel) };
    let began = Instant::now();
    let caller = client.caller();
    let name = caller.as_ref().map(|caller| &caller.name);
    let decision = egress.decide(&Ask { target, client: name, form: Form::Connection });
    let rule = match decision {
        Decision::Denied(rule) => rule,
        Decision::Rule(rule) => Some(rule),
        Decision::Spared => Some(egress.rules.len() - 1),
    };
    let counters = egress.counters(site, rule);
    let outcome = way(egress, client, target, (decision, rule), &counters).await;
    let status = outcome.as_ref().map_or_else(|refusal| refusal.status().as_u16(), |_| 200);
    counters.answered(status, began.elapsed());
    if let Some(caller) = &caller {
        caller.counters.answered(status);
    }
    outcome
}

async fn way(
    egress: &Egress,
    client: &Client,
    target: &Target,
    (decision, rule): (Decision, Option<usize>),
    counters: &Arc<RouteCounters>,
) -> Result<Tunnel, Refusal> {
    let limits = rule.and_then(|rule| egress.rules[rule].limits.as_deref());
    let pass = throttle::admit(limits, client, &HeaderMap::new()).map_err(|exceeded| {
        count_exceeding(exceeded.whose, counters, client);
        exceeded.refusal
    })?;
    let (Decision::Rule(_) | Decision::Spared, Some(rule)) = (decision, rule) else {
        let name = rule.map(|rule| egress.rules[rule].name().clone());
        return Err(Refusal::EgressDenied(name));
    };
    let stream = egress.dial(rule, target).await.inspect_err(|_| counters.errors.increment())?;
    Ok(Tunnel {
        stream,
        incoming: ClientBody::Empty,
        idle_limit: egress.rules[rule].config.tunnel_idle,
        count: TunnelCount::new(counters, pass.held),
    })
}
