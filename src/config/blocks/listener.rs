//! Listeners and their routes.

use http::{HeaderName, HeaderValue, Method};

use super::egress::{EgressNetwork, RouteGuard, RuleBlock, ViaProxy};
use super::upstream::UpstreamBlock;
use crate::config::addresses::{Host, PathPrefix};
use crate::config::block::{block, choice};
use crate::config::context::Cx;
use crate::config::node::{Kind, Node};
use crate::config::read::{At, Definitions, Named, Read};
use crate::config::secrets::FileRef;
use crate::config::values::{Count, Positive, Size};
use crate::listener::{BindAddress, ProxyProtocol};
use crate::names::Name;
use crate::origin::Origin;
use crate::policy::trusted::TrustedPeer;
use crate::proxy::Underscores;
use crate::route::Replay;
use crate::route::rate::RateKey;
use crate::secret::SecretSource;

/// `kind` of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum ListenerKind {
    Reverse,
    Egress,
}

choice! { ListenerKind = "listener kind" { Self::Reverse => "reverse", Self::Egress => "egress" } }

choice! {
    ProxyProtocol = "PROXY protocol mode" {
        Self::Off => "off", Self::Optional => "optional", Self::Required => "required"
    }
}

block! {
    /// A socket that clients connect to.
    struct Listener = "listener" {
        /// Its name, in logs and metrics; unique.
        required name: Name;
        /// `reverse`: a reverse proxy whose routes decide. `egress`: a forward proxy whose rules decide.
        required kind: ListenerKind;
        /// Where it listens: `127.0.0.1:8080`, `"[::1]:8080"`, `unix:/path` or `systemd:NAME`; port 0 takes a free one.
        required bind: BindAddress;
        /// TLS with this certificate. Without it, cleartext.
        optional tls: ListenerTls;
        /// Proxies before this listener: networks (`10.0.0.0/8`), addresses, or `unix` for whoever connects to a Unix socket.
        /// What they say of a client (Forwarded, X-Forwarded-*, X-Real-IP, a PROXY header) is kept; of anyone else it is deleted.
        optional trusted_proxies: Vec<At<TrustedPeer>>;
        /// Whether a PROXY header (version 1 or 2) comes before everything else; needs `trusted_proxies`. `optional`: a trusted
        /// proxy may send one; name only proxies that never pass a client's first bytes on as they are. `required`: only trusted
        /// proxies may connect, and each connection begins with a header.
        default("off") proxy_protocol: ProxyProtocol;
        /// Lets whoever reaches an address that is not loopback use the credentials of its routes. Not needed with `tls.client_ca`.
        default("false") allow_unauthenticated: bool;
        /// What is taken of header fields.
        optional headers: HeaderRules;
        /// Passes interim responses of upstreams (102, 103) on to clients over HTTP/1.1 as well; over HTTP/2 they always pass. Old clients
        /// (Python's `http.client` is one) take a 103 for the answer.
        default("false") interim_responses: bool;
        /// Values of `Origin` whose requests are accepted; any other request of a browser's page is refused.
        optional allowed_origins: Vec<At<Origin>>;
        /// Who may use it: names from `clients`; a request from any of them is served, every other one is refused. Needed where
        /// other machines reach it.
        optional clients: Vec<At<Name>>;
        /// `reverse`: what goes where. The longest matching prefix wins.
        optional routes: Vec<At<Route>>;
        /// `egress`: what may go where. The first rule that matches decides; what none matches is denied.
        optional rules: Vec<At<RuleBlock>>;
        /// `egress`: the certificate authority that stands in for the hosts of rules that say `intercept`.
        optional intercept: InterceptBlock;
        /// `egress`: which resolved addresses may be dialled.
        optional egress_network: EgressNetwork;
        /// `egress`: what would be denied is told in the log and passes. The network guard and the binding of tokens hold all the same.
        default("false") dry_run: bool;
        /// `egress`: the HTTP proxy on the way of all rules that name none; the global `outbound_proxy` unless given.
        optional via_proxy: ViaProxy;
        /// `egress`: answers `GET /proxy.pac` with a script that leads the hosts of the rules through this listener.
        default("true") pac: bool;
        /// `egress`: speaks SOCKS5 on the same socket, with the same rules; user and password are those of a client with `basic`.
        default("false") socks5: bool;
    }
}

choice! {
    Underscores = "underscore mode" { Self::Reject => "reject", Self::Drop => "drop", Self::Keep => "keep" }
}

block! {
    /// What is taken of header fields.
    struct HeaderRules = "listener headers" {
        /// What becomes of a field such as `X_Forwarded_For`, which some servers take for the field with `-` that the proxy sets.
        /// `reject`: 400. `drop`: it is removed. `keep`: it passes, unless it stands for a credential or the framing. Other names
        /// with underscores always pass.
        default("reject") underscores: Underscores;
    }
}

