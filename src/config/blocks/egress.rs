//! The rules of egress listeners.

use http::Method;
use ipnet::IpNet;

use super::Tls;
use super::listener::{HeaderEditsBlock, OnUnauthorizedBlock, RateLimitBlock, TimeoutsBlock};
use crate::config::addresses::{PathPrefix, ProxyUrl};
use crate::config::block::{block, choice};
use crate::config::context::Cx;
use crate::config::egress::{HostGlob, Port, PortRange};
use crate::config::node::{Kind, Node};
use crate::config::read::{At, Definitions, Read};
use crate::config::values::{Count, NonEmpty, Positive};
use crate::names::Name;
use crate::policy::egress::Action;
use crate::secret::SecretSource;

choice! {
    Action = "egress action" {
        Self::Upgrade => "upgrade", Self::Forward => "forward", Self::Tunnel => "tunnel", Self::Deny => "deny",
        Self::Intercept => "intercept", Self::StubTokenEndpoint => "stub_token_endpoint"
    }
}

block! {
    /// What becomes of requests through an egress listener. The first rule that matches decides; what none matches is denied.
    struct RuleBlock = "rule" {
        /// Its name, in logs, metrics and refusals; unique in its listener. `rule-1`, `rule-2` … unless given.
        optional name: Name;
        /// Which requests; all conditions must hold.
        optional r#match: RuleMatchBlock;
        /// `forward`: a plain request (`GET http://host/…`) goes on as it is. `upgrade`: it goes on over TLS. `tunnel`: CONNECT opens a
        /// way for bytes, which pass untouched. `intercept`: TLS inside CONNECT is ended here, and the requests inside go on over TLS
        /// with the token; needs `intercept` of the listener. `deny`: refused with 403. `stub_token_endpoint`: a token endpoint is answered
        /// here, with a placeholder for a token.
        required action: Action;
        /// The credential whose token is injected (`forward`, `upgrade`, `intercept`). It goes to its `allowed_upstreams` only, which
        /// must be given where the rule's hosts or ports are not single ones.
        optional credential: Name;
        /// The port to connect to in place of the request's. Without it, `upgrade` makes 443 of 80 and leaves every other one.
        optional upstream_port: Port;
        /// Whom to trust, and a client certificate, for `upgrade` and `intercept`.
        optional tls: Tls;
        /// The HTTP proxy on the way; the listener's unless given.
        optional via_proxy: ViaProxy;
        /// Changes of the request's header fields.
        optional request_headers: HeaderEditsBlock;
        /// Changes of the response's header fields.
        optional response_headers: HeaderEditsBlock;
        /// How long to wait for the upstream; `connect` holds for tunnels too.
        optional timeouts: TimeoutsBlock;
        /// What an upstream's 401 to a request with the credential's token causes.
        optional on_unauthorized: OnUnauthorizedBlock;
        /// How long a request may wait for a first token before it is answered with 503.
        default("0s") wait_for_token: super::Grace;
        /// How often this rule may be used. A tunnel counts once; of an intercepted connection each request inside does, and
        /// CONNECT does not.
        optional rate_limit: RateLimitBlock;
        /// Requests under way and tunnels open at a time, in the whole process; more are answered with 429.
        optional concurrency: Count;
        /// Lets the token go over plain http to another machine.
        default("false") allow_plaintext: bool;
        /// What this rule would deny is told in the log and passes.
        default("false") dry_run: bool;
        /// How long no byte may come from either side of a tunnel.
        default("10m") tunnel_idle: Positive;
    }
}

block! {
    /// Which requests a rule is for; all conditions must hold.
    struct RuleMatchBlock = "rule match" {
        /// Hosts: a name, `*.example.com` (one label), `**.example.com` (any depth), an IP address, or `**` for all. Only
        /// a rule that denies may do without.
        optional hosts: Vec<At<HostGlob>>;
        /// Ports of the request's target, `443` or `8000-8999`; without them, all.
        optional ports: Vec<At<PortRange>>;
        /// Clients; without them, all.
        optional clients: Vec<At<Name>>;
        /// Methods; without them, all. Not for `tunnel`, where none is seen.
        optional methods: Vec<At<Method>>;
        /// The beginning of the path, on segment boundaries. A path that a server could read as another entry's, by decoding `%2f` or `%2e`, merging slashes or dropping `;parameters`, is refused with 400. Not for `tunnel`.
        optional path_prefix: PathPrefix;
    }
}

block! {
    /// Which resolved addresses may be dialled. Loopback, private, link-local and other addresses that are not of the internet, metadata
    /// services of clouds and this process's own listeners are denied without a word.
    struct EgressNetwork = "egress_network" {
        /// Exceptions from the built-in denials. A metadata service needs its very address (`169.254.169.254/32`); the
        /// process's own listeners can have none.
        optional allow_private: Vec<At<IpNet>>;
        /// More networks that are denied; they win over `allow_private`.
        optional deny: Vec<At<IpNet>>;
    }
}

/// `network_guard` of a route: a switch, or a mapping with exceptions.
#[derive(Debug, Clone)]
pub(in crate::config) enum RouteGuard {
    Switch(bool),
    Full(Box<EgressNetwork>),
}

impl Read for RouteGuard {
    fn schema(definitions: &mut Definitions) -> serde_json::Value {
        let switch = <bool as Read>::schema(definitions);
        serde_json::json!({"anyOf": [switch, EgressNetwork::schema(definitions)]})
    }

    fn read(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        match &node.kind {
            Kind::Map(_) => EgressNetwork::read(node, cx).map(|block| Self::Full(Box::new(block))),
            _ => <bool as Read>::read(node, cx).map(Self::Switch),
        }
    }
}

/// `via_proxy`: a URL or a mapping.
#[derive(Debug, Clone)]
pub(in crate::config) enum ViaProxy {
    Url(ProxyUrl),
    Full(Box<ViaProxyBlock>),
}

impl Read for ViaProxy {
    fn schema(definitions: &mut Definitions) -> serde_json::Value {
        let url = <ProxyUrl as Read>::schema(definitions);
        serde_json::json!({"anyOf": [url, ViaProxyBlock::schema(definitions)]})
    }

    fn read(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        match &node.kind {
            Kind::Map(_) => ViaProxyBlock::read(node, cx).map(|block| Self::Full(Box::new(block))),
            _ => <ProxyUrl as Read>::read(node, cx).map(Self::Url),
        }
    }
}

block! {
    /// An HTTP proxy that wants to know who asks.
    struct ViaProxyBlock = "via_proxy" {
        /// The proxy.
        required url: ProxyUrl;
        /// The user of its `Proxy-Authorization`.
        optional username: NonEmpty;
        /// The password; read when the configuration is.
        optional password: SecretSource;
    }
}
