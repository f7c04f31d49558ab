//! TLS identities, client and server configurations.
//!
//! Owns: the crypto provider, trust anchors and client certificates of every outgoing connection, and the
//! certificates of listeners.
//! Never offers a way to skip verification.

mod connect;
pub mod mint;
pub mod pem;
mod records;
pub mod renewal;
mod roots;
pub mod server;
pub mod source;
mod stream;
mod tickets;
pub mod x509;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

pub use connect::connect;
pub use stream::TlsStream;

use crate::secret::SecretSource;

/// A TLS client: whom it trusts and who it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsClientConfig {
    /// PEM bundle that replaces the system's roots.
    pub ca: Option<PathBuf>,
    /// PEM certificate chain and its key, shown to servers that ask.
    pub identity: Option<TlsIdentity>,
    /// The name to verify and send as SNI instead of the URL's host.
    pub server_name: Option<String>,
}

/// A certificate chain with its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsIdentity {
    /// PEM certificate chain.
    pub cert: PathBuf,
    /// PEM private key.
    pub key: SecretSource,
}

/// Why a TLS setting cannot be used. `Display` names file and remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read or holds nothing usable.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What is wrong, and the remedy.
        reason: String,
    },
    /// The key could not be read from its source.
    #[error("TLS key: {0}")]
    Key(#[from] crate::secret::SecretError),
    /// rustls refused the combination.
    #[error("TLS: {0}")]
    Config(String),
}

impl TlsClientConfig {
    /// The name that the server must prove and that is sent as SNI: `server_name` where configured, else
    /// `host` (an IPv6 address without brackets).
    pub fn verified_name(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        let name = self.server_name.as_deref().unwrap_or(host);
        ServerName::try_from(name.to_owned())
            .map_err(|_| TlsError::Config(format!("`{name}` is neither a DNS name nor an IP address")))
    }
}

/// The one crypto provider: aws-lc with the post-quantum hybrid X25519MLKEM768 preferred.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())).clone()
}

/// Builds the rustls configuration for TLS 1.2 and 1.3; ALPN is the caller's to add. Reads the files now,
/// blocking, except for the system's roots: those are read once a process, at the first handshake.
pub fn client_config(config: &TlsClientConfig) -> Result<rustls::ClientConfig, TlsError> {
    config.verified_name("localhost")?;
    let verifier: Arc<dyn ServerCertVerifier> = match &config.ca {
        Some(bundle) => WebPkiServerVerifier::builder_with_provider(
            Arc::new(pem::read_trust_anchors(bundle)?),
            provider(),
        )
        .build()
        .map_err(|error| TlsError::Config(error.to_string()))?,
        None => roots::SystemRoots::shared(),
    };
    // Not a way around verification: both verifiers above are webpki's, over other sets of roots.
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Config(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    Ok(match &config.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let key = certified_key(&identity.cert, &identity.key)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
        }
    })
}

/// Reads a certificate chain and its private key and checks that they belong together.
pub fn certified_key(cert: &std::path::Path, key: &SecretSource) -> Result<CertifiedKey, TlsError> {
    let chain = pem::read_certificates(cert)?;
    let place = match key.path() {
        Some(path) => path.display().to_string(),
        None => "the private key".to_owned(),
    };
    let key = pem::parse_private_key(key.read_blocking()?.expose(), &place)?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::File {
            path: place,
            reason: format!(
                "this key does not belong to the first certificate of {}; that file must begin with the \
                 key's own certificate, its issuers after it",
                cert.display()
            ),
        },
        rustls::Error::InvalidCertificate(_) => TlsError::File {
            path: cert.display().to_string(),
            reason: format!("the first certificate cannot be parsed: {error}"),
        },
        _ => TlsError::File {
            path: place,
            reason: format!("this key cannot be used (RSA of 2048 bits or more, P-256, P-384, P-521 or Ed25519 can): {error}"),
        },
    })
}

#[cfg(test)]
mod tests;