block! {
    /// The listener's certificate. The files are read again when they change; TLS 1.2 and 1.3 are spoken.
    struct ListenerTls = "listener tls" {
        /// The PEM certificate chain, the listener's own certificate first.
        required cert: FileRef;
        /// The PEM private key of `cert`.
        required key: SecretSource;
        /// A PEM bundle: clients must show a certificate that one of these issued. Where each request must come from one of `clients`, and
        /// some of those are not known by certificate, a client may come without.
        optional client_ca: FileRef;
    }
}

block! {
    /// A certificate authority that clients of the listener trust. `bearward ca init` makes one that can sign for given hosts
    /// only. The files are read again when they change.
    struct InterceptBlock = "intercept" {
        /// The PEM certificate of the authority, its own issuers after it.
        required ca_cert: FileRef;
        /// The PEM private key of `ca_cert`.
        required ca_key: SecretSource;
    }
}

block! {
    /// Requests that match go to the upstream, with the credential's token.
    struct Route = "route" {
        /// Its name, in logs and metrics; unique in its listener.
        required name: Name;
        /// Which requests; without it, all.
        optional r#match: Match;
        /// The server: an origin such as `https://api.example.com` or `unix:/run/app.sock`, or a mapping with more settings.
        required upstream: Upstream;
        /// Replaces the matched prefix of the path. Without it the path goes on unchanged.
        optional rewrite_prefix: PathPrefix;
        /// The credential whose token is injected: a name, or a mapping that says which one for whom. Without it nothing is injected
        /// and a client's own `Authorization` passes.
        optional credential: RouteCredential;
        /// Sends the client's Host field on instead of the upstream's own.
        default("false") preserve_host: bool;
        /// Changes of the request's header fields.
        optional request_headers: HeaderEditsBlock;
        /// Changes of the request's query.
        optional query: QueryBlock;
        /// Changes of the response's header fields.
        optional response_headers: HeaderEditsBlock;
        /// Tells the upstream's own addresses in the response as the client has to ask for them. Without it, they pass as they come.
        optional rewrite_response: RewriteResponse;
        /// How long to wait for the upstream.
        optional timeouts: TimeoutsBlock;
        /// What an upstream's 401 to a request with the credential's token causes.
        optional on_unauthorized: OnUnauthorizedBlock;
        /// How long a request may wait for a first token before it is answered with 503.
        default("0s") wait_for_token: super::Grace;
        /// Who may use this route, of those that the listener lets in; without it, all of them.
        optional clients: Vec<At<Name>>;
        /// How often this route may be used.
        optional rate_limit: RateLimitBlock;
        /// Requests under way at a time, in the whole process; more are answered with 429. A WebSocket counts until it is open.
        optional concurrency: Count;
        /// The longest request body; a longer one is answered with 413. `limits.request_body` unless given.
        optional max_body: Size;
        /// `true`: of the addresses that the upstream's names resolve to, only those of the internet are dialled, as by an egress listener.
        /// A mapping makes exceptions. For health checks, retries and each new resolution as well.
        optional network_guard: RouteGuard;
        /// Lets the token go over plain http to another machine.
        default("false") allow_plaintext: bool;
    }
}

block! {
    /// What happens when the upstream refuses the token (401).
    struct OnUnauthorizedBlock = "on_unauthorized" {
        /// Asks for a new token, at most twice in ten minutes for a credential.
        default("true") refresh: bool;
        /// Which requests are sent again, once, with a newer token.
        default("any") replay: Replay;
        /// Acts only where a Bearer challenge says `invalid_token`; else every 401 counts.
        default("false") require_challenge: bool;
        /// The longest request body that is kept for sending it again; at most `1MiB`.
        default("64KiB") max_body: Size;
    }
}

choice! { Replay = "replay" { Self::None => "none", Self::Idempotent => "idempotent", Self::Any => "any" } }

block! {
    /// Which requests a route is for; all conditions must hold.
    struct Match = "match" {
        /// Hosts of the request; one with a port is for that port alone. Without it, the listener's bind address and `localhost`.
        optional hosts: Vec<At<Host>>;
        /// The beginning of the path, on segment boundaries. A path that a server could read as another entry's, by decoding `%2f` or `%2e`, merging slashes or dropping `;parameters`, is refused with 400.
        default("/") path_prefix: PathPrefix;
        /// Methods; without it, all.
        optional methods: Vec<At<Method>>;
    }
}

/// `credential` of a route: a name or a mapping.
#[derive(Debug, Clone)]
pub(in crate::config) enum RouteCredential {
    Name(Name),
    Choice(Box<CredentialChoice>),
}

