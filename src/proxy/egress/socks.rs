//! SOCKS5: who asks, and where the way leads, as for CONNECT.
//!
//! Owns: the bridge from the listener's negotiation to gate, rules and guard.

use std::rc::Rc;

use base64::Engine;
use http::{HeaderMap, HeaderValue, header};
use tokio::time::Instant;

use super::connect::{self, Local};
use super::decision::Decision;
use crate::policy::egress::{Ask, Form, Target};
use crate::proxy::authenticate::authenticate;
use crate::proxy::handle::count_exceeding;
use crate::proxy::{Client, ClientBody, Refusal, Site, Switched};

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

/// Opens a way to `target`: a tunnel, or one on which the client meets this proxy.
pub async fn open(site: &Site, client: &Rc<Client>, target: &Target) -> Result<Switched, Refusal> {
    let Some(egress) = &site.egress else { return Err(Refusal::NoTunnel) };
    let began = Instant::now();
    let caller = client.caller();
    let name = caller.as_ref().map(|caller| &caller.name);
    let decision = egress.decide(&Ask { target, client: name, form: Form::Connection });
    let rule = match decision {
        Decision::Denied(rule) => Err(rule),
        Decision::Rule(rule) => Ok(rule),
        Decision::Spared => Ok(egress.rules.len() - 1),
    };
    let outcome = way(site, client, target, rule).await;
    let counters = egress.counters(site, rule.map_or_else(|denied| denied, Some));
    let status = outcome.as_ref().map_or_else(|refusal| refusal.status().as_u16(), |_| 200);
    counters.answered(status, began.elapsed());
    if let Some(caller) = &caller {
        caller.counters.answered(status);
    }
    outcome
}

/// By this rule, or denied by it or by none.
async fn way(
    site: &Site,
    client: &Client,
    target: &Target,
    rule: Result<usize, Option<usize>>,
) -> Result<Switched, Refusal> {
    let Some(egress) = &site.egress else { return Err(Refusal::NoTunnel) };
    let counters = egress.counters(site, rule.map_or_else(|denied| denied, Some));
    let local = match rule {
        Ok(rule) => Local::Connection(rule, target.clone()),
        Err(rule) => Local::Denied(rule),
    };
    let pass = egress.admit_local(client, &HeaderMap::new(), &local).map_err(|exceeded| {
        count_exceeding(exceeded.whose, &counters, client);
        exceeded.refusal
    })?;
    let denied = |rule: usize| egress.rules[rule].name().clone();
    let rule = rule.map_err(|rule| Refusal::EgressDenied(rule.map(denied)))?;
    connect::open(site, egress, client, ClientBody::Empty, (rule, target), pass.held)
        .await
        .inspect_err(|_| counters.errors.increment())
}
