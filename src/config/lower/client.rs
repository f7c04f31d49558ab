//! `client:` and `user_assertion:` of a credential: one way to authenticate, with all it needs and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use super::secret;
use crate::config::blocks::credential::{AuthName, Client, Credential, GrantName, UserAssertionBlock};
use crate::config::context::Cx;
use crate::config::read::{At, Named, OneOrMany};
use crate::config::source::Span;
use crate::config::values::{NonEmpty, Positive};
use crate::names::Name;
use crate::oauth::client_auth::AssertionClaims;
use crate::oauth::preset::{self, Preset, SecretAuth, Thumbprint};
use crate::oauth::{Algorithm, Assertion, ClientAuth, ClientIdParam, KeyId, SigningKey, UserAssertion};
use crate::secret::SecretSource;

/// How long an assertion is valid unless told.
const ASSERTION_LIFETIME: Duration = Duration::from_secs(60);

/// The client's identifier and its one method of authentication.
pub(super) fn client(
    name: &Name,
    key: Span,
    block: &Credential,
    cx: &mut Cx<'_>,
) -> Option<(String, ClientAuth)> {
    let Some(client) = &block.client else {
        if !cx.reported_in(block.place) {
            cx.error(key, format!("the credential `{name}` has no `client`"))
                .hint("write `client: {id: …, secret: {env: NAME}}`");
        }
        return None;
    };
    let preset = preset(block);
    let is_custom = block.grant.as_ref().is_some_and(|grant| grant.value == GrantName::Custom);
    let auth = method(client, preset, is_custom, cx);
    let id = client.value.id.as_ref().map(|id| id.value.0.clone());
    let auth = auth.and_then(|auth| self::auth(auth, &client.value, preset, client.span, cx));
    Some((id?, auth?))
}

/// The preset that decides what is left out.
fn preset(block: &Credential) -> &'static Preset {
    block.preset.as_ref().map_or(&preset::GENERIC, |preset| preset.value)
}

/// The method that is meant.
fn method(client: &At<Client>, preset: &Preset, is_custom: bool, cx: &mut Cx<'_>) -> Option<At<AuthName>> {
    let block = &client.value;
    if let Some(auth) = &block.auth {
        return Some(auth.clone());
    }
    let implied = |value, span| Some(At { value, span });
    match (&block.secret, &block.key, &block.assertion) {
        (Some(secret), None, None) => match preset.secret_auth {
            SecretAuth::Post if block.basic_encoding.is_none() => implied(AuthName::Post, secret.span),
            _ => implied(AuthName::Basic, secret.span),
        },
        (None, Some(key), None) => implied(AuthName::PrivateKeyJwt, key.span),
        (None, None, Some(assertion)) => implied(AuthName::PrivateKeyJwt, assertion.span),
        (None, None, None) if is_custom => implied(AuthName::None, client.span),
        (None, None, None) => {
            if !cx.reported_in(client.span) {
                cx.error(client.span, "the client has no way to authenticate").hint(
                    "give `secret: {env: NAME}` or `key: {file: PATH}`; a public client says `auth: none`",
                );
            }
            None
        }
        (secret, key, assertion) => {
            two_methods(secret.as_ref(), key.as_ref(), assertion.as_ref().map(|a| a.span), cx);
            None
        }
    }
}

/// A client uses one method in a request (RFC 6749 2.3).
fn two_methods(
    secret: Option<&At<SecretSource>>,
    key: Option<&At<SecretSource>>,
    assertion: Option<Span>,
    cx: &mut Cx<'_>,
) {
    let spans: Vec<Span> =
        [secret.map(|s| s.span), key.map(|k| k.span), assertion].into_iter().flatten().collect();
    if let [first, second, ..] = spans.as_slice() {
        cx.error(*second, "two ways to authenticate are given; a client uses exactly one")
            .also(*first, "the other")
            .hint("remove one of them, or say with `auth` which method is meant and remove what it does not use");
    }
}

