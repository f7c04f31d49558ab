//! One client connection of one worker.
//!
//! Owns: telling which protocol it speaks, how it is told to stop, and what it becomes when it has switched protocols.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::detect;
use super::http1::{self, Ended};
use super::intercept::{self, Way};
use super::stream::{ClientStream, Protocol};
use super::timer::Timer;
use super::{Limits, http2, socks, tunnel};
use crate::proxy::egress::Tunnel;
use crate::proxy::{Client, Link, Site, Switched};
use crate::upstream::Upgraded;

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
    /// What came is no head of a request.
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
    near: (ClientStream, Bytes),
    client: Rc<Client>,
    site: Rc<Site>,
    limits: &Limits,
    stop: Rc<Stop>,
    mut timer: Timer,
) -> End {
    match http1::serve(near, &client, &site, limits, &stop, &mut timer).await {
        Ended::Closed(end) => end,
        // Boxed: a connection that only speaks HTTP does not carry it.
        Ended::Switched(switched, stream, read) => match *switched {
            Switched::Intercept(intercept) => {
                let way = Way::Connection(stream, read);
                Box::pin(intercept::run(way, intercept, client.link(), site, limits, stop)).await
            }
            other => {
                let idle = limits.tunnel_idle_timeout;
                Box::pin(join((stream, read), other, idle, &stop, &mut timer)).await
            }
        },
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
