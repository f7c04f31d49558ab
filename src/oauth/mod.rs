//! The OAuth 2.0 client: builds token requests, reads answers, classifies failures.
//!
//! Owns: the wire contract of the token endpoint (RFC 6749, 7523, 8414). Knows no clock of its own (times are handed
//! in), spawns nothing, keeps no token, never retries and never follows a redirect.

#![allow(clippy::result_large_err, reason = "a failure is moved a few times an hour: its size costs nothing")]

mod answer;
mod assertion;
mod bound;
mod client;
pub mod client_auth;
pub mod dpop;
mod draft;
pub mod error;
mod files;
mod form;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod grant;
mod http;
pub mod jwks;
mod jws;
mod last_good;
pub mod login;
pub mod metadata;
pub mod preset;
mod scrub;
pub mod template;
pub mod token;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::secret::{Secret, SecretSource};
use crate::tls::TlsClientConfig;
pub use client::OAuthClient;
pub use client_auth::{Algorithm, Assertion, BasicEncoding, ClientAuth, ClientIdParam, KeyId, SigningKey};
pub use error::{Failure, FailureClass};
pub use grant::custom::{Custom, CustomBody, CustomResponse};
pub use preset::Preset;
pub use token::TokenResponse;

/// How one credential talks to its provider: everything but the refresh policy.
#[derive(Clone, PartialEq, Eq)]
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
    /// `login`. Boxed: only a person's commands look at it.
    pub login: Box<login::LoginConfig>,
    /// `dpop`: tokens are bound to a key (RFC 9449).
    pub dpop: bool,
    /// `response` of `inject`: header fields that requests with the token must carry, and where its answer has them.
    pub carried: Vec<Carried>,
    /// `tls` of the credential.
    pub tls: TlsClientConfig,
    /// `outbound_proxy` (credential, else global).
    pub outbound_proxy: Option<url::Url>,
    /// Connect deadline, 5 s.
    pub connect_timeout: Duration,
    /// Deadline of the whole token request, 30 s.
    pub request_timeout: Duration,
}

impl fmt::Debug for OAuthConfig {
    /// Leaves out what may hold secrets: parameters and the proxy's user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuthConfig")
            .field("endpoint", &self.endpoint)
            .field("preset", &self.preset.name)
            .field("client_id", &self.client_id)
            .field("client_auth", &self.client_auth)
            .field("grant", &self.grant)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// A header field whose value is a member of the token's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The field's name, lower case.
    pub name: String,
    /// A JSON pointer (RFC 6901).
    pub pointer: String,
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

impl EndpointSource {
    /// The configured URL.
    pub fn url(&self) -> Option<&url::Url> {
        match self {
            Self::Url(url) | Self::Issuer(url) => Some(url),
            Self::None => None,
        }
    }
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
    /// RFC 8693.
    TokenExchange(Box<TokenExchange>),
    /// RFC 6749 4.3, which RFC 9700 2.4 forbids.
    Password {
        /// `username`.
        username: String,
        /// `password`.
        password: SecretSource,
    },
    /// The same with the user and password that each request brings.
    Users,
    /// An endpoint that is not OAuth's.
    Custom(Box<Custom>),
    /// A fixed token that somebody else keeps fresh.
    Static {
        /// `token`.
        token: SecretSource,
    },
}

impl Grant {
    /// Whether the grant can obtain a token without a person and without a refresh token.
    pub fn is_unattended(&self) -> bool {
        match self {
            Self::RefreshToken { .. } => false,
            Self::Custom(custom) => !custom.refreshes(),
            Self::ClientCredentials
            | Self::JwtBearer(_)
            | Self::TokenExchange(_)
            | Self::Password { .. }
            | Self::Users
            | Self::Static { .. } => true,
        }
    }

    /// Whether its requests carry a person's password: who repeats a wrong one locks the account.
    pub fn sends_password(&self) -> bool {
        match self {
            Self::Password { .. } | Self::Users => true,
            Self::Custom(custom) => custom.uses(template::Variable::Password),
            _ => false,
        }
    }
}

/// `subject_token`, `actor_token` and what is asked for in exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenExchange {
    /// Whose token is exchanged.
    pub subject: ForeignToken,
    /// Who acts for the subject.
    pub actor: Option<ForeignToken>,
    /// `requested_token_type`.
    pub requested_token_type: Option<String>,
}

/// A token of elsewhere, read for every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignToken {
    /// Where it is.
    pub token: SecretSource,
    /// Its type, a URI (RFC 8693 3).
    pub kind: String,
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
    Refresh {
        /// The refresh token.
        token: &'a Secret,
        /// Whether the provider takes it once only, or may: then an answer that is lost, and a 5xx, are
        /// [`FailureClass::Ambiguous`]; else they are [`FailureClass::Transient`].
        single_use: bool,
    },
    /// The credential's own grant.
    Own,
    /// The code of an authorization response (RFC 6749 4.1.3, RFC 7636 4.5).
    Code {
        /// `code`.
        code: &'a Secret,
        /// `code_verifier`.
        verifier: &'a Secret,
        /// `redirect_uri`, as it was in the authorization request.
        redirect_uri: &'a str,
    },
    /// A user's own password (RFC 6749 4.3).
    User {
        /// `username`.
        username: &'a str,
        /// `password`.
        password: &'a Secret,
    },
    /// The code of a device (RFC 8628 3.4).
    Device {
        /// `device_code`.
        device_code: &'a Secret,
    },
}

/// Why a provider's configuration cannot be used. `Display` says what and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// A key that cannot be read or does not fit the algorithm.
    #[error("{0}")]
    Key(String),
    /// A secret that cannot be read.
    #[error("{0}")]
    Secret(#[from] crate::secret::SecretError),
    /// TLS settings.
    #[error("{0}")]
    Tls(#[from] crate::tls::TlsError),
    /// The HTTP client refused to be built.
    #[error("{0}")]
    Http(String),
}

#[cfg(test)]
mod tests;
