//! `clients:`, and the lists of names that refer to it.

use std::time::Duration;

use crate::config::addresses::HttpUrl;
use crate::config::blocks::File;
use crate::config::blocks::client::{ApiKey, Client, Jwt, Mtls, UnixPeerBlock};
use crate::config::blocks::listener::Listener;
use crate::config::context::Cx;
use crate::config::read::At;
use crate::listener::BindAddress;
use crate::names::Name;
use crate::origin::{Origin, Scheme};
use crate::policy::clients::{
    ApiKeyConfig, BasicConfig, ClientConfig, Clients, JwtConfig, KeysFrom, MtlsConfig, Proof, UnixPeerConfig,
    jwt,
};

/// All clients that can be used. What they are known by is read here, so that a file that cannot be is reported.
pub(super) fn clients(file: &File, proxy: Option<&url::Url>, cx: &mut Cx<'_>) -> Vec<ClientConfig> {
    let named = file.clients.as_ref().map(|named| named.value.0.as_slice()).unwrap_or_default();
    let mut clients = Vec::new();
    for (key, block) in named {
        let name = Name::try_new(&key.value);
        if let Err(error) = &name {
            let shown = crate::config::redact::shown_key(&key.value);
            cx.error(key.span, format!("{shown} is no name of a client: {error}"));
        }
        let proof = proof(block, proxy, cx);
        let (Ok(name), Some(proof)) = (name, proof) else { continue };
        let (rate, concurrency) = (block.value.rate_limit.as_ref(), block.value.concurrency.as_ref());
        // What is wrong with it was reported.
        let throttle = super::throttle::of_client(rate, concurrency).unwrap_or_default();
        let config = ClientConfig { name, proof, throttle };
        if let Err(error) = Clients::try_new(std::slice::from_ref(&config)) {
            cx.error(block.span, format!("the client `{}` cannot be used: {}", error.client, error.reason));
        }
        if let Proof::Basic(one) = &config.proof
            && clients.iter().any(|known: &ClientConfig| matches!(&known.proof, Proof::Basic(other) if other.username == one.username))
        {
            cx.error(block.span, format!("two clients have the user name `{}`", one.username))
                .hint("a user name tells which client it is: give each its own");
        }
        clients.push(config);
    }
    clients
}

fn proof(block: &At<Client>, proxy: Option<&url::Url>, cx: &mut Cx<'_>) -> Option<Proof> {
    let Client { mtls, api_key, basic, jwt, cidr, unix_peer, .. } = &block.value;
    let given = [
        mtls.is_some(),
        api_key.is_some(),
        basic.is_some(),
        jwt.is_some(),
        cidr.is_some(),
        unix_peer.is_some(),
    ];
    if given.into_iter().filter(|given| *given).count() != 1 {
        if !cx.reported_in(block.span) {
            let found = if given.contains(&true) { "several ways" } else { "no way" };
            cx.error(block.span, format!("a client shows in one way who it is, found {found}"))
                .hint("write one of `mtls`, `api_key`, `basic`, `jwt`, `cidr`, `unix_peer`; two ways are two clients");
        }
        return None;
    }
    if let Some(block) = mtls {
        return Some(Proof::Mtls(self::mtls(&block.value)));
    }
    if let Some(block) = api_key {
        return self::api_key(block, cx);
    }
    if let Some(block) = basic {
        if !super::secret::check(block.value.password_hash.as_ref()?, "the password's hash", cx) {
            return None;
        }
        return Some(Proof::Basic(BasicConfig {
            username: block.value.username.as_ref()?.value.0.clone(),
            password_hash: block.value.password_hash.as_ref()?.value.clone(),
        }));
    }
    if let Some(block) = jwt {
        return self::jwt(block, proxy, cx);
    }
    if let Some(networks) = cidr {
        if networks.value.is_empty() && !cx.reported_in(networks.span) {
            cx.error(networks.span, "the list of networks is empty");
        }
        for network in networks.value.iter().filter(|network| network.value.0.prefix_len() == 0) {
            cx.warning(network.span, "every address is this client");
        }
        return Some(Proof::Cidr(networks.value.iter().map(|network| network.value.0).collect()));
    }
    self::unix_peer(unix_peer.as_ref()?, cx)
}

fn mtls(block: &Mtls) -> MtlsConfig {
    let san = block.san.iter().flat_map(|list| &list.value).map(|name| name.value.0.clone());
    let spiffe = block.spiffe.iter().flat_map(|list| &list.value).map(|id| id.value.0.clone());
    MtlsConfig {
        san: san.collect(),
        spiffe: spiffe.collect(),
        ca: block.ca.as_ref().map(|bundle| bundle.value.0.clone()),
    }
}

