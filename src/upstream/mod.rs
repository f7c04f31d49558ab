//! Upstreams: connections to origins, and the pool that a worker keeps of them.
//!
//! Owns: dialling, TLS out, outbound proxy, pooling and their limits. Never sees a token by itself: it sends the
//! request that it is given.

mod answer_body;
mod balance;
mod beside;
mod budget;
mod check;
mod connector;
mod dial;
mod endpoint;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod health;
mod http1;
mod http2;
mod lease;
mod many;
mod outbound;
mod pool;
mod room;
mod stream_io;
mod transport;
pub mod websocket;

use std::fmt;
use std::time::Duration;

use crate::origin::Origin;
use crate::tls::TlsClientConfig;
pub use answer_body::{AnswerBody, StreamBody};
pub use balance::{Found, Reached, Shared, Upstream};
pub use beside::{Beside, Prepared};
pub use budget::Budget;
pub use check::check_addresses;
pub use connector::{Connector, TlsClient};
pub use dial::{AddressGuard, DialError, resolve};
pub use endpoint::Endpoint;
pub use health::{AddressHealth, Board, Ejection, Health, HealthCheck, HealthState};
pub use http2::{Place, tidy};
pub use lease::{BodyPiece, ExchangeError, Lease, SendError, Upgraded};
pub use pool::{Pool, PoolLimits};
pub use room::{Admission, Entrance, Full, Room, RoomConfig};
pub use stream_io::StreamIo;
pub use transport::Transport;

/// `upstream:` of a route.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Where requests go.
    pub origin: Origin,
    /// `http`.
    pub http: HttpVersion,
    /// `tls`.
    pub tls: TlsClientConfig,
    /// `outbound_proxy` (upstream, else global): CONNECT for https, absolute-form for http.
    pub outbound_proxy: Option<url::Url>,
    /// The rest, which has defaults.
    pub options: UpstreamOptions,
}

/// What of `upstream:` has defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamOptions {
    /// `urls` but for the first: origins that serve the same.
    pub others: Vec<Origin>,
    /// `limits` of requests.
    pub room: RoomConfig,
    /// `limits` of connections.
    pub pool: PoolLimits,
    /// `ejection`.
    pub ejection: Ejection,
    /// `health`.
    pub health: Option<HealthCheck>,
}

impl UpstreamConfig {
    /// All origins, in the order of the configuration.
    pub fn origins(&self) -> impl Iterator<Item = &Origin> {
        std::iter::once(&self.origin).chain(&self.options.others)
    }
}

/// `http` of an upstream: the protocol that it is asked in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HttpVersion {
    /// Over TLS HTTP/2 where the upstream chooses it (ALPN), else HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 over TLS; an upstream that does not choose it is refused.
    Http2,
    /// HTTP/2 in cleartext, without asking (RFC 9113, 3.3).
    Http2Cleartext,
}

/// The protocol of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl fmt::Debug for UpstreamConfig {
    /// Leaves out the proxy's user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamConfig")
            .field("origin", &self.origin)
            .field("http", &self.http)
            .field("tls", &self.tls)
            .field("options", &self.options)
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
