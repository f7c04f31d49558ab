//! From a request on a socket to the part that answers it; the faults' times and breaks.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::json;

use super::fault::Fault;
use super::form::Form;
use super::log::Outcome;
use super::refusal::Refusal;
use super::server::{Body, Connection, Dropped, full};
use super::token::Authority;
use super::{Idp, Shared, answer, control, echo, vendor};

/// The largest body that the authorization server reads.
const MAX_BODY: usize = 1024 * 1024;

/// One request to the authorization server.
pub(super) async fn authority(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    connection: Connection,
) -> Result<Response<Body>, Dropped> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|_| Dropped)?.to_bytes();
    let request = Request::from_parts(head, body);
    // A task of its own: a client that goes away does not undo its request.
    let requests = shared.requests.clone();
    let task = {
        let shared = shared.clone();
        requests.spawn("idp request", async move {
            tokio::select! {
                () = shared.requests.begun() => Err(Dropped),
                answer = routed(&shared, request, &connection) => answer,
            }
        })
    };
    let answer = task.await.map_err(|_| Dropped)??;
    Ok(dated(&shared, answer))
}

async fn routed(
    shared: &Shared,
    request: Request<Bytes>,
    connection: &Connection,
) -> Result<Response<Body>, Dropped> {
    let path = request.uri().path();
    if let Some(rest) = path.strip_prefix(Idp::CONTROL_PREFIX) {
        return Ok(control::respond(shared, request.method(), rest, request.headers(), request.body()));
    }
    match (request.method(), path) {
        (&Method::POST, Idp::TOKEN_PATH) => match read_form(&request) {
            Ok(form) => token(shared, request.headers(), form, false, connection).await,
            Err(refusal) => Ok(refusal.response()),
        },
        (&Method::POST, Idp::VENDOR_PATH) => match vendor::read(request.body()) {
            Ok(form) => token(shared, request.headers(), form, true, connection).await,
            Err(refusal) => Ok(refusal.response()),
        },
        (&Method::POST, "/oauth2/v1/introspect") => Ok(introspect(shared, &request)),
        (&Method::POST, "/oauth2/v1/revoke") => Ok(revoke(shared, &request)),
        (&Method::GET, "/.well-known/openid-configuration" | "/.well-known/oauth-authorization-server") => {
            Ok(metadata(shared))
        }
        (_, Idp::TOKEN_PATH) => Ok(plain(StatusCode::METHOD_NOT_ALLOWED, "the token endpoint takes POST\n")),
        _ => Ok(plain(StatusCode::NOT_FOUND, "not found\n")),
    }
}

async fn token(
    shared: &Shared,
    headers: &HeaderMap,
    form: Form,
    vendor: bool,
    connection: &Connection,
) -> Result<Response<Body>, Dropped> {
    let faults = shared.faults.take();
    let number = shared.authority().arrived(headers, &form);
    shared.arrived.send_replace(number);
    let ended = |outcome: Outcome| shared.authority().log.end(number, outcome);

    if let Some(early) = before(&faults).await {
        ended(Outcome::NotProcessed);
        return early;
    }
    let (outcome, answer) = shared.authority().token(headers, &form);
    ended(outcome);
    after(&faults, connection).await?;
    let fixed = faults.iter().find_map(|fault| match fault {
        Fault::Answer(fixed) => Some(answer::fixed(fixed)),
        _ => None,
    });
    Ok(match (fixed, answer) {
        (Some(fixed), _) => fixed,
        (None, Ok(fields)) if vendor => json_answer(&vendor::answer(fields)),
        (None, Ok(fields)) => answer::success(fields, &faults),
        (None, Err(refusal)) => refusal.response(),
    })
}

/// What happens before a request is processed, and instead.
async fn before(faults: &[Fault]) -> Option<Result<Response<Body>, Dropped>> {
    for fault in faults {
        match fault {
            Fault::DelayBefore(by) => tokio::time::sleep(*by).await,
            Fault::HangBefore => std::future::pending().await,
            Fault::DropBefore => return Some(Err(Dropped)),
            Fault::Answer(fixed) if !fixed.processed => return Some(Ok(answer::fixed(fixed))),
            _ => {}
        }
    }
    None
}

