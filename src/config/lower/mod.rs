//! From blocks to the configurations of the other modules, with every problem that only shows between
//! fields.
//!
//! Each part reports all it finds and gives `None` where something it needs was reported.

mod certificate;
mod client;
mod clients;
mod credential;
mod egress;
mod grant;
mod inject;
mod limits;
mod listener;
mod login;
mod pick;
mod route;
mod secret;
mod shadow;
mod store;
mod throttle;
mod upstream;
mod via;

use std::net::{IpAddr, SocketAddr};

use super::blocks::credential::Credential;
use super::blocks::{Admin, File};
use super::context::Cx;
use super::node::Node;
use super::problem::Severity;
use super::read::{At, Named};
use super::source::Span;
use super::{AdminConfig, Config, LogConfig, LogFormat};
use crate::credential::{BindingError, binding};
use crate::listener::BindAddress;
use crate::names::Name;
use crate::origin::Origin;
use crate::telemetry::access::{AccessConfig, AuditConfig};
pub(super) use route::RouteUse;

/// Makes the whole configuration.
pub(super) fn config(file: &File, root: &Node, cx: &mut Cx<'_>) -> Option<Config> {
    let global_proxy = file.outbound_proxy.as_ref().map(|proxy| proxy.value.0.clone());
    let mut uses = Vec::new();
    let mut listeners = listener::listeners(file, global_proxy.as_ref(), &mut uses, cx);
    let clients = clients::clients(file, global_proxy.as_ref(), cx);
    clients::check_lists(file, is_hidden(root, "clients", file.clients.is_some(), cx), cx);
    pick::check(file, cx);
    let credentials = credential::credentials(file, global_proxy.as_ref(), &uses, cx);
    pick::check_users(file, &credentials, cx);
    check_uses(file, &uses, is_hidden(root, "credentials", file.credentials.is_some(), cx), cx);
    certificate::show_upstream(file, &mut listeners, &credentials, &uses, cx);
    let admin = admin(file.admin.as_ref().map(|admin| &admin.value), cx);
    let health = file.health.as_ref().and_then(|health| health.value.bind.as_ref());
    let store = store::store(file, &credentials, cx);
    check_addresses(file, admin.as_ref(), health, cx);
    let limits = limits::limits(file, cx);
    if file.listeners.as_ref().is_none_or(|listeners| listeners.value.is_empty())
        && !is_hidden(root, "listeners", file.listeners.is_some(), cx)
        && !file.listeners.as_ref().is_some_and(|listeners| cx.reported_in(listeners.span))
    {
        cx.error(Span::new(file.place.file, file.place.start, file.place.start + 1), "there is no listener")
            .hint("`listeners:` says where clients connect; `config.example.yaml` shows one");
    }
    if cx.has_errors() {
        return None;
    }
    Some(Config {
        listeners: limits::of_routes(file, listeners.into_iter().collect::<Option<_>>()?),
        clients,
        credentials,
        store: store?,
        admin: admin?,
        health: health.map(|bind| bind.value),
        log: log(file)?,
        limits: limits?,
        shutdown_grace: match &file.shutdown {
            Some(shutdown) => shutdown.value.grace.as_ref()?.value.0,
            None => std::time::Duration::from_secs(30),
        },
        warnings: Vec::new(),
        files: Vec::new(),
    })
}

/// Whether what a key holds was written and could not be read: then nothing that is named is known to be missing.
fn is_hidden(root: &Node, key: &str, is_read: bool, cx: &Cx<'_>) -> bool {
    let written = |key: &str| root.find(key).filter(|entry| !entry.value.is_null());
    let unread = written("include").is_some_and(|entry| cx.reported_in(entry.value.span));
    unread || !is_read && written(key).is_some()
}

