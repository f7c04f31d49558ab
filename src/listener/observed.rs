//! The byte stream of a client that speaks HTTP/1.1, as hyper sees it.
//!
//! Owns: what hyper does not tell of it: when bytes come, which message they belong to, that a client has said all and still
//! listens, and that hyper answers a head by itself. Then our own answer goes out in its place.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::boundary::Boundary;
use super::detect;
use super::stream::ClientStream;
use crate::proxy::{BadHead, Client, Site, refuse_head};

/// Up to which length an answer is put together before it is written.
const PUT_TOGETHER: usize = 2 * 1024;

/// A client's stream.
pub(super) struct Observed {
    pub(super) stream: ClientStream,
    /// Was read before its turn.
    pub(super) read: Bytes,
    boundary: Boundary,
    client: Rc<Client>,
    site: Rc<Site>,
    /// How many requests were begun when all answers had left: what hyper writes before there are more answers a head.
    settled: u32,
    /// What is left of our own answer in the place of hyper's.
    own: Bytes,
}

impl Observed {
    pub(super) fn new(stream: ClientStream, read: Bytes, client: Rc<Client>, site: Rc<Site>) -> Self {
        Self { stream, read, boundary: Boundary::default(), client, site, settled: 0, own: Bytes::new() }
    }

    /// What lies behind `end` belongs to the next message and waits for its turn.
    #[cold]
    fn give_back(&mut self, buf: &mut ReadBuf<'_>, end: usize) {
        let early = &buf.filled()[end..];
        self.read = if self.read.is_empty() {
            Bytes::copy_from_slice(early)
        } else {
            [early, &self.read].concat().into()
        };
        buf.set_filled(end);
    }

    /// The client sends nothing more. One that has a whole request under way may still wait for its answer.
    #[cold]
    fn ended(&self) -> Poll<io::Result<()>> {
        if self.boundary.heads() != self.settled && self.boundary.is_between() && self.read.is_empty() {
            self.client.has_left();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// hyper refuses the head that it reads, by itself: we tell the client why.
    #[cold]
    fn replace(&mut self, cx: &mut Context<'_>, answer: &[u8]) -> Poll<io::Result<usize>> {
        // It is told once: what may follow is not the beginning of an answer.
        self.settled = self.settled.wrapping_sub(1);
        let reason = match answer.get(9..12) {
            Some(b"414") => BadHead::TargetTooLong,
            Some(b"431") if self.boundary.is_in_target() => BadHead::TargetTooLong,
            Some(b"431") => BadHead::TooLarge,
            _ => BadHead::Malformed,
        };
        self.own = refuse_head(&self.site, &self.client, reason, date_of(answer));
        if let Poll::Ready(Err(error)) = self.poll_own(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(answer.len()))
    }

    fn poll_own(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.own.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.own)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(written) => self.own.advance(written),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Says that the first head did not come in time: once, without waiting for a client that does not read.
    pub(super) fn tell_late(mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        self.own = refuse_head(&self.site, &self.client, BadHead::Late, &[]);
        let _ = self.poll_own(&mut cx);
        let _ = Pin::new(&mut self.stream).poll_flush(&mut cx);
        let _ = Pin::new(&mut self.stream).poll_shutdown(&mut cx);
    }
}

impl AsyncRead for Observed {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let outcome = if this.read.is_empty() {
            Pin::new(&mut this.stream).poll_read(cx, buf)
        } else {
            detect::hand_over(&mut this.read, buf);
            Poll::Ready(Ok(()))
        };
        if buf.filled().len() > before {
            this.client.bytes_arrived();
            let taken = this.boundary.judge(&buf.filled()[before..], &this.client)?;
            if before + taken < buf.filled().len() {
                this.give_back(buf, before + taken);
            }
        } else if matches!(outcome, Poll::Ready(Ok(()))) && buf.remaining() > 0 {
            return this.ended();
        }
        outcome
    }
}

impl AsyncWrite for Observed {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.settled == this.client.heads() {
            return this.replace(cx, buf);
        }
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    /// One system call for one buffer costs less than for several: short answers are put together, long ones are written
    /// from where they lie.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.settled == this.client.heads() {
            let whole: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            return this.replace(cx, &whole);
        }
        let stream = Pin::new(&mut this.stream);
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if length > PUT_TOGETHER {
            return stream.poll_write_vectored(cx, slices);
        }
        let mut together = [0; PUT_TOGETHER];
        let mut end = 0;
        for slice in slices {
            together[end..end + slice.len()].copy_from_slice(slice);
            end += slice.len();
        }
        stream.poll_write(cx, &together[..length])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.own.is_empty() {
            ready!(this.poll_own(cx))?;
        }
        ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
        // Flushed with nothing left in hyper, and the end of the answer was handed over before.
        if !this.client.is_served() {
            this.settled = this.client.heads();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_own(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

/// The `Date` that hyper wrote, as a whole line.
fn date_of(answer: &[u8]) -> &[u8] {
    const NAME: &[u8] = b"\r\ndate: ";
    let begin = answer.windows(NAME.len()).position(|window| window == NAME).map(|at| at + 2);
    let line = begin.map(|begin| &answer[begin..]).unwrap_or_default();
    line.iter().position(|byte| *byte == b'\n').map_or(&[], |end| &line[..=end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_an_answer_is_found() {
        let check = |answer: &str, expected: &str| {
            assert_eq!(date_of(answer.as_bytes()), expected.as_bytes(), "{answer:?}");
        };
        check("HTTP/1.1 400 Bad Request\r\ndate: now\r\n\r\n", "date: now\r\n");
        check("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\ndate: now\r\nx: y\r\n\r\n", "date: now\r\n");
        check("HTTP/1.1 400 Bad Request\r\n\r\n", "");
        check("", "");
    }
}
