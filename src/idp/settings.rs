//! What the authorization server knows beforehand: clients, users, keys, and how it behaves.
//!
//! [`Behaviour`] is the part that tests change while the server runs, in-process or over the control API.

use std::net::SocketAddr;
use std::time::Duration;

use jsonwebtoken::DecodingKey;

use crate::clock::Clock;
use crate::secret::Secret;

/// Lifetime of an access token whose family asked for [`EXPIRY_SCOPE`], in seconds: one year.
pub const EXPIRY_SCOPE_LIFETIME: Duration = Duration::from_secs(31_556_952);
/// The scope that buys a one-year access token.
pub const EXPIRY_SCOPE: &str = "urn:opc:resource:expiry";
/// The issuer that every OCI identity domain names in its metadata.
pub const ORACLE_ISSUER: &str = "https://identity.oraclecloud.com/";
/// The client of [`Settings::default`].
pub const DEFAULT_CLIENT: &str = "bearward-client";
/// The secret of [`DEFAULT_CLIENT`]: the server is for demonstrations and tests.
pub const DEFAULT_SECRET: &str = "bearward client: 100% s3cret+/&";
/// The user of [`Settings::default`].
pub const DEFAULT_USER: &str = "legacy@example.com";

/// How to start the server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the authorization server listens; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Where the echo API listens; port 0 takes a free one.
    pub api_bind: SocketAddr,
    /// Times of tokens and assertions.
    pub clock: Clock,
    /// The issuer in the metadata.
    pub issuer: Issuer,
    /// Who may ask for tokens.
    pub clients: Vec<Client>,
    /// For whom: subjects of user assertions, and the password grant.
    pub users: Vec<User>,
    /// What may change while it runs.
    pub behaviour: Behaviour,
}

impl Default for Settings {
    fn default() -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            bind: loopback,
            api_bind: loopback,
            clock: Clock::System,
            issuer: Issuer::Own,
            clients: vec![Client::with_secret(DEFAULT_CLIENT, DEFAULT_SECRET)],
            users: vec![User { name: DEFAULT_USER.into(), password: None }],
            behaviour: Behaviour::default(),
        }
    }
}

/// The issuer in the metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Issuer {
    /// The server's own URL.
    Own,
    /// [`ORACLE_ISSUER`], as OCI identity domains have it.
    Oracle,
    /// Any text.
    Other(String),
}

/// A registered client.
#[derive(Debug, Clone)]
pub struct Client {
    /// `client_id`.
    pub id: String,
    /// Any of these is its secret: Basic, post and `client_secret_jwt`.
    pub secrets: Vec<Secret>,
    /// Any of these verifies its assertions: `private_key_jwt` and user assertions.
    pub keys: Vec<VerifyingKey>,
    /// Subject and actor tokens that it may exchange (RFC 8693).
    pub foreign_tokens: Vec<Secret>,
    /// Whether it may come without authentication.
    pub public: bool,
    /// Whether Basic is percent-decoded (RFC 6749 2.3.1) or taken as it is.
    pub basic: BasicDecoding,
}

impl Client {
    /// A confidential client with one secret.
    pub fn with_secret(id: &str, secret: &str) -> Self {
        Self { secrets: vec![Secret::from(secret)], ..Self::public(id).confidential() }
    }

    /// A client that authenticates with `private_key_jwt`.
    pub fn with_key(id: &str, key: VerifyingKey) -> Self {
        Self { keys: vec![key], ..Self::public(id).confidential() }
    }

    /// A client without authentication.
    pub fn public(id: &str) -> Self {
        Self {
            id: id.into(),
            secrets: Vec::new(),
            keys: Vec::new(),
            foreign_tokens: Vec::new(),
            public: true,
            basic: BasicDecoding::Form,
        }
    }

    fn confidential(self) -> Self {
        Self { public: false, ..self }
    }
}

/// How a client's Basic credentials are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BasicDecoding {
    /// Form-urlencoded (RFC 6749 2.3.1).
    #[default]
    Form,
    /// As they are: servers that break the rule.
    Raw,
}

