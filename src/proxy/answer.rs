//! From the head of an upstream's answer, or in its place, to what the client gets.
//!
//! Owns: what of an answer passes, and switching protocols. Of an upstream's 1xx only a 101 that was asked for comes here.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header};
use tokio::time::Instant;

use super::answer_body::Exchange;
use super::asked::{self, Asked};
use super::backward::Called;
use super::body::Flow;
use super::client::Switched;
use super::exchange::Answer;
use super::{Client, Identity, Refusal, RequestBody, ResponseBody, Route, Site, headers};
use crate::telemetry::counters::RouteCounters;
use crate::upstream::Lease;

/// An exchange whose answer is to be passed on.
pub(super) struct Forwarded {
    pub(super) answer: Answer,
    pub(super) flow: Option<Rc<Flow>>,
    pub(super) asked: Option<Box<Asked>>,
    /// How the client called the listener, where the answer is told in its terms.
    pub(super) called: Option<Box<Called>>,
}

/// Passes an answer on.
pub(super) fn relay(
    identity: &Identity,
    route: &Route,
    client: &Rc<Client>,
    forwarded: Forwarded,
    id: &HeaderValue,
    began: Instant,
) -> Response<ResponseBody> {
    let Forwarded { answer: Answer { response, mut lease, at, .. }, flow, asked, called } = forwarded;
    let (mut head, mut incoming) = response.into_parts();
    // From here on the two sides may be in conversation.
    client.unhurried();
    if head.status.is_informational() {
        return switch(identity, route, client, head, lease, asked, (id, began));
    }
    let trailers = asked.is_some_and(|asked| asked.trailers);
    if let Err(refusal) = clean(identity, route, &mut head, &mut lease, trailers) {
        route.counters.errors.increment();
        return refuse(&refusal, id, &route.counters, client, began);
    }
    if let (Some(backward), Some(called)) = (&route.backward, &called) {
        backward.translate(called, &mut head.headers);
    }
    if route.of_forward_proxy {
        // RFC 9110, 7.6.3: a proxy's duty; a gateway need not say it of itself.
        head.headers.append(header::VIA, identity.via(head.version).clone());
    }
    head.version = Version::HTTP_11;
    head.extensions = http::Extensions::new();
    let exchange = Exchange {
        client: Rc::clone(client),
        counters: Arc::clone(&route.counters),
        status: head.status.as_u16(),
        began,
    };
    let idle = route.timeouts.response_idle;
    if flow.as_ref().is_some_and(|flow| flow.is_held()) {
        // RFC 9110, 10.1.1: the body is never asked for, and its sender may send it or not.
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let body = if lease.is_idle() {
        client.binding.release(lease, at);
        ResponseBody::arrived(incoming, exchange)
    } else if flow.as_ref().is_some_and(|flow| !flow.ended() && !flow.refuse_if_held()) {
        lease.detach(&mut incoming);
        ResponseBody::arriving(incoming, None, idle, exchange)
    } else if incoming.is_end_stream() {
        // Something lies behind an answer that has no body: the connection is closed.
        drop(lease);
        ResponseBody::arrived(incoming, exchange)
    } else {
        ResponseBody::arriving(incoming, Some(lease), idle, exchange)
    };
    Response::from_parts(head, body)
}

/// Whether what follows this answer on its connection cannot be trusted, or is no place for a request of ours: RFC 9112,
/// 6.3, and who speaks HTTP/1.0 reads no chunks.
pub(super) fn is_last_of_connection(version: Version, headers: &HeaderMap) -> bool {
    version < Version::HTTP_11
        || (headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH))
}

