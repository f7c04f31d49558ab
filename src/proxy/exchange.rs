//! One exchange with the upstream: a connection, the request, the head of the answer.
//!
//! Owns: reuse, the one retry, and what each failure means. Never retries what an upstream may have carried out.

use std::rc::Rc;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::body::Flow;
use super::spare::Spare;
use super::{Client, Refusal, RequestBody, Route};
use crate::upstream::{Lease, SendError};

/// An answer whose head is there.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) lease: Lease<RequestBody>,
    /// When the head was there.
    pub(super) at: Instant,
}

/// Sends `request` and waits for the head of the answer.
pub(super) async fn exchange(
    route: &Route,
    client: &Client,
    mut request: Request<RequestBody>,
    flow: Option<&Rc<Flow>>,
    spare: Option<&Spare>,
) -> Result<Answer, Refusal> {
    let mut sent_at = Instant::now();
    let mut lease = match route.pool.reuse(sent_at) {
        Some(lease) => lease,
        None if route.pool.active() >= route.max_active => return Err(Refusal::Overloaded),
        None => {
            let lease = route.pool.connect().await?;
            sent_at = Instant::now();
            lease
        }
    };
    loop {
        let reused = lease.reused();
        let bodiless = matches!(request.body(), RequestBody::Empty);
        client.await_upstream(Some(sent_at + route.timeouts.first_byte));
        let outcome = lease.send(request, || client.upstream_is_late()).await;
        client.await_upstream(None);
        match outcome {
            Some(Ok(response)) => {
                let at = Instant::now();
                route.counters.upstream_duration.observe(at.saturating_duration_since(sent_at));
                return Ok(Answer { response, lease, at });
            }
            None => return Err(Refusal::UpstreamTimeout),
            Some(Err(SendError { error, unsent })) => {
                let repeatable = spare.filter(|spare| bodiless && spare.is_idempotent() && !error.is_parse());
                let again = unsent.or_else(|| repeatable.map(|spare| spare.request(RequestBody::Empty)));
                match again.filter(|_| reused) {
                    // RFC 9112, 9.3.1: a kept connection may have been closed at any time. Once, on a new one.
                    Some(again) => request = again,
                    None => return Err(failure(&error, client, flow)),
                }
                drop(lease);
                lease = route.pool.connect().await?;
                sent_at = Instant::now();
            }
        }
    }
}

fn failure(error: &hyper::Error, client: &Client, flow: Option<&Rc<Flow>>) -> Refusal {
    tracing::debug!(%error, "an exchange with an upstream failed");
    if client.body_is_late() {
        return Refusal::BodyTimeout;
    }
    if flow.is_some_and(|flow| flow.broken()) {
        return Refusal::BodyBroken;
    }
    if error.is_parse() { Refusal::UpstreamProtocol } else { Refusal::UpstreamClosed }
}
