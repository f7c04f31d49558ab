//! The outbound proxy: `CONNECT` for https, absolute-form for http.
//!
//! Owns: opening a tunnel (RFC 9110, 9.3.6). Reads no byte beyond the head of the answer: what follows is TLS.

use base64::Engine;
use http::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

use super::DialError;
use crate::origin::Origin;

/// The longest head of an answer to CONNECT.
const MAX_HEAD: usize = 16 * 1024;

/// Where the proxy is and how to introduce oneself.
#[derive(Debug, Clone)]
pub(super) struct OutboundProxy {
    pub(super) origin: Origin,
    /// `Basic …`, sensitive.
    pub(super) authorization: Option<HeaderValue>,
}

impl OutboundProxy {
    /// Takes host, port and credentials from `http://[user:password@]host[:port]`.
    pub(super) fn try_new(url: &Url) -> Result<Self, String> {
        let mut bare = url.clone();
        let cleared = bare.set_username("").and_then(|()| bare.set_password(None));
        if url.scheme() != "http" || cleared.is_err() {
            return Err("an outbound proxy is given as http://host:port".to_owned());
        }
        let origin = Origin::of_url(&bare).map_err(|error| error.to_string())?;
        let authorization = (!url.username().is_empty()).then(|| basic(url)).transpose()?;
        Ok(Self { origin, authorization })
    }

    /// Asks the proxy for a tunnel to `target`.
    pub(super) async fn open_tunnel(&self, stream: &mut TcpStream, target: &Origin) -> Result<(), DialError> {
        let authority = [target.host(), ":", &target.port().to_string()].concat();
        let mut head = Vec::with_capacity(256);
        for part in ["CONNECT ", &authority, " HTTP/1.1\r\nHost: ", &authority, "\r\n"] {
            head.extend_from_slice(part.as_bytes());
        }
        if let Some(authorization) = &self.authorization {
            head.extend_from_slice(b"Proxy-Authorization: ");
            head.extend_from_slice(authorization.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        stream.write_all(&head).await?;
        let answer = read_head(stream).await?;
        let opened = answer.starts_with(b"HTTP/1.") && answer.get(8..10) == Some(b" 2");
        if opened { Ok(()) } else { Err(DialError::OutboundProxy) }
    }
}

/// Reads up to the empty line, one byte at a time: a tunnel is opened rarely, and no byte of what follows may
/// be taken.
async fn read_head(stream: &mut TcpStream) -> Result<Vec<u8>, DialError> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD {
            return Err(DialError::OutboundProxy);
        }
        head.push(stream.read_u8().await.map_err(|_| DialError::OutboundProxy)?);
    }
    Ok(head)
}

fn basic(url: &Url) -> Result<HeaderValue, String> {
    let decode = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
    let mut pair = decode(url.username());
    pair.push(b':');
    pair.extend(decode(url.password().unwrap_or_default()));
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
    let mut value =
        HeaderValue::try_from(["Basic ", &encoded].concat()).map_err(|error| error.to_string())?;
    value.set_sensitive(true);
    Ok(value)
}
