//! What an upstream has besides its first origin.

use crate::config::blocks::upstream::{EjectionBlock, HealthBlock, UpstreamBlock, UpstreamLimits};
use crate::config::context::Cx;
use crate::config::read::At;
use crate::origin::Origin;
use crate::upstream::{Ejection, HealthCheck, PoolLimits, RoomConfig, UpstreamOptions};

/// The settings of an upstream, and that its origins go together.
pub(super) fn options(
    block: &UpstreamBlock,
    urls: &At<Vec<At<Origin>>>,
    cx: &mut Cx<'_>,
) -> Option<UpstreamOptions> {
    let (first, others) = urls.value.split_first()?;
    for (at, other) in others.iter().enumerate() {
        if other.value.scheme() != first.value.scheme() {
            cx.error(other.span, "all URLs of one upstream have the same scheme")
                .also(first.span, "the first one's is another")
                .hint("make it two routes, or use one scheme");
        }
        if let Some(same) = urls.value[..=at].iter().find(|known| known.value == other.value) {
            cx.error(other.span, "this URL is given twice").also(same.span, "here already");
        }
    }
    let keep_warm = block.keep_warm.as_ref()?.value.0;
    let limits = block.limits.as_ref().map(|limits| &limits.value);
    Some(UpstreamOptions {
        others: others.iter().map(|origin| origin.value.clone()).collect(),
        room: limits.map_or_else(|| Some(RoomConfig::default()), room)?,
        pool: PoolLimits { keep_warm, ..limits.map_or_else(|| Some(PoolLimits::default()), pool)? },
        ejection: match &block.ejection {
            None => Ejection::default(),
            Some(ejection) => self::ejection(&ejection.value, cx)?,
        },
        health: match &block.health {
            None => None,
            Some(health) => Some(self::health(&health.value)?),
        },
    })
}

fn room(limits: &UpstreamLimits) -> Option<RoomConfig> {
    Some(RoomConfig {
        requests: limits.requests.as_ref()?.value.0,
        queue: limits.queue.as_ref()?.value.0,
        queue_timeout: limits.queue_timeout.as_ref()?.value.0,
    })
}

fn pool(limits: &UpstreamLimits) -> Option<PoolLimits> {
    Some(PoolLimits {
        idle: limits.idle.as_ref()?.value.0,
        idle_timeout: limits.idle_timeout.as_ref()?.value.0,
        keep_warm: 0,
    })
}

fn ejection(block: &EjectionBlock, cx: &mut Cx<'_>) -> Option<Ejection> {
    let (time, max_time) = (block.time.as_ref()?, block.max_time.as_ref()?);
    if max_time.value.0 < time.value.0 {
        cx.error(max_time.span, "`max_time` is shorter than `time`").also(time.span, "`time`");
    }
    Some(Ejection {
        failures: u32::try_from(block.failures.as_ref()?.value.0).unwrap_or(u32::MAX),
        time: time.value.0,
        max_time: max_time.value.0,
    })
}

fn health(block: &HealthBlock) -> Option<HealthCheck> {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let expected = block.expect_status.iter().flat_map(|statuses| &statuses.value.items);
    Some(HealthCheck {
        path: block.path.as_ref()?.value.0.clone(),
        interval: block.interval.as_ref()?.value.0,
        timeout: block.timeout.as_ref()?.value.0,
        healthy: count(block.healthy.as_ref()?.value.0),
        unhealthy: count(block.unhealthy.as_ref()?.value.0),
        expect_status: expected.map(|status| status.value.0).collect(),
    })
}
