//! One exchange with the upstream: a connection, the request, the head of the answer.
//!
//! Owns: the place among the requests under way, reuse, the one retry, what each failure means, and what it says of the
//! upstream's address. Never retries what an upstream may have carried out.

use std::rc::Rc;

use http::request::Parts;
use http::{Response, StatusCode, header};
use tokio::time::Instant;

use super::asked::Asked;
use super::body::Flow;
use super::bound;
use super::edit::{is_idempotent, renew};
use super::proof::{self, prove};
use super::{Client, Refusal, RequestBody, Route};
use crate::telemetry::access::Record;
use crate::upstream::{
    AnswerBody, Beside, Endpoint, ExchangeError, Found, Full, Lease, Reached, SendError, Upstream,
};

/// An answer whose head is there.
pub(super) struct Answer {
    pub(super) response: Response<AnswerBody>,
    pub(super) lease: Lease<RequestBody>,
    /// When the head was there.
    pub(super) at: Instant,
    /// The upstream wants a proof with the nonce that it gave.
    pub(super) asks_nonce: bool,
}

/// Sends a request and waits for the head of the answer. `head` stays as it was sent.
pub(super) async fn exchange(
    route: &Route,
    client: &Client,
    (head, beside): (&mut Parts, Beside<'_>),
    mut body: RequestBody,
    flow: Option<&Rc<Flow>>,
    asked: Option<&Asked>,
) -> Result<Answer, Refusal> {
    let upstream = &*route.upstream;
    let admission = match upstream.entrance().enter_at_once() {
        Some(admission) => admission,
        // Boxed, as all that most requests do without: it is moved with each.
        None => Box::pin(upstream.entrance().queue()).await.map_err(|Full| Refusal::Overloaded)?,
    };
    upstream.budget().earn();
    let mut sent_at = Instant::now();
    let own = if client.binding.is_bound() { client.binding.take(&route.upstream) } else { None };
    let Reached { mut lease, mut endpoint } = match own.map_or_else(|| upstream.find(sent_at), Found::Reached)
    {
        Found::Reached(reached) => reached,
        Found::Nothing(there) => {
            let reached = Box::pin(upstream.connect(there)).await?;
            sent_at = Instant::now();
            reached
        }
    };
    if asked.is_some_and(Asked::switches) {
        lease = Box::pin(lease.to_switch()).await?;
    }
    let mut first = true;
    loop {
        if upstream.has_origins() {
            readdress(route, upstream, endpoint.as_deref(), head);
        }
        prove(route, endpoint.as_deref(), head)?;
        if client.binding.is_bound() && lease.is_shared() && bound::authenticates(&head.headers) {
            return Err(Refusal::SharedConnection);
        }
        let reused = lease.reused();
        let bodiless = matches!(body, RequestBody::Empty);
        client.await_upstream(Some(sent_at + route.timeouts.first_byte));
        let informed = |told: Response<()>| {
            if let Some(flow) = flow.filter(|_| told.status() == StatusCode::CONTINUE) {
                flow.go().store(true, std::sync::atomic::Ordering::Relaxed);
            }
            if let Some(interims) = client.interims() {
                interims.add(told.status(), told.headers());
            }
        };
        let outcome = lease.send(head, beside, body, || client.upstream_is_late(), informed).await;
        client.await_upstream(None);
        let failed = match outcome {
            Some(Ok(response)) => {
                let at = Instant::now();
                let took = at.saturating_duration_since(sent_at);
                route.counters.upstream_duration.observe(took);
                client.record(|record| record.upstream(response.version(), took));
                upstream.answered(endpoint.as_ref(), is_well(response.status()), at);
                lease.hold(admission);
                let status = response.status();
                if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED)
                    && bound::challenges(response.headers())
                {
                    client.binding.begin();
                }
                if client.binding.is_bound() {
                    client.binding.expect(&route.upstream, endpoint.as_ref());
                }
                let asks_nonce = proof::asks_nonce(route, endpoint.as_deref(), &response);
                return Ok(Answer { response, lease, at, asks_nonce });
            }
            None => {
                upstream.answered(endpoint.as_ref(), false, Instant::now());
                return Err(Refusal::UpstreamTimeout);
            }
            Some(Err(failed)) => failed,
        };
        // What the upstream cannot have seen costs it nothing.
        let unseen = failed.unsent || failed.unprocessed;
        match repeated(failed, reused, bodiless, head, flow) {
            // Once, on another connection.
            Ok(again) if std::mem::take(&mut first) && (unseen || upstream.budget().spend()) => body = again,
            Ok(_) => return Err(Refusal::UpstreamClosed),
            Err(error) => {
                let refusal = failure(&error, client, flow);
                if matches!(refusal, Refusal::UpstreamClosed | Refusal::UpstreamProtocol) {
                    upstream.answered(endpoint.as_ref(), false, Instant::now());
                }
                return Err(refusal);
            }
        }
        drop(lease);
        client.record(Record::retried);
        Reached { lease, endpoint } = Box::pin(upstream.connect(None)).await?;
        sent_at = Instant::now();
    }
}

/// The body of the request for a second sending, if the upstream cannot have carried it out, or carrying it out twice does no
/// harm.
fn repeated(
    failed: SendError<RequestBody>,
    reused: bool,
    bodiless: bool,
    head: &mut Parts,
    flow: Option<&Rc<Flow>>,
) -> Result<RequestBody, ExchangeError> {
    let SendError { error, unsent, untaken, unprocessed, answered } = failed;
    if unsent {
        return untaken.filter(|_| reused || unprocessed).ok_or(error);
    }
    let body = if unprocessed {
        let body = if bodiless { Some(RequestBody::Empty) } else { untaken };
        body.or_else(|| flow?.again())
    } else {
        // RFC 9112, 9.3.1: a kept connection may have been closed at any time.
        let harmless = reused && bodiless && !answered && is_idempotent(&head.method);
        (harmless && !error.is_protocol()).then_some(RequestBody::Empty)
    };
    let body = body.ok_or(error)?;
    renew(head, &body);
    Ok(body)
}

/// Whether an answer comes from a server that is there, and not from a gateway before it.
fn is_well(status: StatusCode) -> bool {
    !matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

/// Gives a head the names of the origin that was chosen.
fn readdress(
    route: &Route,
    upstream: &Upstream<RequestBody>,
    endpoint: Option<&Endpoint<RequestBody>>,
    head: &mut Parts,
) {
    let Some((host, authority)) = endpoint.and_then(|endpoint| upstream.names_of(endpoint)) else { return };
    if !route.preserve_host {
        head.headers.insert(header::HOST, host.clone());
    }
    if route.absolute.is_some() {
        let mut parts = head.uri.clone().into_parts();
        parts.authority = Some(authority.clone());
        if let Ok(uri) = http::Uri::from_parts(parts) {
            head.uri = uri;
        }
    }
}

fn failure(error: &ExchangeError, client: &Client, flow: Option<&Rc<Flow>>) -> Refusal {
    tracing::debug!(%error, "an exchange with an upstream failed");
    if matches!(error, ExchangeError::NoWebSocket) {
        return Refusal::NoUpgrade;
    }
    if client.body_is_late() {
        return Refusal::BodyTimeout;
    }
    if flow.is_some_and(|flow| flow.too_large()) {
        return Refusal::BodyTooLarge;
    }
    if flow.is_some_and(|flow| flow.broken()) {
        return Refusal::BodyBroken;
    }
    if error.is_protocol() { Refusal::UpstreamProtocol } else { Refusal::UpstreamClosed }
}
