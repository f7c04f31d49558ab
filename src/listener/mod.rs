//! Listeners: sockets, the acceptor, the workers (a thread a core) and connection limits.
//!
//! Owns: accepting, handing connections to the least loaded worker, draining. Never runs control work.

mod acceptor;
#[doc(hidden)]
pub mod bench;
mod bind;
mod data_plane;
mod detect;
pub mod egress;
mod entry;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod http1;
mod http2;
mod intercept;
pub mod proxy_protocol;
mod relay;
mod serve;
mod snapshot;
mod socks;
mod stream;
mod timer;
mod tunnel;
mod upstreams;
mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::names::Name;
use crate::policy::trusted::TrustedProxies;
use crate::proxy::egress::EgressConfig;
use crate::proxy::{ClientLimits, Underscores};
use crate::route::RouteConfig;
use crate::tls::TlsError;
use crate::tls::server::TlsServerConfig;
pub use data_plane::{BoundListeners, DataPlane};
pub use snapshot::{
    ClientSnapshot, DataSnapshot, ListenerSnapshot, RouteSnapshot, Traffic, UpstreamAddress,
    UpstreamConnections,
};

/// One entry of `listeners:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerConfig {
    /// `name`; unique.
    pub name: Name,
    /// `bind`.
    pub bind: BindAddress,
    /// `tls`.
    pub tls: Option<TlsServerConfig>,
    /// `trusted_proxies`.
    pub trusted_proxies: TrustedProxies,
    /// `proxy_protocol`.
    pub proxy_protocol: ProxyProtocol,
    /// `allow_unauthenticated`.
    pub allow_unauthenticated: bool,
    /// `headers.underscores`.
    pub underscores: Underscores,
    /// `interim_responses`.
    pub interim_responses: bool,
    /// `allowed_origins`: exact values of Origin.
    pub allowed_origins: Vec<String>,
    /// `clients`: who may use it; empty: whoever reaches it.
    pub clients: Vec<Name>,
    /// `routes`; none on an egress listener.
    pub routes: Vec<RouteConfig>,
    /// `rules` and what goes with them, with `kind: egress`.
    pub egress: Option<EgressConfig>,
}

impl ListenerConfig {
    /// Its routes, or those of its rules.
    pub fn all_routes(&self) -> impl Iterator<Item = &RouteConfig> {
        let rules = self.egress.iter().flat_map(|egress| &egress.rules);
        self.routes.iter().chain(rules.map(|rule| &rule.route))
    }

    /// What it is, as `kind` says.
    pub fn kind(&self) -> &'static str {
        if self.egress.is_some() { "egress" } else { "reverse" }
    }
}

impl ListenerConfig {
    /// Whether no request is served whose sender is not known.
    pub fn knows_its_clients(&self) -> bool {
        let each_route = !self.routes.is_empty() && self.routes.iter().all(|route| route.clients.is_some());
        !self.clients.is_empty() || each_route
    }
}

/// `proxy_protocol`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// Nobody sends a PROXY header.
    #[default]
    Off,
    /// A trusted proxy may send one.
    Optional,
    /// Only trusted proxies may connect, each with a header.
    Required,
}

/// `bind`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindAddress {
    /// TCP; port 0 takes a free one.
    Tcp(SocketAddr),
    /// `unix:/path`.
    Unix(PathBuf),
    /// `systemd:NAME`.
    Systemd(String),
}

/// `limits:`, per process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `connections`: 10,000.
    pub connections: usize,
    /// `header_bytes`: 32 KiB.
    pub header_bytes: usize,
    /// `workers`; `None`: min(cores of the cgroup, 8).
    pub workers: Option<usize>,
    /// `tls_handshake_timeout`: 10 s.
    pub tls_handshake_timeout: Duration,
    /// `tunnel_idle_timeout`: how long neither side of a tunnel may send a byte: 10 min.
    pub tunnel_idle_timeout: Duration,
    /// `http2`.
    pub http2: Http2Limits,
    /// What concerns requests.
    pub client: ClientLimits,
}

/// `limits.http2`: of each client connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2Limits {
    /// `max_concurrent_streams`: 100.
    pub max_concurrent_streams: u32,
    /// `stream_window`: what a client may send of one body before an upstream takes it: 1 MiB.
    pub stream_window: u32,
    /// `connection_window`: and of all together: 2 MiB.
    pub connection_window: u32,
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self { max_concurrent_streams: 100, stream_window: 1024 * 1024, connection_window: 2 * 1024 * 1024 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            header_bytes: 32 * 1024,
            workers: None,
            tls_handshake_timeout: Duration::from_secs(10),
            tunnel_idle_timeout: Duration::from_secs(600),
            http2: Http2Limits::default(),
            client: ClientLimits::default(),
        }
    }
}

/// Why the data plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// A socket could not be bound.
    #[error("the listener `{listener}` cannot use {address}: {reason}")]
    Bind {
        /// The listener.
        listener: Name,
        /// Where it should listen.
        address: String,
        /// What is wrong, and the remedy.
        reason: String,
    },
    /// The TLS settings of the listener cannot be used.
    #[error("the TLS settings of the listener `{listener}`: {error}")]
    OwnTls {
        /// The listener.
        listener: Name,
        /// What is wrong.
        error: TlsError,
    },
    /// The TLS settings of an upstream cannot be used.
    #[error("the upstream of the route `{route}` of the listener `{listener}`: {error}")]
    Tls {
        /// The listener.
        listener: Name,
        /// The route.
        route: Name,
        /// What is wrong.
        error: TlsError,
    },
    /// The outbound proxy of an upstream cannot be used.
    #[error("the outbound proxy of the route `{route}` of the listener `{listener}`: {reason}")]
    OutboundProxy {
        /// The listener.
        listener: Name,
        /// The route.
        route: Name,
        /// What is wrong.
        reason: String,
    },
    /// A credential that is bound to another origin than the route's upstream.
    #[error(
        "the credential `{credential}` of the route `{route}` is bound to another origin than its upstream"
    )]
    Binding {
        /// The credential.
        credential: Name,
        /// The route.
        route: Name,
    },
    /// A thread could not be started.
    #[error("a worker thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}
