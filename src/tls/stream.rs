//! A TLS connection as a stream of bytes.
//!
//! Owns: what of it was read and not yet opened, and what was sealed and not yet sent. What comes is opened where it was read
//! and may be taken without being copied; a connection on which nothing waits holds no memory. An end that the peer did not
//! announce is an error, as is everything behind an error.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use rustls::Error;
use rustls::crypto::cipher::OutboundChunks;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::records::{FRAGMENT, LONGEST, Opened, Records, record_length, whole_record};

/// How much is read at a time: by a connection that did not fill more, and at most.
const LEAST: usize = 20 * 1024;
const MOST: usize = 64 * 1024;
/// Records up to this length are moved behind those before them, so that what came together is one piece.
const MOVED: usize = 2 * 1024;
/// Pieces up to this length are copied, so that they do not hold on to the whole of what was read.
const COPIED: usize = 1024;
/// The most that is sealed at a time.
const MOST_SEALED: usize = 4 * FRAGMENT;
/// How many slices are sealed at a time.
const SLICES: usize = 8;

thread_local! {
    /// What the last connection of this worker read into, while it is still in the cache. Others may still hold parts of it:
    /// then the next one makes another.
    static SPARE: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// A stream whose handshake is done.
#[derive(Debug)]
pub struct TlsStream<S> {
    stream: S,
    records: Records,
    /// Came, and was not yet opened.
    incoming: BytesMut,
    /// Opened, and not yet taken.
    plain: Bytes,
    /// How much is read at a time.
    room: usize,
    stage: Stage,
    /// Records that are still to be sent.
    unsent: VecDeque<Vec<u8>>,
    /// Of the first of them, what was sent.
    sent: usize,
    /// The peer was told that nothing more comes.
    closing: bool,
}

#[derive(Debug, Clone)]
enum Stage {
    Open,
    /// The peer has said all.
    Ended,
    Failed(Error),
}

/// What of `incoming` is in the clear, and where what follows it begins.
#[derive(Debug)]
struct Found {
    start: usize,
    end: usize,
    behind: usize,
}

impl<S> TlsStream<S> {
    /// Of a handshake. `incoming`: what came behind it; `plain`: what of it was opened; `ended`: nothing more comes.
    pub(super) fn new(stream: S, records: Records, incoming: BytesMut, plain: Bytes, ended: bool) -> Self {
        let stage = if ended { Stage::Ended } else { Stage::Open };
        let (unsent, sent) = (VecDeque::new(), 0);
        Self { stream, records, incoming, plain, room: LEAST, stage, unsent, sent, closing: false }
    }

    /// Opens the records that are there, as far as they make one piece.
    fn open(&mut self) -> Option<Found> {
        let mut found = Found { start: 0, end: 0, behind: 0 };
        while matches!(self.stage, Stage::Open) {
            let rest = &mut self.incoming[found.behind..];
            let opened = match whole_record(rest) {
                Ok(None) => break,
                // It makes a piece of its own.
                Ok(Some(length)) if found.end > 0 && length > MOVED => break,
                Ok(Some(length)) => self.records.open(&mut rest[..length]).map(|opened| (opened, length)),
                Err(error) => Err(error),
            };
            match opened {
                Ok((Opened::Data(range), length)) => {
                    let range = found.behind + range.start..found.behind + range.end;
                    if found.end == 0 {
                        (found.start, found.end) = (range.start, range.end);
                    } else {
                        let added = range.len();
                        self.incoming.copy_within(range, found.end);
                        found.end += added;
                    }
                    found.behind += length;
                }
                Ok((Opened::Message, length)) => found.behind += length,
                Ok((Opened::End, _)) => self.stage = Stage::Ended,
                Err(error) => self.fail(error),
            }
        }
        if !matches!(self.stage, Stage::Open) {
            // What follows an end is of nobody.
            self.incoming.truncate(found.behind);
        }
        if found.end > 0 {
            return Some(found);
        }
        self.discard(found.behind);
        None
    }

    fn fail(&mut self, error: Error) {
        if !self.closing {
            self.unsent.extend(self.records.seal_failure(&error));
        }
        self.closing = true;
        self.stage = Stage::Failed(error);
    }

    /// Drops what was read up to here. Memory in which nothing waits is the next connection's.
    fn discard(&mut self, length: usize) {
        self.incoming.advance(length);
        if self.incoming.is_empty() {
            keep(std::mem::take(&mut self.incoming));
        }
    }

    /// Takes what was found out of what was read.
    fn cut(&mut self, found: &Found) -> Bytes {
        let data = &self.incoming[found.start..found.end];
        if data.len() <= COPIED {
            let data = Bytes::copy_from_slice(data);
            self.discard(found.behind);
            return data;
        }
        let mut data = self.incoming.split_to(found.end);
        data.advance(found.start);
        self.discard(found.behind - found.end);
        data.freeze()
    }
}

impl<S> TlsStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Takes what came next, in the memory that it was read into. Empty: the peer has said all.
    pub fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if !self.plain.is_empty() {
            return Poll::Ready(Ok(std::mem::take(&mut self.plain)));
        }
        Poll::Ready(match ready!(self.poll_found(cx))? {
            Some(found) => Ok(self.cut(&found)),
            None => Ok(Bytes::new()),
        })
    }

    /// Waits for what comes next. `None`: the peer has said all.
    fn poll_found(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Found>>> {
        loop {
            let found = self.open();
            self.answer(cx);
            if let Some(found) = found {
                return Poll::Ready(Ok(Some(found)));
            }
            match &self.stage {
                Stage::Open => {}
                Stage::Ended => return Poll::Ready(Ok(None)),
                Stage::Failed(error) => return Poll::Ready(Err(invalid(error.clone()))),
            }
            if ready!(self.poll_receive(cx))? == 0 {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the peer closed the connection without a close_notify",
                )));
            }
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buffer = std::mem::take(&mut self.incoming);
        if buffer.is_empty() {
            buffer = empty(self.room);
        } else {
            let length = record_length(&buffer).ok().flatten().unwrap_or(LONGEST);
            buffer.reserve(length.max(self.room) - buffer.len());
        }
        let room = buffer.capacity() - buffer.len();
        let outcome = pin!(self.stream.read_buf(&mut buffer)).poll(cx);
        if buffer.is_empty() {
            keep(buffer);
        } else {
            self.incoming = buffer;
        }
        if let Poll::Ready(Ok(count)) = outcome {
            if count >= room {
                self.room = (self.room * 2).min(MOST);
            } else if count < self.room / 4 {
                self.room = (self.room / 2).max(LEAST);
            }
        }
        outcome
    }

    /// Sends what the peer is owed, as far as there is room for it.
    fn answer(&mut self, cx: &mut Context<'_>) {
        // One that does not read is owed no more than one answer.
        if self.unsent.is_empty() && !self.closing {
            match self.records.settle() {
                Ok(record) => self.unsent.extend(record),
                Err(error) => self.fail(error),
            }
        }
        if !self.unsent.is_empty() {
            // An error shows where something is written.
            let _ = self.poll_out(cx);
        }
    }

    fn poll_seal(&mut self, cx: &mut Context<'_>, data: &OutboundChunks<'_>) -> Poll<io::Result<usize>> {
        if let Stage::Failed(error) = &self.stage {
            return Poll::Ready(Err(invalid(error.clone())));
        }
        if self.closing {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        // What was taken before leaves first.
        ready!(self.poll_out(cx))?;
        let (mut rest, behind) = data.split_at(MOST_SEALED);
        while !rest.is_empty() {
            let (fragment, after) = rest.split_at(FRAGMENT);
            let record = match self.records.settle() {
                Ok(owed) => {
                    self.unsent.extend(owed);
                    self.records.seal(fragment)
                }
                Err(error) => Err(error),
            };
            match record {
                Ok(record) => self.unsent.push_back(record),
                Err(error) => {
                    self.fail(error.clone());
                    return Poll::Ready(Err(invalid(error)));
                }
            }
            rest = after;
        }
        if let Poll::Ready(Err(error)) = self.poll_out(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(data.len() - behind.len()))
    }

    /// Sends what was sealed.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(first) = self.unsent.front() {
            let count = if self.unsent.len() == 1 {
                ready!(Pin::new(&mut self.stream).poll_write(cx, &first[self.sent..]))?
            } else {
                let mut slices = [io::IoSlice::new(&[]); SLICES];
                let filled = slices
                    .iter_mut()
                    .zip(&self.unsent)
                    .map(|(slice, record)| *slice = io::IoSlice::new(record));
                let filled = filled.count();
                slices[0].advance(self.sent);
                ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..filled]))?
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
            while let Some(first) = self.unsent.front()
                && self.sent >= first.len()
            {
                self.sent -= first.len();
                self.unsent.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Empty memory with room for so much.
fn empty(room: usize) -> BytesMut {
    let mut buffer = SPARE.take();
    if buffer.try_reclaim(room) { buffer } else { BytesMut::with_capacity(room) }
}

/// Keeps memory in which nothing waits. What is larger is given back to the system.
fn keep(buffer: BytesMut) {
    if buffer.capacity() <= 2 * MOST {
        SPARE.set(buffer);
    }
}

pub(super) fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<S> AsyncRead for TlsStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if this.plain.is_empty() {
            let Some(found) = ready!(this.poll_found(cx))? else { return Poll::Ready(Ok(())) };
            if found.end - found.start <= buf.remaining() {
                buf.put_slice(&this.incoming[found.start..found.end]);
                this.discard(found.behind);
                return Poll::Ready(Ok(()));
            }
            this.plain = this.cut(&found);
        }
        let length = this.plain.len().min(buf.remaining());
        buf.put_slice(&this.plain[..length]);
        this.plain.advance(length);
        if this.plain.is_empty() {
            // It would hold on to what it was read into.
            this.plain = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S> AsyncWrite for TlsStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_seal(cx, &OutboundChunks::Single(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut parts = [&[][..]; SLICES];
        let filled = bufs.iter().filter(|buf| !buf.is_empty());
        let count = filled.zip(&mut parts).map(|(buf, part)| *part = buf).count();
        self.get_mut().poll_seal(cx, &OutboundChunks::new(&parts[..count]))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closing {
            this.closing = true;
            this.unsent.extend(this.records.seal_end().ok());
        }
        ready!(this.poll_out(cx))?;
        match ready!(Pin::new(&mut this.stream).poll_shutdown(cx)) {
            // It is as good as closed.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            outcome => Poll::Ready(outcome),
        }
    }
}

#[cfg(test)]
mod tests;
