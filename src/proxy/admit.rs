//! Before anything is forwarded: authority, target, route, browser, method.
//!
//! Owns: the checks that need no upstream. Changes nothing of the request.

use std::borrow::Cow;
use std::rc::Rc;

use http::{HeaderMap, HeaderName, Method, Request, Version, header};

use super::egress::Local;
use super::headers::{is_alias_of, parse_length};
use super::{Client, Refusal, Route, Site, stream};
use crate::policy::browser;
use crate::route::authority::Authority;
use crate::route::path;
use crate::route::table::Match;

/// Fields by which a client asks for another method than the one in the request line.
const METHOD_OVERRIDES: [HeaderName; 3] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];

/// A request that may go on.
#[derive(Debug)]
pub(super) enum Admitted {
    /// To this route, with this path in place of its own where it differs.
    Forward(Rc<Route>, Option<String>),
    /// `OPTIONS` for the proxy itself (RFC 9110, 9.3.7 and 7.6.2).
    Options,
    /// An egress listener answers it.
    Local(Local),
}

/// Judges a request.
pub(super) fn admit<B>(site: &Site, client: &Client, request: &Request<B>) -> Result<Admitted, Refusal> {
    let method = request.method();
    if method == Method::CONNECT {
        return Err(Refusal::NoTunnel);
    }
    judge_form(client, request)?;
    let uri = request.uri();
    let authority = authority_of(client, request)?;
    let raw_path = uri.path();
    if raw_path == "*" && method == Method::OPTIONS {
        return match site.table.find(authority.as_ref(), client.link.local_ip, "/", method) {
            Match::Misdirected => Err(Refusal::Misdirected),
            _ => Ok(Admitted::Options),
        };
    }
    let path = path::normalize(raw_path)?;
    let index = match site.table.find(authority.as_ref(), client.link.local_ip, &path, method) {
        Match::Route(index) => index,
        Match::Misdirected => return Err(Refusal::Misdirected),
        Match::NotFound => return Err(Refusal::NoRoute),
        Match::MethodNotAllowed(allowed) => return Err(Refusal::MethodNotAllowed(allowed.to_vec())),
    };
    let proven = site.routes[index].gate.as_ref().is_some_and(|gate| gate.wants_a_field());
    if !proven && !browser::admits(request.headers(), &site.allowed_origins) {
        return Err(Refusal::ForeignOrigin);
    }
    let route = &site.routes[index];
    if !route.restricts_methods.is_empty() {
        overrides_allowed(request.headers(), &route.restricts_methods)?;
    }
    if method == Method::OPTIONS && max_forwards(request.headers()) == Some(0) {
        return Ok(Admitted::Options);
    }
    let rest = path.get(route.path_prefix.len()..).unwrap_or_default();
    if !path::stays_inside(rest) {
        return Err(path::PathError::Escapes.into());
    }
    let is_this = |read: &str| {
        site.table.find(authority.as_ref(), client.link.local_ip, read, method) == Match::Route(index)
    };
    if !path::is_odd(&route.path_prefix) && !path::is_read_alike(&path, is_this) {
        return Err(path::PathError::Ambiguous.into());
    }
    let path = match (&route.rewrite_prefix, path) {
        (Some(prefix), path) => Some(join(prefix, &path[route.path_prefix.len()..])),
        (None, Cow::Owned(path)) => Some(path),
        (None, Cow::Borrowed(_)) => None,
    };
    Ok(Admitted::Forward(Rc::clone(route), path))
}

/// What holds for a request wherever it is to go: its method, its fields over HTTP/2, its length.
pub(super) fn judge_form<B>(client: &Client, request: &Request<B>) -> Result<(), Refusal> {
    // RFC 9110, 9.3.8: an answer to TRACE would show the injected credential. Some servers do not heed the case.
    let method = request.method().as_str();
    if method.eq_ignore_ascii_case("TRACE") || method.eq_ignore_ascii_case("TRACK") {
        return Err(Refusal::MethodNotAllowed(Vec::new()));
    }
    if request.version() == Version::HTTP_2 {
        stream::judge(request, client.link.limits.header_count)?;
    }
    let longest = client.link.limits.uri_bytes;
    if request.uri().path_and_query().is_some_and(|target| target.as_str().len() > longest) {
        return Err(Refusal::UriTooLong);
    }
    Ok(())
}

