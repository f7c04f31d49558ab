//! The connector: everything that is known of one upstream, ready to open connections to it.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};

use super::health::Address;
use super::outbound::OutboundProxy;
use super::{AddressGuard, DialError, HttpVersion, Spoken, Transport, UpstreamConfig, dial};
use crate::origin::{Origin, Scheme};
use crate::tls::source::TlsSource;
use crate::tls::{self, TlsClientConfig, TlsError};

/// The TLS half of an upstream: built once for the process, since it reads files.
#[derive(Debug, Clone)]
pub struct TlsClient {
    source: Arc<TlsSource>,
    name: ServerName<'static>,
}

impl TlsClient {
    /// Reads the files and checks the name; `None` for an http upstream.
    pub fn try_new(config: &UpstreamConfig) -> Result<Option<Self>, TlsError> {
        if config.origin.scheme() == Scheme::Http {
            return Ok(None);
        }
        let name = config.tls.verified_name(config.origin.dial_host())?;
        let alpn: &[&[u8]] = match config.http {
            HttpVersion::Auto => &[b"h2", b"http/1.1"],
            HttpVersion::Http2 => &[b"h2"],
            HttpVersion::Http1 | HttpVersion::Http2Cleartext => &[b"http/1.1"],
        };
        Ok(Some(Self { source: TlsSource::try_new(&config.tls, alpn)?, name }))
    }

    /// The same trust and identity for another origin.
    pub fn for_origin(&self, tls: &TlsClientConfig, origin: &Origin) -> Result<Self, TlsError> {
        let name = tls.verified_name(origin.dial_host())?;
        Ok(Self { source: Arc::clone(&self.source), name })
    }

    /// What follows the files, where there are any.
    pub fn source(&self) -> Option<&Arc<TlsSource>> {
        Some(&self.source).filter(|source| source.has_files())
    }
}

/// TLS as one worker uses it: what it makes of the files that were read last, shared by all ways to an upstream.
#[derive(Debug, Clone)]
struct WorkerTls {
    name: ServerName<'static>,
    source: Arc<TlsSource>,
    /// Whether the source can change.
    follows: bool,
    made: Rc<RefCell<Made>>,
}

#[derive(Debug)]
struct Made {
    epoch: u64,
    config: Arc<rustls::ClientConfig>,
    /// The same for a connection that is to switch protocols, where the upstream may choose.
    http1: Option<Arc<rustls::ClientConfig>>,
}

impl WorkerTls {
    fn new(client: &TlsClient, http: HttpVersion) -> Self {
        let made = Made::of(&client.source, http == HttpVersion::Auto);
        let (source, follows) = (Arc::clone(&client.source), client.source().is_some());
        Self { name: client.name.clone(), source, follows, made: Rc::new(RefCell::new(made)) }
    }

    /// What the next connection uses. Sessions of before are not resumed: they would stand for the certificate of before.
    fn config(&self, for_http1: bool) -> Option<Arc<rustls::ClientConfig>> {
        let mut made = self.made.borrow_mut();
        if self.follows && made.epoch != self.source.epoch() {
            *made = Made::of(&self.source, made.http1.is_some());
        }
        if for_http1 { made.http1.clone() } else { Some(Arc::clone(&made.config)) }
    }
}

impl Made {
    fn of(source: &TlsSource, chooses: bool) -> Self {
        let epoch = source.epoch();
        let mut config = rustls::ClientConfig::clone(&source.current());
        config.resumption = rustls::client::Resumption::in_memory_sessions(64);
        let http1 = chooses.then(|| {
            let mut own = config.clone();
            own.alpn_protocols = vec![b"http/1.1".to_vec()];
            Arc::new(own)
        });
        Self { epoch, config: Arc::new(config), http1 }
    }
}

/// Opens connections to one upstream. One a worker: sessions are resumed within a worker, so that no lock is
/// shared between two.
#[derive(Debug, Clone)]
pub struct Connector {
    origin: Origin,
    http: HttpVersion,
    tls: Option<WorkerTls>,
    outbound: Option<OutboundProxy>,
    deadline: Duration,
    guard: Option<Arc<dyn AddressGuard>>,
    /// The one address that is dialled; else each connection resolves the name.
    at: Option<Address>,
    reached: Cell<u64>,
}

