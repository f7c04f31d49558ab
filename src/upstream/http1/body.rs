//! The body of an answer over HTTP/1.1.
//!
//! Owns: what was read of it with its head, so that a short answer needs its connection no more.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::apart;
use crate::upstream::BodyPiece;

/// The body of an answer, as far as it was read with its head.
#[derive(Debug)]
pub struct Http1Body {
    /// A piece that is there.
    pub(super) first: Option<Frame<Bytes>>,
    /// Pieces that another task reads.
    pub(super) apart: Option<apart::Pieces>,
    /// What is still to come, where that is known.
    pub(super) left: Option<u64>,
    /// Nothing more is read.
    pub(super) ended: bool,
}

impl Http1Body {
    /// Whether nothing more comes.
    pub(in crate::upstream) fn is_end_stream(&self) -> bool {
        self.ended && self.first.is_none()
    }

    /// What is still to come.
    pub(in crate::upstream) fn size_hint(&self) -> SizeHint {
        // Chunks stay chunks: whoever reads them may read trailers.
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// The next piece of what does not need its connection any more.
    pub(in crate::upstream) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<BodyPiece>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(self.count(first))));
        }
        let piece = match &mut self.apart {
            Some(apart) if !self.ended => ready!(apart.poll(cx)),
            _ => None,
        };
        Poll::Ready(match piece {
            Some(Ok(frame)) => {
                let frame = self.count(frame);
                self.ended = frame.is_trailers() || self.left == Some(0);
                Some(Ok(frame))
            }
            other => {
                self.ended = true;
                other
            }
        })
    }

    pub(super) fn count(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        if let (Some(left), Some(piece)) = (&mut self.left, frame.data_ref()) {
            *left = left.saturating_sub(piece.len() as u64);
        }
        frame
    }
}
