//! What is noted of an exchange until its line is written.
//!
//! Owns: the fields of a line, and that nothing secret becomes one.

use std::io::Write as _;
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Uri, Version, header};
use tokio::time::Instant;

use super::WorkerLog;
use crate::names::Name;

/// The most bytes of a path, and of a User-Agent, in a line.
const MAX_PATH: usize = 8 * 1024;
const MAX_AGENT: usize = 256;
/// A host name of the greatest length with a port.
const MAX_AUTHORITY: usize = 262;

/// What all lines of a route have in common.
#[derive(Debug)]
pub struct Labels {
    /// `"listener":"…","route":"…"`.
    pub(super) json: String,
    pub(super) credential: Option<Name>,
}

impl Labels {
    /// Of a route of a listener; without a route, of what no route took.
    pub fn new(listener: &Name, route: Option<&Name>, credential: Option<&Name>) -> Self {
        // Names hold nothing that JSON would escape.
        let mut json = ["\"listener\":\"", listener.as_str(), "\""].concat();
        if let Some(route) = route {
            json.push_str(&[",\"route\":\"", route.as_str(), "\""].concat());
        }
        Self { json, credential: credential.cloned() }
    }
}

/// What became of the credential of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Use {
    /// It was not asked for.
    #[default]
    None,
    /// It had no usable token.
    Unavailable,
    /// Its token was sent.
    Sent,
    /// Its token was sent, and the upstream refused it.
    Rejected,
}

/// One exchange.
#[derive(Debug, Default)]
pub struct Record {
    accessed: bool,
    audited: bool,
    with_query: bool,
    began: Option<Instant>,
    duration: Duration,
    pub(super) labels: Option<Rc<Labels>>,
    pub(super) method: Method,
    /// On a forward proxy: where the request is to go.
    pub(super) authority: Vec<u8>,
    pub(super) path: Vec<u8>,
    pub(super) id: Vec<u8>,
    pub(super) agent: Vec<u8>,
    pub(super) client: Vec<u8>,
    pub(super) client_name: Vec<u8>,
    pub(super) version: Version,
    pub(super) status: Option<u16>,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) upstream: Option<(Version, Duration)>,
    pub(super) retried: bool,
    pub(super) replayed: bool,
    pub(super) incomplete: bool,
    pub(super) refusal: Option<(&'static str, &'static str)>,
    pub(super) usage: Use,
    /// What it decided, and what the rule does.
    pub(super) decision: Option<(&'static str, Option<&'static str>)>,
    denied: bool,
    pub(super) socks: bool,
}

impl Record {
    pub(super) fn reset(&mut self, accessed: bool, audited: bool, with_query: bool) {
        let Self { authority, path, id, agent, client, client_name, .. } = std::mem::take(self);
        let texts = [authority, path, id, agent, client, client_name].map(|mut text| {
            text.clear();
            text
        });
        let [authority, path, id, agent, client, client_name] = texts;
        let texts = Self { authority, path, id, agent, client, client_name, ..Self::default() };
        *self = Self { accessed, audited, with_query, ..texts };
    }

    pub(super) fn accessed(&self) -> bool {
        self.accessed
    }

    pub(super) fn duration(&self) -> Duration {
        self.duration
    }

    pub(super) fn usage(&self) -> Use {
        self.usage
    }

    /// The request as it came.
    pub fn request(
        &mut self,
        (method, uri, version): (&Method, &Uri, Version),
        headers: &HeaderMap,
        id: &HeaderValue,
        began: Instant,
    ) {
        self.began = Some(began);
        self.method.clone_from(method);
        self.version = version;
        let path = match uri.path() {
            "" if method == Method::CONNECT => {
                uri.authority().map_or("", |authority| without_user(authority.as_str()))
            }
            "" => "/",
            path => path,
        };
        self.path.extend_from_slice(capped(path.as_bytes(), MAX_PATH));
        if self.with_query
            && let Some(query) = uri.query()
        {
            self.path.push(b'?');
            self.path.extend_from_slice(capped(query.as_bytes(), MAX_PATH));
        }
        self.id.extend_from_slice(id.as_bytes());
        if let Some(agent) = headers.get(header::USER_AGENT) {
            self.agent.extend_from_slice(capped(agent.as_bytes(), MAX_AGENT));
        }
    }

