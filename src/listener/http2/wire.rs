//! The byte stream of a client that speaks HTTP/2.
//!
//! Owns: handing on what was read before the protocol was known.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::census::Census;
use crate::listener::detect;
use crate::listener::stream::ClientStream;

/// A client's stream.
#[derive(Debug)]
pub(super) struct Wire {
    stream: ClientStream,
    /// Was read already.
    read: Bytes,
    census: Census,
    flooded: Rc<Cell<bool>>,
}

impl Wire {
    /// `flooded` is set when too much has come of what costs the client nothing; then no more is read.
    pub(super) fn new(stream: ClientStream, read: Bytes, flooded: Rc<Cell<bool>>) -> Self {
        Self { stream, read, census: Census::new(), flooded }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.flooded.get() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let outcome = if this.read.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))
        } else {
            detect::hand_over(&mut this.read, buf);
            Ok(())
        };
        if this.census.flooded_by(&buf.filled()[before..]) {
            this.flooded.set(true);
            // The connection is told to end; it writes why.
            buf.set_filled(before);
            return Poll::Pending;
        }
        Poll::Ready(outcome)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
