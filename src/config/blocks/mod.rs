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
use super::values::{Count, NonEmpty, Positive, Share, Size, Version, Workers};
use crate::config::LogFormat;
use crate::listener::BindAddress;
use crate::secret::SecretSource;
use crate::telemetry::access::Format;

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
        /// One line an exchange, apart from the log.
        optional access: AccessLogBlock;
        /// One line a use of a credential: client, credential, route, outcome.
        optional audit: AuditLogBlock;
    }
}

choice! { Format = "access log format" { Self::Json => "json", Self::Combined => "combined" } }

block! {
    /// The access log. It holds no header field but User-Agent, and no body. A reader that is too slow loses lines, which
    /// `bearward_access_log_dropped_total` counts; requests never wait for it.
    struct AccessLogBlock = "access log" {
        /// Whether it is written.
        default("true") enabled: bool;
        /// `json`: an object a line. `combined`: the Combined Log Format of Apache and nginx, without the referrer.
        default("json") format: Format;
        /// The share of exchanges that is logged, from 0 to 1.
        default("1") sample: Share;
        /// Writes the query of a request's target too. Off unless given: a query may hold secrets.
        default("false") query: bool;
        /// Where to: a file that lines are added to, and that may be renamed at any time (logrotate needs no signal). Standard
        /// output unless given.
        optional file: LocalPath;
    }
}

block! {
    /// The audit log: JSON lines with client, credential, listener, route, outcome (`used`, `rejected` by the upstream,
    /// `failed` to be delivered, `aborted` by the client, `unavailable`) and status.
    struct AuditLogBlock = "audit log" {
        /// Whether it is written.
        default("true") enabled: bool;
        /// Where to: a file that lines are added to. Standard output unless given.
        optional file: LocalPath;
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
        /// Path and query of a request; longer ones are answered with 414.
        default("8KiB") uri_bytes: Size;
        /// Header fields of a request; more are answered with 431.
        default("100") header_count: Count;
        /// The longest request body, for routes without a `max_body` of their own; a longer one is answered with 413. No limit
        /// unless given.
        optional request_body: Size;
        /// Bytes a second that a request's body must come with, once it was waited for ten seconds in all; a slower one is
        /// answered with 408. Time in which the upstream takes nothing does not count, nor does anything after the head of the
        /// answer; gRPC is exempt. `0B`: any.
        default("240B") min_body_rate: Size;
        /// From the first byte of a head (of the first one: from accepting) to its end; the same for a PROXY header.
        default("10s") header_timeout: Positive;
        /// How long a TLS handshake may take.
        default("10s") tls_handshake_timeout: Positive;
        /// How long a client connection is kept without a request, and how long a client may take none of an answer.
        default("60s") idle_timeout: Positive;
        /// How long neither side of a WebSocket or other tunnel may send a byte.
        default("10m") tunnel_idle_timeout: Positive;
        /// HTTP/2 with clients.
        optional http2: Http2Block;
    }
}

block! {
    /// HTTP/2 with clients, for each connection.
    struct Http2Block = "http2 limits" {
        /// Requests at a time.
        default("100") max_concurrent_streams: Count;
        /// What a client may send of one body before the upstream takes it.
        default("1MiB") stream_window: Size;
        /// And of all bodies together.
        default("2MiB") connection_window: Size;
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
