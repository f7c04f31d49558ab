//! What an upstream has besides its origins: limits, balancing, health.

use super::Tls;
use crate::config::addresses::ProxyUrl;
use crate::config::block::{block, choice};
use crate::config::read::{At, OneOrMany};
use crate::config::values::{Count, Positive, StatusValue, UriPath, WholeNumber};
use crate::origin::Origin;
use crate::upstream::HttpVersion;

choice! {
    HttpVersion = "protocol" {
        Self::Auto => "auto", Self::Http1 => "h1", Self::Http2 => "h2", Self::Http2Cleartext => "h2c",
    }
}

/// `balance` of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Balance {
    LeastRequest,
}

choice! { Balance = "balancing" { Self::LeastRequest => "least_request" } }

block! {
    /// An upstream with more settings.
    struct UpstreamBlock = "upstream" {
        /// The server's origin, or several that serve the same, of one scheme: `https://api.example.com`, or a Unix socket,
        /// `unix:/run/app.sock`. The Host field is the chosen origin's own.
        required urls: Vec<At<Origin>>;
        /// The protocol spoken to it: `auto` is HTTP/2 where the server chooses it over TLS, else HTTP/1.1; `h2` refuses a
        /// server that does not choose it; `h2c` is HTTP/2 in cleartext without asking.
        default("auto") http: HttpVersion;
        /// Whom to trust, and a client certificate.
        optional tls: Tls;
        /// The HTTP proxy on the way to it; the global one unless given.
        optional outbound_proxy: ProxyUrl;
        /// How one of several is chosen: of two drawn by chance, the one with fewer requests under way.
        default("least_request") balance: Balance;
        /// Asks each address, from time to time, whether it is well. Such a request carries no token.
        optional health: HealthBlock;
        /// Leaves out an address that fails too often: no connection, no answer, or 502, 503, 504. Never all of them.
        optional ejection: EjectionBlock;
        /// How much goes to it at once.
        optional limits: UpstreamLimits;
        /// How many connections each worker keeps open, however long they are idle.
        default("0") keep_warm: WholeNumber;
    }
}

block! {
    /// Health checks: `GET` of a path.
    struct HealthBlock = "health" {
        /// What is asked for.
        required path: UriPath;
        /// Between two checks of an address.
        default("10s") interval: Positive;
        /// How long one check may take.
        default("2s") timeout: Positive;
        /// So many good checks in a row bring an address back.
        default("2") healthy: Count;
        /// So many bad checks in a row leave it out.
        default("3") unhealthy: Count;
        /// The status of a good check, or a list; any 2xx unless given.
        optional expect_status: OneOrMany<StatusValue>;
    }
}

block! {
    /// When an address is left out, and for how long.
    struct EjectionBlock = "ejection" {
        /// So many failures in a row.
        default("5") failures: Count;
        /// For so long at first; twice as long each time.
        default("10s") time: Positive;
        /// And never longer.
        default("5m") max_time: Positive;
    }
}

block! {
    /// Limits of one upstream.
    struct UpstreamLimits = "upstream limits" {
        /// Requests under way at once, in the whole process.
        default("1024") requests: Count;
        /// Requests that may wait for their turn; more are answered with 503.
        default("1024") queue: WholeNumber;
        /// How long one may wait.
        default("1s") queue_timeout: Positive;
        /// Idle connections that each worker keeps for each address.
        default("64") idle: WholeNumber;
        /// For how long.
        default("30s") idle_timeout: Positive;
    }
}
