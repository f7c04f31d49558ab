//! `rules:` of an egress listener, and what goes with them.

use std::path::Path;
use std::time::Duration;

use super::route::{self, RouteUse};
use crate::clock::Clock;
use crate::config::blocks::egress::{EgressNetwork, RuleBlock, RuleMatchBlock};
use crate::config::blocks::listener::{InterceptBlock, Listener};
use crate::config::context::Cx;
use crate::config::egress::HostGlob;
use crate::config::read::At;
use crate::config::secrets::FileRef;
use crate::config::source::Span;
use crate::names::Name;
use crate::origin::{Origin, Scheme};
use crate::policy::egress::{Action, Rule, RuleMatch, Target};
use crate::policy::network::NetworkGuard;
use crate::proxy::egress::{EgressConfig, RuleConfig};
use crate::route::{NetworkRules, RouteConfig};
use crate::secret::SecretSource;
use crate::tls::TlsClientConfig;
use crate::tls::mint::{Mint, MintConfig};
use crate::upstream::{HttpVersion, UpstreamConfig, UpstreamOptions};

/// Origins of one rule that are listed for its credential.
const MAX_ORIGINS: usize = 64;
/// Stands where the origin of the request will.
const NOWHERE: &str = "https://egress.invalid";

/// What makes a listener an egress listener.
pub(super) fn egress(
    block: &Listener,
    proxy: Option<&url::Url>,
    uses: &mut Vec<RouteUse>,
    cx: &mut Cx<'_>,
) -> Option<EgressConfig> {
    let blocks: &[At<RuleBlock>] =
        block.rules.as_ref().map(|rules| rules.value.as_slice()).unwrap_or_default();
    super::listener::unique(blocks.iter().filter_map(|rule| rule.value.name.as_ref()), "rule", cx);
    let via = block.via_proxy.as_ref().map(|via| super::via::proxy(via, cx));
    let proxy = match &via {
        Some(via) => via.clone(),
        None => proxy.cloned(),
    };
    check_clients(block, blocks, cx);
    let intercept = block.intercept.as_ref().map(|at| intercept(at, blocks, cx));
    if intercept.is_none() {
        refuse_interception(blocks, cx);
    }
    let rules: Vec<_> = blocks
        .iter()
        .enumerate()
        .map(|(place, block)| rule(place, block, proxy.as_ref(), uses, cx))
        .collect();
    let known: Vec<_> = rules.iter().map(|rule| rule.as_ref().map(|rule| &rule.rule)).collect();
    super::shadow::check(blocks, &known, cx);
    if let Some(list) =
        block.rules.as_ref().filter(|list| list.value.is_empty() && !cx.reported_in(list.span))
    {
        cx.warning(list.span, "there is no rule: everything is denied").hint(
            "`- {match: {hosts: [api.example.com], ports: [443]}, action: tunnel}` lets one host through",
        );
    }
    if via.is_some_and(|via| via.is_none()) {
        return None;
    }
    let unruled = RuleConfig {
        rule: Rule { condition: RuleMatch::default(), action: Action::Deny },
        route: RouteConfig::to(Name::try_new("dry-run").ok()?, nowhere(proxy)?),
        upstream_port: None,
        dry_run: false,
        tunnel_idle: Duration::from_secs(600),
    };
    let network = block.egress_network.as_ref().map(|block| network(&block.value)).unwrap_or_default();
    Some(EgressConfig {
        rules: rules.into_iter().collect::<Option<_>>()?,
        unruled,
        network: NetworkGuard::new(network.allow, network.deny),
        dry_run: block.dry_run.as_ref()?.value,
        pac: block.pac.as_ref()?.value,
        socks5: block.socks5.as_ref()?.value,
        intercept: match intercept {
            Some(intercept) => Some(intercept?),
            None => None,
        },
    })
}

/// Rules that say `intercept`.
fn intercepting(rules: &[At<RuleBlock>]) -> impl Iterator<Item = (&At<RuleBlock>, &At<Action>)> {
    rules
        .iter()
        .filter_map(|rule| Some((rule, rule.value.action.as_ref()?)))
        .filter(|(_, action)| action.value == Action::Intercept)
}

fn refuse_interception(rules: &[At<RuleBlock>], cx: &mut Cx<'_>) {
    for (_, action) in intercepting(rules) {
        cx.error(action.span, "the listener has no CA to intercept with").hint(
            "`bearward ca init --permit HOST` makes one; then `intercept: {ca_cert: {file: ca.crt}, ca_key: {file: ca.key}}` on \
             the listener",
        );
    }
}

