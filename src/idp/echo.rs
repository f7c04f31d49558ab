//! The API behind the proxy: takes live access tokens only, and says what it received.
//!
//! Never echoes a token: its fingerprint stands for it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::{Value, json};

use super::answer::dripping;
use super::server::{Body, full};
use crate::secret::{Fingerprint, Secret};

/// How much of a body is echoed.
const ECHOED_BODY: usize = 64 * 1024;
/// How many requests are remembered.
const KEPT: usize = 20_000;

/// What the API has seen.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ApiStats {
    /// Requests in all.
    pub requests: u64,
    /// Requests whose token was missing, expired, killed or unknown.
    pub unauthorized: u64,
    /// The latest requests, oldest first.
    pub seen: VecDeque<Seen>,
}

/// One request that the API received.
#[derive(Debug, Clone, Serialize)]
pub struct Seen {
    /// The connection that it came on, from 1.
    pub connection: u64,
    /// Its method.
    pub method: String,
    /// Its path and query.
    pub target: String,
    /// The fingerprint of its bearer token.
    pub token: Option<String>,
    /// Whether the token was good: the request was carried out.
    pub authorized: bool,
    /// Bytes of its body.
    pub body_bytes: usize,
}

impl ApiStats {
    pub(super) fn add(&mut self, seen: Seen) {
        self.requests += 1;
        self.unauthorized += u64::from(!seen.authorized);
        if self.seen.len() == KEPT {
            self.seen.pop_front();
        }
        self.seen.push_back(seen);
    }

    /// How many requests with this method and target were carried out.
    pub fn applied(&self, method: &str, target: &str) -> usize {
        let is_it = |seen: &&Seen| seen.authorized && seen.method == method && seen.target == target;
        self.seen.iter().filter(is_it).count()
    }
}

/// The bearer token of a request (RFC 6750 2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<Secret> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Secret::from(token.trim()))
}

/// A request, read whole; of its body only the beginning is kept.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) head: http::request::Parts,
    pub(super) body: Vec<u8>,
    pub(super) body_bytes: usize,
}

impl Received {
    /// Reads the request; `None` if it breaks off.
    pub(super) async fn read(request: Request<Incoming>) -> Option<Self> {
        let (head, mut incoming) = request.into_parts();
        let (mut body, mut body_bytes) = (Vec::new(), 0);
        while let Some(frame) = incoming.frame().await {
            let Ok(data) = frame.ok()?.into_data() else { continue };
            body_bytes += data.len();
            let room = ECHOED_BODY - body.len();
            body.extend_from_slice(&data[..data.len().min(room)]);
        }
        Some(Self { head, body, body_bytes })
    }

    /// What the statistics keep of it.
    pub(super) fn seen(&self, connection: u64, token: Option<Fingerprint>, authorized: bool) -> Seen {
        Seen {
            connection,
            method: self.head.method.to_string(),
            target: self.head.uri.path_and_query().map_or("*", |target| target.as_str()).to_owned(),
            token: token.map(|token| token.to_string()),
            authorized,
            body_bytes: self.body_bytes,
        }
    }
}

/// 401 as RFC 6750 3 has it: no `error` where no token came.
pub(super) fn unauthorized(had_token: bool) -> Response<Body> {
    let challenge = if had_token {
        "Bearer realm=\"bearward try\", error=\"invalid_token\", error_description=\"The access token is expired, revoked or unknown\""
    } else {
        "Bearer realm=\"bearward try\""
    };
    let body = json!({"error": "invalid_token", "message": "This API takes requests with a live access token only."});
    Response::builder()
        .status(StatusCode::UNAUTHORIZED)
        .header(header::WWW_AUTHENTICATE, challenge)
        .header(header::CONTENT_TYPE, "application/json")
        .body(full(body.to_string() + "\n"))
        .expect("static headers are valid")
}

