//! One exchange with the upstream: a connection, the request, the head of the answer.
//!
//! Owns: reuse, the one retry, and what each failure means. Never retries what an upstream may have carried out.

use std::rc::Rc;

use http::{Request, Response, StatusCode};
use tokio::time::Instant;

use super::body::Flow;
use super::spare::Spare;
use super::{Client, Refusal, RequestBody, Route};
use crate::upstream::{AnswerBody, ExchangeError, Lease, SendError};

/// An answer whose head is there.
pub(super) struct Answer {
    pub(super) response: Response<AnswerBody>,
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
    let full = route.pool.active() >= route.max_active;
    let mut lease = match route.pool.reuse(sent_at).filter(|_| !full) {
        Some(lease) => lease,
        None if full => return Err(Refusal::Overloaded),
        None => {
            let lease = route.pool.connect().await?;
            sent_at = Instant::now();
            lease
        }
    };
    let mut first = true;
    loop {
        let reused = lease.reused();
        let bodiless = matches!(request.body(), RequestBody::Empty);
        client.await_upstream(Some(sent_at + route.timeouts.first_byte));
        let informed = |head: Response<()>| {
            if let Some(flow) = flow.filter(|_| head.status() == StatusCode::CONTINUE) {
                flow.go().store(true, std::sync::atomic::Ordering::Relaxed);
            }
        };
        let outcome = lease.send(request, || client.upstream_is_late(), informed).await;
        client.await_upstream(None);
        let failed = match outcome {
            Some(Ok(response)) => {
                let at = Instant::now();
                route.counters.upstream_duration.observe(at.saturating_duration_since(sent_at));
                return Ok(Answer { response, lease, at });
            }
            None => return Err(Refusal::UpstreamTimeout),
            Some(Err(failed)) => failed,
        };
        match repeated(failed, reused, bodiless, spare, flow) {
            // Once, on another connection.
            Ok(again) if std::mem::take(&mut first) => request = again,
            Ok(_) => return Err(Refusal::UpstreamClosed),
            Err(error) => return Err(failure(&error, client, flow)),
        }
        drop(lease);
        lease = route.pool.connect().await?;
        sent_at = Instant::now();
    }
}

/// The request again, if the upstream cannot have carried it out, or carrying it out twice does no harm.
fn repeated(
    failed: SendError<RequestBody>,
    reused: bool,
    bodiless: bool,
    spare: Option<&Spare>,
    flow: Option<&Rc<Flow>>,
) -> Result<Request<RequestBody>, ExchangeError> {
    let SendError { error, unsent, untaken, unprocessed } = failed;
    let again = match (unsent, spare) {
        (Some(unsent), _) if reused || unprocessed => Some(unsent),
        (_, Some(spare)) if unprocessed => {
            let body = if bodiless { Some(RequestBody::Empty) } else { untaken };
            body.or_else(|| flow?.again()).map(|body| spare.request(body))
        }
        // RFC 9112, 9.3.1: a kept connection may have been closed at any time.
        (_, Some(spare)) if reused && bodiless && spare.is_idempotent() && !error.is_protocol() => {
            Some(spare.request(RequestBody::Empty))
        }
        _ => None,
    };
    again.ok_or(error)
}

fn failure(error: &ExchangeError, client: &Client, flow: Option<&Rc<Flow>>) -> Refusal {
    tracing::debug!(%error, "an exchange with an upstream failed");
    if client.body_is_late() {
        return Refusal::BodyTimeout;
    }
    if flow.is_some_and(|flow| flow.broken()) {
        return Refusal::BodyBroken;
    }
    if error.is_protocol() { Refusal::UpstreamProtocol } else { Refusal::UpstreamClosed }
}
