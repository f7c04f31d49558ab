//! A connection that speaks HTTP/1.1, with one exchange at a time.
//!
//! Owns: writing a request and reading its answer, both at once, and when a connection may serve the next request. It has
//! no task of its own: the task that holds its lease moves it on, so that a request costs no wake-up of a second task. It
//! holds memory only while bytes wait in it: what is read goes on in the buffer that it was read into, and a buffer that
//! was written is used by the next connection while it is still in the cache.

mod apart;
mod body;
mod head;
#[cfg(feature = "fuzzing")]
mod read_all;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use hyper::body::{Body, Frame};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

pub(super) use self::body::Http1Body;
#[cfg(feature = "fuzzing")]
pub(super) use self::read_all::read_all;
use super::{Admission, AnswerBody, Beside, BodyPiece, ExchangeError, SendError, Transport};
use crate::http1::{Http1Error, Outgoing, Reader, Reading};

/// Pieces of a request up to this length go out with what stands before them.
const COPIED: usize = 8 * 1024;
/// What may come before the head of the final answer is whole: that head, and interim answers (RFC 9110, 15.2).
const MAX_BEFORE_ANSWER: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct Idle<B: Body + 'static> {
    pub(super) connection: Box<Connection<B>>,
    pub(super) since: Instant,
}

#[derive(Debug)]
pub(super) struct Connection<B: Body + 'static> {
    transport: Transport,
    reader: Reader,
    reading: Reading,
    outgoing: Outgoing<B>,
    state: State,
    /// Of the request under way.
    method: Method,
    /// How much was read since it was begun.
    heard: usize,
    /// Whether it stays open after this exchange.
    persists: bool,
    pub(super) reused: bool,
    /// Not to be used again.
    pub(super) retired: bool,
    /// The connector's when it was opened.
    pub(super) epoch: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No request is under way, or its answer was read whole.
    Idle,
    /// Waits for the head of an answer.
    Head,
    /// Reads the body.
    Body,
    /// The upstream has switched protocols.
    Switched,
    /// Nothing can be done with it any more.
    Broken,
}

