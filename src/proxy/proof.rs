//! DPoP at the upstream (RFC 9449, 7 and 9): each request that is sent proves that this program holds the token's key.
//!
//! Owns: what a proof says of a request, made when the origin is chosen and nothing of the request changes any more; and what
//! an answer says of nonces. A route whose token is a plain bearer costs one look.

use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::challenge;
use super::{Refusal, RequestBody, Route};
use crate::upstream::Endpoint;

const DPOP: HeaderName = HeaderName::from_static("dpop");
const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// Sets a proof of its own for this sending.
#[inline]
pub(super) fn prove(
    route: &Route,
    endpoint: Option<&Endpoint<RequestBody>>,
    head: &mut Parts,
) -> Result<(), Refusal> {
    let Some(token) = &route.token else { return Ok(()) };
    let reader = token.borrow();
    let Some(prover) = reader.extras().and_then(|extras| extras.prover.as_ref()) else { return Ok(()) };
    let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let tls = endpoint.map_or_else(|| route.upstream.connector().is_tls(), Endpoint::is_tls);
    let path = match head.uri.path() {
        "" | "*" => "/",
        path => path,
    };
    let target = [if tls { "https" } else { "http" }, "://", host, path];
    let proof = prover.prove(head.method.as_str(), &target, reader.nonces(), place(endpoint));
    head.headers.insert(DPOP, proof.ok_or(Refusal::Overloaded)?);
    Ok(())
}

/// Takes the nonce of an answer. Whether the upstream turned the request away for the want of it.
#[inline]
pub(super) fn asks_nonce<B>(
    route: &Route,
    endpoint: Option<&Endpoint<RequestBody>>,
    answer: &Response<B>,
) -> bool {
    let Some(token) = &route.token else { return false };
    let reader = token.borrow();
    if reader.extras().is_none_or(|extras| extras.prover.is_none()) {
        return false;
    }
    let given = answer.headers().get(DPOP_NONCE);
    given.is_some_and(|nonce: &HeaderValue| reader.nonces().note(place(endpoint), nonce))
        && answer.status() == StatusCode::UNAUTHORIZED
        && challenge::asks_nonce(answer.headers())
}

/// Of the origin among those of the upstream.
fn place(endpoint: Option<&Endpoint<RequestBody>>) -> usize {
    endpoint.map_or(0, Endpoint::origin_place)
}
