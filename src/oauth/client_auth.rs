//! Client authentication (RFC 6749 2.3, RFC 7523 2.2) and the assertions that clients and users sign.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::secret::SecretSource;

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
