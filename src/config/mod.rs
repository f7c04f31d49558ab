//! The configuration file: YAML text to each module's own `Config`, with every problem at its place.
//!
//! Owns: parsing with spans, interpolation, includes, the JSON Schema and the reference. Raw types never
//! leave this module.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::credential::CredentialConfig;
use crate::listener::{BindAddress, Limits, ListenerConfig};
use crate::secret::SecretSource;
use crate::store::StoreConfig;

/// A whole, valid configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `listeners`.
    pub listeners: Vec<ListenerConfig>,
    /// `credentials`.
    pub credentials: Vec<CredentialConfig>,
    /// `store`.
    pub store: StoreConfig,
    /// `admin`.
    pub admin: AdminConfig,
    /// `health`.
    pub health: Option<SocketAddr>,
    /// `log`.
    pub log: LogConfig,
    /// `limits`.
    pub limits: Limits,
    /// `shutdown.grace`.
    pub shutdown_grace: Duration,
    /// What is valid and still deserves a word; rendered like errors, with places.
    pub warnings: Vec<String>,
    /// The files that were read: the main one and includes.
    pub files: Vec<PathBuf>,
}

/// `admin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// `enabled`.
    pub enabled: bool,
    /// `bind`: TCP or a Unix socket.
    pub bind: BindAddress,
    /// `token`: needed for state-changing calls over TCP.
    pub token: Option<SecretSource>,
}

/// `log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `level`.
    pub level: tracing::Level,
    /// `format`.
    pub format: LogFormat,
}

/// `log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Text.
    Text,
    /// JSON.
    Json,
}

/// All problems of a configuration, rendered.
#[derive(Debug, Clone)]
pub struct Problems {
    /// Each with line, column, snippet and hint; ready to print (plain, or with colour).
    pub rendered: Vec<String>,
}
