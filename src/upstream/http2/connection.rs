//! One connection: its handshake, its task, the places on it, and whether the other side is still there.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, SendStream};
use http::Request;
use http::uri::Authority;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::upstream::{DialError, Transport};

/// Streams at once, if the upstream allows as many.
const MAX_STREAMS: usize = 100;
/// What an upstream may send of one body before the client takes it.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// The same of all bodies: as much as all streams together, so that clients that do not read hold up nobody else.
const CONNECTION_WINDOW: u32 = 100 * STREAM_WINDOW;
/// What is kept of one request body that the upstream has no room for.
const SEND_BUFFER: usize = 64 * 1024;
/// The longest head of an answer.
const HEADER_BYTES: u32 = 64 * 1024;
/// How long a connection with open streams may be silent before it is asked for a sign, and how long that may take.
const SILENCE: Duration = Duration::from_secs(20);
const PONG_LIMIT: Duration = Duration::from_secs(10);
/// What asks more often without need is taken for an attack by some servers.
const RARE: Duration = Duration::from_secs(300);
/// No upstream says so: its number has 32 bits.
const NOT_TOLD: usize = usize::MAX - 1;

/// A connection.
#[derive(Debug)]
pub(in crate::upstream) struct Connection {
    sender: RefCell<SendRequest<Bytes>>,
    secure: bool,
    /// The authority of the last request: it rarely changes.
    authority: RefCell<Option<Authority>>,
    streams: Cell<usize>,
    served: Cell<bool>,
    /// Takes no more requests.
    retired: Cell<bool>,
    ended: Rc<Cell<bool>>,
    opened: Instant,
    /// When the number of streams last changed.
    changed: Cell<Instant>,
    heard: Rc<Cell<bool>>,
    pulse: RefCell<Pulse>,
    task: AbortHandle,
}

/// Room for one stream.
#[derive(Debug)]
pub struct Place(Rc<Connection>);

/// Asks a silent upstream for a sign. Looked at by the pool's sweep, so that it needs no timer.
#[derive(Debug)]
struct Pulse {
    pings: Option<PingPong>,
    last_heard: Instant,
    asked: Option<Instant>,
    /// Not to be asked before.
    not_before: Instant,
}

impl Connection {
    /// Speaks first, and waits for the upstream's SETTINGS: they tell how many streams it takes, and that it speaks
    /// HTTP/2 at all. The caller sets the deadline.
    pub(in crate::upstream) async fn open(transport: Transport) -> Result<Rc<Self>, DialError> {
        let secure = matches!(transport, Transport::Tls(_));
        let heard = Rc::new(Cell::new(false));
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(HEADER_BYTES)
            .initial_max_send_streams(NOT_TOLD);
        let wire = Wire { transport, heard: Rc::clone(&heard) };
        let (sender, mut driver) = builder.handshake(wire).await.map_err(|error| not_spoken(&error))?;
        std::future::poll_fn(|cx| match Pin::new(&mut driver).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Err(DialError::NotHttp2)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(not_spoken(&error))),
            Poll::Pending if sender.current_max_send_streams() != NOT_TOLD => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        let now = Instant::now();
        let pings = driver.ping_pong();
        let ended = Rc::new(Cell::new(false));
        let over = Rc::clone(&ended);
        let task = tokio::task::spawn_local(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "an upstream connection broke off");
            }
            over.set(true);
        });
        Ok(Rc::new(Self {
            sender: RefCell::new(sender),
            secure,
            authority: RefCell::new(None),
            streams: Cell::new(0),
            served: Cell::new(false),
            retired: Cell::new(false),
            ended,
            opened: now,
            changed: Cell::new(now),
            heard,
            pulse: RefCell::new(Pulse { pings, last_heard: now, asked: None, not_before: now }),
            task: task.abort_handle(),
        }))
    }

    /// Whether one more stream can be opened now.
    pub(super) fn has_room(&self) -> bool {
        if self.retired.get() || self.ended.get() {
            return false;
        }
        let streams = self.streams.get();
        if streams >= MAX_STREAMS {
            return false;
        }
        let mut sender = self.sender.borrow_mut();
        let cx = &mut Context::from_waker(Waker::noop());
        // An error: it is going away.
        streams < sender.current_max_send_streams() && !matches!(sender.poll_ready(cx), Poll::Ready(Err(_)))
    }

    pub(super) fn place(self: &Rc<Self>, now: Instant) -> Place {
        self.streams.set(self.streams.get() + 1);
        self.changed.set(now);
        Place(Rc::clone(self))
    }

    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.opened)
    }

    /// For how long there has been no stream.
    pub(super) fn idle_for(&self, now: Instant) -> Option<Duration> {
        (self.streams.get() == 0).then(|| now.saturating_duration_since(self.changed.get()))
    }

    /// Whether it is of no use any more: ended, going away, or silent for too long.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        if self.ended.get() || self.retired.get() {
            return true;
        }
        let cx = &mut Context::from_waker(Waker::noop());
        if matches!(self.sender.borrow_mut().poll_ready(cx), Poll::Ready(Err(_))) {
            return true;
        }
        let silent = self.pulse.borrow_mut().is_lost(now, self.heard.replace(false), self.streams.get() > 0);
        if silent {
            tracing::warn!("an upstream connection is silent and does not answer a ping: it is closed");
            // Its streams see it end.
            self.task.abort();
            self.ended.set(true);
        }
        silent
    }
}

