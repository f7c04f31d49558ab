//! Presets: what is known of each provider, as data. Every field can be overridden in the configuration.

use std::time::Duration;

use super::error::FailureClass;

/// What is known of a provider.
#[derive(Debug, PartialEq, Eq)]
pub struct Preset {
    /// `preset:`.
    pub name: &'static str,
    /// Whether refresh tokens are single use: `None` is not known.
    pub rotates: Option<bool>,
    /// How long a spent refresh token may be sent again.
    pub grace: Duration,
    /// Whether the old access token dies at the refresh.
    pub kills_old_access_token: bool,
    /// The refresh token's lifetime where the answer does not tell it.
    pub refresh_token_lifetime: Option<Duration>,
    /// The issuer that discovery may name besides the configured one.
    pub issuer_alias: Option<&'static str>,
    /// The `aud` of assertions where none is configured.
    pub assertion_audience: Option<&'static str>,
    /// What 400, 401 and 403 without an OAuth error mean for a token request.
    pub bare_refusal: FailureClass,
    /// Whether an answer without `token_type` is refused.
    pub strict_token_type: bool,
}

/// No quirks.
pub static GENERIC: Preset = Preset {
    name: "generic",
    rotates: None,
    grace: Duration::ZERO,
    kills_old_access_token: false,
    refresh_token_lifetime: None,
    issuer_alias: None,
    assertion_audience: None,
    // The refresh token may be as good as before: it is kept, and tried rarely.
    bare_refusal: FailureClass::Configuration,
    strict_token_type: false,
};

/// Oracle's identity domains.
pub static OCI: Preset = Preset {
    name: "oci",
    rotates: Some(true),
    grace: Duration::ZERO,
    kills_old_access_token: false,
    refresh_token_lifetime: Some(Duration::from_secs(604_800)),
    issuer_alias: Some("https://identity.oraclecloud.com"),
    assertion_audience: Some("https://identity.oraclecloud.com/"),
    bare_refusal: FailureClass::Configuration,
    strict_token_type: false,
};

/// All presets, in the order in which messages list them.
pub static ALL: &[&Preset] = &[&GENERIC, &OCI];

/// The preset of that name.
pub fn find(name: &str) -> Option<&'static Preset> {
    ALL.iter().copied().find(|preset| preset.name == name)
}
