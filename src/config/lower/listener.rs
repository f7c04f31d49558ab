//! `listeners:`.

use super::egress;
use super::route::{self, RouteUse};
use crate::clock::Clock;
use crate::config::blocks::File;
use crate::config::blocks::listener::{Listener, ListenerKind, ListenerTls, Route};
use crate::config::context::Cx;
use crate::config::read::At;
use crate::config::secrets::FileRef;
use crate::config::source::Span;
use crate::listener::{BindAddress, ListenerConfig, ProxyProtocol};
use crate::names::Name;
use crate::policy::trusted::{TrustedPeer, TrustedProxies};
use crate::proxy::Underscores;
use crate::route::RouteConfig;
use crate::secret::SecretSource;
use crate::tls::server::{TlsServer, TlsServerConfig};
use crate::tls::x509::{Certificate, Standing};

/// All listeners; `None` in the place of one that cannot be built.
pub(super) fn listeners(
    file: &File,
    proxy: Option<&url::Url>,
    uses: &mut Vec<RouteUse>,
    cx: &mut Cx<'_>,
) -> Vec<Option<ListenerConfig>> {
    let Some(listeners) = &file.listeners else { return Vec::new() };
    unique(listeners.value.iter().filter_map(|listener| listener.value.name.as_ref()), "listener", cx);
    listeners.value.iter().map(|block| listener(&block.value, file, (proxy, uses), cx)).collect()
}

/// Reports names that are given twice.
pub(super) fn unique<'a>(names: impl Iterator<Item = &'a At<Name>>, what: &str, cx: &mut Cx<'_>) {
    let mut seen: Vec<&At<Name>> = Vec::new();
    for name in names {
        if let Some(first) = seen.iter().find(|first| first.value == name.value) {
            cx.error(name.span, format!("the {what} name `{}` is given twice", name.value))
                .label("again here")
                .also(first.span, "first here");
        } else {
            seen.push(name);
        }
    }
}

fn listener(
    block: &Listener,
    file: &File,
    (proxy, uses): (Option<&url::Url>, &mut Vec<RouteUse>),
    cx: &mut Cx<'_>,
) -> Option<ListenerConfig> {
    let blocks: &[At<Route>] =
        block.routes.as_ref().map(|routes| routes.value.as_slice()).unwrap_or_default();
    unique(blocks.iter().filter_map(|route| route.value.name.as_ref()), "route", cx);
    let routes: Vec<Option<RouteConfig>> =
        blocks.iter().map(|block| route::route(&block.value, proxy, uses, cx)).collect();
    // What is wrong with rules shows also where the kind cannot be read.
    let is_egress = match &block.kind {
        Some(kind) => kind.value == ListenerKind::Egress,
        None => block.rules.is_some(),
    };
    let egress = is_egress.then(|| egress::egress(block, proxy, uses, cx));
    check_kind(block, cx);
    if let Some(routes) = &block.routes
        && routes.value.is_empty()
        && !cx.reported_in(routes.span)
    {
        cx.error(routes.span, "the listener has no route")
            .hint("each route has at least `name` and `upstream`");
    }
    let bind = block.bind.as_ref();
    if let Some(bind) = bind {
        check_exposure(block, bind, cx);
        same_matches(blocks, &routes, &bind.value, cx);
    }
    let optional = super::clients::may_come_without_certificate(file, block);
    let tls = block.tls.as_ref().map(|block| tls(block, optional, cx));
    let trusted_proxies = trusted_proxies(block, cx);
    block.kind.as_ref()?;
    Some(ListenerConfig {
        name: block.name.as_ref()?.value.clone(),
        bind: bind?.value.clone(),
        tls: match tls {
            Some(tls) => Some(tls?),
            None => None,
        },
        trusted_proxies,
        proxy_protocol: block.proxy_protocol.as_ref()?.value,
        allow_unauthenticated: block.allow_unauthenticated.as_ref()?.value,
        underscores: match &block.headers {
            Some(rules) => rules.value.underscores.as_ref()?.value,
            None => Underscores::default(),
        },
        interim_responses: block.interim_responses.as_ref()?.value,
        allowed_origins: block
            .allowed_origins
            .iter()
            .flat_map(|origins| origins.value.iter().map(|origin| origin.value.to_string()))
            .collect(),
        clients: super::clients::listed(block.clients.as_ref()),
        routes: routes.into_iter().collect::<Option<_>>()?,
        egress: match egress {
            Some(egress) => Some(egress?),
            None => None,
        },
    })
}

