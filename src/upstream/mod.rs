//! Upstreams: connections to origins, and the pool that a worker keeps of them.
//!
//! Owns: dialling, TLS out, outbound proxy, pooling and their limits. Never sees a token by itself: it sends the
//! request that it is given.

mod connector;
mod dial;
mod outbound;
mod pool;
mod transport;

use std::fmt;
use std::time::Duration;

use crate::origin::Origin;
use crate::tls::TlsClientConfig;
pub use connector::{Connector, TlsClient};
pub use dial::{AddressGuard, DialError, resolve};
pub use pool::{BodyPiece, Lease, Pool, SendError, Upgraded};
pub use transport::Transport;

/// `upstream:` of a route.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Where requests go.
    pub origin: Origin,
    /// `tls`.
    pub tls: TlsClientConfig,
    /// `outbound_proxy` (upstream, else global): CONNECT for https, absolute-form for http.
    pub outbound_proxy: Option<url::Url>,
}

impl fmt::Debug for UpstreamConfig {
    /// Leaves out the proxy's user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamConfig")
            .field("origin", &self.origin)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// `timeouts` of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// DNS, TCP and TLS: 5 s.
    pub connect: Duration,
    /// From the request sent whole to the head of the answer: 5 min.
    pub first_byte: Duration,
    /// Between two frames of the answer: 5 min.
    pub response_idle: Duration,
    /// Between two frames of the request body: 30 s.
    pub request_idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(300),
            response_idle: Duration::from_secs(300),
            request_idle: Duration::from_secs(30),
        }
    }
}
