//! `inject:` of a credential.

use http::header;

use crate::config::blocks::credential::{Credential, GrantName, InjectBlock};
use crate::config::context::Cx;
use crate::config::read::At;
use crate::credential::Injection;
use crate::credential::injection::{Place, TOKEN, is_injectable};
use crate::oauth::{Carried, Preset};

/// Where the token stands.
pub(super) fn injection(block: &Credential, preset: &Preset, cx: &mut Cx<'_>) -> Option<Injection> {
    let Some(inject) = &block.inject else {
        let scheme = if block.dpop.is_some() { "DPoP" } else { preset.scheme };
        return Some(Injection::scheme(scheme));
    };
    if let Some(dpop) = &block.dpop {
        // RFC 9449 7.1 knows one place.
        cx.error(inject.span, "a token that is bound by `dpop` stands in `Authorization: DPoP` alone")
            .also(dpop.span, "here")
            .hint("remove `inject`, or remove `dpop`");
        return None;
    }
    let mut injection = Injection { authorization: None, places: Vec::new() };
    if inject.value.items.is_empty() {
        cx.error(inject.span, "`inject` is empty: no request would carry the token")
            .hint("remove it, or name a `header`, a `cookie` or a `query` parameter");
    }
    for item in inject.value.items.iter().filter(|item| item.value.response.is_none()) {
        let Some(place) = place(item, preset, cx) else { continue };
        match place {
            Place::Header(name, value) if name == header::AUTHORIZATION => {
                let twice = injection.authorization.replace(value).is_some();
                refuse_twice(twice, item, cx);
            }
            place => {
                let twice = injection.places.iter().any(|known| same(known, &place));
                refuse_twice(twice, item, cx);
                injection.places.push(place);
            }
        }
    }
    if !inject.value.items.is_empty() && inject.value.items.iter().all(|item| item.value.response.is_some()) {
        cx.error(
            inject.span,
            "no request would carry the token: each place has something else of its answer",
        )
        .hint("add `{header: Authorization}`");
    }
    Some(injection)
}

/// What stands in requests beside the token, out of its answer.
pub(super) fn carried(block: &Credential, cx: &mut Cx<'_>) -> Vec<Carried> {
    let mut carried: Vec<Carried> = Vec::new();
    let Some(inject) = &block.inject else { return carried };
    for item in &inject.value.items {
        let Some(pointer) = &item.value.response else { continue };
        if block.grant.as_ref().is_some_and(|grant| grant.value == GrantName::Static) {
            cx.error(pointer.span, "a `static` token comes without an answer")
                .hint("a fixed value is set by the route's `request_headers`");
            continue;
        }
        let inject = &item.value;
        let others = [
            inject.scheme.as_ref().map(|at| at.span),
            inject.value.as_ref().map(|at| at.span),
            inject.cookie.as_ref().map(|at| at.span),
            inject.query.as_ref().map(|at| at.span),
        ];
        if let Some(other) = others.into_iter().flatten().next() {
            cx.error(other, "`response` stands alone in a header field")
                .also(pointer.span, "here")
                .hint("write `header` and `response`, nothing else");
            continue;
        }
        let Some(name) = &inject.header else {
            cx.error(pointer.span, "this names no place").hint("write the `header` that it stands in");
            continue;
        };
        if name.value == header::AUTHORIZATION || !is_injectable(&name.value) {
            cx.error(name.span, format!("nothing of an answer is put into `{}`", name.value))
                .hint("use another field");
            continue;
        }
        let taken = inject_names(block).filter(|other| **other == name.value).count() > 1;
        let field = Carried { name: name.value.as_str().to_owned(), pointer: pointer.value.0.clone() };
        if taken {
            cx.error(item.span, format!("two values are put into `{}`", name.value))
                .hint("remove one of them");
        }
        carried.push(field);
    }
    carried
}

fn inject_names(block: &Credential) -> impl Iterator<Item = &http::HeaderName> {
    let items = block.inject.iter().flat_map(|inject| &inject.value.items);
    items.filter_map(|item| item.value.header.as_ref().map(|name| &name.value))
}

fn refuse_twice(twice: bool, item: &At<InjectBlock>, cx: &mut Cx<'_>) {
    if twice {
        cx.error(item.span, "the token is put into the same place twice").hint("remove one of them");
    }
}

