//! One stream: a request, and its answer piece by piece.
//!
//! Owns: flow control towards the client (a piece is given to the codec when there is room for it), and how an exchange
//! that breaks off is told: by RST_STREAM, never by a clean end.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;

use super::tasks::{Desk, Runner, Tasks};
use super::tunnel as connect;
use crate::listener::Limits;
use crate::listener::serve::Stop;
use crate::listener::timer::Timer;
use crate::listener::tunnel;
use crate::proxy::{self, Client, ClientBody, RequestBody, ResponseBody, Site, Switched, extended};
use crate::upstream::{StreamIo, Upgraded, tidy};

/// What the streams of a connection have in common.
pub(super) struct Common {
    pub(super) site: Rc<Site>,
    pub(super) limits: Limits,
}

/// A stream whose head is there.
pub(super) struct Job {
    pub(super) common: Rc<Common>,
    pub(super) client: Rc<Client>,
    pub(super) request: Request<RecvStream>,
    pub(super) respond: SendResponse<Bytes>,
}

thread_local! {
    static KEPT: RefCell<Vec<Runner<Job>>> = const { RefCell::new(Vec::new()) };
}

/// For the streams of one connection.
pub(super) fn tasks<T>() -> Tasks<Job, T> {
    Tasks::new(|| Runner::new(serve), &KEPT)
}

async fn serve(desk: Rc<Desk<Job>>) -> Infallible {
    loop {
        run(desk.next().await).await;
    }
}

/// Serves one stream.
async fn run(job: Job) {
    let Job { common, client, request, mut respond } = job;
    let (mut head, incoming) = request.into_parts();
    // What follows an extended CONNECT is no body: it waits for the upstream to agree.
    let (body, incoming) = if head.method == Method::CONNECT && extended::as_upgrade(&mut head) {
        (ClientBody::Empty, Some(incoming))
    } else {
        (ClientBody::of_stream(incoming, &head.headers), None)
    };
    let request = Request::from_parts(head, body);
    let mut answer = None;
    {
        let mut handling = pin!(proxy::handle(Rc::clone(&common.site), Rc::clone(&client), request));
        std::future::poll_fn(|cx| {
            client.keep(cx.waker());
            if client.is_cut() {
                respond.send_reset(Reason::CANCEL);
                return Poll::Ready(());
            }
            if let Poll::Ready(ready) = handling.as_mut().poll(cx) {
                answer = Some(ready);
            }
            for interim in client.take_interims() {
                // What comes of it is seen when the answer is sent.
                let _ = respond.send_informational(interim);
            }
            if answer.is_some() {
                return Poll::Ready(());
            }
            // The client may lose its interest.
            respond.poll_reset(cx).map(|_| ())
        })
        .await;
    }
    let Some(answer) = answer else { return };
    match client.take_switched() {
        None => reply(&client, answer, respond).await,
        // Boxed: a stream that only carries a request does not carry it.
        Some(switched) => {
            Box::pin(join(&common, &client, *switched, answer, respond, incoming)).await;
        }
    }
}

/// The stream is joined with another side. `incoming`: what follows an extended CONNECT.
async fn join(
    common: &Common,
    client: &Rc<Client>,
    switched: Switched,
    answer: Response<ResponseBody>,
    respond: SendResponse<Bytes>,
    incoming: Option<RecvStream>,
) {
    match (switched, incoming) {
        (Switched::Tunnel(tunnel), _) => {
            let head = head_alone(answer);
            client.joined();
            connect::run(client, head, respond, tunnel).await;
        }
        (Switched::Intercept(intercept), _) => {
            let head = head_alone(answer);
            client.joined();
            let around = (Rc::clone(&common.site), common.limits);
            connect::intercept(client, head, respond, intercept, around).await;
        }
        (Switched::Upgraded(upstream), Some(incoming))
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS =>
        {
            let head = head_alone(answer);
            switch(head, respond, incoming, upstream, common.limits.tunnel_idle_timeout).await;
        }
        (Switched::Upgraded(_), _) => reply(client, answer, respond).await,
    }
}

/// Its body, which is empty, ends the exchange that opened a way.
fn head_alone(answer: Response<ResponseBody>) -> Response<()> {
    let (head, body) = answer.into_parts();
    drop(body);
    Response::from_parts(head, ())
}

/// The upstream has switched protocols (RFC 8441): the stream carries bytes to its end.
async fn switch(
    head: Response<()>,
    mut respond: SendResponse<Bytes>,
    incoming: RecvStream,
    upstream: Upgraded<RequestBody>,
    idle: Duration,
) {
    let (mut head, ()) = head.into_parts();
    extended::as_stream_answer(&mut head.status, &mut head.headers);
    let head = Response::from_parts(head, ());
    let Ok(outgoing) = respond.send_response(head, false) else { return };
    // What is left in it counts the upstream connection until the end.
    let Upgraded { transport, read, .. } = upstream;
    let near = (StreamIo::new(outgoing, incoming), Bytes::new());
    tunnel::run(near, (transport, read), &Stop::default(), &mut Timer::new(), idle).await;
}

