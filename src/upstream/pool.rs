//! The pool: a worker's own connections to one upstream.
//!
//! Owns: reuse (over HTTP/1.1 last in, first out), idle limits, and which protocol is spoken. What a connection is and
//! who drives it is its protocol's matter.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use tokio::sync::watch;
use tokio::time::Instant;

use super::http1::{self, Idle};
use super::http2::{self, Found, Stream};
use super::lease::Held;
use super::{Connector, DialError, Lease, Spoken};

/// `limits` of an upstream's connections, in each worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// `idle`: how many idle connections are kept; more only where as many were in use a moment ago: 64.
    pub idle: usize,
    /// `idle_timeout`: for how long: 30 s.
    pub idle_timeout: Duration,
    /// `keep_warm`: how many are kept open however long they are idle: 0.
    pub keep_warm: usize,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self { idle: 64, idle_timeout: Duration::from_secs(30), keep_warm: 0 }
    }
}

/// Connections to one upstream. Not shared between threads.
#[derive(Debug)]
pub struct Pool<B: Body + 'static> {
    connector: Connector,
    limits: PoolLimits,
    /// The address is gone: nothing is kept.
    leaves: Cell<bool>,
    idle: RefCell<Vec<Idle<B>>>,
    multiplexed: http2::Connections,
    /// The connector's when the connections were opened.
    epoch: Cell<u64>,
    /// What the upstream was last found to speak.
    spoken: Cell<Option<Spoken>>,
    /// The connection that all requests wait for which can share one.
    dial: RefCell<Option<Dial>>,
    active: Cell<usize>,
    /// Requests that wait for a connection that is being opened.
    connecting: Cell<usize>,
    /// The most that were active since the last sweep.
    peak: Cell<usize>,
    /// The same between the sweep before and that one.
    earlier_peak: Cell<usize>,
}

/// How a connection that is being opened turns out.
type Dial = watch::Receiver<Option<Result<(), DialError>>>;

/// One that waits for a connection, until it is dropped.
struct Waits<'a>(&'a Cell<usize>);

impl<'a> Waits<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A new connection.
enum Opened<B: Body + 'static> {
    Http1(Box<http1::Connection<B>>),
    /// It was added to those with room.
    Http2,
}