/// What happens between processing and answering.
async fn after(faults: &[Fault], connection: &Connection) -> Result<(), Dropped> {
    for fault in faults {
        match fault {
            Fault::DelayAfter(by) => tokio::time::sleep(*by).await,
            Fault::HangAfter => std::future::pending().await,
            Fault::DropAfter => return Err(Dropped),
            Fault::CutAfter(bytes) => connection.cut_after(*bytes),
            _ => {}
        }
    }
    Ok(())
}

fn read_form(request: &Request<Bytes>) -> Result<Form, Refusal> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let essence = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(Refusal::invalid_request("The content type is not application/x-www-form-urlencoded."));
    }
    Ok(Form::decode(request.body()))
}

fn revoke(shared: &Shared, request: &Request<Bytes>) -> Response<Body> {
    let revoke = |form| shared.authority().revoke(request.headers(), &form);
    match read_form(request).and_then(revoke) {
        Ok(()) => plain(StatusCode::OK, ""),
        Err(refusal) => refusal.response(),
    }
}

fn introspect(shared: &Shared, request: &Request<Bytes>) -> Response<Body> {
    let introspect = |form| Authority::introspect(&mut shared.authority(), request.headers(), &form);
    match read_form(request).and_then(introspect) {
        Ok(value) => json_answer(&value),
        Err(refusal) => refusal.response(),
    }
}

/// RFC 8414 2 and OpenID Connect Discovery 3, as far as a token client reads them.
fn metadata(shared: &Shared) -> Response<Body> {
    let base = &shared.base_url;
    json_answer(&json!({
        "issuer": shared.issuer,
        "token_endpoint": format!("{base}{}", Idp::TOKEN_PATH),
        "revocation_endpoint": format!("{base}/oauth2/v1/revoke"),
        "introspection_endpoint": format!("{base}/oauth2/v1/introspect"),
        "grant_types_supported": [
            "refresh_token", "client_credentials", "password", "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ],
        "token_endpoint_auth_methods_supported": [
            "client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt", "none",
        ],
        "token_endpoint_auth_signing_alg_values_supported": ["RS256", "PS256", "ES256", "ES384", "EdDSA", "HS256"],
        "scopes_supported": ["urn:opc:idm:__myscopes__", "urn:opc:resource:expiry", "offline_access"],
        "response_types_supported": [],
    }))
}

/// One request to the echo API.
pub(super) async fn api(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    connection: Connection,
) -> Result<Response<Body>, Dropped> {
    let token = echo::bearer(request.headers());
    // The token is judged when its request comes, not when a long body has ended.
    let authorized = token.as_ref().is_some_and(|token| {
        let authority = shared.authority();
        authority.ledger.live_access_token(authority.clock.boot(), token.fingerprint()).is_some()
    });
    let received = echo::Received::read(request).await.ok_or(Dropped)?;
    let fingerprint = token.as_ref().map(crate::secret::Secret::fingerprint);
    shared.api().add(received.seen(connection.id, fingerprint, authorized));
    let answer = if authorized {
        echo::respond(&received, connection.id).await
    } else {
        echo::unauthorized(token.is_some())
    };
    Ok(dated(&shared, answer))
}

/// Adds `Date` by the server's own clock.
fn dated(shared: &Shared, mut response: Response<Body>) -> Response<Body> {
    let millis = u64::try_from(shared.authority().wall().millis()).unwrap_or(0);
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(millis);
    if let Ok(value) = HeaderValue::from_str(&httpdate::fmt_http_date(time)) {
        response.headers_mut().entry(header::DATE).or_insert(value);
    }
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, "text/plain");
    response.body(full(text)).expect("static headers are valid")
}

fn json_answer(value: &serde_json::Value) -> Response<Body> {
    let response = Response::builder().header(header::CONTENT_TYPE, "application/json");
    response.body(full(value.to_string())).expect("static headers are valid")
}