/// Which keys a method uses.
fn used_keys(method: AuthName, pair: bool) -> &'static [&'static str] {
    match method {
        AuthName::Basic => &["secret", "basic_encoding"],
        AuthName::Post => &["secret"],
        AuthName::SecretJwt => {
            &["secret", "client_id_param", "audience", "assertion_lifetime", "assertion_claims"]
        }
        AuthName::PrivateKeyJwt if pair => &[
            "secret",
            "client_id_param",
            "key",
            "alg",
            "kid",
            "certificate",
            "x5t",
            "audience",
            "assertion_lifetime",
            "assertion_claims",
            "assertion",
        ],
        AuthName::PrivateKeyJwt => &[
            "client_id_param",
            "key",
            "alg",
            "kid",
            "certificate",
            "x5t",
            "audience",
            "assertion_lifetime",
            "assertion_claims",
            "assertion",
        ],
        AuthName::TlsClient | AuthName::SelfSignedTlsClient => &["key", "certificate"],
        AuthName::None => &[],
    }
}

fn method_name(method: AuthName) -> &'static str {
    match method {
        AuthName::Basic => "client_secret_basic",
        AuthName::Post => "client_secret_post",
        AuthName::SecretJwt => "client_secret_jwt",
        AuthName::PrivateKeyJwt => "private_key_jwt",
        AuthName::TlsClient => "tls_client_auth",
        AuthName::SelfSignedTlsClient => "self_signed_tls_client_auth",
        AuthName::None => "none",
    }
}

/// Every key that was given is used by the method.
fn refuse_unused(method: &At<AuthName>, block: &Client, pair: bool, cx: &mut Cx<'_>) -> bool {
    let given: [(&str, Option<Span>); 11] = [
        ("secret", block.secret.as_ref().map(|at| at.span)),
        ("basic_encoding", block.basic_encoding.as_ref().map(|at| at.span)),
        ("client_id_param", block.client_id_param.as_ref().map(|at| at.span)),
        ("key", block.key.as_ref().map(|at| at.span)),
        ("alg", block.alg.as_ref().map(|at| at.span)),
        ("kid", block.kid.as_ref().map(|at| at.span)),
        ("certificate", block.certificate.as_ref().map(|at| at.span)),
        ("x5t", block.x5t.as_ref().map(|at| at.span)),
        ("audience", block.audience.as_ref().map(|at| at.span)),
        ("assertion_lifetime", block.assertion_lifetime.as_ref().map(|at| at.span)),
        ("assertion", block.assertion.as_ref().map(|at| at.span)),
    ];
    let used = used_keys(method.value, pair);
    let mut good = true;
    for (key, span) in given {
        let Some(span) = span.filter(|_| !used.contains(&key)) else { continue };
        good = false;
        let name = method_name(method.value);
        let is_material = matches!(key, "secret" | "key" | "assertion");
        let title = if is_material {
            format!("two ways to authenticate are given: `{name}` does not use `{key}`")
        } else {
            format!("`{key}` has no effect with `{name}`")
        };
        cx.error(span, title)
            .also(method.span, "the method")
            .hint(format!("remove `{key}`, or change `auth`"));
    }
    good
}

