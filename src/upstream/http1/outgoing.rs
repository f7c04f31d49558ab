//! What of a request is still to be written.
//!
//! Owns: what is copied and what is written from where it lies, and that the head leaves with the first pieces of the body.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::body::Body;
use tokio::io::AsyncWrite;

use super::framing::Writing;
use super::{Http1Error, spare};
use crate::upstream::Transport;

/// Pieces of a request up to this length are copied behind what waits to be written; longer ones are written from where
/// they lie.
pub(super) const COPIED: usize = 8 * 1024;

/// What of a request is still to be written.
#[derive(Debug)]
pub(super) struct Outgoing<B> {
    /// Heads, frames, short pieces.
    pub(super) bytes: Vec<u8>,
    pub(super) written: usize,
    /// A long piece behind them, and what closes it.
    pub(super) piece: Bytes,
    pub(super) close: &'static [u8],
    pub(super) body: Option<B>,
    pub(super) framing: Writing,
    pub(super) flushed: bool,
}

impl<B> Outgoing<B> {
    pub(super) fn is_done(&self) -> bool {
        self.body.is_none() && self.is_empty() && self.flushed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.written == self.bytes.len() && self.piece.is_empty()
    }
}

impl<B> Outgoing<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Takes the next piece of the body.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Http1Error>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
        let frame = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => return Poll::Ready(Err(Http1Error::Request)),
            None => {
                self.body = None;
                return Poll::Ready(self.framing.end(None, &mut self.bytes));
            }
        };
        let ended = body.is_end_stream();
        match frame.into_data() {
            Ok(piece) if !piece.is_empty() => {
                let close = self.framing.frame(&piece, &mut self.bytes)?;
                if piece.len() <= COPIED {
                    self.bytes.extend_from_slice(&piece);
                    self.bytes.extend_from_slice(close);
                } else {
                    (self.piece, self.close) = (piece, close);
                }
            }
            Ok(_) => {}
            Err(frame) => {
                self.body = None;
                let trailers = frame.into_trailers().ok();
                return Poll::Ready(self.framing.end(trailers.as_ref(), &mut self.bytes));
            }
        }
        // The end goes out with the last piece. A long one has to be written first.
        if ended && self.piece.is_empty() {
            self.body = None;
            return Poll::Ready(self.framing.end(None, &mut self.bytes));
        }
        Poll::Ready(Ok(()))
    }

    /// Writes a part of what waits.
    pub(super) fn poll_out(
        &mut self,
        cx: &mut Context<'_>,
        transport: &mut Transport,
    ) -> Poll<io::Result<()>> {
        let bytes = &self.bytes[self.written..];
        let count = if self.piece.is_empty() {
            ready!(Pin::new(transport).poll_write(cx, bytes))?
        } else {
            let slices = [io::IoSlice::new(bytes), io::IoSlice::new(&self.piece)];
            let first = usize::from(bytes.is_empty());
            ready!(Pin::new(transport).poll_write_vectored(cx, &slices[first..]))?
        };
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.flushed = false;
        let of_bytes = count.min(bytes.len());
        self.written += of_bytes;
        self.piece.advance(count - of_bytes);
        if self.written == self.bytes.len() {
            self.written = 0;
            if self.body.is_none() && self.piece.is_empty() {
                spare::keep_bytes(std::mem::take(&mut self.bytes));
            } else {
                self.bytes.clear();
            }
            if self.piece.is_empty() {
                self.bytes.extend_from_slice(std::mem::take(&mut self.close));
            }
        }
        Poll::Ready(Ok(()))
    }
}
