//! `credential` of a route, and which one for whom.

use crate::config::blocks::File;
use crate::config::blocks::listener::{ByHeader, Listener, Route, RouteCredential};
use crate::config::context::Cx;
use crate::config::read::At;
use crate::credential::CredentialConfig;
use crate::names::Name;
use crate::oauth::Grant;
use crate::route::PickBy;

/// What decides, and the credentials by its values.
pub(super) type Chosen = (PickBy, Vec<(At<String>, At<Name>)>);

/// The credential for everybody, and those for some.
pub(super) fn credential(
    block: Option<&At<RouteCredential>>,
    cx: &mut Cx<'_>,
) -> (Option<At<Name>>, Option<Chosen>) {
    let Some(block) = block else { return (None, None) };
    if let Some(name) = translated(Some(block)) {
        let alone = match &block.value {
            RouteCredential::Choice(choice) => {
                choice.per_client.is_none() && choice.by_header.is_none() && choice.default.is_none()
            }
            RouteCredential::Name(_) => true,
        };
        if !alone {
            cx.error(name.span, "`translate_basic` stands alone: each request is its user's");
        }
        return (None, None);
    }
    let choice = match &block.value {
        RouteCredential::Name(name) => return (Some(At { value: name.clone(), span: block.span }), None),
        RouteCredential::Choice(choice) => choice,
    };
    let picks = match (&choice.per_client, &choice.by_header) {
        (Some(named), None) => Some((PickBy::Client, named.value.0.clone())),
        (None, Some(field)) => by_header(field, cx),
        _ => {
            if !cx.reported_in(block.span) {
                cx.error(block.span, "one thing decides which credential a request gets")
                    .hint("write `per_client` or `by_header`, and perhaps `default`");
            }
            None
        }
    };
    if let Some((_, of)) = &picks
        && of.is_empty()
        && !cx.reported_in(block.span)
    {
        cx.error(block.span, "no credential is named");
    }
    (choice.default.clone(), picks)
}

/// The credential of users, where passwords are translated.
pub(super) fn translated(block: Option<&At<RouteCredential>>) -> Option<&At<Name>> {
    match &block?.value {
        RouteCredential::Choice(choice) => choice.translate_basic.as_ref(),
        RouteCredential::Name(_) => None,
    }
}

/// A credential of users is for `translate_basic`, and nothing else is.
pub(super) fn check_users(file: &File, credentials: &[CredentialConfig], cx: &mut Cx<'_>) {
    let is_of_users = |name: &str| {
        let found = credentials.iter().find(|one| one.name.as_str() == name);
        found.map(|one| one.oauth.grant == Grant::Users)
    };
    for listener in file.listeners.iter().flat_map(|listeners| &listeners.value) {
        for route in listener.value.routes.iter().flat_map(|routes| &routes.value) {
            let block = route.value.credential.as_ref();
            if let Some(name) = translated(block) {
                if is_of_users(name.value.as_str()) == Some(false) {
                    cx.error(name.span, format!("`{}` is no credential of users", name.value))
                        .hint("it has `grant: password` and neither `username` nor `password`");
                }
                check_basic(file, &listener.value, &route.value, name, cx);
            } else if let Some(block) = block
                && let RouteCredential::Name(name) = &block.value
                && is_of_users(name.as_str()) == Some(true)
            {
                cx.error(block.span, format!("`{name}` has no `username` and `password` of its own"))
                    .hint(format!("give it both, or write `credential: {{translate_basic: {name}}}`"));
            }
        }
    }
}

/// One field cannot hold two passwords.
fn check_basic(file: &File, listener: &Listener, route: &Route, name: &At<Name>, cx: &mut Cx<'_>) {
    let list = route.clients.as_ref().or(listener.clients.as_ref());
    for client in list.iter().flat_map(|list| &list.value) {
        let block = file
            .clients
            .iter()
            .flat_map(|named| &named.value.0)
            .find(|(key, _)| key.value == client.value.as_str());
        if block.is_some_and(|(_, block)| block.value.basic.is_some() || block.value.jwt.is_some()) {
            cx.error(
                client.span,
                format!(
                    "the client `{}` shows itself in `Authorization`, which here holds the user's password",
                    client.value
                ),
            )
            .also(name.span, "passwords are translated here")
            .hint("use `api_key`, `mtls`, `cidr` or `unix_peer` for this client");
        }
    }
}

fn by_header(field: &At<ByHeader>, cx: &mut Cx<'_>) -> Option<Chosen> {
    let name = field.value.name.as_ref()?;
    let taken = ["authorization", "proxy-authorization", "host", "cookie", "connection", "content-length"];
    if taken.contains(&name.value.as_str()) || name.value.as_str().starts_with("x-forwarded-") {
        cx.error(name.span, format!("the field `{}` cannot decide this", name.value))
            .hint("use one of its own, such as `X-Tenant`");
    }
    Some((PickBy::Header(name.value.clone()), field.value.values.as_ref()?.value.0.clone()))
}

/// What decides must be known where it is used.
pub(super) fn check(file: &File, cx: &mut Cx<'_>) {
    for listener in file.listeners.iter().flat_map(|listeners| &listeners.value) {
        for route in listener.value.routes.iter().flat_map(|routes| &routes.value) {
            check_route(&listener.value, &route.value, cx);
        }
    }
}

fn check_route(listener: &Listener, route: &Route, cx: &mut Cx<'_>) {
    let Some(At { value: RouteCredential::Choice(choice), .. }) = &route.credential else { return };
    if let Some(field) = &choice.by_header
        && listener.trusted_proxies.is_none()
    {
        cx.error(field.span, "a header field decides, and there is nobody whose word is taken")
            .hint("list the proxies that set it in the listener's `trusted_proxies`");
    }
    let Some(named) = &choice.per_client else { return };
    let Some(list) = route.clients.as_ref().or(listener.clients.as_ref()) else {
        cx.error(named.span, "the credential depends on the client, and no client is asked for")
            .hint("list them: `clients: [...]` on the listener or the route");
        return;
    };
    for (client, _) in &named.value.0 {
        if !list.value.iter().any(|known| known.value.as_str() == client.value) {
            cx.error(client.span, format!("`{}` is not among the clients of this route", client.value))
                .also(list.span, "its clients");
        }
    }
}