impl Connector {
    /// Makes the connector of one worker. The error is a message for a person.
    pub fn try_new(
        config: &UpstreamConfig,
        tls: Option<&TlsClient>,
        deadline: Duration,
    ) -> Result<Self, String> {
        let tls = tls.map(|client| WorkerTls::new(client, config.http));
        let outbound = config.outbound_proxy.as_ref().map(OutboundProxy::try_new).transpose()?;
        Ok(Self {
            origin: config.origin.clone(),
            http: config.http,
            tls,
            outbound,
            deadline,
            guard: None,
            at: None,
            reached: Cell::new(0),
        })
    }

    /// The same ways to another origin.
    pub fn to_origin(&self, config: &UpstreamConfig, origin: &Origin) -> Result<Self, TlsError> {
        let mut other = Self { origin: origin.clone(), ..self.clone() };
        if let Some(tls) = &mut other.tls {
            tls.name = config.tls.verified_name(origin.dial_host())?;
        }
        Ok(other)
    }

    /// The same way by one address of the name.
    #[must_use]
    pub(super) fn at(&self, address: &Address) -> Self {
        Self { at: Some(address.clone()), reached: Cell::new(0), ..self.clone() }
    }

    /// Where it leads.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The only address, where there is nothing to resolve here.
    pub(super) fn fixed_address(&self) -> Option<Address> {
        let (host, port) = (self.origin.dial_host(), self.origin.port());
        if let Some(path) = self.origin.unix_path() {
            return Some(Address::Unix(path.into()));
        }
        if self.outbound.is_some() {
            return Some(Address::Name(self.origin.authority().into()));
        }
        host.parse().ok().map(|ip| Address::Ip(SocketAddr::new(ip, port)))
    }

    /// The addresses of the origin's name that the guard admits.
    pub(super) async fn resolve(&self) -> Result<Vec<SocketAddr>, DialError> {
        let (host, port) = (self.origin.dial_host(), self.origin.port());
        dial::resolve_guarded(host, port, self.guard.as_deref()).await
    }

    /// How many connections stood before TLS. One that is slow after that is not the address's fault.
    pub(super) fn reached(&self) -> u64 {
        self.reached.get()
    }

    /// Dials only addresses that `guard` admits. What a proxy on the way resolves is that proxy's; an address that is
    /// written out is judged before it is told to it.
    #[must_use]
    pub fn guarded(mut self, guard: Option<Arc<dyn AddressGuard>>) -> Self {
        self.guard = guard;
        self
    }

    /// Opens a way for bytes to the origin's host and port within the deadline: name, TCP, the proxy's tunnel.
    pub async fn connect_plain(&self) -> Result<TcpStream, DialError> {
        let way = async {
            let mut stream = self.connect_tcp().await?;
            if let Some(proxy) = &self.outbound {
                proxy.open_tunnel(&mut stream, &self.origin).await?;
            }
            Ok(stream)
        };
        match tokio::time::timeout(self.deadline, way).await {
            Ok(outcome) => outcome,
            Err(_) => Err(DialError::Timeout),
        }
    }

    async fn connect_tcp(&self) -> Result<TcpStream, DialError> {
        let (host, port) = (self.origin.dial_host(), self.origin.port());
        let Some(proxy) = &self.outbound else {
            return match &self.at {
                // It was judged when it was resolved; one that is written out was not resolved.
                Some(Address::Ip(address)) => match &self.guard {
                    Some(guard) if !guard.admits(host, *address) => Err(DialError::Forbidden),
                    _ => dial::dial(&[*address]).await,
                },
                _ => dial::connect(host, port, self.guard.as_deref()).await,
            };
        };
        if let (Some(guard), Ok(ip)) = (&self.guard, host.parse::<IpAddr>())
            && !guard.admits(host, SocketAddr::new(ip, port))
        {
            return Err(DialError::Forbidden);
        }
        dial::connect(proxy.origin.dial_host(), proxy.origin.port(), None).await
    }