impl<B> Connection<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn open(transport: Transport) -> Box<Self> {
        Box::new(Self {
            transport,
            reader: Reader::default(),
            reading: Reading::Done,
            outgoing: Outgoing::new(COPIED),
            state: State::Idle,
            method: Method::GET,
            heard: 0,
            persists: true,
            reused: false,
            retired: false,
            epoch: 0,
        })
    }

    /// Whether the exchange on it is complete in both directions, and it can serve the next.
    pub(super) fn is_idle(&self) -> bool {
        self.state == State::Idle && self.persists && self.reader.unread.is_empty() && self.outgoing.is_done()
    }

    /// Looks after a connection that is idle; whether it still is. What an upstream sends without having been asked is an
    /// answer to nothing.
    pub(super) fn poll_rest(&mut self, cx: &mut Context<'_>) -> bool {
        let mut byte = [0];
        if self.is_idle()
            && Pin::new(&mut self.transport).poll_read(cx, &mut ReadBuf::new(&mut byte)).is_ready()
        {
            self.state = State::Broken;
        }
        self.is_idle()
    }

    /// Writes on, where nothing is read.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.outgoing.is_done() {
            // An error shows where the answer is read.
            let _ = self.poll_write(cx);
        }
    }

    /// Sends a request and reads the head of its answer. `interrupt` is asked at every turn: `true` gives up with `None`.
    /// `informed` sees each 1xx but 101.
    pub(super) async fn send(
        &mut self,
        head: (&Parts, Beside<'_>),
        body: B,
        interrupt: impl Fn() -> bool,
        mut informed: impl FnMut(Response<()>),
    ) -> Option<Result<Response<AnswerBody>, SendError<B>>> {
        let mut body = Some(body);
        std::future::poll_fn(|cx| {
            if let Some(unsent) = body.take() {
                // Before a byte is written: one that the upstream closed meanwhile has seen nothing of it.
                if !self.poll_rest(cx) {
                    return Poll::Ready(Some(Err(failed(Http1Error::Closed.into(), Some(unsent), false))));
                }
                if let Err(error) = self.begin(head, unsent) {
                    return Poll::Ready(Some(Err(failed(error.into(), None, false))));
                }
            }
            match self.poll_head(cx, &mut informed) {
                Poll::Ready(Ok(response)) => Poll::Ready(Some(Ok(response))),
                Poll::Ready(Err(error)) => {
                    self.state = State::Broken;
                    Poll::Ready(Some(Err(failed(error, None, self.heard > 0))))
                }
                Poll::Pending if interrupt() => {
                    self.state = State::Broken;
                    Poll::Ready(None)
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    fn begin(&mut self, (head, beside): (&Parts, Beside<'_>), body: B) -> Result<(), Http1Error> {
        let bodiless = body.is_end_stream();
        let length = body.size_hint().exact();
        self.outgoing.begin((!bodiless).then_some(body), |out| {
            head::write_request((head, beside), bodiless, length, out)
        })?;
        self.method.clone_from(&head.method);
        self.state = State::Head;
        self.heard = 0;
        Ok(())
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        informed: &mut impl FnMut(Response<()>),
    ) -> Poll<Result<Response<AnswerBody>, ExchangeError>> {
        loop {
            // An upstream may answer and close without having read everything: its answer counts.
            let written = self.poll_write(cx);
            let mut again = !self.reader.unread.is_empty();
            loop {
                if !self.reader.unread.is_empty()
                    && let Some(answered) = head::read_answer(&mut self.reader.unread, &self.method, again)?
                {
                    if is_interim(answered.response.status()) {
                        informed(answered.response);
                        // It may be what the body waits for.
                        break;
                    }
                    return Poll::Ready(Ok(self.take_answer(answered)));
                }
                again = !self.reader.unread.is_empty();
                if self.heard > MAX_BEFORE_ANSWER {
                    return Poll::Ready(Err(ExchangeError::Endless));
                }
                match self.poll_fill(cx) {
                    Poll::Ready(Ok(0)) => {
                        let error = if self.heard > 0 { Http1Error::Truncated } else { Http1Error::Closed };
                        return Poll::Ready(Err(written_first(written, error)));
                    }
                    Poll::Ready(Ok(count)) => self.heard += count,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(written_first(written, error.into()))),
                    Poll::Pending => {
                        return match written {
                            Poll::Ready(Err(error @ Http1Error::Body)) => Poll::Ready(Err(error.into())),
                            // What the other side said before it closed may still be on its way.
                            _ => Poll::Pending,
                        };
                    }
                }
            }
        }
    }

    fn take_answer(&mut self, answered: head::Answered) -> Response<AnswerBody> {
        let head::Answered { response, body, persists } = answered;
        self.persists &= persists;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.state = State::Switched;
            return response.map(|()| AnswerBody::Switched);
        }
        self.reading = body;
        self.state = State::Body;
        let left = match body {
            Reading::Length(length) => Some(length),
            Reading::Done => Some(0),
            Reading::Chunked(_) | Reading::ToTheEnd => None,
        };
        // What is wrong with its first piece is found again when the body is read: the head may pass.
        let first = self.take_piece().unwrap_or(None);
        let body = Http1Body { first, apart: None, left, ended: self.state == State::Idle };
        response.map(|()| AnswerBody::Http1(body))
    }

    /// The next piece of what was read, if there is one. A body that ended with it leaves the connection idle.
    fn take_piece(&mut self) -> Result<Option<Frame<Bytes>>, Http1Error> {
        let piece = self.reading.take(&mut self.reader.unread)?;
        if piece.is_some() {
            // What is wrong with what follows is found when that is taken.
            let _ = self.reading.look_ahead(&mut self.reader.unread);
        }
        if self.reading == Reading::Done {
            self.state = State::Idle;
        }
        Ok(piece)
    }

    /// The next piece of an answer's body, while what is left of the request is written.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Http1Body,
    ) -> Poll<Option<BodyPiece>> {
        if !self.outgoing.is_done() {
            let _ = self.poll_write(cx);
        }
        if let Some(first) = body.first.take() {
            return Poll::Ready(Some(Ok(body.count(first))));
        }
        let piece = ready!(self.poll_piece(cx));
        body.ended = self.state != State::Body;
        Poll::Ready(piece.map(|piece| piece.map(|frame| body.count(frame)).map_err(ExchangeError::from)))
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Http1Error>>> {
        loop {
            if self.state != State::Body {
                return Poll::Ready(None);
            }
            match self.take_piece() {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                Ok(None) if self.state != State::Body => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(self.broken(error)))),
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) if self.reading == Reading::ToTheEnd => {
                    self.reading = Reading::Done;
                    self.state = State::Idle;
                }
                Ok(0) => return Poll::Ready(Some(Err(self.broken(Http1Error::Truncated)))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(self.broken(error.into())))),
            }
        }
    }

    fn broken(&mut self, error: Http1Error) -> Http1Error {
        self.state = State::Broken;
        error
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            // It has opened it in memory of its own.
            Transport::Tls(stream) if self.reader.unread.is_empty() => {
                self.reader.unread = ready!(stream.poll_take(cx))?;
                Poll::Ready(Ok(self.reader.unread.len()))
            }
            transport => self.reader.poll_fill(cx, transport),
        }
    }

    /// Writes as much as can be written now. Ready: the request is written whole.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Http1Error>> {
        self.outgoing.poll(cx, &mut self.transport)
    }

    /// Whether the upstream has switched protocols, so that the bytes can be taken out.
    pub(super) fn is_switched(&self) -> bool {
        self.state == State::Switched
    }

    /// The bytes below it, and what was read of them already. `None`: the request was not yet written whole.
    pub(super) fn into_transport(self) -> Option<(Transport, Bytes)> {
        self.outgoing.is_done().then_some((self.transport, self.reader.unread))
    }

    /// Gives the exchange a task of its own, to its end. It keeps the place of its request.
    pub(super) fn detach(self: Box<Self>, body: &mut Http1Body, admission: Option<Admission>) {
        body.apart = Some(apart::spawn(self, admission));
    }
}

fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// Why nothing came: because nothing could be written, if that was so.
fn written_first(written: Poll<Result<(), Http1Error>>, otherwise: Http1Error) -> ExchangeError {
    match written {
        Poll::Ready(Err(error)) => error.into(),
        _ => otherwise.into(),
    }
}

fn failed<B>(error: ExchangeError, untaken: Option<B>, answered: bool) -> SendError<B> {
    SendError { error, unsent: untaken.is_some(), untaken, unprocessed: false, answered }
}
