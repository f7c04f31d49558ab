//! CONNECT over HTTP/2 (RFC 9113, 8.5): one stream as the client's side of a tunnel.
//!
//! Owns: the stream as bytes. END_STREAM is the end of what one side says; RST_STREAM ends both.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::Response;
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::listener::Limits;
use crate::listener::intercept::{self, Way};
use crate::listener::serve::{End, Stop};
use crate::listener::timer::Timer;
use crate::listener::tunnel::{self, Watch};
use crate::proxy::egress::{Intercept, Tunnel};
use crate::proxy::{Client, ClientBody, Site};

/// Confirms a tunnel and copies until it ends.
pub(super) async fn run(
    client: &Rc<Client>,
    head: Response<()>,
    mut respond: SendResponse<Bytes>,
    tunnel: Tunnel,
) {
    let Tunnel { stream, incoming, idle_limit, count } = tunnel;
    let Ok(outgoing) = respond.send_response(head, false) else { return };
    let near = Side { incoming, early: Bytes::new(), outgoing, ended: false };
    let (stop, mut timer) = (Stop::default(), Timer::new());
    let watch = Watch { idle_limit, count: Some(&count) };
    let copy = tunnel::run_watched((near, Bytes::new()), (stream, Bytes::new()), watch, &stop, &mut timer);
    let mut copy = std::pin::pin!(copy);
    std::future::poll_fn(|cx| {
        client.keep(cx.waker());
        if client.is_cut() {
            return Poll::Ready(End::Cut);
        }
        copy.as_mut().poll(cx)
    })
    .await;
}

/// Confirms a tunnel, and speaks TLS and HTTP with the client on it.
pub(super) async fn intercept(
    client: &Rc<Client>,
    head: Response<()>,
    mut respond: SendResponse<Bytes>,
    mut intercept: Intercept,
    (site, limits): (Rc<Site>, Limits),
) {
    let Ok(outgoing) = respond.send_response(head, false) else { return };
    let incoming = std::mem::replace(&mut intercept.incoming, ClientBody::Empty);
    let side = Side { incoming, early: Bytes::new(), outgoing, ended: false };
    let stop = Rc::<Stop>::default();
    let serving =
        intercept::run(Way::Stream(side), intercept, client.link(), site, &limits, Rc::clone(&stop));
    let mut serving = std::pin::pin!(serving);
    std::future::poll_fn(|cx| {
        client.keep(cx.waker());
        if client.is_cut() {
            return Poll::Ready(End::Cut);
        }
        serving.as_mut().poll(cx)
    })
    .await;
}

/// The client's side.
#[derive(Debug)]
pub(in crate::listener) struct Side {
    incoming: ClientBody,
    /// Came, and found no room.
    early: Bytes,
    outgoing: SendStream<Bytes>,
    /// All was said.
    ended: bool,
}

impl Drop for Side {
    fn drop(&mut self) {
        if !self.ended {
            // RFC 9113, 8.5: a connection that broke off is told as CONNECT_ERROR.
            self.outgoing.send_reset(Reason::CONNECT_ERROR);
        }
    }
}

impl AsyncRead for Side {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.early.is_empty() {
            match ready!(Pin::new(&mut this.incoming).poll_frame(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(frame)) => this.early = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let length = this.early.len().min(buf.remaining());
        buf.put_slice(&this.early.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Side {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.outgoing.reserve_capacity(bytes.len());
        while this.outgoing.capacity() == 0 {
            match ready!(this.outgoing.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let length = this.outgoing.capacity().min(bytes.len());
        let piece = Bytes::copy_from_slice(&bytes[..length]);
        this.outgoing.send_data(piece, false).map_err(io::Error::other)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ended {
            this.outgoing.send_data(Bytes::new(), true).map_err(io::Error::other)?;
            this.ended = true;
        }
        Poll::Ready(Ok(()))
    }
}
