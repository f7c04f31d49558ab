//! The system's trust anchors, shared by every connection of the process.
//!
//! Owns: when they are read: once, at the first handshake that needs them, so that a process which only
//! uses its own CA never pays for them. `SSL_CERT_FILE` and `SSL_CERT_DIR` replace the usual places.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use rustls_platform_verifier::Verifier;

/// Verifies against the system's roots.
#[derive(Debug, Default)]
pub(super) struct SystemRoots {
    verifier: OnceLock<Arc<Verifier>>,
}

impl SystemRoots {
    /// The one instance.
    pub(super) fn shared() -> Arc<Self> {
        static SHARED: OnceLock<Arc<SystemRoots>> = OnceLock::new();
        SHARED.get_or_init(Arc::default).clone()
    }

    /// Reads the roots, or takes what was read before. A failure is not kept: the next handshake looks again.
    fn verifier(&self) -> Result<&Arc<Verifier>, Error> {
        if let Some(verifier) = self.verifier.get() {
            return Ok(verifier);
        }
        let verifier = Verifier::new(super::provider()).map_err(|_| {
            Error::General(
                "the system has no usable CA certificates: install `ca-certificates`, point SSL_CERT_FILE at a \
                 bundle, or configure `tls.ca`"
                    .into(),
            )
        })?;
        Ok(self.verifier.get_or_init(|| Arc::new(verifier)))
    }
}

impl ServerCertVerifier for SystemRoots {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifier()?.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &super::provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &super::provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        super::provider().signature_verification_algorithms.supported_schemes()
    }
}
