//! Clients: who may use a listener, and how a request shows that it comes from one of them.
//!
//! Owns: the kinds of proof, what is read for them (keys, hashes, certificates), and what a refused request is told.
//! Nothing fails open: what cannot be read admits nobody. A worker asks its own [`Gate`]; what is expensive is done
//! elsewhere, within bounds, and remembered under a keyed digest, never in the clear.

mod api_key;
mod ask;
pub mod basic;
mod caller;
mod connection;
mod gate;
mod judge;
pub mod jwt;
mod keep;
pub mod mtls;
mod presented;
mod remembered;
mod shared;
mod throttle;

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;

use crate::names::Name;
use crate::route::ThrottleConfig;
use crate::secret::{Fingerprint, SecretSource};
use crate::tls::TlsClientConfig;
pub use ask::Question;
pub use caller::{Caller, Kind};
pub use connection::{Connection, UnixPeer};
pub use gate::{Asked, Desk, Gate};
pub use judge::{Denied, Judged};
pub use keep::keep;
pub use shared::{ClientError, Clients};
pub use throttle::{Counted, Throttle};

/// One entry of `clients:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// Its key in the map.
    pub name: Name,
    /// How it shows who it is.
    pub proof: Proof,
    /// `rate_limit` and `concurrency`: on all listeners together.
    pub throttle: ThrottleConfig,
}

/// How a client shows who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A certificate that the listener's `client_ca` issued.
    Mtls(MtlsConfig),
    /// A key in a header field.
    ApiKey(ApiKeyConfig),
    /// User and password.
    Basic(BasicConfig),
    /// A signed token.
    Jwt(Box<JwtConfig>),
    /// The address that it comes from.
    Cidr(Vec<IpNet>),
    /// The user or group at the other end of a Unix socket.
    UnixPeer(UnixPeerConfig),
}

/// `mtls`. Of `san` and `spiffe` one must match; without either, any certificate does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MtlsConfig {
    /// `san`: `host`, `*.zone` (one label) or `**.zone` (any depth).
    pub san: Vec<String>,
    /// `spiffe`: an identifier, or one that ends with `/*`.
    pub spiffe: Vec<String>,
    /// `ca`: a bundle that must have issued the certificate, within the listener's `client_ca`.
    pub ca: Option<PathBuf>,
}

/// `api_key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyConfig {
    /// `header`.
    pub header: HeaderName,
    /// `sha256`: of each key.
    pub digests: Vec<Fingerprint>,
    /// `file`: digests, one a line; read again when it changes.
    pub file: Option<PathBuf>,
}

/// `basic`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasicConfig {
    /// `username`; no two clients have one.
    pub username: String,
    /// `password_hash`: argon2id; read again when its file changes.
    pub password_hash: SecretSource,
}

/// `jwt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtConfig {
    /// `issuer`: the claim `iss`, letter for letter.
    pub issuer: String,
    /// `audience`: one of these is in `aud`.
    pub audience: Vec<String>,
    /// Where its keys are.
    pub keys: KeysFrom,
    /// `algorithms`.
    pub algorithms: Vec<jsonwebtoken::Algorithm>,
    /// `claims`: what else must be in the token, by name.
    pub claims: Vec<(String, String)>,
    /// `leeway`: 30 s.
    pub leeway: Duration,
    /// `tls` for `jwks_uri`.
    pub tls: TlsClientConfig,
    /// `outbound_proxy` for `jwks_uri`.
    pub outbound_proxy: Option<url::Url>,
}

/// Where the keys of an issuer are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeysFrom {
    /// `jwks_uri`: asked for every ten minutes, and when a token names a key that is not known.
    Uri(url::Url),
    /// `jwks`: a file, read again when it changes.
    File(PathBuf),
}

/// A keyed digest of a proof.
type Digest = [u8; 32];

/// `unix_peer`: the user is one of these or the group is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnixPeerConfig {
    /// `uid`.
    pub uid: Vec<u32>,
    /// `gid`.
    pub gid: Vec<u32>,
}

impl Proof {
    /// The kind, as the configuration writes it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Mtls(_) => Kind::Mtls,
            Self::ApiKey(_) => Kind::ApiKey,
            Self::Basic(_) => Kind::Basic,
            Self::Jwt(_) => Kind::Jwt,
            Self::Cidr(_) => Kind::Cidr,
            Self::UnixPeer(_) => Kind::UnixPeer,
        }
    }
}
