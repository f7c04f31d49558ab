//! `grant` of a credential, and the keys that belong to one grant only.

use http::header::{self, HeaderName};

use super::{client, secret};
use crate::config::blocks::credential::{Credential, CustomBlock, GrantName};
use crate::config::context::Cx;
use crate::config::read::At;
use crate::config::source::Span;
use crate::oauth::{Custom, CustomBody, CustomResponse, ForeignToken, Grant, TokenExchange};
use crate::secret::SecretSource;

/// What the types of RFC 8693 3 begin with; `jwt` stands for the whole of it.
const TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:";

/// Keys that belong to another grant.
pub(super) fn misplaced(block: &Credential, grant: &At<GrantName>, cx: &mut Cx<'_>) {
    use GrantName as G;
    let has: [(&str, Option<Span>, &[GrantName]); 11] = [
        ("refresh_token", block.refresh_token.as_ref().map(|at| at.span), &[G::RefreshToken, G::Custom]),
        ("token", block.token.as_ref().map(|at| at.span), &[G::Static]),
        ("user_assertion", block.user_assertion.as_ref().map(|at| at.span), &[G::JwtBearer]),
        ("username", block.username.as_ref().map(|at| at.span), &[G::Password, G::Custom]),
        ("password", block.password.as_ref().map(|at| at.span), &[G::Password, G::Custom]),
        ("subject_token", block.subject_token.as_ref().map(|at| at.span), &[G::TokenExchange, G::Custom]),
        ("subject_token_type", block.subject_token_type.as_ref().map(|at| at.span), &[G::TokenExchange]),
        ("actor_token", block.actor_token.as_ref().map(|at| at.span), &[G::TokenExchange]),
        ("actor_token_type", block.actor_token_type.as_ref().map(|at| at.span), &[G::TokenExchange]),
        ("requested_token_type", block.requested_token_type.as_ref().map(|at| at.span), &[G::TokenExchange]),
        ("custom", block.custom.as_ref().map(|at| at.span), &[G::Custom]),
    ];
    for (key, span, grants) in has {
        if let Some(span) = span
            && !grants.contains(&grant.value)
        {
            cx.error(span, format!("`{key}` has no meaning with this grant"))
                .also(grant.span, "the grant")
                .hint(format!("remove it, or say `grant: {}`", grants[0].as_str()));
        }
    }
    if grant.value == G::Static
        && let Some(client) = &block.client
    {
        cx.error(client.span, "`client` has no meaning with `grant: static`, which asks no provider")
            .also(grant.span, "the grant")
            .hint("remove it");
    }
    if let Some(dpop) = &block.dpop
        && (matches!(grant.value, G::Static | G::Custom) || of_users(block, grant))
    {
        cx.error(dpop.span, "`dpop` has no meaning with this grant: nobody binds its tokens to a key")
            .also(grant.span, "the grant")
            .hint("remove it");
    }
    if let Some(revoke) = block.revoke_on_removal.as_ref().filter(|revoke| revoke.value)
        && (matches!(grant.value, G::Static | G::Custom) || of_users(block, grant))
    {
        cx.error(revoke.span, "`revoke_on_removal` has no meaning with this grant: nothing is stored that could be revoked by RFC 7009")
            .also(grant.span, "the grant")
            .hint("remove it");
    }
    if grant.value == G::Custom
        && let Some(parameters) = &block.parameters
    {
        cx.error(parameters.span, "`parameters` has no meaning with `grant: custom`")
            .also(grant.span, "the grant")
            .hint("write them into `custom: {form: {…}}`");
    }
}

