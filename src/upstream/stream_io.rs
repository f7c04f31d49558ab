//! A stream of HTTP/2 as a stream of bytes, for what begins with an extended CONNECT (RFC 8441).
//!
//! Owns: flow control in both directions. Dropped before it was shut down it resets the stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that is taken at a time.
const PIECE: usize = 16 * 1024;

/// Both directions of a stream.
#[derive(Debug)]
pub struct StreamIo {
    outgoing: SendStream<Bytes>,
    incoming: RecvStream,
    /// Came and was not read yet.
    read: Bytes,
}

impl StreamIo {
    /// Takes over a stream behind its heads.
    pub fn new(outgoing: SendStream<Bytes>, incoming: RecvStream) -> Self {
        Self { outgoing, incoming, read: Bytes::new() }
    }
}

fn broken(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

impl AsyncRead for StreamIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.read.is_empty() {
            match ready!(this.incoming.poll_data(cx)) {
                Some(Ok(piece)) => {
                    // Fails only where the stream is gone, and then nobody waits for room.
                    let _ = this.incoming.flow_control().release_capacity(piece.len());
                    this.read = piece;
                }
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = this.read.len().min(buf.remaining());
        buf.put_slice(&this.read[..length]);
        this.read.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.outgoing.reserve_capacity(buf.len().min(PIECE));
        while this.outgoing.capacity() == 0 {
            match ready!(this.outgoing.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let length = this.outgoing.capacity().min(buf.len());
        let piece = Bytes::copy_from_slice(&buf[..length]);
        Poll::Ready(this.outgoing.send_data(piece, false).map(|()| length).map_err(broken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's task writes.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().outgoing.send_data(Bytes::new(), true).map_err(broken))
    }
}