/// The one authority of a request: of an absolute-form target, else of the Host field (RFC 9112, 3.2).
fn authority_of<'r, B>(client: &Client, request: &'r Request<B>) -> Result<Option<Authority<'r>>, Refusal> {
    let host = host_field(request)?;
    match authority_of_target(client, request)? {
        Some(text) => {
            let authority = Authority::parse(text).ok_or(Refusal::BadHost)?;
            // RFC 9113, 8.3.1: they must not differ.
            let differs = |host: Authority<'_>| request.version() == Version::HTTP_2 && host != authority;
            if host.is_some_and(differs) { Err(Refusal::BadHost) } else { Ok(Some(authority)) }
        }
        None => Ok(host),
    }
}

/// The one Host field.
pub(super) fn host_field<B>(request: &Request<B>) -> Result<Option<Authority<'_>>, Refusal> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => {
            let text = host.to_str().map_err(|_| Refusal::BadHost)?;
            Ok(Some(Authority::parse(text).ok_or(Refusal::BadHost)?))
        }
        (None, _) if request.version() == Version::HTTP_10 => Ok(None),
        (None, _) if request.version() == Version::HTTP_2 && request.uri().authority().is_some() => Ok(None),
        _ => Err(Refusal::BadHost),
    }
}

fn authority_of_target<'r, B>(client: &Client, request: &'r Request<B>) -> Result<Option<&'r str>, Refusal> {
    let uri = request.uri();
    match uri.scheme_str() {
        None if uri.authority().is_none() => Ok(None),
        // Over HTTP/2 it says how the client reached whoever ended its TLS.
        Some("https") if request.version() == Version::HTTP_2 => {
            Ok(uri.authority().map(http::uri::Authority::as_str))
        }
        Some("http") => Ok(uri.authority().map(http::uri::Authority::as_str)),
        // RFC 9110, 7.4: over cleartext only a trusted gateway may ask for it.
        Some("https") if client.may_say_https() => Ok(uri.authority().map(http::uri::Authority::as_str)),
        _ => Err(Refusal::BadScheme),
    }
}

/// A method that a client asks for by a field is judged as the method.
pub(super) fn overrides_allowed(headers: &HeaderMap, allowed: &[Method]) -> Result<(), Refusal> {
    let overrides = |name: &HeaderName| {
        let text = name.as_str();
        text.starts_with('x')
            && METHOD_OVERRIDES.iter().any(|own| own == name || is_alias_of(text, own.as_str()))
    };
    for (_, value) in headers.iter().filter(|(name, _)| overrides(name)) {
        let wanted = value.as_bytes().trim_ascii();
        if !allowed.iter().any(|method| method.as_str().as_bytes().eq_ignore_ascii_case(wanted)) {
            return Err(Refusal::MethodNotAllowed(allowed.to_vec()));
        }
    }
    Ok(())
}

/// `Max-Forwards`, where it is a number: of several the smallest.
pub(super) fn max_forwards(headers: &HeaderMap) -> Option<u64> {
    let hops = headers.get_all(header::MAX_FORWARDS).iter();
    hops.map(|hops| parse_length(hops.as_bytes())).collect::<Option<Vec<_>>>()?.into_iter().min()
}

/// Puts `prefix` before `rest` with exactly one slash where they meet.
pub(super) fn join(prefix: &str, rest: &str) -> String {
    match (prefix.ends_with('/'), rest.strip_prefix('/')) {
        (true, Some(rest)) => [prefix, rest].concat(),
        (false, None) if !rest.is_empty() => [prefix, "/", rest].concat(),
        _ => [prefix, rest].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_joined_with_one_slash() {
        let check = |prefix: &str, rest: &str, expected: &str| assert_eq!(join(prefix, rest), expected);
        check("/api/", "a", "/api/a");
        check("/api/", "/a", "/api/a");
        check("/api", "a", "/api/a");
        check("/api", "/a", "/api/a");
        check("/api", "", "/api");
        check("/", "", "/");
        check("/", "/a/b", "/a/b");
    }
}