fn auth(
    method: At<AuthName>,
    block: &Client,
    preset: &Preset,
    place: Span,
    cx: &mut Cx<'_>,
) -> Option<ClientAuth> {
    let param = block.client_id_param.as_ref();
    let pair = param.is_some_and(|param| param.value == ClientIdParam::Base64Pair);
    if !refuse_unused(&method, block, pair, cx) {
        return None;
    }
    let client_id_param = param.map(|param| param.value).unwrap_or_default();
    if pair && let Some(param) = param {
        cx.warning(param.span, "`base64_pair` puts the client secret into the body of every token request")
            .hint("use `plain` unless the provider refuses it");
    }
    let needs_secret = pair || matches!(method.value, AuthName::Basic | AuthName::Post | AuthName::SecretJwt);
    let secret = if needs_secret { Some(self::secret(&method, block, place, cx)?) } else { None };
    match method.value {
        AuthName::None => Some(ClientAuth::None),
        AuthName::TlsClient => Some(ClientAuth::MutualTls { self_signed: false }),
        AuthName::SelfSignedTlsClient => Some(ClientAuth::MutualTls { self_signed: true }),
        AuthName::Basic => Some(ClientAuth::Basic {
            secret: secret?,
            encoding: block.basic_encoding.as_ref().map_or(preset.basic_encoding, |encoding| encoding.value),
        }),
        AuthName::Post => Some(ClientAuth::Post { secret: secret? }),
        AuthName::SecretJwt => {
            Some(ClientAuth::SecretJwt { secret: secret?, claims: client_claims(block), client_id_param })
        }
        AuthName::PrivateKeyJwt => private_key_jwt(&method, block, preset, client_id_param, secret, cx),
    }
}

fn secret(method: &At<AuthName>, block: &Client, place: Span, cx: &mut Cx<'_>) -> Option<SecretSource> {
    let Some(secret) = &block.secret else {
        if !cx.reported_in(place) {
            let span = if method.span == place { place } else { method.span };
            cx.error(span, format!("`{}` needs `secret`", method_name(method.value)))
                .hint("write `secret: {env: NAME}` or `secret: {file: PATH}`");
        }
        return None;
    };
    secret::check(secret, "the client secret", cx).then(|| secret.value.clone())
}

fn private_key_jwt(
    method: &At<AuthName>,
    block: &Client,
    preset: &Preset,
    client_id_param: ClientIdParam,
    secret: Option<SecretSource>,
    cx: &mut Cx<'_>,
) -> Option<ClientAuth> {
    match (&block.key, &block.assertion) {
        (Some(key), Some(assertion)) => {
            two_methods(None, Some(key), Some(assertion.span), cx);
            None
        }
        (None, None) => {
            if !cx.reported_in(block.place) {
                cx.error(method.span, "`private_key_jwt` needs `key`").hint(
                    "write `key: {file: PATH}`, or `assertion: {file: PATH}` for a ready-made assertion",
                );
            }
            None
        }
        (None, Some(assertion)) => {
            readable_file(&assertion.value.0, assertion.span, "the assertion", cx);
            Some(ClientAuth::AssertionFile { path: assertion.value.0.clone(), client_id_param, secret })
        }
        (Some(key), None) => {
            let readable = secret::check(key, "the private key", cx);
            let key_id =
                key_id(preset, block.kid.as_ref(), block.certificate.as_ref(), block.x5t.as_ref(), cx)?;
            if !readable {
                return None;
            }
            let algorithm = block.alg.as_ref().map_or(preset.algorithm, |alg| alg.value);
            let key = SigningKey { source: key.value.clone(), algorithm, key_id };
            let assertion = Assertion { key, claims: client_claims(block) };
            Some(ClientAuth::PrivateKeyJwt { assertion, client_id_param, secret })
        }
    }
}

fn readable_file(path: &std::path::Path, span: Span, what: &str, cx: &mut Cx<'_>) {
    let source = At { value: SecretSource::File(path.to_path_buf()), span };
    secret::check(&source, what, cx);
}

