//! The rate and the concurrency of a route.
//!
//! Owns: which bucket a request takes from, and what the client is told of it (`RateLimit` and `RateLimit-Policy` of
//! draft-ietf-httpapi-ratelimit-headers). Not reached by a route without limits.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Client, Refusal};
use crate::route::rate::{Limiter, Places, RateKey, Verdict};
use crate::route::{RouteConfig, ThrottleConfig};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The limits of a route, one for all workers.
#[derive(Debug)]
pub struct RouteLimits {
    rate: Option<Limiter>,
    places: Option<Arc<Places>>,
}

/// What a client is told of its bucket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    requests: u32,
    /// Whole seconds, where it is so.
    window: Option<u64>,
    remaining: u32,
    reset: u64,
}

impl RouteLimits {
    /// `None`: the route has no limits.
    pub fn of(route: &RouteConfig) -> Option<Arc<Self>> {
        let ThrottleConfig { rate, concurrency } = route.throttle;
        (rate.is_some() || concurrency.is_some())
            .then(|| Arc::new(Self { rate: rate.map(Limiter::new), places: concurrency.map(Places::new) }))
    }

    /// Lets a request on or not. What is told goes into the answer either way.
    pub(super) fn admit(&self, client: &Client, headers: &HeaderMap) -> (Option<Told>, Result<(), Refusal>) {
        let verdict = self.rate.as_ref().map(|limiter| (limiter, judge(limiter, client, headers)));
        let told = verdict.map(|(limiter, verdict)| Told::new(limiter, verdict));
        if let Some(wait) = verdict.and_then(|(_, verdict)| verdict.wait) {
            return (told, Err(Refusal::RateExceeded { retry_after: wait }));
        }
        if let Some(places) = &self.places {
            match places.take() {
                Some(place) => client.hold(place),
                None => return (told, Err(Refusal::TooManyAtOnce)),
            }
        }
        (told, Ok(()))
    }
}

fn judge(limiter: &Limiter, client: &Client, headers: &HeaderMap) -> Verdict {
    match limiter.limit().key {
        RateKey::Route => limiter.take(&()),
        RateKey::Client => match client.caller() {
            Some(caller) => limiter.take(&(0, caller.name.as_str())),
            None => limiter.take(&(1, network(client.address(headers)))),
        },
        RateKey::Address => limiter.take(&(1, network(client.address(headers)))),
    }
}

/// Whoever has one IPv6 address has 2^64 of them.
fn network(address: Option<IpAddr>) -> Option<IpAddr> {
    match address?.to_canonical() {
        IpAddr::V6(ip) => Some(IpAddr::V6((u128::from(ip) >> 64 << 64).into())),
        four @ IpAddr::V4(_) => Some(four),
    }
}

impl Told {
    fn new(limiter: &Limiter, verdict: Verdict) -> Self {
        let per = limiter.limit().per;
        let whole = per.subsec_nanos() == 0 && !per.is_zero();
        Self {
            requests: limiter.limit().requests,
            window: whole.then_some(per.as_secs()),
            remaining: verdict.remaining,
            reset: seconds(verdict.reset),
        }
    }

    /// Sets the fields.
    #[cold]
    pub(super) fn set(self, headers: &mut HeaderMap) {
        let mut number = itoa::Buffer::new();
        let mut policy = ["\"default\";q=", number.format(self.requests)].concat();
        if let Some(window) = self.window {
            policy.push_str(&[";w=", number.format(window)].concat());
        }
        let mut now = ["\"default\";r=", number.format(self.remaining)].concat();
        now.push_str(&[";t=", number.format(self.reset)].concat());
        for (name, value) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, now)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
    }
}

/// Rounded up.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
