//! Presets: what is known of each provider. Every field can be overridden in the configuration.
//!
//! Owns: what a preset can say, and how a provider's other endpoints follow from its token endpoint; the data is in
//! `table`. Knows no configuration and sends nothing.

mod table;

use std::borrow::Cow;
use std::time::Duration;

use url::Url;

use super::client_auth::{Algorithm, BasicEncoding};
use super::error::FailureClass;
pub use table::*;

/// What is known of a provider.
#[derive(Debug, PartialEq, Eq)]
pub struct Preset {
    /// `preset:`.
    pub name: &'static str,
    /// Where it is asked.
    pub endpoints: Endpoints,
    /// What a client with a secret and without `client.auth` does.
    pub secret_auth: SecretAuth,
    /// `client.basic_encoding`.
    pub basic_encoding: BasicEncoding,
    /// `alg` of assertions.
    pub algorithm: Algorithm,
    /// How an assertion's header names a certificate: whether `x5t#S256` (else `x5t`), where the provider wants one.
    pub thumbprint: Option<Thumbprint>,
    /// The `aud` of assertions where none is configured.
    pub audience: Audience,
    /// Any of these in the scope brings a refresh token; the first is added to a login's scope if none is there.
    pub offline_scope: &'static [&'static str],
    /// Parameters of the authorization request.
    pub login: &'static [(&'static str, &'static str)],
    /// Whether a refresh token is spent by its use: `None` is not known, or a matter of the client's settings.
    pub rotates: Option<bool>,
    /// How long a spent refresh token may be sent again.
    pub grace: Duration,
    /// Whether the old access token dies at the refresh.
    pub kills_old_access_token: bool,
    /// The access token's lifetime where the answer does not tell it.
    pub default_lifetime: Duration,
    /// The refresh token's lifetime where the answer does not tell it.
    pub refresh_token_lifetime: Option<Duration>,
    /// The least time between two token requests.
    pub min_interval: Duration,
    /// The issuer that discovery may name besides the configured one.
    pub issuer_alias: Option<&'static str>,
    /// The scheme of the `Authorization` field at its APIs.
    pub scheme: &'static str,
    /// What it calls a bearer token, besides `Bearer`.
    pub bearer_types: &'static [&'static str],
    /// Error codes of its own, for a refresh: letter case does not count.
    pub errors: &'static [(&'static str, FailureClass)],
    /// The field of a refusal that holds the code, besides `error`.
    pub error_field: Option<&'static str>,
    /// What 400, 401 and 403 without an OAuth error mean for a token request.
    pub bare_refusal: FailureClass,
    /// Whether an answer without `token_type` is refused.
    pub strict_token_type: bool,
}

/// Endpoints: whole URLs, or paths that take the place of `token`'s path at the end of the configured
/// `token_endpoint`. An empty text is an endpoint that is not there, or not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoints {
    /// A whole URL is the default of `token_endpoint`.
    pub token: &'static str,
    /// RFC 6749 3.1.
    pub authorization: &'static str,
    /// RFC 8628 3.1.
    pub device: &'static str,
    /// RFC 7009.
    pub revocation: &'static str,
}

/// What a client with a secret does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretAuth {
    /// `client_secret_basic`.
    Basic,
    /// `client_secret_post`.
    Post,
}

/// How a certificate is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thumbprint {
    /// `x5t`.
    Sha1,
    /// `x5t#S256`.
    Sha256,
}

/// The `aud` of assertions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// This text.
    Fixed(&'static str),
    /// The token endpoint, even where the issuer is known.
    Endpoint,
    /// The issuer if it is known, else the token endpoint.
    Issuer,
    /// The issuer if it is known, else scheme and host of the token endpoint.
    IssuerOrOrigin,
    /// The same with a slash at its end.
    IssuerOrOriginSlash,
    /// The issuer if it is known, else the token endpoint without [`Endpoints::token`].
    IssuerOrBase,
}

/// The preset of that name.
pub fn find(name: &str) -> Option<&'static Preset> {
    ALL.iter().copied().find(|preset| preset.name == name)
}

impl Preset {
    /// The default of `token_endpoint`.
    pub fn token_endpoint(&self) -> Option<Url> {
        absolute(self.endpoints.token)
    }

    /// Another endpoint of a provider whose tokens come from `token_endpoint`.
    pub fn endpoint(&self, which: impl Fn(&Endpoints) -> &'static str, token_endpoint: &Url) -> Option<Url> {
        let wanted = which(&self.endpoints);
        if let Some(whole) = absolute(wanted) {
            // It belongs to the provider's own address, and to no other installation.
            return self.token_endpoint().filter(|own| own == token_endpoint).map(|_| whole);
        }
        let base = token_endpoint.path().strip_suffix(&*self.token_path())?;
        if wanted.is_empty() {
            return None;
        }
        let mut url = token_endpoint.clone();
        url.set_path(&[base, wanted].concat());
        url.set_query(None);
        Some(url)
    }

