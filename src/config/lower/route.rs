//! `routes:` of a listener.

use http::{HeaderName, HeaderValue, header};

use super::upstream as options;
use crate::config::blocks::Tls;
use crate::config::blocks::egress::RouteGuard;
use crate::config::blocks::listener::{
    HeaderEditsBlock, OnUnauthorizedBlock, Route, TimeoutsBlock, Upstream,
};
use crate::config::blocks::upstream::UpstreamBlock;
use crate::config::context::Cx;
use crate::config::read::{At, Named, Parse};
use crate::names::Name;
use crate::origin::{Origin, Scheme};
use crate::policy::network::NetworkGuard;
use crate::route::{HeaderEdits, NetworkRules, OnUnauthorized, Picks, QueryEdits, Rewrites, RouteConfig};
use crate::tls::{TlsClientConfig, TlsIdentity};
use crate::upstream::{HttpVersion, Timeouts, UpstreamConfig, UpstreamOptions};

/// The longest body that may be kept for a replay.
const MAX_BODY: u64 = 1024 * 1024;

/// A route that names a credential.
#[derive(Debug, Clone)]
pub(in crate::config) struct RouteUse {
    /// Which.
    pub(in crate::config) credential: At<Name>,
    /// Where the route leads, where that can be read.
    pub(in crate::config) origins: Vec<At<Origin>>,
    /// `allow_plaintext`.
    pub(in crate::config) allow_plaintext: bool,
    /// It leads to more origins than can be told.
    pub(in crate::config) open: bool,
    /// It names no port: `origin` has the scheme's own, which only stands where the credential lists no origin.
    pub(in crate::config) assumed: bool,
}

/// One route.
pub(super) fn route(
    block: &Route,
    proxy: Option<&url::Url>,
    uses: &mut Vec<RouteUse>,
    cx: &mut Cx<'_>,
) -> Option<RouteConfig> {
    let upstream = block.upstream.as_ref().and_then(|upstream| self::upstream(upstream, proxy, cx));
    let (default, picks) = super::pick::credential(block.credential.as_ref(), cx);
    if let Some(plaintext) = &block.allow_plaintext {
        let users = super::pick::translated(block.credential.as_ref());
        let named = default
            .iter()
            .chain(users)
            .chain(picks.iter().flat_map(|picks| picks.1.iter().map(|(_, name)| name)));
        uses.extend(named.map(|credential| RouteUse {
            credential: credential.clone(),
            origins: upstream.as_ref().map(|(_, origins)| origins.clone()).unwrap_or_default(),
            allow_plaintext: plaintext.value,
            open: false,
            assumed: false,
        }));
    }
    let guard = network_guard(block, upstream.as_ref(), cx);
    let injects = block.credential.is_some();
    let request_headers = edits(block.request_headers.as_ref(), injects, true, cx);
    let response_headers = edits(block.response_headers.as_ref(), false, false, cx);
    let on_unauthorized = on_unauthorized(block.on_unauthorized.as_ref(), cx);
    let condition = block.r#match.as_ref().map(|condition| &condition.value);
    let prefix = condition.and_then(|condition| condition.path_prefix.as_ref());
    if let Some(hosts) = condition.and_then(|condition| condition.hosts.as_ref())
        && hosts.value.is_empty()
    {
        cx.error(hosts.span, "the list of hosts is empty").hint("remove `hosts`, or list at least one");
    }
    Some(RouteConfig {
        name: block.name.as_ref()?.value.clone(),
        hosts: condition
            .and_then(|condition| condition.hosts.as_ref())
            .map(|hosts| hosts.value.iter().map(|host| host.value.0.clone()).collect()),
        path_prefix: match condition {
            Some(_) => prefix?.value.0.clone(),
            None => "/".to_owned(),
        },
        methods: condition
            .and_then(|condition| condition.methods.as_ref())
            .map(|methods| methods.value.iter().map(|method| method.value.clone()).collect())
            .unwrap_or_default(),
        upstream: upstream?.0,
        rewrite_prefix: block.rewrite_prefix.as_ref().map(|prefix| prefix.value.0.clone()),
        credential: default.map(|name| name.value),
        users: super::pick::translated(block.credential.as_ref()).map(|name| name.value.clone()),
        picks: picks.map(|(by, of)| Picks {
            by,
            of: of.into_iter().map(|(value, name)| (value.value, name.value)).collect(),
        }),
        preserve_host: block.preserve_host.as_ref()?.value,
        request_headers,
        response_headers,
        timeouts: timeouts(block.timeouts.as_ref().map(|timeouts| &timeouts.value))?,
        on_unauthorized: on_unauthorized?,
        wait_for_token: block.wait_for_token.as_ref()?.value,
        clients: block.clients.as_ref().map(|list| super::clients::listed(Some(list))),
        allow_plaintext: block.allow_plaintext.as_ref()?.value,
        max_body: block.max_body.as_ref().map(|size| size.value.0),
        network_guard: guard,
        throttle: super::throttle::of_route(block.rate_limit.as_ref(), block.concurrency.as_ref())?,
        rewrites: rewrites(block, cx)?,
    })
}

