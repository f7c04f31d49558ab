//! `login` of a credential.

use super::credential::encrypted;
use crate::config::blocks::credential::{Credential, Login};
use crate::config::context::Cx;
use crate::oauth::EndpointSource;
use crate::oauth::login::LoginConfig;
use crate::oauth::preset::Endpoints;

/// Parameters that an authorization request has of itself.
const OWN_PARAMETERS: &[&str] = &[
    "response_type",
    "client_id",
    "redirect_uri",
    "state",
    "code_challenge",
    "code_challenge_method",
    "scope",
    "resource",
];

/// What a login needs, where nothing is discovered: as configured, else as the preset has it. Reports what cannot be used.
pub(super) fn login(block: &Credential, endpoint: Option<&EndpointSource>, cx: &mut Cx<'_>) -> LoginConfig {
    let mut config = of_preset(block, endpoint);
    if let Some(login) = &block.login {
        configured(&login.value, &mut config, cx);
    }
    config
}

fn of_preset(block: &Credential, endpoint: Option<&EndpointSource>) -> LoginConfig {
    let Some(preset) = block.preset.as_ref().map(|preset| preset.value) else {
        return LoginConfig::default();
    };
    // With an issuer the provider tells its endpoints itself.
    let known = |which: fn(&Endpoints) -> &'static str| match endpoint {
        Some(EndpointSource::Url(token_endpoint)) => preset.endpoint(which, token_endpoint),
        _ => None,
    };
    LoginConfig {
        authorization_endpoint: known(|all| all.authorization),
        device_authorization_endpoint: known(|all| all.device),
        revocation_endpoint: known(|all| all.revocation),
        redirect_uri: None,
        offline_scope: preset.offline_scope.iter().map(|word| (*word).to_owned()).collect(),
        parameters: preset
            .login
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

fn configured(login: &Login, config: &mut LoginConfig, cx: &mut Cx<'_>) {
    for (url, what) in [
        (&login.authorization_endpoint, "authorization endpoint"),
        (&login.device_authorization_endpoint, "device authorization endpoint"),
        (&login.revocation_endpoint, "revocation endpoint"),
    ] {
        if let Some(url) = url {
            encrypted(url, what, cx);
        }
    }
    for (given, kept) in [
        (&login.authorization_endpoint, &mut config.authorization_endpoint),
        (&login.device_authorization_endpoint, &mut config.device_authorization_endpoint),
        (&login.revocation_endpoint, &mut config.revocation_endpoint),
        (&login.redirect_uri, &mut config.redirect_uri),
    ] {
        if let Some(url) = given {
            *kept = Some(url.value.0.clone());
        }
    }
    if let Some(word) = &login.offline_scope {
        config.offline_scope = word.value.split_whitespace().map(str::to_owned).collect();
    }
    for (name, value) in login.parameters.iter().flat_map(|parameters| &parameters.value.0) {
        if OWN_PARAMETERS.contains(&name.value.as_str()) {
            cx.error(name.span, format!("the parameter `{}` cannot be given here", name.value))
                .hint("every authorization request has it of itself");
        }
        config.parameters.insert(name.value.clone(), value.value.clone());
    }
}
