//! A request from its head to its answer.
//!
//! Owns: the order of work. Credentials are injected last, after everything that could remove them.

use std::rc::Rc;

use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body;
use tokio::time::Instant;

use super::admit::{self, Admitted};
use super::again::Again;
use super::answer::{Forwarded, options, refuse, relay};
use super::authenticate::authenticate;
use super::backward::Backward;
use super::body::drain;
use super::bound;
use super::edit::{edit, strip};
use super::exchange::exchange;
use super::inject;
use super::no_token::wait_for_token;
use super::note::note_request;
use super::pick;
use super::target::target;
use super::throttle::{self, refuse_exceeding};
use super::users::Translation;
use super::{Client, ClientBody, Identity, Refusal, RequestBody, ResponseBody, Route, Site, egress, stream};
use crate::http1::keep_fields;
use crate::telemetry::access::Use;

const CHUNKED: HeaderValue = HeaderValue::from_static("chunked");

/// Serves one request.
pub async fn handle<B>(site: Rc<Site>, client: Rc<Client>, request: Request<B>) -> Response<ResponseBody>
where
    B: Body + Into<ClientBody>,
{
    let began = client.request_begun();
    let admitted = match client.take_malformed() {
        None if site.egress.is_some() => egress::admit(&site, &client, &request).await,
        None => admit::admit(&site, &client, &request),
        Some(malformed) => Err(malformed.into()),
    };
    let id = site.identity.ids.of(request.headers());
    let (route, path) = match admitted {
        Ok(Admitted::Forward(route, path)) => (route, path),
        Ok(Admitted::Options) => {
            note_request(&site, None, &client, &request, &id, began);
            return options(&site, &client, began);
        }
        // Boxed: what is forwarded does not carry it.
        Ok(Admitted::Local(local)) => {
            note_request(&site, None, &client, &request, &id, began);
            return Box::pin(egress::answer(&site, &client, request, local, (id, began))).await;
        }
        Err(refusal) => {
            note_request(&site, None, &client, &request, &id, began);
            refuse_body(&client, request);
            return refuse(&refusal, &id, &site.unrouted, &client, began);
        }
    };
    let route = &route;
    note_request(&site, Some(route), &client, &request, &id, began);
    if let Some(gate) = route.gate.as_ref().filter(|_| !route.of_forward_proxy)
        && let Err(refusal) = authenticate(gate, &client, request.headers(), false).await
    {
        refuse_body(&client, request);
        return refuse(&refusal, &id, &route.counters, &client, began);
    }
    let told = match throttle::admit(route.limits.as_deref(), &client, request.headers()) {
        Ok(pass) => {
            if pass.held.iter().any(Option::is_some) {
                client.hold(pass.held);
            }
            pass.told
        }
        Err(exceeded) => {
            refuse_body(&client, request);
            return refuse_exceeding(&exceeded, &id, &route.counters, &client, began);
        }
    };
    if let Some(limit) = route.max_body
        && request.body().size_hint().lower() > limit
    {
        refuse_body(&client, request);
        return refuse(&Refusal::BodyTooLarge, &id, &route.counters, &client, began);
    }
    let route = match &route.picks {
        None => route,
        Some(picks) => match pick::pick(route, picks, &client, request.headers()) {
            Ok(route) => route,
            Err(refusal) => {
                refuse_body(&client, request);
                return refuse(&refusal, &id, &route.counters, &client, began);
            }
        },
    };
    if let Some(users) = &route.users {
        let translated = translated(&site.identity, route, users, client, request, path, (id, began));
        let mut answer = Box::pin(translated).await;
        if let Some(told) = told {
            told.set(answer.headers_mut());
        }
        return answer;
    }
    client.record(|record| record.labels(&route.labels));
    let (mut head, body) = request.into_parts();
    let mut answer = match forward(&site.identity, route, &client, (&mut head, body), path, &id).await {
        Ok(answer) => relay(&site.identity, route, &client, answer, &id, began),
        Err(refusal) => {
            route.counters.errors.increment();
            refuse(&refusal, &id, &route.counters, &client, began)
        }
    };
    if let Some(told) = told {
        told.set(answer.headers_mut());
    }
    answer
}

/// The same with the token of the user who sends it.
async fn translated<B>(
    identity: &Identity,
    route: &Route,
    users: &Translation,
    client: Rc<Client>,
    request: Request<B>,
    path: Option<String>,
    (id, began): (HeaderValue, Instant),
) -> Response<ResponseBody>
where
    B: Body + Into<ClientBody>,
{
    let user = match users.user(identity, route, &client, request.headers()).await {
        Ok(user) => user,
        Err(refusal) => {
            refuse_body(&client, request);
            return refuse(&refusal, &id, &route.counters, &client, began);
        }
    };
    let (mut head, body) = request.into_parts();
    match forward(identity, &user.route, &client, (&mut head, body), path, &id).await {
        Ok(answer) => {
            users.answered(&user, answer.answer.response.status());
            relay(identity, &user.route, &client, answer, &id, began)
        }
        Err(refusal) => {
            route.counters.errors.increment();
            refuse(&refusal, &id, &route.counters, &client, began)
        }
    }
}

