//! Who may change something through the admin listener.
//!
//! Owns: the token check, the same-origin check and the check against DNS rebinding. Fails closed.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, header};

use super::api::problem;
use crate::secret::Secret;

/// How the admin listener is reached and what opens it.
#[derive(Debug, Clone)]
pub struct Access {
    /// A Unix socket: its file modes decide who may connect.
    pub unix: bool,
    /// `admin.token`.
    pub token: Option<Secret>,
}

/// Lets a request through or answers it.
pub async fn guard(State(access): State<Access>, request: Request, next: Next) -> Response {
    match judge(&access, request.method(), request.headers(), request.uri().host()) {
        Ok(()) => next.run(request).await,
        Err((status, detail)) => {
            let mut answer = problem(status, detail).into_response();
            if status == StatusCode::UNAUTHORIZED {
                let challenge = header::HeaderValue::from_static("Bearer realm=\"bearward admin\"");
                answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            }
            answer
        }
    }
}

fn judge(
    access: &Access,
    method: &Method,
    headers: &HeaderMap,
    uri_host: Option<&str>,
) -> Result<(), (StatusCode, &'static str)> {
    if !access.unix && !host_is_ours(headers, uri_host) {
        return Err((
            StatusCode::MISDIRECTED_REQUEST,
            "the admin listener answers to an address or to localhost only, not to other host names",
        ));
    }
    if from_another_site(headers) {
        return Err((StatusCode::FORBIDDEN, "requests from other sites are refused"));
    }
    if access.unix || matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let Some(token) = &access.token else {
        return Err((
            StatusCode::FORBIDDEN,
            "this call changes something: set `admin.token`, or bind `admin` to a Unix socket (`bind: unix:/run/bearward/admin.sock`)",
        ));
    };
    let shown = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, shown)| Secret::from(shown.trim()));
    match shown {
        Some(shown) if shown == *token => Ok(()),
        _ => Err((
            StatusCode::UNAUTHORIZED,
            "this call changes something: send `Authorization: Bearer <admin.token>`",
        )),
    }
}

/// A page of another site that resolves its own name to this machine still sends its own name as Host.
fn host_is_ours(headers: &HeaderMap, uri_host: Option<&str>) -> bool {
    let host = match uri_host {
        Some(host) => host,
        None => match headers.get(header::HOST).map(|value| value.to_str()) {
            Some(Ok(host)) => host,
            Some(Err(_)) => return false,
            // HTTP/1.0 without Host: no browser does that.
            None => return true,
        },
    };
    let Ok(authority) = host.parse::<http::uri::Authority>() else {
        return false;
    };
    let name = authority.host().trim_end_matches('.');
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    // A name without a dot (a container's, a node's) cannot be one of a foreign site.
    bare.parse::<std::net::IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || !name.contains('.')
        || {
            let lower = name.to_ascii_lowercase();
            lower.ends_with(".localhost")
                || lower.ends_with(".svc")
                || lower.ends_with(".internal")
                || lower.ends_with(".local")
        }
}

fn from_another_site(headers: &HeaderMap) -> bool {
    let fetch_site = headers.get("sec-fetch-site").map(|value| value.as_bytes());
    if fetch_site.is_some_and(|site| site == b"cross-site" || site == b"same-site") {
        return true;
    }
    match (headers.get(header::ORIGIN), headers.get(header::HOST)) {
        (None, _) => false,
        (Some(origin), Some(host)) => {
            let origin = origin.as_bytes();
            let host = host.as_bytes();
            ![&b"http://"[..], b"https://"].iter().any(|scheme| {
                origin.strip_prefix(*scheme).is_some_and(|rest| rest.eq_ignore_ascii_case(host))
            })
        }
        (Some(_), None) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn only_the_token_opens_what_changes_something() {
        let check = |token: Option<&str>,
                     unix: bool,
                     method: Method,
                     fields: &[(&'static str, &str)],
                     expected: u16| {
            let access = Access { unix, token: token.map(Secret::from) };
            let status = match judge(&access, &method, &headers(fields), None) {
                Ok(()) => 200,
                Err((status, _)) => status.as_u16(),
            };
            assert_eq!(status, expected, "{method} {fields:?}");
        };
        let host = ("host", "127.0.0.1:9901");
        check(None, false, Method::GET, &[host], 200);
        check(None, false, Method::POST, &[host], 403);
        check(None, true, Method::POST, &[], 200);
        check(Some("t"), false, Method::POST, &[host], 401);
        check(Some("t"), false, Method::POST, &[host, ("authorization", "Bearer t")], 200);
        check(Some("t"), false, Method::POST, &[host, ("authorization", "bearer t")], 200);
        check(Some("t"), false, Method::POST, &[host, ("authorization", "Bearer tt")], 401);
        check(Some("t"), false, Method::POST, &[host, ("authorization", "Basic t")], 401);
        check(Some("t"), false, Method::GET, &[("host", "evil.example.com")], 421);
        check(Some("t"), false, Method::GET, &[host, ("origin", "http://evil.example.com")], 403);
        check(Some("t"), false, Method::GET, &[host, ("origin", "http://127.0.0.1:9901")], 200);
        check(Some("t"), false, Method::GET, &[host, ("sec-fetch-site", "cross-site")], 403);
        check(None, false, Method::GET, &[("host", "localhost")], 200);
        check(None, false, Method::GET, &[("host", "[::1]:9901")], 200);
    }
}
