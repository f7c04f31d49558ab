//! An exchange whose answer begins before its request has ended: the two directions must not wait for each other.
//!
//! Owns: the task that moves such an exchange on. The connection is closed after it.

use std::cell::RefCell;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

use super::Connection;
use crate::http1::Http1Error;
use crate::upstream::{Admission, BodyPiece};

/// The answer's pieces, as they are read. Dropped, it ends the exchange.
#[derive(Debug)]
pub(super) struct Pieces(mpsc::Receiver<Result<Frame<Bytes>, Http1Error>>);

impl Pieces {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<BodyPiece>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map_err(Into::into)))
    }
}

/// Gives the connection a task of its own.
pub(super) fn spawn<B>(connection: Box<Connection<B>>, admission: Option<Admission>) -> Pieces
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // One piece at a time: whoever is slow slows the other side down.
    let (tell, pieces) = mpsc::channel(1);
    tokio::task::spawn_local(async move {
        let _admission = admission;
        let connection = RefCell::new(connection);
        let write = std::future::poll_fn(|cx| connection.borrow_mut().poll_write(cx));
        let read = async {
            while let Ok(place) = tell.reserve().await {
                let piece = std::future::poll_fn(|cx| connection.borrow_mut().poll_piece(cx));
                let piece = tokio::select! {
                    piece = piece => piece,
                    // Nobody waits for it any more.
                    () = tell.closed() => break,
                };
                match piece {
                    Some(piece) => place.send(piece),
                    None => break,
                }
            }
            drop(tell);
        };
        let (written, ()) = tokio::join!(write, read);
        if let Err(error) = written {
            tracing::debug!(%error, "a request was not written whole");
        }
    });
    Pieces(pieces)
}