/// A body whose sender waits to be asked for it is not asked for, and what comes behind a CONNECT may be meant for the tunnel
/// (RFC 9931): the connection ends. Any other is taken, within limits.
pub(super) fn refuse_body<B: Into<ClientBody>>(client: &Client, request: Request<B>) {
    let (head, body) = request.into_parts();
    refuse_body_of(client, &head, body);
}

fn refuse_body_of<B: Into<ClientBody>>(client: &Client, head: &Parts, body: B) {
    if head.headers.contains_key(header::EXPECT) || head.method == Method::CONNECT {
        client.unasked();
    } else {
        drain(body.into());
    }
}

/// Strips, forwards, injects, sends.
async fn forward<B>(
    identity: &Identity,
    route: &Route,
    client: &Rc<Client>,
    (head, incoming): (&mut Parts, B),
    path: Option<String>,
    id: &HeaderValue,
) -> Result<Forwarded, Refusal>
where
    B: Body + Into<ClientBody>,
{
    if head.version == Version::HTTP_2 {
        stream::fold(&mut head.headers);
    }
    let (seen, asked) = strip(identity, route, client, head, incoming.is_end_stream())?;
    let called = route.backward.as_ref().map(|_| Backward::called(client, head));
    let (mut injected, mut generation) = (None, 0);
    if let Some(token) = &route.token {
        let authorized = token.borrow_mut().authorize(identity.clock.boot());
        let (bearer, of) = match authorized {
            Ok(token) => token,
            Err(unavailable) => match Box::pin(wait_for_token(identity, route, token, unavailable)).await {
                Ok(token) => token,
                Err(refusal) => {
                    client.record(|record| record.used(Use::Unavailable));
                    refuse_body_of(client, head, incoming);
                    return Err(refusal);
                }
            },
        };
        client.record(|record| record.used(Use::Sent));
        generation = of;
        injected = Some(bearer);
    }
    let added = edit(identity, route, client, id, seen, head);
    if let Some(target) = target(route, &head.uri, path)? {
        head.uri = target;
    }
    head.extensions = http::Extensions::new();
    let (body, flow) = if incoming.is_end_stream() {
        (RequestBody::Empty, None)
    } else {
        if incoming.size_hint().exact().is_none() {
            head.headers.insert(header::TRANSFER_ENCODING, CHUNKED);
        }
        let expect = seen.expect && head.version == Version::HTTP_11;
        if is_conversation(head) {
            client.unhurried();
        }
        let (body, flow) = RequestBody::streaming(incoming.into(), Rc::clone(client), route, expect);
        (body, Some(flow))
    };
    head.version = Version::HTTP_11;
    if let Some(asked) = &asked {
        asked.set(&mut head.headers);
    }
    // Where the token goes into it, as it was before.
    let target = route.token.as_ref().filter(|token| inject::is_in_target(token)).map(|_| head.uri.clone());
    if let (Some(bearer), Some(token)) = (injected, &route.token) {
        inject::inject(token, bearer, &mut head.headers, &mut head.uri)?;
    }
    if route.token.is_none() && bound::authenticates(&head.headers) {
        client.binding.begin();
    }
    if seen.expect
        && let Some(interims) = client.interims()
    {
        interims.expect();
    }
    let beside = added.beside();
    let mut answer =
        exchange(route, client, (&mut *head, beside), body, flow.as_ref(), asked.as_deref()).await?;
    if answer.response.status() == StatusCode::UNAUTHORIZED && route.token.is_some() {
        let mut again = Again { identity, route, client, head, beside, target, flow: flow.as_ref() };
        // Boxed: an answer that is relayed does not carry it.
        answer = Box::pin(again.refused(answer, generation)).await?;
    }
    keep_fields(std::mem::take(&mut head.headers));
    Ok(Forwarded { answer, flow, asked, called })
}

/// Whether the body of a request may come piece by piece over a long time: messages of gRPC.
fn is_conversation(head: &Parts) -> bool {
    let kind = head.headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::bench::Heads;

    #[test]
    fn what_each_request_moves_is_small() {
        let (site, client) = Heads::for_tests().into_parts();
        let size = size_of_val(&handle(site, client, Request::new(ClientBody::Empty)));
        assert!(size <= 3072, "{size}");
    }
}
