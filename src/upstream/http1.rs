//! A connection that speaks HTTP/1.1, with one exchange at a time.
//!
//! Owns: driving it. It has no task of its own: the task that holds its lease drives it, so that a request costs no
//! wake-up of a second task. Whether the upstream closed an idle connection is seen when it is driven to send the next
//! request, before a byte of that is written.

use std::cell::Cell;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::{Admission, AnswerBody, DialError, ExchangeError, SendError, Transport};

/// The most that is read from a connection at a time, and so the longest head of an answer. A client that does not read
/// holds a few of these: read, handed over, and waiting to be written.
const READ_BUFFER: usize = 64 * 1024;

/// What may come before the head of the final answer is whole: that head, and interim answers.
const MAX_BEFORE_ANSWER: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct Idle<B: Body + 'static> {
    pub(super) connection: Box<Connection<B>>,
    pub(super) since: Instant,
}

#[derive(Debug)]
pub(super) struct Connection<B: Body + 'static> {
    sender: SendRequest<B>,
    /// `None` once it has ended without taking the request that it was given.
    driver: Option<http1::Connection<TokioIo<Heard>, B>>,
    /// Bytes that came since the last request was begun.
    heard: Rc<Cell<usize>>,
    ended: bool,
    pub(super) reused: bool,
    /// Not to be used again.
    pub(super) retired: bool,
    /// The connector's when it was opened.
    pub(super) epoch: u64,
}

impl<B> Connection<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) async fn open(transport: Transport) -> Result<Box<Self>, DialError> {
        let mut builder = http1::Builder::new();
        // RFC 9112, 5.1: a proxy removes a space before the colon of an answer's field.
        builder.writev(false).max_buf_size(READ_BUFFER).allow_spaces_after_header_name_in_responses(true);
        let heard = Rc::new(Cell::new(0));
        let io = TokioIo::new(Heard { transport, bytes: Rc::clone(&heard) });
        let (sender, driver) = builder.handshake(io).await.map_err(|_| DialError::Unreachable)?;
        let driver = Some(driver);
        let mut connection =
            Box::new(Self { sender, driver, heard, ended: false, reused: false, retired: false, epoch: 0 });
        // It is ready for a request once it was driven.
        connection.drive(&mut Context::from_waker(Waker::noop()));
        Ok(connection)
    }

    /// Moves the connection on; whether it has ended.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        drive(&mut self.driver, &mut self.ended, cx);
        self.ended
    }

    /// Whether the exchange on it is complete in both directions.
    pub(super) fn is_idle(&self) -> bool {
        !self.ended && self.sender.is_ready()
    }

    pub(super) async fn send(
        &mut self,
        request: Request<B>,
        interrupt: impl Fn() -> bool,
    ) -> Option<Result<Response<AnswerBody>, SendError<B>>> {
        let Self { sender, driver, heard, ended, .. } = self;
        heard.set(0);
        let mut answer = pin!(sender.try_send_request(request));
        let mut sent = false;
        std::future::poll_fn(|cx| {
            let quiet = &mut Context::from_waker(Waker::noop());
            // What the driver hands over is taken by this same task at once: a waker would wake it for nothing. So it is
            // driven without one first, and with one where it has to wait.
            if sent {
                drive(driver, ended, quiet);
                if heard.get() <= MAX_BEFORE_ANSWER
                    && let Poll::Ready(outcome) = answer.as_mut().poll(quiet)
                {
                    return Poll::Ready(Some(settled(outcome, heard)));
                }
            }
            drive(driver, ended, cx);
            sent = true;
            let mut outcome = answer.as_mut().poll(quiet);
            if *ended && outcome.is_pending() {
                // It ended before it took the request, and gives that back with its own end.
                *driver = None;
                outcome = answer.as_mut().poll(quiet);
            }
            match outcome {
                _ if heard.get() > MAX_BEFORE_ANSWER => Poll::Ready(Some(Err(endless()))),
                Poll::Ready(outcome) => Poll::Ready(Some(settled(outcome, heard))),
                Poll::Pending if interrupt() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Whether the upstream has switched protocols, so that the bytes can be taken out.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The bytes below it, and what was read of them already.
    pub(super) fn into_transport(self) -> Option<(Transport, Bytes)> {
        let parts = self.driver?.into_parts();
        Some((parts.io.into_inner().transport, parts.read_buf))
    }

    /// Gives the connection a task of its own, to its end. It keeps the place of its request.
    pub(super) fn detach(self, admission: Option<Admission>) {
        let Some(driver) = self.driver else { return };
        tokio::task::spawn_local(async move {
            let _admission = admission;
            if let Err(error) = driver.await {
                tracing::debug!(%error, "an upstream connection broke off");
            }
        });
    }
}

fn drive<B>(driver: &mut Option<http1::Connection<TokioIo<Heard>, B>>, ended: &mut bool, cx: &mut Context<'_>)
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if !*ended
        && let Some(driver) = driver
        && Pin::new(driver).poll(cx).is_ready()
    {
        *ended = true;
    }
}

#[allow(clippy::result_large_err, reason = "it is moved once, into a result of the same size")]
fn settled<B>(
    outcome: Result<Response<Incoming>, hyper::client::conn::TrySendError<Request<B>>>,
    heard: &Cell<usize>,
) -> Result<Response<AnswerBody>, SendError<B>> {
    match outcome {
        Ok(answer) => Ok(answer.map(AnswerBody::Http1)),
        Err(mut failure) => {
            let unsent = failure.take_message();
            let (error, answered) = (failure.into_error().into(), heard.get() > 0);
            Err(SendError { error, unsent, untaken: None, unprocessed: false, answered })
        }
    }
}

/// The upstream goes on with interim answers.
#[cold]
fn endless<B>() -> SendError<B> {
    let error = ExchangeError::Endless;
    SendError { error, unsent: None, untaken: None, unprocessed: false, answered: true }
}

/// Counts what comes.
#[derive(Debug)]
struct Heard {
    transport: Transport,
    bytes: Rc<Cell<usize>>,
}

impl AsyncRead for Heard {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let outcome = Pin::new(&mut this.transport).poll_read(cx, buf);
        this.bytes.set(this.bytes.get().wrapping_add(buf.filled().len() - before));
        outcome
    }
}

impl AsyncWrite for Heard {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().transport).poll_write(cx, buf)
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_shutdown(cx)
    }
}
