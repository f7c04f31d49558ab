//! Heads of requests that never become a request: what cannot be read, and what does not come in time.
//!
//! Owns: the bytes of the answer to them, and that they are counted and logged like any other refusal.

use bytes::Bytes;
use http::HeaderMap;
use tokio::time::Instant;

use super::{Client, Refusal, Site};

/// Why a head is no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadHead {
    /// It is not HTTP/1.1.
    Malformed,
    /// It is longer, or has more fields, than is taken.
    TooLarge,
    /// Its target alone is.
    TargetTooLong,
    /// It did not come in time.
    Late,
}

/// The whole answer, which ends the connection. `date` is a line of it, or nothing.
#[cold]
pub fn refuse_head(site: &Site, client: &Client, reason: BadHead, date: &[u8]) -> Bytes {
    let refusal = match reason {
        BadHead::Malformed => Refusal::BadHead,
        BadHead::TooLarge => Refusal::HeadTooLarge,
        BadHead::TargetTooLong => Refusal::UriTooLong,
        BadHead::Late => Refusal::HeadTimeout,
    };
    let id = site.identity.ids.of(&HeaderMap::new());
    let (began, now) = (client.head_begun(), Instant::now());
    let (head, body) = refusal.answer(&id).into_parts();
    let status = head.status.as_u16();
    site.unrouted.answered(status, now.saturating_duration_since(began));
    if let Some(mut noted) = site.identity.log.as_ref().and_then(|log| log.begin(false)) {
        noted.note(|record| {
            record.unreadable(&id, began);
            record.labels(&site.labels);
            client.link.forwarded.tell(&HeaderMap::new(), record);
            let (slug, error) = refusal.words();
            record.refused(slug, error);
            record.answered(status, (0, body.len() as u64), now);
        });
    }
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in &head.headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"connection: close\r\ncontent-length: ");
    out.extend_from_slice(body.len().to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(date);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&body);
    out.into()
}
