//! The head of a request between the client and the upstream.
//!
//! Owns: what of it does not pass, what is set in its place, and its form when it is sent once more. All but the credential,
//! which comes last.

use std::rc::Rc;

use http::request::Parts;
use http::{HeaderValue, Method, Version, header};
use http_body::Body;

use super::admit::max_forwards;
use super::asked::Asked;
use super::headers::{self, Seen};
use super::inject;
use super::request_id::X_REQUEST_ID;
use super::{Client, Identity, Refusal, RequestBody, Route};
use crate::upstream::{Beside, Prepared};

/// Removes what does not pass. Tells what was asked of the connection itself.
pub(super) fn strip(
    identity: &Identity,
    route: &Route,
    client: &Client,
    head: &mut Parts,
    bodiless: bool,
) -> Result<(Seen, Option<Box<Asked>>), Refusal> {
    let mut remove = identity.scratch.take();
    remove.clear();
    let seen = headers::judge_request(
        &head.headers,
        (route.token.is_some(), client.link.forwarded.peer_is_trusted()),
        client.link.limits.underscores,
        &route.own_names,
        &mut remove,
    );
    let asked = seen.as_ref().ok().and_then(|seen| Asked::of(head, seen, bodiless));
    if let Some(gate) = &route.gate {
        gate.strip(route.of_forward_proxy, &mut remove);
    }
    if let Some(name) = &route.picked_by {
        remove.push(name.clone());
    }
    for name in remove.drain(..) {
        // A field that two lists name is gone already.
        if name != header::HOST {
            head.headers.remove(name);
        }
    }
    identity.scratch.replace(remove);
    let seen = seen?;
    if seen.expect && head.version == Version::HTTP_10 {
        // RFC 9110, 10.1.1.
        head.headers.remove(header::EXPECT);
    }
    if seen.via {
        // RFC 9110, 7.6.3.
        let ours = identity.pseudonym.as_bytes();
        let looped = head.headers.get_all(header::VIA).iter().any(|via| {
            via.as_bytes().split(|byte| matches!(byte, b',' | b' ' | b'\t')).any(|word| word == ours)
        });
        if looped {
            return Err(Refusal::Loop);
        }
    }
    Ok((seen, asked))
}

/// What is sent beside the fields of a head.
#[derive(Debug, Default)]
pub(super) struct Added<'r> {
    prepared: Option<Rc<Prepared>>,
    id: Option<&'r HeaderValue>,
}

impl Added<'_> {
    pub(super) fn beside(&self) -> Beside<'_> {
        Beside { prepared: self.prepared.as_deref(), own: self.id.map(|id| (&X_REQUEST_ID, id)) }
    }
}

/// Sets what the upstream is to see, all but the credential, which is known by now. What needs no look at the head comes beside
/// it.
pub(super) fn edit<'r>(
    identity: &Identity,
    route: &Route,
    client: &Client,
    id: &'r HeaderValue,
    seen: Seen,
    head: &mut Parts,
) -> Added<'r> {
    let headers = &mut head.headers;
    let given = headers.insert(header::HOST, route.host.clone());
    // The authority as the client wrote it, for X-Forwarded-Host and `preserve_host`.
    let asked = match head.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => given,
    };
    if let Some(asked) = asked.as_ref().filter(|_| route.preserve_host) {
        headers.insert(header::HOST, asked.clone());
    }
    let via = identity.via(head.version);
    // Ours comes right behind another's Via.
    let apart = !route.of_forward_proxy
        && !route.edits_ours
        && !seen.via
        && !route.token.as_ref().is_some_and(inject::is_ours);
    let prepared = if apart { client.link.forwarded.prepared(asked.as_ref(), via) } else { None };
    if prepared.is_none() {
        // Whoever is beyond this network learns nothing of the addresses inside it.
        if !route.of_forward_proxy {
            client.link.forwarded.set(headers, asked);
        }
        headers.append(header::VIA, via.clone());
    }
    if let Some(prefix) = &route.forwarded_prefix {
        client.link.forwarded.set_prefix(headers, prefix);
    }
    let own = prepared.is_some() && !seen.request_id;
    if !own {
        headers.insert(X_REQUEST_ID.clone(), id.clone());
    }
    if seen.padded_length
        && let Some(length) =
            headers.get(header::CONTENT_LENGTH).and_then(|value| headers::parse_length(value.as_bytes()))
    {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if head.method == Method::OPTIONS
        && let Some(hops) = max_forwards(headers)
    {
        headers.insert(header::MAX_FORWARDS, HeaderValue::from(hops.saturating_sub(1)));
    }
    for name in &route.request_headers.remove {
        headers.remove(name);
    }
    for (name, value) in &route.request_headers.set {
        headers.insert(name.clone(), value.clone());
    }
    for (name, value) in &route.request_headers.add {
        headers.append(name.clone(), value.clone());
    }
    if let Some(authorization) = route.upstream.connector().proxy_authorization() {
        headers.insert(header::PROXY_AUTHORIZATION, authorization.clone());
    }
    Added { prepared, id: own.then_some(id) }
}

/// Whether sending twice has the effect of sending once (RFC 9110, 9.2.2).
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

/// Makes a head that was sent one for `body`, which is at hand: there is nothing to wait for, and trailers are not kept.
#[cold]
pub(super) fn renew(head: &mut Parts, body: &RequestBody) {
    let headers = &mut head.headers;
    if let Some(length) = body.size_hint().exact()
        && headers.remove(header::TRANSFER_ENCODING).is_some()
    {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    headers.remove(header::TRAILER);
    headers.remove(header::EXPECT);
}
