//! The body of a request as it comes from the client, over HTTP/1.1 or HTTP/2.
//!
//! Owns: nothing but the choice between the two.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::body::BodyError;
use crate::upstream::StreamBody;

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

impl From<Incoming> for ClientBody {
    fn from(incoming: Incoming) -> Self {
        Self::Http1(incoming)
    }
}

impl ClientBody {
    /// The body of a request over HTTP/2.
    pub fn of_stream(stream: RecvStream, headers: &HeaderMap) -> Self {
        Self::Http2(StreamBody::new(stream, headers, false))
    }

    /// Whether what is not taken of it closes the connection.
    pub(super) fn blocks_connection(&self) -> bool {
        matches!(self, Self::Http1(_))
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
            Self::Http2(body) => {
                body.poll_piece(cx).map(|piece| piece.map(|piece| piece.map_err(|_| BodyError::Broken)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Http1(incoming) => incoming.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Http1(incoming) => incoming.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}
