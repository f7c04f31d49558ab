//! A place for one request on a connection of the pool.
//!
//! Owns: what both protocols have in common towards the proxy: sending, moving on, giving back.

use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use hyper::body::{Body, Frame};
use tokio::time::Instant;

use super::http2::Stream;
use super::{Admission, AnswerBody, Beside, DialError, Pool, Transport, http1};
use crate::http1::Http1Error;

/// A place for one request. Dropped in the middle of an exchange it ends the exchange: by closing the connection, or
/// over HTTP/2 by resetting the stream.
#[derive(Debug)]
pub struct Lease<B: Body + 'static> {
    held: Held<B>,
    pool: Rc<Pool<B>>,
    /// Given back before its time, and no longer counted.
    rests: bool,
    /// Its place among the requests under way.
    admission: Option<Admission>,
}

#[derive(Debug)]
pub(super) enum Held<B: Body + 'static> {
    Nothing,
    Http1(Box<http1::Connection<B>>),
    Http2(Box<Stream<B>>),
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
pub type BodyPiece = Result<Frame<Bytes>, ExchangeError>;

/// What broke an exchange off.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// Over HTTP/1.1.
    #[error(transparent)]
    Http1(#[from] Http1Error),
    /// Over HTTP/2.
    #[error(transparent)]
    Http2(#[from] h2::Error),
    /// The upstream speaks HTTP/2 and takes no WebSockets over it, or another protocol was asked for.
    #[error("the upstream takes no upgrade over HTTP/2")]
    NoWebSocket,
    /// The body of the request.
    #[error("the body of the request broke off")]
    Body,
    /// Interim answers (1xx) without an end.
    #[error("the upstream sends interim answers and no final one")]
    Endless,
}

impl ExchangeError {
    /// Whether the upstream sent what is not HTTP.
    pub fn is_protocol(&self) -> bool {
        match self {
            Self::Http1(error) => error.is_protocol(),
            // Found by us, not told by the other side.
            Self::Http2(error) => !error.is_io() && !error.is_remote(),
            Self::NoWebSocket | Self::Body => false,
            Self::Endless => true,
        }
    }
}

/// A request that failed on its connection.
#[derive(Debug)]
pub struct SendError<B> {
    /// Why.
    pub error: ExchangeError,
    /// Not a byte of it was written.
    pub unsent: bool,
    /// The body, if not a piece of it was taken.
    pub untaken: Option<B>,
    /// The upstream said that it did nothing with the request (RFC 9113, 8.7).
    pub unprocessed: bool,
    /// The upstream had begun to answer.
    pub answered: bool,
}

impl<B> Lease<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn new(held: Held<B>, pool: Rc<Pool<B>>) -> Self {
        Self { held, pool, rests: false, admission: None }
    }

    /// Holds a place among the requests under way until the lease ends.
    pub fn hold(&mut self, admission: Admission) {
        self.admission = Some(admission);
    }

    /// Whether the connection served a request before this one.
    pub fn reused(&self) -> bool {
        match &self.held {
            Held::Http1(connection) => connection.reused,
            Held::Http2(stream) => stream.reused(),
            Held::Nothing => false,
        }
    }

    /// The same for a request that asks to switch protocols: where the upstream takes no WebSockets over HTTP/2 but may
    /// be asked in HTTP/1.1, a connection of its own.
    pub async fn to_switch(self) -> Result<Self, DialError> {
        match &self.held {
            Held::Http2(stream) if !stream.takes_websockets() => match self.pool.connect_http1().await {
                Some(lease) => lease,
                None => Ok(self),
            },
            _ => Ok(self),
        }
    }

    /// Sends a request and moves the exchange on until the head of the answer is there. `interrupt` is asked at every
    /// turn: `true` gives up with `None`. `informed` sees each 1xx but 101. The head is copied over HTTP/2 alone.
    /// `beside`: fields of names that it does not hold.
    pub async fn send(
        &mut self,
        head: &Parts,
        beside: Beside<'_>,
        body: B,
        interrupt: impl Fn() -> bool,
        informed: impl FnMut(Response<()>),
    ) -> Option<Result<Response<AnswerBody>, SendError<B>>> {
        match &mut self.held {
            Held::Http1(connection) => connection.send((head, beside), body, interrupt, informed).await,
            Held::Http2(stream) => {
                let mut head = head.clone();
                beside.add_to(&mut head.headers);
                let request = Request::from_parts(head, body);
                stream.send(request, interrupt, informed).await
            }
            Held::Nothing => unreachable!("a lease holds its connection until it is released"),
        }
    }

    /// Moves the exchange on where nothing is read of it.
    #[inline]
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        match &mut self.held {
            Held::Http1(connection) => connection.drive(cx),
            Held::Http2(stream) => stream.drive(cx),
            Held::Nothing => {}
        }
    }

    /// The next piece of the answer's body.
    pub fn poll_body(&mut self, cx: &mut Context<'_>, body: &mut AnswerBody) -> Poll<Option<BodyPiece>> {
        match (&mut self.held, body) {
            (Held::Http1(connection), AnswerBody::Http1(body)) => connection.poll_body(cx, body),
            (Held::Http2(stream), body) => {
                stream.drive(cx);
                let piece = body.poll_piece(cx);
                if body.is_end_stream() || matches!(piece, Poll::Ready(None)) {
                    stream.finish();
                }
                piece
            }
            (_, body) => body.poll_piece(cx),
        }
    }

    /// Whether the exchange is complete in both directions.
    pub fn is_idle(&self) -> bool {
        match &self.held {
            Held::Http1(connection) => connection.is_idle(),
            Held::Http2(stream) => stream.is_done(),
            Held::Nothing => false,
        }
    }

    /// Gives the place back already, if the exchange is complete. What was read of the answer stays readable: for an
    /// answer that waits for something else than the upstream.
    pub fn rest(&mut self, now: Instant) {
        let rests = match &self.held {
            Held::Http1(connection) => connection.is_idle(),
            // What is left of the answer waits in its stream, which holds nothing else up.
            Held::Http2(stream) => stream.is_sent(),
            Held::Nothing => false,
        };
        if rests {
            self.put_back(now);
            // One that found no place is closed.
            if matches!(self.held, Held::Http1(_)) {
                self.held = Held::Nothing;
            }
            self.admission = None;
            self.rests = true;
            self.pool.left();
        }
    }

    /// Ends the lease: a connection that is idle again goes back, any other one is closed.
    pub fn release(mut self, now: Instant) {
        self.put_back(now);
    }

    fn put_back(&mut self, now: Instant) {
        match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Http1(connection) if connection.is_idle() && !connection.retired => {
                if let Some(surplus) = self.pool.put_back(connection, now) {
                    self.held = Held::Http1(surplus);
                }
            }
            other => self.held = other,
        }
    }

    /// The same connection for a later request of the same client, if it can take one and is not shared. It holds no place
    /// meanwhile.
    pub fn pause(mut self) -> Option<Self> {
        self.admission = None;
        let own =
            matches!(&self.held, Held::Http1(connection) if connection.is_idle() && !connection.retired);
        own.then_some(self)
    }

    /// Whether a paused connection still stands.
    pub fn resume(&mut self) -> bool {
        match &mut self.held {
            Held::Http1(connection) => {
                connection.reused = true;
                connection.poll_rest(&mut Context::from_waker(Waker::noop()))
            }
            _ => false,
        }
    }

    /// Whether others' requests go over the same connection.
    #[inline]
    pub fn is_shared(&self) -> bool {
        matches!(self.held, Held::Http2(_))
    }

    /// Closes the connection after this exchange.
    pub fn retire(&mut self) {
        if let Held::Http1(connection) = &mut self.held {
            connection.retired = true;
        }
    }

    /// Takes the bytes out from below a connection whose answer was a 101. `None`: the request was not yet written whole.
    pub fn into_upgraded(mut self) -> Option<Upgraded<B>> {
        match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Http1(connection) if connection.is_switched() => {
                let (transport, read) = connection.into_transport()?;
                Some(Upgraded { transport, read, _lease: self })
            }
            Held::Http2(mut stream) => {
                let bytes = stream.take_bytes()?;
                // Its place is taken until the end.
                self.held = Held::Http2(stream);
                let transport = Transport::Stream(Box::new(bytes));
                Some(Upgraded { transport, read: Bytes::new(), _lease: self })
            }
            _ => None,
        }
    }

    /// Gives what is left of the request a task of its own. For an answer that begins before its request has ended: the
    /// two directions must not wait for each other. A connection over HTTP/1.1 is closed after the exchange.
    pub fn detach(mut self, body: &mut AnswerBody) {
        match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Http1(connection) => {
                if let AnswerBody::Http1(body) = body {
                    connection.detach(body, self.admission.take());
                }
            }
            Held::Http2(stream) => stream.detach(),
            Held::Nothing => {}
        }
    }
}

impl<B: Body + 'static> Drop for Lease<B> {
    fn drop(&mut self) {
        if !self.rests {
            self.pool.left();
        }
    }
}
