//! A connection that has switched protocols: bytes pass both ways until one side breaks off or both have ended.
//!
//! Owns: the idle limit of tunnels and their cutting. Looks at no byte.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::relay::Direction;
use super::serve::{End, Stop, Wish};
use super::timer::Timer;
use crate::proxy::egress::TunnelCount;

/// How a tunnel is watched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watch<'a> {
    /// How long no byte may come from either side.
    pub(super) idle_limit: Duration,
    /// Counts its bytes.
    pub(super) count: Option<&'a TunnelCount>,
}

/// Passes bytes until the tunnel ends; `idle` is how long none may come from either side. Each side brings what was
/// read of it already. A side that has said all is told to the other, which may still speak.
pub(super) async fn run<C, U>(
    client: (C, Bytes),
    upstream: (U, Bytes),
    stop: &Stop,
    timer: &mut Timer,
    idle: Duration,
) -> End
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    run_watched(client, upstream, Watch { idle_limit: idle, count: None }, stop, timer).await
}

/// The same, watched in another way.
pub(super) async fn run_watched<C, U>(
    client: (C, Bytes),
    upstream: (U, Bytes),
    watch: Watch<'_>,
    stop: &Stop,
    timer: &mut Timer,
) -> End
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let moved = Cell::new(Instant::now());
    let from_client = |bytes| watch.count.into_iter().for_each(|count| count.from_client(bytes));
    let to_client = |bytes| watch.count.into_iter().for_each(|count| count.to_client(bytes));
    let mut client = Side { stream: client.0, read: client.1, moved: &moved, count: from_client };
    let mut upstream = Side { stream: upstream.0, read: upstream.1, moved: &moved, count: to_client };
    let (mut up, mut down) = (Direction::default(), Direction::default());
    std::future::poll_fn(|cx| {
        match (up.poll(cx, &mut client, &mut upstream), down.poll(cx, &mut upstream, &mut client)) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(End::Closed),
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => {
                tracing::debug!(%error, "a tunnel broke off");
                return Poll::Ready(End::Closed);
            }
            _ => {}
        }
        if stop.wish() == Wish::Cut {
            return Poll::Ready(End::Cut);
        }
        stop.keep(cx);
        if timer.poll(cx, moved.get() + watch.idle_limit) { Poll::Ready(End::Late) } else { Poll::Pending }
    })
    .await
}

/// One side; notes when bytes come.
struct Side<'a, S, N> {
    stream: S,
    /// Came with the last HTTP message and belongs to what follows it.
    read: Bytes,
    moved: &'a Cell<Instant>,
    /// Is told how many.
    count: N,
}

impl<S: AsyncRead + Unpin, N: Fn(usize) + Unpin> AsyncRead for Side<'_, S, N> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.read.has_remaining() {
            let length = this.read.len().min(buf.remaining());
            buf.put_slice(&this.read.split_to(length));
            (this.count)(length);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let outcome = Pin::new(&mut this.stream).poll_read(cx, buf);
        if outcome.is_ready() {
            (this.count)(buf.filled().len() - before);
            this.moved.set(Instant::now());
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin, N: Unpin> AsyncWrite for Side<'_, S, N> {
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_ends_ten_minutes_after_its_last_byte() {
        let (mut client, near) = tokio::io::duplex(64);
        let (far, mut upstream) = tokio::io::duplex(64);
        let begun = Instant::now();
        let (stop, mut timer) = (Stop::default(), Timer::new());
        let early = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
        let tunnel = run((near, early.0), (far, early.1), &stop, &mut timer, Duration::from_secs(600));
        let talk = async {
            assert_eq!(
                (client.read_u8().await.expect("byte"), upstream.read_u8().await.expect("byte")),
                (b'b', b'a')
            );
            tokio::time::sleep(Duration::from_secs(500)).await;
            upstream.write_u8(b'c').await.expect("written");
            assert_eq!(client.read_u8().await.expect("byte"), b'c');
        };
        let (end, ()) = tokio::join!(tunnel, talk);
        assert_eq!((end, begun.elapsed().as_secs()), (End::Late, 1100));
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_cut_ends_a_tunnel_that_is_to_finish() {
        let (_client, near) = tokio::io::duplex(64);
        let (far, _upstream) = tokio::io::duplex(64);
        let begun = Instant::now();
        let (stop, mut timer) = (Stop::default(), Timer::new());
        let tunnel =
            run((near, Bytes::new()), (far, Bytes::new()), &stop, &mut timer, Duration::from_secs(600));
        let order = async {
            stop.ask(Wish::Finish);
            tokio::time::sleep(Duration::from_secs(30)).await;
            stop.ask(Wish::Cut);
        };
        let (end, ()) = tokio::join!(tunnel, order);
        assert_eq!((end, begun.elapsed().as_secs()), (End::Cut, 30));
    }
}
