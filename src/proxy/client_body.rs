//! The body of a request as it comes from the client, over HTTP/1.1 or HTTP/2.
//!
//! Owns: flow control towards an HTTP/2 client: room is given back when a piece is handed on, so that a slow upstream
//! slows the client down.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::{Request, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::body::BodyError;

/// A body that arrives.
#[derive(Debug)]
pub enum ClientBody {
    /// None.
    Empty,
    /// Over HTTP/1.1.
    Http1(Incoming),
    /// Over HTTP/2.
    Http2(StreamBody),
}

/// The body of a stream.
#[derive(Debug)]
pub struct StreamBody {
    stream: RecvStream,
    /// What is still to come, where the client told the length. The stream's own checks hold it to that.
    left: Option<u64>,
    data_ended: bool,
}

impl From<Incoming> for ClientBody {
    fn from(incoming: Incoming) -> Self {
        Self::Http1(incoming)
    }
}

impl ClientBody {
    /// The body of a request over HTTP/2.
    pub fn of_stream(request: Request<RecvStream>) -> Request<Self> {
        let length = request.headers().get(header::CONTENT_LENGTH);
        let left = length.and_then(|length| length.to_str().ok()?.parse().ok());
        request.map(|stream| Self::Http2(StreamBody { stream, left, data_ended: false }))
    }

    /// Whether what is not taken of it closes the connection.
    pub(super) fn blocks_connection(&self) -> bool {
        matches!(self, Self::Http1(_))
    }
}

impl StreamBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
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
                Some(Err(_)) => return Poll::Ready(Some(Err(BodyError::Broken))),
                None => self.data_ended = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Ok(None) => Poll::Ready(None),
            Err(_) => Poll::Ready(Some(Err(BodyError::Broken))),
        }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Http1(incoming) => Pin::new(incoming)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|_| BodyError::Broken))),
            Self::Http2(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Http1(incoming) => incoming.is_end_stream(),
            Self::Http2(body) => body.stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Http1(incoming) => incoming.size_hint(),
            Self::Http2(body) => body.left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}