/// `intercept:`: the files are read, and held against the rules.
fn intercept(at: &At<InterceptBlock>, rules: &[At<RuleBlock>], cx: &mut Cx<'_>) -> Option<MintConfig> {
    let InterceptBlock { ca_cert, ca_key, .. } = &at.value;
    if let (Some(cert), Some(At { value: SecretSource::File(path), .. })) = (ca_cert, ca_key)
        && !path.exists()
        && !cert.value.0.exists()
    {
        not_made(at.span, (&cert.value.0, path), rules, cx);
        return None;
    }
    let readable = [
        super::secret::file_if_given(ca_cert.as_ref(), "the certificate", cx),
        ca_key.as_ref().is_none_or(|key| super::secret::check(key, "the private key", cx)),
    ];
    let (cert, key) = (ca_cert.as_ref()?, ca_key.as_ref()?);
    if readable.contains(&false) {
        return None;
    }
    let config = MintConfig { ca_cert: cert.value.0.clone(), ca_key: key.value.clone() };
    // A command is run when the listener starts, not here.
    if matches!(config.ca_key, SecretSource::Exec(_)) {
        return Some(config);
    }
    match Mint::try_new(&config) {
        Ok(mint) => check_authority(&mint, cert, rules, cx),
        Err(error) => {
            cx.error(at.span, format!("this CA cannot be used: {error}"));
            return None;
        }
    }
    Some(config)
}

/// Who begins has neither file.
fn not_made(span: Span, (cert, key): (&Path, &Path), rules: &[At<RuleBlock>], cx: &mut Cx<'_>) {
    let (cert, key) = (cert.display(), key.display());
    let permits: String = exact_hosts(rules).map(|host| [" --permit ", &bare(host)].concat()).collect();
    let permits = if permits.is_empty() { " --permit HOST".to_owned() } else { permits };
    cx.error(span, format!("there is no CA yet: neither {cert} nor {key} is there"))
        .hint(format!("`bearward ca init --cert {cert} --key {key}{permits}` makes one"));
}

