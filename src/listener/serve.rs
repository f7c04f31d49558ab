//! One client connection of one worker.
//!
//! Owns: telling which protocol it speaks, the HTTP/1.1 server side, its limits and its deadlines, and stopping in good
//! order.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::detect;
use super::intercept::{self, Way};
use super::observed::Observed;
use super::stream::{ClientStream, Protocol};
use super::timer::Timer;
use super::{Limits, http2, socks, tunnel};
use crate::proxy::egress::Tunnel;
use crate::proxy::{self, Client, ClientLimits, Due, Link, Site, Switched};
use crate::upstream::Upgraded;

/// How long a client is answered that has closed its side: many that do so have left, and the upstream works for nobody.
const LISTENS: Duration = Duration::from_secs(1);

/// How a connection is told to stop.
#[derive(Debug, Default)]
pub(super) struct Stop {
    wish: Cell<Wish>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wish {
    /// Go on.
    #[default]
    Serve,
    /// Finish the request that is being served and close.
    Finish,
    /// Close now.
    Cut,
}

impl Stop {
    /// What was told so far.
    pub(super) fn wish(&self) -> Wish {
        self.wish.get()
    }

    /// Tells the connection.
    pub(super) fn ask(&self, wish: Wish) {
        self.wish.set(self.wish.get().max(wish));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// In good order, or by the client.
    Closed,
    /// hyper refused the head of a request by itself.
    RefusedHead,
    /// A deadline of the client passed.
    Late,
    /// It was cut at shutdown.
    Cut,
}

/// Serves a connection to its end. `protocol` is what TLS settled.
pub(super) async fn serve(
    mut stream: ClientStream,
    protocol: Protocol,
    link: Rc<Link>,
    site: Rc<Site>,
    limits: &Limits,
    stop: Rc<Stop>,
) -> End {
    let client = Rc::new(Client::new(Rc::clone(&link)));
    let mut timer = Timer::new();
    let mut read = Bytes::new();
    // ALPN has no name for SOCKS: over TLS as well the first byte tells.
    let socks = protocol == Protocol::Http1 && site.speaks_socks() && !link.is_inside();
    let detected = std::future::poll_fn(|cx| {
        if protocol != Protocol::Auto && !socks {
            return Poll::Ready(Ok(protocol));
        }
        if let Poll::Ready(found) = detect::poll_protocol(&mut stream, cx, &mut read) {
            return Poll::Ready(Ok(if socks { protocol } else { found }));
        }
        match stop.wish() {
            Wish::Cut => return Poll::Ready(Err(End::Cut)),
            Wish::Finish if read.is_empty() => return Poll::Ready(Err(End::Closed)),
            Wish::Finish | Wish::Serve => stop.keep(cx),
        }
        match client.next_deadline() {
            Some(deadline) if timer.poll(cx, deadline) => Poll::Ready(Err(End::Late)),
            _ => Poll::Pending,
        }
    });
    match detected.await {
        // Boxed: a connection that speaks HTTP/1.1 does not carry it.
        Ok(Protocol::Http2) => Box::pin(http2::serve(stream, read, link, site, limits, stop)).await,
        // Boxed, too.
        Ok(_) if read.first() == Some(&socks::VERSION) && site.speaks_socks() => {
            Box::pin(socks::serve(stream, read, client, site, limits, (stop, timer))).await
        }
        Ok(_) => serve_http1((stream, read), client, site, limits, stop, timer).await,
        Err(end) => end,
    }
}

async fn serve_http1(
    (stream, read): (ClientStream, Bytes),
    client: Rc<Client>,
    site: Rc<Site>,
    limits: &Limits,
    stop: Rc<Stop>,
    mut timer: Timer,
) -> End {
    let io = TokioIo::new(Observed::new(stream, read, Rc::clone(&client), Rc::clone(&site)));
    let for_requests = Rc::clone(&client);
    let for_inside = Rc::clone(&site);
    let service = service_fn(move |request| {
        let (site, client) = (Rc::clone(&site), Rc::clone(&for_requests));
        async move { Ok::<_, std::convert::Infallible>(proxy::handle(site, client, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.max_header_size(limits.header_bytes).max_buf_size(limits.header_bytes.max(64 * 1024));
    if limits.client.header_count != ClientLimits::default().header_count {
        // Another number than hyper's own costs an allocation a request.
        builder.max_headers(limits.client.header_count);
    }
    let mut connection = builder.serve_connection(io, service);
    let mut finishing = false;
    let mut leaves_by = None;
    let end = std::future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(outcome) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(ending(outcome));
            }
            match stop.wish.get() {
                Wish::Serve => {}
                Wish::Finish if finishing => {}
                Wish::Finish => {
                    finishing = true;
                    Pin::new(&mut connection).graceful_shutdown();
                    continue;
                }
                Wish::Cut => return Poll::Ready(End::Cut),
            }
            if finishing && client.is_idle() {
                return Poll::Ready(End::Closed);
            }
            if leaves_by.is_none() && client.left() {
                leaves_by = Some(Instant::now() + LISTENS);
                // The answer is the last.
                Pin::new(&mut connection).graceful_shutdown();
                continue;
            }
            stop.keep(cx);
            let deadline = client.next_deadline().into_iter().chain(leaves_by).min();
            match deadline {
                Some(deadline) if timer.poll(cx, deadline) => {
                    let now = Instant::now();
                    if leaves_by.is_some_and(|end| end <= now) {
                        return Poll::Ready(End::Closed);
                    }
                    if client.next_deadline().is_some_and(|deadline| deadline <= now)
                        && client.deadline_passed(now) == Due::Close
                    {
                        return Poll::Ready(End::Late);
                    }
                }
                _ => return Poll::Pending,
            }
        }
    })
    .await;
    match client.take_switched() {
        Some(switched) if end == End::Closed => {
            // Boxed: a connection that only speaks HTTP does not carry it.
            let idle = limits.tunnel_idle_timeout;
            let tunnel = {
                let parts = connection.into_parts();
                Box::pin(async move {
                    let Observed { stream, read, .. } = parts.io.into_inner();
                    let near = (stream, Bytes::from([parts.read_buf, read].concat()));
                    match *switched {
                        Switched::Intercept(intercept) => {
                            let way = Way::Connection(near.0, near.1);
                            intercept::run(way, intercept, client.link(), for_inside, limits, stop).await
                        }
                        other => join(near, other, idle, &stop, &mut timer).await,
                    }
                })
            };
            tunnel.await
        }
        _ if end == End::Late && client.is_in_first_head() => {
            connection.into_parts().io.into_inner().tell_late();
            end
        }
        _ => end,
    }
}

/// Copies between a client and what it was joined with. `idle`: how long no byte may come after an upgrade.
pub(super) async fn join(
    near: (ClientStream, Bytes),
    switched: Switched,
    idle: Duration,
    stop: &Stop,
    timer: &mut Timer,
) -> End {
    match switched {
        Switched::Upgraded(upstream) => {
            // What is left in it counts the upstream connection until the end.
            let Upgraded { transport, read, .. } = upstream;
            tunnel::run(near, (transport, read), stop, timer, idle).await
        }
        Switched::Tunnel(tunnel) => {
            let Tunnel { stream, idle_limit, count, .. } = tunnel;
            let watch = tunnel::Watch { idle_limit, count: Some(&count) };
            tunnel::run_watched(near, (stream, Bytes::new()), watch, stop, timer).await
        }
        Switched::Intercept(_) => unreachable!("it is not joined with anything"),
    }
}

impl Stop {
    pub(super) fn keep(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if waker.is_none() {
            *waker = Some(cx.waker().clone());
        }
    }
}

fn ending(outcome: hyper::Result<()>) -> End {
    match outcome {
        Ok(()) => End::Closed,
        Err(error) => {
            tracing::debug!(%error, "a client connection broke off");
            if error.is_parse() || error.is_parse_too_large() { End::RefusedHead } else { End::Closed }
        }
    }
}
