//! The table of presets: one entry a provider, what an entry leaves out is [`GENERIC`]'s.
//!
//! Owns: facts of providers and nothing else. Where the documentation of a provider is silent, the entry is as well.

use std::time::Duration;

use super::super::client_auth::{Algorithm, BasicEncoding};
use super::super::error::FailureClass::{Configuration, GrantDead, Transient};
use super::{Audience, Endpoints, Preset, SecretAuth, Thumbprint};

const MINUTE: u64 = 60;
const DAY: u64 = 86_400;

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn days(count: u64) -> Option<Duration> {
    Some(Duration::from_secs(count * DAY))
}

const fn at(
    token: &'static str,
    authorization: &'static str,
    device: &'static str,
    revocation: &'static str,
) -> Endpoints {
    Endpoints { token, authorization, device, revocation }
}

const OFFLINE: &[&str] = &["offline_access"];
/// A refresh token comes, or comes again, only to somebody who is asked.
const ASK_AGAIN: &[(&str, &str)] = &[("access_type", "offline"), ("prompt", "consent")];

/// No quirks.
pub static GENERIC: Preset = Preset {
    name: "generic",
    endpoints: at("", "", "", ""),
    secret_auth: SecretAuth::Basic,
    basic_encoding: BasicEncoding::Form,
    algorithm: Algorithm::Rs256,
    thumbprint: None,
    audience: Audience::Issuer,
    offline_scope: &[],
    login: &[],
    rotates: None,
    grace: Duration::ZERO,
    kills_old_access_token: false,
    default_lifetime: seconds(10 * MINUTE),
    refresh_token_lifetime: None,
    min_interval: seconds(5),
    issuer_alias: None,
    scheme: "Bearer",
    bearer_types: &[],
    errors: &[],
    error_field: None,
    // The refresh token may be as good as before: it is kept, and tried rarely.
    bare_refusal: Configuration,
    strict_token_type: false,
};

/// Oracle's identity domains.
pub static OCI: Preset = Preset {
    name: "oci",
    endpoints: at("/oauth2/v1/token", "/oauth2/v1/authorize", "/oauth2/v1/device", "/oauth2/v1/revoke"),
    audience: Audience::Fixed("https://identity.oraclecloud.com/"),
    offline_scope: OFFLINE,
    rotates: Some(true),
    refresh_token_lifetime: days(7),
    issuer_alias: Some("https://identity.oraclecloud.com"),
    ..GENERIC
};

/// Okta: an authorization server of an organization, or the organization itself.
pub static OKTA: Preset = Preset {
    name: "okta",
    endpoints: at("/v1/token", "/v1/authorize", "/v1/device/authorize", "/v1/revoke"),
    audience: Audience::Endpoint,
    offline_scope: OFFLINE,
    // Persistent or rotating is a setting of the application.
    grace: seconds(30),
    refresh_token_lifetime: days(7),
    ..GENERIC
};

/// Auth0.
pub static AUTH0: Preset = Preset {
    name: "auth0",
    endpoints: at("/oauth/token", "/authorize", "/oauth/device/code", "/oauth/revoke"),
    secret_auth: SecretAuth::Post,
    audience: Audience::IssuerOrOriginSlash,
    offline_scope: OFFLINE,
    ..GENERIC
};

/// Microsoft Entra ID.
pub static ENTRA: Preset = Preset {
    name: "entra",
    endpoints: at("/oauth2/v2.0/token", "/oauth2/v2.0/authorize", "/oauth2/v2.0/devicecode", ""),
    secret_auth: SecretAuth::Post,
    algorithm: Algorithm::Ps256,
    thumbprint: Some(Thumbprint::Sha256),
    audience: Audience::Endpoint,
    offline_scope: OFFLINE,
    // A new refresh token comes with each answer, and the one before stays good.
    rotates: Some(false),
    refresh_token_lifetime: days(90),
    ..GENERIC
};

/// Google.
pub static GOOGLE: Preset = Preset {
    name: "google",
    endpoints: at(
        "https://oauth2.googleapis.com/token",
        "https://accounts.google.com/o/oauth2/v2/auth",
        "/device/code",
        "/revoke",
    ),
    secret_auth: SecretAuth::Post,
    audience: Audience::Endpoint,
    login: ASK_AGAIN,
    rotates: Some(false),
    ..GENERIC
};

/// Keycloak.
pub static KEYCLOAK: Preset = Preset {
    name: "keycloak",
    endpoints: at(
        "/protocol/openid-connect/token",
        "/protocol/openid-connect/auth",
        "/protocol/openid-connect/auth/device",
        "/protocol/openid-connect/revoke",
    ),
    audience: Audience::IssuerOrBase,
    offline_scope: OFFLINE,
    ..GENERIC
};

/// Salesforce.
pub static SALESFORCE: Preset = Preset {
    name: "salesforce",
    endpoints: at("/services/oauth2/token", "/services/oauth2/authorize", "", "/services/oauth2/revoke"),
    secret_auth: SecretAuth::Post,
    audience: Audience::Fixed("https://login.salesforce.com"),
    offline_scope: &["refresh_token", "offline_access"],
    // There is no `expires_in`: the shortest session that an organization can choose.
    default_lifetime: seconds(15 * MINUTE),
    errors: &[
        ("unknown_error", Transient),
        ("rate_limit_exceeded", Transient),
        ("login_rate_exceeded", Transient),
        ("inactive_user", GrantDead),
        ("inactive_org", GrantDead),
    ],
    ..GENERIC
};

/// PingOne. PingFederate has other paths: configure the issuer.
pub static PING: Preset = Preset {
    name: "ping",
    endpoints: at("/as/token", "/as/authorize", "/as/device_authorization", "/as/revoke"),
    offline_scope: OFFLINE,
    ..GENERIC
};