impl<B> Pool<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// An empty pool.
    pub fn new(connector: Connector) -> Rc<Self> {
        Self::with_limits(connector, PoolLimits::default())
    }

    /// An empty pool with limits of its own.
    pub fn with_limits(connector: Connector, limits: PoolLimits) -> Rc<Self> {
        Rc::new(Self {
            limits,
            leaves: Cell::new(false),
            epoch: Cell::new(connector.epoch()),
            spoken: Cell::new(connector.spoken()),
            connector,
            idle: RefCell::new(Vec::new()),
            multiplexed: http2::Connections::default(),
            dial: RefCell::new(None),
            active: Cell::new(0),
            connecting: Cell::new(0),
            peak: Cell::new(0),
            earlier_peak: Cell::new(0),
        })
    }

    /// How to reach the upstream.
    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Whether requests share connections, so that the upstream can refuse one of them alone.
    pub fn is_shared(&self) -> bool {
        self.spoken.get() == Some(Spoken::Http2)
    }

    /// Idle connections now.
    pub fn idle(&self) -> usize {
        self.idle.borrow().len() + self.multiplexed.idle(Instant::now())
    }

    /// Requests under way now.
    pub fn active(&self) -> usize {
        self.active.get()
    }

    /// Requests under way, and those that wait for a connection: of a burst to many addresses each counts at once.
    pub fn load(&self) -> usize {
        self.active.get() + self.connecting.get()
    }

    /// Keeps no connection any more.
    pub fn leave(&self) {
        self.leaves.set(true);
        self.idle.borrow_mut().clear();
        self.multiplexed.retire();
    }

    /// A connection that was used before and still stands, or room on one.
    pub fn reuse(self: &Rc<Self>, now: Instant) -> Option<Lease<B>> {
        if self.connector.epoch() != self.epoch.get() {
            self.renew();
        }
        if self.spoken.get() != Some(Spoken::Http1)
            && let Some(lease) = self.share(now)
        {
            return Some(lease);
        }
        loop {
            let Idle { mut connection, since } = self.idle.borrow_mut().pop()?;
            let fresh =
                self.limits.keep_warm > 0 || now.saturating_duration_since(since) < self.limits.idle_timeout;
            // Whether the upstream closed it meanwhile is seen when it is driven to send: before a byte is written.
            if fresh && connection.is_idle() {
                connection.reused = true;
                return Some(self.lease(Held::Http1(connection)));
            }
        }
    }

    /// Other TLS settings: no request goes over a connection that shows the certificate of before.
    #[cold]
    fn renew(&self) {
        self.epoch.set(self.connector.epoch());
        self.idle.borrow_mut().clear();
        self.multiplexed.retire();
    }

    /// Room on a connection that others use too.
    fn share(self: &Rc<Self>, now: Instant) -> Option<Lease<B>> {
        let (place, found) = self.multiplexed.place(now)?;
        if found == Found::Aged {
            // The next one is there before this one goes.
            self.dial();
        }
        Some(self.lease(Held::Http2(Box::new(Stream::new(place)))))
    }

    /// A new connection, or room on one that others opened meanwhile.
    pub async fn connect(self: &Rc<Self>) -> Result<Lease<B>, DialError> {
        let _waits = Waits::new(&self.connecting);
        if self.spoken.get() == Some(Spoken::Http1) {
            return match self.open().await? {
                Opened::Http1(connection) => Ok(self.lease(Held::Http1(connection))),
                Opened::Http2 => self.share(Instant::now()).ok_or(DialError::Unreachable),
            };
        }
        tokio::time::timeout(self.connector.deadline(), self.connect_together())
            .await
            .unwrap_or(Err(DialError::Timeout))
    }

    /// A new connection over HTTP/1.1, where the upstream may choose the protocol; `None` where it may not.
    pub(super) async fn connect_http1(self: &Rc<Self>) -> Option<Result<Lease<B>, DialError>> {
        let epoch = self.connector.epoch();
        let connection = match self.connector.connect_http1().await? {
            Ok(transport) => Ok(http1::Connection::open(transport)),
            Err(error) => Err(error),
        };
        Some(connection.map(|mut connection| {
            connection.epoch = epoch;
            self.lease(Held::Http1(connection))
        }))
    }

    /// Many requests that come at once share one connection instead of opening one each.
    async fn connect_together(self: &Rc<Self>) -> Result<Lease<B>, DialError> {
        loop {
            let mut dial = self.dial();
            let outcome = match dial.wait_for(Option::is_some).await {
                Ok(outcome) => *outcome,
                Err(_) => None,
            };
            outcome.unwrap_or(Err(DialError::Unreachable))?;
            let now = Instant::now();
            if let Some(lease) = self.reuse(now) {
                return Ok(lease);
            }
            if self.spoken.get() == Some(Spoken::Http1)
                && let Opened::Http1(connection) = self.open().await?
            {
                return Ok(self.lease(Held::Http1(connection)));
            }
        }
    }

    /// The connection that is being opened for whoever wants one. It has a task of its own: a client that goes away takes
    /// it from nobody.
    fn dial(self: &Rc<Self>) -> Dial {
        let mut dial = self.dial.borrow_mut();
        if let Some(under_way) = &*dial {
            return under_way.clone();
        }
        let (tell, outcome) = watch::channel(None);
        *dial = Some(outcome.clone());
        let pool = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let opened = pool.open().await;
            pool.dial.borrow_mut().take();
            let _ = tell.send(Some(opened.map(|opened| {
                if let Opened::Http1(connection) = opened {
                    pool.idle.borrow_mut().push(Idle { connection, since: Instant::now() });
                }
            })));
        });
        outcome
    }

    async fn open(&self) -> Result<Opened<B>, DialError> {
        let mut epoch = self.connector.epoch();
        let (mut transport, mut spoken) = self.connector.connect().await?;
        if self.connector.epoch() != epoch {
            // Its files changed meanwhile.
            epoch = self.connector.epoch();
            (transport, spoken) = self.connector.connect().await?;
        }
        self.spoken.set(Some(spoken));
        match spoken {
            Spoken::Http1 => {
                let mut connection = http1::Connection::open(transport);
                connection.epoch = epoch;
                Ok(Opened::Http1(connection))
            }
            Spoken::Http2 => {
                // The upstream has something to say before the first request, and may take its time.
                let greeting = http2::Connection::open(transport);
                let connection = tokio::time::timeout(self.connector.deadline(), greeting).await;
                self.multiplexed.add(connection.unwrap_or(Err(DialError::Timeout))?, Instant::now());
                Ok(Opened::Http2)
            }
        }
    }

    /// Closes what has been idle for too long, and what the upstream closed.
    pub fn sweep(&self, now: Instant) {
        let mut cx = Context::from_waker(Waker::noop());
        // The last have been idle for the shortest time.
        let mut behind = self.idle.borrow().len();
        self.idle.borrow_mut().retain_mut(|entry| {
            let warm = behind <= self.limits.keep_warm;
            behind -= 1;
            (warm || now.saturating_duration_since(entry.since) < self.limits.idle_timeout)
                && entry.connection.poll_rest(&mut cx)
        });
        self.multiplexed.sweep(now);
        self.earlier_peak.set(self.peak.replace(self.active.get()));
        let mut idle = self.idle.borrow_mut();
        let surplus = idle.len().saturating_sub(self.max_idle());
        // The first have been idle for longest.
        idle.drain(..surplus);
    }

    fn lease(self: &Rc<Self>, held: Held<B>) -> Lease<B> {
        let active = self.active.get() + 1;
        self.active.set(active);
        self.peak.set(self.peak.get().max(active));
        Lease::new(held, Rc::clone(self))
    }
}

