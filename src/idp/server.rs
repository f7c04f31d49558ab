//! Accepting and serving HTTP/1.1, with connections that can break where a test wants it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use crate::shutdown::Shutdown;

/// The body of every answer here.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A body that is known whole.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into()).boxed_unsync()
}

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is dropped on demand")]
pub(super) struct Dropped;

/// The connection that a request came on.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    /// From 1; never reused.
    pub(super) id: u64,
    /// Bytes that may still be written; `usize::MAX`: any number.
    writable: Arc<AtomicUsize>,
}

impl Connection {
    /// Lets `bytes` more bytes out and then breaks the connection.
    pub(super) fn cut_after(&self, bytes: usize) {
        self.writable.store(bytes, Ordering::SeqCst);
    }
}

/// Serves until `shutdown` begins; open connections are then broken off.
pub(super) async fn serve<H, F>(listener: TcpListener, shutdown: Shutdown, handler: H)
where
    H: Fn(Request<Incoming>, Connection) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<Body>, Dropped>> + Send + 'static,
{
    let last_id = AtomicU64::new(0);
    loop {
        let accepted = tokio::select! {
            () = shutdown.begun() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, or a peer that is gone already: the next one may do better.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        let id = last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let connection = Connection { id, writable: Arc::new(AtomicUsize::new(usize::MAX)) };
        shutdown.spawn("idp connection", serve_one(stream, connection, shutdown.clone(), handler.clone()));
    }
}

async fn serve_one<H, F>(stream: TcpStream, connection: Connection, shutdown: Shutdown, handler: H)
where
    H: Fn(Request<Incoming>, Connection) -> F,
    F: Future<Output = Result<Response<Body>, Dropped>>,
{
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(Cuttable { stream, writable: connection.writable.clone() });
    let service = service_fn(|request| handler(request, connection.clone()));
    // The date comes from the server's own clock, which tests set; see `idp::dated`.
    let serving = hyper::server::conn::http1::Builder::new()
        .auto_date_header(false)
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .serve_connection(io, service);
    tokio::select! {
        () = shutdown.begun() => {}
        ended = serving => if let Err(error) = ended {
            tracing::trace!(%error, "idp connection broke");
        },
    }
}

/// A stream that breaks once it has written as much as it may.
#[derive(Debug)]
struct Cuttable {
    stream: TcpStream,
    writable: Arc<AtomicUsize>,
}

impl AsyncRead for Cuttable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let allowed = self.writable.load(Ordering::SeqCst);
        if allowed == usize::MAX {
            return Pin::new(&mut self.stream).poll_write(cx, buf);
        }
        if allowed == 0 {
            return Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()));
        }
        let part = &buf[..buf.len().min(allowed)];
        let written = std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, part))?;
        self.writable.fetch_sub(written, Ordering::SeqCst);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
