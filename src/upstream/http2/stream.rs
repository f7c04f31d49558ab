//! One exchange on a stream.
//!
//! Owns: the form of a request's head in HTTP/2 (RFC 9113, 8.3), and what the end of a stream means for the request.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Body;

use super::connection::Place;
use super::fields::tidy;
use super::upload::{Upload, Uploaded};
use crate::upstream::{AnswerBody, ExchangeError, SendError, StreamBody, StreamIo, websocket};

/// The most interim answers (1xx) before the final one.
const MAX_INTERIM: u32 = 1000;

/// An exchange.
#[derive(Debug)]
pub(in crate::upstream) struct Stream<B> {
    place: Option<Rc<Place>>,
    /// The body of the request, until it is sent.
    upload: Option<Upload<B>>,
    reused: bool,
    state: State,
    /// For a request that is to become a WebSocket.
    tunnel: Option<Box<Tunnel>>,
}

/// The two halves of what begins with an extended CONNECT.
#[derive(Debug)]
struct Tunnel {
    outgoing: SendStream<Bytes>,
    /// There when the upstream has agreed.
    incoming: Option<RecvStream>,
    /// What the client's key has to be answered with.
    accept: Option<HeaderValue>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The head of the answer is not there.
    Asking,
    /// The body of the answer may still come.
    Answered,
    /// There is no more of it.
    Done,
}

impl<B> Stream<B>
where
    B: Body<Data = Bytes> + 'static,
{
    pub(in crate::upstream) fn new(place: Place) -> Self {
        Self {
            reused: place.reused(),
            place: Some(Rc::new(place)),
            upload: None,
            state: State::Asking,
            tunnel: None,
        }
    }

    pub(in crate::upstream) fn reused(&self) -> bool {
        self.reused
    }

    /// Whether its upstream takes WebSockets.
    pub(in crate::upstream) fn takes_websockets(&self) -> bool {
        self.place.as_ref().is_some_and(|place| place.takes_websockets())
    }

    /// Whether all of the request was sent and all of the answer is there.
    pub(in crate::upstream) fn is_done(&self) -> bool {
        self.upload.is_none() && self.state == State::Done
    }

    /// Whether the upstream has the whole request and began to answer.
    pub(in crate::upstream) fn is_sent(&self) -> bool {
        self.upload.is_none() && self.state != State::Asking
    }
}

