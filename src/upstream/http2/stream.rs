//! One exchange on a stream.
//!
//! Owns: the form of a request's head in HTTP/2 (RFC 9113, 8.3), and what the end of a stream means for the request.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::ResponseFuture;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderName, Request, Response, Uri, Version, header};
use hyper::body::Body;

use super::connection::Place;
use super::upload::{Upload, Uploaded};
use crate::upstream::{AnswerBody, ExchangeError, SendError, StreamBody};

/// RFC 9113, 8.2.2: what HTTP/2 has no use for.
const OF_HTTP1: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// An exchange.
#[derive(Debug)]
pub(in crate::upstream) struct Stream<B> {
    place: Option<Rc<Place>>,
    /// The body of the request, until it is sent.
    upload: Option<Upload<B>>,
    reused: bool,
    state: State,
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
        Self { reused: place.reused(), place: Some(Rc::new(place)), upload: None, state: State::Asking }
    }

    pub(in crate::upstream) fn reused(&self) -> bool {
        self.reused
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
        let outcome = std::future::poll_fn(|cx| {
            if self.poll_upload(cx) == Poll::Ready(Uploaded::Broken) {
                return Poll::Ready(Some(Err(ExchangeError::Body)));
            }
            while let Poll::Ready(Some(Ok(information))) = answer.poll_informational(cx) {
                informed(information);
                // It may be what the body waited for.
                let _ = self.poll_upload(cx);
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
                unsent: Some(request),
                untaken: None,
                unprocessed: true,
            });
        }
        let (mut head, body) = request.into_parts();
        let host = head.headers.remove(header::HOST);
        for name in &OF_HTTP1 {
            head.headers.remove(name);
        }
        let mut parts = http::uri::Parts::default();
        parts.authority = host.and_then(|host| place.authority(host.as_bytes()));
        parts.scheme = Some(if place.secure() { Scheme::HTTPS } else { Scheme::HTTP });
        parts.path_and_query = head.uri.into_parts().path_and_query.or(Some(PathAndQuery::from_static("/")));
        head.uri = Uri::from_parts(parts).unwrap_or_default();
        head.version = Version::HTTP_2;
        let ended = body.is_end_stream();
        match place.open(Request::from_parts(head, ()), ended) {
            Ok((answer, stream)) => {
                self.upload = (!ended).then(|| Upload::new(stream, body));
                Ok(answer)
            }
            Err(error) => {
                Err(SendError { error: error.into(), unsent: None, untaken: Some(body), unprocessed: true })
            }
        }
    }

    fn answered(&mut self, place: Rc<Place>, answer: Response<h2::RecvStream>) -> Response<AnswerBody> {
        let (head, stream) = answer.into_parts();
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
        SendError { error, unsent: None, untaken, unprocessed }
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Uploaded> {
        let Some(upload) = &mut self.upload else { return Poll::Ready(Uploaded::Done) };
        let outcome = upload.poll(cx);
        if outcome.is_ready() {
            self.upload = None;
        }
        outcome
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