fn rewrites(block: &Route, cx: &mut Cx<'_>) -> Option<Rewrites> {
    let mut query = QueryEdits::default();
    if let Some(At { value: edits, .. }) = &block.query {
        for (name, value) in edits.set.iter().flat_map(|set| &set.value.0) {
            query.set.push((name.value.clone(), value.value.clone()));
        }
        for name in edits.remove.iter().flat_map(|remove| &remove.value) {
            if query.set.iter().any(|(set, _)| set.eq_ignore_ascii_case(&name.value)) {
                cx.error(name.span, "this parameter is set as well")
                    .hint("`set` replaces what a client sends");
            }
            query.remove.push(name.value.clone());
        }
    }
    let (location, cookies) = match &block.rewrite_response {
        None => (false, false),
        Some(At { value, .. }) => (value.location.as_ref()?.value, value.cookies.as_ref()?.value),
    };
    Some(Rewrites { query, location, cookies })
}

/// `network_guard`, and that it lets the upstream be reached at all.
fn network_guard(
    block: &Route,
    upstream: Option<&(UpstreamConfig, Vec<At<Origin>>)>,
    cx: &mut Cx<'_>,
) -> Option<NetworkRules> {
    let at = block.network_guard.as_ref()?;
    let rules = match &at.value {
        RouteGuard::Switch(false) => return None,
        RouteGuard::Switch(true) => NetworkRules::default(),
        RouteGuard::Full(block) => super::egress::network(block),
    };
    let guard = NetworkGuard::new(rules.allow.clone(), rules.deny.clone());
    let (config, origins) = upstream?;
    for origin in origins {
        if origin.value.unix_path().is_some() {
            cx.error(at.span, "a Unix socket has no address that could be judged")
                .also(origin.span, "the upstream")
                .hint("remove `network_guard`");
        } else if let Ok(ip) = origin.value.dial_host().parse::<std::net::IpAddr>()
            && let Err(blocked) = guard.judge(std::net::SocketAddr::new(ip, origin.value.port()))
        {
            cx.error(origin.span, format!("`network_guard` lets no connection to {ip} pass"))
                .label(blocked.to_string())
                .also(at.span, "the guard")
                .hint(format!("`network_guard: {{allow_private: [\"{ip}\"]}}` makes an exception"));
        } else if config.outbound_proxy.is_some() {
            cx.warning(
                at.span,
                format!(
                    "the outbound proxy resolves the name {}, and no guard judges it",
                    origin.value.dial_host()
                ),
            )
            .hint("`network_guard` holds where names are resolved here: without a proxy");
        }
    }
    Some(rules)
}

