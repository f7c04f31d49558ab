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
use crate::proxy::note::note_socks;
use crate::proxy::throttle::count_exceeding;
use crate::proxy::{Client, ClientBody, Refusal, Site, Switched};
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
    let began = Instant::now();
    let known = authenticate(gate, client, &headers, true).await;
    if let Err(refusal) = &known {
        note_socks(site, &site.labels, client, began);
        ended(client, &site.unrouted, Some(refusal), began);
    }
    known.is_ok()
}

/// The answer was given: it is counted, and its line written.
fn ended(client: &Client, counters: &RouteCounters, refusal: Option<&Refusal>, began: Instant) {
    let (now, status) = (Instant::now(), refusal.map_or(200, |refusal| refusal.status().as_u16()));
    if let Some(refusal) = refusal {
        client.record(|record| {
            let (slug, error) = refusal.words();
            record.refused(slug, error);
        });
    }
    counters.answered(status, now.saturating_duration_since(began));
    if let Some(caller) = client.caller() {
        caller.counters.answered(status);
    }
    client.end_record(status, now);
}

/// Opens a way to `target`: a tunnel, or one on which the client meets this proxy.
pub async fn open(site: &Site, client: &Rc<Client>, target: &Target) -> Result<Switched, Refusal> {
    let Some(egress) = &site.egress else { return Err(Refusal::NoTunnel) };
    let began = Instant::now();
    let caller = client.caller();
    let name = caller.as_ref().map(|caller| &caller.name);
    let decision = egress.decide(client, &Ask { target, client: name, form: Form::Connection });
    let rule = match decision {
        Decision::Denied(rule) => Err(rule),
        Decision::Rule(rule) => Ok(rule),
        Decision::Spared => Ok(egress.rules.len() - 1),
    };
    let decided = rule.map_or_else(|denied| denied, Some);
    let counters = egress.counters(site, decided);
    let labels = decided.map_or_else(|| Rc::clone(&site.labels), |rule| egress.labels(rule));
    note_socks(site, &labels, client, began);
    let outcome = way(site, client, target, rule).await;
    ended(client, &counters, outcome.as_ref().err(), began);
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
    let address = client.address(&HeaderMap::new());
    connect::open(site, egress, (client, address), ClientBody::Empty, (rule, target), pass.held)
        .await
        .inspect_err(|_| counters.errors.increment())
}