/// The upstream switches protocols: so do we, if it was asked to and the protocol was offered. The exchange ends with
/// the 101, so what is measured of it is the handshake and not the tunnel.
#[cold]
fn switch(
    identity: &Identity,
    route: &Route,
    client: &Rc<Client>,
    mut head: http::response::Parts,
    mut lease: Lease<RequestBody>,
    asked: Option<Box<Asked>>,
    (id, began): (&HeaderValue, Instant),
) -> Response<ResponseBody> {
    let granted = asked.and_then(|asked| asked.granted(&head.headers));
    let granted = clean(identity, route, &mut head, &mut lease, false).ok().and(granted);
    let (Some(protocol), Some(upstream)) = (granted, lease.into_upgraded()) else {
        route.counters.errors.increment();
        return refuse(&Refusal::UnsolicitedUpgrade, id, &route.counters, client, began);
    };
    client.switch_to(Switched::Upgraded(upstream));
    let exchange = Exchange {
        client: Rc::clone(client),
        counters: Arc::clone(&route.counters),
        status: head.status.as_u16(),
        began,
    };
    let mut answer = Response::new(ResponseBody::full(Bytes::new(), exchange));
    *answer.status_mut() = head.status;
    *answer.headers_mut() = head.headers;
    // RFC 9110, 8.6: a 101 has no length.
    answer.headers_mut().remove(header::CONTENT_LENGTH);
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    answer.headers_mut().insert(header::UPGRADE, protocol);
    answer
}

/// Removes from an answer what does not pass, and edits it. `trailers`: the client takes trailers.
fn clean(
    identity: &Identity,
    route: &Route,
    head: &mut http::response::Parts,
    lease: &mut Lease<RequestBody>,
    trailers: bool,
) -> Result<(), Refusal> {
    let mut remove = identity.scratch.take();
    remove.clear();
    let framing = headers::judge_answer(&head.headers, &mut remove)?;
    let bodiless = head.status == StatusCode::NO_CONTENT;
    if framing.length.is_some_and(|length| framing.chunked || (bodiless && length > 0))
        || (bodiless && framing.chunked)
        || head.version < Version::HTTP_11
    {
        // See `is_last_of_connection`.
        lease.retire();
    }
    // Over HTTP/1.1 only a chunked answer has trailers; over HTTP/2 any may.
    let may_trail = framing.chunked || (head.version == Version::HTTP_2 && framing.length.is_none());
    let declared = if trailers && may_trail { asked::declared(&head.headers) } else { None };
    for name in remove.drain(..) {
        head.headers.remove(name);
    }
    identity.scratch.replace(remove);
    if framing.unplain
        && !framing.chunked
        && let Some(length) = framing.length
    {
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if let Some(declared) = declared {
        head.headers.insert(header::TRAILER, declared);
    }
    for name in &route.response_headers.remove {
        head.headers.remove(name);
    }
    for (name, value) in &route.response_headers.set {
        head.headers.insert(name.clone(), value.clone());
    }
    for (name, value) in &route.response_headers.add {
        head.headers.append(name.clone(), value.clone());
    }
    Ok(())
}

/// Answers in the upstream's place.
pub(super) fn refuse(
    refusal: &Refusal,
    id: &HeaderValue,
    counters: &Arc<RouteCounters>,
    client: &Rc<Client>,
    began: Instant,
) -> Response<ResponseBody> {
    let (mut head, body) = refusal.answer(id).into_parts();
    if client.is_unasked() {
        // RFC 9110, 10.1.1: its sender may send the body or not.
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    client.record(|record| {
        let (slug, error) = refusal.words();
        record.refused(slug, error);
    });
    let exchange = Exchange {
        client: Rc::clone(client),
        counters: Arc::clone(counters),
        status: head.status.as_u16(),
        began,
    };
    Response::from_parts(head, ResponseBody::full(body, exchange))
}

/// `OPTIONS *` and the last hop of `Max-Forwards`.
pub(super) fn options(site: &Site, client: &Rc<Client>, began: Instant) -> Response<ResponseBody> {
    let exchange =
        Exchange { client: Rc::clone(client), counters: Arc::clone(&site.unrouted), status: 204, began };
    let mut answer = Response::new(ResponseBody::full(Bytes::new(), exchange));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let allow = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    answer.headers_mut().insert(header::ALLOW, allow);
    answer
}