pub(super) fn on_unauthorized(
    block: Option<&At<OnUnauthorizedBlock>>,
    cx: &mut Cx<'_>,
) -> Option<OnUnauthorized> {
    let Some(At { value: block, .. }) = block else { return Some(OnUnauthorized::default()) };
    let max_body = block.max_body.as_ref()?;
    if max_body.value.0 > MAX_BODY {
        cx.error(max_body.span, "`max_body` is kept in memory for each request: it is at most 1MiB");
    }
    Some(OnUnauthorized {
        refresh: block.refresh.as_ref()?.value,
        replay: block.replay.as_ref()?.value,
        require_challenge: block.require_challenge.as_ref()?.value,
        max_body: usize::try_from(max_body.value.0).ok()?,
    })
}

fn upstream(
    upstream: &At<Upstream>,
    proxy: Option<&url::Url>,
    cx: &mut Cx<'_>,
) -> Option<(UpstreamConfig, Vec<At<Origin>>)> {
    match &upstream.value {
        Upstream::Origin(origin) => {
            let origin = At { value: origin.clone(), span: upstream.span };
            let config = UpstreamConfig {
                origin: origin.value.clone(),
                http: HttpVersion::Auto,
                tls: TlsClientConfig::default(),
                outbound_proxy: proxy.filter(|_| origin.value.unix_path().is_none()).cloned(),
                options: UpstreamOptions::default(),
            };
            Some((config, vec![origin]))
        }
        Upstream::Full(block) => {
            let urls = block.urls.as_ref()?;
            let tls = block.tls.as_ref().map(|block| tls(block, cx));
            let Some(origin) = urls.value.first().cloned() else {
                cx.error(urls.span, "`urls` is empty").hint("give one URL, or several");
                return None;
            };
            let options = options::options(block, urls, cx);
            if let (Some(block), Scheme::Http) = (&block.tls, origin.value.scheme()) {
                cx.error(block.span, "`tls` has no effect on an http upstream")
                    .also(origin.span, "this is http");
            }
            let wrong = match (block.http.as_ref()?.value, origin.value.scheme()) {
                (HttpVersion::Http2, Scheme::Http) => {
                    Some(("`h2` needs an https upstream", "for HTTP/2 in cleartext write `h2c`"))
                }
                (HttpVersion::Http2Cleartext, Scheme::Https) => {
                    Some(("`h2c` is cleartext, and the upstream is https", "write `h2`"))
                }
                _ => None,
            };
            if let (Some((title, hint)), Some(http)) = (wrong, &block.http) {
                cx.error(http.span, title).also(origin.span, "the upstream").hint(hint);
            }
            let outbound_proxy = outbound_proxy(block, urls, proxy, cx);
            let tls = match tls {
                Some(tls) => tls?,
                None => TlsClientConfig::default(),
            };
            let (http, options) = (block.http.as_ref()?.value, options?);
            let config = UpstreamConfig { origin: origin.value, http, tls, outbound_proxy, options };
            Some((config, urls.value.clone()))
        }
    }
}

/// The upstream's own proxy, or the global one. A Unix socket is reached without one.
fn outbound_proxy(
    block: &UpstreamBlock,
    urls: &At<Vec<At<Origin>>>,
    proxy: Option<&url::Url>,
    cx: &mut Cx<'_>,
) -> Option<url::Url> {
    let local = urls.value.iter().find(|origin| origin.value.unix_path().is_some());
    match (&block.outbound_proxy, local) {
        (Some(own), Some(local)) => {
            cx.error(own.span, "a Unix socket is not reached through a proxy")
                .also(local.span, "this is a Unix socket");
            None
        }
        (Some(own), None) => Some(own.value.0.clone()),
        (None, Some(_)) => None,
        (None, None) => proxy.cloned(),
    }
}

