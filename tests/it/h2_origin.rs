//! Origins that speak HTTP/2: one that speaks it well, and one that writes single frames.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bearward::origin::Origin;
use bearward::route::RouteConfig;
use bearward::upstream::HttpVersion;
use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::{HeaderMap, Request, Response};

use crate::h2_rig::{END_HEADERS, Frame, HEADERS, PREFACE, SETTINGS, block, frame};
use crate::proxy_rig::route;

/// A request as it came, with its body.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) head: Arc<http::request::Parts>,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Seen {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).map(|value| value.to_str().expect("text"))
    }
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
type Script = dyn Fn(Request<RecvStream>, SendResponse<Bytes>) -> Task + Send + Sync;

/// An origin on a free port.
pub(crate) struct H2Origin {
    pub(crate) address: SocketAddr,
    /// Its thread, and so all its connections, end with it.
    _runtime: tokio::runtime::Runtime,
    connections: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl H2Origin {
    /// Reads each request whole and gives it to `answer`.
    pub(crate) fn answering(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
        Self::start(Builder::new(), seen, None, move |request, respond| {
            let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
            Box::pin(async move {
                let Some(request) = whole(request).await else { return };
                log.lock().expect("lock").push(request.clone());
                answer(&request).send(respond).await;
            })
        })
    }

    /// Gives each stream to `script`.
    pub(crate) fn scripted<F>(
        builder: Builder,
        script: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start(builder, Arc::default(), None, move |request, respond| Box::pin(script(request, respond)))
    }

    /// The same behind TLS.
    pub(crate) fn secured(
        tls: rustls::ServerConfig,
        answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
        Self::start(Builder::new(), seen, Some(Arc::new(tls)), move |request, respond| {
            let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
            Box::pin(async move {
                let Some(request) = whole(request).await else { return };
                log.lock().expect("lock").push(request.clone());
                answer(&request).send(respond).await;
            })
        })
    }

    fn start(
        builder: Builder,
        seen: Arc<Mutex<Vec<Seen>>>,
        tls: Option<Arc<rustls::ServerConfig>>,
        script: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> Task + Send + Sync + 'static,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        listener.set_nonblocking(true).expect("nonblocking");
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, script): (_, Arc<Script>) = (Arc::clone(&connections), Arc::new(script));
        let handle = runtime.handle().clone();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("listener");
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let _ = stream.set_nodelay(true);
                let (builder, script, inner) = (builder.clone(), Arc::clone(&script), handle.clone());
                match tls.clone() {
                    None => {
                        handle.spawn(serve(builder, stream, script, inner));
                    }
                    Some(tls) => {
                        handle.spawn(async move {
                            let accepted = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await;
                            let Ok(stream) = accepted else { return };
                            serve(builder, stream, script, inner).await;
                        });
                    }
                }
            }
        });
        Self { address, _runtime: runtime, connections, seen }
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.seen.lock().expect("lock").clone()
    }

    /// The last request.
    pub(crate) fn request(&self) -> Seen {
        self.requests().pop().expect("a request")
    }
}

async fn serve<S>(builder: Builder, stream: S, script: Arc<Script>, handle: tokio::runtime::Handle)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        handle.spawn(script(request, respond));
    }
}

/// Takes a whole request.
pub(crate) async fn whole(request: Request<RecvStream>) -> Option<Seen> {
    let (head, mut stream) = request.into_parts();
    let mut body = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece.ok()?;
        stream.flow_control().release_capacity(piece.len()).ok()?;
        body.extend(piece);
    }
    let trailers = stream.trailers().await.ok()?;
    Some(Seen { head: Arc::new(head), body: body.into(), trailers })
}

/// An answer.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
    pub(crate) trailers: Vec<(&'static str, &'static str)>,
}

impl Answer {
    pub(crate) fn ok(body: &'static str) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.fields.push((name, value.to_owned()));
        self
    }

    async fn send(self, mut respond: SendResponse<Bytes>) {
        let mut head = Response::builder().status(self.status);
        for (name, value) in self.fields {
            head = head.header(name, value);
        }
        let head = head.body(()).expect("a head");
        let bare = self.body.is_empty() && self.trailers.is_empty();
        let Ok(mut stream) = respond.send_response(head, bare) else { return };
        if !self.body.is_empty() {
            send_all(&mut stream, self.body, self.trailers.is_empty()).await;
        }
        if !self.trailers.is_empty() {
            let mut trailers = HeaderMap::new();
            for (name, value) in self.trailers {
                trailers.append(name, value.parse().expect("a value"));
            }
            let _ = stream.send_trailers(trailers);
        }
    }
}

/// Sends as there is room.
pub(crate) async fn send_all(stream: &mut h2::SendStream<Bytes>, mut body: Bytes, last: bool) {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
        let piece = body.split_to(room.min(body.len()));
        if stream.send_data(piece, last && body.is_empty()).is_err() {
            return;
        }
    }
}

/// A route to an address in cleartext with prior knowledge.
pub(crate) fn h2c(address: SocketAddr) -> RouteConfig {
    let mut route = route(&format!("http://{address}"));
    route.upstream.http = HttpVersion::Http2Cleartext;
    route
}

/// A route over TLS to `localhost` with this authority alone.
pub(crate) fn over_tls(address: SocketAddr, ca: &std::path::Path, http: HttpVersion) -> RouteConfig {
    let mut route = route("https://localhost");
    route.upstream.origin =
        Origin::try_new(&format!("https://localhost:{}", address.port())).expect("origin");
    route.upstream.http = http;
    route.upstream.tls.ca = Some(ca.to_owned());
    route
}

/// An origin whose every frame is written by hand: one script a connection, in order.
pub(crate) struct RawOrigin {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

/// A connection of a [`RawOrigin`].
pub(crate) struct RawPeer(pub(crate) TcpStream);

impl RawOrigin {
    /// `script` gets each connection with its number, after both sides have sent their SETTINGS.
    pub(crate) fn scripted(script: impl Fn(RawPeer, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, script) = (Arc::clone(&connections), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let number = count.fetch_add(1, Ordering::Relaxed);
                let script = Arc::clone(&script);
                std::thread::spawn(move || {
                    stream.set_nodelay(true).expect("nodelay");
                    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
                    let mut peer = RawPeer(stream);
                    let mut preface = [0; PREFACE.len()];
                    if peer.0.read_exact(&mut preface).is_err() || preface != PREFACE {
                        return;
                    }
                    peer.write(&frame(SETTINGS, 0, 0, &[]));
                    peer.write(&frame(SETTINGS, 1, 0, &[]));
                    script(peer, number);
                });
            }
        });
        Self { address, connections }
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl RawPeer {
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    pub(crate) fn headers(&mut self, stream: u32, flags: u8, fields: &[(&str, &str)]) {
        self.write(&frame(HEADERS, flags | END_HEADERS, stream, &block(fields)));
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) fn read(&mut self) -> Option<Frame> {
        crate::h2_rig::read_frame(&mut self.0)
    }

    pub(crate) fn next(&mut self, kind: u8) -> Option<Frame> {
        std::iter::from_fn(|| self.read()).find(|frame| frame.kind == kind)
    }
}
