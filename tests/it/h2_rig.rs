//! What the tests of HTTP/2 share: a client that speaks it well, and one that writes single frames.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, Response};

/// A good client over a connection of its own.
pub(crate) struct Client {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) sender: SendRequest<Bytes>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Client {
    pub(crate) fn to(address: SocketAddr) -> Self {
        Self::with(address, h2::client::Builder::new())
    }

    pub(crate) fn with(address: SocketAddr, builder: h2::client::Builder) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let sender = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.expect("connected");
            stream.set_nodelay(true).expect("nodelay");
            let (sender, connection) = builder.handshake(stream).await.expect("a handshake");
            tokio::runtime::Handle::current().spawn(connection);
            sender
        });
        Self { runtime, sender }
    }

    /// Sends a request with a body in one piece and takes the whole answer.
    pub(crate) fn send(&self, request: Request<()>, body: &str) -> Result<Answer, h2::Error> {
        let (sender, body) = (self.sender.clone(), Bytes::copy_from_slice(body.as_bytes()));
        self.runtime.block_on(async move {
            let mut sender = sender.ready().await?;
            let (answer, mut stream) = sender.send_request(request, body.is_empty())?;
            if !body.is_empty() {
                stream.send_data(body, true)?;
            }
            whole(answer.await?).await
        })
    }

    /// `GET path` of `localhost` with these fields.
    pub(crate) fn get(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.send(request(Method::GET, path, fields), "").expect("an answer")
    }
}

/// Takes the rest of an answer.
pub(crate) async fn whole(answer: Response<h2::RecvStream>) -> Result<Answer, h2::Error> {
    let (head, mut stream) = answer.into_parts();
    let mut body = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        stream.flow_control().release_capacity(piece.len())?;
        body.extend(piece);
    }
    let trailers = stream.trailers().await?;
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, trailers })
}

/// A request to `localhost`.
pub(crate) fn request(method: Method, path: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(["http://localhost", path].concat());
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request")
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// The last part of the problem's type.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.field("content-type"), Some("application/problem+json"), "{self:?}");
        let document: serde_json::Value = serde_json::from_slice(&self.body).expect("JSON");
        let kind = document["type"].as_str().expect("a type");
        kind.strip_prefix("urn:bearward:problem:").expect("ours").to_owned()
    }
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error code of a RST_STREAM or GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block without compression.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            let mut length = text.len();
            if length < 127 {
                bytes.push(u8::try_from(length).expect("short"));
            } else {
                bytes.push(127);
                length -= 127;
                while length >= 128 {
                    bytes.push(u8::try_from(length % 128).expect("seven bits") | 128);
                    length /= 128;
                }
                bytes.push(u8::try_from(length).expect("seven bits"));
            }
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// The fields of a plain `GET`.
pub(crate) fn plain<'a>(method: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![(":method", method), (":scheme", "http"), (":authority", "localhost"), (":path", path)]
}

/// The next frame; `None` at the end of the connection.
pub(crate) fn read_frame(stream: &mut TcpStream) -> Option<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).expect("fits")];
    stream.read_exact(&mut payload).ok()?;
    let number = u32::from_be_bytes(head[5..].try_into().expect("four bytes")) & 0x7fff_ffff;
    Some(Frame { kind: head[3], flags: head[4], stream: number, payload })
}

/// A connection on which single frames are written.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    /// With preface and SETTINGS of these pairs.
    pub(crate) fn to(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(address).expect("connected");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
        let mut raw = Self(stream);
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend(id.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        let opening = [PREFACE, &frame(SETTINGS, 0, 0, &payload)].concat();
        raw.write(&opening).expect("written");
        raw
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes)
    }

    pub(crate) fn headers(&mut self, stream: u32, flags: u8, fields: &[(&str, &str)]) {
        let bytes = frame(HEADERS, flags | END_HEADERS, stream, &block(fields));
        self.write(&bytes).expect("written");
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) fn read(&mut self) -> Option<Frame> {
        read_frame(&mut self.0)
    }

    /// The next frame of this kind.
    pub(crate) fn next(&mut self, kind: u8) -> Option<Frame> {
        std::iter::from_fn(|| self.read()).find(|frame| frame.kind == kind)
    }
}
