//! What the task of a connection and the body that arrives on it share.
//!
//! Owns: whose turn it is to read. While a body arrives its reader has the turn, which may be another task's; else the
//! connection has.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::Frame;

use crate::http1::{Reader, Reading};
use crate::listener::stream::ClientStream;
use crate::proxy::{BodyError, Carrier};

/// A client's stream, and what was read of it.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) stream: RefCell<ClientStream>,
    pub(super) reader: RefCell<Reader>,
    /// What is still to come of the body at hand.
    reading: Cell<Reading>,
    /// Somebody holds that body.
    held: Cell<bool>,
    /// The client sends nothing more.
    ended: Cell<bool>,
    /// Reading failed, or what came is no body.
    broken: Cell<bool>,
    invitation: Cell<Invitation>,
    /// Of the connection's task, while it waits for the body to end.
    waits: RefCell<Option<Waker>>,
    /// Of whose turn it is to read the body.
    reads: RefCell<Option<Waker>>,
}

/// The 100 that a client waits for before it sends a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Invitation {
    /// It does not.
    Unwanted,
    Awaited,
    /// The body was asked for.
    Due,
}

impl Wire {
    pub(super) fn new(stream: ClientStream, read: Bytes) -> Rc<Self> {
        Rc::new(Self {
            stream: RefCell::new(stream),
            reader: RefCell::new(Reader::new(read)),
            reading: Cell::new(Reading::Done),
            held: Cell::new(false),
            ended: Cell::new(false),
            broken: Cell::new(false),
            invitation: Cell::new(Invitation::Unwanted),
            waits: RefCell::new(None),
            reads: RefCell::new(None),
        })
    }

    /// A body begins, which will be held. `expects`: the client waits for a 100.
    pub(super) fn begin_body(&self, reading: Reading, expects: bool) {
        self.reading.set(reading);
        self.held.set(true);
        self.invitation.set(if expects { Invitation::Awaited } else { Invitation::Unwanted });
    }

    /// What comes from here on belongs to no message.
    pub(super) fn lose_track(&self) {
        self.reading.set(Reading::ToTheEnd);
    }

    /// Whether the client is to be asked for its body now: true once.
    pub(super) fn take_invitation(&self) -> bool {
        let due = self.invitation.get() == Invitation::Due;
        if due {
            self.invitation.set(Invitation::Unwanted);
        }
        due
    }

    /// The final answer goes out: nobody is asked for a body any more.
    pub(super) fn uninvite(&self) {
        self.invitation.set(Invitation::Unwanted);
    }

    /// Whether the message at hand was read whole.
    pub(super) fn is_between(&self) -> bool {
        self.reading.get() == Reading::Done
    }

    /// Whether somebody holds a body that is not read whole.
    pub(super) fn is_held(&self) -> bool {
        self.held.get() && !self.is_between()
    }

    /// Whether something was read that belongs to nothing yet.
    pub(super) fn has_unread(&self) -> bool {
        !self.reader.borrow().unread.is_empty()
    }

    /// Whether nothing that comes can be understood any more.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// Reads on; 0: the client sends nothing more.
    pub(super) fn poll_fill(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.ended.get() {
            return Poll::Ready(Ok(0));
        }
        let outcome = self.reader.borrow_mut().poll_fill(cx, &mut *self.stream.borrow_mut());
        match outcome {
            Poll::Ready(Ok(0)) => self.ended.set(true),
            Poll::Ready(Err(_)) => self.broken.set(true),
            _ => {}
        }
        outcome
    }

    /// Tells the connection's task when the body has ended, or nobody holds it any more.
    pub(super) fn wait(&self, cx: &Context<'_>) {
        self.waits.replace(Some(cx.waker().clone()));
    }

    /// The connection ends: whoever holds a body gets no more of it.
    pub(super) fn abandon(&self) {
        self.broken.set(true);
        if let Some(waker) = self.reads.take() {
            waker.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waits.take() {
            waker.wake();
        }
    }

    /// The next piece of the body, if it was read.
    fn take_piece(&self) -> Result<Option<Frame<Bytes>>, BodyError> {
        let mut reading = self.reading.get();
        let unread = &mut self.reader.borrow_mut().unread;
        let piece = reading.take(unread).and_then(|piece| {
            if piece.is_some() {
                reading.look_ahead(unread)?;
            }
            Ok(piece)
        });
        self.reading.set(reading);
        if reading == Reading::Done {
            self.wake();
        }
        piece.map_err(|error| {
            tracing::debug!(%error, "the body of a request is none");
            self.broken.set(true);
            self.wake();
            BodyError::Broken
        })
    }

    fn keep(&self, cx: &Context<'_>) {
        let mut reads = self.reads.borrow_mut();
        if reads.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            *reads = Some(cx.waker().clone());
        }
    }

    fn broke_off(&self) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.broken.set(true);
        self.wake();
        Poll::Ready(Some(Err(BodyError::Broken)))
    }

    /// Takes what is left of a body that nobody wants; how much of it came now.
    pub(super) fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        self.poll_piece(cx).map(|piece| Some(piece?.ok()?.data_ref().map_or(0, Bytes::len)))
    }
}

impl Carrier for Wire {
    fn poll_piece(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.invitation.get() == Invitation::Awaited {
            self.invitation.set(Invitation::Due);
        }
        loop {
            if self.is_between() {
                return Poll::Ready(None);
            }
            if self.broken.get() {
                return Poll::Ready(Some(Err(BodyError::Broken)));
            }
            match self.take_piece() {
                Ok(None) => {}
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            if self.is_between() {
                return Poll::Ready(None);
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return self.broke_off(),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => {
                    self.keep(cx);
                    return Poll::Pending;
                }
            }
        }
    }

    fn is_ended(&self) -> bool {
        self.is_between()
    }

    fn left(&self) -> Option<u64> {
        match self.reading.get() {
            Reading::Length(left) => Some(left),
            Reading::Done => Some(0),
            Reading::Chunked(_) | Reading::ToTheEnd => None,
        }
    }

    fn let_go(&self) {
        self.held.set(false);
        self.wake();
    }
}