impl Read for RouteCredential {
    fn schema(definitions: &mut Definitions) -> serde_json::Value {
        let name = <Name as Read>::schema(definitions);
        serde_json::json!({"anyOf": [name, CredentialChoice::schema(definitions)]})
    }

    fn read(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        match &node.kind {
            Kind::Map(_) => CredentialChoice::read(node, cx).map(|block| Self::Choice(Box::new(block))),
            _ => <Name as Read>::read(node, cx).map(Self::Name),
        }
    }
}

block! {
    /// Which credential for whom. A request for which none is named is refused with 403.
    struct CredentialChoice = "credential choice" {
        /// By the client that sends the request: names from `clients`, each with its credential.
        optional per_client: Named<Name>;
        /// By a header field that a trusted proxy sets.
        optional by_header: ByHeader;
        /// The password grant for each user (basic translation): a request's Basic user and password are exchanged for a token of the
        /// user's own. Names a credential with `grant: password` and no `username`. For clients that can do nothing else.
        optional translate_basic: Name;
        /// For everybody else; without it, they are refused.
        optional default: Name;
    }
}

block! {
    /// A header field that decides which credential a request gets. It is believed of `trusted_proxies` alone, who must never pass on
    /// a client's own, and it ends here.
    struct ByHeader = "by_header" {
        /// The field, such as `X-Tenant`.
        required name: HeaderName;
        /// Its values, each with its credential; any other value is refused.
        required values: Named<Name>;
    }
}

/// `upstream`: an origin or a mapping.
#[derive(Debug, Clone)]
pub(in crate::config) enum Upstream {
    Origin(Origin),
    Full(Box<UpstreamBlock>),
}

impl Read for Upstream {
    fn schema(definitions: &mut Definitions) -> serde_json::Value {
        let origin = <Origin as Read>::schema(definitions);
        serde_json::json!({"anyOf": [origin, UpstreamBlock::schema(definitions)]})
    }

    fn read(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        match &node.kind {
            Kind::Map(_) => UpstreamBlock::read(node, cx).map(|block| Self::Full(Box::new(block))),
            _ => <Origin as Read>::read(node, cx).map(Self::Origin),
        }
    }
}

choice! {
    RateKey = "rate limit key" { Self::Client => "client", Self::Address => "address", Self::Route => "route" }
}

block! {
    /// A token bucket, for the whole process. What exceeds it is answered with 429 and `Retry-After`; every answer tells the bucket
    /// in `RateLimit` and `RateLimit-Policy`.
    struct RateLimitBlock = "rate limit" {
        /// How many requests.
        required requests: Count;
        /// In which time.
        default("1s") per: Positive;
        /// How many at once; as many as `requests` unless given.
        optional burst: Count;
        /// Who shares a bucket. `client`: a client by its name, one without a name by its address. `address`: whoever has one
        /// address, or one IPv6 network of 64 bits. `route`: all that come by this route or rule.
        default("client") key: RateKey;
    }
}

block! {
    /// Changes of header fields; removal comes first, then setting, then adding.
    struct HeaderEditsBlock = "headers" {
        /// Fields to set, replacing what is there.
        optional set: Named<HeaderValue>;
        /// Fields to add beside those that are there.
        optional add: Named<HeaderValue>;
        /// Fields to remove.
        optional remove: Vec<At<HeaderName>>;
    }
}

block! {
    /// Changes of the query. Names are compared as a server reads them: decoded, in either letter case.
    struct QueryBlock = "query" {
        /// Parameters to set, replacing those of the same name; they are escaped as needed.
        optional set: Named<String>;
        /// Parameters to remove.
        optional remove: Vec<At<String>>;
    }
}

block! {
    /// What of a response is told in the client's terms: for an upstream that makes addresses out of its own name, or under
    /// `rewrite_prefix`.
    struct RewriteResponse = "rewrite_response" {
        /// `Location`, `Content-Location` and `Refresh` that lead to the upstream lead to this listener, as the client called it, and
        /// to the matched prefix.
        default("true") location: bool;
        /// `Set-Cookie` loses a `Domain` of the upstream's, gets the matched prefix as its `Path`, and over cleartext loses `Secure`.
        default("true") cookies: bool;
    }
}

block! {
    /// Deadlines of one request. There is no limit on the whole.
    struct TimeoutsBlock = "timeouts" {
        /// Name resolution, TCP and TLS.
        default("5s") connect: Positive;
        /// From the whole request sent to the head of the response.
        default("5m") first_byte: Positive;
        /// Between two pieces of the response's body.
        default("5m") response_idle: Positive;
        /// Between two pieces of the request's body.
        default("30s") request_idle: Positive;
    }
}