fn api_key(block: &At<ApiKey>, cx: &mut Cx<'_>) -> Option<Proof> {
    let ApiKey { header, sha256, keys, .. } = &block.value;
    let header = header.as_ref()?;
    if matches!(header.value.as_str(), "authorization" | "proxy-authorization" | "cookie" | "host") {
        cx.error(header.span, format!("a key cannot be in the field `{}`", header.value))
            .hint("use a field of its own, such as `X-Api-Key`");
        return None;
    }
    let digests: Vec<_> = sha256.iter().flat_map(|list| &list.value).map(|digest| digest.value.0).collect();
    if digests.is_empty() && keys.is_none() && !cx.reported_in(block.span) {
        cx.error(block.span, "the client has no key")
            .hint("`bearward client add NAME --kind api_key` makes one, with its `sha256`");
        return None;
    }
    let file = keys.as_ref().map(|file| file.value.0.clone());
    Some(Proof::ApiKey(ApiKeyConfig { header: header.value.clone(), digests, file }))
}

fn jwt(block: &At<Jwt>, proxy: Option<&url::Url>, cx: &mut Cx<'_>) -> Option<Proof> {
    let Jwt { jwks_uri, jwks, algorithms, claims, leeway, .. } = &block.value;
    let keys = match (jwks_uri, jwks) {
        (Some(uri), None) => are_genuine(uri, cx).then(|| KeysFrom::Uri(uri.value.0.clone())),
        (None, Some(file)) => Some(KeysFrom::File(file.value.0.clone())),
        _ => {
            if !cx.reported_in(block.span) {
                cx.error(block.span, "the issuer's keys come from one place: `jwks_uri` or `jwks`");
            }
            None
        }
    };
    if let Some(leeway) = leeway.as_ref().filter(|leeway| leeway.value > Duration::from_secs(300)) {
        cx.error(leeway.span, "`leeway` is at most 5m: a token is good that much longer");
    }
    if let Some(audience) = block.value.audience.as_ref().filter(|audience| audience.value.items.is_empty()) {
        cx.error(audience.span, "`audience` names nobody")
            .hint("a token for another service must not be good here");
    }
    let tls = match &block.value.tls {
        Some(block) => super::route::tls(block, cx),
        None => Some(crate::tls::TlsClientConfig::default()),
    };
    let (keys, leeway, audience) = (keys?, leeway.as_ref()?, block.value.audience.as_ref()?);
    let allowed: Vec<_> = algorithms.iter().flat_map(|list| &list.value).map(|one| one.value.0).collect();
    let named = claims.iter().flat_map(|named| &named.value.0);
    Some(Proof::Jwt(Box::new(JwtConfig {
        issuer: block.value.issuer.as_ref()?.value.0.clone(),
        audience: audience.value.items.iter().map(|one| one.value.0.clone()).collect(),
        keys,
        algorithms: if allowed.is_empty() { jwt::ALGORITHMS.to_vec() } else { allowed },
        claims: named.map(|(name, value)| (name.value.clone(), value.value.0.clone())).collect(),
        leeway: leeway.value,
        tls: tls?,
        outbound_proxy: match &block.value.outbound_proxy {
            Some(own) => Some(own.value.0.clone()),
            None => proxy.cloned(),
        },
    })))
}

/// Whoever could put keys of its own in their place would be every client.
fn are_genuine(uri: &At<HttpUrl>, cx: &mut Cx<'_>) -> bool {
    let Ok(origin) = Origin::of_url(&uri.value.0) else { return false };
    if origin.scheme() == Scheme::Https || origin.is_loopback() {
        return true;
    }
    cx.error(
        uri.span,
        "the issuer's keys would come over plain http: whoever is on the way could put others in their place",
    )
    .hint("use https; plain http is accepted on this machine alone");
    false
}

fn unix_peer(block: &At<UnixPeerBlock>, cx: &mut Cx<'_>) -> Option<Proof> {
    let ids = |list: &Option<At<Vec<At<crate::config::blocks::client::Id>>>>| {
        list.iter().flat_map(|list| &list.value).map(|id| id.value.0).collect::<Vec<_>>()
    };
    let config = UnixPeerConfig { uid: ids(&block.value.uid), gid: ids(&block.value.gid) };
    if config.uid.is_empty() && config.gid.is_empty() {
        if !cx.reported_in(block.span) {
            cx.error(block.span, "no user and no group is named").hint("write `unix_peer: {uid: [1001]}`");
        }
        return None;
    }
    Some(Proof::UnixPeer(config))
}

/// The names of a list.
pub(super) fn listed(list: Option<&At<Vec<At<Name>>>>) -> Vec<Name> {
    list.iter().flat_map(|list| &list.value).map(|name| name.value.clone()).collect()
}

