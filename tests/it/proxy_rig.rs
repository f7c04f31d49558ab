//! What the proxy tests share: a data plane in this process, an origin that records the exact bytes of each
//! request, and a client that writes raw bytes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bearward::clock::{BootTime, Clock, UnixTime};
use bearward::credential::{BoundCredential, Published, State, Token, TokenCell};
use bearward::listener::{BindAddress, DataPlane, Limits, ListenerConfig, ListenerSnapshot, ProxyProtocol};
use bearward::names::Name;
use bearward::origin::Origin;
use bearward::policy::trusted::TrustedProxies;
use bearward::route::{HeaderEdits, OnUnauthorized, RouteConfig};
use bearward::tls::TlsClientConfig;
use bearward::upstream::{HttpVersion, Timeouts, UpstreamConfig, UpstreamOptions};

/// The injected token.
pub(crate) const TOKEN: &str = "access-token-of-the-proxy";

pub(crate) fn name(text: &str) -> Name {
    Name::try_new(text).expect("name")
}

/// What an origin does with one request on one connection; `false` closes the connection.
pub(crate) type Script = dyn Fn(&mut TcpStream, &str) -> bool + Send + Sync;

/// An origin on a free port. Records heads with their bodies as they came.
pub(crate) struct OriginServer {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<usize>>,
}

impl OriginServer {
    /// Answers every request with these bytes and keeps the connection.
    pub(crate) fn answering(answer: &str) -> Self {
        let answer = answer.to_owned();
        Self::scripted(move |stream, _| stream.write_all(answer.as_bytes()).is_ok())
    }

    /// 200 with `ok`.
    pub(crate) fn ok() -> Self {
        Self::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    }

    pub(crate) fn scripted(script: impl Fn(&mut TcpStream, &str) -> bool + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(Mutex::new(0));
        let (script, log, count) = (Arc::new(script), Arc::clone(&requests), Arc::clone(&connections));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                *count.lock().expect("lock") += 1;
                let (script, log) = (Arc::clone(&script) as Arc<Script>, Arc::clone(&log));
                std::thread::spawn(move || serve(stream, &*script, &log));
            }
        });
        Self { address, requests, connections }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("lock").clone()
    }

    /// The only request so far.
    pub(crate) fn request(&self) -> String {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests[0].clone()
    }

    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().expect("lock")
    }
}

fn serve(mut stream: TcpStream, script: &Script, log: &Mutex<Vec<String>>) {
    let _ = stream.set_nodelay(true);
    while let Some(request) = read_message(&mut stream) {
        log.lock().expect("lock").push(request.clone());
        if !script(&mut stream, &request) {
            return;
        }
    }
}

/// Reads one head and the body that it frames, as raw text. `None` at the end of the stream.
pub(crate) fn read_message(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = read_head(stream)?;
    let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
    if head.contains("expect: 100-continue") {
        return Some(String::from_utf8_lossy(&bytes).into_owned());
    }
    if head.contains("transfer-encoding: chunked") {
        // A head may end with a 0 as well.
        let body = bytes.len();
        while !bytes[body..].ends_with(b"0\r\n\r\n") {
            bytes.push(read_byte(stream)?);
        }
    } else if let Some(length) = field_of(&head, "content-length").and_then(|length| length.parse().ok()) {
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        bytes.extend(body);
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

pub(crate) fn read_head(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(read_byte(stream)?);
    }
    Some(bytes)
}

fn read_byte(stream: &mut TcpStream) -> Option<u8> {
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(1) => Some(byte[0]),
        _ => None,
    }
}

/// The value of a field in the raw text of a head; `None` if it is not there exactly once.
pub(crate) fn field_of(head: &str, field: &str) -> Option<String> {
    let values = fields_of(head, field);
    (values.len() == 1).then(|| values[0].clone())
}

/// All values of a field.
pub(crate) fn fields_of(head: &str, field: &str) -> Vec<String> {
    let head = head.split("\r\n\r\n").next().unwrap_or_default();
    let lines = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    lines
        .filter(|(name, _)| name.eq_ignore_ascii_case(field))
        .map(|(_, value)| value.trim().to_owned())
        .collect()
}

/// A route to `upstream` with the prefix `/` and the credential `primavera`.
pub(crate) fn route(upstream: &str) -> RouteConfig {
    RouteConfig {
        name: name("api"),
        hosts: None,
        path_prefix: "/".to_owned(),
        methods: Vec::new(),
        upstream: UpstreamConfig {
            origin: Origin::try_new(upstream).expect("origin"),
            http: HttpVersion::Auto,
            tls: TlsClientConfig::default(),
            outbound_proxy: None,
            options: UpstreamOptions::default(),
        },
        rewrite_prefix: None,
        credential: Some(name("primavera")),
        preserve_host: false,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        timeouts: Timeouts::default(),
        on_unauthorized: OnUnauthorized::default(),
        wait_for_token: Duration::ZERO,
        picks: None,
        users: None,
        clients: None,
        allow_plaintext: false,
        max_body: None,
        throttle: bearward::route::ThrottleConfig::default(),
        rewrites: bearward::route::Rewrites::default(),
        network_guard: None,
    }
}

