//! A request whose token the upstream refused is sent again, once: with the next token, or with the nonce that was wanted.
//!
//! Owns: whether that may be done. What became of the first attempt is the client's answer where it may not.

use std::rc::Rc;

use http::request::Parts;
use http::{HeaderValue, StatusCode, Uri};
use tokio::time::Instant;

use super::answer::is_last_of_connection;
use super::body::Flow;
use super::challenge::{self, Verdict};
use super::edit::{is_idempotent, renew};
use super::exchange::{Answer, exchange};
use super::inject;
use super::unauthorized;
use super::{Client, Identity, Refusal, RequestBody, Route};
use crate::route::Replay;
use crate::telemetry::access::Use;
use crate::upstream::Beside;

/// A request whose token, or the proof beside it, was refused.
pub(super) struct Again<'a> {
    pub(super) identity: &'a Identity,
    pub(super) route: &'a Route,
    pub(super) client: &'a Rc<Client>,
    /// Its head, as it was sent.
    pub(super) head: &'a mut Parts,
    /// What is sent beside it.
    pub(super) beside: Beside<'a>,
    /// Its target without the token, where that is a part of it.
    pub(super) target: Option<Uri>,
    /// Its body, where it has one.
    pub(super) flow: Option<&'a Rc<Flow>>,
}

impl Again<'_> {
    /// The answer that the client gets: this 401, or that to the request when it was sent again. `generation`: of the
    /// token that was sent.
    #[cold]
    pub(super) async fn refused(&mut self, mut answer: Answer, generation: u64) -> Result<Answer, Refusal> {
        if is_last_of_connection(answer.response.version(), answer.response.headers()) {
            answer.lease.retire();
        }
        // Each origin of an upstream has a nonce of its own, and the next sending may go to another.
        for _ in 0..self.route.upstream.origins() {
            if !answer.asks_nonce {
                break;
            }
            answer = self.with_nonce(answer).await?;
        }
        // A token that lacks a nonce is not refused.
        if answer.asks_nonce || answer.response.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        self.client.record(|record| record.used(Use::Rejected));
        self.once_more(answer, generation).await
    }

    /// The upstream wants the nonce that it gave (RFC 9449 9): sends the request again with the same token.
    #[cold]
    async fn with_nonce(&mut self, mut answer: Answer) -> Result<Answer, Refusal> {
        let Self { identity, route, client, .. } = *self;
        let bearer = route.token.as_ref().map(|token| token.borrow_mut().authorize(identity.clock.boot()));
        let (Some(body), Some(Ok((bearer, _)))) = (self.body(), bearer) else { return Ok(answer) };
        self.rest(&mut answer);
        client.binding.release(answer.lease, Instant::now());
        unauthorized::room(route).await;
        route.counters.replayed.increment();
        client.record(|record| record.replayed());
        self.send(body, bearer).await
    }

    /// The upstream refused the token of `generation`: sends the request again, once, if there is a newer one.
    #[cold]
    async fn once_more(&mut self, mut answer: Answer, generation: u64) -> Result<Answer, Refusal> {
        let Self { identity, route, client, .. } = *self;
        route.counters.unauthorized.increment();
        match challenge::verdict(answer.response.headers()) {
            // No refresh brings what is missing.
            Verdict::Insufficient => return Ok(answer),
            Verdict::Silent if route.on_unauthorized.require_challenge => return Ok(answer),
            Verdict::Silent | Verdict::InvalidToken => {}
        }
        let body = self.body();
        // All requests of this moment wait together: none of them holds a place at the upstream meanwhile.
        self.rest(&mut answer);
        let bearer = unauthorized::newer_token(identity, route, generation, body.is_some()).await;
        let (Some(bearer), Some(body)) = (bearer, body) else { return Ok(answer) };
        client.binding.release(answer.lease, Instant::now());
        unauthorized::room(route).await;
        route.counters.replayed.increment();
        client.record(|record| {
            record.replayed();
            record.used(Use::Sent);
        });
        let answer = self.send(body, bearer).await?;
        if answer.response.status() == StatusCode::UNAUTHORIZED && !answer.asks_nonce {
            route.counters.unauthorized.increment();
            client.record(|record| record.used(Use::Rejected));
            route.refusals.fresh_token_refused(identity.clock.boot());
        } else {
            route.refusals.fresh_token_taken();
        }
        Ok(answer)
    }

    /// The body for another sending, where there may be one and nothing of the body is lost.
    fn body(&self) -> Option<RequestBody> {
        let may = match self.route.on_unauthorized.replay {
            Replay::None => false,
            Replay::Idempotent => is_idempotent(&self.head.method),
            Replay::Any => true,
        };
        match self.flow {
            _ if !may => None,
            None => Some(RequestBody::Empty),
            Some(flow) => flow.again(),
        }
    }

    /// The place at the upstream is given back before its time.
    fn rest(&self, answer: &mut Answer) {
        if !self.client.binding.is_bound() {
            answer.lease.rest(answer.at);
        }
    }

    async fn send(&mut self, body: RequestBody, bearer: HeaderValue) -> Result<Answer, Refusal> {
        renew(self.head, &body);
        if let Some(target) = &self.target {
            self.head.uri = target.clone();
        }
        if let Some(token) = &self.route.token {
            inject::inject(token, bearer, &mut self.head.headers, &mut self.head.uri)?;
        }
        exchange(self.route, self.client, (self.head, self.beside), body, None, None).await
    }
}
