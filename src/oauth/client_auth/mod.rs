//! Client authentication (RFC 6749 2.3, RFC 7523 2.2), one file a method, and the settings of assertions.
//!
//! Owns: that one request carries one method. After an error no other is ever tried: a one-time refresh token
//! would pay for it.

mod assertion_file;
mod basic;
mod mutual_tls;
mod none;
mod post;
mod private_key_jwt;
mod secret_jwt;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::SetupError;
use super::draft::{Draft, Facts};
use super::jws::KeyCache;
use super::last_good::LastGood;
use crate::secret::{Secret, SecretError, SecretSource};

/// `client.auth` with what it needs. Exactly one is ever used in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuth {
    /// `client_secret_basic`.
    Basic {
        /// `client.secret`.
        secret: SecretSource,
        /// `client.basic_encoding`.
        encoding: BasicEncoding,
    },
    /// `client_secret_post`.
    Post {
        /// `client.secret`.
        secret: SecretSource,
    },
    /// `client_secret_jwt`: HS256 over the secret.
    SecretJwt {
        /// `client.secret`.
        secret: SecretSource,
        /// What it claims; its `key` is ignored.
        claims: AssertionClaims,
        /// `client.client_id_param`.
        client_id_param: ClientIdParam,
    },
    /// `private_key_jwt`.
    PrivateKeyJwt {
        /// Key and claims.
        assertion: Assertion,
        /// `client.client_id_param`.
        client_id_param: ClientIdParam,
        /// `client.secret`, needed only by `client_id_param: base64_pair`.
        secret: Option<SecretSource>,
    },
    /// `private_key_jwt` with `client.assertion: {file: …}`, read on every attempt.
    AssertionFile {
        /// The file.
        path: PathBuf,
        /// `client.client_id_param`.
        client_id_param: ClientIdParam,
        /// `client.secret`, needed only by `client_id_param: base64_pair`.
        secret: Option<SecretSource>,
    },
    /// `tls_client_auth` or `self_signed_tls_client_auth`: `tls.identity` of the credential.
    MutualTls {
        /// Whether the provider knows the certificate itself rather than its issuer.
        self_signed: bool,
    },
    /// `none`: a public client, named by `client_id` alone.
    None,
}

/// `client.basic_encoding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BasicEncoding {
    /// Form-urlencoded before joining (RFC 6749 2.3.1), a space as `%20`.
    #[default]
    Form,
    /// As they are.
    Raw,
}

/// `client.client_id_param` of the assertion forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientIdParam {
    /// `client_id=<id>`.
    #[default]
    Plain,
    /// No `client_id`.
    Omit,
    /// `client_id=base64(id:secret)`, as one vendor's page has it; puts the secret in the body.
    Base64Pair,
}

/// A JWT that is signed anew for every attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    /// What signs.
    pub key: SigningKey,
    /// What is claimed.
    pub claims: AssertionClaims,
}

/// The claims that are configurable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssertionClaims {
    /// `aud`: empty = the issuer if known, else the token endpoint.
    pub audience: Vec<String>,
    /// Whether `aud` is written as a list even when it has one member.
    pub audience_as_list: bool,
    /// `exp − iat`; 60 s unless told.
    pub lifetime: Duration,
    /// Further claims; they cannot replace `iss sub aud iat exp jti`.
    pub extra: BTreeMap<String, String>,
}

/// A private key with its algorithm and the names it goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// PEM (PKCS#8, PKCS#1 or SEC1).
    pub source: SecretSource,
    /// `alg`.
    pub algorithm: Algorithm,
    /// How the header names the key.
    pub key_id: KeyId,
}

/// `alg` of an assertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[default]
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA P-256 with SHA-256.
    Es256,
    /// ECDSA P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

/// How the header names the key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyId {
    /// `kid`.
    pub kid: Option<String>,
    /// The certificate that `x5t` or `x5t#S256` is computed from.
    pub certificate: Option<PathBuf>,
    /// `x5t: sha1`.
    pub x5t_sha1: bool,
    /// `x5t: sha256`.
    pub x5t_sha256: bool,
}

/// What a client proves itself with, as it was last read and could be used.
#[derive(Default)]
pub(super) struct ClientKeys {
    /// `client.key` with `client.certificate`.
    pub(super) signer: KeyCache,
    secret: LastGood<Secret>,
}

impl ClientKeys {
    /// Reads `client.secret`.
    pub(super) async fn secret(&self, source: &SecretSource) -> Result<Secret, SetupError> {
        match source.read().await {
            // A command may answer the next time.
            Err(error @ SecretError::Exec { .. }) => Err(error.into()),
            read => self.secret.or_last("client secret", read.map_err(SetupError::from)),
        }
    }

    /// The same, blocking, for the start.
    fn secret_blocking(&self, source: &SecretSource) -> Result<Secret, SetupError> {
        self.secret.or_last("client secret", source.read_blocking().map_err(SetupError::from))
    }

    /// How often the last good one of them stood in for a broken one.
    pub(super) fn lapses(&self) -> u64 {
        self.signer.lapses() + self.secret.lapses()
    }
}