impl<B> Stream<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
{
    pub(in crate::upstream) async fn send(
        &mut self,
        request: Request<B>,
        interrupt: impl Fn() -> bool,
        mut informed: impl FnMut(Response<()>),
    ) -> Option<Result<Response<AnswerBody>, SendError<B>>> {
        let place = self.place.clone()?;
        let mut answer = match self.open(&place, request) {
            Ok(answer) => answer,
            Err(error) => return Some(Err(error)),
        };
        let mut interim = 0;
        let outcome = std::future::poll_fn(|cx| {
            if self.poll_upload(cx) == Poll::Ready(Uploaded::Broken) {
                return Poll::Ready(Some(Err(ExchangeError::Body)));
            }
            loop {
                match answer.poll_informational(cx) {
                    Poll::Ready(Some(Ok(information))) => {
                        interim += 1;
                        if interim > MAX_INTERIM {
                            return Poll::Ready(Some(Err(ExchangeError::Endless)));
                        }
                        informed(information);
                        // It may be what the body waited for.
                        let _ = self.poll_upload(cx);
                    }
                    // The final one, or what went wrong.
                    Poll::Ready(_) => break,
                    // Neither is there.
                    Poll::Pending if interrupt() => return Poll::Ready(None),
                    Poll::Pending => return Poll::Pending,
                }
            }
            match std::pin::Pin::new(&mut answer).poll(cx) {
                Poll::Ready(outcome) => Poll::Ready(Some(outcome.map_err(ExchangeError::from))),
                Poll::Pending if interrupt() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await?;
        Some(match outcome {
            Ok(answer) => Ok(self.answered(place, answer)),
            Err(error) => Err(self.failed(&place, error)),
        })
    }

    #[allow(clippy::result_large_err, reason = "it is moved once")]
    fn open(&mut self, place: &Place, request: Request<B>) -> Result<ResponseFuture, SendError<B>> {
        if let Err(error) = place.ready() {
            return Err(SendError {
                error: error.into(),
                unsent: true,
                untaken: Some(request.into_body()),
                unprocessed: true,
                answered: false,
            });
        }
        let switches = request.headers().contains_key(header::UPGRADE);
        if switches && !(place.takes_websockets() && websocket::is_offered(request.headers())) {
            let error = ExchangeError::NoWebSocket;
            return Err(SendError {
                error,
                unsent: false,
                untaken: None,
                unprocessed: false,
                answered: false,
            });
        }
        let (mut head, body) = request.into_parts();
        let host = head.headers.remove(header::HOST);
        tidy(&mut head.headers);
        let mut parts = http::uri::Parts::default();
        parts.authority = host.and_then(|host| place.authority(host.as_bytes()));
        parts.scheme = Some(if place.secure() { Scheme::HTTPS } else { Scheme::HTTP });
        parts.path_and_query = head.uri.into_parts().path_and_query.or(Some(PathAndQuery::from_static("/")));
        head.uri = Uri::from_parts(parts).unwrap_or_default();
        head.version = Version::HTTP_2;
        let accept = if switches { as_extended_connect(&mut head) } else { None };
        let ended = body.is_end_stream() && !switches;
        match place.open(Request::from_parts(head, ()), ended) {
            Ok((answer, stream)) => {
                if switches {
                    self.tunnel = Some(Box::new(Tunnel { outgoing: stream, incoming: None, accept }));
                } else if !ended {
                    self.upload = Some(Upload::new(stream, body));
                }
                Ok(answer)
            }
            Err(error) => {
                let untaken = Some(body);
                Err(SendError {
                    error: error.into(),
                    unsent: false,
                    untaken,
                    unprocessed: true,
                    answered: false,
                })
            }
        }
    }

    fn answered(&mut self, place: Rc<Place>, answer: Response<h2::RecvStream>) -> Response<AnswerBody> {
        let (mut head, stream) = answer.into_parts();
        if let Some(tunnel) = &mut self.tunnel {
            if head.status.is_success() {
                as_switched(&mut head, tunnel.accept.take());
                tunnel.incoming = Some(stream);
                return Response::from_parts(head, AnswerBody::Switched);
            }
            // There is nothing more to say to an upstream that does not agree.
            let _ = tunnel.outgoing.send_data(Bytes::new(), true);
            self.tunnel = None;
        }
        let ended = stream.is_end_stream();
        self.state = if ended { State::Done } else { State::Answered };
        let place = (!ended).then_some(place);
        if ended && self.upload.is_none() {
            self.place = None;
        }
        let body = StreamBody::new(stream, &head.headers, ended);
        Response::from_parts(head, AnswerBody::Http2(body, place))
    }

    fn failed(&mut self, place: &Place, error: ExchangeError) -> SendError<B> {
        let unprocessed = matches!(&error, ExchangeError::Http2(error) if is_unprocessed(error));
        if unprocessed {
            place.retire();
        }
        let untaken = self.upload.take().and_then(Upload::into_untaken);
        SendError { error, unsent: false, untaken, unprocessed, answered: false }
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Uploaded> {
        let Some(upload) = &mut self.upload else { return Poll::Ready(Uploaded::Done) };
        let outcome = upload.poll(cx);
        if outcome.is_ready() {
            self.upload = None;
        }
        outcome
    }

    /// The bytes of a stream whose upstream has agreed to switch.
    pub(in crate::upstream) fn take_bytes(&mut self) -> Option<StreamIo> {
        let Tunnel { outgoing, incoming, .. } = *self.tunnel.take()?;
        Some(StreamIo::new(outgoing, incoming?))
    }

    /// Moves the request's body on.
    pub(in crate::upstream) fn drive(&mut self, cx: &mut Context<'_>) {
        let _ = self.poll_upload(cx);
    }

    /// Nothing more of the answer comes.
    pub(in crate::upstream) fn finish(&mut self) {
        self.state = State::Done;
    }

    /// Gives what is left of the request's body a task of its own.
    pub(in crate::upstream) fn detach(mut self) {
        if self.upload.is_some() {
            tokio::task::spawn_local(async move {
                std::future::poll_fn(|cx| self.poll_upload(cx)).await;
            });
        }
    }
}

/// RFC 9113, 8.7: a stream above the last of a GOAWAY, or a refused one. A stream that a GOAWAY did not name and that
/// ended with its connection fails with an error of the connection instead.
fn is_unprocessed(error: &h2::Error) -> bool {
    error.is_remote()
        && (error.is_go_away() || (error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM)))
}

/// RFC 8441, 5. The key of the handshake in HTTP/1.1 comes back as what has to answer it.
fn as_extended_connect(head: &mut http::request::Parts) -> Option<HeaderValue> {
    head.method = Method::CONNECT;
    head.extensions.insert(Protocol::from_static("websocket"));
    head.headers.remove(header::SEC_WEBSOCKET_KEY).map(|key| websocket::accept_of(&key))
}

/// The answer of an upstream that has agreed, as the 101 that it is to the client.
fn as_switched(head: &mut http::response::Parts, accept: Option<HeaderValue>) {
    head.status = StatusCode::SWITCHING_PROTOCOLS;
    head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    head.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Some(accept) = accept {
        head.headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
}
