//! TLS identities and client configurations.
//!
//! Owns: the crypto provider, trust anchors and client certificates of every outgoing connection.
//! Never offers a way to skip verification.

use crate::secret::SecretSource;
use std::path::PathBuf;

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
    /// rustls refused the combination.
    #[error("TLS: {0}")]
    Config(String),
}

/// The one crypto provider: aws-lc with the post-quantum hybrid on.
pub fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Builds the rustls configuration; ALPN is the caller's to add.
#[allow(clippy::todo, reason = "skeleton")]
pub fn client_config(config: &TlsClientConfig) -> Result<rustls::ClientConfig, TlsError> {
    let _ = config;
    todo!()
}