/// Adds the configured method to a request.
pub(super) async fn apply(
    auth: &ClientAuth,
    keys: &ClientKeys,
    facts: &Facts<'_>,
    draft: &mut Draft,
) -> Result<(), SetupError> {
    match auth {
        ClientAuth::Basic { secret, encoding } => basic::apply(secret, keys, *encoding, facts, draft).await,
        ClientAuth::Post { secret } => post::apply(secret, keys, facts, draft).await,
        ClientAuth::SecretJwt { secret, claims, client_id_param } => {
            secret_jwt::apply(secret, keys, claims, *client_id_param, facts, draft).await
        }
        ClientAuth::PrivateKeyJwt { assertion, client_id_param, secret } => {
            let named = Named { param: *client_id_param, secret: secret.as_ref() };
            private_key_jwt::apply(assertion, keys, named, facts, draft).await
        }
        ClientAuth::AssertionFile { path, client_id_param, secret } => {
            let named = Named { param: *client_id_param, secret: secret.as_ref() };
            assertion_file::apply(path, keys, named, facts, draft).await
        }
        ClientAuth::MutualTls { .. } => {
            mutual_tls::apply(facts, draft);
            Ok(())
        }
        ClientAuth::None => {
            none::apply(facts, draft);
            Ok(())
        }
    }
}

/// Reads secrets and keys once, blocking, and checks what can be checked without a request. Commands are not run,
/// and an assertion file may come later.
pub(super) fn check(auth: &ClientAuth, keys: &ClientKeys) -> Result<(), SetupError> {
    let (param, secret) = match auth {
        ClientAuth::Basic { secret, .. } | ClientAuth::Post { secret } => {
            (ClientIdParam::Plain, Some(secret))
        }
        ClientAuth::SecretJwt { secret, claims, client_id_param } => {
            claims.check()?;
            (*client_id_param, Some(secret))
        }
        ClientAuth::PrivateKeyJwt { assertion, client_id_param, secret } => {
            assertion.check(&keys.signer)?;
            (*client_id_param, secret.as_ref())
        }
        ClientAuth::AssertionFile { client_id_param, secret, .. } => (*client_id_param, secret.as_ref()),
        ClientAuth::MutualTls { .. } | ClientAuth::None => (ClientIdParam::Omit, None),
    };
    match secret {
        Some(SecretSource::Exec(_)) => {}
        Some(secret) => drop(keys.secret_blocking(secret)?),
        None if param == ClientIdParam::Base64Pair => return Err(pair_without_secret()),
        None => {}
    }
    if param == ClientIdParam::Base64Pair {
        tracing::warn!(
            "client_id_param: base64_pair puts the client secret into the body of every token request"
        );
    }
    Ok(())
}

/// The files whose change may mend a refused client.
pub(super) fn files(auth: &ClientAuth) -> Vec<PathBuf> {
    match auth {
        ClientAuth::Basic { secret, .. }
        | ClientAuth::Post { secret }
        | ClientAuth::SecretJwt { secret, .. } => secret.path().into_iter().collect(),
        ClientAuth::PrivateKeyJwt { assertion, secret, .. } => {
            assertion.files().chain(secret.as_ref().and_then(SecretSource::path)).collect()
        }
        ClientAuth::AssertionFile { path, secret, .. } => {
            std::iter::once(path.clone()).chain(secret.as_ref().and_then(SecretSource::path)).collect()
        }
        // The certificate is the connection's: its files are watched as such.
        ClientAuth::MutualTls { .. } | ClientAuth::None => Vec::new(),
    }
}

impl ClientAuth {
    /// The method's registered name (`client.auth`).
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Basic { .. } => "client_secret_basic",
            Self::Post { .. } => "client_secret_post",
            Self::SecretJwt { .. } => "client_secret_jwt",
            Self::PrivateKeyJwt { .. } | Self::AssertionFile { .. } => "private_key_jwt",
            Self::MutualTls { self_signed: false } => "tls_client_auth",
            Self::MutualTls { self_signed: true } => "self_signed_tls_client_auth",
            Self::None => "none",
        }
    }
}

/// How an assertion form names the client.
#[derive(Clone, Copy)]
struct Named<'a> {
    param: ClientIdParam,
    secret: Option<&'a SecretSource>,
}

/// Adds a client assertion (RFC 7523 2.2) and the client's name.
async fn send_assertion(
    assertion: &Secret,
    named: Named<'_>,
    keys: &ClientKeys,
    facts: &Facts<'_>,
    draft: &mut Draft,
) -> Result<(), SetupError> {
    match named.param {
        ClientIdParam::Plain => draft.form.set("client_id", facts.client_id),
        ClientIdParam::Omit => {}
        ClientIdParam::Base64Pair => {
            let secret = keys.secret(named.secret.ok_or_else(pair_without_secret)?).await?;
            draft.add_lasting(&secret);
            draft.set_secret("client_id", &pair(facts.client_id, &secret));
        }
    }
    draft.form.set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    draft.set_secret("client_assertion", assertion);
    Ok(())
}

/// `base64(id:secret)`.
pub(super) fn pair(client_id: &str, secret: &Secret) -> Secret {
    let pair = Secret::new(format!("{client_id}:{}", secret.expose()));
    Secret::new(STANDARD.encode(pair.expose()))
}

fn pair_without_secret() -> SetupError {
    SetupError::Key("client_id_param: base64_pair needs `client.secret`".into())
}