impl Pulse {
    /// `heard`: bytes came since the last look. Only who waits for something asks.
    fn is_lost(&mut self, now: Instant, heard: bool, waits: bool) -> bool {
        let Some(pings) = &mut self.pings else { return false };
        if self.asked.is_some() {
            let cx = &mut Context::from_waker(Waker::noop());
            if pings.poll_pong(cx).is_ready() {
                self.asked = None;
                self.not_before = now + RARE;
                self.last_heard = now;
                return false;
            }
        }
        if heard {
            self.last_heard = now;
            if self.asked.is_none() {
                self.not_before = now;
            }
        }
        match self.asked {
            Some(asked) => now.saturating_duration_since(asked) > PONG_LIMIT && !heard,
            None => {
                let silent = now.saturating_duration_since(self.last_heard) >= SILENCE;
                if waits && silent && now >= self.not_before && pings.send_ping(Ping::opaque()).is_ok() {
                    self.asked = Some(now);
                }
                false
            }
        }
    }
}

impl Place {
    /// Whether the connection took a request before.
    pub(super) fn reused(&self) -> bool {
        self.0.served.get()
    }

    /// Whether the upstream takes extended CONNECT (RFC 8441, 3).
    pub(super) fn takes_websockets(&self) -> bool {
        self.0.sender.borrow().is_extended_connect_protocol_enabled()
    }

    /// Whether the connection is TLS.
    pub(super) fn secure(&self) -> bool {
        self.0.secure
    }

    /// The connection takes no more requests after those that it has.
    pub(super) fn retire(&self) {
        self.0.retired.set(true);
    }

    /// The authority that a Host field says.
    pub(super) fn authority(&self, host: &[u8]) -> Option<Authority> {
        let mut last = self.0.authority.borrow_mut();
        if let Some(known) = &*last
            && known.as_str().as_bytes() == host
        {
            return Some(known.clone());
        }
        *last = Authority::try_from(host).ok();
        last.clone()
    }

    /// An error: the connection takes no request any more.
    pub(super) fn ready(&self) -> Result<(), h2::Error> {
        match self.0.sender.borrow_mut().poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Opens a stream.
    pub(super) fn open(
        &self,
        request: Request<()>,
        ended: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        self.0.served.set(true);
        let mut sender = self.0.sender.borrow_mut();
        match sender.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(_) => sender.send_request(request, ended),
            // The upstream took back some of the streams that it allowed: this one waits for its turn.
            Poll::Pending => sender.clone().send_request(request, ended),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        if self.0.streams.get() == 0 {
            self.0.changed.set(Instant::now());
        }
    }
}

fn not_spoken(error: &h2::Error) -> DialError {
    tracing::debug!(%error, "an upstream did not begin to speak HTTP/2");
    if error.is_io() { DialError::Unreachable } else { DialError::NotHttp2 }
}

/// Notes that bytes came.
struct Wire {
    transport: Transport,
    heard: Rc<Cell<bool>>,
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = pin!(&mut this.transport).poll_read(cx, buf);
        if outcome.is_ready() {
            this.heard.set(true);
        }
        outcome
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().transport).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().transport).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_shutdown(cx)
    }
}
