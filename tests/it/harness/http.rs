//! A small HTTP/1.1 client on raw sockets, so that what is sent and when is the test's own affair.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A connection that stays open.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    host: SocketAddr,
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.head, String::from_utf8_lossy(&self.body))
    }
}

impl Response {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// One GET on a connection of its own.
pub(crate) async fn get(host: SocketAddr, path: &str) -> io::Result<Response> {
    let work = async { Connection::open(host).await?.get(path).await };
    tokio::time::timeout(Duration::from_secs(60), work).await.map_err(|_| io::ErrorKind::TimedOut)?
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(host: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), host })
    }

    /// A GET and its answer.
    pub(crate) async fn get(&mut self, path: &str) -> io::Result<Response> {
        self.send(path).await?;
        self.receive().await
    }

    /// Sends a GET.
    pub(crate) async fn send(&mut self, path: &str) -> io::Result<()> {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer of-the-client\r\n\r\n",
            self.host
        );
        self.stream.get_mut().write_all(head.as_bytes()).await
    }

    /// Reads one answer.
    pub(crate) async fn receive(&mut self) -> io::Result<Response> {
        let mut head = String::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
        }
        let status =
            head.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let mut response = Response { status, head, body: Vec::new() };
        let chunked = response.header("transfer-encoding").is_some_and(|coding| coding.contains("chunked"));
        response.body = match response.header("content-length").map(str::parse) {
            Some(Ok(length)) => self.exactly(length).await?,
            _ if chunked => self.chunks().await?,
            _ => self.rest().await?,
        };
        Ok(response)
    }

    async fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok(body)
    }

    async fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).await?;
            let length = usize::from_str_radix(line.trim(), 16).map_err(|_| io::ErrorKind::InvalidData)?;
            body.extend(self.exactly(length).await?);
            self.exactly(2).await?;
            if length == 0 {
                return Ok(body);
            }
        }
    }

    async fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        self.stream.read_to_end(&mut body).await?;
        Ok(body)
    }
}
