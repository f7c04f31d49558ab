//! `credentials:`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{client, grant, route};
use crate::config::addresses::HttpUrl;
use crate::config::blocks::File;
use crate::config::blocks::credential::{Credential, GrantName};
use crate::config::context::Cx;
use crate::config::problem::Severity;
use crate::config::read::{At, Parse};
use crate::config::source::Span;
use crate::credential::{CredentialConfig, RotationMode, removal};
use crate::names::Name;
use crate::oauth::{ClientAuth, EndpointSource, Grant, OAuthClient, OAuthConfig, Preset, SetupError};
use crate::origin::{Origin, Scheme};
use crate::tls::TlsClientConfig;

/// How long a connection to a token endpoint may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a whole token request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// All credentials that can be built.
pub(super) fn credentials(
    file: &File,
    proxy: Option<&url::Url>,
    uses: &[route::RouteUse],
    cx: &mut Cx<'_>,
) -> Vec<CredentialConfig> {
    let Some(named) = &file.credentials else { return Vec::new() };
    let mut built = Vec::new();
    for (key, block) in &named.value.0 {
        match Name::parse(&key.value) {
            Ok(name) => {
                if uses.iter().all(|used| used.credential.value != name) && !cx.has_errors() {
                    cx.warning(key.span, format!("no route uses the credential `{name}`"));
                }
                built.extend(credential(&name, key.span, &block.value, proxy, uses, cx));
            }
            Err(error) => {
                let shown = crate::config::redact::shown_key(&key.value);
                cx.error(key.span, format!("{shown} is not a name")).label(error.reason);
            }
        }
    }
    built
}

fn credential(
    name: &Name,
    key: Span,
    block: &Credential,
    proxy: Option<&url::Url>,
    uses: &[route::RouteUse],
    cx: &mut Cx<'_>,
) -> Option<CredentialConfig> {
    let oauth = oauth(name, key, block, proxy, cx);
    let rotation = block.rotation.as_ref().map(|rotation| &rotation.value);
    let refresh = block.refresh.as_ref().map(|refresh| &refresh.value);
    let lifetime = block.lifetime.as_ref().map(|lifetime| &lifetime.value);
    let preset: &'static Preset = block.preset.as_ref()?.value;
    let injection = super::inject::injection(block, preset, cx);
    let (oauth, injection) = (oauth?, Box::new(injection?));
    Some(CredentialConfig {
        name: name.clone(),
        injection,
        revoke_on_removal: revoke_on_removal(block, &oauth, cx),
        oauth,
        allowed_upstreams: allowed_upstreams(name, block, uses),
        required: block.required.as_ref()?.value,
        rotation: match rotation {
            Some(rotation) => rotation.mode.as_ref()?.value,
            None => RotationMode::Auto,
        },
        grace: rotation
            .and_then(|rotation| rotation.grace.as_ref())
            .map_or(preset.grace, |grace| grace.value),
        refresh_at_ppm: refresh.and_then(|refresh| refresh.at.as_ref()).map(|at| at.value.0),
        min_interval: refresh
            .and_then(|refresh| refresh.min_interval.as_ref())
            .map_or(preset.min_interval, |least| least.value.0),
        default_lifetime: lifetime
            .and_then(|lifetime| lifetime.default.as_ref())
            .map_or(preset.default_lifetime, |told| told.value.0),
        refresh_token_lifetime: lifetime
            .and_then(|lifetime| lifetime.refresh_token.as_ref())
            .map(|lifetime| lifetime.value.0)
            .or(preset.refresh_token_lifetime),
    })
}

/// What revokes must be there when the credential is not.
fn revoke_on_removal(block: &Credential, oauth: &OAuthConfig, cx: &mut Cx<'_>) -> bool {
    let Some(revoke) = block.revoke_on_removal.as_ref().filter(|revoke| revoke.value) else { return false };
    if !removal::can_be_kept(&oauth.client_auth) {
        cx.warning(revoke.span, "the tokens cannot be revoked when the credential is gone: its key, command or secret is gone too")
            .hint("run `bearward revoke` before you remove it; or use a secret from a file or variable that stays");
    }
    true
}