/// Each kind has fields of its own.
fn check_kind(block: &Listener, cx: &mut Cx<'_>) {
    let Some(kind) = &block.kind else { return };
    let (own, span, others) = match kind.value {
        ListenerKind::Reverse => (
            "routes",
            block.routes.as_ref().map(|list| list.span),
            [
                ("rules", block.rules.as_ref().map(|list| list.span)),
                ("egress_network", block.egress_network.as_ref().map(|network| network.span)),
                ("via_proxy", block.via_proxy.as_ref().map(|via| via.span)),
                ("intercept", block.intercept.as_ref().map(|intercept| intercept.span)),
            ],
        ),
        ListenerKind::Egress => (
            "rules",
            block.rules.as_ref().map(|list| list.span),
            [
                ("routes", block.routes.as_ref().map(|list| list.span)),
                ("allowed_origins", block.allowed_origins.as_ref().map(|list| list.span)),
                ("", None),
                ("", None),
            ],
        ),
    };
    let (is, other) = match kind.value {
        ListenerKind::Reverse => ("reverse", "egress"),
        ListenerKind::Egress => ("egress", "reverse"),
    };
    for (key, span) in others {
        if let Some(span) = span {
            cx.error(span, format!("`{key}` is for listeners of `kind: {other}`"))
                .also(kind.span, format!("this one is `{is}`"));
        }
    }
    if span.is_none() {
        let place = Span::new(block.place.file, block.place.start, block.place.start + 1);
        cx.error(place, format!("the key `{own}` of `listener` is missing"));
    }
}

/// `trusted_proxies`, and whether the list can be meant.
fn trusted_proxies(block: &Listener, cx: &mut Cx<'_>) -> TrustedProxies {
    let listed = block.trusted_proxies.as_ref().map(|list| list.value.as_slice()).unwrap_or_default();
    for peer in listed {
        if matches!(peer.value, TrustedPeer::Network(network) if network.prefix_len() == 0) {
            cx.warning(peer.span, "every client is a trusted proxy: each may claim to be any other")
                .hint("list only the addresses of proxies");
        }
    }
    let can_connect = |peer: &At<TrustedPeer>| match block.bind.as_ref().map(|bind| &bind.value) {
        Some(BindAddress::Tcp(_)) => matches!(peer.value, TrustedPeer::Network(_)),
        Some(BindAddress::Unix(_)) => peer.value == TrustedPeer::Unix,
        Some(BindAddress::Systemd(_)) | None => true,
    };
    if let Some(mode) = &block.proxy_protocol
        && mode.value != ProxyProtocol::Off
        && !listed.iter().any(can_connect)
        && !block.trusted_proxies.as_ref().is_some_and(|list| cx.reported_in(list.span))
    {
        cx.error(mode.span, "a PROXY header is taken from trusted proxies only, and none can connect here")
            .hint("list them: `trusted_proxies: [\"10.0.0.0/8\"]`, or `[unix]` where a Unix socket is bound");
    }
    TrustedProxies::new(listed.iter().map(|peer| peer.value).collect())
}

/// `tls:`: the files are read and the whole is tried. `optional`: clients may come without a certificate.
fn tls(block: &At<ListenerTls>, optional: bool, cx: &mut Cx<'_>) -> Option<TlsServerConfig> {
    let ListenerTls { cert, key, client_ca, .. } = &block.value;
    let readable = [
        super::secret::file_if_given(cert.as_ref(), "the certificate", cx),
        key.as_ref().is_none_or(|key| super::secret::check(key, "the private key", cx)),
        super::secret::file_if_given(client_ca.as_ref(), "the bundle", cx),
    ];
    let (cert, key) = (cert.as_ref()?, key.as_ref()?);
    if readable.contains(&false) {
        return None;
    }
    let config = TlsServerConfig {
        cert: cert.value.0.clone(),
        key: key.value.clone(),
        client_ca: client_ca.as_ref().map(|bundle| bundle.value.0.clone()),
        client_optional: client_ca.is_some() && optional,
    };
    // A command is run when the listener starts, not here.
    if matches!(config.key, SecretSource::Exec(_)) {
        return Some(config);
    }
    match TlsServer::try_new(&config) {
        Ok(server) => check_validity(&server.certificate(), cert, cx),
        Err(error) => {
            cx.error(block.span, format!("these TLS settings cannot be used: {error}"));
            return None;
        }
    }
    Some(config)
}

