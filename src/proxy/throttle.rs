//! The rate and the concurrency of clients, routes and rules.
//!
//! Owns: which buckets a request takes from, the places that it holds, and what the client is told of its buckets (`RateLimit`
//! and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers). Costs two looks where nothing is limited.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use tokio::time::Instant;

use super::answer::refuse;
use super::{Client, Refusal, ResponseBody};
use crate::route::rate::{Allowance, Limiter, Place, RateKey, Verdict};
use crate::telemetry::counters::RouteCounters;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The client's, wherever it asks.
    Client,
    /// The route's, or the rule's.
    Route,
}

/// The places that a request holds: its client's, and its route's.
pub(super) type Held = [Option<Place>; 2];

/// A request may go on.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// Goes into the answer.
    pub(super) told: Option<Box<Told>>,
    pub(super) held: Held,
}

/// It may not.
#[derive(Debug)]
pub(super) struct Exceeded {
    pub(super) told: Option<Box<Told>>,
    pub(super) refusal: Refusal,
    pub(super) whose: Whose,
}

/// What a client is told of its buckets.
#[derive(Debug, Default)]
pub(super) struct Told([Option<Bucket>; 2]);

/// One of them.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    policy: &'static str,
    requests: u32,
    /// Whole seconds, where it is so.
    window: Option<u64>,
    remaining: u32,
    reset: u64,
}

/// Lets a request on or not: by what its client may have, then by `own`, which is the route's or the rule's.
#[inline]
pub(super) fn admit(
    own: Option<&Allowance>,
    client: &Client,
    headers: &HeaderMap,
) -> Result<Pass, Box<Exceeded>> {
    if own.is_none() && !client.is_limited() {
        return Ok(Pass::default());
    }
    judge(own, client, headers)
}

#[cold]
fn judge(own: Option<&Allowance>, client: &Client, headers: &HeaderMap) -> Result<Pass, Box<Exceeded>> {
    let caller = client.caller();
    let of_client = caller.as_ref().and_then(|caller| caller.allowance.as_deref());
    let mut told = Told::default();
    let mut held = Held::default();
    for (at, (whose, allowance)) in [(Whose::Client, of_client), (Whose::Route, own)].into_iter().enumerate()
    {
        let Some(allowance) = allowance else { continue };
        let verdict = allowance.rate.as_ref().map(|limiter| (limiter, take(limiter, client, headers)));
        told.0[at] = verdict.map(|(limiter, verdict)| Bucket::new(whose, limiter, verdict));
        if let Some(wait) = verdict.and_then(|(_, verdict)| verdict.wait) {
            let refusal = Refusal::RateExceeded { whose, retry_after: wait };
            return Err(Box::new(Exceeded { told: told.boxed(), refusal, whose }));
        }
        if let Some(places) = &allowance.places {
            held[at] = places.take();
            if held[at].is_none() {
                let refusal = Refusal::TooManyAtOnce(whose);
                return Err(Box::new(Exceeded { told: told.boxed(), refusal, whose }));
            }
        }
    }
    Ok(Pass { told: told.boxed(), held })
}

fn take(limiter: &Limiter, client: &Client, headers: &HeaderMap) -> Verdict {
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

impl Bucket {
    fn new(whose: Whose, limiter: &Limiter, verdict: Verdict) -> Self {
        let per = limiter.limit().per;
        let whole = per.subsec_nanos() == 0 && !per.is_zero();
        Self {
            policy: match whose {
                Whose::Client => "\"client\"",
                Whose::Route => "\"default\"",
            },
            requests: limiter.limit().requests,
            window: whole.then_some(per.as_secs()),
            remaining: verdict.remaining,
            reset: seconds(verdict.reset),
        }
    }
}

impl Told {
    fn boxed(self) -> Option<Box<Self>> {
        self.0.iter().any(Option::is_some).then(|| Box::new(self))
    }

    /// Sets the fields.
    #[cold]
    pub(super) fn set(&self, headers: &mut HeaderMap) {
        let (mut policy, mut now) = (String::new(), String::new());
        let mut number = itoa::Buffer::new();
        for bucket in self.0.iter().flatten() {
            if !policy.is_empty() {
                policy.push_str(", ");
                now.push_str(", ");
            }
            policy.push_str(&[bucket.policy, ";q=", number.format(bucket.requests)].concat());
            if let Some(window) = bucket.window {
                policy.push_str(&[";w=", number.format(window)].concat());
            }
            now.push_str(&[bucket.policy, ";r=", number.format(bucket.remaining)].concat());
            now.push_str(&[";t=", number.format(bucket.reset)].concat());
        }
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

/// More than the client, or the route, may have.
#[cold]
pub(super) fn refuse_exceeding(
    exceeded: &Exceeded,
    id: &HeaderValue,
    counters: &Arc<RouteCounters>,
    client: &Rc<Client>,
    began: Instant,
) -> Response<ResponseBody> {
    count_exceeding(exceeded.whose, counters, client);
    let mut answer = refuse(&exceeded.refusal, id, counters, client, began);
    if let Some(told) = &exceeded.told {
        told.set(answer.headers_mut());
    }
    answer
}

/// Counts it where the limit stands.
pub(super) fn count_exceeding(whose: Whose, counters: &RouteCounters, client: &Client) {
    match (whose, client.caller()) {
        (Whose::Client, Some(caller)) => caller.counters.throttled.increment(),
        _ => counters.throttled.increment(),
    }
}