/// Where the token may go.
pub(super) fn allowed_upstreams(name: &Name, block: &Credential, uses: &[route::RouteUse]) -> Vec<Origin> {
    if let Some(allowed) = &block.allowed_upstreams {
        return allowed.value.iter().map(|origin| origin.value.clone()).collect();
    }
    let mut origins: Vec<Origin> = Vec::new();
    for used in uses.iter().filter(|used| used.credential.value == *name) {
        for origin in &used.origins {
            if !origins.contains(&origin.value) {
                origins.push(origin.value.clone());
            }
        }
    }
    origins
}

fn oauth(
    name: &Name,
    key: Span,
    block: &Credential,
    proxy: Option<&url::Url>,
    cx: &mut Cx<'_>,
) -> Option<OAuthConfig> {
    let is = |wanted| block.grant.as_ref().is_some_and(|grant| grant.value == wanted);
    let (is_static, is_custom) = (is(GrantName::Static), is(GrantName::Custom));
    let before = cx.problems.len();
    if let Some(grant) = &block.grant {
        grant::misplaced(block, grant, cx);
    }
    let grant = block.grant.as_ref().and_then(|grant| grant::grant(name, block, grant, cx));
    let endpoint = match &grant {
        Some(Grant::Custom(custom)) if block.token_endpoint.is_none() && block.issuer.is_none() => {
            // Where this cannot be read, the grant's own check says why.
            custom.endpoint().map(EndpointSource::Url).or(Some(EndpointSource::None))
        }
        None if is_custom => None,
        _ => endpoint(name, key, block, is_static, cx),
    };
    let client = if is_static || is_custom && block.client.is_none() {
        Some((String::new(), ClientAuth::None))
    } else {
        client::client(name, key, block, cx)
    };
    let tls = match &block.tls {
        Some(tls) => route::tls(tls, cx),
        None => Some(TlsClientConfig::default()),
    };
    let tls = tls.and_then(|tls| super::certificate::client(block, tls, cx));
    let parameters = parameters(block, cx);
    let carried = super::inject::carried(block, cx);
    let login = super::login::login(block, endpoint.as_ref(), cx);
    let (client_id, client_auth) = client?;
    let own_proxy = block.outbound_proxy.as_ref().map(|proxy| proxy.value.0.clone());
    let config = OAuthConfig {
        endpoint: endpoint?,
        preset: block.preset.as_ref()?.value,
        client_id,
        client_auth,
        grant: grant?,
        scope: block.scope.as_ref().map(|scope| scope.value.0.clone()),
        refresh_scope: block
            .refresh
            .as_ref()
            .and_then(|refresh| refresh.value.scope.as_ref())
            .map(|scope| scope.value.0.clone()),
        audience: block.audience.as_ref().map(|audience| audience.value.0.clone()),
        resource: client::texts(block.resource.as_ref()),
        parameters,
        login: Box::new(login),
        dpop: block.dpop.is_some(),
        carried,
        tls: tls?,
        outbound_proxy: own_proxy.or_else(|| proxy.cloned()),
        connect_timeout: CONNECT_TIMEOUT,
        request_timeout: REQUEST_TIMEOUT,
    };
    if cx.problems[before..].iter().all(|problem| problem.severity != Severity::Error) {
        check_keys(&config, block, key, cx);
    }
    Some(config)
}

fn endpoint(
    name: &Name,
    key: Span,
    block: &Credential,
    is_static: bool,
    cx: &mut Cx<'_>,
) -> Option<EndpointSource> {
    match (&block.token_endpoint, &block.issuer) {
        (Some(given), _) | (None, Some(given)) if is_static => {
            cx.error(given.span, "`grant: static` asks no provider").hint("remove this");
            None
        }
        (None, None) if is_static => Some(EndpointSource::None),
        (Some(endpoint), Some(issuer)) => {
            cx.error(issuer.span, "`token_endpoint` and `issuer` are both given")
                .also(endpoint.span, "here as well")
                .hint("keep `token_endpoint`, or keep `issuer` and let the endpoint be discovered");
            None
        }
        (Some(url), None) => {
            encrypted(url, "token endpoint", cx).then(|| EndpointSource::Url(url.value.0.clone()))
        }
        (None, Some(url)) => {
            encrypted(url, "issuer", cx).then(|| EndpointSource::Issuer(url.value.0.clone()))
        }
        (None, None) => {
            if let Some(url) = block.preset.as_ref().and_then(|preset| preset.value.token_endpoint()) {
                return Some(EndpointSource::Url(url));
            }
            if !cx.reported_in(block.place) {
                cx.error(key, format!("the credential `{name}` has neither `token_endpoint` nor `issuer`"))
                    .hint(match block.preset.as_ref().map(|preset| preset.value) {
                        // One that is not a whole URL is the path at its end.
                        Some(preset) if !preset.endpoints.token.is_empty() => format!(
                            "`token_endpoint: https://…{}` is where its tokens come from; `issuer: https://…` discovers it",
                            preset.endpoints.token
                        ),
                        _ => "`token_endpoint: https://…` is where its tokens come from; `issuer: https://…` discovers it"
                            .to_owned(),
                    });
            }
            None
        }
    }
}