    /// What the upstream speaks, where that is known before it was asked.
    pub fn spoken(&self) -> Option<Spoken> {
        match self.http {
            HttpVersion::Auto if self.tls.is_some() => None,
            HttpVersion::Auto | HttpVersion::Http1 => Some(Spoken::Http1),
            HttpVersion::Http2 | HttpVersion::Http2Cleartext => Some(Spoken::Http2),
        }
    }

    /// Within which time a connection has to stand.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Which TLS settings its next connection uses: another number each time that their files changed.
    #[inline]
    pub(super) fn epoch(&self) -> u64 {
        self.tls.as_ref().filter(|tls| tls.follows).map_or(0, |tls| tls.source.epoch())
    }

    /// Whether requests go over TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether requests are sent in absolute-form: http through an outbound proxy (RFC 9112, 3.2.2).
    pub fn absolute_form(&self) -> bool {
        self.outbound.is_some() && !self.tunnels()
    }

    /// What an outbound proxy wants to see on each request in absolute-form.
    pub fn proxy_authorization(&self) -> Option<&HeaderValue> {
        self.outbound.as_ref().filter(|_| !self.tunnels())?.authorization.as_ref()
    }

    /// Whether an outbound proxy is asked for a tunnel.
    fn tunnels(&self) -> bool {
        self.tls.is_some() || self.http == HttpVersion::Http2Cleartext
    }

    /// Opens a connection within the deadline: name, TCP, tunnel, TLS.
    pub async fn connect(&self) -> Result<(Transport, Spoken), DialError> {
        let tls = self.tls.as_ref().and_then(|tls| Some((tls.config(false)?, tls.name.clone())));
        let connected = tokio::time::timeout(self.deadline, self.connect_unhurried(tls)).await;
        connected.unwrap_or(Err(DialError::Timeout))
    }

    /// The same for HTTP/1.1 alone, where the upstream may choose; `None` where it may not.
    pub async fn connect_http1(&self) -> Option<Result<Transport, DialError>> {
        let tls = self.tls.as_ref()?;
        let tls = (tls.config(true)?, tls.name.clone());
        let connected = tokio::time::timeout(self.deadline, self.connect_unhurried(Some(tls))).await;
        Some(connected.unwrap_or(Err(DialError::Timeout)).map(|(transport, _)| transport))
    }

    async fn connect_unhurried(
        &self,
        tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    ) -> Result<(Transport, Spoken), DialError> {
        if let Some(path) = self.origin.unix_path() {
            let stream = UnixStream::connect(path).await?;
            return Ok((Transport::Unix(stream), self.spoken().unwrap_or(Spoken::Http1)));
        }
        let mut stream = self.connect_tcp().await?;
        self.reached.set(self.reached.get() + 1);
        if let Some(proxy) = &self.outbound
            && self.tunnels()
        {
            proxy.open_tunnel(&mut stream, &self.origin).await?;
        }
        let Some((config, name)) = tls else {
            return Ok((Transport::Tcp(stream), self.spoken().unwrap_or(Spoken::Http1)));
        };
        let (stream, alpn) =
            tls::connect(config, name, stream).await.map_err(|error| handshake_error(&error))?;
        let spoken = match alpn.as_deref() {
            Some(b"h2") => Spoken::Http2,
            // Said nothing, where only one answer would do.
            _ if self.http == HttpVersion::Http2 => return Err(DialError::NotHttp2),
            _ => Spoken::Http1,
        };
        Ok((Transport::Tls(Box::new(stream)), spoken))
    }
}

fn handshake_error(error: &std::io::Error) -> DialError {
    let source = error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>());
    tracing::debug!(%error, "TLS handshake with an upstream failed");
    match source {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            DialError::TlsCertificate
        }
        Some(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)) => {
            DialError::NotHttp2
        }
        _ => DialError::Tls,
    }
}
