//! A request whose token the upstream refused is sent again, once: with the next token, or with the nonce that was wanted.
//!
//! Owns: whether that may be done. What became of the first attempt is the client's answer where it may not.

use std::rc::Rc;

use http::{HeaderValue, Request, StatusCode};
use tokio::time::Instant;

use super::body::Flow;
use super::challenge::{self, Verdict};
use super::exchange::{Answer, exchange};
use super::inject;
use super::spare::Spare;
use super::unauthorized;
use super::{Client, Identity, Refusal, RequestBody, Route};
use crate::route::Replay;
use crate::telemetry::access::Use;

/// The answer that the client gets: this 401, or that to the request when it was sent again.
#[cold]
pub(super) async fn refused(
    identity: &Identity,
    route: &Route,
    client: &Rc<Client>,
    mut answer: Answer,
    spare: &Spare<'_>,
    flow: Option<&Rc<Flow>>,
    generation: u64,
) -> Result<Answer, Refusal> {
    if answer.asks_nonce {
        answer = with_nonce(identity, route, client, answer, spare, flow).await?;
    }
    // A token that lacks a nonce is not refused.
    if answer.asks_nonce || answer.response.status() != StatusCode::UNAUTHORIZED {
        return Ok(answer);
    }
    client.record(|record| record.used(Use::Rejected));
    once_more(identity, route, client, answer, spare, flow, generation).await
}

/// The upstream wants the nonce that it gave (RFC 9449 9): sends the request again, once, with the same token.
#[cold]
async fn with_nonce(
    identity: &Identity,
    route: &Route,
    client: &Rc<Client>,
    mut answer: Answer,
    spare: &Spare<'_>,
    flow: Option<&Rc<Flow>>,
) -> Result<Answer, Refusal> {
    let body = match flow {
        _ if !may_replay(route, spare) => None,
        None => Some(RequestBody::Empty),
        Some(flow) => flow.again(),
    };
    let bearer = route.token.as_ref().map(|token| token.borrow_mut().authorize(identity.clock.boot()));
    let (Some(body), Some(Ok((bearer, _)))) = (body, bearer) else { return Ok(answer) };
    if !client.binding.is_bound() {
        answer.lease.rest(answer.at);
    }
    client.binding.release(answer.lease, Instant::now());
    unauthorized::room(route).await;
    route.counters.replayed.increment();
    client.record(|record| record.replayed());
    send_again(route, client, spare.request(body), bearer).await
}

fn may_replay(route: &Route, spare: &Spare<'_>) -> bool {
    match route.on_unauthorized.replay {
        Replay::None => false,
        Replay::Idempotent => spare.is_idempotent(),
        Replay::Any => true,
    }
}

async fn send_again(
    route: &Route,
    client: &Rc<Client>,
    request: Request<RequestBody>,
    bearer: HeaderValue,
) -> Result<Answer, Refusal> {
    let (mut head, body) = request.into_parts();
    if let Some(token) = &route.token {
        inject::inject(token, bearer, &mut head.headers, &mut head.uri)?;
    }
    exchange(route, client, Request::from_parts(head, body), None, None, None).await
}

/// The upstream refused the token of `generation`: sends the request again, once, if there is a newer one.
#[cold]
async fn once_more(
    identity: &Identity,
    route: &Route,
    client: &Rc<Client>,
    mut answer: Answer,
    spare: &Spare<'_>,
    flow: Option<&Rc<Flow>>,
    generation: u64,
) -> Result<Answer, Refusal> {
    route.counters.unauthorized.increment();
    let rules = route.on_unauthorized;
    match challenge::verdict(answer.response.headers()) {
        // No refresh brings what is missing.
        Verdict::Insufficient => return Ok(answer),
        Verdict::Silent if rules.require_challenge => return Ok(answer),
        Verdict::Silent | Verdict::InvalidToken => {}
    }
    let body = match flow {
        _ if !may_replay(route, spare) => None,
        None => Some(RequestBody::Empty),
        Some(flow) => flow.again(),
    };
    // All requests of this moment wait together: none of them holds a place at the upstream meanwhile.
    if !client.binding.is_bound() {
        answer.lease.rest(answer.at);
    }
    let bearer = unauthorized::newer_token(identity, route, generation, body.is_some()).await;
    let (Some(bearer), Some(body)) = (bearer, body) else { return Ok(answer) };
    client.binding.release(answer.lease, Instant::now());
    unauthorized::room(route).await;
    route.counters.replayed.increment();
    client.record(|record| {
        record.replayed();
        record.used(Use::Sent);
    });
    let request = spare.request(body);
    let answer = send_again(route, client, request, bearer).await?;
    if answer.response.status() == StatusCode::UNAUTHORIZED && !answer.asks_nonce {
        route.counters.unauthorized.increment();
        client.record(|record| record.used(Use::Rejected));
        route.refusals.fresh_token_refused(identity.clock.boot());
    } else {
        route.refusals.fresh_token_taken();
    }
    Ok(answer)
}