/// A certificate that clients refuse is no reason not to start: a new one is taken while the process runs.
fn check_validity(certificate: &Certificate, cert: &At<FileRef>, cx: &mut Cx<'_>) {
    let (path, now) = (cert.value.0.display(), Clock::System.wall());
    let (from, until) = (certificate.not_before.rfc3339(), certificate.not_after.rfc3339());
    let title = match certificate.standing(now) {
        Standing::Good => return,
        Standing::Ending => format!("the certificate in {path} expires soon, at {until}"),
        Standing::Expired => {
            format!("the certificate in {path} has expired at {until}; clients will refuse it")
        }
        Standing::Early => {
            format!("the certificate in {path} is good from {from} on; clients will refuse it")
        }
    };
    cx.warning(cert.span, title).hint("put a new one in its place; it is taken without a restart");
}

/// Who reaches a listener uses its credentials: beyond this machine that must be said.
fn check_exposure(block: &Listener, bind: &At<BindAddress>, cx: &mut Cx<'_>) {
    let BindAddress::Tcp(address) = &bind.value else { return };
    let Some(allowed) = &block.allow_unauthenticated else { return };
    // A client that `client_ca` lets in has shown who it is.
    let asks = block.tls.as_ref().is_some_and(|tls| tls.value.client_ca.is_some())
        || super::clients::are_listed(block);
    if address.ip().to_canonical().is_loopback() || allowed.value || asks {
        return;
    }
    cx.error(bind.span, format!("whoever reaches {address} could use the credentials of its routes"))
        .label("not a loopback address")
        .hint(format!(
            "bind to `127.0.0.1:{}`, list who may (`clients`), ask for certificates (`tls.client_ca`), or say `allow_unauthenticated: true` if the network lets in only those who may",
            address.port()
        ));
}

/// Two routes that match the very same requests: one of them would never be used.
fn same_matches(blocks: &[At<Route>], routes: &[Option<RouteConfig>], bind: &BindAddress, cx: &mut Cx<'_>) {
    for (index, route) in routes.iter().enumerate() {
        let Some(route) = route else { continue };
        let first = routes[..index]
            .iter()
            .position(|other| other.as_ref().is_some_and(|other| match_overlaps(other, route, bind)));
        if let Some(first) = first
            && let Some(other) = &routes[first]
        {
            cx.error(
                match_span(&blocks[index]),
                format!("the routes `{}` and `{}` match the same requests", other.name, route.name),
            )
            .also(match_span(&blocks[first]), "first here")
            .hint("tell them apart by `hosts`, `path_prefix` or `methods`");
        }
    }
}

fn match_span(block: &At<Route>) -> Span {
    let name = block.value.name.as_ref().map_or(block.span, |name| name.span);
    block.value.r#match.as_ref().map_or(name, |condition| condition.span)
}

fn match_overlaps(one: &RouteConfig, other: &RouteConfig, bind: &BindAddress) -> bool {
    let hosts = |route: &RouteConfig| {
        route.hosts.clone().unwrap_or_else(|| {
            let mut hosts = vec!["localhost".to_owned()];
            if let BindAddress::Tcp(address) = bind {
                hosts.push(match address.ip() {
                    std::net::IpAddr::V6(ip) => format!("[{ip}]"),
                    std::net::IpAddr::V4(ip) => ip.to_string(),
                });
            }
            hosts
        })
    };
    let same_methods = match (one.methods.is_empty(), other.methods.is_empty()) {
        (true, true) => true,
        (false, false) => one.methods.iter().any(|method| other.methods.contains(method)),
        _ => false,
    };
    same_methods && one.path_prefix == other.path_prefix && {
        let others = hosts(other);
        hosts(one).iter().any(|host| others.contains(host))
    }
}
