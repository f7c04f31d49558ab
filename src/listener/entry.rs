//! What comes before HTTP on a new connection: the PROXY header, then the TLS handshake.
//!
//! Owns: their deadlines and failures, and who the peer is after them. Runs on the worker; nothing here is reached by a
//! listener that needs neither.

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
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
use super::{Limits, ListenerConfig, ProxyProtocol};
use crate::names::Name;
use crate::policy::trusted::TrustedProxies;
use crate::proxy::{ClientLimits, Peer};
use crate::tls::server::TlsServer;

/// A TLS record of the largest size, with its header.
const READ_AHEAD: usize = 18 * 1024;
/// How the first record of a handshake begins (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 22;
/// How long a refused client may go on sending, so that what it is told is not lost in a reset.
const LINGER: Duration = Duration::from_secs(1);

/// What the connections of a listener go through first, in one worker.
#[derive(Debug)]
pub(super) struct Entry {
    listener: Name,
    trusted: Rc<TrustedProxies>,
    proxy_protocol: ProxyProtocol,
    tls: Option<Arc<TlsServer>>,
    /// How long a TLS handshake may take, and a PROXY header.
    handshake_limit: Duration,
    header_limit: Duration,
    /// What its clients may send.
    pub(super) limits: ClientLimits,
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
    #[error("the TLS handshake took too long")]
    TlsLate,
    /// The same.
    #[error("cleartext where TLS is spoken; an http:// URL?")]
    Cleartext,
    /// It was opened and closed: somebody looked whether the port is open.
    #[error("the client said nothing")]
    Silent,
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
    #[error("it took too long")]
    Late,
    #[error("there is nothing")]
    Silent,
    #[error("the connection broke off: {0}")]
    Io(#[from] io::Error),
}

impl Entry {
    pub(super) fn new(config: &ListenerConfig, tls: Option<Arc<TlsServer>>, limits: &Limits) -> Self {
        Self {
            listener: config.name.clone(),
            trusted: Rc::new(config.trusted_proxies.clone()),
            proxy_protocol: config.proxy_protocol,
            tls,
            handshake_limit: limits.tls_handshake_timeout,
            header_limit: limits.client.header_timeout,
            limits: ClientLimits {
                underscores: config.underscores,
                interim_responses: config.interim_responses,
                ..limits.client
            },
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
        let from = peer.address;
        let peer = match self.proxy_protocol {
            ProxyProtocol::Off => self.judge(peer),
            _ => match unless_stopped(self.introduced(&mut socket, peer), stop).await? {
                Ok(peer) => peer,
                Err(HeaderRefused::Silent) => return Err(Refused::Silent),
                Err(refused) => {
                    self.warn(from, &refused);
                    return Err(refused.into());
                }
            },
        };
        match &self.tls {
            None => Ok(Entered { stream: ClientStream::Plain(socket), protocol: Protocol::Auto, peer }),
            Some(tls) => {
                let entered = tokio::time::timeout(self.handshake_limit, handshake(tls, socket, peer));
                unless_stopped(entered, stop).await?.unwrap_or(Err(Refused::TlsLate))
            }
        }
    }

    /// Who the peer speaks for.
    async fn introduced(&self, socket: &mut Socket, peer: Peer) -> Result<Peer, HeaderRefused> {
        let required = self.proxy_protocol == ProxyProtocol::Required;
        if !self.trusted.contain(peer.address) {
            // Its bytes are a client's, whatever they look like.
            return if required { Err(HeaderRefused::Untrusted) } else { Ok(peer) };
        }
        let header = match tokio::time::timeout(self.header_limit, read_header(socket)).await {
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
                // It is the proxy's.
                unix: None,
                ..peer
            })),
        }
    }

    fn warn(&self, peer: Option<IpAddr>, refused: &HeaderRefused) {
        if matches!(refused, HeaderRefused::Io(_)) || self.warned.replace(true) {
            return;
        }
        tracing::warn!(
            listener = %self.listener,
            peer = peer.map_or_else(|| "unix".to_owned(), |ip| ip.to_string()),
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
        let length = match socket.peek(&mut buffer[taken..], seen).await {
            Ok(length) => length,
            Err(_) if taken + seen == 0 => return Err(HeaderRefused::Silent),
            Err(error) => return Err(error.into()),
        };
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

async fn handshake(tls: &TlsServer, socket: Socket, peer: Peer) -> Result<Entered, Refused> {
    let mut first = [0];
    socket.peek(&mut first, 0).await.map_err(|_| Refused::Silent)?;
    if first[0] != HANDSHAKE_RECORD {
        see_off(socket).await;
        return Err(Refused::Cleartext);
    }
    let socket = BufReader::with_capacity(READ_AHEAD, socket);
    let stream = match TlsAcceptor::from(tls.current()).accept(socket).into_fallible().await {
        Ok(stream) => stream,
        Err((error, socket)) => {
            see_off(socket.into_inner()).await;
            return Err(Refused::Tls(error));
        }
    };
    let (_, session) = stream.get_ref();
    let protocol = match session.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    };
    let chain =
        session.peer_certificates().map(|chain| chain.iter().map(|one| one.clone().into_owned()).collect());
    let peer = Peer { secure: true, chain, ..peer };
    Ok(Entered { stream: ClientStream::Tls(Box::new(stream)), protocol, peer })
}

/// Closes in good order: a socket that is dropped with unread bytes resets the connection, and the client never reads
/// why.
async fn see_off(mut socket: Socket) {
    let _ = socket.shutdown().await;
    let rest = async {
        let mut rest = [0; 1024];
        for _ in 0..64 {
            if !matches!(socket.read(&mut rest).await, Ok(1..)) {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, rest).await;
}

/// A connection that has not begun is not waited for.
pub(super) async fn unless_stopped<T>(work: impl Future<Output = T>, stop: &Stop) -> Result<T, Refused> {
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

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;
    use tokio::time::Instant;

    use super::*;
    use crate::listener::BindAddress;
    use crate::policy::trusted::TrustedPeer;
    use crate::secret::SecretSource;
    use crate::tls::server::TlsServerConfig;

    fn entry(proxy_protocol: ProxyProtocol, is_tls: bool) -> Entry {
        let key = rcgen::KeyPair::generate().expect("key");
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("params");
        let folder = tempfile::tempdir().expect("tempdir");
        let (cert_path, key_path) = (folder.path().join("crt"), folder.path().join("key"));
        std::fs::write(&cert_path, params.self_signed(&key).expect("certificate").pem()).expect("written");
        std::fs::write(&key_path, key.serialize_pem()).expect("written");
        let tls = TlsServerConfig {
            cert: cert_path,
            key: SecretSource::File(key_path),
            client_ca: None,
            client_optional: false,
        };
        let tls = is_tls.then(|| Arc::new(TlsServer::try_new(&tls).expect("a server")));
        let config = ListenerConfig {
            name: Name::try_new("legacy").expect("name"),
            bind: BindAddress::Unix("unused".into()),
            tls: None,
            trusted_proxies: TrustedProxies::new(vec![TrustedPeer::Unix]),
            proxy_protocol,
            underscores: crate::proxy::Underscores::Reject,
            interim_responses: false,
            allow_unauthenticated: false,
            allowed_origins: Vec::new(),
            clients: Vec::new(),
            routes: Vec::new(),
            egress: None,
        };
        Entry::new(&config, tls, &Limits::default())
    }

    /// What a client's bytes, one each two seconds, come to, and after how many seconds.
    async fn slowly(entry: &Entry, bytes: &[u8], leaves: bool) -> (String, u64) {
        let (mut client, server) = UnixStream::pair().expect("a pair");
        let (begun, stop) = (Instant::now(), Rc::new(Stop::default()));
        let talk = async {
            for byte in bytes {
                if client.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            if !leaves {
                std::future::pending::<()>().await;
            }
            drop(client);
            std::future::pending::<()>().await;
        };
        let admitted = tokio::select! {
            admitted = entry.admit(Socket::Unix(server), Peer::default(), &stop) => admitted,
            () = talk => unreachable!("it never ends"),
        };
        let said = admitted.map_or_else(|refused| refused.to_string(), |_| "admitted".to_owned());
        (said, begun.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_dawdles_is_cut_after_ten_seconds() {
        let tls = entry(ProxyProtocol::Off, true);
        let header = entry(ProxyProtocol::Required, true);
        let late = |what: &str| (format!("{what} took too long"), 10);
        assert_eq!(slowly(&tls, b"", false).await, late("the TLS handshake"));
        assert_eq!(slowly(&tls, &[22, 3, 1, 1, 0, 1, 0, 0, 1, 0], false).await, late("the TLS handshake"));
        assert_eq!(slowly(&header, b"", false).await, late("the PROXY header: it"));
        assert_eq!(slowly(&header, b"PROXY UNKNOWN ", false).await, late("the PROXY header: it"));
        let (said, after) = slowly(&header, b"PROX", false).await;
        assert_eq!((said.as_str(), after), ("the PROXY header: it took too long", 10));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_leaves_without_a_word_is_no_failure() {
        for entry in [entry(ProxyProtocol::Off, true), entry(ProxyProtocol::Required, false)] {
            assert_eq!(slowly(&entry, b"", true).await, ("the client said nothing".to_owned(), 0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_not_begun_is_not_waited_for() {
        let (_client, server) = UnixStream::pair().expect("a pair");
        let (entry, stop) = (entry(ProxyProtocol::Off, true), Rc::new(Stop::default()));
        let begun = Instant::now();
        let admit = entry.admit(Socket::Unix(server), Peer::default(), &stop);
        let order = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            stop.ask(Wish::Finish);
        };
        let (admitted, ()) = tokio::join!(admit, order);
        assert!(matches!(admitted, Err(Refused::Stopped)), "{admitted:?}");
        assert_eq!(begun.elapsed().as_secs(), 3);
    }
}
