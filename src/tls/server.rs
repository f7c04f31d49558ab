//! TLS servers: a listener's certificate, and whom it wants a certificate from.
//!
//! Owns: the rustls configuration that handshakes use, and its replacement when the files have changed. What cannot be
//! used never replaces what can.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;

use super::tickets::Tickets;
use super::x509::Certificate;
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
    /// With `client_ca`: clients may come without one, since they can show otherwise who they are.
    pub client_optional: bool,
}

/// The TLS side of one listener, shared by all workers.
#[derive(Debug)]
pub struct TlsServer {
    config: TlsServerConfig,
    live: ArcSwap<Live>,
}

/// What was read last.
#[derive(Debug)]
struct Live {
    rustls: Arc<rustls::ServerConfig>,
    tickets: Arc<Tickets>,
    certificate: Certificate,
}

impl TlsServer {
    /// Reads the files, blocking.
    pub fn try_new(config: &TlsServerConfig) -> Result<Self, TlsError> {
        Ok(Self { config: config.clone(), live: ArcSwap::from_pointee(Live::read(config)?) })
    }

    /// What the next handshake uses.
    pub fn current(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.live.load().rustls)
    }

    /// The certificate that is shown.
    pub fn certificate(&self) -> Certificate {
        self.live.load().certificate.clone()
    }

    /// Where the certificate stands.
    pub fn config(&self) -> &TlsServerConfig {
        &self.config
    }

    /// Reads the files again, blocking. After an error everything is as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.live.store(Arc::new(Live::read(&self.config)?));
        Ok(())
    }

    /// Begins a new key for session tickets.
    pub fn rotate_tickets(&self) {
        self.live.load().tickets.rotate();
    }

    /// The files to watch.
    pub fn watched_files(&self) -> Vec<PathBuf> {
        let TlsServerConfig { cert, key, client_ca, .. } = &self.config;
        [Some(cert.clone()), key.path(), client_ca.clone()].into_iter().flatten().collect()
    }
}

impl Live {
    fn read(config: &TlsServerConfig) -> Result<Self, TlsError> {
        let refused = |error: &dyn std::fmt::Display| TlsError::Config(error.to_string());
        let key = certified_key(&config.cert, &config.key)?;
        let certificate = key.cert.first().and_then(|leaf| Certificate::read(leaf));
        let certificate = certificate.ok_or_else(|| TlsError::File {
            path: config.cert.display().to_string(),
            reason: "the validity of the first certificate cannot be read".into(),
        })?;
        let builder = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| refused(&error))?;
        let builder = match &config.client_ca {
            None => builder.with_no_client_auth(),
            Some(bundle) => {
                let roots = Arc::new(pem::read_trust_anchors(bundle)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                let verifier = match config.client_optional {
                    true => verifier.allow_unauthenticated().build(),
                    false => verifier.build(),
                };
                builder.with_client_cert_verifier(verifier.map_err(|error| refused(&error))?)
            }
        };
        let mut server = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        server.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
        // Its cache would be a lock that all workers share; tickets need none.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        // New keys with each configuration: whom the last `client_ca` let in is looked at again.
        let tickets = Tickets::new().ok_or_else(|| refused(&"no random numbers for session tickets"))?;
        let tickets = Arc::new(tickets);
        server.ticketer = Arc::clone(&tickets) as _;
        Ok(Self { rustls: Arc::new(server), tickets, certificate })
    }
}