/// The hosts of rules that intercept, but for patterns.
fn exact_hosts(rules: &[At<RuleBlock>]) -> impl Iterator<Item = &At<HostGlob>> {
    let hosts = intercepting(rules).filter_map(|(rule, _)| rule.value.r#match.as_ref()?.value.hosts.as_ref());
    hosts.flat_map(|hosts| &hosts.value).filter(|host| !host.value.0.is_wildcard())
}

/// Without the brackets of an IPv6 address.
fn bare(host: &At<HostGlob>) -> String {
    let name = host.value.0.to_string();
    name.trim_start_matches('[').trim_end_matches(']').to_owned()
}

fn check_authority(mint: &Mint, cert: &At<FileRef>, rules: &[At<RuleBlock>], cx: &mut Cx<'_>) {
    let path = cert.value.0.display();
    if mint.not_after() <= Clock::System.wall() {
        cx.warning(
            cert.span,
            format!("the CA in {path} has expired at {}; clients refuse it", mint.not_after().rfc3339()),
        )
        .hint("make a new one with `bearward ca init`, and install it where the clients trust it");
    }
    if mint.is_unconstrained() {
        cx.warning(
            cert.span,
            format!("the CA in {path} can sign for any name, not only for those of the rules"),
        )
        .hint("`bearward ca init --permit HOST` makes one that cannot");
    }
    for host in exact_hosts(rules) {
        let plain = bare(host);
        if !mint.permits(&plain) {
            cx.error(host.span, format!("the CA in {path} may not sign for `{}`", host.value.0)).hint(format!(
                "make one that may: `bearward ca init --permit {plain}`, with `--permit` for each other host"
            ));
        }
    }
}

/// A rule can only tell clients apart that the listener asks for.
fn check_clients(listener: &Listener, rules: &[At<RuleBlock>], cx: &mut Cx<'_>) {
    let asked: Vec<&Name> =
        listener.clients.iter().flat_map(|list| list.value.iter().map(|name| &name.value)).collect();
    let conditions = rules.iter().filter_map(|rule| rule.value.r#match.as_ref());
    for name in
        conditions.filter_map(|condition| condition.value.clients.as_ref()).flat_map(|list| &list.value)
    {
        if !asked.contains(&&name.value) {
            cx.error(name.span, format!("the listener does not ask for the client `{}`", name.value))
                .hint("list it in `clients` of the listener, too");
        }
    }
}

fn nowhere(outbound_proxy: Option<url::Url>) -> Option<UpstreamConfig> {
    let origin = Origin::try_new(NOWHERE).ok()?;
    Some(UpstreamConfig {
        origin,
        http: HttpVersion::Auto,
        tls: TlsClientConfig::default(),
        outbound_proxy,
        options: UpstreamOptions::default(),
    })
}

pub(super) fn network(block: &EgressNetwork) -> NetworkRules {
    let nets = |list: &Option<At<Vec<At<ipnet::IpNet>>>>| {
        list.iter().flat_map(|list| list.value.iter().map(|net| net.value)).collect()
    };
    NetworkRules { allow: nets(&block.allow_private), deny: nets(&block.deny) }
}

fn rule(
    place: usize,
    at: &At<RuleBlock>,
    proxy: Option<&url::Url>,
    uses: &mut Vec<RouteUse>,
    cx: &mut Cx<'_>,
) -> Option<RuleConfig> {
    let block = &at.value;
    // What is wrong beside the action shows also where that cannot be read.
    let action = block.action.as_ref().map(|action| action.value);
    let condition = condition(block.r#match.as_ref().map(|condition| &condition.value));
    if let Some(action) = action {
        check_condition(at, action, &condition, cx);
    }
    check_credential(block, action, &condition, uses, cx);
    let injects = block.credential.is_some();
    let request_headers = route::edits(block.request_headers.as_ref(), injects, true, cx);
    let response_headers = route::edits(block.response_headers.as_ref(), false, false, cx);
    let tls = block.tls.as_ref().map(|tls| route::tls(tls, cx));
    let via = block.via_proxy.as_ref().map(|via| super::via::proxy(via, cx));
    let on_unauthorized = route::on_unauthorized(block.on_unauthorized.as_ref(), cx);
    let outbound_proxy = match via {
        Some(via) => Some(via?),
        None => proxy.cloned(),
    };
    let mut upstream = nowhere(outbound_proxy)?;
    if let Some(tls) = tls {
        upstream.tls = tls?;
    }
    let name = match &block.name {
        Some(name) => name.value.clone(),
        None => Name::try_new(&format!("rule-{}", place + 1)).ok()?,
    };
    let route = RouteConfig {
        path_prefix: condition.path_prefix.clone().unwrap_or_else(|| "/".to_owned()),
        methods: condition.methods.clone(),
        credential: block.credential.as_ref().map(|name| name.value.clone()),
        request_headers,
        response_headers,
        timeouts: route::timeouts(block.timeouts.as_ref().map(|timeouts| &timeouts.value))?,
        on_unauthorized: on_unauthorized?,
        wait_for_token: block.wait_for_token.as_ref()?.value,
        allow_plaintext: block.allow_plaintext.as_ref()?.value,
        throttle: super::throttle::of_route(block.rate_limit.as_ref(), block.concurrency.as_ref())?,
        ..RouteConfig::to(name, upstream)
    };
    Some(RuleConfig {
        rule: Rule { condition, action: action? },
        route,
        upstream_port: block.upstream_port.as_ref().map(|port| port.value.0),
        dry_run: block.dry_run.as_ref()?.value,
        tunnel_idle: block.tunnel_idle.as_ref()?.value.0,
    })
}

fn condition(block: Option<&RuleMatchBlock>) -> RuleMatch {
    let Some(block) = block else { return RuleMatch::default() };
    RuleMatch {
        hosts: block
            .hosts
            .iter()
            .flat_map(|list| list.value.iter().map(|host| host.value.0.clone()))
            .collect(),
        ports: block
            .ports
            .iter()
            .flat_map(|list| list.value.iter().map(|range| (range.value.0, range.value.1)))
            .collect(),
        clients: block
            .clients
            .iter()
            .flat_map(|list| list.value.iter().map(|name| name.value.clone()))
            .collect(),
        methods: block
            .methods
            .iter()
            .flat_map(|list| list.value.iter().map(|method| method.value.clone()))
            .collect(),
        path_prefix: block.path_prefix.as_ref().map(|prefix| prefix.value.0.clone()),
    }
}

/// Conditions that cannot be meant with this action.
fn check_condition(at: &At<RuleBlock>, action: Action, condition: &RuleMatch, cx: &mut Cx<'_>) {
    let block = &at.value;
    let spot = block.action.as_ref().map_or(at.span, |action| action.span);
    if condition.hosts.is_empty() && action != Action::Deny && !cx.reported_in(at.span) {
        cx.error(spot, format!("a rule that says `{}` names the hosts that it is for", action.as_str()))
            .hint("`match: {hosts: [api.example.com]}`; `hosts: [\"**\"]` if every host is meant");
    }
    if let Some(block) = block.r#match.as_ref().map(|condition| &condition.value) {
        let unseen =
            [block.methods.as_ref().map(|list| list.span), block.path_prefix.as_ref().map(|path| path.span)];
        for span in unseen.into_iter().flatten().filter(|_| action == Action::Tunnel) {
            cx.error(span, "a tunnel shows neither method nor path").hint("remove this condition");
        }
    }
    let spoken = match &block.upstream_port {
        Some(port) => (port.value.0 == 443).then_some(port.span),
        None => {
            block.r#match.as_ref().and_then(|condition| condition.value.ports.as_ref()).and_then(|ports| {
                ports
                    .value
                    .iter()
                    .find(|range| (range.value.0, range.value.1) == (443, 443))
                    .map(|range| range.span)
            })
        }
    };
    if let Some(span) = spoken.filter(|_| action == Action::Forward) {
        cx.warning(span, "`forward` sends requests on in plain text, and servers speak TLS on port 443")
            .hint("`action: upgrade` sends them on over TLS, `action: tunnel` lets a client's own TLS pass");
    }
    let limits = [block.rate_limit.as_ref().map(|at| at.span), block.concurrency.as_ref().map(|at| at.span)];
    for span in limits.into_iter().flatten().filter(|_| action == Action::Deny) {
        cx.error(span, "a limit has no effect on a rule that says `deny`: nothing passes").hint("remove it");
    }
    if let Some(tls) = block.tls.as_ref().filter(|_| !matches!(action, Action::Upgrade | Action::Intercept)) {
        cx.error(tls.span, format!("`tls` has no effect on a rule that says `{}`", action.as_str()));
    }
}

