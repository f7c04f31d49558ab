//! Endpoints: the addresses of one upstream as one worker sees them, each with connections of its own.
//!
//! Owns: the choice of an endpoint for a request. Among origins two are drawn and the one with fewer requests under way
//! is taken; among the addresses of one name the one with the fewest, and a connection that stands before one that
//! must be opened. Addresses that are left out are taken only where there is no other.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use http::uri::Authority;
use hyper::body::Body;
use tokio::time::Instant;

use super::health::{Address, Health};
use super::{Connector, DialError, Pool, PoolLimits};

/// The most addresses of one name that are used.
const MAX_ADDRESSES: usize = 16;

/// One address.
#[derive(Debug)]
pub struct Endpoint<B: Body + 'static> {
    pub(super) pool: Rc<Pool<B>>,
    pub(super) health: Arc<Health>,
    /// The place of its origin.
    pub(super) origin: usize,
    pub(super) address: Address,
    /// Of the family that the resolver did not put first: taken where nothing of the other is left.
    second: Cell<bool>,
}

/// One origin of an upstream, and its addresses.
#[derive(Debug)]
pub(super) struct OriginWays<B: Body + 'static> {
    /// Without an address.
    pub(super) connector: Connector,
    pub(super) host: HeaderValue,
    /// For the absolute-form.
    pub(super) authority: Authority,
    pub(super) endpoints: RefCell<Vec<Rc<Endpoint<B>>>>,
    pub(super) resolution: Cell<Resolution>,
    limits: PoolLimits,
}

/// What is known of a name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Resolution {
    /// There is nothing to resolve.
    Fixed,
    /// Not yet asked.
    Never,
    /// Asked; and since when something is known, if it is.
    UnderWay(Option<Instant>),
    /// Known since.
    Known(Instant),
    /// No answer, and nothing is known.
    Failed(DialError),
}

impl Resolution {
    /// Since when the addresses are known.
    pub(super) fn known(self) -> Option<Instant> {
        match self {
            Self::Fixed | Self::Never | Self::Failed(_) => None,
            Self::UnderWay(known) => known,
            Self::Known(at) => Some(at),
        }
    }
}

impl<B> OriginWays<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn new(connector: Connector, limits: PoolLimits) -> Self {
        let authority = connector.origin().authority();
        Self {
            host: HeaderValue::try_from(authority.as_str()).expect("an origin's authority is visible ASCII"),
            authority: Authority::try_from(authority).expect("an origin's authority is one"),
            connector,
            endpoints: RefCell::default(),
            resolution: Cell::new(Resolution::Never),
            limits,
        }
    }

    /// Takes these addresses for the name's; tells which endpoints are gone. Those that stay keep their connections.
    pub(super) fn take(
        &self,
        place: usize,
        mut addresses: Vec<Address>,
        health: impl Fn(&Address) -> Arc<Health>,
    ) -> Vec<Rc<Endpoint<B>>> {
        addresses.truncate(MAX_ADDRESSES);
        let is_v6 = |address: &Address| matches!(address, Address::Ip(ip) if ip.is_ipv6());
        let leading = addresses.first().is_some_and(is_v6);
        let mut before = self.endpoints.take();
        let mut now: Vec<Rc<Endpoint<B>>> = Vec::with_capacity(addresses.len());
        for address in addresses {
            if now.iter().any(|endpoint| endpoint.address == address) {
                continue;
            }
            let second = is_v6(&address) != leading;
            let endpoint = match before.iter().position(|endpoint| endpoint.address == address) {
                Some(at) => before.swap_remove(at),
                None => Rc::new(Endpoint {
                    pool: Pool::with_limits(self.connector.at(&address), self.limits),
                    health: health(&address),
                    origin: place,
                    address,
                    second: Cell::new(second),
                }),
            };
            endpoint.second.set(second);
            now.push(endpoint);
        }
        self.endpoints.replace(now);
        before
    }
}

impl<B> Endpoint<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// The place of its origin among those of the upstream.
    pub fn origin_place(&self) -> usize {
        self.origin
    }

    /// Whether requests to it go over TLS.
    pub fn is_tls(&self) -> bool {
        self.pool.connector().is_tls()
    }

    /// What counts first when one is chosen; less is better.
    pub(super) fn rank(&self, now: u64) -> (bool, bool, usize, bool) {
        (self.health.is_out(now), self.second.get(), self.pool.load(), self.pool.idle() == 0)
    }
}

/// The best of one origin's addresses; equal ones in turn by chance.
fn best<B>(endpoints: &[Rc<Endpoint<B>>], now: u64) -> Option<&Rc<Endpoint<B>>>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut best = None;
    let mut equals = 1;
    for endpoint in endpoints {
        let rank = endpoint.rank(now);
        match &mut best {
            Some((known, _)) if *known < rank => {}
            Some((known, taken)) if *known == rank => {
                equals += 1;
                if fastrand::u32(..equals) == 0 {
                    *taken = endpoint;
                }
            }
            _ => {
                best = Some((rank, endpoint));
                equals = 1;
            }
        }
    }
    best.map(|(_, endpoint)| endpoint)
}

/// Chooses an endpoint. `None`: nothing is resolved yet. `now` is asked only where there is a choice.
#[inline]
pub(super) fn choose<B>(origins: &[OriginWays<B>], now: impl Fn() -> u64) -> Option<Rc<Endpoint<B>>>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let [origin] = origins else { return choose_origin(origins, now()) };
    match origin.endpoints.borrow().as_slice() {
        [only] => Some(Rc::clone(only)),
        endpoints => best(endpoints, now()).cloned(),
    }
}

/// The power of two choices: of two that are drawn, the one with fewer requests under way.
fn choose_origin<B>(origins: &[OriginWays<B>], now: u64) -> Option<Rc<Endpoint<B>>>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let state = |origin: &OriginWays<B>| {
        let endpoints = origin.endpoints.borrow();
        let usable = endpoints.iter().any(|endpoint| !endpoint.health.is_out(now));
        (usable, endpoints.iter().map(|endpoint| endpoint.pool.load()).sum::<usize>(), endpoints.is_empty())
    };
    // Where all are left out, none is.
    let any = origins.iter().any(|origin| state(origin).0);
    let mut drawn: [Option<(&OriginWays<B>, usize)>; 2] = [None, None];
    let mut seen = 0;
    for origin in origins {
        let (usable, active, empty) = state(origin);
        if empty || (any && !usable) {
            continue;
        }
        // Each pair has the same chance.
        let slot = if seen < 2 { seen } else { fastrand::usize(..=seen) };
        if let Some(place) = drawn.get_mut(slot) {
            *place = Some((origin, active));
        }
        seen += 1;
    }
    let origin = match drawn {
        [Some((one, few)), Some((other, more))] => match few.cmp(&more) {
            std::cmp::Ordering::Less => one,
            std::cmp::Ordering::Greater => other,
            std::cmp::Ordering::Equal => {
                if fastrand::bool() {
                    one
                } else {
                    other
                }
            }
        },
        [one, other] => one.or(other)?.0,
    };
    best(&origin.endpoints.borrow(), now).cloned()
}
