//! Authentication that belongs to a connection and not to a request: NTLM, and Negotiate (RFC 4559).
//!
//! Owns: that an upstream connection which a client may have authenticated serves that client alone. From its first such
//! request or challenge on, the upstream connections of a client connection are its own: kept for its next request, and
//! closed with it. No pool ever sees them again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use http::{HeaderMap, header};
use tokio::time::Instant;

use super::RequestBody;
use crate::upstream::{Endpoint, Lease, Reached, Upstream};

/// What a client connection has of its own.
#[derive(Debug, Default)]
pub(super) struct Binding {
    binds: Cell<bool>,
    kept: RefCell<Option<Box<Bound>>>,
}

#[derive(Debug)]
struct Bound {
    upstream: Rc<Upstream<RequestBody>>,
    endpoint: Option<Rc<Endpoint<RequestBody>>>,
    /// `None` while its exchange is under way.
    lease: Option<Lease<RequestBody>>,
}

/// Whether a request carries what authenticates its connection.
pub(super) fn authenticates(headers: &HeaderMap) -> bool {
    headers.get_all(header::AUTHORIZATION).iter().any(|value| is_bound(value.as_bytes()))
}

/// Whether an answer asks for it.
pub(super) fn challenges(headers: &HeaderMap) -> bool {
    [header::WWW_AUTHENTICATE, header::PROXY_AUTHENTICATE].iter().any(|name| {
        let mut challenges =
            headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        challenges.any(is_bound)
    })
}

fn is_bound(credentials: &[u8]) -> bool {
    let text = credentials.trim_ascii();
    let scheme = text.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    scheme.eq_ignore_ascii_case(b"NTLM") || scheme.eq_ignore_ascii_case(b"Negotiate")
}

impl Binding {
    /// From now on this client shares no upstream connection.
    #[cold]
    pub(super) fn begin(&self) {
        self.binds.set(true);
    }

    /// Whether it shares none.
    #[inline]
    pub(super) fn is_bound(&self) -> bool {
        self.binds.get()
    }

    /// The connection to this upstream that is the client's own, if it still stands.
    #[cold]
    pub(super) fn take(&self, upstream: &Rc<Upstream<RequestBody>>) -> Option<Reached<RequestBody>> {
        let Bound { upstream: of, endpoint, lease } = *self.kept.take()?;
        let mut lease = lease.filter(|_| Rc::ptr_eq(&of, upstream))?;
        lease.resume().then_some(Reached { lease, endpoint })
    }

    /// An exchange has begun whose connection is the client's own.
    #[cold]
    pub(super) fn expect(
        &self,
        upstream: &Rc<Upstream<RequestBody>>,
        endpoint: Option<&Rc<Endpoint<RequestBody>>>,
    ) {
        let (upstream, endpoint) = (Rc::clone(upstream), endpoint.cloned());
        self.kept.replace(Some(Box::new(Bound { upstream, endpoint, lease: None })));
    }

    /// The exchange has ended: the connection goes back to its pool, or is kept for the client.
    #[inline]
    pub(super) fn release(&self, lease: Lease<RequestBody>, now: Instant) {
        if self.binds.get() { self.keep(lease) } else { lease.release(now) }
    }

    #[cold]
    fn keep(&self, lease: Lease<RequestBody>) {
        if let Some(bound) = &mut *self.kept.borrow_mut()
            && bound.lease.is_none()
        {
            bound.lease = lease.pause();
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn schemes_of_connections_are_told_from_those_of_requests() {
        let check = |name: HeaderName, value: &'static str, asks: bool, carries: bool| {
            let mut headers = HeaderMap::new();
            headers.append(name, HeaderValue::from_static(value));
            assert_eq!((challenges(&headers), authenticates(&headers)), (asks, carries), "{value}");
        };
        check(header::WWW_AUTHENTICATE, "NTLM", true, false);
        check(header::WWW_AUTHENTICATE, "ntlm TlRMTVNTUAAC", true, false);
        check(header::WWW_AUTHENTICATE, "Bearer realm=\"x\", Negotiate", true, false);
        check(header::WWW_AUTHENTICATE, "Bearer realm=\"NTLM\"", false, false);
        check(header::WWW_AUTHENTICATE, "NegotiateX", false, false);
        check(header::PROXY_AUTHENTICATE, "Negotiate", true, false);
        check(header::AUTHORIZATION, "Negotiate YII", false, true);
        check(header::AUTHORIZATION, "Basic TlRMTQ==", false, false);
    }
}