/// A token goes to origins that are written down, in the rule or with the credential.
fn check_credential(
    block: &RuleBlock,
    action: Option<Action>,
    condition: &RuleMatch,
    uses: &mut Vec<RouteUse>,
    cx: &mut Cx<'_>,
) {
    let Some(credential) = &block.credential else { return };
    let scheme = match action {
        Some(Action::Forward) => Scheme::Http,
        Some(Action::Upgrade | Action::Intercept) => Scheme::Https,
        Some(Action::Tunnel | Action::Deny | Action::StubTokenEndpoint) | None => {
            if let Some(action) = action {
                cx.error(credential.span, format!("a rule that says `{}` injects no token", action.as_str()))
                    .hint("remove `credential`; `upgrade` sends a plain request on over TLS with the token");
            }
            // That there is such a credential is judged all the same.
            let (credential, origins) = (credential.clone(), Vec::new());
            uses.push(RouteUse { credential, origins, allow_plaintext: false, open: false, assumed: false });
            return;
        }
    };
    let span = block.r#match.as_ref().map_or(credential.span, |condition| {
        condition.value.hosts.as_ref().map_or(condition.span, |hosts| hosts.span)
    });
    let allow_plaintext = block.allow_plaintext.as_ref().is_some_and(|allowed| allowed.value);
    let used = |origin: Option<Origin>| RouteUse {
        credential: credential.clone(),
        origins: origin.into_iter().map(|value| At { value, span }).collect(),
        allow_plaintext,
        open: false,
        assumed: condition.ports.is_empty() && block.upstream_port.is_none(),
    };
    match origins(condition, scheme, block.upstream_port.as_ref().map(|port| port.value.0)) {
        Some(origins) => uses.extend(origins.into_iter().map(|origin| used(Some(origin)))),
        None => uses.push(RouteUse { open: true, ..used(None) }),
    }
}

/// The origins that a rule leads to, where they can be told.
fn origins(condition: &RuleMatch, scheme: Scheme, port: Option<u16>) -> Option<Vec<Origin>> {
    let ports: Vec<u16> = match (port, condition.ports.as_slice()) {
        (Some(port), _) => vec![port],
        (None, []) => vec![scheme.default_port()],
        (None, ranges) => ranges
            .iter()
            .map(|(from, to)| match (from == to, scheme, from) {
                (false, ..) => None,
                (true, Scheme::Https, 80) => Some(443),
                (true, _, port) => Some(*port),
            })
            .collect::<Option<_>>()?,
    };
    if condition.hosts.is_empty()
        || condition.hosts.len() * ports.len() > MAX_ORIGINS
        || condition.hosts.iter().any(crate::policy::egress::HostPattern::is_wildcard)
    {
        return None;
    }
    let pairs =
        condition.hosts.iter().flat_map(|host| ports.iter().map(move |port| (host.to_string(), *port)));
    pairs.map(|(host, port)| Target::new(&host, port).ok()?.origin(scheme, None)).collect()
}
