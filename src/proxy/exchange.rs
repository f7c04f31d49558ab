//! One exchange with the upstream: a connection, the request, the head of the answer.
//!
//! Owns: reuse, the one retry, and what each failure means. Never retries what an upstream may have carried out.

use std::rc::Rc;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::body::Flow;
use super::{Client, Refusal, RequestBody, Route};
use crate::upstream::{Lease, SendError};

/// An answer whose head is there.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) lease: Lease<RequestBody>,
}

/// Sends `request` and waits for the head of the answer.
pub(super) async fn exchange(
    route: &Route,
    client: &Client,
    mut request: Request<RequestBody>,
    flow: Option<&Rc<Flow>>,
) -> Result<Answer, Refusal> {
    let mut sent_at = Instant::now();
    let pooled = std::future::poll_fn(|cx| std::task::Poll::Ready(route.pool.reuse(cx, sent_at))).await;
    let mut lease = match pooled {
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
        let spare = if reused { copy_if_repeatable(&request) } else { None };
        client.await_upstream(Some(sent_at + route.timeouts.first_byte));
        let outcome = lease.send(request, || client.upstream_is_late()).await;
        client.await_upstream(None);
        match outcome {
            Some(Ok(response)) => {
                route.counters.upstream_duration.observe(sent_at.elapsed());
                return Ok(Answer { response, lease });
            }
            None => return Err(Refusal::UpstreamTimeout),
            Some(Err(SendError { error, unsent })) => {
                let again = unsent.or_else(|| spare.filter(|_| !error.is_parse()));
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

/// A copy to send again, if sending twice has the effect of sending once (RFC 9110, 9.2.2) and no body is lost.
fn copy_if_repeatable(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let idempotent = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
    );
    if !idempotent || !matches!(request.body(), RequestBody::Empty) {
        return None;
    }
    let mut copy = Request::new(RequestBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
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
