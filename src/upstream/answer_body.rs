//! Bodies that arrive: of an upstream's answer, and of any stream of HTTP/2.
//!
//! Owns: flow control of received streams: room is given back when a piece is handed on, so that whoever is slow slows
//! the other side down.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, header};
use hyper::body::{Frame, SizeHint};

use super::http1::Http1Body;
use super::http2::Place;
use super::lease::BodyPiece;

/// The body of an answer.
#[derive(Debug)]
pub enum AnswerBody {
    /// None: the connection has switched protocols.
    Switched,
    /// Over HTTP/1.1.
    Http1(Http1Body),
    /// Over HTTP/2. Its place on the connection is taken until it is dropped.
    Http2(StreamBody, Option<Rc<Place>>),
}

/// The body of a stream.
#[derive(Debug)]
pub struct StreamBody {
    stream: RecvStream,
    /// What is still to come, where the sender told the length. The stream's own checks hold it to that.
    left: Option<u64>,
    data_ended: bool,
}

impl StreamBody {
    /// `headers` are those of its message; `bodiless`: they tell the length of something else (RFC 9110, 8.6).
    pub fn new(stream: RecvStream, headers: &HeaderMap, bodiless: bool) -> Self {
        let length = headers.get(header::CONTENT_LENGTH);
        let told = length.and_then(|length| length.to_str().ok()?.parse().ok());
        Self { stream, left: if bodiless { Some(0) } else { told }, data_ended: false }
    }

    /// The next piece.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(piece)) => {
                    // Fails only where the stream is gone, and then nobody waits for room.
                    let _ = self.stream.flow_control().release_capacity(piece.len());
                    if let Some(left) = &mut self.left {
                        *left = left.saturating_sub(piece.len() as u64);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.data_ended = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }

    /// Whether nothing more comes.
    pub fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// What is still to come.
    pub fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// The stream itself.
    pub fn into_stream(self) -> RecvStream {
        self.stream
    }
}

impl AnswerBody {
    /// The next piece of what is there, or of what a task of its own reads.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<BodyPiece>> {
        match self {
            Self::Switched => Poll::Ready(None),
            Self::Http1(body) => body.poll_piece(cx),
            Self::Http2(body, _) => {
                body.poll_piece(cx).map(|piece| piece.map(|piece| piece.map_err(Into::into)))
            }
        }
    }

    /// Whether nothing more comes.
    pub fn is_end_stream(&self) -> bool {
        match self {
            Self::Switched => true,
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body, _) => body.is_end_stream(),
        }
    }

    /// What is still to come.
    pub fn size_hint(&self) -> SizeHint {
        match self {
            Self::Switched => SizeHint::with_exact(0),
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body, _) => body.size_hint(),
        }
    }
}
