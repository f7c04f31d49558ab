//! Connections that are intercepted: a TLS handshake inside a tunnel, then HTTP as on any connection.
//!
//! Owns: the handshake with the client and its time limit. What may be asked inside is `proxy`'s to say.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::Limits;
use super::http2::Side;
use super::serve::{End, Stop, Wish, serve};
use super::stream::{ClientStream, Protocol};
use super::timer::Timer;
use crate::proxy::egress::Intercept;
use crate::proxy::{Link, Site};

/// A TLS record of the largest size, with its header.
const READ_AHEAD: usize = 18 * 1024;

/// What a client was told to speak TLS through.
#[derive(Debug)]
pub(super) enum Way {
    /// Its whole connection, and what was read of it already.
    Connection(ClientStream, Bytes),
    /// A stream of it.
    Stream(Side),
}

/// Serves what is inside to its end. `outside`: the connection that the tunnel is part of.
pub(super) async fn run(
    way: Way,
    intercept: Intercept,
    outside: &Link,
    site: Rc<Site>,
    limits: &Limits,
    stop: Rc<Stop>,
) -> End {
    let Intercept { leaf, mut inside, .. } = intercept;
    let mut timer = Timer::new();
    let limit = Instant::now() + limits.tls_handshake_timeout;
    let way = BufReader::with_capacity(READ_AHEAD, way);
    let mut handshake = TlsAcceptor::from(leaf.server).accept(way);
    let greeted = std::future::poll_fn(|cx| {
        if let Poll::Ready(outcome) = Pin::new(&mut handshake).poll(cx) {
            return Poll::Ready(outcome.map_err(|error| {
                site.egress.iter().for_each(|egress| egress.tell_broken_off(&inside, &error));
                End::Closed
            }));
        }
        match stop.wish() {
            Wish::Cut => return Poll::Ready(Err(End::Cut)),
            Wish::Finish | Wish::Serve => stop.keep(cx),
        }
        if timer.poll(cx, limit) { Poll::Ready(Err(End::Late)) } else { Poll::Pending }
    });
    let stream = match greeted.await {
        Ok(stream) => stream,
        Err(end) => return end,
    };
    let session = stream.get_ref().1;
    inside.named(session.server_name());
    let protocol = match session.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    };
    let link = Rc::new(Link::inside(outside, inside));
    let stream = ClientStream::Inside(Box::new(stream));
    // Typed: what is served inside may not be intercepted again, but the compiler cannot know.
    let served: Pin<Box<dyn Future<Output = End>>> =
        Box::pin(serve(stream, protocol, link, site, limits, stop));
    served.await
}

impl AsyncRead for Way {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(_, read) if read.has_remaining() => {
                let length = read.len().min(buf.remaining());
                buf.put_slice(&read.split_to(length));
                Poll::Ready(Ok(()))
            }
            Self::Connection(stream, _) => Pin::new(stream).poll_read(cx, buf),
            Self::Stream(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Way {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Connection(stream, _) => Pin::new(stream).poll_write(cx, buf),
            Self::Stream(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(stream, _) => Pin::new(stream).poll_flush(cx),
            Self::Stream(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Self::Stream(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