fn same(one: &Place, other: &Place) -> bool {
    match (one, other) {
        (Place::Header(one, _), Place::Header(other, _)) => one == other,
        (Place::Cookie(one, _), Place::Cookie(other, _)) | (Place::Query(one, _), Place::Query(other, _)) => {
            one == other
        }
        _ => false,
    }
}

fn place(item: &At<InjectBlock>, preset: &Preset, cx: &mut Cx<'_>) -> Option<Place> {
    let block = &item.value;
    let named = [block.header.is_some(), block.cookie.is_some(), block.query.is_some()];
    match named.into_iter().filter(|given| *given).count() {
        1 => {}
        0 if block.scheme.is_some() || block.value.is_some() => {}
        0 => {
            if !cx.reported_in(item.span) {
                cx.error(item.span, "this names no place").hint("write `header`, `cookie` or `query`");
            }
            return None;
        }
        _ => {
            cx.error(item.span, "this names several places").hint("write a list, one place in each item");
            return None;
        }
    }
    if let (Some(scheme), Some(value)) = (&block.scheme, &block.value) {
        cx.error(scheme.span, "`scheme` and `value` both say what stands before the token")
            .also(value.span, "the other")
            .hint("remove one of them");
        return None;
    }
    if let Some(cookie) = &block.cookie {
        return self::cookie(&cookie.value.0, cookie.span, block, cx);
    }
    if let Some(query) = &block.query {
        refuse_scheme(block, cx);
        if block.allow_query.as_ref().is_none_or(|allow| !allow.value) {
            cx.error(query.span, "a token in a URL ends up in the logs of whoever sees the URL")
                .hint("use a header; if the API takes it nowhere else, say `allow_query: true`");
            return None;
        }
        return Some(Place::Query(query.value.0.clone(), value(block, TOKEN.to_owned(), cx)?));
    }
    let name = block.header.as_ref().map_or(header::AUTHORIZATION, |name| name.value.clone());
    if !is_injectable(&name) {
        let span = block.header.as_ref().map_or(item.span, |name| name.span);
        let hint = if name == header::COOKIE { "write `cookie: NAME`" } else { "use another field" };
        cx.error(span, format!("no token is put into `{name}`")).hint(hint);
        return None;
    }
    let implied = match &block.scheme {
        Some(scheme) => [&scheme.value.0, " ", TOKEN].concat(),
        None if name == header::AUTHORIZATION => [preset.scheme, " ", TOKEN].concat(),
        None => TOKEN.to_owned(),
    };
    if implied.bytes().any(|byte| !(b' '..=b'~').contains(&byte)) {
        cx.error(block.scheme.as_ref()?.span, "only printable ASCII can stand in a header");
        return None;
    }
    Some(Place::Header(name, value(block, implied, cx)?))
}

fn cookie(
    name: &str,
    span: crate::config::source::Span,
    block: &InjectBlock,
    cx: &mut Cx<'_>,
) -> Option<Place> {
    refuse_scheme(block, cx);
    // RFC 6265 4.1.1: a token.
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !name.bytes().all(is_token) {
        cx.error(span, "this is no name of a cookie").hint("letters, digits, `-` and `_` make one");
        return None;
    }
    Some(Place::Cookie(name.to_owned(), value(block, TOKEN.to_owned(), cx)?))
}

fn refuse_scheme(block: &InjectBlock, cx: &mut Cx<'_>) {
    if let Some(scheme) = &block.scheme {
        cx.error(scheme.span, "`scheme` has a meaning in header fields only").hint("use `value`");
    }
}

fn value(block: &InjectBlock, implied: String, cx: &mut Cx<'_>) -> Option<String> {
    let Some(value) = &block.value else { return Some(implied) };
    let text = &value.value.0;
    if !text.contains(TOKEN) {
        cx.error(value.span, "the token has no place in this value")
            .hint("write `{token}` where it belongs; a fixed value is set by the route's `request_headers`");
        return None;
    }
    if text.bytes().any(|byte| !(b' '..=b'~').contains(&byte)) {
        cx.error(value.span, "only printable ASCII can stand here");
        return None;
    }
    Some(text.clone())
}