    /// The path at the end of token endpoints; empty if nothing is known of it.
    fn token_path(&self) -> Cow<'static, str> {
        match self.token_endpoint() {
            Some(url) => url.path().to_owned().into(),
            None => self.endpoints.token.into(),
        }
    }

    /// The default `aud` of an assertion.
    pub fn assertion_audience<'a>(&self, token_endpoint: &'a Url, issuer: Option<&'a str>) -> Cow<'a, str> {
        let origin = || token_endpoint.origin().ascii_serialization();
        match (self.audience, issuer) {
            (Audience::Fixed(text), _) => text.into(),
            (Audience::Endpoint, _) => token_endpoint.as_str().into(),
            (_, Some(issuer)) => issuer.into(),
            (Audience::Issuer, None) => token_endpoint.as_str().into(),
            (Audience::IssuerOrOrigin, None) => origin().into(),
            (Audience::IssuerOrOriginSlash, None) => [&origin(), "/"].concat().into(),
            (Audience::IssuerOrBase, None) => token_endpoint
                .as_str()
                .strip_suffix(&*self.token_path())
                .unwrap_or(token_endpoint.as_str())
                .into(),
        }
    }

    /// What a code of the provider's own means for a refresh.
    pub(super) fn class_of(&self, code: &str) -> Option<FailureClass> {
        self.errors.iter().find(|(known, _)| known.eq_ignore_ascii_case(code)).map(|(_, class)| *class)
    }
}

fn absolute(endpoint: &str) -> Option<Url> {
    if endpoint.starts_with('/') { None } else { Url::parse(endpoint).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).expect(text)
    }

    #[test]
    fn the_table_is_sound() {
        for (index, preset) in ALL.iter().enumerate() {
            let name = preset.name;
            assert!(ALL[..index].iter().all(|other| other.name != name), "{name} twice");
            let Endpoints { token, authorization, device, revocation } = preset.endpoints;
            for text in [token, authorization, device, revocation] {
                let good = text.is_empty() || text.starts_with('/') || text.starts_with("https://");
                assert!(good && url("https://a.example").join(text).is_ok(), "{name}: {text}");
            }
            assert!(name == "generic" || !token.is_empty(), "{name} has no token endpoint");
            assert!(preset.grace.is_zero() || preset.rotates != Some(false), "{name}: what is forgiven?");
            assert!(!preset.kills_old_access_token || preset.rotates == Some(true), "{name}");
        }
    }

    #[test]
    fn the_other_endpoints_follow_from_the_token_endpoint() {
        let check = |preset: &Preset, token: &str, expected: [Option<&str>; 3]| {
            let token = if token.is_empty() { preset.token_endpoint().expect("fixed") } else { url(token) };
            let found = [
                preset.endpoint(|all| all.authorization, &token),
                preset.endpoint(|all| all.device, &token),
                preset.endpoint(|all| all.revocation, &token),
            ];
            let found = found.each_ref().map(|found| found.as_ref().map(Url::as_str));
            assert_eq!(found, expected, "{}", preset.name);
        };
        check(
            &OKTA,
            "https://acme.okta.com/oauth2/default/v1/token",
            [
                Some("https://acme.okta.com/oauth2/default/v1/authorize"),
                Some("https://acme.okta.com/oauth2/default/v1/device/authorize"),
                Some("https://acme.okta.com/oauth2/default/v1/revoke"),
            ],
        );
        check(
            &GOOGLE,
            "",
            [
                Some("https://accounts.google.com/o/oauth2/v2/auth"),
                Some("https://oauth2.googleapis.com/device/code"),
                Some("https://oauth2.googleapis.com/revoke"),
            ],
        );
        check(
            &GITHUB,
            "https://git.example.com/login/oauth/access_token?x=1",
            [
                Some("https://git.example.com/login/oauth/authorize"),
                Some("https://git.example.com/login/device/code"),
                None,
            ],
        );
        // Nobody is sent to Google because of a token endpoint that is not Google's.
        check(&GOOGLE, "http://127.0.0.1:9000/other", [None, None, None]);
        check(&SLACK, "http://127.0.0.1:9000/api/oauth.v2.access", [None, None, None]);
        check(&GENERIC, "https://idp.example/token", [None, None, None]);
        check(&HYDRA, "https://idp.example/elsewhere", [None, None, None]);
    }

    #[test]
    fn assertions_are_addressed_as_each_provider_wants_it() {
        let check = |preset: &Preset, endpoint: &str, issuer: Option<&str>, expected: &str| {
            let endpoint = url(endpoint);
            assert_eq!(preset.assertion_audience(&endpoint, issuer), expected, "{}", preset.name);
        };
        let realm = "https://id.example/realms/a/protocol/openid-connect/token";
        check(&KEYCLOAK, realm, None, "https://id.example/realms/a");
        check(&KEYCLOAK, realm, Some("https://other.example/realms/a"), "https://other.example/realms/a");
        check(&AUTH0, "https://acme.eu.auth0.com/oauth/token", None, "https://acme.eu.auth0.com/");
        check(&ZITADEL, "https://acme.zitadel.cloud/oauth/v2/token", None, "https://acme.zitadel.cloud");
        let tenant = "https://login.microsoftonline.com/t/oauth2/v2.0/token";
        check(&ENTRA, tenant, Some("https://login.microsoftonline.com/t/v2.0"), tenant);
        check(&OCI, "https://d.example/oauth2/v1/token", Some("x"), "https://identity.oraclecloud.com/");
        check(&GENERIC, "https://idp.example/token", None, "https://idp.example/token");
        check(&GENERIC, "https://idp.example/token", Some("https://idp.example"), "https://idp.example");
    }
}
