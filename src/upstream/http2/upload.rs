//! The body of a request on its way to the upstream.
//!
//! Owns: flow control: a piece is asked for when there is room for it.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, SendStream};
use hyper::body::Body;

/// A body that is being sent.
#[derive(Debug)]
pub(super) struct Upload<B> {
    stream: SendStream<Bytes>,
    body: B,
    /// What the upstream has no room for yet.
    piece: Bytes,
    /// Nothing comes behind `piece`.
    last: bool,
    /// Something of the body was taken.
    begun: bool,
}

/// How an upload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Uploaded {
    /// Sent whole, or the upstream wants no more of it.
    Done,
    /// The body broke off, and the upstream was told so.
    Broken,
}

impl<B> Upload<B>
where
    B: Body<Data = Bytes> + 'static,
{
    pub(super) fn new(stream: SendStream<Bytes>, body: B) -> Self {
        Self { stream, body, piece: Bytes::new(), last: false, begun: false }
    }

    /// The body, if nothing was taken of it.
    pub(super) fn into_untaken(self) -> Option<B> {
        (!self.begun).then_some(self.body)
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Uploaded>
    where
        B: Unpin,
    {
        loop {
            if self.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Uploaded::Done);
            }
            let turn = if self.piece.is_empty() { self.poll_body(cx) } else { self.poll_room(cx) };
            match turn {
                Poll::Ready(None) => {}
                Poll::Ready(Some(uploaded)) => return Poll::Ready(uploaded),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Uploaded>>
    where
        B: Unpin,
    {
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(None) => return self.send(Bytes::new(), true),
            Poll::Ready(Some(Err(_))) => {
                // Never a clean end.
                self.stream.send_reset(Reason::CANCEL);
                return Poll::Ready(Some(Uploaded::Broken));
            }
            Poll::Pending => return Poll::Pending,
        };
        self.begun = true;
        match frame.into_data() {
            Ok(piece) => {
                self.last = self.body.is_end_stream();
                if piece.is_empty() {
                    return if self.last { self.send(piece, true) } else { Poll::Ready(None) };
                }
                self.piece = piece;
                Poll::Ready(None)
            }
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => {
                    let _ = self.stream.send_trailers(trailers);
                    Poll::Ready(Some(Uploaded::Done))
                }
                Err(_) => Poll::Ready(None),
            },
        }
    }

    /// Sends as much of the piece as the upstream has room for.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Option<Uploaded>> {
        self.stream.reserve_capacity(self.piece.len());
        while self.stream.capacity() == 0 {
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return Poll::Ready(Some(Uploaded::Done)),
                Poll::Pending => return Poll::Pending,
            }
        }
        let length = self.stream.capacity().min(self.piece.len());
        let piece = self.piece.split_to(length);
        let last = self.last && self.piece.is_empty();
        self.send(piece, last)
    }

    fn send(&mut self, piece: Bytes, last: bool) -> Poll<Option<Uploaded>> {
        match self.stream.send_data(piece, last) {
            Ok(()) if !last => Poll::Ready(None),
            // Sent whole, or the stream is gone: the answer tells.
            Ok(()) | Err(_) => Poll::Ready(Some(Uploaded::Done)),
        }
    }
}