/// Answers a request whose token was good.
pub(super) async fn respond(received: &Received, connection: u64) -> Response<Body> {
    let mut parts = received.head.uri.path().split('/').skip_while(|part| !HELPERS.contains(part));
    let helper = parts.next().unwrap_or_default();
    let number = parts.next().and_then(|text| text.parse::<u64>().ok());
    match (helper, number) {
        ("status", Some(code)) => with_status(received, code),
        ("delay", Some(millis)) => {
            tokio::time::sleep(Duration::from_millis(millis.min(600_000))).await;
            echo(received, connection)
        }
        ("bytes", Some(count)) => some_bytes(count),
        ("stream", events) => event_stream(received, events.unwrap_or(5)),
        _ => echo(received, connection),
    }
}

/// Path segments that ask for something else than an echo; anywhere in the path, so that prefixes do not matter.
const HELPERS: [&str; 4] = ["status", "delay", "bytes", "stream"];

/// `…/status/418?header=Name:value&header=…`: that status with those headers.
fn with_status(received: &Received, code: u64) -> Response<Body> {
    let code = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
    let mut response = Response::new(full(format!("{{\"status\":{}}}\n", code.unwrap_or_default().as_u16())));
    *response.status_mut() = code.filter(|code| !code.is_informational()).unwrap_or_default();
    for (key, value) in query_pairs(received) {
        let header = value.split_once(':').filter(|_| key == "header");
        if let Some((name, value)) = header
            && let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value.trim()))
        {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// `…/bytes/1000`: so many bytes, the same every time.
fn some_bytes(count: u64) -> Response<Body> {
    const LARGEST: u64 = 64 * 1024 * 1024;
    let count = usize::try_from(count.min(LARGEST)).unwrap_or(0);
    let bytes: Vec<u8> = (b'a'..=b'z').cycle().take(count).collect();
    let response = Response::builder().header(header::CONTENT_TYPE, "application/octet-stream");
    response.body(full(bytes)).expect("static headers are valid")
}

/// `…/stream/5?every=200`: so many server-sent events, so many milliseconds apart.
fn event_stream(received: &Received, events: u64) -> Response<Body> {
    let every =
        query_pairs(received).find(|(key, _)| key == "every").and_then(|(_, value)| value.parse().ok());
    let every = Duration::from_millis(every.unwrap_or(200).min(60_000));
    // Every event has the same length, so that one drop is one event.
    let text: String = (1..=events.min(9_999)).map(|number| format!("data: {number:04}\n\n")).collect();
    Response::builder()
        .header(header::CONTENT_TYPE, "text/event-stream")
        .header(header::CACHE_CONTROL, "no-store")
        .body(dripping(Bytes::from(text), "data: 0001\n\n".len(), every))
        .expect("static headers are valid")
}

fn query_pairs(received: &Received) -> impl Iterator<Item = (String, String)> {
    let query = received.head.uri.query().unwrap_or_default().as_bytes();
    form_urlencoded::parse(query).map(|(key, value)| (key.into_owned(), value.into_owned()))
}

fn echo(received: &Received, connection: u64) -> Response<Body> {
    let head = &received.head;
    let mut headers = serde_json::Map::new();
    for name in head.headers.keys() {
        let mut values: Vec<Value> =
            head.headers.get_all(name).iter().map(|value| shown(name, value)).collect();
        // One value as a text, several as a list.
        let value = if values.len() == 1 { values.remove(0) } else { Value::Array(values) };
        headers.insert(name.as_str().to_owned(), value);
    }
    let body = json!({
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "version": format!("{:?}", head.version),
        "headers": headers,
        "connection": connection,
        "body_bytes": received.body_bytes,
        "body": String::from_utf8_lossy(&received.body),
    });
    let text = serde_json::to_string_pretty(&body).unwrap_or_default() + "\n";
    let response = Response::builder().header(header::CONTENT_TYPE, "application/json");
    response.body(full(text)).expect("static headers are valid")
}

/// A header's value; a secret one by its scheme and fingerprint.
fn shown(name: &HeaderName, value: &HeaderValue) -> Value {
    let text = String::from_utf8_lossy(value.as_bytes());
    let secret = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE].contains(name);
    if !secret {
        return Value::String(text.into_owned());
    }
    let (scheme, token) = text.split_once(' ').unwrap_or(("", &text));
    Value::String(format!("{scheme} <token {}>", Fingerprint::of(token.trim().as_bytes())))
}
