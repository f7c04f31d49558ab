//! Several addresses of one upstream, in one worker: resolved names, the race of addresses, connections kept open.
//!
//! Owns: the way on when an address cannot be reached. Nothing of a request is written before a connection stands, so
//! that any request may go to the next address. Addresses that a name no longer has lose their idle connections at
//! once and the others when they are idle.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::dial::HEAD_START;
use super::endpoint::{Endpoint, OriginWays, Resolution, choose};
use super::health::{Address, Board};
use super::{Connector, DialError, Pool, PoolLimits, Reached};

/// After so long a name is resolved again, beside the requests.
const RESOLVE_AGAIN: Duration = Duration::from_secs(30);
/// The same where the last answer was none.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// After so long it is resolved again where no address of it can be reached.
const DOUBTED_AFTER: Duration = Duration::from_secs(1);
/// After so long it is resolved before it is used.
const STALE: Duration = Duration::from_secs(60);
/// The most addresses that one connection is tried at.
const MOST_TRIED: usize = 8;
/// Between two attempts to keep a connection open.
const WARM_AGAIN: Duration = Duration::from_secs(2);

/// Where an upstream is reached.
#[derive(Debug)]
pub(super) struct Many<B: Body + 'static> {
    pub(super) origins: Vec<OriginWays<B>>,
    pub(super) board: Arc<Board>,
    /// Endpoints whose address is gone, until their last connection is.
    leaving: RefCell<Vec<Rc<Endpoint<B>>>>,
    resolved: Notify,
    /// When it was last wanted.
    used: Cell<Option<Instant>>,
    keep_warm: usize,
    warmed: Cell<Option<Instant>>,
}

