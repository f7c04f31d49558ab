//! The body of a request, streamed frame by frame.
//!
//! Owns: backpressure (a frame is asked for when it can be written), idle limits, and that a body which breaks
//! off is passed on as broken. Keeps nothing but short bodies that may have to be sent again.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::{Client, ClientBody, Route, asked};
use crate::route::Replay;

/// How long a body is withheld that the upstream was asked to ask for (RFC 9110, 10.1.1).
const EXPECT_LIMIT: Duration = Duration::from_secs(1);
/// How much of an unwanted body is taken, and for how long.
const MAX_DRAINED: usize = 1024 * 1024;
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// Why a body broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The sender closed the connection, or broke the framing.
    #[error("the body broke off")]
    Broken,
    /// The next piece did not come in time.
    #[error("the body did not arrive in time")]
    Late,
    /// It is longer than the route takes.
    #[error("the body is too long")]
    TooLarge,
}

/// The body of a request on its way to the upstream.
#[derive(Debug)]
pub enum RequestBody {
    /// None.
    Empty,
    /// The client's, as it comes.
    Streaming(Box<Streaming>),
    /// The client's, kept from the first time.
    Again(VecDeque<Bytes>),
}

/// A body that is passed on as it arrives.
#[derive(Debug)]
pub struct Streaming {
    incoming: ClientBody,
    client: Rc<Client>,
    idle: Duration,
    first_byte: Duration,
    flow: Rc<Flow>,
    hold: Option<Pin<Box<Sleep>>>,
    /// What may still come, where that is limited.
    room: Option<u64>,
}

/// How far the body of a request is, for the side that waits for the answer.
#[derive(Debug, Default)]
pub(super) struct Flow {
    ended: Cell<bool>,
    broken: Cell<bool>,
    too_large: Cell<bool>,
    /// The upstream said 100.
    go: Arc<AtomicBool>,
    held: Cell<bool>,
    refused: Cell<bool>,
    kept: RefCell<Kept>,
}

/// What is kept of a body for sending it again.
#[derive(Debug, Default)]
enum Kept {
    /// Nothing: the route has no token that could be refused, or the body is too long.
    #[default]
    Nothing,
    /// All so far, with what may still come.
    All(VecDeque<Bytes>, usize),
}

impl Flow {
    /// Whether the whole body was handed over.
    pub(super) fn ended(&self) -> bool {
        self.ended.get()
    }

    /// The whole body once more, if it was kept.
    pub(super) fn again(&self) -> Option<RequestBody> {
        match self.kept.take() {
            Kept::All(pieces, _) if self.ended.get() => Some(RequestBody::Again(pieces)),
            _ => None,
        }
    }

    fn keep(&self, piece: &Bytes) {
        let mut kept = self.kept.borrow_mut();
        if let Kept::All(pieces, room) = &mut *kept {
            match room.checked_sub(piece.len()) {
                Some(left) => {
                    *room = left;
                    pieces.push_back(piece.clone());
                }
                None => *kept = Kept::Nothing,
            }
        }
    }

    /// Whether it was longer than the route takes.
    pub(super) fn too_large(&self) -> bool {
        self.too_large.get()
    }

    /// Whether the client broke it off.
    pub(super) fn broken(&self) -> bool {
        self.broken.get()
    }

    /// Whether the body still waits for a 100.
    pub(super) fn is_held(&self) -> bool {
        self.held.get()
    }

    /// Whether the body still waits for a 100; then it is never asked for.
    pub(super) fn refuse_if_held(&self) -> bool {
        self.refused.set(self.held.get());
        self.held.get()
    }

    /// What a 100 of the upstream sets.
    pub(super) fn go(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.go)
    }
}

impl RequestBody {
    /// Passes `incoming` on. `expect`: it is withheld until the upstream says 100, or for a second.
    pub(super) fn streaming(
        incoming: ClientBody,
        client: Rc<Client>,
        route: &Route,
        expect: bool,
    ) -> (Self, Rc<Flow>) {
        let flow = Rc::new(Flow::default());
        flow.held.set(expect);
        if route.token.is_some() && route.on_unauthorized.replay != Replay::None {
            flow.kept.replace(Kept::All(VecDeque::new(), route.on_unauthorized.max_body));
        }
        let body = Streaming {
            incoming,
            client,
            idle: route.timeouts.request_idle,
            first_byte: route.timeouts.first_byte,
            flow: Rc::clone(&flow),
            hold: expect.then(|| Box::pin(tokio::time::sleep(EXPECT_LIMIT))),
            room: route.max_body,
        };
        (Self::Streaming(Box::new(body)), flow)
    }
}

impl Streaming {
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(hold) = &mut self.hold else { return Poll::Ready(()) };
        if self.flow.refused.get() {
            return Poll::Pending;
        }
        if self.flow.go.load(Ordering::Relaxed) || hold.as_mut().poll(cx).is_ready() {
            self.hold = None;
            self.flow.held.set(false);
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.poll_held(cx).is_pending() {
            return Poll::Pending;
        }
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.client.body_arrived(frame.data_ref().map_or(0, Bytes::len));
                if frame.is_trailers() {
                    // They are not kept for a second time.
                    self.flow.kept.take();
                    self.end();
                    return Poll::Ready(Some(Ok(asked::cleaned(frame))));
                }
                if let Some(piece) = frame.data_ref() {
                    if !self.has_room(piece) {
                        self.flow.too_large.set(true);
                        return Poll::Ready(Some(Err(BodyError::TooLarge)));
                    }
                    self.flow.keep(piece);
                }
                if self.incoming.is_end_stream() {
                    self.end();
                } else {
                    self.client.await_upstream(Some(Instant::now() + self.first_byte));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => {
                self.flow.broken.set(true);
                Poll::Ready(Some(Err(BodyError::Broken)))
            }
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
            Poll::Pending if self.client.body_is_late() => {
                self.flow.broken.set(true);
                Poll::Ready(Some(Err(BodyError::Late)))
            }
            Poll::Pending => {
                self.client.await_body(self.idle, cx.waker());
                Poll::Pending
            }
        }
    }

    fn has_room(&mut self, piece: &Bytes) -> bool {
        let Some(room) = &mut self.room else { return true };
        match room.checked_sub(piece.len() as u64) {
            Some(left) => *room = left,
            None => return false,
        }
        true
    }

    fn end(&self) {
        self.flow.ended.set(true);
        self.client.body_arrived(0);
        self.client.await_upstream(Some(Instant::now() + self.first_byte));
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Streaming(body) => body.poll(cx),
            Self::Again(pieces) => Poll::Ready(pieces.pop_front().map(|piece| Ok(Frame::data(piece)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming(body) => body.flow.ended.get(),
            Self::Again(pieces) => pieces.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streaming(body) => body.incoming.size_hint(),
            Self::Again(pieces) => SizeHint::with_exact(pieces.iter().map(|piece| piece.len() as u64).sum()),
        }
    }
}

/// Takes the rest of a body that nobody wants, so that the client reads the answer instead of a reset connection.
/// Bounded: beyond that the connection is closed.
pub(super) fn drain(mut body: ClientBody) {
    if body.is_end_stream() || !body.blocks_connection() {
        return;
    }
    tokio::task::spawn_local(tokio::time::timeout(DRAIN_LIMIT, async move {
        let mut left = MAX_DRAINED;
        while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    }));
}