/// The grant with all it needs.
pub(super) fn grant(
    name: &crate::names::Name,
    block: &Credential,
    grant: &At<GrantName>,
    cx: &mut Cx<'_>,
) -> Option<Grant> {
    match grant.value {
        GrantName::RefreshToken => {
            if let Some(seed) = &block.refresh_token {
                secret::check_seed(seed, name.as_str(), cx);
            }
            Some(Grant::RefreshToken { seed: block.refresh_token.as_ref().map(|seed| seed.value.clone()) })
        }
        GrantName::ClientCredentials => Some(Grant::ClientCredentials),
        GrantName::JwtBearer => {
            let Some(assertion) = &block.user_assertion else {
                missing(grant, "user_assertion", cx).hint(
                    "write `user_assertion: {sub: USER, key: {file: PATH}}`, or `user_assertion: {file: PATH}` for a ready-made one",
                );
                return None;
            };
            client::user_assertion(assertion, block, cx).map(Grant::JwtBearer)
        }
        GrantName::TokenExchange => token_exchange(block, grant, cx),
        GrantName::Password => password(block, grant, cx),
        GrantName::Custom => {
            let Some(custom) = &block.custom else {
                missing(grant, "custom", cx)
                    .hint("write `custom: {url: https://…, form: {…}, response: {…}}`");
                return None;
            };
            self::custom(name, block, &custom.value, cx).map(|custom| Grant::Custom(Box::new(custom)))
        }
        GrantName::Static => {
            let Some(token) = &block.token else {
                missing(grant, "token", cx).hint("write `token: {file: PATH}`");
                return None;
            };
            secret::check(token, "the token", cx);
            Some(Grant::Static { token: token.value.clone() })
        }
    }
}

fn missing<'c>(
    grant: &At<GrantName>,
    key: &str,
    cx: &'c mut Cx<'_>,
) -> &'c mut crate::config::problem::Problem {
    cx.error(grant.span, format!("`grant: {}` needs `{key}`", grant.value.as_str()))
}

/// The password grant with each user's own password.
fn of_users(block: &Credential, grant: &At<GrantName>) -> bool {
    grant.value == GrantName::Password && block.username.is_none() && block.password.is_none()
}

fn password(block: &Credential, grant: &At<GrantName>, cx: &mut Cx<'_>) -> Option<Grant> {
    cx.warning(grant.span, "the password grant gives this program a person's password; RFC 9700 forbids it")
        .hint("use it only where the provider offers nothing else; `bearward login` needs no password");
    if of_users(block, grant) {
        return Some(Grant::Users);
    }
    for (key, given) in [("username", block.username.is_some()), ("password", block.password.is_some())] {
        if !given && !cx.reported_in(block.place) {
            missing(grant, key, cx).hint("write `username: NAME` and `password: {file: PATH}`");
        }
    }
    let (username, password) = (block.username.as_ref()?, block.password.as_ref()?);
    secret::check(password, "the password", cx)
        .then(|| Grant::Password { username: username.value.0.clone(), password: password.value.clone() })
}

fn token_exchange(block: &Credential, grant: &At<GrantName>, cx: &mut Cx<'_>) -> Option<Grant> {
    let Some(subject) = &block.subject_token else {
        missing(grant, "subject_token", cx)
            .hint("write `subject_token: {file: PATH}`; it is read for every request");
        return None;
    };
    let readable = secret::check(subject, "the subject token", cx);
    let kind = |kind: Option<&At<crate::config::values::NonEmpty>>| {
        token_type(kind.map_or("jwt", |kind| kind.value.0.as_str()))
    };
    let actor = match (&block.actor_token, &block.actor_token_type) {
        (Some(actor), kind_of) => secret::check(actor, "the actor token", cx)
            .then(|| ForeignToken { token: actor.value.clone(), kind: kind(kind_of.as_ref()) }),
        (None, Some(kind)) => {
            cx.error(kind.span, "`actor_token_type` has no meaning without `actor_token`").hint("remove it");
            None
        }
        (None, None) => None,
    };
    readable.then(|| {
        Grant::TokenExchange(Box::new(TokenExchange {
            subject: ForeignToken {
                token: subject.value.clone(),
                kind: kind(block.subject_token_type.as_ref()),
            },
            actor,
            requested_token_type: block.requested_token_type.as_ref().map(|kind| token_type(&kind.value.0)),
        }))
    })
}

