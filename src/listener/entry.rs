//! What comes before HTTP on a new connection: the PROXY header, then the TLS handshake.
//!
//! Owns: their deadlines and failures, and who the peer is after them. Runs on the worker; nothing here is reached by a
//! listener that needs neither.

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio_rustls::TlsAcceptor;

use super::proxy_protocol::{self, Header, HeaderError, Parsed};
use super::serve::{Stop, Wish};
use super::stream::{ClientStream, Protocol, Socket};
use super::{ListenerConfig, ProxyProtocol};
use crate::names::Name;
use crate::policy::trusted::TrustedProxies;
use crate::proxy::Peer;
use crate::tls::server::TlsServer;

/// How long a TLS handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How long a PROXY header may take.
const HEADER_LIMIT: Duration = Duration::from_secs(10);
/// A TLS record of the largest size, with its header.
const READ_AHEAD: usize = 18 * 1024;
/// How long a refused client may go on sending, so that what it is told is not lost in a reset.
const LINGER: Duration = Duration::from_secs(1);

/// What the connections of a listener go through first, in one worker.
#[derive(Debug)]
pub(super) struct Entry {
    listener: Name,
    trusted: Rc<TrustedProxies>,
    proxy_protocol: ProxyProtocol,
    tls: Option<Arc<TlsServer>>,
    /// A wrong PROXY header is a mistake of an operator: told once.
    warned: Cell<bool>,
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
    /// The PROXY header.
    #[error("the PROXY header: {0}")]
    Header(#[from] HeaderRefused),
    /// The TLS handshake.
    #[error("the TLS handshake: {0}")]
    Tls(io::Error),
    /// The same.
    #[error("the TLS handshake took longer than 10 s")]
    TlsLate,
    /// The process stops.
    #[error("stopping")]
    Stopped,
}

/// What is wrong about a PROXY header.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderRefused {
    #[error("the peer is not in `trusted_proxies`")]
    Untrusted,
    #[error("there is none, and `proxy_protocol` is `required`")]
    Missing,
    #[error(transparent)]
    Broken(#[from] HeaderError),
    #[error("it took longer than 10 s")]
    Late,
    #[error("the connection broke off: {0}")]
    Io(#[from] io::Error),
}

impl Entry {
    pub(super) fn new(config: &ListenerConfig, tls: Option<Arc<TlsServer>>) -> Self {
        Self {
            listener: config.name.clone(),
            trusted: Rc::new(config.trusted_proxies.clone()),
            proxy_protocol: config.proxy_protocol,
            tls,
            warned: Cell::new(false),
        }
    }

    /// Whether HTTP begins at once.
    pub(super) fn is_open(&self) -> bool {
        self.tls.is_none() && self.proxy_protocol == ProxyProtocol::Off
    }

    /// Notes whether the peer is a trusted proxy.
    pub(super) fn judge(&self, peer: Peer) -> Peer {
        if self.trusted.is_empty() || !self.trusted.contain(peer.address) {
            return peer;
        }
        Peer { trusted: Some(Rc::clone(&self.trusted)), ..peer }
    }

    /// Brings a connection to where HTTP begins.
    pub(super) async fn admit(
        &self,
        mut socket: Socket,
        peer: Peer,
        stop: &Rc<Stop>,
    ) -> Result<Entered, Refused> {
        let peer = match self.proxy_protocol {
            ProxyProtocol::Off => self.judge(peer),
            _ => unless_stopped(self.introduced(&mut socket, peer), stop).await?.inspect_err(|refused| {
                self.warn(refused);
            })?,
        };
        match &self.tls {
            None => Ok(Entered { stream: ClientStream::Plain(socket), protocol: Protocol::Auto, peer }),
            Some(tls) => handshake(tls, socket, peer, stop).await,
        }
    }

    /// Who the peer speaks for.
    async fn introduced(&self, socket: &mut Socket, peer: Peer) -> Result<Peer, HeaderRefused> {
        let required = self.proxy_protocol == ProxyProtocol::Required;
        if !self.trusted.contain(peer.address) {
            // Its bytes are a client's, whatever they look like.
            return if required { Err(HeaderRefused::Untrusted) } else { Ok(peer) };
        }
        let header = match tokio::time::timeout(HEADER_LIMIT, read_header(socket)).await {
            Ok(header) => header?,
            Err(_) => return Err(HeaderRefused::Late),
        };
        match header {
            None if required => Err(HeaderRefused::Missing),
            None | Some(Header::Local) => Ok(self.judge(peer)),
            // It speaks for somebody of whom nothing is known, least of all that he may be believed.
            Some(Header::Unknown) => Ok(peer),
            Some(Header::Proxied { source, destination }) => Ok(self.judge(Peer {
                address: Some(source.ip().to_canonical()),
                local: Some(destination.ip().to_canonical()),
                ..peer
            })),
        }
    }

    fn warn(&self, refused: &HeaderRefused) {
        if matches!(refused, HeaderRefused::Io(_)) || self.warned.replace(true) {
            return;
        }
        tracing::warn!(
            listener = %self.listener,
            reason = %refused,
            "a connection was refused for its PROXY header; further ones are counted only"
        );
    }
}

/// Takes a PROXY header, and nothing but it, from a connection.
async fn read_header(socket: &mut Socket) -> Result<Option<Header>, HeaderRefused> {
    let mut buffer = vec![0; proxy_protocol::MAX_V2];
    let (mut taken, mut seen) = (0, 0);
    loop {
        // What does not belong to a header stays in the socket.
        let length = socket.peek(&mut buffer[taken..], seen).await?;
        match proxy_protocol::parse(&buffer[..taken + length])? {
            Parsed::Absent => return Ok(None),
            Parsed::Undecided => seen = length,
            Parsed::Partial => {
                socket.read_exact(&mut buffer[taken..taken + length]).await?;
                (taken, seen) = (taken + length, 0);
            }
            Parsed::Whole { header, length } => {
                socket.read_exact(&mut buffer[taken..length]).await?;
                return Ok(Some(header));
            }
        }
    }
}

async fn handshake(tls: &TlsServer, socket: Socket, peer: Peer, stop: &Stop) -> Result<Entered, Refused> {
    let accept =
        TlsAcceptor::from(tls.current()).accept(BufReader::with_capacity(READ_AHEAD, socket)).into_fallible();
    let stream = match unless_stopped(tokio::time::timeout(HANDSHAKE_LIMIT, accept), stop).await? {
        Ok(Ok(stream)) => stream,
        Ok(Err((error, socket))) => {
            let _ = tokio::time::timeout(LINGER, unless_stopped(see_off(socket.into_inner()), stop)).await;
            return Err(Refused::Tls(error));
        }
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

/// Closes in good order: a socket that is dropped with unread bytes resets the connection, and the client never reads
/// why.
async fn see_off(mut socket: Socket) {
    let _ = socket.shutdown().await;
    let mut rest = [0; 1024];
    for _ in 0..64 {
        if !matches!(socket.read(&mut rest).await, Ok(1..)) {
            break;
        }
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
