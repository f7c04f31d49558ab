//! `rate_limit` and `concurrency` of routes, egress rules and clients.

use crate::config::blocks::client::ClientRateBlock;
use crate::config::blocks::listener::RateLimitBlock;
use crate::config::read::At;
use crate::config::values::{Count, Positive};
use crate::route::ThrottleConfig;
use crate::route::rate::{RateKey, RateLimit};

/// Of a route or a rule. `None`: something of it was reported.
pub(super) fn of_route(
    rate: Option<&At<RateLimitBlock>>,
    concurrency: Option<&At<Count>>,
) -> Option<ThrottleConfig> {
    let rate = match rate {
        None => None,
        Some(At { value: block, .. }) => {
            let key = block.key.as_ref()?.value;
            Some(limit((&block.requests, &block.per, &block.burst), key)?)
        }
    };
    Some(ThrottleConfig { rate, concurrency: concurrency.map(|count| count.value.0) })
}

/// Of a client: its one bucket.
pub(super) fn of_client(
    rate: Option<&At<ClientRateBlock>>,
    concurrency: Option<&At<Count>>,
) -> Option<ThrottleConfig> {
    let rate = match rate {
        None => None,
        Some(At { value: block, .. }) => {
            Some(limit((&block.requests, &block.per, &block.burst), RateKey::Route)?)
        }
    };
    Some(ThrottleConfig { rate, concurrency: concurrency.map(|count| count.value.0) })
}

type Written<'b> = (&'b Option<At<Count>>, &'b Option<At<Positive>>, &'b Option<At<Count>>);

fn limit((requests, per, burst): Written<'_>, key: RateKey) -> Option<RateLimit> {
    let number = |count: &At<Count>| u32::try_from(count.value.0).unwrap_or(u32::MAX);
    let requests = number(requests.as_ref()?);
    Some(RateLimit {
        requests,
        per: per.as_ref()?.value.0,
        burst: burst.as_ref().map_or(requests, number),
        key,
    })
}
