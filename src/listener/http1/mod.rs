//! One client connection that speaks HTTP/1.1 (RFC 9112).
//!
//! Owns: the order of its messages: a head, its answer, the next head. Writes what cannot be read as a request an answer of
//! its own. It has one task; a body that is passed on while the answer is awaited is read where it is needed.

mod answer;
mod date;
mod head;
mod read_all;
mod wire;

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use self::answer::For;
use self::head::{Asked, HeadLimits};
pub(super) use self::read_all::read_all;
use self::wire::Wire;
use super::Limits;
use super::serve::{End, Stop, Wish};
use super::stream::ClientStream;
use super::timer::Timer;
use crate::http1::{Http1Error, Outgoing, Reading, Writing, keep_fields};
use crate::proxy::{
    self, Arriving, BadHead, Client, ClientBody, Due, ResponseBody, Site, Switched, refuse_head,
};

/// Pieces of an answer up to this length go out with what stands before them: one system call for one buffer costs less
/// than for several.
const COPIED: usize = 2 * 1024;
/// How long a client is answered that has closed its side: many that do so have left, and the upstream works for nobody.
const LISTENS: Duration = Duration::from_secs(1);
/// How much of what nobody wants is taken, and for how long, so that the client reads the answer and not of a reset.
const MAX_DISCARDED: usize = 1024 * 1024;
const DISCARDS: Duration = Duration::from_secs(2);

/// How HTTP ended on a connection.
pub(super) enum Ended {
    /// With the connection.
    Closed(End),
    /// The bytes are another's from here on, those that were read already first.
    Switched(Box<Switched>, ClientStream, Bytes),
}

/// Serves a connection to its end. `read` was read from it before.
pub(super) async fn serve(
    (stream, read): (ClientStream, Bytes),
    client: &Rc<Client>,
    site: &Rc<Site>,
    limits: &Limits,
    stop: &Stop,
    timer: &mut Timer,
) -> Ended {
    let head_limits = HeadLimits { bytes: limits.header_bytes, fields: limits.client.header_count };
    let wire = Wire::new(stream, read);
    let guard = Guard(Rc::clone(&wire));
    let mut connection = Connection {
        wire,
        client,
        site,
        limits: head_limits,
        stop,
        timer,
        outgoing: Outgoing::new(COPIED),
        leaves_by: None,
        broke_off: false,
        looked_at: 0,
    };
    let served = connection.serve().await;
    drop(guard);
    match served {
        Ok(switched) => match Rc::try_unwrap(connection.wire) {
            Ok(wire) => {
                let unread = wire.reader.into_inner().unread;
                Ended::Switched(switched, wire.stream.into_inner(), unread)
            }
            // Somebody still holds the body of the request that switched: nobody knows whose the bytes are.
            Err(_) => Ended::Closed(End::Closed),
        },
        Err(end) => {
            if connection.outgoing.ends_with_connection() {
                connection.wire.stream.borrow().reset_when_dropped();
            }
            Ended::Closed(end)
        }
    }
}

struct Connection<'c> {
    wire: Rc<Wire>,
    client: &'c Rc<Client>,
    site: &'c Rc<Site>,
    limits: HeadLimits,
    stop: &'c Stop,
    timer: &'c mut Timer,
    outgoing: Outgoing<ResponseBody>,
    /// The client has closed its side and is answered until then.
    leaves_by: Option<Instant>,
    /// The body of the answer was not whole.
    broke_off: bool,
    /// How much of a head was there when it was found not to be whole.
    looked_at: usize,
}

