//! TLS servers: a listener's certificate, and whom it wants a certificate from.
//!
//! Owns: the rustls configuration that handshakes use.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;

use super::{TlsError, certified_key, pem, provider};
use crate::secret::SecretSource;

/// What a client may choose from, the preferred first.
pub const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// `tls:` of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsServerConfig {
    /// PEM certificate chain.
    pub cert: PathBuf,
    /// PEM private key of `cert`.
    pub key: SecretSource,
    /// PEM bundle: clients must show a certificate that one of these issued.
    pub client_ca: Option<PathBuf>,
}

/// The TLS side of one listener, shared by all workers.
#[derive(Debug)]
pub struct TlsServer {
    live: ArcSwap<rustls::ServerConfig>,
}

impl TlsServer {
    /// Reads the files, blocking.
    pub fn try_new(config: &TlsServerConfig) -> Result<Self, TlsError> {
        Ok(Self { live: ArcSwap::from_pointee(server_config(config)?) })
    }

    /// What the next handshake uses.
    pub fn current(&self) -> Arc<rustls::ServerConfig> {
        self.live.load_full()
    }
}

fn server_config(config: &TlsServerConfig) -> Result<rustls::ServerConfig, TlsError> {
    let refused = |error: &dyn std::fmt::Display| TlsError::Config(error.to_string());
    let key = certified_key(&config.cert, &config.key)?;
    let builder = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(&error))?;
    let builder = match &config.client_ca {
        None => builder.with_no_client_auth(),
        Some(bundle) => {
            let roots = Arc::new(pem::read_trust_anchors(bundle)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| refused(&error))?)
        }
    };
    let mut server = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    server.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
    // Its cache would be a lock that all workers share.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(server)
}