impl<B> Many<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn new(
        connectors: Vec<Connector>,
        fixed: Vec<Option<Address>>,
        board: Arc<Board>,
        limits: PoolLimits,
    ) -> Self {
        let origins: Vec<_> =
            connectors.into_iter().map(|connector| OriginWays::new(connector, limits)).collect();
        for (place, (origin, address)) in origins.iter().zip(fixed).enumerate() {
            if let Some(address) = address {
                origin.take(place, vec![address], |address| board.health(place, address));
                origin.resolution.set(Resolution::Fixed);
            }
        }
        Self {
            origins,
            board,
            leaving: RefCell::default(),
            resolved: Notify::new(),
            used: Cell::new(None),
            keep_warm: limits.keep_warm,
            warmed: Cell::new(None),
        }
    }

    pub(super) async fn connect(
        self: &Rc<Self>,
        first: Option<Rc<Endpoint<B>>>,
        spend: impl Fn() -> bool,
    ) -> Result<Reached<B>, DialError> {
        let now = Instant::now();
        self.used.set(Some(now));
        self.resolve(now).await;
        let order = self.order(first, now);
        let failed = match self.reach(order.clone(), &spend).await {
            Ok(reached) => return Ok(reached),
            Err(error) => error,
        };
        // A name that leads to nothing may have moved.
        if !self.doubt(now) {
            return Err(failed);
        }
        self.resolve(Instant::now()).await;
        let mut moved = self.order(None, Instant::now());
        moved.retain(|endpoint| !order.iter().any(|tried| Rc::ptr_eq(tried, endpoint)));
        if moved.is_empty() { Err(failed) } else { self.reach(moved, &spend).await }
    }

    async fn reach(
        &self,
        order: Vec<Rc<Endpoint<B>>>,
        spend: impl Fn() -> bool,
    ) -> Result<Reached<B>, DialError> {
        match order.as_slice() {
            [] => Err(self.resolution_error()),
            [only] => match only.pool.connect().await {
                Ok(lease) => Ok(Reached { lease, endpoint: Some(Rc::clone(only)) }),
                Err(error) => {
                    self.board.failed(&only.health, Instant::now());
                    Err(error)
                }
            },
            _ => self.race(order, spend).await,
        }
    }

    /// Takes names that were resolved a while ago for stale; whether there is one.
    fn doubt(&self, now: Instant) -> bool {
        let mut any = false;
        for origin in &self.origins {
            if let Resolution::Known(at) = origin.resolution.get()
                && now.saturating_duration_since(at) >= DOUBTED_AFTER
                && let Some(long_ago) = now.checked_sub(STALE)
            {
                origin.resolution.set(Resolution::Known(long_ago));
                any = true;
            }
        }
        any
    }

    /// In which order addresses are tried.
    fn order(&self, first: Option<Rc<Endpoint<B>>>, now: Instant) -> Vec<Rc<Endpoint<B>>> {
        let millis = self.board.millis(now);
        let mut order: Vec<_> =
            self.origins.iter().flat_map(|origin| origin.endpoints.borrow().clone()).collect();
        // What was chosen may be gone, or be another's by now.
        let first = first.filter(|first| order.iter().any(|endpoint| Rc::ptr_eq(endpoint, first)));
        let Some(first) = first.or_else(|| choose(&self.origins, || millis)) else { return order };
        fastrand::shuffle(&mut order);
        order.sort_by_key(|endpoint| (!Rc::ptr_eq(endpoint, &first), endpoint.rank(millis)));
        order.truncate(MOST_TRIED);
        order
    }

    /// Tries one address after the other, the next one also where one is slow (RFC 8305, 5).
    async fn race(
        &self,
        order: Vec<Rc<Endpoint<B>>>,
        spend: impl Fn() -> bool,
    ) -> Result<Reached<B>, DialError> {
        let mut attempts = JoinSet::new();
        // With the count of what was reached before: a handshake may be slow.
        let mut tried: Vec<(Rc<Endpoint<B>>, u64)> = Vec::new();
        let unreached =
            |(endpoint, before): &(Rc<Endpoint<B>>, u64)| endpoint.pool.connector().reached() == *before;
        let mut last = DialError::Unreachable;
        let mut waiting = order.into_iter();
        let mut next = waiting.next();
        loop {
            if let Some(endpoint) = next.take() {
                tried.push((Rc::clone(&endpoint), endpoint.pool.connector().reached()));
                attempts.spawn_local(async move { (endpoint.pool.connect().await, endpoint) });
            } else if attempts.is_empty() {
                return Err(last);
            }
            tokio::select! {
                Some(attempt) = attempts.join_next() => match attempt {
                    Ok((Ok(lease), endpoint)) => {
                        let late = tried.iter().filter(|late| !Rc::ptr_eq(&late.0, &endpoint) && unreached(late));
                        late.for_each(|(late, _)| self.board.failed(&late.health, Instant::now()));
                        return Ok(Reached { lease, endpoint: Some(endpoint) });
                    }
                    Ok((Err(error), endpoint)) => {
                        tracing::debug!(address = %endpoint.address, %error, "an upstream address cannot be reached");
                        self.board.failed(&endpoint.health, Instant::now());
                        tried.retain(|(tried, _)| !Rc::ptr_eq(tried, &endpoint));
                        last = error;
                        next = waiting.next().filter(|_| spend());
                    }
                    Err(_) => {}
                },
                () = tokio::time::sleep(HEAD_START), if waiting.len() > 0 => {
                    if tried.last().is_some_and(unreached) {
                        next = waiting.next().filter(|_| spend());
                    }
                }
            }
        }
    }

    /// Waits until an address is known that is not too old, or until there is nothing to wait for.
    pub(super) async fn resolve(self: &Rc<Self>, now: Instant) {
        for (place, origin) in self.origins.iter().enumerate() {
            match origin.resolution.get() {
                Resolution::Fixed | Resolution::UnderWay(_) => {}
                Resolution::Known(at) if now.saturating_duration_since(at) < RESOLVE_AGAIN => {}
                _ => self.ask(place),
            }
        }
        let fresh = |origin: &OriginWays<B>| match origin.resolution.get() {
            Resolution::Fixed => true,
            other => other.known().is_some_and(|at| now.saturating_duration_since(at) < STALE),
        };
        let under_way = |origin: &OriginWays<B>| matches!(origin.resolution.get(), Resolution::UnderWay(_));
        while !self.origins.iter().any(fresh) && self.origins.iter().any(under_way) {
            self.resolved.notified().await;
        }
    }

    /// Resolves the name of an origin, in a task of its own: who waits for it may go away.
    fn ask(self: &Rc<Self>, place: usize) {
        let before = self.origins[place].resolution.get().known();
        self.origins[place].resolution.set(Resolution::UnderWay(before));
        let many = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let origin = &many.origins[place];
            let answer = origin.connector.resolve().await;
            origin.resolution.set(match answer {
                Ok(addresses) => {
                    let addresses = addresses.into_iter().map(Address::Ip).collect();
                    let gone = origin.take(place, addresses, |address| many.board.health(place, address));
                    gone.iter().for_each(|endpoint| endpoint.pool.leave());
                    many.leaving.borrow_mut().extend(gone);
                    Resolution::Known(Instant::now())
                }
                Err(error) => {
                    tracing::debug!(origin = %origin.connector.origin(), %error, "the name of an upstream was not resolved");
                    // What was right a moment ago is better than nothing: it stays, and is asked for again soon.
                    let now = Instant::now();
                    let back = RESOLVE_AGAIN.saturating_sub(AFTER_FAILURE);
                    before.map_or(Resolution::Failed(error), |_| {
                        Resolution::Known(now.checked_sub(back).unwrap_or(now))
                    })
                }
            });
            many.resolved.notify_waiters();
        });
    }

    fn resolution_error(&self) -> DialError {
        let failed = |origin: &OriginWays<B>| match origin.resolution.get() {
            Resolution::Failed(error) => Some(error),
            _ => None,
        };
        self.origins.iter().find_map(failed).unwrap_or(DialError::Dns)
    }

    pub(super) fn is_shared(&self) -> bool {
        let shared = |endpoint: &Rc<Endpoint<B>>| endpoint.pool.is_shared();
        self.origins.iter().any(|origin| origin.endpoints.borrow().iter().any(shared))
    }

    pub(super) fn sum(&self, of: impl Fn(&Pool<B>) -> usize) -> usize {
        let mut sum = 0;
        self.each(|endpoint| sum += of(&endpoint.pool));
        sum
    }

    fn each(&self, mut see: impl FnMut(&Rc<Endpoint<B>>)) {
        for origin in &self.origins {
            origin.endpoints.borrow().iter().for_each(&mut see);
        }
        self.leaving.borrow().iter().for_each(see);
    }

    /// Closes what is idle for too long, resolves names again while they are used, keeps connections open.
    pub(super) fn sweep(self: &Rc<Self>, now: Instant) {
        self.each(|endpoint| endpoint.pool.sweep(now));
        self.leaving.borrow_mut().retain(|endpoint| endpoint.pool.active() + endpoint.pool.idle() > 0);
        let connections = self.sum(|pool| pool.active() + pool.idle());
        let recent = |at: Instant, limit| now.saturating_duration_since(at) < limit;
        if connections > 0 || self.used.get().is_some_and(|at| recent(at, STALE)) {
            for (place, origin) in self.origins.iter().enumerate() {
                let again = match origin.resolution.get() {
                    Resolution::Fixed | Resolution::UnderWay(_) => false,
                    Resolution::Never | Resolution::Failed(_) => true,
                    Resolution::Known(at) => !recent(at, RESOLVE_AGAIN),
                };
                if again {
                    self.ask(place);
                }
            }
        }
        if connections < self.keep_warm && !self.warmed.get().is_some_and(|at| recent(at, WARM_AGAIN)) {
            self.warmed.set(Some(now));
            let many = Rc::clone(self);
            tokio::task::spawn_local(async move {
                if let Ok(Reached { mut lease, .. }) = many.connect(None, || true).await {
                    // Not before it was moved on once is it ready for a request.
                    lease.drive(&mut Context::from_waker(Waker::noop()));
                    lease.release(Instant::now());
                }
            });
        }
    }
}
