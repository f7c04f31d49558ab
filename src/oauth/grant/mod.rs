//! Grants: the form parameters of each kind of token request, one file a grant.
//!
//! Owns: which parameters a grant sends. Client authentication is not its business.

mod client_credentials;
pub mod custom;
mod jwt_bearer;
mod password;
mod refresh_token;
pub(super) mod static_token;
mod token_exchange;

use super::draft::{Draft, Facts};
use super::jws::KeyCache;
use super::{Custom, Grant, OAuthConfig, SetupError, TokenRequest, UserAssertion};
use crate::secret::{Secret, SecretSource};

/// Writes a refresh_token request.
pub(super) fn refresh(config: &OAuthConfig, token: &Secret, draft: &mut Draft) {
    refresh_token::apply(config, token, draft);
}

/// Writes a request with the code of an authorization response (RFC 6749 4.1.3).
pub(super) fn authorization_code(code: &Secret, verifier: &Secret, redirect_uri: &str, draft: &mut Draft) {
    draft.form.set("grant_type", "authorization_code");
    draft.set_secret("code", code);
    draft.set_secret("code_verifier", verifier);
    draft.form.set("redirect_uri", redirect_uri);
}

/// Writes a request with a user's own password (RFC 6749 4.3).
pub(super) fn user(config: &OAuthConfig, username: &str, password: &Secret, draft: &mut Draft) {
    draft.form.set("grant_type", "password");
    draft.form.set("username", username);
    draft.set_secret("password", password);
    ask(config, draft);
}

/// Writes a request with the code of a device (RFC 8628 3.4).
pub(super) fn device_code(device_code: &Secret, draft: &mut Draft) {
    draft.form.set("grant_type", "urn:ietf:params:oauth:grant-type:device_code");
    draft.set_secret("device_code", device_code);
}

/// Writes a request of the credential's own grant.
pub(super) async fn own(
    config: &OAuthConfig,
    key: &KeyCache,
    facts: &Facts<'_>,
    draft: &mut Draft,
) -> Result<(), SetupError> {
    match &config.grant {
        Grant::ClientCredentials => {
            client_credentials::apply(config, draft);
            Ok(())
        }
        Grant::JwtBearer(assertion) => jwt_bearer::apply(config, assertion, key, facts, draft).await,
        Grant::TokenExchange(exchange) => token_exchange::apply(config, exchange, draft).await,
        Grant::Password { username, password } => password::apply(config, username, password, draft).await,
        Grant::RefreshToken { .. } | Grant::Users | Grant::Custom(_) | Grant::Static { .. } => Err(
            SetupError::Http(format!("grant `{}` has no token request of its own", config.grant.as_str())),
        ),
    }
}

impl Grant {
    /// As the configuration names it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::RefreshToken { .. } => "refresh_token",
            Self::ClientCredentials => "client_credentials",
            Self::JwtBearer(_) => "jwt_bearer",
            Self::TokenExchange(_) => "token_exchange",
            Self::Password { .. } | Self::Users => "password",
            Self::Custom(_) => "custom",
            Self::Static { .. } => "static",
        }
    }

    /// Reads keys once, blocking. A missing seed, assertion or token is no error here: it may come later.
    pub(super) fn check(&self, key: &KeyCache) -> Result<(), SetupError> {
        match self {
            Self::JwtBearer(UserAssertion::Minted { assertion, .. }) => assertion.check(key),
            Self::Password { password, .. } => password_is_there(password),
            Self::Custom(custom) => custom.password.as_ref().map_or(Ok(()), password_is_there),
            Self::JwtBearer(UserAssertion::File(_))
            | Self::RefreshToken { .. }
            | Self::ClientCredentials
            | Self::TokenExchange(_)
            | Self::Users
            | Self::Static { .. } => Ok(()),
        }
    }

    /// The custom request that this request is, if it is one, with the refresh token that it spends.
    pub(super) fn custom_request<'a>(
        &'a self,
        request: &TokenRequest<'a>,
    ) -> Option<(&'a Custom, Option<&'a Secret>)> {
        match (self, request) {
            (Self::Custom(custom), TokenRequest::Own) => Some((custom, None)),
            (Self::Custom(custom), TokenRequest::Refresh { token, .. }) if custom.refreshes() => {
                Some((custom, Some(token)))
            }
            _ => None,
        }
    }

    /// What to look at when the provider calls the own grant invalid.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            Self::JwtBearer(_) => {
                "; check the assertion: key, certificate alias, `aud`, `sub` and the clocks"
            }
            Self::TokenExchange(_) => "; check `subject_token`, its type and its life",
            Self::Password { .. } => "; check `username` and `password`",
            Self::Custom(_) => "; check what `custom` sends",
            Self::RefreshToken { .. } | Self::ClientCredentials | Self::Users | Self::Static { .. } => "",
        }
    }

    /// The files whose change may mend a refused request.
    pub(super) fn files(&self) -> Vec<std::path::PathBuf> {
        match self {
            Self::RefreshToken { seed } => seed.as_ref().and_then(SecretSource::path).into_iter().collect(),
            Self::ClientCredentials | Self::Users => Vec::new(),
            Self::JwtBearer(UserAssertion::Minted { assertion, .. }) => assertion.files().collect(),
            Self::JwtBearer(UserAssertion::File(path)) => vec![path.clone()],
            Self::TokenExchange(exchange) => {
                let tokens = std::iter::once(&exchange.subject).chain(&exchange.actor);
                tokens.filter_map(|foreign| foreign.token.path()).collect()
            }
            Self::Password { password, .. } => password.path().into_iter().collect(),
            Self::Custom(custom) => [&custom.client_secret, &custom.password, &custom.subject_token]
                .into_iter()
                .filter_map(|source| source.as_ref().and_then(SecretSource::path))
                .collect(),
            Self::Static { token } => token.path().into_iter().collect(),
        }
    }
}

fn password_is_there(password: &SecretSource) -> Result<(), SetupError> {
    if !matches!(password, SecretSource::Exec(_)) {
        drop(password.read_blocking()?);
    }
    Ok(())
}

/// What a first token request asks for, whatever the grant.
pub(super) fn ask(config: &OAuthConfig, draft: &mut Draft) {
    if let Some(scope) = &config.scope {
        draft.form.set("scope", scope);
    }
    if let Some(audience) = &config.audience {
        draft.form.set("audience", audience);
    }
    for resource in &config.resource {
        draft.form.add_resource(resource);
    }
}
