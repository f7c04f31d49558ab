//! The pool: a worker's own HTTP/1.1 connections to one upstream.
//!
//! Owns: reuse (last in, first out), idle limits and the driving of connections. A connection has no task of its own:
//! the task that holds its [`Lease`] drives it, so that a request costs no wake-up of a second task. An idle
//! connection is looked at when it is taken out, which tells whether the upstream closed it meanwhile.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::{Connector, DialError, Transport};

/// How long an idle connection is kept.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// How many idle connections are kept; more only where as many were in use a moment ago.
const MAX_IDLE: usize = 64;

/// The most that is read from a connection at a time, and so the longest head of an answer. A client that does not read
/// holds a few of these: read, handed over, and waiting to be written.
const READ_BUFFER: usize = 64 * 1024;

/// Connections to one upstream. Not shared between threads.
#[derive(Debug)]
pub struct Pool<B: Body + 'static> {
    connector: Connector,
    idle: RefCell<Vec<Idle<B>>>,
    active: Cell<usize>,
    /// The most that were active since the last sweep.
    peak: Cell<usize>,
    /// The same between the sweep before and that one.
    earlier_peak: Cell<usize>,
}

#[derive(Debug)]
struct Idle<B: Body + 'static> {
    connection: Box<Connection<B>>,
    since: Instant,
}

#[derive(Debug)]
struct Connection<B: Body + 'static> {
    sender: SendRequest<B>,
    driver: http1::Connection<TokioIo<Transport>, B>,
    ended: bool,
    reused: bool,
    /// Not to be used again.
    retired: bool,
}

/// A connection for one request. Dropped in the middle of an exchange it closes the connection.
#[derive(Debug)]
pub struct Lease<B: Body + 'static> {
    connection: Option<Box<Connection<B>>>,
    pool: Rc<Pool<B>>,
    /// Given back before its time, and no longer counted.
    rests: bool,
}

/// A connection that has switched protocols. Counted as active until it is dropped.
#[derive(Debug)]
pub struct Upgraded<B: Body + 'static> {
    /// The bytes.
    pub transport: Transport,
    /// What came behind the 101.
    pub read: Bytes,
    _lease: Lease<B>,
}

/// A piece of an answer's body.
pub type BodyPiece = Result<Frame<Bytes>, hyper::Error>;

/// A request that failed on its connection.
#[derive(Debug)]
pub struct SendError<B> {
    /// hyper's word.
    pub error: hyper::Error,
    /// The request, if not a byte of it was written.
    pub unsent: Option<Request<B>>,
}

impl<B> Pool<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// An empty pool.
    pub fn new(connector: Connector) -> Rc<Self> {
        Rc::new(Self {
            connector,
            idle: RefCell::new(Vec::new()),
            active: Cell::new(0),
            peak: Cell::new(0),
            earlier_peak: Cell::new(0),
        })
    }

    /// How to reach the upstream.
    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Idle connections now.
    pub fn idle(&self) -> usize {
        self.idle.borrow().len()
    }

    /// Connections with a request on them now.
    pub fn active(&self) -> usize {
        self.active.get()
    }

    /// A connection that was used before and still stands.
    pub fn reuse(self: &Rc<Self>, now: Instant) -> Option<Lease<B>> {
        // Nobody is to be woken by the request that follows: who sends it drives the connection anyway.
        let cx = &mut Context::from_waker(Waker::noop());
        loop {
            let Idle { mut connection, since } = self.idle.borrow_mut().pop()?;
            let fresh = now.saturating_duration_since(since) < IDLE_LIMIT;
            if fresh && !connection.drive(cx) && connection.sender.is_ready() {
                connection.reused = true;
                return Some(self.lease(connection));
            }
        }
    }

    /// A new connection.
    pub async fn connect(self: &Rc<Self>) -> Result<Lease<B>, DialError> {
        let transport = self.connector.connect().await?;
        let mut builder = http1::Builder::new();
        // RFC 9112, 5.1: a proxy removes a space before the colon of an answer's field.
        builder.writev(false).max_buf_size(READ_BUFFER).allow_spaces_after_header_name_in_responses(true);
        let (sender, driver) =
            builder.handshake(TokioIo::new(transport)).await.map_err(|_| DialError::Unreachable)?;
        Ok(self.lease(Box::new(Connection { sender, driver, ended: false, reused: false, retired: false })))
    }

    /// Closes what has been idle for too long, and what the upstream closed.
    pub fn sweep(&self, now: Instant) {
        let mut cx = Context::from_waker(Waker::noop());
        self.idle.borrow_mut().retain_mut(|entry| {
            now.saturating_duration_since(entry.since) < IDLE_LIMIT && !entry.connection.drive(&mut cx)
        });
        self.earlier_peak.set(self.peak.replace(self.active.get()));
        let mut idle = self.idle.borrow_mut();
        let surplus = idle.len().saturating_sub(self.max_idle());
        // The first have been idle for longest.
        idle.drain(..surplus);
    }

    /// A burst of requests comes again in a moment: connections that it needs are not closed between its waves.
    fn max_idle(&self) -> usize {
        MAX_IDLE.max(self.peak.get()).max(self.earlier_peak.get())
    }

    fn lease(self: &Rc<Self>, connection: Box<Connection<B>>) -> Lease<B> {
        let active = self.active.get() + 1;
        self.active.set(active);
        self.peak.set(self.peak.get().max(active));
        Lease { connection: Some(connection), pool: Rc::clone(self), rests: false }
    }
}

