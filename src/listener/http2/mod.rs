//! One client connection that speaks HTTP/2 (RFC 9113).
//!
//! Owns: the server side of the protocol, its limits, and the one timer that watches the deadlines of all its streams.
//! The streams are part of the connection's task: dropping it ends them all.

mod census;
mod stream;
mod tasks;
mod tunnel;
mod wire;

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::{Builder, Connection};
use tokio::time::Instant;

use self::stream::{Common, Job};
use self::tasks::Tasks;
pub(super) use self::tunnel::Side;
use self::wire::Wire;
use super::Limits;
use super::serve::{End, Stop, Wish};
use super::stream::ClientStream;
use super::timer::Timer;
use crate::proxy::{Client, Link, Site, Watch};

/// What is kept of one answer for a client that does not read.
const SEND_BUFFER: usize = 64 * 1024;
/// New streams that are begun before the others get their turn.
const MAX_OPENED: u32 = 100;
/// How long a client has to confirm that it knows of the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves a connection to its end. `read` was read from it already and begins with the preface.
pub(super) async fn serve(
    stream: ClientStream,
    read: Bytes,
    link: Rc<Link>,
    site: Rc<Site>,
    limits: &Limits,
    stop: Rc<Stop>,
) -> End {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.http2.max_concurrent_streams)
        .initial_window_size(limits.http2.stream_window)
        .initial_connection_window_size(limits.http2.connection_window)
        .max_send_buffer_size(SEND_BUFFER)
        .enable_connect_protocol()
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX));
    let mut timer = Timer::new();
    let flooded = Rc::new(Cell::new(false));
    let limit = Instant::now() + FAREWELL * 10;
    let mut handshake =
        std::pin::pin!(builder.handshake::<_, Bytes>(Wire::new(stream, read, Rc::clone(&flooded))));
    let greeted = std::future::poll_fn(|cx| {
        if let Poll::Ready(outcome) = handshake.as_mut().poll(cx) {
            return Poll::Ready(outcome.map_err(|error| broken(&error)));
        }
        if stop.wish() == Wish::Cut {
            return Poll::Ready(Err(End::Cut));
        }
        stop.keep(cx);
        if timer.poll(cx, limit) { Poll::Ready(Err(End::Late)) } else { Poll::Pending }
    });
    let connection = match greeted.await {
        Ok(connection) => connection,
        Err(end) => return end,
    };
    let mut serving = Serving {
        connection,
        common: Rc::new(Common { site, limits: *limits }),
        streams: stream::tasks(),
        flooded,
        watch: Rc::default(),
        link,
        phase: Phase::Idle(Instant::now() + limits.client.idle_timeout),
        idle_limit: limits.client.idle_timeout,
        timer,
    };
    std::future::poll_fn(|cx| serving.poll(cx, &stop)).await
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No stream is open; it ends then.
    Idle(Instant),
    /// Some are.
    Busy,
    /// No new one is taken.
    Finishing,
    /// All are done; it ends then, if the client does not end it.
    Parting(Instant),
}

struct Serving {
    connection: Connection<Wire, Bytes>,
    common: Rc<Common>,
    /// The open streams.
    streams: Tasks<Job, Rc<Client>>,
    /// The client sends frames for nothing.
    flooded: Rc<Cell<bool>>,
    watch: Rc<Watch>,
    link: Rc<Link>,
    phase: Phase,
    /// How long it is kept without a stream.
    idle_limit: Duration,
    timer: Timer,
}

impl Serving {
    fn poll(&mut self, cx: &mut Context<'_>, stop: &Stop) -> Poll<End> {
        self.watch.keep(cx.waker());
        loop {
            self.poll_streams(cx);
            let turn = self.poll_connection(cx);
            if self.flooded.get() && !matches!(self.phase, Phase::Parting(_)) {
                tracing::warn!("a client floods its connection with frames: it is closed");
                self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                self.phase = Phase::Parting(Instant::now() + FAREWELL);
                continue;
            }
            match turn {
                Poll::Ready(Some(end)) => return Poll::Ready(end),
                Poll::Ready(None) => continue,
                Poll::Pending => {}
            }
            match stop.wish() {
                Wish::Finish if matches!(self.phase, Phase::Idle(_) | Phase::Busy) => {
                    self.connection.graceful_shutdown();
                    self.phase = Phase::Finishing;
                    continue;
                }
                Wish::Cut => return Poll::Ready(End::Cut),
                Wish::Finish | Wish::Serve => stop.keep(cx),
            }
            if let Err(end) = ready!(self.poll_deadlines(cx)) {
                return Poll::Ready(end);
            }
        }
    }

    /// Moves the streams on that have something to do.
    fn poll_streams(&mut self, cx: &mut Context<'_>) {
        self.streams.poll(cx);
        if self.streams.is_empty() && self.phase == Phase::Busy {
            self.phase = Phase::Idle(Instant::now() + self.idle_limit);
        }
    }

    /// Reads and writes frames. `Ready(None)`: there are new streams.
    fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        let mut opened = 0;
        loop {
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    let client = Rc::new(Client::stream(Rc::clone(&self.link), Rc::clone(&self.watch)));
                    let common = Rc::clone(&self.common);
                    self.streams.add(Job { common, client: Rc::clone(&client), request, respond }, client);
                    if matches!(self.phase, Phase::Idle(_)) {
                        self.phase = Phase::Busy;
                    }
                    opened += 1;
                    if opened >= MAX_OPENED {
                        return Poll::Ready(None);
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(broken(&error))),
                Poll::Ready(None) => return Poll::Ready(Some(End::Closed)),
                Poll::Pending if opened > 0 => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// `Ready`: something was late, so that all has to be looked at again.
    fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if self.phase == Phase::Finishing && self.streams.is_empty() {
            self.phase = Phase::Parting(Instant::now() + FAREWELL);
        }
        let own = match self.phase {
            Phase::Idle(end) | Phase::Parting(end) => Some(end),
            Phase::Busy | Phase::Finishing => None,
        };
        let nearest = [own, self.watch.nearest()].into_iter().flatten().min();
        let Some(nearest) = nearest else { return Poll::Pending };
        if !self.timer.poll(cx, nearest) {
            return Poll::Pending;
        }
        let now = Instant::now();
        match self.phase {
            Phase::Idle(end) if end <= now => {
                self.connection.graceful_shutdown();
                self.phase = Phase::Parting(now + FAREWELL);
            }
            Phase::Parting(end) if end <= now => return Poll::Ready(Err(End::Late)),
            _ => {}
        }
        self.watch.set(self.streams.iter().filter_map(|client| client.look(now)).min());
        Poll::Ready(Ok(()))
    }
}

fn broken(error: &h2::Error) -> End {
    tracing::debug!(%error, "a client connection broke off");
    End::Closed
}
