//! Before anything leaves an egress listener: target, rule, path, method.
//!
//! Owns: the checks that need no upstream. Changes nothing of the request.

use std::borrow::Cow;

use http::{Method, Request, Version, header};

use super::decision::Decision;
use super::{Egress, Local};
use crate::origin::Scheme;
use crate::policy::egress::{Action, Ask, Form, Target, TargetError};
use crate::proxy::admit::{self, Admitted};
use crate::proxy::authenticate::authenticate;
use crate::proxy::{Client, Refusal, Site};
use crate::route::authority::Authority;
use crate::route::path;

/// Judges a request: who sends it comes before where it is to go.
pub(in crate::proxy) async fn admit<B>(
    site: &Site,
    client: &Client,
    request: &Request<B>,
) -> Result<Admitted, Refusal> {
    let Some(egress) = &site.egress else { return Err(Refusal::NoRoute) };
    if let Some(inside) = &client.link.inside {
        return egress.admit_inside(client, inside, request);
    }
    if let Some(gate) = &egress.gate {
        authenticate(gate, client, request.headers(), true).await?;
    }
    judge(egress, client, request)
}

fn judge<B>(egress: &Egress, client: &Client, request: &Request<B>) -> Result<Admitted, Refusal> {
    admit::judge_form(client, request)?;
    let host = admit::host_field(request)?;
    if request.method() == Method::CONNECT {
        return admit_connection(egress, client, request);
    }
    let uri = request.uri();
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return admit_own(egress, request);
    };
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return Err(Refusal::BadScheme),
    };
    let authority = Authority::parse(authority.as_str()).ok_or(Refusal::BadHost)?;
    // RFC 9112, 3.2.2: Host is not heard beside an absolute-form. RFC 9113, 8.3.1: over HTTP/2 they must not differ.
    if request.version() == Version::HTTP_2 && host.is_some_and(|host| host != authority) {
        return Err(Refusal::BadHost);
    }
    let target = Target::of_authority(&authority, scheme)?;
    if uri.path() == "*" {
        return Err(path::PathError::BadCharacter.into());
    }
    let path = path::normalize(uri.path())?;
    let form = match scheme {
        Scheme::Http => Form::Request(request.method(), &path),
        Scheme::Https => Form::SecureRequest(request.method(), &path),
    };
    let caller = client.caller();
    let name = caller.as_ref().map(|caller| &caller.name);
    let ask = Ask { target: &target, client: name, form };
    let (rule, action) = match egress.decide(client, &ask) {
        Decision::Denied(rule) => return Ok(Admitted::Local(Local::Denied(rule))),
        Decision::Rule(rule) if !egress.reads_alike(&ask, rule) => {
            return Err(path::PathError::Ambiguous.into());
        }
        Decision::Rule(rule) => (rule, egress.rules[rule].config.rule.action),
        Decision::Spared if scheme == Scheme::Https => (egress.rules.len() - 1, Action::Upgrade),
        Decision::Spared => (egress.rules.len() - 1, Action::Forward),
    };
    if action == Action::StubTokenEndpoint {
        return Ok(Admitted::Local(Local::Stub(rule)));
    }
    admit_request(egress, request, (rule, action), (&target, scheme), path)
}

/// A request that goes on by a rule.
pub(super) fn admit_request<B>(
    egress: &Egress,
    request: &Request<B>,
    (rule, action): (usize, Action),
    (target, scheme): (&Target, Scheme),
    path: Cow<'_, str>,
) -> Result<Admitted, Refusal> {
    let config = &egress.rules[rule].config;
    let condition = &config.rule.condition;
    if !condition.methods.is_empty() {
        admit::overrides_allowed(request.headers(), &condition.methods)?;
    }
    if request.method() == Method::OPTIONS && admit::max_forwards(request.headers()) == Some(0) {
        return Ok(Admitted::Options);
    }
    let prefix = condition.path_prefix.as_deref().unwrap_or("/");
    if !path::stays_inside(path.get(prefix.len()..).unwrap_or_default()) {
        return Err(path::PathError::Escapes.into());
    }
    let origin = config.origin(action, target, scheme).ok_or(Refusal::BadHost)?;
    let path = match path {
        Cow::Owned(path) => Some(path),
        Cow::Borrowed(_) => None,
    };
    match egress.route(rule, origin) {
        Ok(route) => Ok(Admitted::Forward(route, path)),
        Err(refusal) => Ok(Admitted::Local(Local::Refused(rule, refusal))),
    }
}

/// CONNECT: a way for bytes (RFC 9110, 9.3.6).
fn admit_connection<B>(egress: &Egress, client: &Client, request: &Request<B>) -> Result<Admitted, Refusal> {
    let uri = request.uri();
    // RFC 8441: it asks for another protocol at a resource, not for a way to a host.
    if uri.scheme().is_some() || uri.path_and_query().is_some_and(|path| !path.as_str().is_empty()) {
        return Err(match request.version() {
            Version::HTTP_2 => Refusal::NoTunnel,
            _ => TargetError::NotHostAndPort.into(),
        });
    }
    let text = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let target = Target::parse(text)?;
    // What follows the head belongs to the tunnel: no body may stand between.
    let headers = request.headers();
    let length = headers.get_all(header::CONTENT_LENGTH).iter().any(|length| length.as_bytes() != b"0");
    if length || headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Refusal::BadFraming);
    }
    let caller = client.caller();
    let name = caller.as_ref().map(|caller| &caller.name);
    let ask = Ask { target: &target, client: name, form: Form::Connection };
    Ok(Admitted::Local(match egress.decide(client, &ask) {
        Decision::Denied(rule) => Local::Denied(rule),
        Decision::Rule(rule) => Local::Connection(rule, target),
        Decision::Spared => Local::Connection(egress.rules.len() - 1, target),
    }))
}

/// Origin-form: meant for the proxy itself. There is one page.
fn admit_own<B>(egress: &Egress, request: &Request<B>) -> Result<Admitted, Refusal> {
    let uri = request.uri();
    if uri.path() == "/proxy.pac" && egress.pac && matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(Admitted::Local(Local::Pac));
    }
    if uri.path() == "*" && request.method() == Method::OPTIONS {
        return Ok(Admitted::Options);
    }
    Err(Refusal::OriginForm)
}