/// Lets nobody read on when the connection has ended, however it does.
struct Guard(Rc<Wire>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// Why no request comes.
enum NoHead {
    End(End),
    Bad(BadHead),
}

impl Connection<'_> {
    /// Serves one request after the other, up to the one that switches protocols.
    async fn serve(&mut self) -> Result<Box<Switched>, End> {
        loop {
            let asked = match std::future::poll_fn(|cx| self.poll_head(cx)).await {
                Ok(asked) => asked,
                Err(NoHead::Bad(reason)) => return Err(self.refuse(reason).await),
                Err(NoHead::End(End::Late)) if self.client.is_in_first_head() => return Err(self.tell_late()),
                Err(NoHead::End(End::Closed)) => return Err(self.close().await),
                Err(NoHead::End(end)) => return Err(end),
            };
            let asks = For::new(&asked.head.method, asked.head.version, asked.persists);
            self.client.over_http1(asks.knows_interims());
            let request = self.begin(asked);
            let answer = {
                let handling = proxy::handle(Rc::clone(self.site), Rc::clone(self.client), request);
                let mut handling = pin!(handling);
                std::future::poll_fn(|cx| self.poll_handling(cx, handling.as_mut())).await?
            };
            let persists = self.answer(answer, asks)?;
            std::future::poll_fn(|cx| self.poll_answer(cx)).await?;
            if let Some(switched) = self.client.take_switched() {
                return Ok(switched);
            }
            let whole = persists && (self.wire.is_between() || self.discard().await?);
            if !whole {
                return Err(self.close().await);
            }
        }
    }

    /// Waits for the head of a request.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Asked, NoHead>> {
        loop {
            let seen = self.looked_at;
            if self.wire.reader.borrow().unread.len() > seen {
                self.client.bytes_arrived();
                let unread = &mut self.wire.reader.borrow_mut().unread;
                match head::read_request(unread, self.limits, seen > 0) {
                    Ok(Some(asked)) => {
                        self.looked_at = 0;
                        return Poll::Ready(Ok(asked));
                    }
                    Ok(None) => self.looked_at = unread.len(),
                    Err(reason) => return Poll::Ready(Err(NoHead::Bad(reason))),
                }
            }
            match self.wire.poll_fill(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(NoHead::End(End::Closed))),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => {
                    if self.stop.wish() == Wish::Finish && self.client.is_idle() {
                        return Poll::Ready(Err(NoHead::End(End::Closed)));
                    }
                    ready!(self.poll_watch(cx)).map_err(NoHead::End)?;
                }
            }
        }
    }

    /// Hands a request on.
    fn begin(&self, asked: Asked) -> Request<ClientBody> {
        let Asked { head, body, malformed, expects, .. } = asked;
        if let Some(malformed) = malformed {
            self.client.malformed(malformed);
        }
        let body = if body == Reading::Done {
            ClientBody::Empty
        } else {
            self.wire.begin_body(body, expects);
            ClientBody::Http1(Arriving::on(Rc::clone(&self.wire) as Rc<_>))
        };
        Request::from_parts(head, body)
    }

    /// Waits for the answer. Interim ones go out meanwhile.
    fn poll_handling(
        &mut self,
        cx: &mut Context<'_>,
        mut handling: Pin<&mut impl Future<Output = Response<ResponseBody>>>,
    ) -> Poll<Result<Response<ResponseBody>, End>> {
        loop {
            let answer = handling.as_mut().poll(cx);
            self.write_interims(cx)?;
            if let Poll::Ready(answer) = answer {
                return Poll::Ready(Ok(answer));
            }
            self.look_for_leaving(cx)?;
            ready!(self.poll_watch(cx))?;
        }
    }

    fn write_interims(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let mut write = |status, headers: &http::HeaderMap| {
            let _ = self.outgoing.begin(None, |out| {
                answer::write_interim(status, headers, out);
                Ok(Writing::Done)
            });
        };
        for interim in self.client.take_interims() {
            // A 100 goes out when the body is asked for.
            if interim.status() != StatusCode::CONTINUE {
                write(interim.status(), interim.headers());
            }
        }
        if self.wire.take_invitation() {
            write(StatusCode::CONTINUE, &http::HeaderMap::new());
        }
        if !self.outgoing.is_done()
            && let Poll::Ready(Err(error)) = self.outgoing.poll(cx, &mut *self.wire.stream.borrow_mut())
        {
            return Err(gone(&error));
        }
        Ok(())
    }

    /// Begins to answer; whether the connection goes on behind the answer.
    fn answer(&mut self, answer: Response<ResponseBody>, asks: For) -> Result<bool, End> {
        let (head, body) = answer.into_parts();
        self.wire.uninvite();
        let last = self.leaves_by.is_some() || self.stop.wish() != Wish::Serve || self.wire.is_broken();
        let body = (!body.is_end_stream()).then_some(body);
        let length = body.as_ref().map_or(Some(0), |body| body.size_hint().exact());
        let clock = self.site.identity.clock();
        let mut persists = false;
        let written = self.outgoing.begin(body, |out| {
            let said = answer::write(&head, length, asks, last, clock, out)?;
            persists = said.persists;
            Ok(said.framing)
        });
        keep_fields(head.headers);
        written.map_err(|error| gone(&error))?;
        Ok(persists)
    }

    /// Writes the answer.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        loop {
            let written = self.outgoing.poll(cx, &mut *self.wire.stream.borrow_mut());
            match written {
                Poll::Ready(Ok(())) if self.broke_off => return Poll::Ready(Err(End::Closed)),
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(Http1Error::Body)) => {
                    // What came of it goes out; that this was not all shows in how the connection ends.
                    self.outgoing.break_off();
                    self.broke_off = true;
                    continue;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(gone(&error))),
                Poll::Pending => {}
            }
            self.look_for_leaving(cx)?;
            ready!(self.poll_watch(cx))?;
        }
    }

    /// A client that closes its side behind a whole request may still wait for its answer, for a while.
    fn look_for_leaving(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        if self.leaves_by.is_some() || !self.wire.is_between() || self.wire.has_unread() {
            return Ok(());
        }
        match self.wire.poll_fill(cx) {
            Poll::Ready(Ok(0)) => self.leaves_by = Some(Instant::now() + LISTENS),
            Poll::Ready(Err(_)) => return Err(End::Closed),
            Poll::Ready(Ok(_)) | Poll::Pending => {}
        }
        Ok(())
    }

    /// Looks at what else ends a connection. Ready: it goes on and is to be polled again, or it ends.
    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if self.stop.wish() == Wish::Cut {
            return Poll::Ready(Err(End::Cut));
        }
        self.stop.keep(cx);
        let due = self.client.next_deadline();
        let Some(nearest) = due.into_iter().chain(self.leaves_by).min() else { return Poll::Pending };
        if !self.timer.poll(cx, nearest) {
            return Poll::Pending;
        }
        let now = Instant::now();
        if self.leaves_by.is_some_and(|end| end <= now) {
            return Poll::Ready(Err(End::Closed));
        }
        let passed = due.is_some_and(|deadline| deadline <= now);
        Poll::Ready(if passed && self.client.deadline_passed(now) == Due::Close {
            Err(End::Late)
        } else {
            Ok(())
        })
    }

    /// Takes what is left of the request: the next one lies behind it. Whether that can be reached.
    async fn discard(&mut self) -> Result<bool, End> {
        let limit = Instant::now() + DISCARDS;
        let mut room = MAX_DISCARDED;
        std::future::poll_fn(|cx| {
            loop {
                if self.wire.is_broken() {
                    return Poll::Ready(Ok(false));
                }
                if self.wire.is_between() {
                    return Poll::Ready(Ok(true));
                }
                if self.wire.is_held() {
                    // Somebody else reads it, and has a limit of its own.
                    self.wire.wait(cx);
                    ready!(self.poll_watch(cx))?;
                    continue;
                }
                match self.wire.poll_discard(cx) {
                    Poll::Ready(Some(count)) if count <= room => room -= count,
                    Poll::Ready(_) => return Poll::Ready(Ok(self.wire.is_between())),
                    Poll::Pending if self.timer.poll(cx, limit) => return Poll::Ready(Ok(false)),
                    Poll::Pending => ready!(self.poll_watch(cx))?,
                }
            }
        })
        .await
    }

    /// Closes the connection in good order.
    async fn close(&mut self) -> End {
        let cut = std::future::poll_fn(|cx| {
            let closed = Pin::new(&mut *self.wire.stream.borrow_mut()).poll_shutdown(cx);
            if closed.is_ready() {
                Poll::Ready(Ok(()))
            } else {
                self.poll_watch(cx).map(|turn| turn.and(Ok(())))
            }
        });
        if let Err(end) = cut.await {
            return end;
        }
        if self.wire.is_held() && !self.wire.is_broken() {
            // Whoever passes it on may come to its end.
            if let Err(end) = self.discard().await {
                return end;
            }
        }
        if self.wire.is_between() && !self.wire.has_unread() {
            return End::Closed;
        }
        self.wire.abandon();
        // RFC 9112, 9.6: with unread bytes the kernel would reset the connection, and the answer would be lost.
        let limit = Instant::now() + DISCARDS;
        let mut room = MAX_DISCARDED;
        std::future::poll_fn(|cx| {
            loop {
                self.wire.reader.borrow_mut().unread = Bytes::new();
                match self.wire.poll_fill(cx) {
                    Poll::Ready(Ok(1..)) if self.wire.reader.borrow().unread.len() < room => {
                        room -= self.wire.reader.borrow().unread.len();
                    }
                    Poll::Ready(_) => return Poll::Ready(End::Closed),
                    Poll::Pending if self.stop.wish() == Wish::Cut => return Poll::Ready(End::Cut),
                    Poll::Pending if self.timer.poll(cx, limit) => return Poll::Ready(End::Closed),
                    Poll::Pending => {
                        self.stop.keep(cx);
                        return Poll::Pending;
                    }
                }
            }
        })
        .await
    }

    /// Tells why a head is no request.
    async fn refuse(&mut self, reason: BadHead) -> End {
        self.write_refusal(reason);
        match std::future::poll_fn(|cx| self.poll_answer(cx)).await {
            Ok(()) => {
                // What follows is not understood.
                self.wire.lose_track();
                match self.close().await {
                    End::Cut => End::Cut,
                    _ => End::RefusedHead,
                }
            }
            Err(_) => End::RefusedHead,
        }
    }

    /// Says that the first head did not come in time: once, without waiting for a client that does not read.
    fn tell_late(&mut self) -> End {
        self.write_refusal(BadHead::Late);
        let mut cx = Context::from_waker(Waker::noop());
        let stream = &mut *self.wire.stream.borrow_mut();
        let _ = self.outgoing.poll(&mut cx, stream);
        let _ = Pin::new(stream).poll_shutdown(&mut cx);
        End::Late
    }

    fn write_refusal(&mut self, reason: BadHead) {
        let mut date = b"date: ".to_vec();
        date::write(self.site.identity.clock(), &mut date);
        date.extend_from_slice(b"\r\n");
        let refusal = refuse_head(self.site, self.client, reason, &date);
        let _ = self.outgoing.begin(None, |out| {
            out.extend_from_slice(&refusal);
            Ok(Writing::Done)
        });
    }
}

fn gone(error: &Http1Error) -> End {
    tracing::debug!(%error, "a client connection broke off");
    End::Closed
}