/// A URI is taken as it is; a plain word is one of the registered types.
fn token_type(text: &str) -> String {
    if text.contains(':') { text.to_owned() } else { [TOKEN_TYPE, text].concat() }
}

fn custom(
    name: &crate::names::Name,
    block: &Credential,
    custom: &CustomBlock,
    cx: &mut Cx<'_>,
) -> Option<Custom> {
    let readable = |secret: &Option<At<SecretSource>>, what: &str, cx: &mut Cx<'_>| match secret {
        Some(secret) => secret::check(secret, what, cx).then(|| secret.value.clone()),
        None => None,
    };
    let body = match (&custom.form, &custom.json) {
        (Some(form), Some(json)) => {
            cx.error(json.span, "a request has one body: `form` and `json` are both given")
                .also(form.span, "the other")
                .hint("remove one of them");
            return None;
        }
        (Some(form), None) => CustomBody::Form(
            form.value.0.iter().map(|(name, value)| (name.value.clone(), value.value.clone())).collect(),
        ),
        (None, Some(json)) => CustomBody::Json(json.value.clone()),
        (None, None) => CustomBody::None,
    };
    let response = custom.response.as_ref().map(|response| &response.value);
    let place = |at: Option<&At<crate::config::template::Pointer>>, default: &str| {
        at.map_or_else(|| default.to_owned(), |at| at.value.0.clone())
    };
    let made = Custom {
        method: custom.method.as_ref()?.value.clone(),
        url: custom.url.as_ref()?.value.clone(),
        headers: headers(custom, cx),
        body,
        response: CustomResponse {
            access_token: place(response.and_then(|r| r.access_token.as_ref()), "/access_token"),
            expires_in: place(response.and_then(|r| r.expires_in.as_ref()), "/expires_in"),
            refresh_token: response.and_then(|r| r.refresh_token.as_ref()).map(|at| at.value.0.clone()),
            headers: response.and_then(|r| r.headers.as_ref()).map(|at| at.value.0.clone()),
        },
        client_secret: block
            .client
            .as_ref()
            .and_then(|client| client.value.secret.as_ref())
            .map(|at| at.value.clone()),
        username: block.username.as_ref().map(|name| name.value.0.clone()),
        password: readable(&block.password, "the password", cx),
        subject_token: readable(&block.subject_token, "the subject token", cx),
        seed: block.refresh_token.as_ref().map(|seed| seed.value.clone()),
    };
    if let Some(seed) = &block.refresh_token {
        if made.refreshes() {
            secret::check_seed(seed, name.as_str(), cx);
        } else {
            cx.error(
                seed.span,
                "the custom request does not use `{refresh_token}`: this seed would never be redeemed",
            )
            .hint("put `{refresh_token}` where the endpoint wants it, or remove the seed");
        }
    }
    Some(made)
}

/// Fields that the connection owns.
const OURS: &[HeaderName] = &[
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::TE,
    header::UPGRADE,
];

fn headers(custom: &CustomBlock, cx: &mut Cx<'_>) -> Vec<(HeaderName, crate::oauth::template::Template)> {
    let mut headers: Vec<(HeaderName, _)> = Vec::new();
    for (name, value) in custom.headers.iter().flat_map(|headers| &headers.value.0) {
        match HeaderName::from_bytes(name.value.as_bytes()) {
            Ok(header) if OURS.contains(&header) => {
                cx.error(name.span, format!("`{header}` is set by the connection itself")).hint("remove it");
            }
            Ok(header) if headers.iter().any(|(known, _)| *known == header) => {
                cx.error(name.span, format!("`{header}` is given twice")).hint("remove one of them");
            }
            Ok(header) => headers.push((header, value.value.clone())),
            Err(_) => {
                let shown = crate::config::redact::shown_key(&name.value);
                cx.error(name.span, format!("{shown} is not a header name"));
            }
        }
    }
    headers
}
