//! What of a message is still to be written.
//!
//! Owns: what is copied and what is written from where it lies, and that the head leaves with the first pieces of the body.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::body::Body;
use tokio::io::AsyncWrite;

use super::{Http1Error, Writing, spare};

/// What of a message is still to be written.
#[derive(Debug)]
pub struct Outgoing<B> {
    /// Heads, frames, short pieces.
    bytes: Vec<u8>,
    written: usize,
    /// A long piece behind them, and what closes it.
    piece: Bytes,
    close: &'static [u8],
    body: Option<B>,
    framing: Writing,
    flushed: bool,
    /// Pieces up to this length are copied behind what waits to be written; longer ones are written from where they lie.
    copied: usize,
}

impl<B> Outgoing<B> {
    /// Nothing. Pieces up to the length `copied` will be copied.
    pub fn new(copied: usize) -> Self {
        Self {
            bytes: Vec::new(),
            written: 0,
            piece: Bytes::new(),
            close: b"",
            body: None,
            framing: Writing::Done,
            flushed: true,
            copied,
        }
    }

    /// Begins a message whose head `head` writes. `body`: where there is one.
    pub fn begin(
        &mut self,
        body: Option<B>,
        head: impl FnOnce(&mut Vec<u8>) -> Result<Writing, Http1Error>,
    ) -> Result<(), Http1Error> {
        if self.bytes.is_empty() {
            self.bytes = spare::take_bytes();
        }
        self.framing = head(&mut self.bytes)?;
        match body {
            Some(body) if !matches!(self.framing, Writing::Done) => self.body = Some(body),
            // Its head says that there is none.
            Some(_) => {}
            None => self.framing.end(None, &mut self.bytes)?,
        }
        Ok(())
    }

    /// Nothing more of the body is written: what was framed so far is the end.
    pub fn break_off(&mut self) {
        self.body = None;
        if !self.ends_with_connection() {
            self.framing = Writing::Done;
        }
    }

    /// Whether the end of the connection would be taken for that of the message, which is not whole.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.framing, Writing::ToTheEnd)
    }

    /// Whether the message was written whole.
    pub fn is_done(&self) -> bool {
        self.body.is_none() && self.is_empty() && self.flushed
    }

    fn is_empty(&self) -> bool {
        self.written == self.bytes.len() && self.piece.is_empty()
    }
}

impl<B> Outgoing<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Writes as much as can be written now. Ready: the message is written whole.
    pub fn poll<T>(&mut self, cx: &mut Context<'_>, stream: &mut T) -> Poll<Result<(), Http1Error>>
    where
        T: AsyncWrite + Unpin,
    {
        loop {
            // Short pieces of a body go out with the head.
            while self.piece.is_empty()
                && self.bytes.len() - self.written < self.copied
                && self.body.is_some()
            {
                match self.poll_body(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => break,
                }
            }
            if self.is_empty() {
                if !self.flushed {
                    ready!(Pin::new(&mut *stream).poll_flush(cx))?;
                    self.flushed = true;
                }
                // Here the body was asked, and has nothing.
                return if self.body.is_none() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            ready!(self.poll_out(cx, stream))?;
        }
    }

    /// Takes the next piece of the body.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Http1Error>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
        let frame = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => return Poll::Ready(Err(Http1Error::Body)),
            None => {
                self.body = None;
                return Poll::Ready(self.framing.end(None, &mut self.bytes));
            }
        };
        let ended = body.is_end_stream();
        match frame.into_data() {
            Ok(piece) if !piece.is_empty() => {
                let close = self.framing.frame(&piece, &mut self.bytes)?;
                if piece.len() <= self.copied {
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
        // The end goes out with the last piece. Behind a long one there may be nothing to be written.
        if ended && (self.piece.is_empty() || matches!(self.framing, Writing::Done)) {
            self.body = None;
            return Poll::Ready(self.framing.end(None, &mut self.bytes));
        }
        Poll::Ready(Ok(()))
    }

    /// Writes a part of what waits.
    fn poll_out<T>(&mut self, cx: &mut Context<'_>, stream: &mut T) -> Poll<io::Result<()>>
    where
        T: AsyncWrite + Unpin,
    {
        let bytes = &self.bytes[self.written..];
        let count = if self.piece.is_empty() {
            ready!(Pin::new(stream).poll_write(cx, bytes))?
        } else {
            let slices = [io::IoSlice::new(bytes), io::IoSlice::new(&self.piece)];
            let first = usize::from(bytes.is_empty());
            ready!(Pin::new(stream).poll_write_vectored(cx, &slices[first..]))?
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
