//! The body of an answer, streamed frame by frame.
//!
//! Owns: backpressure towards the upstream, the idle limit of answers, and that a body which breaks off is passed on
//! as broken. Its end is the end of the exchange.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::body::BodyError;
use super::{Client, RequestBody, asked};
use crate::telemetry::access::Record;
use crate::telemetry::counters::RouteCounters;
use crate::upstream::{AnswerBody, Lease};

/// The body of an answer on its way to the client. Its end is the end of the exchange: counters and deadlines of the
/// connection follow from it.
#[derive(Debug)]
pub struct ResponseBody {
    source: Source,
    exchange: Exchange,
    /// Its end was seen.
    ended: bool,
}

#[derive(Debug)]
enum Source {
    /// Our own words, or nothing.
    Full(Option<Bytes>),
    /// What is there whole, on a connection that went back to its pool already.
    Arrived(AnswerBody),
    /// What still arrives.
    Arriving(AnswerBody, Option<Lease<RequestBody>>, Duration),
}

/// What is counted when an exchange ends.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) client: Rc<Client>,
    pub(super) counters: Arc<RouteCounters>,
    pub(super) status: u16,
    pub(super) began: Instant,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let now = Instant::now();
        if let Some(caller) = self.client.caller() {
            caller.counters.answered(self.status);
        }
        self.client.answered(now);
        self.client.end_record(self.status, now);
        self.counters.answered(self.status, now.saturating_duration_since(self.began));
    }
}

impl ResponseBody {
    pub(super) fn full(bytes: Bytes, exchange: Exchange) -> Self {
        let source = Source::Full(Some(bytes).filter(|bytes| !bytes.is_empty()));
        Self { source, exchange, ended: true }
    }

    pub(super) fn arrived(incoming: AnswerBody, exchange: Exchange) -> Self {
        Self { source: Source::Arrived(incoming), exchange, ended: false }
    }

    pub(super) fn arriving(
        incoming: AnswerBody,
        lease: Option<Lease<RequestBody>>,
        idle: Duration,
        exchange: Exchange,
    ) -> Self {
        Self { source: Source::Arriving(incoming, lease, idle), exchange, ended: false }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if !self.ended && !self.is_end_stream() {
            self.exchange.client.record(Record::incomplete);
        }
    }
}

impl Exchange {
    fn broke_off(&self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.counters.errors.increment();
        Poll::Ready(Some(Err(error)))
    }

    /// Reads on. The connection of the upstream has no task of its own, so it is moved on here.
    fn poll_arriving(
        &self,
        cx: &mut Context<'_>,
        incoming: &mut AnswerBody,
        lease: &mut Option<Lease<RequestBody>>,
        idle: Duration,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let piece = match lease {
            Some(lease) => lease.poll_body(cx, incoming),
            None => incoming.poll_piece(cx),
        };
        match piece {
            Poll::Ready(Some(Ok(frame))) => {
                // Runs for the upstream's next piece, and for the client to take this one.
                self.client.await_upstream(Some(Instant::now() + idle));
                // To a client over HTTP/1.1 go only trailers that the head declares.
                let trailers = frame.is_trailers();
                if trailers || incoming.is_end_stream() {
                    give_back(&self.client, cx, lease);
                }
                Poll::Ready(Some(Ok(if trailers { asked::cleaned(frame) } else { frame })))
            }
            Poll::Ready(Some(Err(_))) => self.broke_off(BodyError::Broken),
            Poll::Ready(None) => {
                give_back(&self.client, cx, lease);
                Poll::Ready(None)
            }
            Poll::Pending if self.client.upstream_is_late() => self.broke_off(BodyError::Late),
            Poll::Pending => {
                self.client.await_upstream_unless_set(idle);
                Poll::Pending
            }
        }
    }
}

fn give_back(client: &Client, cx: &mut Context<'_>, lease: &mut Option<Lease<RequestBody>>) {
    if let Some(mut lease) = lease.take() {
        lease.drive(cx);
        client.binding.release(lease, Instant::now());
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { source, exchange, ended } = self.get_mut();
        let piece = match source {
            Source::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Arrived(incoming) => match incoming.poll_piece(cx) {
                Poll::Ready(Some(Err(_))) => exchange.broke_off(BodyError::Broken),
                Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => {
                    Poll::Ready(Some(Ok(asked::cleaned(frame))))
                }
                Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(frame))),
                Poll::Ready(None) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            },
            Source::Arriving(incoming, lease, idle) => exchange.poll_arriving(cx, incoming, lease, *idle),
        };
        match &piece {
            Poll::Ready(Some(Ok(frame))) => match frame.data_ref() {
                Some(data) => exchange.client.piece_sent(data.len()),
                None => *ended = true,
            },
            Poll::Ready(None) => *ended = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        piece
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Full(bytes) => bytes.is_none(),
            Source::Arrived(incoming) => incoming.is_end_stream(),
            // The lease is given back when the end is seen.
            Source::Arriving(incoming, lease, _) => lease.is_none() && incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Source::Arrived(incoming) | Source::Arriving(incoming, ..) => incoming.size_hint(),
        }
    }
}