impl<B: Body + 'static> Pool<B> {
    /// A burst of requests comes again in a moment: connections that it needs are not closed between its waves.
    fn max_idle(&self) -> usize {
        if self.leaves.get() {
            return 0;
        }
        self.limits.idle.max(self.peak.get()).max(self.earlier_peak.get())
    }

    /// Keeps an idle connection. The connection back, if there are enough.
    pub(super) fn put_back(
        &self,
        connection: Box<http1::Connection<B>>,
        now: Instant,
    ) -> Option<Box<http1::Connection<B>>> {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.max_idle() && connection.epoch == self.connector.epoch() {
            idle.push(Idle { connection, since: now });
            None
        } else {
            Some(connection)
        }
    }

    /// A lease has ended.
    pub(super) fn left(&self) {
        self.active.set(self.active.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::origin::Origin;
    use crate::tls::TlsClientConfig;
    use crate::upstream::{HttpVersion, UpstreamConfig, UpstreamOptions};

    #[tokio::test]
    async fn a_connection_that_is_being_opened_counts_until_nobody_waits_for_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let config = UpstreamConfig {
            origin: Origin::try_new(&["http://", &address.to_string()].concat()).expect("origin"),
            http: HttpVersion::Auto,
            tls: TlsClientConfig::default(),
            outbound_proxy: None,
            options: UpstreamOptions::default(),
        };
        let connector = Connector::try_new(&config, None, Duration::from_secs(5)).expect("a connector");
        let pool: Rc<Pool<http_body_util::Full<Bytes>>> = Pool::new(connector);
        {
            let mut one = pin!(pool.connect());
            let mut other = pin!(pool.connect());
            let cx = &mut Context::from_waker(Waker::noop());
            assert!(one.as_mut().poll(cx).is_pending() && other.as_mut().poll(cx).is_pending());
            assert_eq!((pool.active(), pool.load()), (0, 2));
            let lease = one.await.expect("connected");
            assert_eq!((pool.active(), pool.load()), (1, 2));
            drop(lease);
        }
        assert_eq!((pool.active(), pool.load()), (0, 0));
    }
}