/// `tls:` of an upstream or credential: the files are read and the whole is tried.
pub(super) fn tls(block: &At<Tls>, cx: &mut Cx<'_>) -> Option<TlsClientConfig> {
    let value = &block.value;
    let readable = [
        super::secret::file_if_given(value.ca.as_ref(), "the bundle", cx),
        super::secret::file_if_given(value.cert.as_ref(), "the certificate", cx),
        value.key.as_ref().is_none_or(|key| super::secret::check(key, "the private key", cx)),
    ];
    let identity = match (&value.cert, &value.key) {
        (Some(cert), Some(key)) => Some(TlsIdentity { cert: cert.value.0.clone(), key: key.value.clone() }),
        (None, None) => None,
        (Some(cert), None) => {
            cx.error(cert.span, "`cert` needs `key`, its private key");
            return None;
        }
        (None, Some(key)) => {
            cx.error(key.span, "`key` needs `cert`, its certificate chain");
            return None;
        }
    };
    if readable.contains(&false) {
        return None;
    }
    let config = TlsClientConfig {
        ca: value.ca.as_ref().map(|ca| ca.value.0.clone()),
        identity,
        server_name: value.server_name.as_ref().map(|name| name.value.0.clone()),
    };
    let runs_a_command = config
        .identity
        .as_ref()
        .is_some_and(|identity| matches!(identity.key, crate::secret::SecretSource::Exec(_)));
    if !runs_a_command && let Err(error) = crate::tls::client_config(&config) {
        cx.error(block.span, format!("these TLS settings cannot be used: {error}"));
        return None;
    }
    Some(config)
}

/// Fields that the proxy itself owns (RFC 9110 7.6.1, 7.2, 8.6).
const OURS: &[HeaderName] = &[
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::PROXY_AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
];

pub(super) fn edits(
    block: Option<&At<HeaderEditsBlock>>,
    injects: bool,
    is_request: bool,
    cx: &mut Cx<'_>,
) -> HeaderEdits {
    let Some(block) = block else { return HeaderEdits::default() };
    let mut fields = |named: Option<&At<Named<HeaderValue>>>| {
        let mut fields: Vec<(HeaderName, HeaderValue)> = Vec::new();
        for (name, value) in named.iter().flat_map(|named| &named.value.0) {
            match HeaderName::parse(&name.value) {
                Ok(parsed) => {
                    if fields.iter().any(|(present, _)| *present == parsed) {
                        cx.error(name.span, format!("the header `{parsed}` is set twice"));
                    }
                    refuse_ours(&parsed, name.span, injects, is_request, cx);
                    fields.push((parsed, value.value.clone()));
                }
                Err(error) => {
                    let shown = crate::config::redact::shown_key(&name.value);
                    cx.error(name.span, format!("{shown} is not a header name")).label(error.reason);
                }
            }
        }
        fields
    };
    let (set, add) = (fields(block.value.set.as_ref()), fields(block.value.add.as_ref()));
    let mut remove = Vec::new();
    for name in block.value.remove.iter().flat_map(|remove| &remove.value) {
        refuse_ours(&name.value, name.span, injects, is_request, cx);
        remove.push(name.value.clone());
    }
    HeaderEdits { set, add, remove }
}

fn refuse_ours(
    name: &HeaderName,
    span: crate::config::source::Span,
    injects: bool,
    is_request: bool,
    cx: &mut Cx<'_>,
) {
    let by_proxy = OURS.contains(name) || matches!(name.as_str(), "keep-alive" | "proxy-connection");
    if is_request && *name == header::HOST {
        cx.error(span, "the header `host` cannot be changed here")
            .hint("it is the upstream's own; `preserve_host: true` sends the client's on");
    } else if by_proxy {
        cx.error(span, format!("the header `{name}` belongs to the proxy and cannot be changed here"));
    } else if injects && *name == header::AUTHORIZATION {
        cx.error(span, "the header `authorization` is set by the route's credential")
            .hint("remove it here, or remove `credential` from the route");
    }
}

pub(super) fn timeouts(block: Option<&TimeoutsBlock>) -> Option<Timeouts> {
    let Some(block) = block else { return Some(Timeouts::default()) };
    Some(Timeouts {
        connect: block.connect.as_ref()?.value.0,
        first_byte: block.first_byte.as_ref()?.value.0,
        response_idle: block.response_idle.as_ref()?.value.0,
        request_idle: block.request_idle.as_ref()?.value.0,
    })
}