/// The token endpoint sees every secret (RFC 6749 3.2: TLS is required).
pub(super) fn encrypted(url: &At<HttpUrl>, what: &str, cx: &mut Cx<'_>) -> bool {
    let Ok(origin) = Origin::of_url(&url.value.0) else { return false };
    if origin.scheme() == Scheme::Https || origin.is_loopback() {
        return true;
    }
    cx.error(
        url.span,
        format!("the {what} is plain http: secrets and tokens would cross the network in the clear"),
    )
    .hint("use https; plain http is accepted on this machine alone");
    false
}

/// Parameters that a token request has of itself; none may be sent twice (RFC 6749 3.2).
const OWN_PARAMETERS: &[&str] = &[
    "grant_type",
    "refresh_token",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
    "assertion",
    "scope",
    "audience",
    "resource",
    "username",
    "password",
    "subject_token",
    "subject_token_type",
    "actor_token",
    "actor_token_type",
    "requested_token_type",
];

fn parameters(block: &Credential, cx: &mut Cx<'_>) -> BTreeMap<String, String> {
    let mut parameters = BTreeMap::new();
    for (name, value) in block.parameters.iter().flat_map(|parameters| &parameters.value.0) {
        if OWN_PARAMETERS.contains(&name.value.as_str()) {
            let problem = cx.error(name.span, format!("the parameter `{}` cannot be given here", name.value));
            match name.value.as_str() {
                "grant_type"
                | "refresh_token"
                | "assertion"
                | "client_assertion"
                | "client_assertion_type" => problem.hint("every token request has it of itself"),
                "client_id" | "client_secret" => problem.hint("use `client: {id: …, secret: …}`"),
                _ => problem.hint(format!("use the credential's own key `{}`", name.value)),
            };
        }
        parameters.insert(name.value.clone(), value.value.0.clone());
    }
    parameters
}

/// Keys and certificates fit together; asked of the module that will use them.
fn check_keys(config: &OAuthConfig, block: &Credential, key: Span, cx: &mut Cx<'_>) {
    let client_only = OAuthConfig { grant: Grant::ClientCredentials, ..config.clone() };
    let tried = match (&config.grant, &config.endpoint) {
        (Grant::Static { .. }, _) => return,
        (Grant::Custom(_), _) => OAuthClient::try_new(config.clone()).map_err(|error| (error, false)),
        (_, EndpointSource::None) => return,
        (Grant::JwtBearer(_), _) => OAuthClient::try_new(client_only)
            .map_err(|error| (error, false))
            .and_then(|_| OAuthClient::try_new(config.clone()).map_err(|error| (error, true))),
        _ => OAuthClient::try_new(config.clone()).map_err(|error| (error, false)),
    };
    let Err((error, is_user)) = tried else { return };
    let client = block.client.as_ref();
    let client_key = client.and_then(|client| client.value.key.as_ref());
    let user = block.user_assertion.as_ref();
    let user_key = user.and_then(|user| user.value.key.as_ref());
    let place = match (&error, is_user) {
        (SetupError::Key(_), true) => user_key.or(client_key).map(|key| key.span),
        (SetupError::Key(_), false) => client_key.map(|key| key.span),
        (SetupError::Tls(_), true) => user_key.or(client_key).map(|key| key.span),
        (SetupError::Tls(_), false) => {
            block.tls.as_ref().map(|tls| tls.span).or(client_key.map(|key| key.span))
        }
        (_, true) => user.map(|user| user.span),
        (SetupError::Http(_), false) if block.custom.is_some() => block.custom.as_ref().map(|at| at.span),
        (_, false) => client.map(|client| client.span),
    };
    cx.error(place.unwrap_or(key), error.to_string());
}
