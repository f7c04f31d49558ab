//! `login` of a credential.

use super::credential::encrypted;
use crate::config::blocks::credential::Credential;
use crate::config::context::Cx;
use crate::oauth::login::LoginConfig;

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

/// What a login needs; reports what cannot be used.
pub(super) fn login(block: &Credential, cx: &mut Cx<'_>) -> LoginConfig {
    let Some(login) = &block.login else { return LoginConfig::default() };
    let login = &login.value;
    for (url, what) in [
        (&login.authorization_endpoint, "authorization endpoint"),
        (&login.device_authorization_endpoint, "device authorization endpoint"),
        (&login.revocation_endpoint, "revocation endpoint"),
    ] {
        if let Some(url) = url {
            encrypted(url, what, cx);
        }
    }
    let mut config = LoginConfig {
        authorization_endpoint: login.authorization_endpoint.as_ref().map(|url| url.value.0.clone()),
        device_authorization_endpoint: login
            .device_authorization_endpoint
            .as_ref()
            .map(|url| url.value.0.clone()),
        revocation_endpoint: login.revocation_endpoint.as_ref().map(|url| url.value.0.clone()),
        redirect_uri: login.redirect_uri.as_ref().map(|url| url.value.0.clone()),
        ..LoginConfig::default()
    };
    for (name, value) in login.parameters.iter().flat_map(|parameters| &parameters.value.0) {
        if OWN_PARAMETERS.contains(&name.value.as_str()) {
            cx.error(name.span, format!("the parameter `{}` cannot be given here", name.value))
                .hint("every authorization request has it of itself");
        }
        config.parameters.insert(name.value.clone(), value.value.clone());
    }
    config
}