fn key_id(
    preset: &Preset,
    kid: Option<&At<NonEmpty>>,
    certificate: Option<&At<crate::config::secrets::FileRef>>,
    x5t: Option<&At<OneOrMany<Thumbprint>>>,
    cx: &mut Cx<'_>,
) -> Option<KeyId> {
    match (certificate, x5t) {
        (None, Some(x5t)) => {
            cx.error(x5t.span, "`x5t` needs `certificate`").hint("write `certificate: {file: PATH}`");
            return None;
        }
        (Some(certificate), None) if preset.thumbprint.is_none() => {
            cx.error(certificate.span, "`certificate` has no effect without `x5t`")
                .hint("say `x5t: sha1` or `x5t: sha256`, as the provider wants it");
            return None;
        }
        (Some(certificate), _) => {
            if std::fs::File::open(&certificate.value.0).is_err() {
                cx.error(certificate.span, format!("cannot read {}", certificate.value.0.display()));
                return None;
            }
        }
        (None, None) => {}
    }
    let has = |wanted| match x5t {
        Some(x5t) => x5t.value.items.iter().any(|item| item.value == wanted),
        None => certificate.is_some() && preset.thumbprint == Some(wanted),
    };
    Some(KeyId {
        kid: kid.map(|kid| kid.value.0.clone()),
        certificate: certificate.map(|certificate| certificate.value.0.clone()),
        x5t_sha1: has(Thumbprint::Sha1),
        x5t_sha256: has(Thumbprint::Sha256),
    })
}

/// The texts of a list or of one value.
pub(super) fn texts(many: Option<&At<OneOrMany<NonEmpty>>>) -> Vec<String> {
    many.iter().flat_map(|many| many.value.items.iter().map(|item| item.value.0.clone())).collect()
}

fn claims(
    audience: Option<&At<OneOrMany<NonEmpty>>>,
    lifetime: Option<&At<Positive>>,
    extra: Option<&At<Named<String>>>,
) -> AssertionClaims {
    AssertionClaims {
        audience: texts(audience),
        audience_as_list: audience.is_some_and(|audience| audience.value.is_list),
        lifetime: lifetime.map_or(ASSERTION_LIFETIME, |lifetime| lifetime.value.0),
        extra: extra
            .iter()
            .flat_map(|extra| &extra.value.0)
            .map(|(name, value)| (name.value.clone(), value.value.clone()))
            .collect::<BTreeMap<_, _>>(),
    }
}

fn client_claims(block: &Client) -> AssertionClaims {
    claims(block.audience.as_ref(), block.assertion_lifetime.as_ref(), block.assertion_claims.as_ref())
}

/// `user_assertion:`.
pub(super) fn user_assertion(
    assertion: &At<UserAssertionBlock>,
    credential: &Credential,
    cx: &mut Cx<'_>,
) -> Option<UserAssertion> {
    let block = &assertion.value;
    if let Some(file) = &block.file {
        if let Some(sub) = &block.sub {
            cx.error(sub.span, "a ready-made assertion has its own `sub`")
                .also(file.span, "read from here")
                .hint("remove `file` to mint assertions here, or remove everything else");
            return None;
        }
        readable_file(&file.value.0, file.span, "the user assertion", cx);
        return Some(UserAssertion::File(file.value.0.clone()));
    }
    let key = block.key.as_ref().or(credential.client.as_ref().and_then(|client| client.value.key.as_ref()));
    if block.sub.is_none() && !cx.reported_in(assertion.span) {
        cx.error(assertion.span, "the user assertion names no user").hint("write `sub: USER`");
    }
    if key.is_none() && !cx.reported_in(credential.place) {
        cx.error(assertion.span, "the user assertion has no key to be signed with")
            .hint("write `key: {file: PATH}`");
    }
    let key = key.filter(|key| secret::check(key, "the private key", cx));
    let preset = preset(credential);
    let key_id = key_id(preset, block.kid.as_ref(), block.certificate.as_ref(), block.x5t.as_ref(), cx)?;
    let algorithm: Algorithm = block.alg.as_ref().map_or(preset.algorithm, |alg| alg.value);
    Some(UserAssertion::Minted {
        subject: block.sub.as_ref()?.value.0.clone(),
        assertion: Assertion {
            key: SigningKey { source: key?.value.clone(), algorithm, key_id },
            claims: claims(block.audience.as_ref(), block.lifetime.as_ref(), block.claims.as_ref()),
        },
    })
}
