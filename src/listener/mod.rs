//! Listeners: sockets, the acceptor, the workers (a thread a core) and connection limits.
//!
//! Owns: accepting, handing connections to the least loaded worker, draining. Never runs control work.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::names::Name;
use crate::route::RouteConfig;

/// One entry of `listeners:` with `kind: reverse`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerConfig {
    /// `name`; unique.
    pub name: Name,
    /// `bind`.
    pub bind: BindAddress,
    /// `allow_unauthenticated`.
    pub allow_unauthenticated: bool,
    /// `allowed_origins`: exact values of Origin.
    pub allowed_origins: Vec<String>,
    /// `routes`.
    pub routes: Vec<RouteConfig>,
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
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 10_000, header_bytes: 32 * 1024, workers: None }
    }
}