/// A public key, the algorithm it is good for, and the names an assertion may call it by.
#[derive(Clone)]
pub struct VerifyingKey {
    /// The one algorithm that is accepted.
    pub algorithm: jsonwebtoken::Algorithm,
    /// The key.
    pub key: DecodingKey,
    /// The `kid` (in OCI: the certificate's alias), if the assertion must name one.
    pub kid: Option<String>,
    /// The `x5t`, if the assertion must name one instead of a `kid`.
    pub x5t: Option<String>,
    /// The `x5t#S256`, likewise.
    pub x5t_s256: Option<String>,
}

impl std::fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifyingKey")
            .field("algorithm", &self.algorithm)
            .field("kid", &self.kid)
            .field("x5t", &self.x5t)
            .finish_non_exhaustive()
    }
}

impl VerifyingKey {
    /// Reads a public key (PEM, SubjectPublicKeyInfo); no name is asked for.
    pub fn from_pem(
        algorithm: jsonwebtoken::Algorithm,
        pem: &[u8],
    ) -> Result<Self, jsonwebtoken::errors::Error> {
        use jsonwebtoken::Algorithm as A;
        let key = match algorithm {
            A::ES256 | A::ES384 => DecodingKey::from_ec_pem(pem)?,
            A::EdDSA => DecodingKey::from_ed_pem(pem)?,
            _ => DecodingKey::from_rsa_pem(pem)?,
        };
        Ok(Self { algorithm, key, kid: None, x5t: None, x5t_s256: None })
    }

    /// The same key, asked for by `kid`.
    #[must_use]
    pub fn named(self, kid: &str) -> Self {
        Self { kid: Some(kid.into()), ..self }
    }
}

/// A user of the identity domain.
#[derive(Debug, Clone)]
pub struct User {
    /// `sub`, and the `username` of the password grant.
    pub name: String,
    /// For the password grant.
    pub password: Option<Secret>,
}

/// How the server treats tokens. Times in seconds over the control API.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// Life of an access token; 60 s unless told.
    #[serde(with = "seconds")]
    pub access_token_lifetime: Duration,
    /// Life of a refresh token; 7 days unless told.
    #[serde(with = "seconds")]
    pub refresh_token_lifetime: Duration,
    /// Whether refreshing replaces the refresh token.
    pub rotation: Rotation,
    /// For how long a spent refresh token is taken once more.
    #[serde(with = "seconds")]
    pub grace: Duration,
    /// What is answered inside the grace.
    pub grace_answer: GraceAnswer,
    /// Whether a spent refresh token (outside the grace) kills its whole family.
    pub reuse_revokes_family: bool,
    /// Whether refreshing kills the family's older access tokens.
    pub refresh_kills_access_token: bool,
    /// Whether a refresh token dies when its access token expires.
    pub dies_with_access_token: bool,
    /// Whether a refresh token that comes with a wrong secret is spent.
    pub wrong_secret_burns: bool,
    /// Whether a refresh returns the access token that it replaces.
    pub same_access_token: bool,
    /// Whether a refresh token needs `offline_access` in the scope.
    pub needs_offline_access: bool,
    /// Whether an assertion must have a `jti` that was never seen.
    pub jti_required: bool,
    /// What the server's own clock is off by, in seconds: `Date`, `iat` and `exp`.
    pub skew_seconds: i64,
    /// Characters of an access token; at least 40.
    pub access_token_length: usize,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            access_token_lifetime: Duration::from_secs(60),
            refresh_token_lifetime: Duration::from_secs(604_800),
            rotation: Rotation::SingleUse,
            grace: Duration::ZERO,
            grace_answer: GraceAnswer::NewPair,
            reuse_revokes_family: true,
            refresh_kills_access_token: false,
            dies_with_access_token: false,
            wrong_secret_burns: false,
            same_access_token: false,
            needs_offline_access: true,
            jti_required: true,
            skew_seconds: 0,
            access_token_length: 64,
        }
    }
}

/// Whether refreshing replaces the refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotation {
    /// Each refresh answers with a new one and spends the old one.
    SingleUse,
    /// The same one for ever; the answer names none.
    Reusable,
}

/// What a spent refresh token gets inside the grace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GraceAnswer {
    /// Another new pair; the first successor stays good.
    NewPair,
    /// The very pair that it got the first time.
    SamePair,
}

/// Durations as (fractional) seconds.
pub(super) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
    }
}
