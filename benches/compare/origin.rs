//! The origin that every proxy of the comparison stands before. Answers 200 only to a request that carries the injected
//! token and nothing of what the caller sent; everything else gets 401.
//!
//! `compare-origin TOKEN FOLDER KIND=PORT…` with the kinds `plain`, `tls`, `wrong` (a certificate for another name), `h2`
//! (TLS, HTTP/2 and nothing else), and `open` and `open-tls`, which take every request. FOLDER holds `good.pem`, `good.key`,
//! `wrong.pem` and `wrong.key`. `/small` is 128 bytes, `/16k` 16 KiB.

use std::error::Error;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite::TLS13_AES_128_GCM_SHA256, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

type Failure = Box<dyn Error + Send + Sync>;

/// What is asked of a request, and the answers, ready to be written.
struct Origin {
    /// `None`: every request is good.
    bearer: Option<Vec<u8>>,
    small: Bytes,
    large: Bytes,
    small_answer: Vec<u8>,
    large_answer: Vec<u8>,
}

const UNAUTHORIZED: &[u8] = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";

impl Origin {
    fn new(token: Option<&str>) -> Rc<Self> {
        let body = |length: usize| Bytes::from(vec![b'x'; length]);
        let answer = |body: &Bytes| {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            [head.as_bytes(), body].concat()
        };
        let (small, large) = (body(128), body(16 * 1024));
        Rc::new(Self {
            bearer: token.map(|token| format!("Bearer {token}").into_bytes()),
            small_answer: answer(&small),
            large_answer: answer(&large),
            small,
            large,
        })
    }

    /// The credential of a request is the injected one, once.
    fn takes<'v>(&self, mut credentials: impl Iterator<Item = &'v [u8]>) -> bool {
        let Some(bearer) = &self.bearer else { return true };
        credentials.next() == Some(bearer) && credentials.next().is_none()
    }

    fn answer(&self, head: &[u8]) -> &[u8] {
        if !self.takes(values(head, b"authorization")) {
            UNAUTHORIZED
        } else if head.split(|byte| *byte == b' ').nth(1) == Some(b"/16k") {
            &self.large_answer
        } else {
            &self.small_answer
        }
    }

    async fn serve_http1(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
        let mut buffer = Vec::with_capacity(16 * 1024);
        loop {
            let head_end = loop {
                if let Some(at) = find(&buffer, b"\r\n\r\n") {
                    break at + 4;
                }
                if stream.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
            };
            let head = &buffer[..head_end];
            let length = values(head, b"content-length").next();
            let length = length.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()).unwrap_or(0);
            let answer = self.answer(head);
            while buffer.len() < head_end + length {
                if stream.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
            }
            buffer.drain(..head_end + length);
            stream.write_all(answer).await?;
            stream.flush().await?;
        }
    }

    async fn serve_http2(
        self: Rc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin,
    ) -> Result<(), h2::Error> {
        let mut builder = h2::server::Builder::new();
        builder
            .max_concurrent_streams(256)
            .initial_window_size(1 << 20)
            .initial_connection_window_size(1 << 24);
        let mut connection = builder.handshake::<_, Bytes>(stream).await?;
        while let Some(accepted) = connection.accept().await {
            let (request, mut answer) = accepted?;
            let credentials = request.headers().get_all(header::AUTHORIZATION);
            if self.takes(credentials.iter().map(http::HeaderValue::as_bytes)) {
                let body = if request.uri().path() == "/16k" { &self.large } else { &self.small };
                let head = Response::builder().header(header::CONTENT_LENGTH, body.len());
                let head = head.body(()).expect("a fixed head is one");
                answer.send_response(head, false)?.send_data(body.clone(), true)?;
            } else {
                let mut head = Response::new(());
                *head.status_mut() = StatusCode::UNAUTHORIZED;
                answer.send_response(head, true)?;
            }
        }
        Ok(())
    }
}

/// The values of a field, its name in lower case.
fn values<'h>(head: &'h [u8], name: &'static [u8]) -> impl Iterator<Item = &'h [u8]> {
    head.split(|byte| *byte == b'\n').filter_map(move |line| {
        let (field, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        field.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
    })
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// Takes one cipher suite alone, so that all proxies pay for the same.
fn acceptor(folder: &Path, name: &str, protocol: &str) -> Result<TlsAcceptor, Failure> {
    let provider = CryptoProvider { cipher_suites: vec![TLS13_AES_128_GCM_SHA256], ..default_provider() };
    let file = |end: &str| folder.join([name, end].concat());
    let chain = CertificateDer::pem_file_iter(file(".pem"))?.collect::<Result<Vec<_>, _>>()?;
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(file(".key"))?)?;
    config.alpn_protocols = vec![protocol.into()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(stream: TcpStream, origin: Rc<Origin>, tls: Option<TlsAcceptor>, http2: bool) {
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        let _ = origin.serve_http1(stream).await;
        return;
    };
    // A whole record with one read.
    if let Ok(stream) = tls.accept(BufReader::with_capacity(18 * 1024, stream)).await {
        if http2 {
            let _ = origin.serve_http2(stream).await;
        } else {
            let _ = origin.serve_http1(stream).await;
        }
    }
}

async fn listen(listener: TcpListener, origin: Rc<Origin>, tls: Option<TlsAcceptor>, http2: bool) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::task::spawn_local(serve(stream, Rc::clone(&origin), tls.clone(), http2));
            }
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [token, folder, listeners @ ..] = &arguments[..] else {
        return Err("usage: compare-origin TOKEN FOLDER KIND=PORT…".into());
    };
    let (checked, open) = (Origin::new(Some(token)), Origin::new(None));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        for listener in listeners {
            let (kind, port) = listener.split_once('=').ok_or("KIND=PORT is wanted")?;
            let tls = |name: &str, protocol: &str| acceptor(Path::new(folder), name, protocol).map(Some);
            let (origin, tls, http2) = match kind {
                "plain" => (&checked, None, false),
                "open" => (&open, None, false),
                "tls" => (&checked, tls("good", "http/1.1")?, false),
                "open-tls" => (&open, tls("good", "http/1.1")?, false),
                "wrong" => (&checked, tls("wrong", "http/1.1")?, false),
                "h2" => (&checked, tls("good", "h2")?, true),
                other => return Err(format!("`{other}` is no kind of listener").into()),
            };
            let socket = TcpListener::bind(("127.0.0.1", port.parse()?)).await?;
            tokio::task::spawn_local(listen(socket, Rc::clone(origin), tls, http2));
        }
        std::future::pending().await
    })
}
