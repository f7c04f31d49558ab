//! What the data plane tells the control plane: sums over its workers at one moment.

use crate::names::Name;
use crate::telemetry::counters::{DENIAL_REASONS, HistogramSnapshot, RouteCounters};
use crate::tls::x509::Certificate;
use crate::upstream::HealthState;

/// All listeners and routes.
#[derive(Debug, Clone, Default)]
pub struct DataSnapshot {
    /// In the order of the configuration.
    pub listeners: Vec<ListenerSnapshot>,
    /// In the order of the configuration.
    pub routes: Vec<RouteSnapshot>,
    /// In the order of the configuration.
    pub clients: Vec<ClientSnapshot>,
    /// Connections to all upstreams.
    pub upstream_connections: UpstreamConnections,
    /// Lines of the access and the audit log that were lost.
    pub log_lines_dropped: u64,
}

/// One listener.
#[derive(Debug, Clone)]
pub struct ListenerSnapshot {
    /// `name`.
    pub name: Name,
    /// `reverse`.
    pub kind: &'static str,
    /// `127.0.0.1:8080` or `unix:/path`.
    pub address: String,
    /// Open client connections.
    pub connections: u64,
    /// Requests that no route took: refused, not found, misdirected.
    pub unrouted: Traffic,
    /// Heads that were refused before they became requests (400, 414, 431).
    pub refused_heads: u64,
    /// The certificate that it shows, where it speaks TLS.
    pub certificate: Option<Certificate>,
    /// TLS handshakes that failed.
    pub refused_handshakes: u64,
    /// Connections whose PROXY header was missing, broken or of an untrusted peer.
    pub refused_proxy_headers: u64,
    /// Requests that were refused for who sent them, in the order of
    /// [`DENIAL_REASONS`](crate::telemetry::counters::DENIAL_REASONS).
    pub denied: [u64; DENIAL_REASONS.len()],
}

/// One client.
#[derive(Debug, Clone)]
pub struct ClientSnapshot {
    /// Its name.
    pub name: Name,
    /// Answers to its requests by first digit of their status: `[0]` is 1xx.
    pub code_classes: [u64; 5],
    /// Requests that were refused because of its own rate or of too many of it at once.
    pub throttled: u64,
}

/// One route.
#[derive(Debug, Clone)]
pub struct RouteSnapshot {
    /// Its listener.
    pub listener: Name,
    /// `name`.
    pub name: Name,
    /// The upstream's origin.
    pub upstream: String,
    /// `credential`.
    pub credential: Option<Name>,
    /// What went through it.
    pub traffic: Traffic,
    /// Where its upstream is reached, as far as that is known.
    pub addresses: Vec<UpstreamAddress>,
    /// How often one of them was left out.
    pub ejections: u64,
    /// How often changed TLS files of its upstream could not be used.
    pub refused_tls_files: u64,
}

/// One address of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamAddress {
    /// The origin that it belongs to.
    pub url: String,
    /// `10.0.0.1:443`, `unix:/path` or, behind an outbound proxy, a name.
    pub address: String,
    /// Whether it is used.
    pub state: HealthState,
}

/// Sums of [`RouteCounters`].
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    /// Answers, of the upstream and our own.
    pub requests: u64,
    /// Answers of our own that say that forwarding failed, and answers that broke off.
    pub errors: u64,
    /// Requests that were refused because of a rate or of too many at once.
    pub throttled: u64,
    /// Answers 401 to a request that carried our token.
    pub unauthorized: u64,
    /// Requests that were sent again with a newer token after a 401.
    pub replayed: u64,
    /// By the first digit of the status; `[0]` is 1xx.
    pub code_classes: [u64; 5],
    /// Tunnels that are open.
    pub tunnels: u64,
    /// Bytes that went through tunnels: from clients, to clients.
    pub tunnel_bytes: [u64; 2],
    /// From the first byte of a request to the last of its answer.
    pub duration: HistogramSnapshot,
    /// From the request handed to a connection to the head of the answer.
    pub upstream_duration: HistogramSnapshot,
}

/// Connections to upstreams by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UpstreamConnections {
    /// Kept for the next request.
    pub idle: u64,
    /// With a request on them.
    pub active: u64,
}

impl Traffic {
    pub(super) fn add(&mut self, counters: &RouteCounters) {
        for (sum, counter) in self.code_classes.iter_mut().zip(&counters.code_classes) {
            *sum += counter.get();
        }
        self.requests = self.code_classes.iter().sum();
        self.errors += counters.errors.get();
        self.throttled += counters.throttled.get();
        self.unauthorized += counters.unauthorized.get();
        self.replayed += counters.replayed.get();
        self.tunnels = self.tunnels.wrapping_add(counters.tunnels.get());
        for (sum, counter) in self.tunnel_bytes.iter_mut().zip(&counters.tunnel_bytes) {
            *sum += counter.get();
        }
        counters.duration.read_into(&mut self.duration);
        counters.upstream_duration.read_into(&mut self.upstream_duration);
    }
}
