//! `limits:`.

use std::ops::RangeInclusive;

use crate::config::blocks::{File, Http2Block};
use crate::config::context::Cx;
use crate::config::read::At;
use crate::config::values::Size;
use crate::listener::{Http2Limits, Limits, ListenerConfig};
use crate::proxy::{ClientLimits, Underscores};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// What is taken of a target at most.
const MAX_TARGET: u64 = 64 * KIB - 2;

pub(super) fn limits(file: &File, cx: &mut Cx<'_>) -> Option<Limits> {
    let Some(At { value: block, .. }) = &file.limits else { return Some(Limits::default()) };
    let header_bytes = within(
        block.header_bytes.as_ref()?,
        4 * KIB..=MIB,
        "the limit of a request's head must be from 4 KiB to 1 MiB",
        cx,
    );
    let uri_bytes = within(
        block.uri_bytes.as_ref()?,
        256..=MAX_TARGET,
        "the limit of a target must be from 256 B to 65534 B",
        cx,
    );
    let header_count = block.header_count.as_ref()?;
    if !(10..=1000).contains(&header_count.value.0) {
        cx.error(header_count.span, "the limit of header fields must be from 10 to 1000");
    }
    let http2 = match &block.http2 {
        Some(http2) => self::http2(&http2.value, cx)?,
        None => Http2Limits::default(),
    };
    Some(Limits {
        connections: block.connections.as_ref()?.value.0,
        header_bytes: usize::try_from(header_bytes).ok()?,
        workers: block.workers.as_ref()?.value.0,
        tls_handshake_timeout: block.tls_handshake_timeout.as_ref()?.value.0,
        tunnel_idle_timeout: block.tunnel_idle_timeout.as_ref()?.value.0,
        http2,
        client: ClientLimits {
            uri_bytes: usize::try_from(uri_bytes).ok()?,
            header_count: header_count.value.0,
            header_timeout: block.header_timeout.as_ref()?.value.0,
            idle_timeout: block.idle_timeout.as_ref()?.value.0,
            min_body_rate: block.min_body_rate.as_ref()?.value.0,
            underscores: Underscores::default(),
            interim_responses: false,
        },
    })
}

fn http2(block: &Http2Block, cx: &mut Cx<'_>) -> Option<Http2Limits> {
    let streams = block.max_concurrent_streams.as_ref()?;
    if streams.value.0 > 10_000 {
        cx.error(streams.span, "more than 10000 streams of one connection are no limit");
    }
    // RFC 9113, 6.9.2: the least is what every client begins with.
    let range = 64 * KIB - 1..=512 * MIB;
    let title = "a window must be from 65535 B to 512 MiB";
    let stream = within(block.stream_window.as_ref()?, range.clone(), title, cx);
    let connection = within(block.connection_window.as_ref()?, range, title, cx);
    Some(Http2Limits {
        max_concurrent_streams: u32::try_from(streams.value.0).ok()?,
        stream_window: u32::try_from(stream).ok()?,
        connection_window: u32::try_from(connection).ok()?,
    })
}

fn within(size: &At<Size>, range: RangeInclusive<u64>, title: &str, cx: &mut Cx<'_>) -> u64 {
    if !range.contains(&size.value.0) {
        cx.error(size.span, title);
    }
    size.value.0
}

/// Gives routes, and rules, without a `max_body` the one of all.
pub(super) fn of_routes(file: &File, mut listeners: Vec<ListenerConfig>) -> Vec<ListenerConfig> {
    let limit = file.limits.as_ref().and_then(|limits| limits.value.request_body.as_ref());
    if let Some(limit) = limit {
        for listener in &mut listeners {
            let egress = listener.egress.iter_mut();
            let rules = egress
                .flat_map(|egress| egress.rules.iter_mut().chain(std::iter::once(&mut egress.unruled)))
                .map(|rule| &mut rule.route);
            for route in listener.routes.iter_mut().chain(rules) {
                route.max_body = route.max_body.or(Some(limit.value.0));
            }
        }
    }
    listeners
}
