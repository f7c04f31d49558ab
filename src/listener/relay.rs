//! Bytes from one side of a tunnel to the other.
//!
//! Owns: the memory that they pass through: one piece for all tunnels of a thread, and of a single tunnel only what the other
//! side has no room for. A tunnel in which nothing moves holds none.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is read at once.
const PIECE: usize = 64 * 1024;
/// What one direction moves before other connections of the thread get their turn.
const TURN: usize = 16 * PIECE;

thread_local! {
    static SPARE: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// The piece of the thread, on loan.
struct Lent(Box<[u8]>);

impl Lent {
    fn take() -> Self {
        Self(SPARE.take().unwrap_or_else(|| vec![0; PIECE].into()))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        SPARE.set(Some(std::mem::take(&mut self.0)));
    }
}

/// One direction of a tunnel.
#[derive(Debug, Default)]
pub(super) struct Direction {
    /// Came, and found no room.
    left: Vec<u8>,
    /// Of `left`, what has gone on since.
    gone: usize,
    stage: Stage,
    /// Something was written since the last flush.
    unflushed: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Open,
    /// The source has said all.
    Ended,
    /// And the other side was told.
    Told,
}

impl Direction {
    /// Moves what there is. Ready when all was moved and the other side has been told of the end; may be asked again then.
    pub(super) fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut moved = 0;
        loop {
            ready!(self.poll_left(cx, to))?;
            match self.stage {
                Stage::Told => return Poll::Ready(Ok(())),
                Stage::Ended => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.stage = Stage::Told;
                }
                Stage::Open if moved >= TURN => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Stage::Open => match self.poll_piece(cx, from, to) {
                    Poll::Ready(length) => moved += length?,
                    Poll::Pending => {
                        if self.unflushed {
                            // What TLS may hold back leaves before the wait.
                            ready!(Pin::new(&mut *to).poll_flush(cx))?;
                            self.unflushed = false;
                        }
                        return Poll::Pending;
                    }
                },
            }
        }
    }

    /// Writes what found no room, and gives its memory back.
    fn poll_left<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Poll<io::Result<()>> {
        while self.gone < self.left.len() {
            let length = ready!(Pin::new(&mut *to).poll_write(cx, &self.left[self.gone..]))?;
            self.gone += written(length)?;
        }
        if !self.left.is_empty() {
            (self.left, self.gone) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and writes as much of it as there is room for.
    fn poll_piece<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<io::Result<usize>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut lent = Lent::take();
        let mut buf = ReadBuf::new(&mut lent.0);
        ready!(Pin::new(from).poll_read(cx, &mut buf))?;
        let piece = buf.filled();
        if piece.is_empty() {
            self.stage = Stage::Ended;
            return Poll::Ready(Ok(0));
        }
        self.unflushed = true;
        let mut gone = 0;
        while gone < piece.len() {
            match Pin::new(&mut *to).poll_write(cx, &piece[gone..]) {
                Poll::Ready(length) => gone += written(length?)?,
                Poll::Pending => {
                    self.left = piece[gone..].to_vec();
                    break;
                }
            }
        }
        Poll::Ready(Ok(piece.len()))
    }
}

/// A side that takes nothing takes nothing ever.
fn written(length: usize) -> io::Result<usize> {
    if length == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(length) }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_direction_keeps_what_finds_no_room_and_nothing_else() {
        let (mut source, mut from) = tokio::io::duplex(4 * PIECE);
        let (mut to, mut sink) = tokio::io::duplex(1000);
        let mut direction = Direction::default();
        let sent: Vec<u8> = (0..3 * PIECE + 17).map(|number| number.to_le_bytes()[0]).collect();
        source.write_all(&sent).await.expect("written");
        let mut step =
            async || std::future::poll_fn(|cx| Poll::Ready(direction.poll(cx, &mut from, &mut to))).await;
        assert!(step().await.is_pending());
        let (mut got, mut buffer) = (Vec::new(), [0; 700]);
        while got.len() < sent.len() {
            let length = sink.read(&mut buffer).await.expect("read");
            got.extend_from_slice(&buffer[..length]);
            assert!(step().await.is_pending());
        }
        assert!(got == sent, "{} bytes", got.len());
        assert_eq!(direction.left.capacity(), 0);
        drop(source);
        for _ in 0..2 {
            let ended = std::future::poll_fn(|cx| direction.poll(cx, &mut from, &mut to)).await;
            ended.expect("it ended well");
        }
        assert_eq!(sink.read(&mut buffer).await.expect("the end"), 0);
    }

    #[tokio::test]
    async fn others_get_their_turn() {
        let (mut from, mut to) = (tokio::io::repeat(7), tokio::io::sink());
        let mut direction = Direction::default();
        for _ in 0..3 {
            let turn = std::future::poll_fn(|cx| Poll::Ready(direction.poll(cx, &mut from, &mut to))).await;
            assert!(turn.is_pending());
        }
    }
}