/// Warns of proxy settings in the environment that are not used.
pub(super) fn check_environment(root: &Node, cx: &mut Cx<'_>) {
    if root.find("outbound_proxy").is_some() {
        return;
    }
    let set = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
        .into_iter()
        .find(|name| (cx.vars)(name).is_some_and(|value| !value.is_empty()));
    if let Some(name) = set {
        cx.nowhere(Severity::Warning, format!("{name} is set in the environment and is not used")).hint(
            "say `outbound_proxy: http://…` to use a proxy, or `outbound_proxy: null` to say that none is wanted",
        );
    }
}

fn log(file: &File) -> Option<LogConfig> {
    let Some(log) = &file.log else {
        return Some(LogConfig {
            level: tracing::Level::INFO,
            format: LogFormat::Auto,
            access: AccessConfig::default(),
            audit: AuditConfig::default(),
        });
    };
    let access = match &log.value.access {
        None => AccessConfig::default(),
        Some(At { value: block, .. }) => AccessConfig {
            enabled: block.enabled.as_ref()?.value,
            format: block.format.as_ref()?.value,
            sample: block.sample.as_ref()?.value.0,
            query: block.query.as_ref()?.value,
            file: block.file.as_ref().map(|path| path.value.0.clone()),
        },
    };
    let audit = match &log.value.audit {
        None => AuditConfig::default(),
        Some(At { value: block, .. }) => AuditConfig {
            enabled: block.enabled.as_ref()?.value,
            file: block.file.as_ref().map(|path| path.value.0.clone()),
        },
    };
    Some(LogConfig {
        level: log.value.level.as_ref()?.value,
        format: log.value.format.as_ref()?.value,
        access,
        audit,
    })
}

/// `admin`, or what stands where it is not given.
pub(super) fn admin(block: Option<&Admin>, cx: &mut Cx<'_>) -> Option<AdminConfig> {
    let Some(block) = block else {
        let bind = BindAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 9901)));
        return Some(AdminConfig { enabled: true, bind, token: None });
    };
    if let Some(token) = &block.token {
        secret::check(token, "the admin token", cx);
    }
    let bind = block.bind.as_ref()?;
    let enabled = block.enabled.as_ref()?.value;
    if let BindAddress::Tcp(address) = &bind.value
        && enabled
        && !address.ip().to_canonical().is_loopback()
    {
        cx.warning(bind.span, "the administration listener is reachable from other machines")
            .hint("its status and metrics need no token; `health:` is meant for probes and Prometheus");
    }
    Some(AdminConfig {
        enabled,
        bind: bind.value.clone(),
        token: block.token.as_ref().map(|token| token.value.clone()),
    })
}

/// Two sockets cannot have one address.
fn check_addresses(
    file: &File,
    admin: Option<&AdminConfig>,
    health: Option<&At<SocketAddr>>,
    cx: &mut Cx<'_>,
) {
    let mut taken: Vec<(BindAddress, Option<Span>, String)> = Vec::new();
    for listener in file.listeners.iter().flat_map(|listeners| &listeners.value) {
        if let (Some(bind), Some(name)) = (&listener.value.bind, &listener.value.name) {
            taken.push((bind.value.clone(), Some(bind.span), format!("listener `{}`", name.value)));
        }
    }
    if let Some(admin) = admin.filter(|admin| admin.enabled) {
        let span = file.admin.as_ref().and_then(|admin| admin.value.bind.as_ref()).map(|bind| bind.span);
        taken.push((admin.bind.clone(), span, "`admin`".to_owned()));
    }
    if let Some(health) = health {
        taken.push((BindAddress::Tcp(health.value), Some(health.span), "`health`".to_owned()));
    }
    for (index, (bind, span, name)) in taken.iter().enumerate() {
        let Some((_, first_span, first)) = taken[..index].iter().find(|(other, ..)| clash(bind, other))
        else {
            continue;
        };
        let Some(place) = span.or(*first_span) else { continue };
        let problem = cx.error(place, format!("{first} and {name} have one address"));
        if let (Some(first_span), Some(_)) = (first_span, span) {
            problem.also(*first_span, "first here");
        }
        if name == "`admin`" {
            problem.hint("the administration listener has an address of its own: `admin: {bind: …}`; 127.0.0.1:9901 unless given");
        }
    }
}

