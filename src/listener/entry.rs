//! What comes before HTTP on a new connection: the TLS handshake.
//!
//! Owns: its deadline and its failures. Runs on the worker; nothing here is reached by a listener that needs none of it.

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::BufReader;
use tokio_rustls::TlsAcceptor;

use super::serve::{Stop, Wish};
use super::stream::{ClientStream, Protocol, Socket};
use crate::proxy::Peer;
use crate::tls::server::TlsServer;

/// How long a handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// A TLS record of the largest size, with its header.
const READ_AHEAD: usize = 18 * 1024;

/// What the connections of a listener go through first.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) tls: Option<Arc<TlsServer>>,
}

/// A connection that may speak HTTP now.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) stream: ClientStream,
    pub(super) protocol: Protocol,
    pub(super) peer: Peer,
}

/// Why a connection ended before HTTP.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
    #[error("the TLS handshake took longer than 10 s")]
    TlsLate,
    #[error("stopping")]
    Stopped,
}

impl Entry {
    /// Brings a connection to where HTTP begins.
    pub(super) async fn admit(
        &self,
        socket: Socket,
        peer: Peer,
        stop: &Rc<Stop>,
    ) -> Result<Entered, Refused> {
        let Some(tls) = &self.tls else {
            return Ok(Entered { stream: ClientStream::Plain(socket), protocol: Protocol::Auto, peer });
        };
        let accept = TlsAcceptor::from(tls.current()).accept(BufReader::with_capacity(READ_AHEAD, socket));
        let stream = match unless_stopped(tokio::time::timeout(HANDSHAKE_LIMIT, accept), stop).await? {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(Refused::Tls(error)),
            Err(_) => return Err(Refused::TlsLate),
        };
        let (_, session) = stream.get_ref();
        let protocol = match session.alpn_protocol() {
            Some(b"h2") => Protocol::Http2,
            _ => Protocol::Http1,
        };
        let certificate = session.peer_certificates().and_then(|chain| chain.first());
        let certificate = certificate.map(|leaf| Box::new(leaf.clone().into_owned()));
        let peer = Peer { secure: true, certificate, ..peer };
        Ok(Entered { stream: ClientStream::Tls(Box::new(stream)), protocol, peer })
    }
}

/// A connection that has not begun is not waited for.
async fn unless_stopped<T>(work: impl Future<Output = T>, stop: &Stop) -> Result<T, Refused> {
    let mut work = pin!(work);
    std::future::poll_fn(|cx| {
        if stop.wish() != Wish::Serve {
            return Poll::Ready(Err(Refused::Stopped));
        }
        stop.keep(cx);
        work.as_mut().poll(cx).map(Ok)
    })
    .await
}
