//! Grants: the form parameters of each kind of token request, one file a grant.
//!
//! Owns: which parameters a grant sends. Client authentication is not its business.

mod client_credentials;
mod jwt_bearer;
mod refresh_token;
pub(super) mod static_token;

use super::draft::{Draft, Facts};
use super::jws::KeyCache;
use super::{Grant, OAuthConfig, SetupError, UserAssertion};
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
        Grant::RefreshToken { .. } | Grant::Static { .. } => Err(SetupError::Http(format!(
            "grant `{}` has no token request of its own",
            config.grant.as_str()
        ))),
    }
}

impl Grant {
    /// As the configuration names it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::RefreshToken { .. } => "refresh_token",
            Self::ClientCredentials => "client_credentials",
            Self::JwtBearer(_) => "jwt_bearer",
            Self::Static { .. } => "static",
        }
    }

    /// Reads keys once, blocking. A missing seed, assertion or token is no error here: it may come later.
    pub(super) fn check(&self, key: &KeyCache) -> Result<(), SetupError> {
        match self {
            Self::JwtBearer(UserAssertion::Minted { assertion, .. }) => assertion.check(key),
            Self::JwtBearer(UserAssertion::File(_))
            | Self::RefreshToken { .. }
            | Self::ClientCredentials
            | Self::Static { .. } => Ok(()),
        }
    }

    /// The files whose change may mend a refused request.
    pub(super) fn files(&self) -> Vec<std::path::PathBuf> {
        match self {
            Self::RefreshToken { seed } => seed.as_ref().and_then(SecretSource::path).into_iter().collect(),
            Self::ClientCredentials => Vec::new(),
            Self::JwtBearer(UserAssertion::Minted { assertion, .. }) => assertion.files().collect(),
            Self::JwtBearer(UserAssertion::File(path)) => vec![path.clone()],
            Self::Static { token } => token.path().into_iter().collect(),
        }
    }
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