/// Whether each request of a listener must come from a client.
pub(super) fn are_listed(listener: &Listener) -> bool {
    let routes = listener.routes.as_ref().map(|routes| routes.value.as_slice()).unwrap_or_default();
    listener.clients.is_some()
        || (!routes.is_empty() && routes.iter().all(|route| route.value.clients.is_some()))
}

/// Whether clients that show no certificate may come in: each request must come from a client, and some are none by
/// certificate.
pub(super) fn may_come_without_certificate(file: &File, listener: &Listener) -> bool {
    let known = file.clients.as_ref().map(|named| named.value.0.as_slice()).unwrap_or_default();
    let by_certificate = |name: &Name| {
        let block = known.iter().find(|(key, _)| key.value == name.as_str());
        block.is_some_and(|(_, block)| block.value.mtls.is_some())
    };
    let routes = listener.routes.iter().flat_map(|routes| &routes.value);
    let lists = listener.clients.iter().chain(routes.filter_map(|route| route.value.clients.as_ref()));
    are_listed(listener) && lists.flat_map(|list| &list.value).any(|name| !by_certificate(&name.value))
}

/// Each list names clients that there are, and that can show there who they are.
pub(super) fn check_lists(file: &File, hidden: bool, cx: &mut Cx<'_>) {
    for listener in file.listeners.iter().flat_map(|listeners| &listeners.value) {
        let listener = &listener.value;
        check_list(file, listener, (listener.clients.as_ref(), hidden), cx);
        for route in listener.routes.iter().flat_map(|routes| &routes.value) {
            let list = route.value.clients.as_ref();
            check_list(file, listener, (list, hidden), cx);
            let (Some(list), Some(wide)) = (list, &listener.clients) else { continue };
            for name in &list.value {
                if !wide.value.iter().any(|known| known.value == name.value) {
                    cx.error(name.span, format!("the listener does not let in `{}`", name.value))
                        .also(wide.span, "its `clients`")
                        .hint("a route's list narrows the listener's: name the client in both");
                }
            }
        }
    }
}

/// `hidden`: there are clients that could not be read, which is reported.
fn check_list(
    file: &File,
    listener: &Listener,
    (list, hidden): (Option<&At<Vec<At<Name>>>>, bool),
    cx: &mut Cx<'_>,
) {
    let Some(list) = list else { return };
    if list.value.is_empty() && !cx.reported_in(list.span) {
        cx.error(list.span, "the list of clients is empty: nobody could use it")
            .hint("name at least one client, or remove the list");
    }
    let known = file.clients.as_ref().map(|named| named.value.0.as_slice()).unwrap_or_default();
    for name in &list.value {
        let Some((_, block)) = known.iter().find(|(key, _)| key.value == name.value.as_str()) else {
            let unreadable = file
                .clients
                .as_ref()
                .is_some_and(|named| named.value.1.iter().any(|key| key == name.value.as_str()));
            if !unreadable && !hidden {
                unknown(name, known, cx);
            }
            continue;
        };
        check_reach(listener, name, &block.value, cx);
        let asks = listener.tls.as_ref().is_some_and(|tls| tls.value.client_ca.is_some());
        if block.value.mtls.is_some() && !asks {
            cx.error(
                name.span,
                format!("the client `{}` shows a certificate, and the listener asks for none", name.value),
            )
            .hint("give the listener `tls: {cert: …, key: …, client_ca: {file: …}}`");
        }
    }
}

/// A client that can never be told from what reaches this socket.
fn check_reach(listener: &Listener, name: &At<Name>, client: &Client, cx: &mut Cx<'_>) {
    let Some(bind) = &listener.bind else { return };
    let (title, hint) = match &bind.value {
        BindAddress::Tcp(_) if client.unix_peer.is_some() => {
            ("is known by its Unix socket, and the listener has none", "bind it to `unix:/path`")
        }
        BindAddress::Unix(_) if client.cidr.is_some() && listener.trusted_proxies.is_none() => (
            "is known by its address, and a Unix socket has none",
            "use `unix_peer`, or list `unix` in `trusted_proxies` if a proxy before it tells addresses",
        ),
        _ => return,
    };
    cx.warning(name.span, format!("the client `{}` {title}: nobody can be it here", name.value)).hint(hint);
}

fn unknown(name: &At<Name>, known: &[(At<String>, At<Client>)], cx: &mut Cx<'_>) {
    let names: Vec<&str> = known.iter().map(|(key, _)| key.value.as_str()).collect();
    let problem = cx.error(name.span, format!("there is no client `{}`", name.value));
    match crate::config::block::nearest(name.value.as_str(), &names) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None if names.is_empty() => problem.hint("`clients:` has none; `bearward client add` writes one"),
        None => problem.hint(format!("there are: `{}`", names.join("`, `"))),
    };
}