    /// Where a forward proxy is asked to go.
    pub fn authority(&mut self, authority: &str) {
        self.authority.clear();
        self.authority.extend_from_slice(capped(without_user(authority).as_bytes(), MAX_AUTHORITY));
    }

    /// What came is no request.
    pub fn unreadable(&mut self, id: &HeaderValue, began: Instant) {
        self.began = Some(began);
        self.method = Method::from_bytes(b"-").unwrap_or_default();
        self.version = Version::HTTP_11;
        self.path.push(b'-');
        self.id.extend_from_slice(id.as_bytes());
    }

    /// A way that was asked for with SOCKS.
    pub fn socks(&mut self, id: &HeaderValue, began: Instant) {
        self.began = Some(began);
        self.method = Method::CONNECT;
        self.socks = true;
        self.id.extend_from_slice(id.as_bytes());
    }

    /// What an egress listener decided on a request to `authority`. A way has no path: the authority stands in its place.
    pub fn egress(
        &mut self,
        authority: &dyn std::fmt::Display,
        decision: &'static str,
        action: Option<&'static str>,
        denied: bool,
    ) {
        self.authority.clear();
        // Writing to a vector does not fail.
        let _ = write!(self.authority, "{authority}");
        self.decision = Some((decision, action));
        self.denied = denied;
        if self.method == Method::CONNECT {
            self.path.clear();
            self.path.extend_from_slice(&self.authority);
        }
    }

    /// Whether a line of the audit log tells it: a token was asked for, or a rule denies it.
    pub(super) fn is_audited(&self) -> bool {
        self.audited && (self.usage != Use::None || self.denied)
    }

    /// Which listener and route.
    pub fn labels(&mut self, labels: &Rc<Labels>) {
        self.labels = Some(Rc::clone(labels));
    }

    /// The client's address.
    pub fn client(&mut self, address: &[u8]) {
        self.client.clear();
        self.client.extend_from_slice(address);
    }

    /// The name under which the client is known.
    pub fn client_name(&mut self, name: &Name) {
        self.client_name.clear();
        self.client_name.extend_from_slice(name.as_str().as_bytes());
    }

    /// The head of the upstream's answer came after `duration`.
    pub fn upstream(&mut self, version: Version, duration: Duration) {
        self.upstream = Some((version, duration));
    }

    /// The request was sent again because a kept connection was closed.
    pub fn retried(&mut self) {
        self.retried = true;
    }

    /// The request was sent again with a newer token.
    pub fn replayed(&mut self) {
        self.replayed = true;
    }

    /// What became of the route's credential.
    pub fn used(&mut self, usage: Use) {
        self.usage = usage;
    }

    /// The proxy answers by itself: last part of the problem's type, and the error of Proxy-Status.
    pub fn refused(&mut self, slug: &'static str, error: &'static str) {
        self.refusal = Some((slug, error));
    }

    /// The answer broke off.
    pub fn incomplete(&mut self) {
        self.incomplete = true;
    }

    /// The exchange ended with this status, after these bytes of bodies.
    pub fn answered(&mut self, status: u16, (received, sent): (u64, u64), now: Instant) {
        self.status = Some(status);
        (self.received, self.sent) = (received, sent);
        self.duration = self.began.map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
    }
}

/// What stands before the `@` may be a password.
fn without_user(authority: &str) -> &str {
    authority.rsplit('@').next().unwrap_or_default()
}

fn capped(text: &[u8], limit: usize) -> &[u8] {
    &text[..text.len().min(limit)]
}

/// A record that is written when it is dropped, however the exchange ends.
#[derive(Debug)]
pub struct Noted {
    record: Option<Box<Record>>,
    log: Rc<WorkerLog>,
}

impl Noted {
    pub(super) fn new(record: Box<Record>, log: Rc<WorkerLog>) -> Self {
        Self { record: Some(record), log }
    }

    /// Adds to the record.
    #[inline]
    pub fn note(&mut self, note: impl FnOnce(&mut Record)) {
        if let Some(record) = &mut self.record {
            note(record);
        }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        let Some(mut record) = self.record.take() else { return };
        if record.status.is_none()
            && let Some(began) = record.began
        {
            // The client left before there was an answer.
            record.duration = Instant::now().saturating_duration_since(began);
        }
        self.log.end(record);
    }
}