impl<B> Connection<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Moves the connection on; whether it has ended.
    fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.ended && Pin::new(&mut self.driver).poll(cx).is_ready() {
            self.ended = true;
        }
        self.ended
    }
}

impl<B> Lease<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Whether the connection served a request before this one.
    pub fn reused(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.reused)
    }

    /// Sends a request and drives the connection until the head of the answer is there. `interrupt` is asked at
    /// every turn: `true` gives up with `None`.
    pub async fn send(
        &mut self,
        request: Request<B>,
        interrupt: impl Fn() -> bool,
    ) -> Option<Result<Response<Incoming>, SendError<B>>> {
        let connection = self.connection.as_mut().expect("a lease holds its connection until it is released");
        let mut answer = pin!(connection.sender.try_send_request(request));
        let mut sent = false;
        std::future::poll_fn(|cx| {
            let quiet = &mut Context::from_waker(Waker::noop());
            // What the driver hands over is taken by this same task at once: a waker would wake it for nothing. So it is
            // driven without one first, and with one where it has to wait.
            if sent {
                connection.drive(quiet);
                if let Poll::Ready(outcome) = answer.as_mut().poll(quiet) {
                    return Poll::Ready(Some(settled(outcome)));
                }
            }
            connection.drive(cx);
            sent = true;
            match answer.as_mut().poll(quiet) {
                Poll::Ready(outcome) => Poll::Ready(Some(settled(outcome))),
                Poll::Pending if interrupt() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Moves the connection on while a body is being read.
    #[inline]
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection {
            connection.drive(cx);
        }
    }

    /// The next piece of the answer's body. The connection is moved on without a waker first, see [`Lease::send`].
    pub fn poll_body(&mut self, cx: &mut Context<'_>, body: &mut Incoming) -> Poll<Option<BodyPiece>> {
        let quiet = &mut Context::from_waker(Waker::noop());
        self.drive(quiet);
        if let Poll::Ready(piece) = Pin::new(&mut *body).poll_frame(quiet) {
            return Poll::Ready(piece);
        }
        self.drive(cx);
        Pin::new(body).poll_frame(quiet)
    }

    /// Whether the exchange on the connection is complete in both directions.
    pub fn is_idle(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| !connection.ended && connection.sender.is_ready())
    }

    /// Gives the connection back already, if the exchange on it is complete. What was read of the answer stays readable: for
    /// an answer that waits for something else than the upstream.
    pub fn rest(&mut self, now: Instant) {
        if self.is_idle() {
            self.put_back(now);
            // One that found no place is closed.
            self.connection = None;
            self.rests = true;
            self.pool.active.set(self.pool.active.get() - 1);
        }
    }

    /// Ends the lease: a connection that is idle again goes back, any other one is closed.
    pub fn release(mut self, now: Instant) {
        self.put_back(now);
    }

    fn put_back(&mut self, now: Instant) {
        if !self.is_idle() || self.connection.as_ref().is_some_and(|connection| connection.retired) {
            return;
        }
        let mut idle = self.pool.idle.borrow_mut();
        if idle.len() < self.pool.max_idle()
            && let Some(connection) = self.connection.take()
        {
            idle.push(Idle { connection, since: now });
        }
    }

    /// Closes the connection after this exchange.
    pub fn retire(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.retired = true;
        }
    }

    /// Takes the bytes out from below a connection whose answer was a 101. `None`: the request was not yet written whole.
    pub fn into_upgraded(mut self) -> Option<Upgraded<B>> {
        let Connection { driver, .. } = *self.connection.take_if(|connection| connection.ended)?;
        let parts = driver.into_parts();
        Some(Upgraded { transport: parts.io.into_inner(), read: parts.read_buf, _lease: self })
    }

    /// Gives the connection a task of its own. For an answer that begins before its request has ended: the two
    /// directions must not wait for each other. The connection is closed after the exchange.
    pub fn detach(mut self) {
        if let Some(connection) = self.connection.take() {
            let Connection { driver, .. } = *connection;
            tokio::task::spawn_local(async move {
                if let Err(error) = driver.await {
                    tracing::debug!(%error, "an upstream connection broke off");
                }
            });
        }
    }
}

#[allow(clippy::result_large_err, reason = "it is moved once, into a result of the same size")]
fn settled<B>(
    outcome: Result<Response<Incoming>, hyper::client::conn::TrySendError<Request<B>>>,
) -> Result<Response<Incoming>, SendError<B>> {
    outcome.map_err(|mut failure| {
        let unsent = failure.take_message();
        SendError { error: failure.into_error(), unsent }
    })
}

impl<B: Body + 'static> Drop for Lease<B> {
    fn drop(&mut self) {
        if !self.rests {
            self.pool.active.set(self.pool.active.get() - 1);
        }
    }
}