fn clash(one: &BindAddress, other: &BindAddress) -> bool {
    match (one, other) {
        (BindAddress::Tcp(one), BindAddress::Tcp(other)) => {
            let everywhere = |ip: IpAddr| ip.is_unspecified();
            one.port() == other.port()
                && one.port() != 0
                && (one.ip() == other.ip()
                    || (one.is_ipv4() == other.is_ipv4() && (everywhere(one.ip()) || everywhere(other.ip()))))
        }
        (one, other) => one == other,
    }
}

/// A route names a credential that exists and that may go to its upstream.
/// `hidden`: there are credentials that could not be read, which is reported.
fn check_uses(file: &File, uses: &[RouteUse], hidden: bool, cx: &mut Cx<'_>) {
    let configured: &[(At<String>, At<Credential>)] =
        file.credentials.as_ref().map(|named| named.value.0.as_slice()).unwrap_or_default();
    for used in uses {
        let name: &Name = &used.credential.value;
        if let Some((_, block)) = configured.iter().find(|(key, _)| key.value == name.as_str()) {
            check_use(used, &block.value, uses, cx);
            continue;
        }
        // What could not be read is reported where it stands.
        let unreadable = |named: &At<Named<Credential>>| named.value.1.iter().any(|key| key == name.as_str());
        if hidden || file.credentials.as_ref().is_some_and(unreadable) {
            continue;
        }
        let names: Vec<&str> = configured.iter().map(|(key, _)| key.value.as_str()).collect();
        let problem = cx.error(used.credential.span, format!("there is no credential `{name}`"));
        match super::block::nearest(name.as_str(), &names) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None if names.is_empty() => problem.hint("`credentials:` has none"),
            None => problem.hint(format!("there are: `{}`", names.join("`, `"))),
        };
    }
}

fn check_use(used: &RouteUse, block: &Credential, uses: &[RouteUse], cx: &mut Cx<'_>) {
    let name = &used.credential.value;
    if used.open && block.allowed_upstreams.is_none() {
        cx.error(used.credential.span, format!("the rule does not say which origins `{name}` may go to"))
            .label("its hosts or ports are not single ones")
            .hint("list them: `allowed_upstreams` of the credential; the token goes nowhere else");
    }
    if used.assumed && block.allowed_upstreams.is_some() {
        return;
    }
    let allowed = credential::allowed_upstreams(name, block, uses);
    used.origins.iter().for_each(|origin| check_origin(used, origin, &allowed, block, cx));
}

fn check_origin(
    used: &RouteUse,
    origin: &At<Origin>,
    allowed: &[Origin],
    block: &Credential,
    cx: &mut Cx<'_>,
) {
    let name = &used.credential.value;
    match binding::check(name, allowed, &origin.value, used.allow_plaintext) {
        Ok(()) => {}
        Err(BindingError::NotAllowed { allowed, .. }) => {
            let problem =
                cx.error(origin.span, format!("the credential `{name}` is not allowed for {}", origin.value));
            problem.label("this route's upstream").hint(match allowed.as_str() {
                "" => "its `allowed_upstreams` is empty".to_owned(),
                allowed => format!("it may go to {allowed}"),
            });
            if let Some(list) = &block.allowed_upstreams {
                problem.also(list.span, "its `allowed_upstreams`");
            }
        }
        Err(BindingError::Plaintext { .. }) => {
            cx.error(
                origin.span,
                format!("the token of `{name}` would be sent unencrypted to {}", origin.value),
            )
            .hint("use https, or say `allow_plaintext: true` on the route if the network between is trusted");
        }
    }
}
