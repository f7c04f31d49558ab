//! The connector: everything that is known of one upstream, ready to open connections to it.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use rustls::pki_types::ServerName;
use tokio::io::BufReader;
use tokio_rustls::TlsConnector;

use super::outbound::OutboundProxy;
use super::{DialError, Transport, UpstreamConfig, dial};
use crate::origin::{Origin, Scheme};
use crate::tls::{self, TlsError};

/// A TLS record of the largest size, with its header and what surrounds a small answer.
const READ_AHEAD: usize = 18 * 1024;

/// The TLS half of an upstream: built once for the process, since it reads files.
#[derive(Debug, Clone)]
pub struct TlsClient {
    config: rustls::ClientConfig,
    name: ServerName<'static>,
}

impl TlsClient {
    /// Reads the files and checks the name; `None` for an http upstream.
    pub fn try_new(config: &UpstreamConfig) -> Result<Option<Self>, TlsError> {
        if config.origin.scheme() == Scheme::Http {
            return Ok(None);
        }
        let name = config.tls.verified_name(config.origin.dial_host())?;
        let mut tls = tls::client_config(&config.tls)?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Some(Self { config: tls, name }))
    }
}

/// Opens connections to one upstream. One a worker: sessions are resumed within a worker, so that no lock is
/// shared between two.
#[derive(Debug)]
pub struct Connector {
    origin: Origin,
    tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    outbound: Option<OutboundProxy>,
    deadline: Duration,
}

impl Connector {
    /// Makes the connector of one worker. The error is a message for a person.
    pub fn try_new(
        config: &UpstreamConfig,
        tls: Option<&TlsClient>,
        deadline: Duration,
    ) -> Result<Self, String> {
        let tls = tls.map(|client| {
            let mut own = client.config.clone();
            own.resumption = rustls::client::Resumption::in_memory_sessions(64);
            (Arc::new(own), client.name.clone())
        });
        let outbound = config.outbound_proxy.as_ref().map(OutboundProxy::try_new).transpose()?;
        Ok(Self { origin: config.origin.clone(), tls, outbound, deadline })
    }

    /// Whether requests are sent in absolute-form: http through an outbound proxy (RFC 9112, 3.2.2).
    pub fn absolute_form(&self) -> bool {
        self.outbound.is_some() && self.tls.is_none()
    }

    /// What an outbound proxy wants to see on each request in absolute-form.
    pub fn proxy_authorization(&self) -> Option<&HeaderValue> {
        self.outbound.as_ref().filter(|_| self.tls.is_none())?.authorization.as_ref()
    }

    /// Opens a connection within the deadline: name, TCP, tunnel, TLS.
    pub async fn connect(&self) -> Result<Transport, DialError> {
        match tokio::time::timeout(self.deadline, self.connect_unhurried()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(DialError::Timeout),
        }
    }

    async fn connect_unhurried(&self) -> Result<Transport, DialError> {
        let first = self.outbound.as_ref().map_or(&self.origin, |proxy| &proxy.origin);
        let mut stream = dial::connect(first.dial_host(), first.port()).await?;
        let Some((config, name)) = &self.tls else {
            return Ok(Transport::Tcp(stream));
        };
        if let Some(proxy) = &self.outbound {
            proxy.open_tunnel(&mut stream, &self.origin).await?;
        }
        match TlsConnector::from(Arc::clone(config))
            .connect(name.clone(), BufReader::with_capacity(READ_AHEAD, stream))
            .await
        {
            Ok(stream) => Ok(Transport::Tls(Box::new(stream))),
            Err(error) => Err(handshake_error(&error)),
        }
    }
}

fn handshake_error(error: &std::io::Error) -> DialError {
    let source = error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>());
    tracing::debug!(%error, "TLS handshake with an upstream failed");
    match source {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            DialError::TlsCertificate
        }
        _ => DialError::Tls,
    }
}
