//! The blocks of the configuration, each field documented once.
//!
//! The documentation of a field here is what the reference and the JSON Schema say of it. Nothing here
//! decides anything: what fields mean together is judged by `lower`.

pub(super) mod client;
pub(super) mod credential;
pub(super) mod egress;
pub(super) mod listener;
pub(super) mod upstream;

use std::time::Duration;

use super::addresses::ProxyUrl;
use super::block::{Partial, block, choice};
use super::read::{At, Named, OneOrMany};
use super::secrets::LocalPath;
use super::values::{Count, NonEmpty, Positive, Size, Version, Workers};
use crate::config::LogFormat;
use crate::listener::BindAddress;
use crate::secret::SecretSource;

block! {
    /// One YAML (or JSON) file. Durations are written `250ms`, `30s`, `5m`, `12h`, `7d`; sizes `64KiB`, `1MiB`;
    /// addresses `127.0.0.1:8080`, `"[::1]:8080"`, `unix:/path`, `systemd:NAME` (port 0 takes a free one).
    /// `${NAME}`, `${NAME:-default}` and `${NAME:?message}` are replaced in plain and double-quoted text; `$${` is a literal.
    struct File = "configuration" {
        /// The version of this language.
        default("1") version: Version;
        /// Further files whose `credentials`, `clients` and `listeners` are added: paths relative to this file, `*` and `?` in the last part.
        optional include: OneOrMany<NonEmpty>;
        /// Values for every credential and every route that does not have them itself.
        optional defaults: Defaults;
        /// The sockets that clients connect to.
        optional listeners: Vec<At<listener::Listener>>;
        /// The tokens that are kept fresh, by name.
        optional credentials: Named<credential::Credential>;
        /// Who may use listeners and routes, by name: each shows in one way who it is.
        optional clients: Named<client::Client>;
        /// Where refresh tokens are kept.
        optional store: Store;
        /// The listener for status, metrics and administration.
        optional admin: Admin;
        /// A second listener with `/livez`, `/readyz` and `/metrics` only, for probes and Prometheus. Off unless given.
        optional health: Health;
        /// The HTTP proxy of all outgoing connections. The environment's `HTTPS_PROXY` is not used.
        optional outbound_proxy: ProxyUrl;
        /// What is logged and how.
        optional log: Log;
        /// Limits of the whole process.
        optional limits: LimitsBlock;
        /// How the program stops.
        optional shutdown: Shutdown;
    }
}

block! {
    /// What an included file may hold.
    struct Included = "included file" {
        /// The version of this language.
        default("1") version: Version;
        /// Further listeners.
        optional listeners: Vec<At<listener::Listener>>;
        /// Further credentials.
        optional credentials: Named<credential::Credential>;
        /// Further clients.
        optional clients: Named<client::Client>;
    }
}

block! {
    /// Values that stand wherever a credential or route does not say otherwise; mappings are merged key by key.
    struct Defaults = "defaults" {
        /// Values for every credential.
        optional credential: Partial<credential::Credential>;
        /// Values for every route of every listener.
        optional route: Partial<listener::Route>;
    }
}

/// `store.kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoreKindName {
    File,
    Memory,
}

choice! { StoreKindName = "store kind" { Self::File => "file", Self::Memory => "memory" } }

block! {
    /// Where refresh tokens and access tokens are kept. A rotating refresh token that is lost can only be replaced by a new login.
    struct Store = "store" {
        /// `file`: a private directory, shared by any number of processes of one machine. `memory`: gone with the process.
        default("file") kind: StoreKindName;
        /// The directory of the file store; `$STATE_DIRECTORY`, `$XDG_STATE_HOME/bearward` or `~/.local/state/bearward` unless given.
        optional path: LocalPath;
        /// Encryption of what is stored.
        optional encryption: Encryption;
        /// Accepts the memory store for credentials whose refresh tokens are single use: a restart then needs a new seed.
        default("false") allow_volatile: bool;
    }
}

block! {
    /// Encryption at rest. A key is 32 bytes in base64 or hex, or a pass phrase of at least 16 characters.
    struct Encryption = "encryption" {
        /// The keys: the first encrypts, all decrypt.
        optional keys: Vec<At<SecretSource>>;
        /// The one key.
        optional key: SecretSource;
    }
}

block! {
    /// The administration listener: status, metrics, refresh.
    struct Admin = "admin" {
        /// Whether it runs.
        default("true") enabled: bool;
        /// Where it listens; never where a listener does.
        default("127.0.0.1:9901") bind: BindAddress;
        /// The token that calls which change something must bring, except over a Unix socket.
        optional token: SecretSource;
    }
}

block! {
    /// The health listener.
    struct Health = "health" {
        /// Where it listens.
        required bind: std::net::SocketAddr;
    }
}

choice! { LogFormat = "log format" { Self::Auto => "auto", Self::Text => "text", Self::Json => "json" } }

block! {
    /// The log, on standard error.
    struct Log = "log" {
        /// The least important level that is written: `trace`, `debug`, `info`, `warn` or `error`. Secrets appear at none.
        default("info") level: tracing::Level;
        /// `auto` is text on a terminal and JSON otherwise.
        default("auto") format: LogFormat;
    }
}

block! {
    /// Limits of the whole process, not of each worker.
    struct LimitsBlock = "limits" {
        /// Client connections at a time.
        default("10000") connections: Count;
        /// The head of a request.
        default("32KiB") header_bytes: Size;
        /// Threads that serve requests; `auto` is the number of cores, at most 8.
        default("auto") workers: Workers;
    }
}

block! {
    /// How the program stops.
    struct Shutdown = "shutdown" {
        /// How long requests may take to finish after SIGTERM.
        default("30s") grace: Positive;
    }
}

block! {
    /// A TLS client: whom it trusts and who it is. Verification cannot be switched off.
    struct Tls = "tls" {
        /// A PEM bundle that replaces the system's roots.
        optional ca: super::secrets::FileRef;
        /// A PEM certificate chain to show to servers that ask; needs `key`.
        optional cert: super::secrets::FileRef;
        /// The PEM private key of `cert`.
        optional key: SecretSource;
        /// The name to verify and to send instead of the URL's host.
        optional server_name: super::addresses::Host;
    }
}

/// Used where a default is a plain duration.
pub(super) type Grace = Duration;