/// Amazon Cognito user pools.
pub static COGNITO: Preset = Preset {
    name: "cognito",
    endpoints: at("/oauth2/token", "/oauth2/authorize", "", "/oauth2/revoke"),
    refresh_token_lifetime: days(30),
    ..GENERIC
};

/// GitHub Apps with expiring user tokens.
pub static GITHUB: Preset = Preset {
    name: "github",
    endpoints: at(
        "https://github.com/login/oauth/access_token",
        "/login/oauth/authorize",
        "/login/device/code",
        "",
    ),
    secret_auth: SecretAuth::Post,
    rotates: Some(true),
    kills_old_access_token: true,
    ..GENERIC
};

/// GitLab.
pub static GITLAB: Preset = Preset {
    name: "gitlab",
    endpoints: at("/oauth/token", "/oauth/authorize", "/oauth/authorize_device", "/oauth/revoke"),
    secret_auth: SecretAuth::Post,
    rotates: Some(true),
    kills_old_access_token: true,
    ..GENERIC
};

/// Atlassian's cloud (OAuth 2.0, three-legged).
pub static ATLASSIAN: Preset = Preset {
    name: "atlassian",
    endpoints: at("https://auth.atlassian.com/oauth/token", "/authorize", "", ""),
    secret_auth: SecretAuth::Post,
    offline_scope: OFFLINE,
    login: &[("audience", "api.atlassian.com"), ("prompt", "consent")],
    rotates: Some(true),
    grace: seconds(10 * MINUTE),
    kills_old_access_token: true,
    refresh_token_lifetime: days(90),
    ..GENERIC
};

/// Slack with token rotation.
pub static SLACK: Preset = Preset {
    name: "slack",
    endpoints: at("https://slack.com/api/oauth.v2.access", "https://slack.com/oauth/v2/authorize", "", ""),
    secret_auth: SecretAuth::Post,
    rotates: Some(true),
    bearer_types: &["bot", "user"],
    errors: &[("invalid_auth", GrantDead), ("token_revoked", GrantDead), ("account_inactive", GrantDead)],
    ..GENERIC
};

/// Xero.
pub static XERO: Preset = Preset {
    name: "xero",
    endpoints: at(
        "https://identity.xero.com/connect/token",
        "https://login.xero.com/identity/connect/authorize",
        "",
        "/connect/revocation",
    ),
    offline_scope: OFFLINE,
    rotates: Some(true),
    grace: seconds(30 * MINUTE),
    refresh_token_lifetime: days(60),
    ..GENERIC
};

/// QuickBooks Online. The refresh token's value changes once a day: an answer that repeats it proves nothing.
pub static QUICKBOOKS: Preset = Preset {
    name: "quickbooks",
    endpoints: at(
        "https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer",
        "https://appcenter.intuit.com/connect/oauth2",
        "",
        "https://developer.api.intuit.com/v2/oauth2/tokens/revoke",
    ),
    rotates: Some(true),
    refresh_token_lifetime: days(100),
    ..GENERIC
};

/// HubSpot.
pub static HUBSPOT: Preset = Preset {
    name: "hubspot",
    endpoints: at("https://api.hubapi.com/oauth/v3/token", "https://app.hubspot.com/oauth/authorize", "", ""),
    secret_auth: SecretAuth::Post,
    errors: &[("BAD_REFRESH_TOKEN", GrantDead)],
    error_field: Some("status"),
    ..GENERIC
};

/// Zoho. Its device flow is none of RFC 8628.
pub static ZOHO: Preset = Preset {
    name: "zoho",
    endpoints: at("/oauth/v2/token", "/oauth/v2/auth", "", "/oauth/v2/token/revoke"),
    secret_auth: SecretAuth::Post,
    login: ASK_AGAIN,
    rotates: Some(false),
    // Ten tokens in ten minutes are all that a refresh token brings.
    min_interval: seconds(MINUTE),
    scheme: "Zoho-oauthtoken",
    errors: &[("invalid_code", GrantDead), ("access denied", Transient)],
    ..GENERIC
};

/// Zitadel.
pub static ZITADEL: Preset = Preset {
    name: "zitadel",
    endpoints: at(
        "/oauth/v2/token",
        "/oauth/v2/authorize",
        "/oauth/v2/device_authorization",
        "/oauth/v2/revoke",
    ),
    audience: Audience::IssuerOrOrigin,
    offline_scope: OFFLINE,
    rotates: Some(true),
    kills_old_access_token: true,
    refresh_token_lifetime: days(30),
    ..GENERIC
};

/// Ory Hydra.
pub static HYDRA: Preset = Preset {
    name: "hydra",
    endpoints: at("/oauth2/token", "/oauth2/auth", "/oauth2/device/auth", "/oauth2/revoke"),
    audience: Audience::Endpoint,
    offline_scope: &["offline_access", "offline"],
    rotates: Some(true),
    refresh_token_lifetime: days(30),
    errors: &[("token_inactive", GrantDead)],
    ..GENERIC
};

/// All presets, in the order in which messages list them.
pub static ALL: &[&Preset] = &[
    &GENERIC,
    &OCI,
    &OKTA,
    &AUTH0,
    &ENTRA,
    &GOOGLE,
    &KEYCLOAK,
    &SALESFORCE,
    &PING,
    &COGNITO,
    &GITHUB,
    &GITLAB,
    &ATLASSIAN,
    &SLACK,
    &XERO,
    &QUICKBOOKS,
    &HUBSPOT,
    &ZOHO,
    &ZITADEL,
    &HYDRA,
];
