//! The OAuth 2.0 client: builds token requests, reads answers, classifies failures.
//!
//! Owns: the wire contract of the token endpoint (RFC 6749, 7523, 8414). Knows no clock of its own (times are handed
//! in), spawns nothing, keeps no token, never retries and never follows a redirect.

pub mod client_auth;
pub mod error;
pub mod grant;
pub mod metadata;
pub mod preset;
pub mod token;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::clock::UnixTime;
use crate::secret::{Secret, SecretSource};
use crate::tls::TlsClientConfig;
pub use client_auth::{Algorithm, Assertion, BasicEncoding, ClientAuth, ClientIdParam, KeyId, SigningKey};
pub use error::{Failure, FailureClass};
pub use preset::Preset;
pub use token::TokenResponse;

/// How one credential talks to its provider: everything but the refresh policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthConfig {
    /// Where tokens come from.
    pub endpoint: EndpointSource,
    /// Which provider's quirks apply.
    pub preset: &'static Preset,
    /// `client.id`; empty for `grant: static`.
    pub client_id: String,
    /// `client.auth`.
    pub client_auth: ClientAuth,
    /// The configured grant.
    pub grant: Grant,
    /// `scope` of the first request.
    pub scope: Option<String>,
    /// `refresh.scope`: sent with the refresh_token grant only where configured.
    pub refresh_scope: Option<String>,
    /// `audience`.
    pub audience: Option<String>,
    /// `resource` (RFC 8707).
    pub resource: Vec<String>,
    /// `parameters`: extra form parameters of every token request.
    pub parameters: BTreeMap<String, String>,
    /// `tls` of the credential.
    pub tls: TlsClientConfig,
    /// `outbound_proxy` (credential, else global).
    pub outbound_proxy: Option<url::Url>,
    /// Connect deadline, 5 s.
    pub connect_timeout: Duration,
    /// Deadline of the whole token request, 30 s.
    pub request_timeout: Duration,
}

/// Where tokens come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointSource {
    /// `token_endpoint`.
    Url(url::Url),
    /// `issuer`: RFC 8414 or OpenID Connect discovery.
    Issuer(url::Url),
    /// `grant: static` asks nobody.
    None,
}

/// The configured grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// RFC 6749 6. The seed may be absent: the store, or a login, has it.
    RefreshToken {
        /// `refresh_token`.
        seed: Option<SecretSource>,
    },
    /// RFC 6749 4.4.
    ClientCredentials,
    /// RFC 7523 2.1.
    JwtBearer(UserAssertion),
    /// A fixed token that somebody else keeps fresh.
    Static {
        /// `token`.
        token: SecretSource,
    },
}

impl Grant {
    /// Whether the grant can obtain a token without a person and without a refresh token.
    pub fn is_unattended(&self) -> bool {
        matches!(self, Self::ClientCredentials | Self::JwtBearer(_) | Self::Static { .. })
    }
}

/// `user_assertion`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserAssertion {
    /// Minted here on every attempt.
    Minted {
        /// `sub`.
        subject: String,
        /// What signs it and what it claims.
        assertion: Assertion,
    },
    /// Read from a file on every attempt.
    File(PathBuf),
}

/// What to ask the token endpoint for.
#[derive(Debug, Clone)]
pub enum TokenRequest<'a> {
    /// Spend this refresh token.
    Refresh(&'a Secret),
    /// The credential's own grant.
    Own,
}

/// A provider as one credential sees it: an HTTP client of its own, metadata once discovered.
#[derive(Debug)]
pub struct OAuthClient {
    config: OAuthConfig,
}

#[allow(clippy::todo, clippy::unused_async, unused_variables, reason = "skeleton")]
impl OAuthClient {
    /// Builds the client; reads and checks keys and certificates.
    pub fn try_new(config: OAuthConfig) -> Result<Self, SetupError> {
        todo!()
    }

    /// What it was built from.
    pub fn config(&self) -> &OAuthConfig {
        &self.config
    }

    /// Sends one token request. `now` is the wall clock corrected by the provider's skew, for `iat` and `exp`.
    /// Everything that can fail before a byte is written (secrets, keys, discovery) fails as
    /// [`FailureClass::Clean`] or [`FailureClass::Configuration`].
    pub async fn request(&self, request: TokenRequest<'_>, now: UnixTime) -> Result<TokenResponse, Failure> {
        todo!()
    }

    /// The files whose change should make a waiting credential try at once.
    pub fn watched_files(&self) -> Vec<PathBuf> {
        todo!()
    }
}

/// Why a provider's configuration cannot be used. `Display` says what and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// A key that cannot be read or does not fit the algorithm.
    #[error("{0}")]
    Key(String),
    /// A secret that cannot be read.
    #[error(transparent)]
    Secret(#[from] crate::secret::SecretError),
    /// TLS settings.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// The HTTP client refused to be built.
    #[error("{0}")]
    Http(String),
}