/// A data plane with one listener on a free port.
pub(crate) struct Rig {
    pub(crate) plane: DataPlane,
    pub(crate) cell: Arc<TokenCell>,
    pub(crate) address: SocketAddr,
}

impl Rig {
    /// One route with a usable token.
    pub(crate) fn to(origin: &OriginServer) -> Self {
        Self::start(vec![route(&origin.url())])
    }

    pub(crate) fn start(routes: Vec<RouteConfig>) -> Self {
        Self::start_listener(routes, Vec::new(), Limits { workers: Some(1), ..Limits::default() })
    }

    pub(crate) fn start_listener(
        routes: Vec<RouteConfig>,
        allowed_origins: Vec<String>,
        limits: Limits,
    ) -> Self {
        Self::start_changed(routes, limits, |listener| listener.allowed_origins = allowed_origins)
    }

    /// With changes to the listener.
    pub(crate) fn start_changed(
        routes: Vec<RouteConfig>,
        limits: Limits,
        change: impl FnOnce(&mut ListenerConfig),
    ) -> Self {
        let cell = TokenCell::new(name("primavera"));
        publish(&cell, TOKEN, 1);
        let mut listener = ListenerConfig {
            name: name("legacy"),
            bind: BindAddress::Tcp("127.0.0.1:0".parse().expect("address")),
            tls: None,
            trusted_proxies: TrustedProxies::default(),
            proxy_protocol: ProxyProtocol::Off,
            underscores: bearward::proxy::Underscores::Reject,
            interim_responses: false,
            allow_unauthenticated: false,
            allowed_origins: Vec::new(),
            clients: Vec::new(),
            routes,
            egress: None,
        };
        change(&mut listener);
        let bind = |route: &RouteConfig| {
            route.credential.as_ref()?;
            let allowed: Vec<Origin> = route.upstream.origins().cloned().collect();
            let (first, others) = allowed.split_first().expect("an origin");
            let bound = BoundCredential::try_new(Arc::clone(&cell), &allowed, first.clone(), true);
            let also = |bound: BoundCredential, other: &Origin| bound.also(&allowed, other.clone(), true);
            Some(others.iter().try_fold(bound.expect("bound"), also).expect("bound"))
        };
        let plane = DataPlane::start(&[listener], limits, &bind, Clock::System).expect("started");
        // A Unix socket has none.
        let address = plane.addresses()[0].1.parse().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
        Self { plane, cell, address }
    }

    /// Waits until the listener has counted so: it does when a client is gone already.
    pub(crate) fn settle(&self, counted: impl Fn(&ListenerSnapshot) -> bool) {
        let begun = tokio::time::Instant::now();
        while !counted(&self.plane.snapshot().listeners[0]) {
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", self.plane.snapshot().listeners[0]);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn connect(&self) -> Wire {
        Wire::to(self.address)
    }

    /// Sends one raw request and reads its whole answer.
    pub(crate) fn send(&self, request: &str) -> String {
        let mut wire = self.connect();
        wire.write(request);
        wire.answer()
    }

    /// `GET path` with a good Host and these extra lines.
    pub(crate) fn get(&self, path: &str, extra: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n"))
    }
}

/// Puts a token into the cell that lives for an hour.
pub(crate) fn publish(cell: &TokenCell, token: &str, generation: u64) {
    let hard_stop = Clock::System.boot().plus(Duration::from_secs(3600));
    publish_until(cell, token, generation, hard_stop);
}

pub(crate) fn publish_until(cell: &TokenCell, token: &str, generation: u64, hard_stop: BootTime) {
    let token =
        Token::try_new(&token.into(), hard_stop, generation, UnixTime::from_millis(0)).expect("token");
    cell.publish(Published { state: State::Fresh, token: Some(token), retry_at: None });
}

/// A raw client connection.
pub(crate) struct Wire(pub(crate) TcpStream);

impl Wire {
    pub(crate) fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connected");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
        Self(stream)
    }

    pub(crate) fn write(&mut self, bytes: &str) {
        self.0.write_all(bytes.as_bytes()).expect("written");
    }

    /// Reads one answer; panics if none comes.
    pub(crate) fn answer(&mut self) -> String {
        read_message(&mut self.0).expect("an answer")
    }

    /// Reads to the end of the stream.
    pub(crate) fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let _ = self.0.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The status of a raw answer.
pub(crate) fn status(answer: &str) -> u16 {
    answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

/// The problem document of a raw answer.
pub(crate) fn problem(answer: &str) -> serde_json::Value {
    assert_eq!(field_of(answer, "content-type").as_deref(), Some("application/problem+json"), "{answer}");
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    serde_json::from_str(body).expect("JSON")
}