async fn reply(client: &Client, answer: Response<ResponseBody>, respond: SendResponse<Bytes>) {
    if let Some(mut outgoing) = begin(answer, respond) {
        std::future::poll_fn(|cx| outgoing.poll(cx, client)).await;
    }
}

/// Sends the head. `None`: there is nothing more to send.
fn begin(answer: Response<ResponseBody>, mut respond: SendResponse<Bytes>) -> Option<Outgoing> {
    let (head, body) = answer.into_parts();
    let mut head = Response::from_parts(head, ());
    complete(head.status(), &body, head.headers_mut());
    let ended = body.is_end_stream();
    match respond.send_response(head, ended) {
        Ok(_) if ended => None,
        Ok(stream) => Some(Outgoing { stream, body, piece: Bytes::new(), last: false }),
        Err(error) => {
            tracing::debug!(%error, "an answer could not be sent");
            respond.send_reset(Reason::INTERNAL_ERROR);
            None
        }
    }
}

/// Makes of a head what HTTP/2 wants to see.
fn complete(status: StatusCode, body: &ResponseBody, headers: &mut HeaderMap) {
    // The upstream's fields of its connection are gone already; the route's own may be there.
    tidy(headers);
    if let Some(length) = body.size_hint().exact()
        && length > 0
        && status != StatusCode::NO_CONTENT
        && !headers.contains_key(header::CONTENT_LENGTH)
    {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// A body on its way out.
struct Outgoing {
    stream: SendStream<Bytes>,
    body: ResponseBody,
    /// What the client has no room for yet.
    piece: Bytes,
    /// Nothing comes behind `piece`.
    last: bool,
}

impl Outgoing {
    fn poll(&mut self, cx: &mut Context<'_>, client: &Client) -> Poll<()> {
        loop {
            client.keep(cx.waker());
            if client.is_cut() {
                self.stream.send_reset(Reason::CANCEL);
                return Poll::Ready(());
            }
            let turn = if self.piece.is_empty() { self.poll_body(cx) } else { self.poll_room(cx, client) };
            match turn {
                Poll::Ready(Turn::More) => {}
                Poll::Ready(Turn::Done) => return Poll::Ready(()),
                Poll::Ready(Turn::Broken(reason)) => {
                    self.stream.send_reset(reason);
                    return Poll::Ready(());
                }
                // The client may lose its interest. Whoever has something to send learns it of that.
                Poll::Pending => return self.stream.poll_reset(cx).map(|_| ()),
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(None) => return self.send(Bytes::new(), true),
            Poll::Ready(Some(Err(_))) => return Poll::Ready(Turn::Broken(Reason::INTERNAL_ERROR)),
            Poll::Pending => return Poll::Pending,
        };
        match frame.into_data() {
            Ok(piece) => {
                self.last = self.body.is_end_stream();
                if piece.is_empty() {
                    return if self.last { self.send(piece, true) } else { Poll::Ready(Turn::More) };
                }
                self.piece = piece;
                Poll::Ready(Turn::More)
            }
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => match self.stream.send_trailers(trailers) {
                    Ok(()) => Poll::Ready(Turn::Done),
                    Err(_) => Poll::Ready(Turn::Broken(Reason::INTERNAL_ERROR)),
                },
                Err(_) => Poll::Ready(Turn::More),
            },
        }
    }

    /// Sends as much of the piece as the client has room for.
    fn poll_room(&mut self, cx: &mut Context<'_>, client: &Client) -> Poll<Turn> {
        self.stream.reserve_capacity(self.piece.len());
        let mut waited = false;
        let room = loop {
            match self.stream.capacity() {
                0 => waited = true,
                room => break room,
            }
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return Poll::Ready(Turn::Done),
                Poll::Pending if client.upstream_is_late() => {
                    return Poll::Ready(Turn::Broken(Reason::CANCEL));
                }
                Poll::Pending => {
                    client.await_room();
                    return Poll::Pending;
                }
            }
        };
        let length = room.min(self.piece.len());
        if waited || length < self.piece.len() {
            client.room_made();
        }
        let piece = self.piece.split_to(length);
        let last = self.last && self.piece.is_empty();
        self.send(piece, last)
    }

    fn send(&mut self, piece: Bytes, last: bool) -> Poll<Turn> {
        Poll::Ready(match self.stream.send_data(piece, last) {
            Ok(()) if last => Turn::Done,
            Ok(()) => Turn::More,
            // The stream is gone.
            Err(_) => Turn::Done,
        })
    }
}

/// What one turn brought.
enum Turn {
    More,
    Done,
    Broken(Reason),
}
