//! The body of a request as it comes from the client, over HTTP/1.1 or HTTP/2.
//!
//! Owns: nothing but the choice between the two, and that a connection is told when nobody wants the rest.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::body::BodyError;
use crate::upstream::StreamBody;

/// A body that arrives.
#[derive(Debug)]
pub enum ClientBody {
    /// None.
    Empty,
    /// Over HTTP/1.1.
    Http1(Arriving),
    /// Over HTTP/2.
    Http2(StreamBody),
}

/// A connection over HTTP/1.1 on which a body arrives.
pub trait Carrier: fmt::Debug {
    /// The next piece.
    fn poll_piece(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>>;
    /// Whether nothing more comes.
    fn is_ended(&self) -> bool;
    /// How much is still to come, where that is known.
    fn left(&self) -> Option<u64>;
    /// Nobody asks for more.
    fn let_go(&self);
}

/// The body that arrives on a connection.
#[derive(Debug)]
pub struct Arriving(Rc<dyn Carrier>);

impl Arriving {
    /// What is under way on `carrier`.
    pub fn on(carrier: Rc<dyn Carrier>) -> Self {
        Self(carrier)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.0.let_go();
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
            Self::Http1(body) => body.0.poll_piece(cx),
            Self::Http2(body) => {
                body.poll_piece(cx).map(|piece| piece.map(|piece| piece.map_err(|_| BodyError::Broken)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Http1(body) => body.0.is_ended(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Http1(body) => body.0.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::Http2(body) => body.size_hint(),
        }
    }
}
