//! The client that a request comes from.

use std::fmt;
use std::sync::Arc;

use crate::names::Name;
use crate::route::rate::Allowance;
use crate::telemetry::counters::ClientCounters;

/// How a client showed who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A certificate.
    Mtls,
    /// A key in a header field.
    ApiKey,
    /// User and password.
    Basic,
    /// A signed token.
    Jwt,
    /// Its address.
    Cidr,
    /// The owner of the other end of a Unix socket.
    UnixPeer,
}

impl Kind {
    /// As the configuration writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mtls => "mtls",
            Self::ApiKey => "api_key",
            Self::Basic => "basic",
            Self::Jwt => "jwt",
            Self::Cidr => "cidr",
            Self::UnixPeer => "unix_peer",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An authenticated client, as one worker knows it: cloned by counting on the worker alone.
#[derive(Debug)]
pub struct Caller {
    /// Its name in the configuration.
    pub name: Name,
    /// How it showed who it is.
    pub kind: Kind,
    /// Its place among all clients.
    pub index: usize,
    /// What this worker counts for it.
    pub counters: Arc<ClientCounters>,
    /// How often and how many at a time, where that is limited: one for all workers.
    pub allowance: Option<Arc<Allowance>>,
}
